/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * A pool of equal items that never move and are known by number. Memory comes in chunks and goes only with the whole
 * pool, so that taking and giving back an item costs no allocation. Not thread-safe.
 */
struct pool_item {                      /* first member of every item */
        uint32_t number;                /* stable for the pool's life */
        struct pool_item *next_free;
};

struct pool {
        size_t item_size;
        uint32_t max;                   /* items at one time */
        uint32_t n_made;                /* numbers handed out so far: 0 .. n_made - 1 */
        uint32_t n_chunks;
        void **chunks;
        struct pool_item *free;
};

#define POOL_INIT(type, limit) { .item_size = sizeof(type), .max = (limit) }

/* NULL when the limit is reached or there is no memory. What follows the struct pool_item is undefined. */
void *pool_take(struct pool *p);
void pool_give(struct pool *p, void *item);
void *pool_at(const struct pool *p, uint32_t number);   /* number of an item that is taken */
void pool_free(struct pool *p);                         /* every item with it; the pool is empty and usable again */
