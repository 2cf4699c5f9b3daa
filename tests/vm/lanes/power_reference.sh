# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # $edus is lib.sh's, $window_levels the lane's, $patience power.sh's
# Sourced by power.sh: the reference model (tests/reference/) and the service with backend = vfio-spapr are given the same random
# operations, and must agree on every answer, every number, and what the devices' transfers reach. The seeds are always the
# same; SECTIONS="platform reference:17" on the host is another, reference:17+random are two, one of them fresh. One that disagrees
# is shrunk and what is left of it is printed.

section_reference() { # [SEED[+SEED...]]
  local operations=40 result=$LAB_OUT/reference.txt transfers seeds=(149 226 264)
  # What the model has to know before there is a device.
  local end=0x40000000
  [[ $LANE != *powernv* ]] || end=0x80000000
  [ $# = 0 ] || IFS=+ read -ra seeds <<<"$1"
  if IOMMUD_TEST_PATIENCE=$patience IOMMUD_TEST_DEVICES=${edus[0]},${edus[1]} IOMMUD_TEST_WINDOW=$end \
    IOMMUD_TEST_WINDOW_LEVELS=$window_levels \
    "$LAB_BUILD/tests/reference/test_reference" --world=spapr --operations=$operations "${seeds[@]}" 2>&1 | tee "$result"; then
    ok "service and model agree"
  else
    fail "service and model disagree"
  fi
  # It would agree on nothing at all as well. What others than the usual seeds do is not known.
  transfers=$(sed -n 's/.* seeds, .* \([0-9]*\) transfers: agreed$/\1/p' "$result")
  [ $# != 0 ] || check "a transfer for each operation, and more, was compared" test "${transfers:-0}" -gt $((3 * operations))
  check "no holder is left" eventually "$patience" holders_are 0
  check "no revoker is" eventually "$patience" revokers_are 0
}
