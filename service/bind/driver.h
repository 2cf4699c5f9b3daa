/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "util/refusal.h"

/*
 * Drivers of PCI devices by way of sysfs (Documentation/ABI/testing/sysfs-bus-pci). Every function may block for as long as
 * the kernel does: taking a device from vfio-pci waits, deaf to signals, until the last who has it open has closed it.
 */
#define DRIVER_NAME_MAX 64U
#define DRIVER_VFIO "vfio-pci"

struct driver_tree {
        const char *sysfs;              /* "/sys" */
        /* How an attribute is written; 0 or -errno. NULL: for real. Tests put a kernel of their own here. */
        int (*write)(const char *path, const char *text);
};

struct driver_device {
        char vendor_device[16];         /* "1234:11e8" */
        char driver[DRIVER_NAME_MAX];   /* bound now, "" if none */
        bool bridge;
        bool has_group;                 /* is behind an IOMMU */
};

/* address: checked with pci_address_is_valid(). UNKNOWN_DEVICE when there is none such. */
int driver_describe(const struct driver_tree *t, const char *address, struct driver_device *ret, struct refusal *r);

/* To vfio-pci; does nothing where it is there already. On failure everything is as before, and the text says so if it is
 * not. d: from driver_describe(). */
int driver_to_vfio(const struct driver_tree *t, const char *address, const struct driver_device *d, struct refusal *r);

/* From vfio-pci (or no driver) to the one named, or to the one that the kernel finds for "". */
int driver_restore(const struct driver_tree *t, const char *address, const struct driver_device *d, const char *driver,
                   struct refusal *r);

/* A name that may become a path. */
bool driver_name_is_valid(const char *name);
