/* SPDX-License-Identifier: Apache-2.0 */
/* Before the header of the trees: what they call for each node whose children have changed. */
#define RB_AUGMENT(x) sum_up(x)

#include "core/iova_space.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/log.h"

struct iova_slab {
        struct iova_slab *next;
        struct iova_extent extents[IOVA_EXTENTS_PER_SLAB];
};

static const uint8_t class_shift[IOVA_SPACE_CLASSES] = { 12, 16, 21, 30 };

/* ---- one extent ---- */

static bool align_up(uint64_t address, uint64_t align, uint64_t *ret) {
        if (ADD_OVERFLOW(address, align - 1, ret))
                return false;
        *ret &= ~(align - 1);
        return true;
}

/* What fits at that alignment. 0 also for the whole space, 2^64: then it is the only extent, which is tried anyway. */
static uint64_t fits(struct iova_range range, uint64_t align) {
        uint64_t first;

        if (!align_up(range.first, align, &first) || first > range.last)
                return 0;
        return range.last - first + 1;
}

static uint64_t own_most(const struct iova_extent *e, unsigned class) {
        return fits(e->range, UINT64_C(1) << class_shift[class]);
}

static void sum_up(struct iova_extent *e) {
        for (unsigned c = 0; c < IOVA_SPACE_CLASSES; c++) {
                uint64_t most = own_most(e, c);

                if (RB_LEFT(e, node) && RB_LEFT(e, node)->most[c] > most)
                        most = RB_LEFT(e, node)->most[c];
                if (RB_RIGHT(e, node) && RB_RIGHT(e, node)->most[c] > most)
                        most = RB_RIGHT(e, node)->most[c];
                e->most[c] = most;
        }
}

static int compare(const struct iova_extent *a, const struct iova_extent *b) {
        return a->range.first < b->range.first ? -1 : a->range.first > b->range.first;
}

/* libbsd's RB_GENERATE_STATIC relies on a macro that glibc does not have */
RB_GENERATE_INTERNAL(iova_extent_tree, iova_extent, node, compare, static __attribute__((unused)))

/* The library sums up where it turns the tree, not all the way to the root. */
static void sum_up_to_root(struct iova_space *s, struct iova_extent *e) {
        for (; e; e = RB_PARENT(e, node)) {
                s->visited++;
                sum_up(e);
        }
}

/* ---- the tree ---- */

static bool provide(struct iova_space *s, uint64_t room) {
        while (s->room < room) {
                struct iova_slab *slab = malloc(sizeof *slab);

                if (!slab)
                        return false;
                slab->next = s->slabs;
                s->slabs = slab;
                for (size_t i = 0; i < IOVA_EXTENTS_PER_SLAB; i++) {
                        slab->extents[i].next_unused = s->unused;
                        s->unused = &slab->extents[i];
                }
                s->room += IOVA_EXTENTS_PER_SLAB;
        }
        return true;
}

/* There is memory: extents never outnumber pieces, and provide() has seen to those. */
static void insert(struct iova_space *s, struct iova_range range) {
        struct iova_extent *e = s->unused;

        s->unused = e->next_unused;
        memset(e, 0, sizeof *e);
        e->range = range;
        sum_up(e);
        RB_INSERT(iova_extent_tree, &s->tree, e);
        s->extents++;
        sum_up_to_root(s, e);
}

static void drop(struct iova_space *s, struct iova_extent *e) {
        struct iova_extent *parent = RB_PARENT(e, node);

        RB_REMOVE(iova_extent_tree, &s->tree, e);
        s->extents--;
        sum_up_to_root(s, parent);
        e->next_unused = s->unused;
        s->unused = e;
}

/* The lowest extent that does not end before the address. */
static struct iova_extent *first_from(struct iova_space *s, uint64_t address) {
        struct iova_extent *e = RB_ROOT(&s->tree), *found = NULL;

        while (e) {
                s->visited++;
                if (e->range.last >= address) {
                        found = e;
                        e = RB_LEFT(e, node);
                } else
                        e = RB_RIGHT(e, node);
        }
        return found;
}

static void init(struct iova_space *s, uint64_t pieces) {
        memset(s, 0, sizeof *s);
        RB_INIT(&s->tree);
        s->unused = &s->first;
        s->room = 1;
        s->pieces = pieces;
}

void iova_space_init(struct iova_space *s) {
        init(s, 1);
        insert(s, (struct iova_range){ 0, UINT64_MAX });
}

bool iova_space_init_ranges(struct iova_space *s, const struct iova_range *ranges, size_t n) {
        init(s, n);
        if (!provide(s, n))
                return false;
        for (size_t i = 0; i < n; i++) {
                struct iova_range range = ranges[i];

                while (i + 1 < n && range.last + 1 == ranges[i + 1].first)
                        range.last = ranges[++i].last;
                insert(s, range);
        }
        return true;
}

void iova_space_clear(struct iova_space *s) {
        struct iova_slab *next;

        for (struct iova_slab *slab = s->slabs; slab; slab = next) {
                next = slab->next;
                free(slab);
        }
        init(s, 0);
}

bool iova_space_is_free(struct iova_space *s, struct iova_range range) {
        const struct iova_extent *e = first_from(s, range.first);

        return e && iova_range_contains(e->range, range);
}

bool iova_space_reserve(struct iova_space *s) {
        if (!provide(s, s->pieces + 1))
                return false;
        s->pieces++;
        return true;
}

void iova_space_unreserve(struct iova_space *s) {
        s->pieces--;
}

bool iova_space_take(struct iova_space *s, struct iova_range range) {
        struct iova_extent *e = first_from(s, range.first);
        struct iova_range rest;

        if (!e || !iova_range_contains(e->range, range)) {
                log_error("IOVA 0x%" PRIx64 "-0x%" PRIx64 " is taken and was not free", range.first, range.last);
                return false;
        }
        rest = e->range;
        /* What is left keeps its node and its place in the order; only a second rest needs another one. */
        if (range.first > rest.first) {
                e->range.last = range.first - 1;
                sum_up_to_root(s, e);
                if (range.last < rest.last)
                        insert(s, (struct iova_range){ range.last + 1, rest.last });
        } else if (range.last < rest.last) {
                e->range.first = range.last + 1;
                sum_up_to_root(s, e);
        } else
                drop(s, e);
        return true;
}

void iova_space_give(struct iova_space *s, struct iova_range range) {
        struct iova_extent *above = first_from(s, range.first), *below;

        if ((above && above->range.first <= range.last) || s->pieces == 0) {
                log_error("IOVA 0x%" PRIx64 "-0x%" PRIx64 " is given back and was free", range.first, range.last);
                return;
        }
        s->pieces--;
        /* The one below ends before the range; that it ends right there is what matters. */
        below = range.first > 0 ? first_from(s, range.first - 1) : NULL;
        if (below && below->range.last != range.first - 1)
                below = NULL;
        if (above && (range.last == UINT64_MAX || above->range.first != range.last + 1))
                above = NULL;
        if (below && above) {
                uint64_t last = above->range.last;

                drop(s, above);
                below->range.last = last;
                sum_up_to_root(s, below);
        } else if (below) {
                below->range.last = range.last;
                sum_up_to_root(s, below);
        } else if (above) {
                above->range.first = range.first;
                sum_up_to_root(s, above);
        } else
                insert(s, range);
}

/* ---- finding ---- */

/* The lowest extent in the subtree that has the length; there is one. */
static struct iova_extent *lowest(struct iova_space *s, struct iova_extent *e, unsigned class, uint64_t length) {
        for (;;) {
                s->visited++;
                if (RB_LEFT(e, node) && RB_LEFT(e, node)->most[class] >= length)
                        e = RB_LEFT(e, node);
                else if (own_most(e, class) >= length)
                        return e;
                else
                        e = RB_RIGHT(e, node);
        }
}

/* The next extent after e that has the length. */
static struct iova_extent *next_with(struct iova_space *s, struct iova_extent *e, unsigned class, uint64_t length) {
        if (RB_RIGHT(e, node) && RB_RIGHT(e, node)->most[class] >= length)
                return lowest(s, RB_RIGHT(e, node), class, length);
        for (struct iova_extent *up = RB_PARENT(e, node); up; e = up, up = RB_PARENT(up, node)) {
                s->visited++;
                if (RB_LEFT(up, node) != e)
                        continue;
                if (own_most(up, class) >= length)
                        return up;
                if (RB_RIGHT(up, node) && RB_RIGHT(up, node)->most[class] >= length)
                        return lowest(s, RB_RIGHT(up, node), class, length);
        }
        return NULL;
}

static bool place(const struct iova_extent *e, uint64_t length, uint64_t align, struct iova_range within, uint64_t *ret) {
        uint64_t first = e->range.first > within.first ? e->range.first : within.first;
        uint64_t last = e->range.last < within.last ? e->range.last : within.last;

        if (!align_up(first, align, &first) || first > last || last - first < length - 1)
                return false;
        *ret = first;
        return true;
}

static unsigned class_for(uint64_t align) {
        unsigned class = 0;

        while (class + 1 < IOVA_SPACE_CLASSES && UINT64_C(1) << class_shift[class + 1] <= align)
                class++;
        return class;
}

bool iova_space_find(struct iova_space *s, uint64_t length, uint64_t align, struct iova_range within, uint64_t *ret) {
        unsigned class = class_for(align), tries = 0;
        uint64_t need = length;
        struct iova_extent *e;

        /* The first one may begin before the range, and what it has there does not count: so it is tried by itself. */
        for (e = length > 0 ? first_from(s, within.first) : NULL; e && e->range.first <= within.last;
             e = next_with(s, e, class, need)) {
                if (place(e, length, align, within, ret))
                        return true;
                if (++tries >= IOVA_SPACE_TRIES && ADD_OVERFLOW(length, align - (UINT64_C(1) << class_shift[class]), &need))
                        return false;
        }
        return false;
}
