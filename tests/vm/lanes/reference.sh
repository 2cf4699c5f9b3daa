#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The reference model (tests/reference/) and the packaged service on the kernel's VFIO type1 are given the same random operations,
# and must agree on every answer, every number, and what the devices' transfers reach. The seeds are always the same, so that
# the lane says the same of the same tree; LANE_ARGS="SEED..." on the host are others, "random" is a fresh one. One that disagrees
# is shrunk and what is left of it is printed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/service.sh"

uname -r
# shellcheck disable=SC2206 # several
seeds=(${LANE_ARGS:-18 74 5})
operations=80
export IOMMUD_TEST_PATIENCE=120

# What the driver's world.c says of this service, and nothing that happens by itself while it works.
configure() {
  sed -i 's/^\[limits\]$/&\nsession_starts_per_second = 10000\nlazy_flush_ms = 60000\nlazy_flush_mappings = 5\nlazy_flush_bytes = 4294967295/' \
    /etc/iommud/iommud.conf
  # The service dies as often as the seeds have it.
  mkdir -p /etc/systemd/system/iommud.service.d
  printf '[Unit]\nStartLimitIntervalSec=0\n' >/etc/systemd/system/iommud.service.d/lane.conf
  systemctl daemon-reload
}

devices_are_free() { state_is "$dev" free && state_is "$dev2" free; }

load vfio-pci vfio_iommu_type1
check "the service is configured" configure
service_begin
check "the first device is bound to vfio-pci" iommuctl device bind "$dev"
check "the second one too" iommuctl device bind "$dev2"

result=$LAB_OUT/reference.txt
if "$LAB_BUILD/tests/reference/test_reference" --world=type1 --operations=$operations "${seeds[@]}" 2>&1 | tee "$result"; then
  ok "service and model agree"
else
  fail "service and model disagree: IOMMUD's log is in journal.txt"
fi
# It would agree on nothing at all as well. What others than the usual seeds do is not known.
transfers=$(sed -n 's/.* seeds, .* \([0-9]*\) transfers: agreed$/\1/p' "$result")
[ -n "${LANE_ARGS:-}" ] || check "a transfer for each operation, and more, was compared" test "${transfers:-0}" -gt $((3 * operations))

check "both devices are free" eventually 20 devices_are_free
service_end
finish
