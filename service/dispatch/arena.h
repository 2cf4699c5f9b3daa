/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * Bounded scratch memory for one call at a time: a first block that is kept from call to call, so that an ordinary
 * request allocates nothing, and further blocks up to a limit, freed by arena_reset(). Not thread-safe: one per thread.
 */
struct arena_block;

struct arena {
        uint8_t *first;
        size_t first_size, first_used;
        struct arena_block *blocks;     /* newest first */
        size_t limit, total;            /* bytes in further blocks */
};

/* limit: bytes beyond the first block. 0 or -ENOMEM. */
int arena_init(struct arena *a, size_t first_size, size_t limit);
void arena_clear(struct arena *a);      /* harmless on zeroes and twice */
void arena_reset(struct arena *a);

/* Aligned for anything, not zeroed; valid until arena_reset(). NULL beyond the limit or without memory. */
void *arena_alloc(struct arena *a, size_t size);
void *arena_zalloc(struct arena *a, size_t n, size_t size);

/* The size that was asked for a pointer of arena_alloc(). */
size_t arena_size_of(const void *p);
