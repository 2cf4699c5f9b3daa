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
        uint64_t chunk;                 /* 0: none */
        uint32_t access;
        bool expose;                    /* the caller consents to whole IOMMU pages being seen */
};

/* ZERO_LENGTH, RANGE_WRAPS, UNALIGNED, BAD_ACCESS, RESERVED_REGION, OUTSIDE_APERTURE, NO_WINDOW, UNSUPPORTED. Pages are those of
 * the window that it begins in; windows NULL: they are not asked. *ret_page_shift: of the IOMMU's pages when some of them are
 * exposed, 0 when the range is made of whole ones. */
int map_check_range(const struct container_info *info, const struct window_set *windows, const struct map_element *e,
                    struct iova_range *ret, uint8_t *ret_page_shift, struct refusal *r);
/* BEYOND_OBJECT, MEMORY_READ_ONLY; page_shift as above: exposed pages must lie in the object too */
int map_check_memory(const struct memory *m, const struct map_element *e, uint8_t page_shift, struct refusal *r);
/* MEMORY_PAGE_SIZE, QUOTA_EXCEEDED: of the window that it lies in, after map_check_range() */
int map_check_window(const struct domain *d, const struct memory *m, const struct map_element *e, struct refusal *r);
/* OVERLAP, with the mapping that is there; IN_PROGRESS while it is being unmapped or waits for a flush */
int map_check_free(struct domain *d, struct iova_range range, struct refusal *r);
