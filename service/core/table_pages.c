/* SPDX-License-Identifier: Apache-2.0 */
#include "core/table_pages.h"

#include <stdlib.h>
#include <string.h>

#define NODES_PER_SLAB 64U

/* A run of touched tables of one level. Runs of a level are disjoint; committed ones do not adjoin each other. */
struct table_blocks {
        RB_ENTRY(table_blocks) node;
        uint64_t first, last;           /* inclusive; number n covers the n-th stretch of what a table of the level covers */
        struct table_blocks *next;      /* pending or free */
        unsigned level;                 /* 1: lowest */
        bool is_pending;
};

struct table_slab {
        struct table_slab *next;
        struct table_blocks nodes[NODES_PER_SLAB];
};

static int compare(const struct table_blocks *a, const struct table_blocks *b) {
        if (a->level != b->level)
                return a->level < b->level ? -1 : 1;
        return a->first < b->first ? -1 : a->first > b->first;
}

/* libbsd's RB_GENERATE_STATIC relies on a macro that glibc does not have */
RB_GENERATE_INTERNAL(table_tree, table_blocks, node, compare, static __attribute__((unused)))

void table_pages_init(struct table_pages *t, uint64_t granule) {
        memset(t, 0, sizeof *t);
        RB_INIT(&t->tree);
        t->granule = granule;
}

void table_pages_clear(struct table_pages *t) {
        struct table_slab *next;

        for (struct table_slab *slab = t->slabs; slab; slab = next) {
                next = slab->next;
                free(slab);
        }
        table_pages_init(t, t->granule);
}

static bool grow(struct table_pages *t) {
        struct table_slab *slab = malloc(sizeof *slab);

        if (!slab)
                return false;
        slab->next = t->slabs;
        t->slabs = slab;
        for (size_t i = 0; i < NODES_PER_SLAB; i++) {
                slab->nodes[i].next = t->free;
                t->free = &slab->nodes[i];
        }
        return true;
}

static void drop(struct table_pages *t, struct table_blocks *n) {
        RB_REMOVE(table_tree, &t->tree, n);
        t->runs--;
        n->next = t->free;
        t->free = n;
}

/* ---- one level ---- */

/* The first run of the level that does not end before block. */
static struct table_blocks *lower(struct table_pages *t, unsigned level, uint64_t block) {
        struct table_blocks *n = RB_ROOT(&t->tree), *found = NULL;

        while (n) {
                if (n->level > level || (n->level == level && n->last >= block)) {
                        found = n;
                        n = RB_LEFT(n, node);
                } else
                        n = RB_RIGHT(n, node);
        }
        return found && found->level == level ? found : NULL;
}

/* A pending run: it stays by itself until the batch is committed, so that taking it back needs no memory. */
static bool insert(struct table_pages *t, unsigned level, uint64_t first, uint64_t last) {
        struct table_blocks *n;

        if (!t->free && !grow(t))
                return false;
        n = t->free;
        t->free = n->next;
        n->level = level;
        n->is_pending = true;
        n->first = first;
        n->last = last;
        n->next = t->pending;
        t->pending = n;
        RB_INSERT(table_tree, &t->tree, n);
        t->runs++;
        t->bytes += (last - first + 1) * t->granule;
        return true;
}

static struct table_blocks *next_of_level(struct table_blocks *n) {
        struct table_blocks *next = RB_NEXT(table_tree, &t->tree, n);

        return next && next->level == n->level ? next : NULL;
}

static bool touch(struct table_pages *t, unsigned level, uint64_t first, uint64_t last) {
        struct table_blocks *n = lower(t, level, first);
        uint64_t at = first;

        for (; n && n->first <= last; n = next_of_level(n)) {
                if (n->first > at && !insert(t, level, at, n->first - 1))
                        return false;
                if (n->last >= last)
                        return true;
                at = n->last + 1;
        }
        return insert(t, level, at, last);
}

/* ---- all of them ---- */

bool table_pages_add(struct table_pages *t, struct iova_range range, uint64_t *ret_bytes) {
        unsigned bits = (unsigned)__builtin_ctzll(t->granule), step = bits - 3;
        uint64_t before = t->bytes;

        for (unsigned level = 1, shift = bits + step; shift < 64; level++, shift += step)
                if (!touch(t, level, range.first >> shift, range.last >> shift))
                        return false;
        *ret_bytes = t->bytes - before;
        return true;
}

/* A run joins those beside it, if it adjoins them. One behind it that is pending still joins when it is its turn: nothing but n
 * itself leaves the list of pending ones here. */
static void join(struct table_pages *t, struct table_blocks *n) {
        struct table_blocks *before = RB_PREV(table_tree, &t->tree, n), *after;

        if (before && before->level == n->level && before->last + 1 == n->first) {
                before->last = n->last;
                drop(t, n);
                n = before;
        }
        after = next_of_level(n);
        if (after && !after->is_pending && n->last + 1 == after->first) {
                n->last = after->last;
                drop(t, after);
        }
}

void table_pages_commit(struct table_pages *t) {
        struct table_blocks *next;

        for (struct table_blocks *n = t->pending; n; n = next) {
                next = n->next;
                n->is_pending = false;
                join(t, n);
        }
        t->pending = NULL;
}

void table_pages_rollback(struct table_pages *t) {
        struct table_blocks *next;

        for (struct table_blocks *n = t->pending; n; n = next) {
                next = n->next;
                t->bytes -= (n->last - n->first + 1) * t->granule;
                drop(t, n);
        }
        t->pending = NULL;
}

/*
 * type1 has a struct vfio_dma for each: a red-black node, iova, vaddr, size, prot, task, mm, bitmap, pinned pages, in kmalloc-128.
 * iommufd has a struct iopt_area and a struct iopt_pages, both in kmalloc-256. The software IOMMU has nothing in the kernel; its
 * tenants are charged as on type1, so that a quota means the same on both.
 */
uint64_t mapping_record_bytes(enum backend_kind backend) {
        switch (backend) {
        case BACKEND_SOFT:
        case BACKEND_VFIO_TYPE1:
                return 128;
        default:
                return 512;
        }
}
