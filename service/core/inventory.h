/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/refusal.h"

/*
 * PCI devices that sit behind an IOMMU, and their groups, read from sysfs (Documentation/ABI/testing/sysfs-kernel-iommu_groups,
 * Documentation/driver-api/vfio.rst). A snapshot: nothing here is remembered, nobody is asked but the kernel.
 */
#define INVENTORY_NAME_MAX 64U

struct inventory_device {
        char name[INVENTORY_NAME_MAX];          /* "0000:00:05.0" */
        char driver[INVENTORY_NAME_MAX];        /* bound now; "" if none */
        char vendor_device[16];                 /* "1234:11e8" */
        uint32_t group;
        bool bridge;                            /* PCI bridge: does not make a group unusable when bound to pcieport */
};

struct inventory {
        size_t n;
        struct inventory_device *devices;       /* by group, then name */
};

/* sysfs: "/sys" (tests give a made tree). An absent iommu_groups folder is an empty inventory. *ret: inventory_clear(). */
int inventory_read(const char *sysfs, struct inventory *ret, struct refusal *r);
void inventory_clear(struct inventory *i);

const struct inventory_device *inventory_find(const struct inventory *i, const char *name);

/* Can the group be used through VFIO: every member is bound to vfio-pci (or another vfio driver), unbound, or a bridge under
 * pcieport. Otherwise false, and *r (GROUP_NOT_VIABLE) names the member in the way, its driver and what to do. */
bool inventory_group_is_viable(const struct inventory *i, uint32_t group, struct refusal *r);

/* "0000:00:05.0 0000:00:05.1" into text (cut with "..." when it does not fit). */
void inventory_group_members(const struct inventory *i, uint32_t group, char *text, size_t size);

/* Is name a full PCI address DDDD:BB:DD.F in lower-case hex. Everything that becomes a path is checked with this. */
bool inventory_is_pci_address(const char *name);
