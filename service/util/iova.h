/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * IOVA ranges and checked address arithmetic. Ranges are inclusive at both ends, as the kernel reports them
 * (VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE), so that a range which ends at 2^64 - 1 can be written down.
 * Everything here is pure and thread-safe.
 */
struct iova_range {
        uint64_t first;
        uint64_t last;          /* inclusive; first <= last always */
};

#define IOVA_RANGES_MAX 32U     /* ranges a container reports; the kernel reports a handful */

#define ADD_OVERFLOW(a, b, r) __builtin_add_overflow((a), (b), (r))
#define MUL_OVERFLOW(a, b, r) __builtin_mul_overflow((a), (b), (r))

/* [start, start + length) -> *ret. False, and *ret untouched, if length is 0 or the range passes 2^64. A range that
 * ends exactly at 2^64 is fine. */
bool iova_range_make(uint64_t start, uint64_t length, struct iova_range *ret);

static inline bool iova_range_overlaps(struct iova_range a, struct iova_range b) {
        return a.first <= b.last && b.first <= a.last;
}

static inline bool iova_range_contains(struct iova_range outer, struct iova_range inner) {
        return outer.first <= inner.first && inner.last <= outer.last;
}

/* Length in bytes; 0 stands for 2^64 (the whole space). */
static inline uint64_t iova_range_length(struct iova_range r) {
        return r.last - r.first + 1;
}

/* a and b: sorted, disjoint usable ranges. Writes their intersection, at most IOVA_RANGES_MAX, returns how many. */
size_t iova_ranges_intersect(const struct iova_range *a, size_t n_a, const struct iova_range *b, size_t n_b,
                             struct iova_range *ret);

/* Smallest page size of a mask (bit n set: pages of 2^n bytes); 0 for an empty mask. */
static inline uint64_t page_mask_smallest(uint64_t mask) {
        return mask & (~mask + 1);
}
