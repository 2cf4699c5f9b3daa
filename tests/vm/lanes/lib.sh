# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Sourced first by every lane. It gives the words that a lane is written in:
#
#   ok WHAT                  counts a success
#   fail WHAT                counts a failure; the lane goes on
#   check WHAT COMMAND...    COMMAND must succeed; what it printed is shown only if it did not
#   refuses WHAT COMMAND...  COMMAND must run and fail; not found or killed by a signal is no refusal
#   collect COMMAND...       COMMAND prints "ok: what" and "FAIL: what" lines of its own, which are counted
#   skip REASON              ends the lane: it cannot run here
#   finish                   ends the lane: prints "N passed, N failed"; non-zero if any failed or none ran
#
# and a few about the machine: see below. The environment gives LAB_REPO, LAB_BUILD (read-only, as on the host),
# LAB_OUT (a folder of the host, writable), LAB_KERNEL (debian or lab; 4k or 64k), LANE, and LANE_ARGS (run.sh).

set -euo pipefail

lab_passed=0
lab_failed=0
lab_finished=

ok() {
  lab_passed=$((lab_passed + 1))
  echo "ok: $*"
}

fail() {
  lab_failed=$((lab_failed + 1))
  echo "FAIL: $*"
}

check() {
  local what=$1 output status=0
  shift
  output=$("$@" 2>&1 </dev/null) || status=$?
  if [ "$status" = 0 ]; then
    ok "$what"
    return
  fi
  fail "$what (status $status: $*)"
  lab_show "$output"
}

refuses() {
  local what=$1 output status=0
  shift
  output=$("$@" 2>&1 </dev/null) || status=$?
  if [ "$status" -gt 0 ] && [ "$status" -lt 126 ]; then
    ok "$what"
    return
  fi
  fail "$what (must fail, but status $status: $*)"
  lab_show "$output"
}

collect() {
  local line status=0 failed_before=$lab_failed
  # Not a pipe: the counters must be this shell's. The last line carries the status.
  while IFS= read -r line; do
    case $line in
      'ok: '*) ok "${line#ok: }" ;;
      'FAIL: '*) fail "${line#FAIL: }" ;;
      'status: '*) status=${line#status: } ;;
      *) echo "    $line" ;;
    esac
  done < <("$@" 2>&1 </dev/null && echo "status: 0" || echo "status: $?")
  [ "$status" = 0 ] || [ "$lab_failed" -gt "$failed_before" ] || fail "status $status: $*"
}

skip() {
  lab_finished=1
  echo "SKIPPED: $*"
  exit 77
}

finish() {
  lab_finished=1
  echo "$lab_passed passed, $lab_failed failed"
  [ "$lab_failed" = 0 ] && [ "$lab_passed" -gt 0 ]
  exit
}

# The end of it: what was repeated until a time limit says the same many times.
lab_show() {
  [ -z "$1" ] || while IFS= read -r line; do echo "    $line"; done < <(tail -n 20 <<<"$1")
}

# A lane that stops half way must not look like one that passed.
lab_on_exit() {
  local status=$?
  [ -z "$lab_finished" ] || exit "$status"
  fail "the lane ended before finish, status $status"
  echo "$lab_passed passed, $lab_failed failed"
  exit 1
}
trap lab_on_exit EXIT

# --- the machine -----------------------------------------------------------------------------------------------

# The two edu devices; each is alone in its IOMMU group. Other machines than the PC say where theirs are.
# shellcheck disable=SC2034 # for the lanes
IFS=, read -ra edus <<<"${LAB_EDUS:-0000:00:05.0,0000:00:06.0}"

# group_of BDF: the number of its IOMMU group.
group_of() { basename "$(readlink "/sys/bus/pci/devices/$1/iommu_group")"; }

# load MODULE...: makes sure that the kernel has it, as a module or built in.
load() {
  local module
  for module in "$@"; do
    [ -d "/sys/module/${module//-/_}" ] || modprobe "$module"
  done
}

# bind BDF DRIVER: the override makes sure that no other driver takes the device.
bind() {
  local device=/sys/bus/pci/devices/$1
  [ ! -e "$device/driver" ] || echo "$1" >"$device/driver/unbind"
  echo "$2" >"$device/driver_override"
  echo "$1" >/sys/bus/pci/drivers_probe
  [ "$(basename "$(readlink "$device/driver")")" = "$2" ]
}

# unbind BDF: back to no driver at all.
unbind() {
  local device=/sys/bus/pci/devices/$1
  [ ! -e "$device/driver" ] || echo "$1" >"$device/driver/unbind"
  echo >"$device/driver_override"
}

# eventually SECONDS COMMAND...: repeats COMMAND until it succeeds.
eventually() {
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$until" ] || return 1
    sleep 0.2
  done
}

# as_uid UID COMMAND...: as somebody with no privilege and no other group.
as_uid() {
  local uid=$1
  shift
  setpriv --reuid "$uid" --regid "$uid" --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs "$@"
}
