# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# The reference model (tests/reference/) in a lane: it and the service are given the same random operations, and must agree on every
# answer, every number, and what the devices' transfers reach. After lib.sh. A seed that disagrees is shrunk and what is left of it
# is printed.

# model_agrees WORLD OPERATIONS SEED...
model_agrees() {
  local world=$1 operations=$2
  shift 2
  if "$LAB_BUILD/tests/reference/test_reference" --world="$world" --operations="$operations" "$@" 2>&1 |
    tee "$LAB_OUT/reference.txt"; then
    ok "service and model agree"
  else
    fail "service and model disagree: the service's log is above, or in journal.txt"
  fi
}

# model_compared OPERATIONS: it would agree on nothing at all as well. For the usual seeds; what others do is not known.
model_compared() {
  local transfers
  transfers=$(sed -n 's/.* seeds, .* \([0-9]*\) transfers: agreed$/\1/p' "$LAB_OUT/reference.txt")
  check "a transfer for each operation, and more, was compared" test "${transfers:-0}" -gt $((3 * $1))
}
