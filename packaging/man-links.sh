#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# man-links.sh MANDIR: one page name for every function: `man iommud_unmap` finds the page of its call family.
set -euo pipefail

for page in "$1"/man3/*.3; do
        while read -r name; do
                [ -e "$1/man3/$name.3" ] || echo ".so man3/$(basename "$page")" > "$1/man3/$name.3"
        done < <(sed -n 's/^\.Nm \(iommud_[a-z_]*\).*/\1/p' "$page" | sort -u)
done
