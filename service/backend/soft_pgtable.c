/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/soft_pgtable.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "util/iova.h"

#define ENTRY_SHIFT 3U          /* log2 of the size of an entry */
#define LEAF_LEVELS 3U          /* no leaf in the root */
#define CHUNK_TABLES 32U

struct soft_table_chunk {
        struct soft_table_chunk *next;
        void *memory;
        size_t size;
        uint64_t *tables;       /* first table, aligned to the granule */
        size_t used;
};

/* --- geometry -----------------------------------------------------------------------------------------------------*/

static unsigned index_bits(const struct soft_pgtable *t) {
        return t->granule_shift - ENTRY_SHIFT;
}

static size_t entries(const struct soft_pgtable *t) {
        return (size_t)1 << index_bits(t);
}

/* log2 of what one entry of a level spans */
static unsigned level_shift(const struct soft_pgtable *t, unsigned level) {
        return t->granule_shift + (level - 1) * index_bits(t);
}

static size_t entry_index(const struct soft_pgtable *t, uint64_t iova, unsigned level) {
        return (size_t)(iova >> level_shift(t, level)) & (entries(t) - 1);
}

bool soft_pgtable_expresses(uint64_t page_sizes) {
        uint64_t smallest = page_mask_smallest(page_sizes), expressible = 0;
        unsigned shift;

        if (smallest < 4096 || smallest > 65536)
                return false;
        shift = (unsigned)__builtin_ctzll(smallest);
        for (unsigned level = 0; level < LEAF_LEVELS; level++)
                expressible |= smallest << level * (shift - ENTRY_SHIFT);
        return (page_sizes & ~expressible) == 0;
}

unsigned soft_pgtable_bits(uint64_t page_sizes) {
        unsigned shift = (unsigned)__builtin_ctzll(page_sizes), bits = shift + SOFT_LEVELS * (shift - ENTRY_SHIFT);

        return bits < 64 ? bits : 64;
}

/* --- tables -------------------------------------------------------------------------------------------------------*/

/* mmap, so that tables nobody has touched yet cost no memory */
static bool table_chunk_add(struct soft_pgtable *t) {
        size_t granule = (size_t)1 << t->granule_shift, size = (CHUNK_TABLES + 1) * granule;
        struct soft_table_chunk *c = malloc(sizeof *c);
        void *memory;

        if (!c)
                return false;
        memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
                free(c);
                return false;
        }
        *c = (struct soft_table_chunk){
                .next = t->chunks,
                .memory = memory,
                .size = size,
                .tables = (uint64_t *)(((uintptr_t)memory + granule - 1) & ~(uintptr_t)(granule - 1)),
        };
        t->chunks = c;
        return true;
}

/* A table of zeroes, or NULL. */
static uint64_t *table_take(struct soft_pgtable *t) {
        uint64_t *table = t->free;

        if (t->max_tables && t->n_tables >= t->max_tables)
                return NULL;
        if (table) {
                t->free = (uint64_t *)(uintptr_t)table[0];
                table[0] = 0;
        } else {
                if ((!t->chunks || t->chunks->used == CHUNK_TABLES) && !table_chunk_add(t))
                        return NULL;
                table = t->chunks->tables + t->chunks->used++ * entries(t);
        }
        t->n_tables++;
        return table;
}

/* table: all zero */
static void table_give(struct soft_pgtable *t, uint64_t *table) {
        table[0] = (uint64_t)(uintptr_t)t->free;
        t->free = table;
        t->n_tables--;
}

static bool entry_present(uint64_t entry) {
        return entry & (SOFT_PTE_READ | SOFT_PTE_WRITE);
}

static bool entry_is_leaf(uint64_t entry, unsigned level) {
        return level == 1 || (entry & SOFT_PTE_SUPERPAGE);
}

static uint64_t *entry_table(uint64_t entry) {
        return (uint64_t *)(uintptr_t)(entry & SOFT_PTE_ADDRESS);
}

/* Is there no leaf in a table of this level and in those below it? */
static bool table_is_empty(const struct soft_pgtable *t, const uint64_t *table, unsigned level) {
        for (size_t i = 0; i < entries(t); i++) {
                if (!entry_present(table[i]))
                        continue;
                if (entry_is_leaf(table[i], level) || !table_is_empty(t, entry_table(table[i]), level - 1))
                        return false;
        }
        return true;
}

/* Zeroes a table and gives everything below it back. */
static void table_clear(struct soft_pgtable *t, uint64_t *table, unsigned level) {
        for (size_t i = 0; i < entries(t); i++) {
                if (entry_present(table[i]) && !entry_is_leaf(table[i], level)) {
                        table_clear(t, entry_table(table[i]), level - 1);
                        table_give(t, entry_table(table[i]));
                }
                table[i] = 0;
        }
}

int soft_pgtable_init(struct soft_pgtable *t, uint64_t page_sizes) {
        *t = (struct soft_pgtable){
                .granule_shift = (unsigned)__builtin_ctzll(page_sizes),
                .page_sizes = page_sizes,
        };
        t->root = table_take(t);
        return t->root ? 0 : -ENOMEM;
}

void soft_pgtable_free(struct soft_pgtable *t) {
        while (t->chunks) {
                struct soft_table_chunk *c = t->chunks;

                t->chunks = c->next;
                munmap(c->memory, c->size);
                free(c);
        }
        *t = (struct soft_pgtable){ 0 };
}

void soft_pgtable_clear(struct soft_pgtable *t) {
        table_clear(t, t->root, SOFT_LEVELS);
}

/* --- insertion and removal ----------------------------------------------------------------------------------------*/

static unsigned best_level(const struct soft_pgtable *t, uint64_t iova, uint64_t phys, uint64_t left) {
        for (unsigned level = LEAF_LEVELS; level > 1; level--) {
                uint64_t size = UINT64_C(1) << level_shift(t, level);

                if ((t->page_sizes & size) && ((iova | phys) & (size - 1)) == 0 && left >= size)
                        return level;
        }
        return 1;
}

/* The table of a level on the way to iova; tables that are missing are made. 0, -ENOMEM, or -EEXIST for a superpage in
 * the way. */
static int table_for(struct soft_pgtable *t, uint64_t iova, unsigned level, uint64_t **ret) {
        uint64_t *table = t->root;

        for (unsigned l = SOFT_LEVELS; l > level; l--) {
                uint64_t *entry = &table[entry_index(t, iova, l)];

                if (!entry_present(*entry)) {
                        uint64_t *below = table_take(t);

                        if (!below)
                                return -ENOMEM;
                        *entry = (uint64_t)(uintptr_t)below | SOFT_PTE_READ | SOFT_PTE_WRITE;
                } else if (entry_is_leaf(*entry, l))
                        return -EEXIST;
                table = entry_table(*entry);
        }
        *ret = table;
        return 0;
}

/* Makes an entry ready for a leaf: what hangs there may only be empty tables, left from what was mapped before. */
static int entry_vacate(struct soft_pgtable *t, uint64_t *entry, unsigned level) {
        if (!entry_present(*entry))
                return 0;
        if (entry_is_leaf(*entry, level) || !table_is_empty(t, entry_table(*entry), level - 1))
                return -EEXIST;
        table_clear(t, entry_table(*entry), level - 1);
        table_give(t, entry_table(*entry));
        *entry = 0;
        return 0;
}

/* Writes leaves up to the end of one table, or of the range. *done counts the bytes, also on failure. */
static int insert_run(struct soft_pgtable *t, uint64_t iova, uint64_t phys, uint64_t length, uint64_t access,
                      uint64_t *done) {
        unsigned level = best_level(t, iova + *done, phys + *done, length - *done);
        uint64_t size = UINT64_C(1) << level_shift(t, level), *table;
        size_t i = entry_index(t, iova + *done, level);
        int k;

        k = table_for(t, iova + *done, level, &table);
        if (k < 0)
                return k;
        for (; i < entries(t) && length - *done >= size; i++) {
                k = entry_vacate(t, &table[i], level);
                if (k < 0)
                        return k;
                table[i] = (phys + *done) | access | (level > 1 ? SOFT_PTE_SUPERPAGE : 0);
                *done += size;
        }
        return 0;
}

int soft_pgtable_insert(struct soft_pgtable *t, uint64_t iova, uint64_t phys, uint64_t length, uint64_t access) {
        uint64_t done = 0;

        while (done < length) {
                int k = insert_run(t, iova, phys, length, access, &done);

                if (k < 0) {
                        soft_pgtable_remove(t, iova, done);
                        return k;
                }
        }
        return 0;
}

/* The entry that decides about iova: a leaf, or the first one that is not present. */
static uint64_t *walk_entry(const struct soft_pgtable *t, uint64_t iova, unsigned *ret_level) {
        uint64_t *table = t->root;

        for (unsigned level = SOFT_LEVELS;; level--) {
                uint64_t *entry = &table[entry_index(t, iova, level)];

                if (!entry_present(*entry) || entry_is_leaf(*entry, level)) {
                        *ret_level = level;
                        return entry;
                }
                table = entry_table(*entry);
        }
}

void soft_pgtable_remove(struct soft_pgtable *t, uint64_t iova, uint64_t length) {
        uint64_t done = 0;

        while (done < length) {
                unsigned level;
                uint64_t *entry = walk_entry(t, iova + done, &level);
                uint64_t size = UINT64_C(1) << level_shift(t, level), step;

                /* on along the same table: neighbours are leaves of the same level, or tables to descend into */
                for (size_t i = entry_index(t, iova + done, level); i < entries(t) && done < length; i++, entry++) {
                        if (entry_present(*entry) && !entry_is_leaf(*entry, level))
                                break;
                        *entry = 0;
                        step = size - ((iova + done) & (size - 1));
                        /* a hole can be wider than the rest of the range, which can end at 2^64 */
                        done += step < length - done ? step : length - done;
                }
        }
}

bool soft_pgtable_walk(const struct soft_pgtable *t, uint64_t iova, struct soft_leaf *ret) {
        unsigned bits = soft_pgtable_bits(t->page_sizes), level;
        uint64_t size, entry;

        if (bits < 64 && iova >> bits)
                return false;
        entry = *walk_entry(t, iova, &level);
        if (!entry_present(entry))
                return false;
        size = UINT64_C(1) << level_shift(t, level);
        ret->phys = (entry & SOFT_PTE_ADDRESS) | (iova & (size - 1));
        ret->left = size - (iova & (size - 1));
        ret->access = entry & (SOFT_PTE_READ | SOFT_PTE_WRITE);
        ret->level = level;
        return true;
}
