#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_man.sh [BUILD]: manual pages are well formed, and what they refer to among our own exists.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/report.sh
. "$here/../lint/report.sh"
cd "$here/../.."

mapfile -t pages < <(find sdk/man service/man -name '*.[1-8]' 2> /dev/null | sort)
if [ "${#pages[@]}" -eq 0 ]; then
        fail there_are_manual_pages
        finish
fi
if command -v mandoc > /dev/null; then
        { mandoc -Tlint -Wwarning "${pages[@]}" 2>&1 || true; } | check mandoc_finds_nothing
else
        skip mandoc_finds_nothing "mandoc is not installed"
fi

# .Xr NAME SECTION: one of ours is a page, or a name on one
{ grep -hE '^\.Xr (lib)?iommu' "${pages[@]}" || true; } | awk '{ print $2, $3 }' | sort -u | while read -r name section; do
        printf '%s\n' "${pages[@]}" | grep -q "/$name\.$section$" || grep -lE "^\.Nm $name( ,)?$" "${pages[@]}" | grep -q "\.$section$" || echo "$name($section) is referred to and does not exist"
done | check references_among_our_pages_exist
finish
