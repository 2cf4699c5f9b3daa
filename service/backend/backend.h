/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/iova.h"
#include "util/refusal.h"

/*
 * A backend translates for devices. It lives in the holder; nothing above this header knows a backend's name.
 *
 * container  one translation table that serves one IOMMU group of one domain (invariant I7)
 * device     one device of that group
 *
 * Units: addresses, offsets and lengths are bytes. Access is as the DEVICE sees it.
 * Threads: calls on one container come from one thread at a time (the domain's); calls on different containers may
 * run at the same time.
 * Errors: 0, or -1 with *r filled (util/refusal.h). Only the functions below are called from outside backend/; they
 * check the contract and call the table, whose missing entries answer UNSUPPORTED.
 */
#define BACKEND_ACCESS_READ 1U  /* the device may read memory */
#define BACKEND_ACCESS_WRITE 2U /* the device may write memory; some IOMMUs let it read too (DESIGN, section 7) */

enum backend_kind {             /* number is part of holder/protocol.h: append, never renumber */
        BACKEND_SOFT = 1,
        BACKEND_VFIO_TYPE1 = 2,
};

#define BACKEND_DEVICE_NAME_MAX 64U

struct container_info {
        uint64_t page_sizes;            /* bit n: pages of 2^n bytes; the smallest is the granule of map and unmap */
        uint32_t max_mappings;          /* mappings that the container takes at one time, UINT32_MAX: no limit known */
        uint32_t n_ranges;              /* usable IOVA ranges, sorted, disjoint; what lies between them is reserved */
        struct iova_range ranges[IOVA_RANGES_MAX];
};

/* How the software IOMMU presents itself; ignored by the others. Zeroes mean the default: 4K+2M+1G, 48 bits with the
 * x86 interrupt window 0xfee00000-0xfeefffff reserved, no mapping limit, DMA takes 1 ms. reserved_first greater than
 * reserved_last: nothing is reserved. */
struct soft_personality {
        uint64_t page_sizes;            /* smallest 4K..64K; must be sizes the 4-level format can express */
        uint64_t aperture_first, aperture_last;
        uint64_t reserved_first, reserved_last;
        uint32_t max_mappings;
        uint32_t dma_delay_us;          /* how long the software edu device takes for one transfer */
};

struct backend_open {
        enum backend_kind kind;
        int container_fd;               /* type1: /dev/vfio/vfio, opened by the broker; soft: -1 */
        int group_fd;                   /* type1: /dev/vfio/GROUP, opened by the broker; soft: -1 */
        struct soft_personality soft;
};

struct backend_mapping {
        uint64_t iova;
        uint64_t length;
        void *vaddr;                    /* where the holder's mmap has the memory; stays mapped until after the unmap */
        int fd;                         /* the memory's fd, borrowed for the call (iommufd will map it) */
        uint64_t offset;                /* of the mapping in the fd */
        uint32_t access;
};

/* What a client gets to drive a device with. Number is wire contract (proto/session_channel.h). */
enum device_fd_kind {
        DEVICE_FD_VFIO = 1,             /* a VFIO device fd */
        DEVICE_FD_SOFT = 2,             /* SOCK_SEQPACKET that speaks proto/soft_device.h */
};

struct container;
struct device;

/* Creates a container and programs an empty translation. Takes ownership of both fds in *o in every case (they are set
 * to -1). *ret is owned by the caller; end it with container_close(). */
int container_open(struct backend_open *o, struct container **ret, struct refusal *r);

/* Adopts nothing, unmaps everything, closes devices (a struct device that is still open is gone afterwards) and fds.
 * NULL is fine. Returns NULL. */
struct container *container_close(struct container *c);

void container_info(const struct container *c, struct container_info *ret);

/* Translates [iova, iova + length) to the memory. All or nothing: a failure leaves the range untranslated.
 * Refuses UNALIGNED, OUTSIDE_APERTURE, RESERVED_REGION, OVERLAP, LIMIT_EXCEEDED, MEMORY_* or BACKEND_REFUSED with
 * errnum. */
int container_map(struct container *c, const struct backend_mapping *m, struct refusal *r);

/* Removes exactly one earlier mapping. On return no device reaches the range. NOT_MAPPED when there is no such mapping,
 * PARTIAL_UNMAP when the range is a part of one: nearest_below is then the address where that one begins, nearest_above
 * the address after its end (0 if it ends at 2^64). */
int container_unmap(struct container *c, uint64_t iova, uint64_t length, struct refusal *r);

/* Removes every mapping; on return nothing is reachable. Fails only if the kernel does. */
int container_unmap_all(struct container *c, struct refusal *r);

/* Opens a device of the container's group by name ("0000:00:05.0", "edu0"). *ret is the caller's: device_close(). */
int device_open(struct container *c, const char *name, struct device **ret, struct refusal *r);
struct device *device_close(struct device *d);

/* For the broker to keep (I12): a new fd, the caller's; -1 in *ret_fd for a backend whose translation dies with this
 * process (soft). */
int device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r);

/* A new fd for the client, the caller's to send and close. */
int device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r);
