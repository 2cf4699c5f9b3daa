#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The reference model and the packaged service on the kernel's VFIO type1 (model.sh). The seeds are always the same, so that the lane
# says the same of the same tree; LANE_ARGS="SEED..." on the host are others, "random" is a fresh one.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/service.sh"
. "$(dirname "$0")/model.sh"

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

model_agrees type1 $operations "${seeds[@]}"
[ -n "${LANE_ARGS:-}" ] || model_compared $operations

check "both devices are free" eventually 20 devices_are_free
service_end
finish
