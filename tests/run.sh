#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh BUILD PROGRAM...: runs test programs, JOBS at a time, and adds up what cmocka says of each. A program that ends
# without cmocka's summary (crash, sanitizer report, time limit) counts as one failure. Scripts (*.sh) are gates that
# speak like cmocka; they get BUILD. The last line is "N passed, N failed" (", N skipped" when something was).
set -euo pipefail

build=$1
shift
jobs=${JOBS:-2}
limit=${TEST_TIMEOUT:-240}
logs=${TEST_LOGS:-$build/test-logs}
# gRPC is not instrumented: what it does inside itself is not for the thread sanitizer to judge
export TSAN_OPTIONS=${TSAN_OPTIONS:-ignore_noninstrumented_modules=1}
mkdir -p "$logs"

run_one() {
        local program=$1 log=$2 status=0 arguments=()

        [ "${program%.sh}" = "$program" ] || arguments=("$build")       # a gate wants to know what was built
        timeout -k 5 "$limit" "$program" "${arguments[@]}" > "$log" 2>&1 || status=$?
        echo "$status" > "$log.status"
}

count() {       # count LOG PATTERN: how many lines begin with it
        grep -c "^$2" "$1" || true
}

names=()
for program in "$@"; do
        name=${program#"$build"/}
        name=${name#tests/}
        names+=("$name")
        run_one "$program" "$logs/${name//\//-}.log" &
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
                wait -n || true
        done
done
wait

passed=0 failed=0 skipped=0
for name in "${names[@]}"; do
        log=$logs/${name//\//-}.log
        p=$(count "$log" '\[       OK \]') f=$(count "$log" '\[  FAILED  \] [a-z_0-9A-Z]*$') s=$(count "$log" '\[  SKIPPED \] [a-z_0-9A-Z]*$')
        [ "$f" -eq 0 ] || f=$(((f + 1) / 2))    # cmocka names each failed test twice
        status=$(cat "$log.status")
        if [ "$status" != 0 ] && [ "$f" -eq 0 ]; then
                f=1
        fi
        passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
        if [ "$f" -eq 0 ]; then
                printf '  ok    %-44s %3d\n' "$name" "$p"
        else
                printf '  FAIL  %-44s %3d of %d, exit %s\n' "$name" "$f" $((p + f)) "$status"
                sed 's/^/        /' "$log" | { grep -v '\[ RUN \|\[       OK ' || true; } | tail -40
        fi
        grep -h 'skipped:' "$log" | sed 's/^/        /' || true
done
summary="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || summary+=", $skipped skipped"
echo "$summary"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
