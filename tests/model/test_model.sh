#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_model.sh [BUILD]: the models hold, have been where it matters, and find every mistake that was put into them.
# test_model.sh BUILD MODEL MISTAKE: tells the shortest story of how the mistake shows (RIGHT: of the model as it is).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/report.sh
. "$here/../lint/report.sh"
build=${1:-build}

# Three that every reader of the design would like to see caught, and more that somebody could make, or had made.
mistakes=(
        operations:ACK_BEFORE_COMMIT            # sends, and so answers, before the intent is in the ledger
        operations:REFUND_BEFORE_UNMAP          # gives the charge back when the unmap is asked for
        operations:REDO_MAP                     # recovery does an open map again
        operations:HOLDER_FORGETS               # a repeated sequence number is carried out again
        operations:LAZY_FORGOTTEN               # recovery takes an unmap that is not flushed for one that did not happen
        operations:FLUSH_UNWAITED               # recovery flushes, and takes it for done when it has asked for it
        operations:UNMAP_ONCE                   # revocation does not wait for the holder's end
        operations:UNMAP_IN_PARTS               # an unmap in several operations, of which the last has the key
        operations:SETTLE_PASSED                # an intent is committed although a settle before it could not be
        operations:QUARANTINE_SETTLED           # recovery settles what was done by half
        devices:FD_BEFORE_ACK                   # the client gets its device before the broker has one
        devices:UNMAP_ONCE                      # as above: the lease is given up while the holder still runs
        devices:ORPHAN_FORGOTTEN                # the rows go while the client's fd keeps the container
        devices:NO_PROBE                        # a restarted broker believes that what it has no rows of is free
)
MEMORY_MB=1500

# checker MODEL SPINFLAG CFLAGS...: makes a checker in a folder of its own, whose name it prints.
checker() {
        local model=$1 flag=$2 folder=$build/model/$1-${2#-D}

        shift 2
        rm -rf "$folder"
        mkdir -p "$folder"
        cp "$here/$model.pml" "$here/reached.pml" "$folder/"
        (
                cd "$folder"
                spin "$flag" -a "$model.pml"
                gcc -w -DSAFETY -DNOREDUCE -DMEMLIM=$MEMORY_MB "$@" -o checker pan.c
        ) > "$folder/making" 2>&1 || { cat "$folder/making" >&2; return 1; }
        echo "$folder"
}

# story FOLDER MODEL SPINFLAG: what happens on the trail, one line a step.
story() {
        (cd "$1" && spin -t "$3" "$2.pml") > "$1/story" 2>&1 || true
        sed '/^#processes/,$d; s/^ *//' "$1/story"
}

# Breadth first: the trail that is found is a shortest one. 0: an assertion is violated, and the first line says which.
find_mistake() {
        local model=${1%%:*} flag=-D${1##*:} folder line

        folder=$(checker "$model" "$flag" -O0 -DBFS)
        (cd "$folder" && ./checker -w20 > out 2>&1) || true
        if ! grep -q 'assertion violated' "$folder/out" || [ ! -s "$folder/$model.pml.trail" ]; then
                echo "$1: no assertion is violated"
                tail -40 "$folder/out"
                return 1
        fi
        story "$folder" "$model" "$flag" > "$folder/steps"
        line=$(sed -n "s/^spin: $model.pml:\([0-9]*\), Error: assertion violated.*/\1/p" "$folder/steps" | head -1)
        printf '%s: %s steps, then: %s\n' "$1" "$(grep -vc '^spin:' "$folder/steps")" \
                "$(sed -n "${line}s/^ *\(assert.*;\).*/\1/p" "$folder/$model.pml")"
        grep -v '^spin: text' "$folder/steps"
}

# Every place that marks itself, as the preprocessor leaves them: what belongs to a mistake is not there.
places() {
        gcc -E -x c -DREACHED "$1" | grep -o 'mark([0-9]*, [^)]*' | sed 's/mark(\([0-9]*\), "\(.*\)"$/line \1: \2/'
}

# The whole state space. Prints what is wrong; how large it was goes to the log.
check_right() {
        local model=$1 folder

        folder=$(checker "$model" -DREACHED -O1) || { echo "$model.pml cannot be compiled"; return; }
        (cd "$folder" && ./checker -m1000000 -w22 > out 2>&1) || true
        sed -n "s/^State-vector.*depth reached \([0-9]*\), errors: \([0-9]*\)/$model: depth \1, \2 errors/p
                s/^ *\([0-9.e+]*\) states, stored.*/$model: \1 states/p
                s/^ *\([0-9.]*\).*total actual memory usage/$model: \1 MB/p
                s/^pan: elapsed time/$model:/p" "$folder/out" >&2
        if ! grep -q ', errors: 0$' "$folder/out"; then
                sed '/^unreached/,$d' "$folder/out"
                find_mistake "$model:RIGHT" || true
        fi
        grep -E 'max search depth too small|reached -DMEMLIM|out of memory|search was truncated' "$folder/out" || true
        comm -23 <(places "$folder/$model.pml" | sort -u) <(sed -n 's/^reached: //p' "$folder/out" | sort -u) |
                sed "s/^/$model.pml: never reached: /"
        awk '/^unreached in/ { process = $NF }
                /, state [0-9]+,/ && !/"-end-"/ { print process ": never reached: " $0 }' "$folder/out"
}

if ! command -v spin > /dev/null; then
        skip the_models_hold "spin is not installed (packaging/install-deps.sh check)"
        finish
        exit
fi
if [ $# -eq 3 ]; then
        find_mistake "$2:$3" || true
        exit
fi

mkdir -p "$build/model"
(for mistake in "${mistakes[@]}"; do
        find_mistake "$mistake" > "$build/model/$mistake.found" 2>&1 && status=0 || status=$?
        echo "$status" > "$build/model/$mistake.status"
done) &
check_right devices | check in_devices_nothing_is_violated_and_all_is_reached
check_right operations | check in_operations_nothing_is_violated_and_all_is_reached
wait
for mistake in "${mistakes[@]}"; do
        said=$build/model/$mistake.found
        if [ "$(cat "$build/model/$mistake.status")" = 0 ]; then
                head -1 "$said"
                said=/dev/null
        fi
        check "$(tr ':A-Z' '_a-z' <<< "$mistake")_is_found" < "$said"
done
finish
