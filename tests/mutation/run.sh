#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh [NAME...]: applies the mutations of that name, or all, and expects the named tests to fail (README.md). Works in a
# copy of the tree, JOBS mutations at a time. The last line is "N passed, N failed".
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
jobs=${JOBS:-2}
limit=${TEST_TIMEOUT:-120}

field() {       # field MUTATION NAME
        sed -n "/^--- old/q; s/^$2: *//p" "$here/mutations/$1"
}

if [ "${1:-}" = --list ]; then
        for mutation in "$here"/mutations/*; do
                name=${mutation##*/}
                printf '%-36s %-48s %s\n' "$name" "$(field "$name" test | cut -d' ' -f1)" "$(field "$name" what)"
        done
        exit 0
fi
names=("$@")
if [ $# -eq 0 ]; then
        mapfile -t names < <(cd "$here/mutations" && ls)
fi
for name in "${names[@]}"; do
        [ -e "$here/mutations/$name" ] || { echo "there is no mutation $name" >&2; exit 2; }
done

temp=$(mktemp -d)
chmod 711 "$temp"       # tests run clients as other users below it
trap 'rm -rf "$temp"' EXIT

# Quick: less time in the compiler, and no warnings about what is broken on purpose. The flags and job slots of a make that
# called us are not for this one.
build() {       # build TREE TARGET...
        local tree=$1

        shift
        env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS make --no-print-directory -C "$tree" -k -j "$jobs" \
                CC="${CC:-gcc}" BUILD=build OPT=-O1 WARNINGS=-w HARDEN= "${@/#/build/}"
}

# The tree as it is, with what is not committed yet; without what git ignores.
copy_tree() {
        mkdir "$1"
        (cd "$root" && git ls-files -co --exclude-standard -z | while IFS= read -r -d '' file; do
                [ ! -e "$file" ] || printf '%s\0' "$file"
        done | xargs -0 cp -p --parents -t "$1")
}

# run_test TREE PROGRAM LOG [CASE]: all of it, or that case. What a test that crashes leaves behind goes with the rest.
run_test() {
        (cd "$1" && TMPDIR=$temp CMOCKA_TEST_FILTER=${4:-} timeout -k 5 "$limit" "build/tests/$2" > "$3" 2>&1)
}

ok() {
        printf '[       OK ] mutation %s is caught by %s\n' "$1" "$2"
        echo 1 >> "$temp/passed"
}

wrong() {       # wrong NAME WHY [LOG]
        printf '[  FAILED  ] mutation %s: %s\n' "$1" "$2"
        [ -z "${3:-}" ] || sed 's/^/        /' "$3" | tail -15
        echo 1 >> "$temp/failed"
}

# fits PROGRAM [CASE]: it passed before anything was broken, and so can prove something
fits() {
        if [ -n "$2" ]; then
                grep -qxF "[       OK ] $2" "$temp/log.unbroken.${1//\//-}"
        elif grep -qxF "$1" "$temp/unfit"; then
                return 1
        fi
}

# judge NAME TREE: one mutation, from clean to clean
judge() {
        local name=$1 tree=$2 log=$temp/log.$1 file program case status=0

        file=$(field "$name" file)
        read -r program case <<< "$(field "$name" test)"
        if ! fits "$program" "$case"; then
                wrong "$name" "$program${case:+ $case} does not pass on the unbroken code"
                return
        fi
        cp -p "$tree/$file" "$temp/original.$name"
        if ! perl "$here/apply.pl" "$here/mutations/$name" "$tree" 2> "$log"; then
                wrong "$name" "$(cat "$log")"
                return
        fi
        if ! build "$tree" "tests/$program" iommud iommud-holder > "$log" 2>&1; then
                wrong "$name" "does not build" "$log"
        else
                run_test "$tree" "$program" "$log" "$case" || status=$?
                if [ "$status" -eq 0 ]; then
                        wrong "$name" "nobody noticed: $program${case:+ $case} passes"
                elif [ -n "$case" ] && [ "$status" -ne 124 ] && ! grep -qE "^\[  (FAILED  |ERROR   )\] $case\$" "$log"; then
                        wrong "$name" "$program fails, but not in $case" "$log"
                else
                        ok "$name" "$program${case:+ $case}"
                fi
        fi
        cp "$temp/original.$name" "$tree/$file"         # newer than what was built of it
}

copy_tree "$temp/tree.0"
for name in "${names[@]}"; do
        field "$name" test | cut -d' ' -f1
done | sort -u > "$temp/programs"
echo "building $(wc -l < "$temp/programs") test programs"
mapfile -t targets < <(sed 's|^|tests/|' "$temp/programs")
if ! build "$temp/tree.0" iommud iommud-holder "${targets[@]}" > "$temp/log" 2>&1; then
        tail -30 "$temp/log"
fi
for ((i = 1; i < jobs; i++)); do
        cp -a "$temp/tree.0" "$temp/tree.$i"
done

touch "$temp/unfit" "$temp/passed" "$temp/failed"
while read -r program; do
        while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
                wait -n || true
        done
        { run_test "$temp/tree.0" "$program" "$temp/log.unbroken.${program//\//-}" || echo "$program" >> "$temp/unfit"; } &
done < "$temp/programs"
wait

# Mutations of one test go one after the other in one tree: what was built for one is nearly what the next one needs.
for ((i = 0; i < jobs; i++)); do
        (
                n=0
                for name in "${names[@]}"; do
                        [ $((n++ % jobs)) -ne "$i" ] || judge "$name" "$temp/tree.$i"
                done
        ) &
done
wait
passed=$(wc -l < "$temp/passed") failed=$(wc -l < "$temp/failed")
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
