/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * I/O page tables in memory, in the format of x86 second-level tables (VT-d; EPT and x86-64 are alike): 64-bit entries
 *
 *      bit 0           the device may read
 *      bit 1           the device may write        (neither: not present)
 *      bit 7           superpage: the entry of a level above 1 is a leaf
 *      bits 12..51     address: of a leaf, a software physical address (soft_phys.h); of another entry, the next table
 *
 * generic in the granule, as io-pgtable of Linux is: a table is one granule of entries, there are four levels, a leaf
 * may stand at levels 1 to 3. So 4K tables offer pages of 4K, 2M and 1G and 48 address bits; 16K: 16K, 32M, 64G and 58;
 * 64K: 64K, 512M, 4T and all 64.
 *
 * Tables live in this process and are found at their host address, which on every Linux fits bits 12..51.
 *
 * Growth is like the kernel's (DESIGN, section 6): tables that have become empty stay where they are, so that mapping
 * there again allocates nothing. A superpage that takes the place of empty tables, and clearing, return them to the
 * free list. All go with the whole.
 *
 * Not thread-safe: the container's lock covers it.
 */
#define SOFT_PTE_READ UINT64_C(0x1)
#define SOFT_PTE_WRITE UINT64_C(0x2)
#define SOFT_PTE_SUPERPAGE UINT64_C(0x80)
#define SOFT_PTE_ADDRESS UINT64_C(0x000ffffffffff000)
#define SOFT_PHYS_BITS 52U
#define SOFT_LEVELS 4U

struct soft_table_chunk;

struct soft_pgtable {
        unsigned granule_shift;
        uint64_t page_sizes;
        uint64_t *root;
        size_t n_tables;                /* in use: the root and what hangs below it */
        size_t max_tables;              /* 0: no limit */
        uint64_t *free;                 /* all zero but for the first entry, which links to the next */
        struct soft_table_chunk *chunks;
};

/* Can these page sizes be expressed: smallest 4K to 64K, others only those of levels 2 and 3. */
bool soft_pgtable_expresses(uint64_t page_sizes);
/* Address bits of the format with this granule, 48 to 64. */
unsigned soft_pgtable_bits(uint64_t page_sizes);

/* page_sizes must be expressible. 0 or -ENOMEM. */
int soft_pgtable_init(struct soft_pgtable *t, uint64_t page_sizes);
void soft_pgtable_free(struct soft_pgtable *t);
void soft_pgtable_clear(struct soft_pgtable *t);        /* no leaf and no table but the root is left; memory is kept */

/* Translates [iova, iova + length) to [phys, phys + length) with the largest pages that the alignment of both and the
 * length permit. Everything is aligned to the granule, the range fits the format. access: SOFT_PTE_READ|WRITE.
 * All or nothing: 0, -ENOMEM, or -EEXIST if something of the range is translated already. */
int soft_pgtable_insert(struct soft_pgtable *t, uint64_t iova, uint64_t phys, uint64_t length, uint64_t access);

/* Removes the translation of a range that is made of whole leaves (those of earlier insertions) and holes. */
void soft_pgtable_remove(struct soft_pgtable *t, uint64_t iova, uint64_t length);

/* What one address is translated to. */
struct soft_leaf {
        uint64_t phys;          /* of the address itself */
        uint64_t left;          /* bytes from there to the end of the page */
        uint64_t access;        /* SOFT_PTE_READ|WRITE */
        unsigned level;
};

/* Walks the tables as hardware would. False if nothing is translated there. */
bool soft_pgtable_walk(const struct soft_pgtable *t, uint64_t iova, struct soft_leaf *ret);
