#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# run.sh LANE | run.sh --shell [LANE]
#
# Boots a virtual machine with an IOMMU and two edu devices, runs tests/vm/lanes/LANE.sh in it, and exits with the lane's
# status. Needs no KVM. 77 means that the lane cannot run here. A lane's name says which machine: ppc64le-* is POWER
# (machine-power.sh), everything else a PC (machine-x86.sh).
#
#   BUILD=dir       cache, logs and results go to BUILD/vm (default: build); what runs on POWER is built in BUILD-ppc64el
#   KERNEL=lab      PC: the newer kernel of the shared lab instead of Debian's own (default: debian)
#   TIMEOUT=1800    seconds until the machine is stopped and the lane has failed
#   SILENCE=900     seconds without a word from lane or kernel, after which the machine is taken for dead
#   STAGE=dir       PC: an install tree to lay over the guest's root instead of a fresh `make install`
#   MEMORY=3072     MiB (POWER: 2048)
#   IOMMU=device    PC: another QEMU IOMMU device with its options
#   LANE_ARGS=...   PC: words for the lane, which finds them under the same name; what they mean is the lane's
#   IOMMUD_TEST_*   the variables of the test programs (tests/README.md): programs in the machine find them, too
set -euo pipefail
umask 022

usage="usage: tests/vm/run.sh LANE | --shell [LANE]"
lane=${1:?$usage}
like=$lane
if [ "$lane" = --shell ]; then
  lane=shell
  like=${2:-}
fi

here=$(cd "$(dirname "$0")" && pwd -P)
repo=$(cd "$here/../.." && pwd -P)
timeout=${TIMEOUT:-1800}
silence=${SILENCE:-900}

cd "$repo"
mkdir -p "${BUILD:-build}/vm"
native_build=$(cd "${BUILD:-build}" && pwd -P)
vm=$native_build/vm

say() { echo "vm: $*" >&2; }

die() {
  say "$*"
  exit 1
}

skip() {
  echo "SKIPPED: $*"
  exit 77
}

# The test programs' own variables, as words of the guest's kernel command line.
test_variables=()
for name in "${!IOMMUD_TEST_@}"; do
  [[ ${!name} =~ ^[[:alnum:]_:./-]+$ ]] || die "$name: the kernel's command line has no room for such a value"
  test_variables+=("lab.$name=${!name}")
done

# What a machine-*.sh must give: $build (what the guest gets as LAB_BUILD) and $tag (names the run's files) when it is
# sourced, and
#   machine_require            skips when the host lacks something
#   machine_prepare            whatever can be kept from run to run goes to $vm
#   machine_describe CHARDEV   the QEMU command into the array `machine`; the lane's output goes to CHARDEV
#   machine_virtio DEVICE      adds a virtio device to that, where there is room
case $like in
  ppc64le-*)
    # shellcheck source=tests/vm/machine-power.sh
    . "$here/machine-power.sh"
    ;;
  *)
    # shellcheck source=tests/vm/machine-x86.sh
    . "$here/machine-x86.sh"
    ;;
esac

out=$vm/out/$tag
console=$vm/$tag.console.log
journal=$vm/$tag.journal.log
log=$vm/$tag.log

# --- preparation: cached in $vm, done by one run.sh at a time ------------------------------------------------

require_tools() {
  local tool
  for tool; do
    command -v "$tool" >/dev/null || skip "no $tool on the host; tests/vm/deps.sh installs it"
  done
  # Both reach the guest on the kernel command line, which words are split on.
  [[ $repo$build != *[[:space:],]* ]] || die "the paths of checkout and build folder must not have blanks or commas"
}

# make, into the guest's build folder. Says nothing when it went well.
make_programs() { # ARGUMENT...
  make -j"$(nproc)" "$@" BUILD="$build" >"$vm/$tag.make.log" 2>&1 || die "make $* failed: $(tail -n 20 "$vm/$tag.make.log")"
}

# --- the machine -------------------------------------------------------------------------------------------------

share() { # TAG PATH [OPTION]
  # multidevs=remap: the host's root may span file systems, whose inode numbers collide.
  machine+=(-fsdev "local,id=$1,path=$2,security_model=none,multidevs=remap${3:+,$3}")
  machine_virtio "virtio-9p-pci,fsdev=$1,mount_tag=$1"
}

# qemu and tee are ours to stop when somebody stops us.
qemu_pid=
stop() { [ -z "$qemu_pid" ] || kill "$qemu_pid" 2>/dev/null || true; }

seconds_since_change() { # FILE...
  local file newest=0 at
  for file; do
    at=$(stat -c %Y "$file" 2>/dev/null || echo 0)
    [ "$at" -le "$newest" ] || newest=$at
  done
  echo $(($(date +%s) - newest))
}

# A guest that stands still says nothing; waiting for the time limit would only cost time.
stalled=
wait_for_machine() { # sets $status to what timeout(1) or qemu gave
  status=0
  while kill -0 "$qemu_pid" 2>/dev/null; do
    if [ -z "$stalled" ] && [ "$(seconds_since_change "$log" "$console" "$journal")" -gt "$silence" ]; then
      stalled=yes
      stop
    fi
    sleep 0.2
  done
  wait "$qemu_pid" || status=$?
}

run_machine() {
  local fifo=$vm/$tag.fifo tee_pid
  rm -f "$fifo"
  mkfifo "$fifo"
  : >"$console"
  tee "$log" <"$fifo" &
  tee_pid=$!
  machine_describe "file,path=$fifo"
  trap stop EXIT
  trap 'exit 130' INT TERM HUP
  timeout --kill-after=10 "$timeout" "${machine[@]}" </dev/null >>"$console" 2>&1 &
  qemu_pid=$!
  wait_for_machine
  qemu_pid=
  wait "$tee_pid" || true
  rm -f "$fifo"
}

# --- the verdict ---------------------------------------------------------------------------------------------------

report_failure() {
  say "FAILED $tag: $*"
  for file in "$console" "$journal"; do
    [ -e "$file" ] || continue
    say "the end of $file:"
    tail -n 40 "$file" >&2 || true
    echo >&2 # an immediate power-off may have cut the last line
  done
  exit 1
}

judge() {
  local how='' code=''
  [ ! -e "$out/.exit" ] || read -r how code <"$out/.exit"
  [ -z "$stalled" ] || report_failure "neither lane nor kernel said anything for $silence s"
  case $status in
    0) ;;
    124 | 137) report_failure "stopped after the time limit of $timeout s" ;;
    *) report_failure "qemu ended with status $status" ;;
  esac
  ! grep -q 'Kernel panic' "$console" || report_failure "the guest's kernel panicked"
  [ -n "$how" ] || report_failure "the guest ended without running the lane to its end"
  [ "$how" = exited ] || report_failure "the lane was ended by signal $code"
  [ "$code" != 77 ] || exit 77
  [ "$code" = 0 ] || report_failure "the lane exited with status $code"
}

machine_require
[ "$lane" = shell ] || [ -f "$here/lanes/$lane.sh" ] || die "no lane tests/vm/lanes/$lane.sh"
rm -rf "$out" "$console" "$journal" "$log"
mkdir -p "$out"

exec 9>"$vm/.lock"
flock 9
machine_prepare
exec 9>&-

if [ "$lane" = shell ]; then
  machine_describe stdio,signal=off
  exec "${machine[@]}"
fi
run_machine
judge
