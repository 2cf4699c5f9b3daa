/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/iova_space.h"
#include "core/window_plan.h"

/*
 * "Map anywhere": where in the windows of a domain something fits. Pure; nothing is taken here.
 */
struct place_want {
        uint64_t window;                /* id; 0: the best one */
        uint64_t length;                /* of everything, laid out one after another */
        uint64_t units;                 /* all offsets and lengths, or-ed: a page size fits them if it divides this */
        uint64_t memory, memory_page;   /* the object with the smallest pages, and their size */
};

/*
 * The place is a multiple of the largest page size that the IOMMU has and that the memory's pages, the offsets and the lengths
 * permit; of a smaller one only where no such place is left. Address 0 is the last choice at each of them, since programs take
 * it for none. Among windows the best one has the largest pages that permit the request; of two like that the lower one.
 * Windows that are full or not live are passed over, unless the window was named.
 *
 * free: what is not mapped, of the whole address space; only what is in the rules' ranges is handed out. Cost: a few searches
 * of it per window and page size.
 *
 * Refuses UNKNOWN_WINDOW; NO_WINDOW (there is none), IN_PROGRESS, UNALIGNED, MEMORY_PAGE_SIZE, QUOTA_EXCEEDED (as
 * core/window.h); LIMIT_EXCEEDED when no free piece is long enough: limit and nearest_below then say what is, to a power of two.
 */
int window_place(const struct window_set *set, const struct window_rules *rules, struct iova_space *free_space,
                 const struct place_want *want, struct window **ret_window, uint64_t *ret_iova, struct refusal *r);
