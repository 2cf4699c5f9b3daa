/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dispatch/arena.h"
#include "ledger.h"
#include "util/refusal.h"

/*
 * Pages of a list. A page token is the key of the last item that was given, in hex: opaque to clients, and good also
 * when that item is gone by then.
 */
#define PAGE_DEFAULT 100U
#define PAGE_MAX 1000U                  /* what a client may ask for */
/* Smaller where one item can be kilobytes: an answer stays below the 4 MiB that gRPC clients accept by default. */
#define PAGE_DOMAINS_MAX 250U
#define PAGE_TENANTS_MAX 100U

/* How many items for what was asked (0: PAGE_DEFAULT). */
size_t page_size(uint32_t asked, size_t max);

/* Tokens of lists whose key is a number. *ret_present: false for an empty token. BAD_MESSAGE for one of ours it
 * cannot be. */
int page_number(const char *token, uint64_t *ret, bool *ret_present, struct refusal *r);
char *page_number_token(uint64_t last, struct arena *arena);    /* NULL without room */

/* Tokens of lists whose key is a name; "" for an empty token. */
int page_name(const char *token, char ret[LEDGER_NAME_MAX], struct refusal *r);
char *page_name_token(const char *last, struct arena *arena);

/* Collects the max smallest items above a name, from a source in any order: copies of item_size bytes that begin with
 * nothing in particular; key_offset is where their name is. */
struct page_list {
        const char *after;
        size_t max, item_size, key_offset, n;
        char **items;                   /* ascending by key */
        bool more;                      /* there were others beyond the last */
        bool full;                      /* the arena was: the page is useless */
        struct arena *arena;
};

void page_list_init(struct page_list *p, const char *after, size_t max, size_t item_size, size_t key_offset,
                    struct arena *arena);
void page_list_offer(struct page_list *p, const void *item);
/* The token of the next page: "" if there is none, NULL without room. */
char *page_list_token(const struct page_list *p);
