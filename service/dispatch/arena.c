/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/arena.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_ALIGN 16U
#define ARENA_BLOCK_MIN (64U * 1024)

/* Before every piece: its size, so that a string can be told from a longer one with a NUL inside. */
struct arena_piece {
        size_t size;
        size_t pad;
};
_Static_assert(sizeof(struct arena_piece) == ARENA_ALIGN, "pieces stay aligned");

struct arena_block {
        struct arena_block *next;
        size_t size, used;
        size_t pad;
        uint8_t bytes[];
};
_Static_assert(offsetof(struct arena_block, bytes) % ARENA_ALIGN == 0, "blocks start aligned");

int arena_init(struct arena *a, size_t first_size, size_t limit) {
        *a = (struct arena){ .first = malloc(first_size), .first_size = first_size, .limit = limit };
        return a->first ? 0 : -ENOMEM;
}

void arena_reset(struct arena *a) {
        for (struct arena_block *b = a->blocks, *next; b; b = next) {
                next = b->next;
                free(b);
        }
        a->blocks = NULL;
        a->total = 0;
        a->first_used = 0;
}

void arena_clear(struct arena *a) {
        arena_reset(a);
        free(a->first);
        *a = (struct arena){ 0 };
}

static void *piece_make(uint8_t *at, size_t size) {
        struct arena_piece *p = (struct arena_piece *)at;

        p->size = size;
        return p + 1;
}

static struct arena_block *block_add(struct arena *a, size_t need) {
        size_t size = need > ARENA_BLOCK_MIN ? need : ARENA_BLOCK_MIN;
        struct arena_block *b;

        if (size > a->limit - a->total)
                size = need;
        if (size > a->limit - a->total)
                return NULL;
        b = malloc(sizeof *b + size);
        if (!b)
                return NULL;
        b->next = a->blocks;
        b->size = size;
        b->used = 0;
        a->blocks = b;
        a->total += size;
        return b;
}

void *arena_alloc(struct arena *a, size_t size) {
        struct arena_block *b = a->blocks;
        size_t need;

        if (size > SIZE_MAX - 2 * ARENA_ALIGN)
                return NULL;
        need = sizeof(struct arena_piece) + ((size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1));
        if (need <= a->first_size - a->first_used) {
                void *p = piece_make(a->first + a->first_used, size);

                a->first_used += need;
                return p;
        }
        if (!b || need > b->size - b->used)
                b = block_add(a, need);
        if (!b)
                return NULL;
        b->used += need;
        return piece_make(b->bytes + b->used - need, size);
}

void *arena_zalloc(struct arena *a, size_t n, size_t size) {
        size_t bytes;
        void *p;

        if (__builtin_mul_overflow(n, size, &bytes))
                return NULL;
        p = arena_alloc(a, bytes);
        return p ? memset(p, 0, bytes) : NULL;
}

size_t arena_size_of(const void *p) {
        return ((const struct arena_piece *)p - 1)->size;
}
