/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include <bsd/sys/tree.h>

#include "backend/pool.h"

/*
 * The physical address space of the software IOMMU.
 *
 * Page table entries have 52 address bits and superpages want aligned physical addresses; host virtual addresses give
 * neither promise, and a table should not hold pointers that a walker would follow blindly. So memory gets software
 * physical addresses: the space is cut into frames of one window (1 GiB, or the largest page if that is larger), and
 * a frame stands for one window of one mmap:
 *
 *      physical = frame number << shift | offset in the file modulo the window
 *      host     = frame's host address  + offset in the file modulo the window
 *
 * Physical addresses are therefore exactly as aligned as file offsets. All mappings of the same window of the same
 * mmap share a frame; each holds it once. Not thread-safe: the container's lock covers it.
 */
struct soft_frame {
        struct pool_item item;          /* item.number is the frame number */
        RB_ENTRY(soft_frame) link;
        uintptr_t host;                 /* where offset 0 of the window is, or would be (modulo 2^64) */
        uint64_t holds;
};

RB_HEAD(soft_frame_tree, soft_frame);

struct soft_phys {
        unsigned shift;                 /* log2 of the window */
        struct soft_frame_tree tree;    /* by host */
        struct pool frames;
};

void soft_phys_init(struct soft_phys *p, unsigned largest_page_shift);
void soft_phys_free(struct soft_phys *p);       /* drops every hold; the space is empty and usable again */

/* Bytes from an offset (or a physical address) to the end of its window: the longest piece one hold can cover. */
static inline uint64_t soft_phys_left(const struct soft_phys *p, uint64_t offset) {
        return (UINT64_C(1) << p->shift) - (offset & ((UINT64_C(1) << p->shift) - 1));
}

/* Takes a hold on the window around (vaddr, offset) and writes the physical address of vaddr. 0 or -ENOMEM. */
int soft_phys_hold(struct soft_phys *p, uintptr_t vaddr, uint64_t offset, uint64_t *ret_phys);
void soft_phys_drop(struct soft_phys *p, uint64_t phys);

/* Host address of a physical address that is held. */
uintptr_t soft_phys_host(const struct soft_phys *p, uint64_t phys);
