#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_headers.sh BUILD: every header compiles alone. The public one needs nothing but a C11 or C++11 compiler; a private
# one names all that it uses, so that the order of includes never matters.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/report.sh
. "$here/../lint/report.sh"
build=$(realpath "${1:-build}")
cd "$here/../.."

# public COMPILER LANGUAGE STANDARD: with the SDK's own folder only, so that no private header can be found
public() {
        local header

        if ! command -v "$1" > /dev/null; then
                skip "public_headers_compile_with_${1//+/x}" "$1 is not installed"
                return
        fi
        while read -r header; do
                "$1" -x "$2" "-std=$3" -pedantic -Wall -Wextra -Werror -fsyntax-only -Isdk/include \
                        -include "$header" /dev/null 2>&1 | grep -E 'error|warning' | sed "s|^|$header: |" || true
        done < <(cd sdk/include && find . -name '*.h') | check "public_headers_compile_with_${1//+/x}"
}

public gcc c c11
public clang c c11
public g++ c++ c++11
public clang++ c++ c++11

# private HEADER: prints what the compiler says
private() {
        gcc -D_GNU_SOURCE -std=gnu17 -Wall -Wextra -Werror -fsyntax-only -Iservice -Iproto -Idb "-I$1/gen" -Isdk/include \
                -x c -include "$2" /dev/null 2>&1 | grep -E 'error|warning' | sed "s|^|$2: |" || true
}
export -f private
find service db sdk proto -name '*.h' ! -path 'sdk/include/*' | sort |
        xargs -P 2 -I{} bash -c 'private "$@"' private "$build" {} | check every_private_header_compiles_alone
finish
