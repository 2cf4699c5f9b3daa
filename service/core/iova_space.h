/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bsd/sys/tree.h>

#include "util/iova.h"

/*
 * What is free of an address space, so that a place for a mapping is found without walking the mappings. Free extents by
 * address; each knows the largest piece below it in the tree, for a few alignments. Not locked in here: the session's lock
 * protects it.
 *
 * Cost: take, give and find visit O(log n) extents however many holes there are. An alignment that is none of the classes
 * below looks at IOVA_SPACE_TRIES extents that are long enough and may be too crooked; after that it takes only one that is
 * so long that any place in it will do. It may then say no although a hole that just fits lies further up: ask again for less
 * alignment. For alignments of a class the answer is exact, and for the granule of the IOMMU too, since its pages are taken
 * and given as wholes.
 */
#define IOVA_SPACE_CLASSES 4U           /* 4K, 64K, 2M, 1G: what IOMMUs have pages of */
#define IOVA_SPACE_ALIGN_LEAST 4096U
#define IOVA_SPACE_TRIES 16U
#define IOVA_EXTENTS_PER_SLAB 64U

struct iova_extent {
        RB_ENTRY(iova_extent) node;
        struct iova_range range;
        uint64_t most[IOVA_SPACE_CLASSES];      /* the longest that fits at that alignment in this extent or one below it */
        struct iova_extent *next_unused;
};

RB_HEAD(iova_extent_tree, iova_extent);

struct iova_slab;

/* Stays where it is in memory. */
struct iova_space {
        struct iova_extent_tree tree;
        struct iova_extent *unused;
        struct iova_slab *slabs;
        uint64_t extents;               /* in the tree */
        uint64_t room;                  /* extents that there is memory for */
        uint64_t pieces;                /* taken or reserved, and one for each range of the beginning: more extents cannot be */
        uint64_t visited;               /* extents looked at, ever: what the tests count */
        struct iova_extent first;       /* the whole space needs no allocation */
};

/* All of 2^64 is free. */
void iova_space_init(struct iova_space *s);
/* ranges: sorted and disjoint; what is between them is never free. Touching ones are one. False: out of memory. */
bool iova_space_init_ranges(struct iova_space *s, const struct iova_range *ranges, size_t n);
void iova_space_clear(struct iova_space *s);

/* Is all of it free. */
bool iova_space_is_free(struct iova_space *s, struct iova_range range);

/* Memory for one piece more, before it is taken; or before something that was taken whole is given in one more part. False:
 * out of memory. Unreserve what is not taken after all. */
bool iova_space_reserve(struct iova_space *s);
void iova_space_unreserve(struct iova_space *s);

/* One piece that was reserved, all of it free; false, and nothing has changed, if it is not: a bug of ours, logged. */
bool iova_space_take(struct iova_space *s, struct iova_range range);

/* What was taken, with its reservation. Needs no memory. Giving what is free already is a bug of ours: logged, ignored. */
void iova_space_give(struct iova_space *s, struct iova_range range);

/* The lowest place for length bytes (not 0) inside within, at a multiple of align (a power of two, IOVA_SPACE_ALIGN_LEAST or
 * more). */
bool iova_space_find(struct iova_space *s, uint64_t length, uint64_t align, struct iova_range within, uint64_t *ret);
