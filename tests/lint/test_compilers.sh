#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_compilers.sh BUILD: every source compiles without a warning with both compilers, with the Makefile's own flags. The
# objects are kept beside the build, so that only what changed is compiled again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/report.sh
. "$here/report.sh"
build=$(realpath -m "${1:-build}")
cd "$here/../.."

objects() {     # objects COMPILER
        local log=$build-$1/log

        mkdir -p "$build-$1"
        # -O0: a front end's warnings are wanted, soon; _FORTIFY_SOURCE is for optimized code
        plain_make -k -j2 objects CC="$1" OPT=-O0 HARDEN= BUILD="$build-$1" > "$log" 2>&1 && return
        grep -E '(error|warning):' "$log" || tail -5 "$log"
}

cc=${CC:-gcc}
for compiler in gcc clang; do
        if ! command -v "$compiler" > /dev/null; then
                skip "the_tree_compiles_with_$compiler" "$compiler is not installed"
        elif [ "$compiler" = "${cc##* }" ] && [ -e "$build/iommud" ]; then
                pass "the_tree_compiles_with_$compiler" # it just did: this build is its
        else
                objects "$compiler" | check "the_tree_compiles_with_$compiler"
        fi
done
finish
