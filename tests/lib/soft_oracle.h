/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What a translation should be, in the most obvious way: one array element for each page. Shares no code with service/,
 * so that it cannot share a mistake.
 */
struct oracle_page {
        bool mapped;
        uint64_t host;
        uint32_t access;
        size_t first, n;        /* the mapping that it belongs to, in pages */
};

struct oracle {
        uint64_t base;          /* address of page 0 */
        uint64_t page_size;
        size_t n_pages;
        size_t n_mappings;
        struct oracle_page *pages;
};

enum oracle_answer {
        ORACLE_DONE,
        ORACLE_OVERLAP,
        ORACLE_NOT_MAPPED,
        ORACLE_PARTIAL,
};

bool oracle_make(struct oracle *o, uint64_t base, uint64_t page_size, size_t n_pages);
void oracle_free(struct oracle *o);

/* first and n in pages, within the array; n > 0. */
enum oracle_answer oracle_map(struct oracle *o, size_t first, size_t n, uint64_t host, uint32_t access);
enum oracle_answer oracle_unmap(struct oracle *o, size_t first, size_t n);
void oracle_unmap_all(struct oracle *o);
