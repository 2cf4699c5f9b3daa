/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/session.h"

/*
 * What a mapping must fulfil before it is admitted. Pure checks with the session's lock held: nothing is reserved here.
 * Each refusal names what was asked, what stands in the way and the nearest values that would do.
 */
struct map_element {
        uint64_t iova, length, offset;
        uint32_t access;
};

/* ZERO_LENGTH, RANGE_WRAPS, UNALIGNED, BAD_ACCESS, RESERVED_REGION, OUTSIDE_APERTURE */
int map_check_range(const struct container_info *info, const struct map_element *e, struct iova_range *ret,
                    struct refusal *r);
/* BEYOND_OBJECT, MEMORY_READ_ONLY */
int map_check_memory(const struct memory *m, const struct map_element *e, struct refusal *r);
/* OVERLAP, with the mapping that is there */
int map_check_free(struct domain *d, struct iova_range range, struct refusal *r);
/* LIMIT_EXCEEDED: the IOMMU's own budget of mappings */
int map_check_budget(const struct domain *d, size_t n, struct refusal *r);
