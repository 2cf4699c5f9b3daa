/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/page.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

size_t page_size(uint32_t asked, size_t max) {
        size_t n = asked == 0 ? PAGE_DEFAULT : asked;

        return n < max ? n : max;
}

/* Decodes up to size bytes; the number of them, or -1. */
static int hex_decode(const char *hex, unsigned char *ret, size_t size) {
        size_t n = strlen(hex);

        if (n % 2 != 0 || n / 2 > size)
                return -1;
        for (size_t i = 0; i < n; i++) {
                unsigned v;

                if (hex[i] >= '0' && hex[i] <= '9')
                        v = (unsigned)(hex[i] - '0');
                else if (hex[i] >= 'a' && hex[i] <= 'f')
                        v = (unsigned)(hex[i] - 'a') + 10;
                else
                        return -1;
                ret[i / 2] = (unsigned char)(i % 2 ? ret[i / 2] | v : v << 4);
        }
        return (int)(n / 2);
}

static int bad_token(struct refusal *r) {
        return refuse(r, REFUSAL_BAD_MESSAGE, "page_token is none that this service gave");
}

int page_number(const char *token, uint64_t *ret, bool *ret_present, struct refusal *r) {
        unsigned char bytes[8];
        uint64_t v = 0;

        *ret = 0;
        *ret_present = token[0] != '\0';
        if (!*ret_present)
                return 0;
        if (hex_decode(token, bytes, sizeof bytes) != (int)sizeof bytes)
                return bad_token(r);
        for (size_t i = 0; i < sizeof bytes; i++)
                v = v << 8 | bytes[i];
        *ret = v;
        return 0;
}

char *page_number_token(uint64_t last, struct arena *arena) {
        char *token = arena_alloc(arena, 17);

        if (token)
                (void)snprintf(token, 17, "%016" PRIx64, last);
        return token;
}

int page_name(const char *token, char ret[LEDGER_NAME_MAX], struct refusal *r) {
        unsigned char bytes[LEDGER_NAME_MAX];
        int n = hex_decode(token, bytes, LEDGER_NAME_MAX - 1);

        if (n < 0 || memchr(bytes, 0, (size_t)n))
                return bad_token(r);
        memcpy(ret, bytes, (size_t)n);
        ret[n] = '\0';
        return 0;
}

char *page_name_token(const char *last, struct arena *arena) {
        size_t n = strlen(last);
        char *token = arena_alloc(arena, 2 * n + 1);

        if (!token)
                return NULL;
        for (size_t i = 0; i < n; i++)
                (void)snprintf(token + 2 * i, 3, "%02x", (unsigned char)last[i]);
        token[2 * n] = '\0';
        return token;
}

void page_list_init(struct page_list *p, const char *after, size_t max, size_t item_size, size_t key_offset,
                    struct arena *arena) {
        *p = (struct page_list){ .after = after, .max = max, .item_size = item_size, .key_offset = key_offset,
                                 .arena = arena };
        p->items = arena_zalloc(arena, max, sizeof *p->items);
        p->full = !p->items;
}

void page_list_offer(struct page_list *p, const void *item) {
        const char *key = (const char *)item + p->key_offset;
        char *copy;
        size_t i;

        if (p->full || strcmp(key, p->after) <= 0)
                return;
        for (i = p->n; i > 0 && strcmp(p->items[i - 1] + p->key_offset, key) > 0; i--)
                ;
        if (p->n == p->max) {
                p->more = true;
                if (i == p->max)
                        return;
                copy = p->items[--p->n];        /* the largest makes room, its memory serves again */
        } else
                copy = arena_alloc(p->arena, p->item_size);
        if (!copy) {
                p->full = true;
                return;
        }
        memcpy(copy, item, p->item_size);
        memmove(&p->items[i + 1], &p->items[i], (p->n - i) * sizeof *p->items);
        p->items[i] = copy;
        p->n++;
}

char *page_list_token(const struct page_list *p) {
        return page_name_token(p->more && p->n > 0 ? p->items[p->n - 1] + p->key_offset : "", p->arena);
}
