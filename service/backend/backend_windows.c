/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend_windows.h"

#include <inttypes.h>
#include <string.h>

#include "util/log.h"

#define RANGE_FORMAT "0x%" PRIx64 "-0x%" PRIx64

/* --- finding ------------------------------------------------------------------------------------------------------*/

static void windows_add(struct container *c, const struct backend_window *w) {
        uint32_t i = c->n_windows;

        for (; i > 0 && c->windows[i - 1].start > w->start; i--)
                c->windows[i] = c->windows[i - 1];
        c->windows[i] = *w;
        c->n_windows++;
}

static void windows_forget(struct container *c, uint64_t start) {
        for (uint32_t i = 0; i < c->n_windows; i++)
                if (c->windows[i].start == start) {
                        memmove(&c->windows[i], &c->windows[i + 1], (c->n_windows - i - 1) * sizeof c->windows[0]);
                        c->n_windows--;
                        return;
                }
}

void windows_init(struct container *c) {
        c->n_windows = 0;
        if (windows_own(c) && c->info.windows.initial.size > 0)
                windows_add(c, &c->info.windows.initial);
}

const struct backend_window *windows_at(const struct container *c, uint64_t iova) {
        for (uint32_t i = 0; i < c->n_windows; i++)
                if (iova >= c->windows[i].start && iova - c->windows[i].start < c->windows[i].size)
                        return &c->windows[i];
        return NULL;
}

/* The nearest places for a range of that length: as late as it fits at or before where it was wanted, and the beginning
 * of the first window behind that has room. */
static void nearest_places(const struct container *c, struct iova_range range, struct refusal *r) {
        uint64_t length = iova_range_length(range);

        for (uint32_t i = 0; i < c->n_windows; i++) {
                const struct backend_window *w = &c->windows[i];
                uint64_t room = w->size - length, page = UINT64_C(1) << w->page_shift;

                if (length == 0 || w->size < length)
                        continue;
                if (w->start <= range.first)
                        r->nearest_below = w->start + (room & ~(page - 1));
                else if (r->nearest_above == 0)
                        r->nearest_above = w->start;
        }
}

const struct backend_window *windows_find(const struct container *c, struct iova_range range, struct refusal *r) {
        const struct backend_window *w = windows_at(c, range.first);

        if (w && iova_range_contains(window_range(w), range))
                return w;
        if (w)
                refuse(r, REFUSAL_NO_WINDOW,
                       RANGE_FORMAT " begins in the window " RANGE_FORMAT " and ends outside of it; a mapping lies in one "
                                    "window", range.first, range.last, w->start, window_range(w).last);
        else if (c->n_windows == 0)
                refuse(r, REFUSAL_NO_WINDOW, RANGE_FORMAT " lies in no window: there is none, create one first", range.first,
                       range.last);
        else
                refuse(r, REFUSAL_NO_WINDOW, RANGE_FORMAT " begins in no window; the first of %" PRIu32 " is " RANGE_FORMAT,
                       range.first, range.last, c->n_windows, c->windows[0].start, window_range(&c->windows[0]).last);
        if (w) {
                r->conflict_first = w->start;
                r->conflict_last = window_range(w).last;
        }
        nearest_places(c, range, r);
        return NULL;
}

/* --- creating -----------------------------------------------------------------------------------------------------*/

static int check_own(const struct container *c, struct refusal *r) {
        if (windows_own(c))
                return 0;
        return refuse(r, REFUSAL_UNSUPPORTED, "the %s backend has no windows of its own", c->ops.name);
}

static int refuse_size(struct refusal *r, uint64_t size, uint64_t limit) {
        r->asked = size;
        r->limit = limit;
        return -1;
}

static int check_page(const struct container *c, const struct backend_window *want, struct refusal *r) {
        uint64_t mask = c->info.windows.page_sizes, page = want->page_shift < 64 ? UINT64_C(1) << want->page_shift : 0;
        uint64_t below = page ? mask & (page - 1) : mask, above = page ? mask & ~(page - 1) : 0;

        if (mask & page)
                return 0;
        refuse(r, REFUSAL_WINDOW_PAGE,
               "a window cannot have pages of 2^%" PRIu32 " bytes; the IOMMU's page sizes for windows are 0x%" PRIx64
               " (bit n: 2^n bytes)", want->page_shift, mask);
        r->limit = mask;
        r->asked = page;
        if (below)
                r->nearest_below = UINT64_C(1) << (63 - __builtin_clzll(below));
        r->nearest_above = page_mask_smallest(above);
        return -1;
}

/* A power of two between a page and the largest: what was meant is one of the two neighbours. */
static int check_size(const struct container *c, const struct backend_window *want, struct refusal *r) {
        uint64_t page = UINT64_C(1) << want->page_shift, largest = c->info.windows.largest, below;

        if (want->size < page) {
                if (want->size == 0)
                        refuse(r, REFUSAL_WINDOW_SIZE, "a window of size 0 was asked for; the smallest has one page, 0x%" PRIx64,
                               page);
                else
                        refuse(r, REFUSAL_WINDOW_SIZE, "a window of 0x%" PRIx64 " bytes is smaller than its page, 0x%" PRIx64,
                               want->size, page);
                r->nearest_above = page <= largest ? page : 0;
                return refuse_size(r, want->size, page);
        }
        below = UINT64_C(1) << (63 - __builtin_clzll(want->size));
        if (want->size > largest) {
                refuse(r, REFUSAL_WINDOW_SIZE, "a window of 0x%" PRIx64 " bytes is larger than the largest, 0x%" PRIx64,
                       want->size, largest);
                r->nearest_below = largest >= page ? largest : 0;
                return refuse_size(r, want->size, largest);
        }
        if (want->size == below)
                return 0;
        refuse(r, REFUSAL_WINDOW_SIZE, "the size of a window is a power of two, 0x%" PRIx64 " is none; the next are 0x%" PRIx64
               " and 0x%" PRIx64, want->size, below, below << 1);
        r->nearest_below = below;
        r->nearest_above = below << 1;  /* not past the largest, which is one and larger than the size */
        return refuse_size(r, want->size, largest);
}

static int check_levels(const struct container *c, const struct backend_window *want, struct refusal *r) {
        uint32_t most = c->info.windows.levels_max;

        if (want->levels <= most)
                return 0;
        refuse(r, REFUSAL_WINDOW_LEVELS, "a window's table has 1 to %" PRIu32 " levels here (0: the service chooses), not %" PRIu32,
               most, want->levels);
        r->limit = most;
        r->asked = want->levels;
        r->nearest_below = most;
        return -1;
}

static int check_count(const struct container *c, struct refusal *r) {
        uint32_t most = c->info.windows.max_windows;

        if (c->n_windows < most)
                return 0;
        refuse(r, REFUSAL_WINDOW_LIMIT, "there are %" PRIu32 " windows, and the IOMMU has no more than %" PRIu32
               " at one time; remove one first", c->n_windows, most);
        r->limit = most;
        r->used = c->n_windows;
        r->asked = 1;
        return -1;
}

/* Only what is certain before the kernel is asked: it must not wrap, begin within a page, or overlap. */
static int check_start(const struct container *c, const struct backend_window *want, struct refusal *r) {
        uint64_t page = UINT64_C(1) << want->page_shift;
        struct iova_range range;

        if (want->start == WINDOW_ANYWHERE)
                return 0;
        if (want->start & (page - 1)) {
                refuse(r, REFUSAL_UNALIGNED, "a window cannot begin at 0x%" PRIx64 ", within a page of 0x%" PRIx64, want->start,
                       page);
                r->limit = page;
                r->asked = want->start;
                r->nearest_below = want->start & ~(page - 1);
                return -1;
        }
        if (!iova_range_make(want->start, want->size, &range))
                return refuse(r, REFUSAL_RANGE_WRAPS, "a window of 0x%" PRIx64 " bytes at 0x%" PRIx64
                              " passes the end of the address space", want->size, want->start);
        for (uint32_t i = 0; i < c->n_windows; i++) {
                const struct iova_range other = window_range(&c->windows[i]);

                if (!iova_range_overlaps(other, range))
                        continue;
                refuse(r, REFUSAL_OVERLAP, RANGE_FORMAT " overlaps the window " RANGE_FORMAT, range.first, range.last,
                       other.first, other.last);
                r->conflict_first = other.first;
                r->conflict_last = other.last;
                return -1;
        }
        return 0;
}

static bool overlaps_any(const struct container *c, const struct backend_window *w) {
        for (uint32_t i = 0; i < c->n_windows; i++)
                if (iova_range_overlaps(window_range(&c->windows[i]), window_range(w)))
                        return true;
        return false;
}

/* Is what the backend made what was asked for, and somewhere it can be? *r says what is wrong. */
static int check_made(const struct container *c, const struct backend_window *want, const struct backend_window *made,
                      struct refusal *r) {
        struct iova_range range;

        if (!iova_range_make(made->start, made->size, &range) || made->size != want->size ||
            made->page_shift != want->page_shift)
                return refuse(r, REFUSAL_BACKEND_REFUSED, "the kernel made another window than was asked for: 0x%" PRIx64
                              " bytes at 0x%" PRIx64, made->size, made->start);
        if (overlaps_any(c, made))
                return refuse(r, REFUSAL_BACKEND_REFUSED, "the kernel put the window at " RANGE_FORMAT
                              ", where another one is", range.first, range.last);
        if (want->start == WINDOW_ANYWHERE || want->start == made->start)
                return 0;
        refuse(r, REFUSAL_OUTSIDE_APERTURE, "a window cannot begin at 0x%" PRIx64 "; this one would begin at 0x%" PRIx64,
               want->start, made->start);
        if (made->start < want->start)
                r->nearest_below = made->start;
        else
                r->nearest_above = made->start;
        return -1;
}

/* One that cannot be removed again is a window at least, and known. */
static void undo_create(struct container *c, const struct backend_window *made) {
        struct refusal r;

        if (c->ops.window_remove(c, made, &r) == 0)
                return;
        log_error("a window at 0x%" PRIx64 " that was not wanted cannot be removed: %s", made->start, r.text);
        if (made->size > 0 && made->start + (made->size - 1) >= made->start && !overlaps_any(c, made))
                windows_add(c, made);
}

int container_window_create(struct container *c, const struct backend_window *want, struct backend_window *ret,
                            struct refusal *r) {
        struct backend_window made = *want;

        if (check_own(c, r) < 0 || check_page(c, want, r) < 0 || check_size(c, want, r) < 0 || check_levels(c, want, r) < 0 ||
            check_count(c, r) < 0 || check_start(c, want, r) < 0 || c->ops.window_create(c, want, &made, r) < 0)
                return -1;
        if (check_made(c, want, &made, r) < 0) {
                undo_create(c, &made);
                return -1;
        }
        windows_add(c, &made);
        *ret = made;
        return 0;
}

/* --- removing -----------------------------------------------------------------------------------------------------*/

static int check_empty(struct container *c, const struct backend_window *w, struct refusal *r) {
        const struct mapping *m = mapping_set_find(&c->mappings, window_range(w));

        if (!m)
                return 0;
        refuse(r, REFUSAL_IN_USE, "the window at 0x%" PRIx64 " has mappings, the first at " RANGE_FORMAT "; unmap them first",
               w->start, m->range.first, m->range.last);
        r->conflict_first = m->range.first;
        r->conflict_last = m->range.last;
        return -1;
}

static int remove_window(struct container *c, struct backend_window w, struct refusal *r) {
        if (c->ops.window_remove(c, &w, r) < 0)
                return -1;
        windows_forget(c, w.start);
        return 0;
}

int container_window_remove(struct container *c, uint64_t start, struct refusal *r) {
        const struct backend_window *w;

        if (check_own(c, r) < 0)
                return -1;
        w = windows_at(c, start);
        if (!w || w->start != start) {
                refuse(r, REFUSAL_UNKNOWN_WINDOW, "no window begins at 0x%" PRIx64, start);
                r->asked = start;
                if (w)
                        r->nearest_below = w->start;
                return -1;
        }
        if (check_empty(c, w, r) < 0)
                return -1;
        return remove_window(c, *w, r);
}

static bool same_window(const struct backend_window *a, const struct backend_window *b) {
        return a->start == b->start && a->size == b->size && a->page_shift == b->page_shift;
}

/* The others go first: pseries restores the initial window only while there is no other. */
int container_windows_reset(struct container *c, struct refusal *r) {
        const struct backend_window *initial = &c->info.windows.initial;
        struct backend_window made;

        if (check_own(c, r) < 0)
                return -1;
        for (uint32_t i = 0; i < c->n_windows; i++)
                if (check_empty(c, &c->windows[i], r) < 0)
                        return -1;
        for (uint32_t i = c->n_windows; i-- > 0;)
                if (!same_window(&c->windows[i], initial) && remove_window(c, c->windows[i], r) < 0)
                        return -1;
        if (initial->size == 0 || c->n_windows > 0)
                return 0;
        return container_window_create(c, initial, &made, r);
}

size_t container_windows(const struct container *c, struct backend_window ret[BACKEND_WINDOWS_MAX]) {
        memcpy(ret, c->windows, c->n_windows * sizeof ret[0]);
        return c->n_windows;
}
