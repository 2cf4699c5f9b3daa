/* SPDX-License-Identifier: Apache-2.0 */
#include "core/window.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"
#include "util/size.h"

#define RANGE "0x%" PRIx64 "-0x%" PRIx64

/* ---- the set ---- */

void window_set_init(struct window_set *set) {
        memset(set, 0, sizeof *set);
}

void window_set_clear(struct window_set *set) {
        for (size_t i = 0; i < set->n; i++)
                free(set->of[i]);
        window_set_init(set);
}

void window_set_insert(struct window_set *set, struct window *w) {
        size_t i = set->n++;

        /* those without a place begin at the last byte */
        for (; i > 0 && set->of[i - 1]->range.first > w->range.first; i--)
                set->of[i] = set->of[i - 1];
        set->of[i] = w;
}

static void take_out(struct window_set *set, const struct window *w) {
        size_t i = 0;

        while (i < set->n && set->of[i] != w)
                i++;
        if (i == set->n)
                return;
        memmove(&set->of[i], &set->of[i + 1], (set->n - i - 1) * sizeof(struct window *));
        set->n--;
}

struct window *window_new(const struct window *w) {
        struct window *copy = malloc(sizeof *copy);

        if (copy)
                *copy = *w;
        return copy;
}

struct window *window_set_add(struct window_set *set, const struct window *w) {
        struct window *added = set->n < WINDOWS_MAX ? window_new(w) : NULL;

        if (added)
                window_set_insert(set, added);
        return added;
}

void window_set_remove(struct window_set *set, struct window *w) {
        take_out(set, w);
        free(w);
}

void window_set_move(struct window_set *set, struct window *w, struct iova_range range) {
        take_out(set, w);
        w->range = range;
        window_set_insert(set, w);
}

/* ---- finding ---- */

struct window *window_set_find(const struct window_set *set, uint64_t id, struct refusal *r) {
        char known[128] = "none";
        size_t at = 0;

        for (size_t i = 0; i < set->n; i++)
                if (set->of[i]->id == id)
                        return set->of[i];
        for (size_t i = 0; i < set->n && at < sizeof known - 24; i++)
                at += (size_t)snprintf(known + at, sizeof known - at, "%s%" PRIu64, i ? ", " : "", set->of[i]->id);
        refuse(r, REFUSAL_UNKNOWN_WINDOW, "the domain has no window %" PRIu64 "; those that are there: %s", id, known);
        r->asked = id;
        return NULL;
}

struct window *window_set_at(const struct window_set *set, uint64_t iova) {
        for (size_t i = 0; i < set->n && set->of[i]->range.first <= iova; i++)
                if (iova <= set->of[i]->range.last)
                        return set->of[i];
        return NULL;
}

/* As late as it fits at or before where it was wanted, and the beginning of the first window behind that has room. */
static void offer_places(const struct window_set *set, struct iova_range range, struct refusal *r) {
        uint64_t span = range.last - range.first;

        for (size_t i = 0; i < set->n; i++) {
                const struct window *w = set->of[i];

                if (!window_has_place(w) || w->range.last - w->range.first < span)
                        continue;
                if (w->range.first <= range.first)
                        r->nearest_below = (w->range.last - span) & ~(window_page(w) - 1);
                else if (r->nearest_above == 0)
                        r->nearest_above = w->range.first;
        }
}

static int refuse_no_window(const struct window_set *set, struct iova_range range, struct refusal *r) {
        const struct window *begin = window_set_at(set, range.first), *end = window_set_at(set, range.last);
        const struct window *in = begin ? begin : end;

        if (begin && end)
                refuse(r, REFUSAL_NO_WINDOW,
                       RANGE " begins in window %" PRIu64 " (" RANGE ") and ends in window %" PRIu64 " (" RANGE
                             "); a mapping lies in one window", range.first, range.last, begin->id, begin->range.first,
                       begin->range.last, end->id, end->range.first, end->range.last);
        else if (in)
                refuse(r, REFUSAL_NO_WINDOW, RANGE " %s in window %" PRIu64 " (" RANGE ") and %s outside of it; a mapping lies in "
                                                   "one window", range.first, range.last, begin ? "begins" : "ends", in->id,
                       in->range.first, in->range.last, begin ? "ends" : "begins");
        else if (set->n == 0)
                refuse(r, REFUSAL_NO_WINDOW, RANGE " lies in no window, as the domain has none; create one, or reset the windows",
                       range.first, range.last);
        else
                refuse(r, REFUSAL_NO_WINDOW, RANGE " begins and ends in no window; the domain has %zu, the first at " RANGE,
                       range.first, range.last, set->n, set->of[0]->range.first, set->of[0]->range.last);
        if (in) {
                r->conflict_first = in->range.first;
                r->conflict_last = in->range.last;
        }
        offer_places(set, range, r);
        return -1;
}

static int check_live(const struct window *w, struct refusal *r) {
        if (w->state == LEDGER_LIVE)
                return 0;
        return refuse(r, REFUSAL_IN_PROGRESS, "window %" PRIu64 " is being %s; repeat when that is done", w->id,
                      w->state == LEDGER_INTENDED ? "created" : "removed");
}

struct window *window_set_contain(const struct window_set *set, struct iova_range range, struct refusal *r) {
        struct window *w = window_set_at(set, range.first);

        if (!w || range.last > w->range.last) {
                refuse_no_window(set, range, r);
                return NULL;
        }
        return check_live(w, r) < 0 ? NULL : w;
}

/* ---- what a mapping must fulfil in it ---- */

int window_check_aligned(const struct window *w, const char *what, uint64_t value, struct refusal *r) {
        uint64_t page = window_page(w), below = value & ~(page - 1);

        if (value == below)
                return 0;
        refuse(r, REFUSAL_UNALIGNED, "%s 0x%" PRIx64 " is not a multiple of 0x%" PRIx64 ", the page size of window %" PRIu64, what,
               value, page, w->id);
        r->limit = page;
        r->asked = value;
        r->nearest_below = below;
        if (ADD_OVERFLOW(below, page, &r->nearest_above))
                r->nearest_above = below;
        return -1;
}

int window_check_memory(const struct window *w, uint64_t granule, uint64_t memory, uint64_t memory_page, struct refusal *r) {
        char window_size[SIZE_TEXT_MAX], memory_size[SIZE_TEXT_MAX];

        if (window_page(w) <= granule || memory_page >= window_page(w))
                return 0;
        refuse(r, REFUSAL_MEMORY_PAGE_SIZE,
               "window %" PRIu64 " has pages of %s; memory object %" PRIu64 " has pages of %s, which are smaller. Use huge "
               "pages of that size or larger, or a window of smaller pages", w->id, size_format(window_page(w), window_size),
               memory, size_format(memory_page, memory_size));
        r->limit = window_page(w);
        r->asked = memory_page;
        r->nearest_above = window_page(w);
        return -1;
}

int window_check_quota(const struct window *w, uint64_t bytes, struct refusal *r) {
        char text[3][SIZE_TEXT_MAX];

        if (w->quota == 0 || (w->mapped_bytes <= w->quota && bytes <= w->quota - w->mapped_bytes))
                return 0;
        refuse(r, REFUSAL_QUOTA_EXCEEDED,
               "window %" PRIu64 " was created for %s at most; %s are mapped in it and %s more were asked for. Unmap some, or use "
               "another window", w->id, size_format(w->quota, text[0]), size_format(w->mapped_bytes, text[1]),
               size_format(bytes, text[2]));
        r->limit = w->quota;
        r->used = w->mapped_bytes;
        r->asked = bytes;
        r->conflict_first = w->range.first;
        r->conflict_last = w->range.last;
        return -1;
}

void window_charge(struct window *w, uint64_t mappings, uint64_t bytes) {
        w->mappings += mappings;
        w->mapped_bytes += bytes;
}

void window_refund(struct window *w, uint64_t mappings, uint64_t bytes) {
        if (mappings > w->mappings || bytes > w->mapped_bytes)
                log_error("window %" PRIu64 ": %" PRIu64 " bytes in %" PRIu64 " mappings leave, of %" PRIu64 " in %" PRIu64, w->id,
                          bytes, mappings, w->mapped_bytes, w->mappings);
        w->mappings -= mappings < w->mappings ? mappings : w->mappings;
        w->mapped_bytes -= bytes < w->mapped_bytes ? bytes : w->mapped_bytes;
}

int window_check_removable(const struct window *w, bool force, struct refusal *r) {
        char text[SIZE_TEXT_MAX];

        if (check_live(w, r) < 0)
                return -1;
        if (force || w->mappings == 0)
                return 0;
        refuse(r, REFUSAL_IN_USE, "window %" PRIu64 " has %" PRIu64 " mappings of %s; unmap them first, or ask for force", w->id,
               w->mappings, size_format(w->mapped_bytes, text));
        r->used = w->mappings;
        r->conflict_first = w->range.first;
        r->conflict_last = w->range.last;
        return -1;
}

/* ---- as others see it ---- */

void window_fill_view(const struct window *w, struct window_view *ret) {
        *ret = (struct window_view){
                .id = w->id, .mappings = w->mappings, .mapped_bytes = w->mapped_bytes, .quota = w->quota,
                .table_bytes = w->table_bytes, .page_shift = w->page_shift, .levels = w->levels, .is_default = w->is_default,
                .state = w->state, .start = w->range.first, .size = iova_range_length(w->range),
        };
}

void window_fill_row(const struct window *w, uint64_t domain, struct ledger_window *ret) {
        *ret = (struct ledger_window){
                .id = w->id, .domain = domain, .start = w->range.first, .size = iova_range_length(w->range), .quota = w->quota,
                .table_bytes = w->table_bytes, .page_shift = w->page_shift, .levels = w->levels, .is_default = w->is_default,
                .state = w->state,
        };
}

void window_from_row(const struct ledger_window *row, struct window *ret) {
        *ret = (struct window){
                .id = row->id, .range = window_range_at(row->start, row->size), .quota = row->quota,
                .table_bytes = row->table_bytes, .page_shift = row->page_shift, .levels = row->levels,
                .is_default = row->is_default, .state = row->state,
        };
}
