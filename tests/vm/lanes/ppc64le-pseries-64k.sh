#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# POWER as the guest of a hypervisor, with 64K pages: here the page of the host and that of the IOMMU differ.
host_page=65536 window_levels=1
. "$(dirname "$0")/power.sh"
