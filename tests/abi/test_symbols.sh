#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_symbols.sh BUILD: the library exports what the version map names, which is what the header declares and the manual
# describes, and nothing else.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/report.sh
. "$here/../lint/report.sh"
build=$(realpath "${1:-build}")
cd "$here/../.."

temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
so=$build/libiommud.so.0

# A: the version itself, an absolute symbol. Names without version are listed too: there must be none.
nm -D --defined-only "$so" | awk '$2 != "A" { print $3 }' | sort > "$temp/exported"
sed 's/@.*//' "$temp/exported" > "$temp/so"
sed -n '/global:/,/local:/p' sdk/libiommud.map | sed -n 's/^[[:blank:]]*\([a-z_0-9]*\);.*/\1/p' | sort > "$temp/map"
# one declaration can take several lines: IOMMUD_API ... name(
grep -v '^#' sdk/include/iommud/iommud.h | tr '\n' ' ' | grep -oE 'IOMMUD_API [^;(]*\(' | sed -E 's/.*[ *]([a-z_0-9]+)\($/\1/' | sort > "$temp/header"
cat sdk/man/*.3 | awk '/^\.Sh / { name = $3 == "NAME" || $2 == "NAME" } name && $1 == ".Nm" { print $2 }' | sort > "$temp/man"

same() {        # same NAME A B: two lists of names
        { diff --label "in $2" --label "in $3" -U0 "$temp/$2" "$temp/$3" | grep -v '^@@' || true; } | check "$1"
}

{ grep -c . "$temp/so" > /dev/null || echo "$so exports nothing"; } | check the_library_exports_something
same exports_are_what_the_version_map_names so map
same declarations_are_what_the_version_map_names header map
same manual_pages_describe_what_is_declared man header
{ uniq -d "$temp/man" | sed 's/$/: on more than one page/'; } | check no_function_has_two_manual_pages
{ grep -v '^iommud_' "$temp/so" || true; } | check every_export_has_our_prefix
{ grep -v '@@IOMMUD_[0-9.]*$' "$temp/exported" || true; } | check every_export_has_a_version

# Undefined symbols can only come from what the library is linked with.
{ readelf -d "$so" | grep -q 'SONAME.*\[libiommud.so.0\]' || echo "no SONAME libiommud.so.0"; } | check the_soname_is_that_of_the_abi

# In a static link all symbols of the archive are global: those that are ours must not meet those of a program.
{ nm -g --defined-only "$build/libiommud.a" 2> /dev/null | awk 'NF == 3 { print $3 }' |
        grep -vE '^(iommud_|iommud__|sdk_|grpc__health__|__(asan|ubsan|tsan|odr_asan|gcov)|DW\.ref)' || true; } | sort -u |
        check symbols_of_the_static_library_have_a_prefix
finish
