# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154 # $edus is lib.sh's, $window_levels the lane's, $patience power.sh's
# Sourced by power.sh: the reference model and the service with backend = vfio-spapr (model.sh). The seeds are always the same;
# SECTIONS="platform reference:17" on the host is another, reference:17+random are two, one of them fresh.

section_reference() { # [SEED[+SEED...]]
  local operations=40 seeds=(149 226 264)
  # What the model has to know before there is a device.
  local end=0x40000000
  [[ $LANE != *powernv* ]] || end=0x80000000
  [ $# = 0 ] || IFS=+ read -ra seeds <<<"$1"
  IOMMUD_TEST_PATIENCE=$patience IOMMUD_TEST_DEVICES=${edus[0]},${edus[1]} IOMMUD_TEST_WINDOW=$end \
    IOMMUD_TEST_WINDOW_LEVELS=$window_levels model_agrees spapr $operations "${seeds[@]}"
  [ $# != 0 ] || model_compared $operations
  check "no holder is left" eventually "$patience" holders_are 0
  check "no revoker is" eventually "$patience" revokers_are 0
}
