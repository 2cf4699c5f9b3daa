/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * What the probes share: QEMU's edu device through the kernel's VFIO, by hand. Probes are the independent check of the lab, so
 * nothing here comes from the service or the SDK. Every step prints "ok: what" or "FAIL: what"; after the first failure
 * the program ends with 1.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct edu {
        int container;
        int group;
        int device;
        volatile uint8_t *registers;
        bool swapped;           /* its registers have the other byte order than this program */
};

void ok(const char *what);
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
void check(bool condition, const char *what);

/* Opens the device, bound to vfio-pci, in a container of that VFIO IOMMU type, and makes it a bus master. */
void edu_open(struct edu *edu, const char *bdf, int iommu_type, const char *iommu_name);

/* One transfer between memory at the IOVA and the device's own buffer. Returning says that the device has finished, not
 * that the bytes arrived: a blocked transfer ends like any other. */
void edu_reads(struct edu *edu, uint64_t iova, size_t length);
void edu_writes(struct edu *edu, uint64_t iova, size_t length);

/* 0 or what the ioctl said, which sPAPR makes positive now and then: that too means that nothing was done. */
int edu_map(struct edu *edu, void *memory, uint64_t iova, uint64_t length);
int edu_unmap(struct edu *edu, uint64_t iova, uint64_t length);
