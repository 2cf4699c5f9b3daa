/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <bsd/sys/tree.h>

#include "util/iova.h"

/*
 * IOMMU pages of a domain that mappings cover only in part, and that their clients agreed to expose (DESIGN, section 7).
 * Several mappings may share one: they are counted (I3), agree on what is behind the page (I4), and what a device may do
 * with it is the union of what they ask for. Pages that a mapping covers wholly are its alone and not in here. They do not overlap,
 * but need not have one size: an IOMMU that comes with the first device may have smaller ones than were known before.
 *
 * Not locked in here: the session's lock protects it.
 */
struct change;
struct memory;

struct shared_page {
        RB_ENTRY(shared_page) node;
        uint64_t iova;                  /* of the page */
        uint64_t offset;                /* of the page in the memory object */
        struct memory *memory;
        uint8_t page_shift;
        uint32_t readers, writers;      /* mappings that ask for the access; one that asks for both is in both */
        uint32_t access;                /* what the holder has, or will have when `by` is done; 0: nothing yet */
        struct change *by;              /* an operation in flight counts on it: nobody else may, until it has ended */
};

RB_HEAD(shared_page_tree, shared_page);

struct shared_page_set {
        struct shared_page_tree tree;
        uint64_t count;
};

void shared_page_set_init(struct shared_page_set *s);
void shared_page_set_clear(struct shared_page_set *s);

struct shared_page *shared_page_find(struct shared_page_set *s, uint64_t iova);
struct iova_range shared_page_range(const struct shared_page *p);
/* The first one at iova or above. */
struct shared_page *shared_page_from(struct shared_page_set *s, uint64_t iova);
/* The first one that has a part of the range, wherever it begins; NULL: none. */
struct shared_page *shared_page_in(struct shared_page_set *s, struct iova_range range);
struct shared_page *shared_page_next(struct shared_page_set *s, struct shared_page *p);
/* A new page that nobody counts yet; NULL: out of memory. */
struct shared_page *shared_page_add(struct shared_page_set *s, uint64_t iova);
void shared_page_remove(struct shared_page_set *s, struct shared_page *p);

/* One mapping with that access more, or (sign -1) less. */
void shared_page_count(struct shared_page *p, uint32_t access, int sign);
/* The union of what they ask for. */
uint32_t shared_page_union(const struct shared_page *p);
