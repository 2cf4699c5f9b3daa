/* SPDX-License-Identifier: Apache-2.0 */
#include "core/window_place.h"

#include <inttypes.h>

#include "util/size.h"

/* One range, without address 0 if that can be. */
static bool find_in(struct iova_space *s, uint64_t length, uint64_t align, struct iova_range within, uint64_t *ret) {
        if (within.first == 0 && within.last > 0 &&
            iova_space_find(s, length, align, (struct iova_range){ 1, within.last }, ret))
                return true;
        return iova_space_find(s, length, align, within, ret);
}

/* What of the window lies in usable ranges. With several of them address 0 is not tried before the others have been. */
static bool find_in_window(const struct window_rules *rules, struct iova_space *s, const struct window *w, uint64_t length,
                           uint64_t align, uint64_t *ret) {
        bool found = false;

        for (size_t i = 0; i < rules->n_ranges && (!found || *ret == 0); i++) {
                struct iova_range usable = rules->ranges[i];
                uint64_t there;

                if (!iova_range_overlaps(usable, w->range))
                        continue;
                if (usable.first < w->range.first)
                        usable.first = w->range.first;
                if (usable.last > w->range.last)
                        usable.last = w->range.last;
                if (find_in(s, length, align, usable, &there)) {
                        found = true;
                        *ret = there;
                }
        }
        return found;
}

/* The page sizes that may translate it: the window's own, and where the window is none of the IOMMU's own the larger ones. */
static uint64_t fitting_pages(const struct window_rules *rules, const struct window *w, const struct place_want *want) {
        uint64_t pages = rules->own ? window_page(w) : rules->page_sizes & ~(window_page(w) - 1);
        uint64_t fitting = 0;

        for (uint64_t rest = pages; rest; rest &= rest - 1) {
                uint64_t page = page_mask_smallest(rest);

                if (page <= want->memory_page && (want->units & (page - 1)) == 0)
                        fitting |= page;
        }
        return fitting | window_page(w);
}

static bool find_aligned(const struct window_rules *rules, struct iova_space *s, const struct window *w,
                         const struct place_want *want, uint64_t *ret) {
        uint64_t pages = fitting_pages(rules, w, want);

        while (pages) {
                uint64_t largest = UINT64_C(1) << (63 - __builtin_clzll(pages));

                if (find_in_window(rules, s, w, want->length, largest, ret))
                        return true;
                pages &= ~largest;
        }
        return false;
}

static uint64_t granule(const struct window_rules *rules) {
        return page_mask_smallest(rules->page_sizes);
}

static int check_window(const struct window_rules *rules, const struct window *w, const struct place_want *want,
                        struct refusal *r) {
        if (w->state != LEDGER_LIVE)
                return refuse(r, REFUSAL_IN_PROGRESS, "window %" PRIu64 " is being %s; repeat when that is done", w->id,
                              w->state == LEDGER_INTENDED ? "created" : "removed");
        if (window_check_aligned(w, "offset or length", want->units, r) < 0 ||
            window_check_memory(w, granule(rules), want->memory, want->memory_page, r) < 0)
                return -1;
        return window_check_quota(w, want->length, r);
}

static int refuse_room(const struct window_rules *rules, struct iova_space *s, const struct window *w,
                       const struct place_want *want, struct refusal *r) {
        uint64_t length = UINT64_C(1) << 63, there;
        char text[SIZE_TEXT_MAX];

        while (length >= window_page(w) && !find_in_window(rules, s, w, length, window_page(w), &there))
                length >>= 1;
        if (length < window_page(w))
                length = 0;
        refuse(r, REFUSAL_LIMIT_EXCEEDED,
               "window %" PRIu64 " has no free piece of 0x%" PRIx64 " bytes; %s%s. Unmap something, map smaller pieces, or use "
               "another window", w->id, want->length, length ? "it has one of " : "it is full",
               length ? size_format(length, text) : "");
        r->limit = r->nearest_below = length;
        r->used = w->mapped_bytes;
        r->asked = want->length;
        r->conflict_first = w->range.first;
        r->conflict_last = w->range.last;
        return -1;
}

/* The live window with the largest pages that permit the request and has room. That one has no room is a better answer than
 * why another would not do. */
static struct window *best_window(const struct window_set *set, const struct window_rules *rules, struct iova_space *s,
                                  const struct place_want *want, uint64_t *ret_iova, struct refusal *r) {
        struct window *best = NULL;
        struct refusal last;            /* *r stays untouched when there is a place */
        bool full = false;

        refuse(&last, REFUSAL_NO_WINDOW, "the domain has no window; create one, or reset the windows");
        for (size_t i = 0; i < set->n; i++) {
                struct window *w = set->of[i];
                struct refusal why;
                uint64_t there;

                if (best && w->page_shift <= best->page_shift)
                        continue;
                if (check_window(rules, w, want, &why) < 0) {
                        if (!full)
                                last = why;
                } else if (find_aligned(rules, s, w, want, &there)) {
                        best = w;
                        *ret_iova = there;
                } else {
                        full = true;
                        refuse_room(rules, s, w, want, &last);
                }
        }
        if (!best)
                *r = last;
        return best;
}

int window_place(const struct window_set *set, const struct window_rules *rules, struct iova_space *free_space,
                 const struct place_want *want, struct window **ret_window, uint64_t *ret_iova, struct refusal *r) {
        struct window *w;

        if (want->window == 0)
                w = best_window(set, rules, free_space, want, ret_iova, r);
        else {
                w = window_set_find(set, want->window, r);
                if (!w || check_window(rules, w, want, r) < 0)
                        return -1;
                if (!find_aligned(rules, free_space, w, want, ret_iova))
                        return refuse_room(rules, free_space, w, want, r);
        }
        if (!w)
                return -1;
        *ret_window = w;
        return 0;
}
