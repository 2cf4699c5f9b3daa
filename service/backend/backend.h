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
        BACKEND_VFIO_SPAPR = 3,
};

#define BACKEND_DEVICE_NAME_MAX 64U

#define BACKEND_WINDOWS_MAX 8U
#define WINDOW_ANYWHERE UINT64_MAX      /* no window can begin at the last byte */

/*
 * A DMA window: an IOVA aperture with a page size of its own, which is the granule of map and unmap in it.
 *
 * On sPAPR windows are objects of the kernel: they exist or do not, and nothing outside of them is translated. The other
 * backends have none of their own (max_windows is 0): there the broker keeps the same contract inside the ranges.
 */
struct backend_window {
        uint64_t start;
        uint64_t size;                  /* bytes, a power of two; 0: there is no window */
        uint32_t page_shift;            /* pages of 2^page_shift bytes */
        uint32_t levels;                /* of the table behind it: 1 or more */
};

struct window_caps {
        uint64_t page_sizes;            /* of windows that can be created: mask */
        uint64_t largest;               /* largest size that can be created, bytes, a power of two, whatever RAM there is */
        uint32_t max_windows;           /* that can exist at one time, the initial one counted; 0: no windows of its own */
        uint32_t levels_max;            /* a table has 1 to this many levels; the kernel may find fewer enough for a size */
        uint32_t levels_default;        /* what levels 0 stands for where nothing speaks against it */
        uint32_t reserved;
        struct backend_window initial;  /* the one that a new container has, and a reset brings back; size 0: none */
};

struct container_info {
        uint64_t page_sizes;            /* bit n: pages of 2^n bytes; the smallest is the granule of map and unmap, in a
                                         * container with windows of its own: of the window with the smallest pages */
        uint32_t max_mappings;          /* mappings that the container takes at one time, UINT32_MAX: no limit known */
        uint32_t n_ranges;              /* usable IOVA ranges, sorted, disjoint; what lies between them is reserved. With
                                         * windows of its own: where windows can lie; container_windows() says where
                                         * they are */
        struct iova_range ranges[IOVA_RANGES_MAX];
        struct window_caps windows;
};

enum soft_windows {                     /* number is part of holder/protocol.h: append, never renumber */
        SOFT_WINDOWS_NONE = 0,          /* the software IOMMU has ranges, like type1 */
        SOFT_WINDOWS_SPAPR = 1,         /* windows like POWER's: 0..1G of 4K pages at first, at most two at a time, pages of
                                         * 4K, 64K, 2M and 16M, up to 0x80000000 pages of 4K each, 1 to 5 levels; what
                                         * is created lies at 0x800000000000000 unless it looks like the first one */
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
        uint32_t windows;               /* enum soft_windows; with SPAPR page sizes, aperture and reserved region are those
                                         * of the windows, and the fields above are ignored */
        uint32_t reserved;
};

struct backend_open {
        enum backend_kind kind;
        int container_fd;               /* vfio: /dev/vfio/vfio, opened by the broker; soft: -1 */
        int group_fd;                   /* vfio: /dev/vfio/GROUP, opened by the broker; soft: -1 */
        struct soft_personality soft;
};

struct backend_mapping {
        uint64_t iova;
        uint64_t length;
        void *vaddr;                    /* where the holder's mmap has the memory; stays mapped until after the unmap */
        int fd;                         /* the memory's fd, borrowed for the call (iommufd will map it) */
        uint64_t offset;                /* of the mapping in the fd */
        uint32_t access;
        uint64_t memory_page;           /* bytes: the size of the pages that back the memory (huge pages: theirs);
                                         * 0: the host's page */
        void *object_vaddr;             /* the whole mmap that vaddr is in, and its length: sPAPR registers memory as a */
        uint64_t object_length;         /* whole, once for all its mappings. Ignored by the others */
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

void container_info(const struct container *c, struct container_info *ret);      /* the same for the container's life */

/* What a container of this software IOMMU says about itself; for the broker, which has to know before there is one.
 * UNSUPPORTED if there cannot be such a container. Pure. */
int soft_personality_info(const struct soft_personality *p, struct container_info *ret, struct refusal *r);

/* Translates [iova, iova + length) to the memory. All or nothing: a failure leaves the range untranslated.
 * Refuses UNALIGNED, OUTSIDE_APERTURE, RESERVED_REGION, OVERLAP, LIMIT_EXCEEDED, MEMORY_* or BACKEND_REFUSED with
 * errnum. Where there are windows, instead of the aperture: NO_WINDOW unless the range lies wholly in one of them,
 * UNALIGNED by the pages of that one, and MEMORY_PAGE_SIZE when the memory's pages are smaller than the window's. */
int container_map(struct container *c, const struct backend_mapping *m, struct refusal *r);

/* Removes exactly one earlier mapping. On return no device reaches the range. NOT_MAPPED when there is no such mapping,
 * PARTIAL_UNMAP when the range is a part of one: nearest_below is then the address where that one begins, nearest_above
 * the address after its end (0 if it ends at 2^64). */
int container_unmap(struct container *c, uint64_t iova, uint64_t length, struct refusal *r);

/* Removes every mapping; on return nothing is reachable. Fails only if the kernel does. */
int container_unmap_all(struct container *c, struct refusal *r);

/*
 * Windows. UNSUPPORTED from a container with max_windows 0.
 *
 * A new container has the initial window. To give it another set, create first what lies elsewhere and remove the
 * initial one then: the kernel takes the first free place, and where a window lies cannot be chosen.
 */

/* Makes a window. want->start: WINDOW_ANYWHERE, or where it must begin; want->levels: 0 lets the backend choose. *ret is
 * the window as it is, with its place and levels. Nothing changes when it is refused.
 * Refuses WINDOW_SIZE (0, no power of two, smaller than a page, larger than the largest: nearest_* are sizes that fit),
 * WINDOW_PAGE (limit: the mask; nearest_* in bytes), WINDOW_LEVELS, WINDOW_LIMIT (limit, used), OVERLAP and
 * OUTSIDE_APERTURE (it cannot begin there; nearest_* is where it would) and BACKEND_REFUSED with errnum. */
int container_window_create(struct container *c, const struct backend_window *want, struct backend_window *ret,
                            struct refusal *r);

/* Removes the window that begins at start. UNKNOWN_WINDOW, or IN_USE while there is a mapping in it (the conflict is the
 * lowest). On return nothing of it is translated. */
int container_window_remove(struct container *c, uint64_t start, struct refusal *r);

/* Back to what a new container has: the initial window and no other. IN_USE while anything is mapped. When the kernel
 * fails half way there are fewer windows than before, and container_windows() knows which. */
int container_windows_reset(struct container *c, struct refusal *r);

/* The windows that exist, by their start; returns how many. 0 from a container with max_windows 0. */
size_t container_windows(const struct container *c, struct backend_window ret[BACKEND_WINDOWS_MAX]);

/* For the broker to keep (I12), where its other keepers cannot revoke because the kernel takes requests from the mapping
 * process alone (sPAPR): an fd that says when the container has been revoked after this process died; revoke.h reads it.
 * A new fd, the caller's; -1 in *ret_fd for a backend that needs none. */
int container_revoker_fd(struct container *c, int *ret_fd, struct refusal *r);

/* Opens a device of the container's group by name ("0000:00:05.0", "edu0"). *ret is the caller's: device_close(). */
int device_open(struct container *c, const char *name, struct device **ret, struct refusal *r);
struct device *device_close(struct device *d);

/* For the broker to keep (I12): a new fd, the caller's; -1 in *ret_fd for a backend whose translation dies with this
 * process (soft). */
int device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r);

/* A new fd for the client, the caller's to send and close. */
int device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r);
