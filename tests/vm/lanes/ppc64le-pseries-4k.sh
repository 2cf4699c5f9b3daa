#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# POWER as the guest of a hypervisor, which owns the tables of the IOMMU; 4K pages.
host_page=4096 window_levels=1
. "$(dirname "$0")/power.sh"
