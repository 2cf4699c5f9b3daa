/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <bsd/sys/tree.h>

#include "backend/backend.h"
#include "util/iova.h"

/*
 * Kernel memory that the mappings of one domain cause (I5). Not locked in here: the session's lock protects it.
 *
 * Page tables. With an IOMMU whose smallest page is the granule g, a table is g bytes with g / 8 entries: one of the lowest
 * level covers g * g / 8 bytes of IOVA (4K: 2 MiB), one of each higher level g / 8 times as much. A range touches every table
 * that covers a byte of it; levels are counted until one table covers 2^64 bytes. That one, the root, is not counted: it comes
 * with the domain. Kernels keep tables when their last entry goes (128 KiB to 131 MB seen), so touched is touched until the
 * domain is destroyed. Large pages may need fewer tables than this; a page in the wrong place brings them back, so they are
 * charged.
 *
 * A batch is added and then committed or taken back as a whole. O(levels * log n + runs): a huge range is one run a level.
 */
struct table_blocks;
struct table_slab;

struct table_pages {
        RB_HEAD(table_tree, table_blocks) tree;
        struct table_blocks *pending;   /* added since the last commit */
        struct table_blocks *free;
        struct table_slab *slabs;
        size_t runs;                    /* in the tree */
        uint64_t granule;
        uint64_t bytes;                 /* of tables touched, those of pending with them */
};

void table_pages_init(struct table_pages *t, uint64_t granule);        /* a power of two, 4096 or more */
void table_pages_clear(struct table_pages *t);          /* nothing is touched any more */

/* Touches range. *ret_bytes: of tables that this adds. False: out of memory; take the batch back then. */
bool table_pages_add(struct table_pages *t, struct iova_range range, uint64_t *ret_bytes);
void table_pages_commit(struct table_pages *t);
void table_pages_rollback(struct table_pages *t);       /* gives back exactly what was added since the last commit */

/* Bytes that the kernel (soft: our holder) keeps for one mapping, besides tables. */
uint64_t mapping_record_bytes(enum backend_kind backend);
