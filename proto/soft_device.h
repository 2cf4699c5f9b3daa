/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/*
 * What a client says to a device of the software IOMMU: reads and writes of its regions over a SOCK_SEQPACKET socket,
 * the fd that SESSION_DEVICE delivers with kind DEVICE_FD_SOFT. Each struct soft_access is answered by one with the
 * same cookie, in order. Host byte order. Regions are numbered as VFIO numbers those of a PCI device
 * (0..5: BARs, 7: configuration space; linux/vfio.h VFIO_PCI_*_REGION_INDEX).
 */
enum soft_access_op {
        SOFT_READ = 1,
        SOFT_WRITE = 2,
        SOFT_INFO = 3,          /* answer: value = size of the region in bytes, 0 if it has none */
};

struct soft_access {
        uint32_t op;            /* enum soft_access_op */
        int32_t error;          /* answer: 0 or -errno */
        uint64_t cookie;
        uint32_t region;
        uint32_t size;          /* 1, 2, 4 or 8 bytes; naturally aligned */
        uint64_t offset;        /* bytes from the start of the region */
        uint64_t value;
};

_Static_assert(sizeof(struct soft_access) == 40, "wire contract");
