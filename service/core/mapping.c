/* SPDX-License-Identifier: Apache-2.0 */
#include "core/mapping.h"

#include <stdlib.h>
#include <string.h>

#include "core/window.h"

struct mapping_slab {
        struct mapping_slab *next;
        struct mapping nodes[MAPPINGS_PER_SLAB];
};

static int compare(const struct mapping *a, const struct mapping *b) {
        return a->range.first < b->range.first ? -1 : a->range.first > b->range.first;
}

/* libbsd's RB_GENERATE_STATIC relies on a macro that glibc does not have */
RB_GENERATE_INTERNAL(mapping_tree, mapping, node, compare, static __attribute__((unused)))

void mapping_set_init(struct mapping_set *s) {
        memset(s, 0, sizeof *s);
        RB_INIT(&s->tree);
        iova_space_init(&s->unmapped);
}

void mapping_set_clear(struct mapping_set *s) {
        struct mapping_slab *next;

        for (struct mapping_slab *slab = s->slabs; slab; slab = next) {
                next = slab->next;
                free(slab);
        }
        iova_space_clear(&s->unmapped);
        mapping_set_init(s);
}

struct mapping *mapping_set_find(struct mapping_set *s, struct iova_range range) {
        struct mapping *m = RB_ROOT(&s->tree), *found = NULL;

        /* Disjoint and sorted: the first one whose end is not before the range is the only candidate for the first. */
        while (m) {
                if (m->range.last >= range.first) {
                        found = m;
                        m = RB_LEFT(m, node);
                } else
                        m = RB_RIGHT(m, node);
        }
        return found && iova_range_overlaps(found->range, range) ? found : NULL;
}

struct mapping *mapping_set_next(struct mapping_set *s, struct mapping *m) {
        (void)s;
        return RB_NEXT(mapping_tree, &s->tree, m);
}

static bool grow(struct mapping_set *s) {
        struct mapping_slab *slab = malloc(sizeof *slab);

        if (!slab)
                return false;
        slab->next = s->slabs;
        s->slabs = slab;
        for (size_t i = 0; i < MAPPINGS_PER_SLAB; i++) {
                slab->nodes[i].next_free = s->free;
                s->free = &slab->nodes[i];
        }
        return true;
}

struct mapping *mapping_set_take(struct mapping_set *s, struct iova_range range) {
        struct mapping *m;

        if ((!s->free && !grow(s)) || !iova_space_reserve(&s->unmapped))
                return NULL;
        m = s->free;
        s->free = m->next_free;
        memset(m, 0, sizeof *m);
        m->range = range;
        return m;
}

void mapping_set_place(struct mapping_set *s, struct mapping *m) {
        struct window *w = s->windows ? window_set_at(s->windows, m->range.first) : NULL;

        RB_INSERT(mapping_tree, &s->tree, m);
        (void)iova_space_take(&s->unmapped, m->range);
        s->count++;
        s->bytes += iova_range_length(m->range);
        if (w)
                window_charge(w, 1, iova_range_length(m->range));
}

static void free_node(struct mapping_set *s, struct mapping *m) {
        m->next_free = s->free;
        s->free = m;
}

void mapping_set_give_back(struct mapping_set *s, struct mapping *m) {
        iova_space_unreserve(&s->unmapped);
        free_node(s, m);
}

struct mapping *mapping_set_insert(struct mapping_set *s, struct iova_range range) {
        struct mapping *m = mapping_set_take(s, range);

        if (m)
                mapping_set_place(s, m);
        return m;
}

void mapping_set_remove(struct mapping_set *s, struct mapping *m) {
        struct window *w = s->windows ? window_set_at(s->windows, m->range.first) : NULL;

        RB_REMOVE(mapping_tree, &s->tree, m);
        iova_space_give(&s->unmapped, m->range);
        s->count--;
        s->bytes -= iova_range_length(m->range);
        if (w)
                window_refund(w, 1, iova_range_length(m->range));
        free_node(s, m);
}

static uint64_t page_mask_of(const struct mapping *m) {
        return m->page_shift ? (UINT64_C(1) << m->page_shift) - 1 : 0;
}

bool mapping_body(const struct mapping *m, struct iova_range *ret) {
        uint64_t mask = page_mask_of(m), first, end = (m->range.last + 1) & ~mask;

        if (ADD_OVERFLOW(m->range.first, mask, &first))
                return false;
        first &= ~mask;
        *ret = (struct iova_range){ first, end - 1 };   /* an end of 2^64 is 0 here, and its last address right */
        return first <= end - 1 && end - 1 <= m->range.last;
}

unsigned mapping_edges(const struct mapping *m, uint64_t ret[2]) {
        uint64_t mask = page_mask_of(m);
        unsigned n = 0;

        if (m->range.first & mask)
                ret[n++] = m->range.first & ~mask;
        if (((m->range.last + 1) & mask) && (n == 0 || ret[0] != (m->range.last & ~mask)))
                ret[n++] = m->range.last & ~mask;
        return n;
}

struct iova_range mapping_seen(const struct mapping *m) {
        uint64_t mask = page_mask_of(m);

        return (struct iova_range){ m->range.first & ~mask, m->range.last | mask };
}

uint64_t mapping_pieces(const struct mapping *m) {
        struct iova_range body;

        if (!mapping_body(m, &body))
                return 0;
        return m->chunk_shift ? ((body.last - body.first) >> m->chunk_shift) + 1 : 1;
}

const char *mapping_state_name(enum mapping_state state) {
        switch (state) {
        case MAPPING_INTENDED:
                return "intended";
        case MAPPING_LIVE:
                return "live";
        case MAPPING_UNMAPPING:
                return "unmapping";
        case MAPPING_DEFERRED:
                return "deferred";
        default:
                return "unknown";
        }
}
