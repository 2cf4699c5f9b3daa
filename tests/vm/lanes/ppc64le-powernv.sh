#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The bare POWER machine, whose kernel has the tables of the IOMMU itself, of several levels; 64K pages.
host_page=65536 window_levels=2
# Each time that a device is closed, its reset takes five seconds here. What is no matter of windows, the same code
# has shown on pseries.
contracts=(windows_contract killed_holder)
. "$(dirname "$0")/power.sh"
