/* SPDX-License-Identifier: Apache-2.0 */
#include "core/mapping.h"

#include <stdlib.h>
#include <string.h>

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
}

void mapping_set_clear(struct mapping_set *s) {
        struct mapping_slab *next;

        for (struct mapping_slab *slab = s->slabs; slab; slab = next) {
                next = slab->next;
                free(slab);
        }
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

struct mapping *mapping_set_insert(struct mapping_set *s, struct iova_range range) {
        struct mapping *m;

        if (!s->free && !grow(s))
                return NULL;
        m = s->free;
        s->free = m->next_free;
        memset(m, 0, sizeof *m);
        m->range = range;
        RB_INSERT(mapping_tree, &s->tree, m);
        s->count++;
        s->bytes += iova_range_length(range);
        return m;
}

void mapping_set_remove(struct mapping_set *s, struct mapping *m) {
        RB_REMOVE(mapping_tree, &s->tree, m);
        s->count--;
        s->bytes -= iova_range_length(m->range);
        m->next_free = s->free;
        s->free = m;
}

const char *mapping_state_name(enum mapping_state state) {
        switch (state) {
        case MAPPING_INTENDED:
                return "intended";
        case MAPPING_LIVE:
                return "live";
        case MAPPING_UNMAPPING:
                return "unmapping";
        default:
                return "unknown";
        }
}
