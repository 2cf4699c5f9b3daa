/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/pool.h"

#include <stdbool.h>
#include <stdlib.h>

#define POOL_CHUNK_ITEMS 256U

static bool pool_grow(struct pool *p) {
        void **chunks, *chunk;

        chunk = calloc(POOL_CHUNK_ITEMS, p->item_size);
        if (!chunk)
                return false;
        chunks = reallocarray(p->chunks, p->n_chunks + 1, sizeof *chunks);
        if (!chunks) {
                free(chunk);
                return false;
        }
        chunks[p->n_chunks++] = chunk;
        p->chunks = chunks;
        return true;
}

void *pool_at(const struct pool *p, uint32_t number) {
        return (char *)p->chunks[number / POOL_CHUNK_ITEMS] + number % POOL_CHUNK_ITEMS * p->item_size;
}

void *pool_take(struct pool *p) {
        struct pool_item *item = p->free;

        if (item) {
                p->free = item->next_free;
                return item;
        }
        if (p->n_made >= p->max)
                return NULL;
        if (p->n_made == p->n_chunks * POOL_CHUNK_ITEMS && !pool_grow(p))
                return NULL;
        item = pool_at(p, p->n_made);
        item->number = p->n_made++;
        return item;
}

void pool_give(struct pool *p, void *v) {
        struct pool_item *item = v;

        item->next_free = p->free;
        p->free = item;
}

void pool_free(struct pool *p) {
        for (uint32_t i = 0; i < p->n_chunks; i++)
                free(p->chunks[i]);
        free(p->chunks);
        *p = (struct pool){ .item_size = p->item_size, .max = p->max };
}
