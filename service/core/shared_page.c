/* SPDX-License-Identifier: Apache-2.0 */
#include "core/shared_page.h"

#include <stdlib.h>

#include "backend/backend.h"

static int compare(const struct shared_page *a, const struct shared_page *b) {
        return a->iova < b->iova ? -1 : a->iova > b->iova;
}

RB_GENERATE_INTERNAL(shared_page_tree, shared_page, node, compare, static __attribute__((unused)))

void shared_page_set_init(struct shared_page_set *s) {
        RB_INIT(&s->tree);
        s->count = 0;
}

void shared_page_set_clear(struct shared_page_set *s) {
        struct shared_page *p;

        while ((p = RB_MIN(shared_page_tree, &s->tree)))
                shared_page_remove(s, p);
}

struct shared_page *shared_page_find(struct shared_page_set *s, uint64_t iova) {
        struct shared_page key = { .iova = iova };

        return RB_FIND(shared_page_tree, &s->tree, &key);
}

struct shared_page *shared_page_from(struct shared_page_set *s, uint64_t iova) {
        struct shared_page key = { .iova = iova };

        return RB_NFIND(shared_page_tree, &s->tree, &key);
}

struct iova_range shared_page_range(const struct shared_page *p) {
        return (struct iova_range){ p->iova, p->iova + ((UINT64_C(1) << p->page_shift) - 1) };
}

struct shared_page *shared_page_in(struct shared_page_set *s, struct iova_range range) {
        struct shared_page *p = shared_page_from(s, range.first);
        struct shared_page *before = p ? RB_PREV(shared_page_tree, &s->tree, p) : RB_MAX(shared_page_tree, &s->tree);

        if (before && shared_page_range(before).last >= range.first)
                return before;
        return p && p->iova <= range.last ? p : NULL;
}

struct shared_page *shared_page_next(struct shared_page_set *s, struct shared_page *p) {
        (void)s;
        return RB_NEXT(shared_page_tree, &s->tree, p);
}

struct shared_page *shared_page_add(struct shared_page_set *s, uint64_t iova) {
        struct shared_page *p = calloc(1, sizeof *p);

        if (!p)
                return NULL;
        p->iova = iova;
        RB_INSERT(shared_page_tree, &s->tree, p);
        s->count++;
        return p;
}

void shared_page_remove(struct shared_page_set *s, struct shared_page *p) {
        RB_REMOVE(shared_page_tree, &s->tree, p);
        s->count--;
        free(p);
}

void shared_page_count(struct shared_page *p, uint32_t access, int sign) {
        if (access & BACKEND_ACCESS_READ)
                p->readers += (uint32_t)sign;
        if (access & BACKEND_ACCESS_WRITE)
                p->writers += (uint32_t)sign;
}

uint32_t shared_page_union(const struct shared_page *p) {
        return (p->readers ? BACKEND_ACCESS_READ : 0U) | (p->writers ? BACKEND_ACCESS_WRITE : 0U);
}
