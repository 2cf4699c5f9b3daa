# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced by the gates of tests/lint and tests/abi: says what tests/run.sh counts, in cmocka's words. A gate ends with
# `finish`. A check's name is a sentence that is true when it passes.

failures=0
shopt -s lastpipe       # `... | check NAME` counts in this shell

pass() {        # pass NAME
        printf '[       OK ] %s\n' "$1"
}

fail() {        # fail NAME: named twice, as cmocka does
        printf '[  FAILED  ] %s\n' "$1" "$1"
        failures=$((failures + 1))
}

skip() {        # skip NAME REASON
        printf '[  SKIPPED ] %s\nskipped: %s: %s\n' "$1" "$1" "$2"
}

# check NAME: standard input has what is wrong, one line each; nothing is a pass.
check() {
        local wrong

        wrong=$(cat)
        if [ -z "$wrong" ]; then
                pass "$1"
                return
        fi
        printf '%s\n' "$wrong"
        fail "$1"
}

# A make of its own, that does not inherit the flags and job slots of the one that called us.
plain_make() {
        env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make --no-print-directory "$@"
}

finish() {
        [ "$failures" -eq 0 ]
}
