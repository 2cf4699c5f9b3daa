/* SPDX-License-Identifier: Apache-2.0 */
#include "soft_oracle.h"

#include <stdlib.h>

bool oracle_make(struct oracle *o, uint64_t base, uint64_t page_size, size_t n_pages) {
        o->base = base;
        o->page_size = page_size;
        o->n_pages = n_pages;
        o->n_mappings = 0;
        o->pages = calloc(n_pages, sizeof *o->pages);
        return o->pages;
}

void oracle_free(struct oracle *o) {
        free(o->pages);
        o->pages = NULL;
}

enum oracle_answer oracle_map(struct oracle *o, size_t first, size_t n, uint64_t host, uint32_t access) {
        for (size_t i = first; i < first + n; i++)
                if (o->pages[i].mapped)
                        return ORACLE_OVERLAP;
        for (size_t i = first; i < first + n; i++) {
                o->pages[i].mapped = true;
                o->pages[i].host = host + (i - first) * o->page_size;
                o->pages[i].access = access;
                o->pages[i].first = first;
                o->pages[i].n = n;
        }
        o->n_mappings++;
        return ORACLE_DONE;
}

enum oracle_answer oracle_unmap(struct oracle *o, size_t first, size_t n) {
        const struct oracle_page *p = &o->pages[first];

        if (!p->mapped)
                return ORACLE_NOT_MAPPED;
        if (first + n > p->first + p->n)
                return ORACLE_NOT_MAPPED;
        if (first != p->first || n != p->n)
                return ORACLE_PARTIAL;
        for (size_t i = first; i < first + n; i++)
                o->pages[i].mapped = false;
        o->n_mappings--;
        return ORACLE_DONE;
}

void oracle_unmap_all(struct oracle *o) {
        for (size_t i = 0; i < o->n_pages; i++)
                o->pages[i].mapped = false;
        o->n_mappings = 0;
}
