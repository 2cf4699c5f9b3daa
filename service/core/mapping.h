/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bsd/sys/tree.h>

#include "util/iova.h"

/*
 * The mappings of one domain by IOVA, as the broker sees them. Not locked in here: the session's lock protects it.
 */
enum mapping_state {
        MAPPING_INTENDED = 1,   /* admitted; the holder has not answered */
        MAPPING_LIVE = 2,
        MAPPING_UNMAPPING = 3,
};

struct memory;

struct mapping {
        RB_ENTRY(mapping) node;
        struct iova_range range;
        uint64_t offset;
        struct memory *memory;          /* counted in memory->mappings */
        uint32_t access;
        enum mapping_state state;
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
};

void mapping_set_init(struct mapping_set *s);
void mapping_set_clear(struct mapping_set *s);  /* frees every node; memory counts are the caller's business */

/* First mapping that overlaps range, NULL if none. */
struct mapping *mapping_set_find(struct mapping_set *s, struct iova_range range);
struct mapping *mapping_set_next(struct mapping_set *s, struct mapping *m);

/* A new node in the tree; the caller has made sure that nothing overlaps. NULL: out of memory. */
struct mapping *mapping_set_insert(struct mapping_set *s, struct iova_range range);
void mapping_set_remove(struct mapping_set *s, struct mapping *m);

const char *mapping_state_name(enum mapping_state state);
