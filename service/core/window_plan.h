/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/window.h"

/*
 * Which windows a domain can have: what its IOMMU permits, and whether a request fits that. Pure.
 */
struct window_rules {
        bool own;                       /* windows are objects of the IOMMU, which decides where they lie */
        uint64_t page_sizes;            /* mask */
        uint64_t largest;               /* bytes, a power of two: of the address space, whatever RAM there is */
        uint32_t max_windows;           /* at one time, the default one counted */
        uint32_t levels_max, levels_default;
        uint64_t host_page;             /* tables are whole pages of this size */
        struct window initial;          /* the default one, which a reset brings back; without an id */
        bool has_initial;
        size_t n_ranges;                /* where windows can lie, and mappings in them */
        struct iova_range ranges[IOVA_RANGES_MAX];
};

/* What the domain's containers (or the backend, without a device) permit. */
void window_rules_of(const struct container_info *info, uint64_t host_page, struct window_rules *ret);

/*
 * Bytes of a window's own table in one container; false: more than 64 bits hold. Charged when the window is made:
 *
 *   windows of the IOMMU's own, one level    an entry of 8 bytes a page of the window, whatever is mapped
 *   with several levels                      the first level; the others are made as they are needed, and charged as all
 *                                            tables are, with the mappings that need them
 *   otherwise                                nothing: the domain's tables serve it
 *
 * Where the kernel keeps the table itself (it has several levels then) it also keeps, for each entry, whose memory it maps:
 * as much again. Under a hypervisor the table is not in our memory and only that record is. The table of the default window is
 * there before anybody asks: nobody is charged for it.
 */
bool window_table_size(const struct window_rules *rules, uint64_t size, uint32_t page_shift, uint32_t levels, uint64_t *ret);

/*
 * Checks a request against the rules and the windows that are there, chooses what it leaves open, and finds the place: first
 * fit, at a multiple of the size; without a place (window_has_place()) where the IOMMU chooses. *ret is ready for
 * window_set_add(), in state INTENDED, but for its id.
 *
 *   WINDOW_PAGE     page size not in the mask, none that is at least so large (asked and nearest in bytes, limit: the mask)
 *   WINDOW_SIZE     0, no power of two, smaller than the page, larger than the largest (nearest: sizes that do)
 *   WINDOW_LEVELS   none, or so many (limit, nearest)
 *   WINDOW_LIMIT    too many windows (limit, used), or no place left (conflict: a window in the way; nearest_below: the
 *                   largest that fits now)
 */
int window_plan(const struct window_set *set, const struct window_rules *rules, const struct create_window_request *req,
                struct window *ret, struct refusal *r);

/* How many more can be created now. */
uint32_t window_can_create(const struct window_set *set, const struct window_rules *rules);

/* Where a created window can lie: ranges without windows, at most IOVA_RANGES_MAX of them; 0 where the IOMMU chooses. */
size_t window_free_ranges(const struct window_set *set, const struct window_rules *rules, struct iova_range *ret);
