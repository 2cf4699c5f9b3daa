/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bsd/sys/tree.h>

#include "core/iova_space.h"
#include "util/iova.h"

/*
 * The mappings of one domain by IOVA, as the broker sees them. Not locked in here: the session's lock protects it.
 */
enum mapping_state {
        MAPPING_INTENDED = 1,   /* admitted; the holder has not answered */
        MAPPING_LIVE = 2,
        MAPPING_UNMAPPING = 3,
        MAPPING_DEFERRED = 4,   /* unmapped for its client; the IOMMU hears of it at the next flush (core/lazy.h) */
};

struct change;
struct memory;
struct window_set;

struct mapping {
        RB_ENTRY(mapping) node;
        struct iova_range range;
        uint64_t offset;
        struct memory *memory;          /* counted in memory->mappings */
        uint32_t access;
        enum mapping_state state;
        uint8_t chunk_shift;            /* may be cut at multiples of 2^n bytes from its beginning; 0: nowhere */
        uint8_t page_shift;             /* not 0: it exposes the IOMMU pages of 2^n bytes that it touches */
        bool touches;                   /* it needs page tables that its domain did not have */
        uint32_t element;               /* while it is intended: of the request that makes it; of merged ones the first */
        struct change *by;              /* the request that is about to unmap it, while it is being admitted */
        struct mapping *next_free;
};

RB_HEAD(mapping_tree, mapping);

#define MAPPINGS_PER_SLAB 256U

/* Nodes come from slabs that live as long as the set, so that mapping allocates nothing in the steady state. */
struct mapping_slab;

struct mapping_set {
        struct mapping_tree tree;
        struct mapping *free;
        struct mapping_slab *slabs;
        uint64_t count, bytes;
        struct window_set *windows;     /* count what is in each of them; NULL: nobody does */
        struct iova_space unmapped;     /* what no mapping in the tree covers */
};

void mapping_set_init(struct mapping_set *s);
void mapping_set_clear(struct mapping_set *s);  /* frees every node; memory counts are the caller's business */

/* First mapping that overlaps range, NULL if none. */
struct mapping *mapping_set_find(struct mapping_set *s, struct iova_range range);
struct mapping *mapping_set_next(struct mapping_set *s, struct mapping *m);

/* A new node in the tree; the caller has made sure that nothing overlaps. NULL: out of memory. */
struct mapping *mapping_set_insert(struct mapping_set *s, struct iova_range range);
void mapping_set_remove(struct mapping_set *s, struct mapping *m);

/* In two steps, for what will take the place of a mapping that is still there: a node outside the tree (NULL: out of
 * memory), and into the tree, which cannot fail; or given back unused. */
struct mapping *mapping_set_take(struct mapping_set *s, struct iova_range range);
void mapping_set_place(struct mapping_set *s, struct mapping *m);
void mapping_set_give_back(struct mapping_set *s, struct mapping *m);

/* What of it lies in whole IOMMU pages, which are its alone: all of it unless it exposes pages. False: nothing. */
bool mapping_body(const struct mapping *m, struct iova_range *ret);
/* The IOMMU pages that it touches in part, by their addresses: 0 to 2. */
unsigned mapping_edges(const struct mapping *m, uint64_t ret[2]);
/* The range that devices see because of it: whole IOMMU pages. */
struct iova_range mapping_seen(const struct mapping *m);
/* How many mappings of the IOMMU its body is: one for each chunk. */
uint64_t mapping_pieces(const struct mapping *m);

const char *mapping_state_name(enum mapping_state state);
