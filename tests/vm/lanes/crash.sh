#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The crash driver (tests/fault/test_crash_points.c) on the kernel's VFIO type1: broker, holder or both die at every failpoint under
# random work of three clients, two of which have a device. After each death ledger, holders and what clients were told agree, and
# the devices' transfers arrive inside of mappings, at both borders, and not beside them. A service of its own, built with
# failpoints: what is installed has none. The seed is always the same, so that the order of deaths is; IOMMUD_TEST_SEED=n and
# IOMMUD_TEST_POINT=name on the host are others (tests/README.md).
. "$(dirname "$0")/lib.sh"

uname -r
export IOMMUD_TEST_PATIENCE=${IOMMUD_TEST_PATIENCE:-60} IOMMUD_TEST_SEED=${IOMMUD_TEST_SEED:-20261201}

load vfio-pci vfio_iommu_type1
for device in "${edus[@]}"; do
  check "$device is bound to vfio-pci" bind "$device" vfio-pci
done
[ "$lab_failed" = 0 ] || finish

collect "$LAB_BUILD/tests/fault/test_crash_points" "${edus[@]}"
refuses "no holder is left" grep -qx iommud-holder /proc/[0-9]*/comm
finish
