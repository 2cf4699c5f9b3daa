#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# test_mutations.sh [BUILD]: does every mutation of tests/mutation still apply, and is the test there that is to notice it?
# Whether it does notice takes longer: `make mutate`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/lint/report.sh
. "$here/report.sh"
cd "$here/../.."

temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

# The gate itself: one mutation that fits, and one of each kind that does not.
plant() {       # plant NAME TEST OLD NEW
        printf 'what: it is true\nfile: a.c\ntest: %s\n--- old\n%s\n+++ new\n%s\n' "$2" "$3" "$4" > "$temp/planted/$1"
}
mkdir -p "$temp/planted" "$temp/tests/unit"
printf 'one\ntwice\ntwice\n' > "$temp/a.c"
printf 'static void a_case(void **state)\nTEST(mapping)\n' > "$temp/tests/unit/test_a.c"
plant fits 'unit/test_a a_case' one two
plant fits_a_macro 'unit/test_a test_mapping' one two
plant is_gone unit/test_a none two
plant is_there_twice unit/test_a twice two
plant is_no_change unit/test_a one one
plant without_test unit/test_b one two
plant without_case 'unit/test_a a_cas' one two
perl tests/mutation/apply.pl --check "$temp" "$temp"/planted/* > "$temp/found"
expected='is_gone: a.c has the old lines 0 times, not once
is_no_change: the new lines are the old ones
is_there_twice: a.c has the old lines 2 times, not once
without_case: tests/unit/test_a.c has no case a_cas
without_test: there is no tests/unit/test_b.c'
diff <(echo "$expected") "$temp/found" | check planted_mutations_are_found || true

perl tests/mutation/apply.pl --check . tests/mutation/mutations/* | check every_mutation_applies_and_has_its_test
finish
