#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_pkgconfig.sh BUILD: installed below another root, the library is found by pkg-config, and the smallest example is
# built with it, shared and static.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/report.sh
. "$here/../lint/report.sh"
build=$(realpath "${1:-build}")
cd "$here/../.."

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

if nm "$build/libiommud.a" 2> /dev/null | grep -E ' U __(asan|tsan|ubsan|gcov)_' > /dev/null; then
        skip the_example_builds_from_the_installed_files "a sanitizer or coverage build is not what is installed"
        exit 0
fi
if ! plain_make -q install BUILD="$build" DESTDIR="$root" > /dev/null 2>&1 &&
   ! plain_make -n install BUILD="$build" DESTDIR="$root" > /dev/null 2>&1; then
        skip the_example_builds_from_the_installed_files "there is no target install yet"
        exit 0
fi
plain_make install BUILD="$build" DESTDIR="$root" > "$root/log" 2>&1 || tail -5 "$root/log" | check the_files_install

pc=$(find "$root" -name libiommud.pc)
export PKG_CONFIG_SYSROOT_DIR=$root PKG_CONFIG_PATH=${pc%/*}
# the folders below the root would be taken for the system's own, and left out
export PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1

{ grep -n '@[A-Z]*@' "$pc" || true; } | check every_variable_of_the_pc_file_is_filled_in
{ pkg-config --validate libiommud 2>&1 || true; } | check the_pc_file_is_valid

compile() {     # compile OUTPUT FLAG...: the example as a stranger would build it; prints what is wrong
        local output=$1

        shift
        gcc -std=c11 -pedantic -Wall -Wextra -Werror -o "$output" sdk/examples/map_minimal.c "$@" 2>&1 | grep -E 'error|warning|undefined' || true
}
# shellcheck disable=SC2046    # flags are words
compile "$root/shared" $(pkg-config --cflags --libs libiommud) | check the_example_links_with_the_shared_library
# shellcheck disable=SC2046
compile "$root/static" $(pkg-config --static --cflags --libs libiommud | sed 's/-liommud\b/-l:libiommud.a/') |
        check the_example_links_with_the_static_library

needs() {
        readelf -d "$1" | grep -q 'NEEDED.*libiommud'
}
{ needs "$root/shared" || echo "the shared one does not need libiommud.so"; } | check the_shared_one_needs_the_library
{ ! needs "$root/static" || echo "the static one needs libiommud.so"; } | check the_static_one_does_not

libraries=$(find "$root" -name 'libiommud.so.0')
libraries=${libraries%/*}
# Both start, and say that there is no service, rather than something about symbols.
for kind in shared static; do
        { if LD_LIBRARY_PATH=$libraries IOMMUD_DIR=$root/none "$root/$kind" > "$root/said" 2>&1; then
                echo "$kind: succeeds without a service"
          fi
          grep -iE 'symbol|shared librar' "$root/said" || true; } | check "the_${kind}_example_starts"
done
finish
