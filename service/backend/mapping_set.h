/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <bsd/sys/tree.h>

#include "backend/pool.h"
#include "util/iova.h"

/*
 * The ranges that a container has mapped: disjoint, each exactly as it was given. No backend can list what the kernel
 * has, so this is how an unmap is known to name one whole mapping. Not thread-safe.
 */
struct mapping {
        struct pool_item item;
        RB_ENTRY(mapping) link;
        struct iova_range range;
        void *backend;                  /* whatever the backend keeps with a mapping; NULL in a new one */
};

RB_HEAD(mapping_tree, mapping);

struct mapping_set {
        struct mapping_tree tree;
        struct pool pool;
        uint32_t count;
};

void mapping_set_init(struct mapping_set *s);
void mapping_set_clear(struct mapping_set *s);          /* forgets every mapping and gives all memory back */

/* Adds a range that overlaps none. NULL when memory is out. */
struct mapping *mapping_set_add(struct mapping_set *s, struct iova_range range);
void mapping_set_remove(struct mapping_set *s, struct mapping *m);

/* The lowest mapping that shares a byte with range, or NULL. */
struct mapping *mapping_set_find(struct mapping_set *s, struct iova_range range);

struct mapping *mapping_set_first(struct mapping_set *s);         /* by address; NULL when there is none */
struct mapping *mapping_set_next(struct mapping *m);
