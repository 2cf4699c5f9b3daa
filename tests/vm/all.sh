#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# all.sh [LANE...]: runs the lanes of lanes.list one after the other, or only those named here or in $LANE.
#
# The last line is "N passed, N failed"; the exit status is non-zero if anything failed. A lane that cannot run
# here is passed over, but is a failure in CI (CI=true), where nobody would notice. run.sh names the other settings.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck disable=SC2206 # $LANE may name several
lanes=("$@" ${LANE:-})
[ ${#lanes[@]} -gt 0 ] || mapfile -t lanes < <(sed -n 's/^\([^# ][^ ]*\).*/\1/p' "$here/lanes.list")

passed=0
failed=0
output=$(mktemp)
trap 'rm -f "$output"' EXIT

for name in "${lanes[@]}"; do
  echo "== $name"
  kernel=${KERNEL:-debian}
  [[ $name != *@* ]] || kernel=${name#*@}
  status=0
  KERNEL=$kernel "$here/run.sh" "${name%@*}" | tee "$output" || status=$?

  if [ "$status" = 77 ]; then
    reason=$(sed -n 's/^SKIPPED: //p' "$output" | tail -n 1)
    echo "SKIPPED $name: $reason"
    [ "${CI:-}" != true ] || failed=$((failed + 1))
    continue
  fi
  lane_passed=0
  lane_failed=0
  read -r lane_passed lane_failed < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$output" | tail -n 1) || true
  # A lane can fail without having counted a failure: a panic, the time limit, no such lane.
  if [ "$status" != 0 ] && [ "${lane_failed:-0}" = 0 ]; then
    lane_failed=1
    echo "FAILED $name: status $status"
  fi
  passed=$((passed + ${lane_passed:-0}))
  failed=$((failed + ${lane_failed:-0}))
done

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
