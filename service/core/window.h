/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/requests.h"

/*
 * The windows of a domain: every mapping lies in one of them, wholly, in pages of that window.
 *
 * There are two kinds of IOMMU. One has windows of its own (sPAPR): a few, each with a table, and the IOMMU decides where they
 * lie. The others have ranges: there a window is a promise of ours about a part of them, and the default window is all of
 * them, so that who knows nothing of windows maps anywhere in the ranges. What can be created is in core/window_plan.h, where
 * something fits in core/window_place.h.
 *
 * Pure logic, not locked in here: the session's lock protects it.
 */
#define WINDOWS_MAX VIEW_WINDOWS_MAX

struct window {
        uint64_t id;
        struct iova_range range;        /* made by window_range_at(); first > last: it has no place yet */
        uint32_t page_shift;
        uint32_t levels;                /* of its own table; 0: the domain's tables serve it */
        uint64_t quota;                 /* bytes that may be mapped in it; 0: no limit of its own */
        uint64_t mappings, mapped_bytes;
        uint64_t table_bytes;           /* of its own table, in each container (core/window_plan.h) */
        bool is_default;
        enum ledger_object_state state; /* INTENDED, LIVE or ENDING; only a live one takes mappings */
};

/* A window stays where it is in memory: mappings and operations point at it. */
struct window_set {
        size_t n;
        struct window *of[WINDOWS_MAX]; /* ascending start; those without a place last */
};

static inline uint64_t window_page(const struct window *w) {
        return UINT64_C(1) << w->page_shift;
}

/* start: WINDOW_NOWHERE while the IOMMU has not said where it is; the range then has the length, and no address. size 0: 2^64 */
#define WINDOW_NOWHERE UINT64_MAX
static inline struct iova_range window_range_at(uint64_t start, uint64_t size) {
        return (struct iova_range){ start, start + (size - 1) };
}

static inline bool window_has_place(const struct window *w) {
        return w->range.first <= w->range.last;
}

void window_set_init(struct window_set *set);
void window_set_clear(struct window_set *set);

/* A copy of *w in the set. NULL: out of memory, or WINDOWS_MAX are there (who creates has asked window_plan() before). */
struct window *window_set_add(struct window_set *set, const struct window *w);
/* In two steps: a copy (NULL: out of memory), and into the set, which has room for it; the set's from then on. */
struct window *window_new(const struct window *w);
void window_set_insert(struct window_set *set, struct window *w);
void window_set_remove(struct window_set *set, struct window *w);
/* Where the IOMMU put it; or, for a default window that is all there is, what that is now. */
void window_set_move(struct window_set *set, struct window *w, struct iova_range range);

/* By id. UNKNOWN_WINDOW, naming those that are there. */
struct window *window_set_find(const struct window_set *set, uint64_t id, struct refusal *r);
/* The one that has the address, or NULL. */
struct window *window_set_at(const struct window_set *set, uint64_t iova);

/* The live window that has the whole range. NO_WINDOW, with the window that it begins or ends in as the conflict, and as
 * nearest values the places where it would fit: below the last one, above the beginning of the next window. IN_PROGRESS while
 * that window is being made or removed. */
struct window *window_set_contain(const struct window_set *set, struct iova_range range, struct refusal *r);

/* UNALIGNED: not a multiple of the window's page. what: "IOVA", "length", "offset". */
int window_check_aligned(const struct window *w, const char *what, uint64_t value, struct refusal *r);

/* MEMORY_PAGE_SIZE: the pages behind the memory are smaller than the window's, which one entry of its table cannot lead to.
 * granule: the smallest page of the domain; a window of such pages takes any memory. */
int window_check_memory(const struct window *w, uint64_t granule, uint64_t memory, uint64_t memory_page, struct refusal *r);

/* QUOTA_EXCEEDED: the window's own limit. */
int window_check_quota(const struct window *w, uint64_t bytes, struct refusal *r);

/* Counts mappings into the window and out of it. */
void window_charge(struct window *w, uint64_t mappings, uint64_t bytes);
void window_refund(struct window *w, uint64_t mappings, uint64_t bytes);

/* IN_USE while there are mappings in it, unless forced; IN_PROGRESS unless it is live. */
int window_check_removable(const struct window *w, bool force, struct refusal *r);

void window_fill_view(const struct window *w, struct window_view *ret);
void window_fill_row(const struct window *w, uint64_t domain, struct ledger_window *ret);
void window_from_row(const struct ledger_window *row, struct window *ret);
