#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_style.sh [BUILD]: what can be said of the text alone. Each violation is one line with its place.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/report.sh
. "$here/report.sh"
cd "$here/../.."

FUNCTION_LINES=70
FILE_LINES=600
LINE_BYTES=132

mapfile -t product < <(find service sdk db proto -name '*.[ch]' | sort)
mapfile -t tests < <(find tests -name '*.[ch]' | sort)
mapfile -t scripts < <(grep -rlE --exclude-dir='build*' '^#!/bin/(ba)?sh' .ci packaging tests db | sort)

# A function begins at a line in column 0 that ends, there or some lines on, in ") {", and ends at "}" in column 0.
awk -v most=$FUNCTION_LINES '
        FNR == 1 || /^}/ {
                if (/^}/ && body && FNR - start + 1 > most)
                        print FILENAME ":" start ": a function of " FNR - start + 1 " lines, more than " most
                start = body = 0
        }
        /^[a-zA-Z_]/ && !body { start = FNR }
        /\) \{$/ && start && !body { body = 1 }
' "${product[@]}" | check no_function_is_longer_than_a_screen

awk -v most=$FILE_LINES '
        FNR == most + 1 { print FILENAME ": more than " most " lines" }
' "${product[@]}" | check no_file_is_longer_than_one_can_read

awk -v most=$LINE_BYTES 'length($0) > most { print FILENAME ":" FNR ": " length($0) " bytes, more than " most }' \
        "${product[@]}" "${tests[@]}" | check no_line_is_longer_than_132_bytes

{ grep -nE '^ *	' "${product[@]}" "${tests[@]}" | sed 's/^\([^:]*:[0-9]*\):.*/\1: indented with a tab/' || true; } |
        check c_is_indented_with_spaces

{ grep -nE '[[:blank:]]+$' "${product[@]}" "${tests[@]}" "${scripts[@]}" | sed 's/^\([^:]*:[0-9]*\):.*/\1: blanks at the end/' || true; } |
        check no_line_ends_in_blanks

# Everything that is a program, in any language, says its licence within the first lines.
find Makefile .ci proto service sdk db packaging tests -type f \
        \( -name '*.[ch]' -o -name '*.sh' -o -name '*.proto' -o -name '*.sql' -o -name '*.mk' -o -name 'Makefile' -o -name '*.[1-8]' \
        -o -name '*.map' -o -name '*.py' -o -name '*.pml' -o -path '.ci/*' -o -path 'tests/vm/lanes/*' -o -path 'tests/lint/*' \) |
        sort | while read -r file; do
                head -5 "$file" | grep -q 'SPDX-License-Identifier: Apache-2.0' || echo "$file: no SPDX line"
        done | check every_source_file_names_its_licence

# The brackets keep this line from being found.
{ grep -rnwE --exclude-dir='build*' 'TOD[O]|FIXM[E]|XX[X]' Makefile .ci proto service sdk db packaging tests || true; } |
        check nothing_is_left_to_be_done_later

# Functions that write without a bound; alloca() too, as arrays of variable length are refused by -Wvla already.
unbounded() {
        { grep -noE '\b(strcpy|strcat|stpcpy|sprintf|vsprintf|gets|alloca)[[:blank:]]*\(' "${product[@]}" || true; } |
                sed -E 's/^([^:]+):[0-9]+:([a-z]+).*/\1 \2/' | sort | uniq -c | awk '{ print $2, $3, $1 }'
}
allowed() {
        grep -v '^#' "$here/strcpy.allowed" | awk '{ print $1, $2, $3 }' | sort
}
{ diff <(allowed) <(unbounded) || true; } | sed -n 's/^< \(.*\)/strcpy.allowed has \1, the tree has not/p; s/^> \(.*\)/the tree has \1, strcpy.allowed has not/p' |
        check every_copy_without_a_bound_has_a_reason

if command -v shellcheck > /dev/null; then
        { shellcheck -x -P SCRIPTDIR -S warning -f gcc "${scripts[@]}" || true; } | check shellcheck_finds_nothing
else
        skip shellcheck_finds_nothing "shellcheck is not installed"
fi
finish
