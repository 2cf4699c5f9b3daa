#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Tests the lab itself, not the service: later lanes rely on everything that is asserted here.
. "$(dirname "$0")/lib.sh"

uname -r

# --- systemd and what the packaging files need ---
check "pid 1 is systemd" grep -qx systemd /proc/1/comm
for unit in systemd-journald systemd-udevd; do
  check "$unit runs" systemctl is-active --quiet "$unit"
done
for unit in systemd-sysusers systemd-tmpfiles-setup; do
  check "$unit has run" systemctl is-active --quiet "$unit"
done
check "no unit has failed" test -z "$(systemctl list-units --failed --no-legend --plain)"
for controller in memory pids; do
  check "the cgroup controller $controller is there" grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers
done
check "the journal takes a message" logger -t smoke "a message from the smoke lane"
check "the journal has it" eventually 10 journalctl -q -t smoke --grep "from the smoke lane"

# --- the file systems ---
check "/usr takes writes in the guest" touch /usr/lab-write-test
refuses "the checkout is read-only" touch "$LAB_REPO/lab-write-test"
refuses "the build folder is read-only" touch "$LAB_BUILD/lab-write-test"
check "the result folder is writable" touch "$LAB_OUT/written-in-the-guest"
check "/tmp is empty and for everybody" as_uid 65534 touch /tmp/by-nobody

# --- somebody without privileges can run the host's programs ---
check "nobody runs a dynamic program" as_uid 65534 /usr/bin/jq -n 1
check "nobody runs a static program of the build folder" as_uid 65534 sh -c "$LAB_BUILD/vm/probe_edu; test \$? = 2"
refuses "nobody reads /etc/shadow" as_uid 65534 cat /etc/shadow
check "a transient service runs as another user" systemd-run -q -p User=nobody -p Type=oneshot test ! -r /etc/shadow

# --- the devices ---
load vfio-pci vfio_iommu_type1
for bdf in "${edus[@]}"; do
  check "$bdf is edu" test "$(cat "/sys/bus/pci/devices/$bdf/vendor" "/sys/bus/pci/devices/$bdf/device" | xargs)" = "0x1234 0x11e8"
  check "$bdf is alone in its group" test "$(ls "/sys/bus/pci/devices/$bdf/iommu_group/devices")" = "$bdf"
done
for bdf in "${edus[@]}"; do
  check "vfio-pci takes $bdf" bind "$bdf" vfio-pci
  check "/dev/vfio has its group" eventually 10 test -c "/dev/vfio/$(group_of "$bdf")"
  collect "$LAB_BUILD/vm/probe_edu" "$bdf"
done
check "udev sees the group" udevadm info "/dev/vfio/$(group_of "${edus[0]}")"
check "the devices are given back" unbind "${edus[0]}"

finish
