/* SPDX-License-Identifier: Apache-2.0 */
#include "core/map_check.h"

#include <inttypes.h>

static int check_aligned(const char *what, uint64_t value, uint64_t page, struct refusal *r) {
        uint64_t below = value & ~(page - 1), above;

        if (value == below)
                return 0;
        refuse(r, REFUSAL_UNALIGNED, "%s 0x%" PRIx64 " is not a multiple of the domain's IOMMU page size 0x%" PRIx64
                                     " (%" PRIu64 " bytes)", what, value, page, page);
        if (ADD_OVERFLOW(below, page, &above))
                above = below;
        r->limit = page;
        r->asked = value;
        r->nearest_below = below;
        r->nearest_above = above;
        return -1;
}

/* Between two usable ranges lies a reserved region (interrupts, firmware); beyond the first and the last, nothing. */
static int refuse_place(const struct container_info *info, struct iova_range range, struct refusal *r) {
        const struct iova_range *ranges = info->ranges;
        uint32_t n = info->n_ranges;

        for (uint32_t i = 0; i + 1 < n; i++) {
                struct iova_range gap = { ranges[i].last + 1, ranges[i + 1].first - 1 };

                if (!iova_range_overlaps(gap, range) || range.last > ranges[n - 1].last)
                        continue;
                refuse(r, REFUSAL_RESERVED_REGION,
                       "IOVA 0x%" PRIx64 "-0x%" PRIx64 " touches the reserved region 0x%" PRIx64 "-0x%" PRIx64 "; map below or "
                       "above it", range.first, range.last, gap.first, gap.last);
                r->conflict_first = gap.first;
                r->conflict_last = gap.last;
                r->nearest_below = gap.first;
                r->nearest_above = gap.last + 1;
                return -1;
        }
        refuse(r, REFUSAL_OUTSIDE_APERTURE,
               "IOVA 0x%" PRIx64 "-0x%" PRIx64 " is outside the domain's aperture 0x%" PRIx64 "-0x%" PRIx64, range.first,
               range.last, n ? ranges[0].first : 0, n ? ranges[n - 1].last : 0);
        r->asked = range.last;
        r->limit = n ? ranges[n - 1].last : 0;
        r->nearest_below = n ? ranges[0].first : 0;
        r->nearest_above = n ? ranges[n - 1].last : 0;
        return -1;
}

int map_check_range(const struct container_info *info, const struct map_element *e, struct iova_range *ret,
                    struct refusal *r) {
        uint64_t page = page_mask_smallest(info->page_sizes);

        if (e->length == 0)
                return refuse(r, REFUSAL_ZERO_LENGTH, "a mapping of 0 bytes at IOVA 0x%" PRIx64 " was asked for", e->iova);
        if (page == 0)
                return refuse(r, REFUSAL_INTERNAL, "the domain reports no page size");
        if (check_aligned("IOVA", e->iova, page, r) < 0 || check_aligned("length", e->length, page, r) < 0 ||
            check_aligned("offset", e->offset, page, r) < 0)
                return -1;
        if (e->access == 0 || (e->access & ~(BACKEND_ACCESS_READ | BACKEND_ACCESS_WRITE)) != 0) {
                refuse(r, REFUSAL_BAD_ACCESS, "access %u is none of 1 (the device reads), 2 (writes), 3 (both)", e->access);
                r->asked = e->access;
                return -1;
        }
        if (!iova_range_make(e->iova, e->length, ret)) {
                refuse(r, REFUSAL_RANGE_WRAPS, "IOVA 0x%" PRIx64 " plus length 0x%" PRIx64 " passes 2^64", e->iova, e->length);
                r->asked = e->length;
                r->limit = 0 - e->iova;
                return -1;
        }
        for (uint32_t i = 0; i < info->n_ranges; i++)
                if (iova_range_contains(info->ranges[i], *ret))
                        return 0;
        return refuse_place(info, *ret, r);
}

int map_check_memory(const struct memory *m, const struct map_element *e, struct refusal *r) {
        uint64_t end;

        if (ADD_OVERFLOW(e->offset, e->length, &end) || end > m->size) {
                refuse(r, REFUSAL_BEYOND_OBJECT,
                       "offset 0x%" PRIx64 " plus length 0x%" PRIx64 " passes the end of memory object %" PRIu64 " (0x%" PRIx64
                       " bytes were registered)", e->offset, e->length, m->id, m->size);
                r->limit = m->size;
                r->asked = end;
                return -1;
        }
        if ((e->access & BACKEND_ACCESS_WRITE) && !m->writable)
                return refuse(r, REFUSAL_MEMORY_READ_ONLY,
                              "memory object %" PRIu64 " was registered for reading only; a device may not write it. Register it "
                              "through a descriptor that is open for writing", m->id);
        return 0;
}

int map_check_free(struct domain *d, struct iova_range range, struct refusal *r) {
        const struct mapping *there = mapping_set_find(&d->mappings, range);

        if (!there)
                return 0;
        refuse(r, REFUSAL_OVERLAP,
               "IOVA 0x%" PRIx64 "-0x%" PRIx64 " overlaps the mapping 0x%" PRIx64 "-0x%" PRIx64 " of memory object %" PRIu64
               "; unmap that first", range.first, range.last, there->range.first, there->range.last, there->memory->id);
        r->conflict_first = there->range.first;
        r->conflict_last = there->range.last;
        return -1;
}

int map_check_budget(const struct domain *d, size_t n, struct refusal *r) {
        uint64_t limit = d->info.max_mappings;

        if (limit == UINT32_MAX || (d->mappings.count <= limit && n <= limit - d->mappings.count))
                return 0;
        refuse(r, REFUSAL_LIMIT_EXCEEDED,
               "the IOMMU takes %" PRIu64 " mappings in a domain; %" PRIu64 " are there and %zu more were asked for. Map larger "
               "pieces, or use another domain", limit, d->mappings.count, n);
        r->resource = RESOURCE_MAPPINGS;
        r->limit = limit;
        r->used = d->mappings.count;
        r->asked = n;
        return -1;
}
