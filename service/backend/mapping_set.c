/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/mapping_set.h"

/* Overlapping ranges compare equal. Members of the set are disjoint, so among them this is a total order. */
static int mapping_compare(const struct mapping *a, const struct mapping *b) {
        if (a->range.last < b->range.first)
                return -1;
        return a->range.first > b->range.last;
}

/* not RB_GENERATE_STATIC: that one needs a `__unused` which glibc does not define */
RB_GENERATE_INTERNAL(mapping_tree, mapping, link, mapping_compare, __attribute__((unused)) static)

void mapping_set_init(struct mapping_set *s) {
        *s = (struct mapping_set){ .pool = POOL_INIT(struct mapping, UINT32_MAX) };
}

void mapping_set_clear(struct mapping_set *s) {
        pool_free(&s->pool);
        RB_INIT(&s->tree);
        s->count = 0;
}

struct mapping *mapping_set_add(struct mapping_set *s, struct iova_range range) {
        struct mapping *m = pool_take(&s->pool);

        if (!m)
                return NULL;
        m->range = range;
        m->backend = NULL;
        RB_INSERT(mapping_tree, &s->tree, m);
        s->count++;
        return m;
}

void mapping_set_remove(struct mapping_set *s, struct mapping *m) {
        RB_REMOVE(mapping_tree, &s->tree, m);
        pool_give(&s->pool, m);
        s->count--;
}

struct mapping *mapping_set_find(struct mapping_set *s, struct iova_range range) {
        /* the first mapping that does not end before the range: looking for one byte makes it the lowest one */
        struct mapping key = { .range = { range.first, range.first } };
        struct mapping *m = RB_NFIND(mapping_tree, &s->tree, &key);

        return m && m->range.first <= range.last ? m : NULL;
}

struct mapping *mapping_set_first(struct mapping_set *s) {
        return RB_MIN(mapping_tree, &s->tree);
}

struct mapping *mapping_set_next(struct mapping *m) {
        return RB_NEXT(mapping_tree, NULL, m);
}
