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

/* Whole pages, or pages that the caller consents to expose: then IOVA and offset must lie alike in them, since a page is
 * translated as a whole. */
static int check_pages(uint64_t page, const struct map_element *e, uint8_t *ret_page_shift, struct refusal *r) {
        *ret_page_shift = 0;
        if (((e->iova | e->length | e->offset) & (page - 1)) == 0)
                return 0;
        if (!e->expose)
                return check_aligned("IOVA", e->iova, page, r) < 0 || check_aligned("length", e->length, page, r) < 0
                               ? -1 : check_aligned("offset", e->offset, page, r);
        if (((e->iova ^ e->offset) & (page - 1)) != 0) {
                uint64_t below = (e->offset & ~(page - 1)) | (e->iova & (page - 1));

                refuse(r, REFUSAL_UNALIGNED,
                       "IOVA 0x%" PRIx64 " and offset 0x%" PRIx64 " lie differently in their IOMMU pages of 0x%" PRIx64
                       " bytes, and a page is translated as a whole; the offset could be 0x%" PRIx64, e->iova, e->offset,
                       page, below);
                r->limit = page;
                r->asked = e->offset;
                r->nearest_below = below;
                r->nearest_above = below + page;
                return -1;
        }
        *ret_page_shift = (uint8_t)__builtin_ctzll(page);
        return 0;
}

static int check_chunk(uint64_t page, const struct map_element *e, uint8_t page_shift, struct refusal *r) {
        uint64_t chunk = e->chunk, below;

        if (chunk == 0)
                return 0;
        if (page_shift != 0)
                return refuse(r, REFUSAL_UNSUPPORTED,
                              "a mapping that exposes IOMMU pages cannot be made in chunks: ask for whole pages of 0x%" PRIx64
                              " bytes, or for no chunks", page);
        if (chunk >= page && (chunk & (chunk - 1)) == 0)
                return 0;
        below = chunk < page ? page : UINT64_C(1) << (63 - __builtin_clzll(chunk));
        refuse(r, REFUSAL_UNALIGNED, "chunks of 0x%" PRIx64 " bytes: it must be a power of two, and at least the IOMMU page of 0x%"
                                     PRIx64, chunk, page);
        r->limit = page;
        r->asked = chunk;
        r->nearest_below = below;
        r->nearest_above = chunk < page || below >> 63 ? below : below << 1;
        return -1;
}

/* A usable range has all of the pages, and so has one window. Where windows are the IOMMU's own, what lies between them is
 * not reserved: there is nothing. */
static int check_place(const struct container_info *info, const struct window_set *windows, struct iova_range seen,
                       struct refusal *r) {
        bool usable = info->windows.max_windows > 0;

        for (uint32_t i = 0; i < info->n_ranges && !usable; i++)
                usable = iova_range_contains(info->ranges[i], seen);
        if (!usable)
                return refuse_place(info, seen, r);
        return !windows || window_set_contain(windows, seen, r) ? 0 : -1;
}

int map_check_range(const struct container_info *info, const struct window_set *windows, const struct map_element *e,
                    struct iova_range *ret, uint8_t *ret_page_shift, struct refusal *r) {
        const struct window *w = windows ? window_set_at(windows, e->iova) : NULL;
        uint64_t page = w ? window_page(w) : page_mask_smallest(info->page_sizes), mask;

        if (e->length == 0)
                return refuse(r, REFUSAL_ZERO_LENGTH, "a mapping of 0 bytes at IOVA 0x%" PRIx64 " was asked for", e->iova);
        if (page == 0)
                return refuse(r, REFUSAL_INTERNAL, "the domain reports no page size");
        if (check_pages(page, e, ret_page_shift, r) < 0 || check_chunk(page, e, *ret_page_shift, r) < 0)
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
        mask = *ret_page_shift ? page - 1 : 0;
        return check_place(info, windows, (struct iova_range){ ret->first & ~mask, ret->last | mask }, r);
}

int map_check_memory(const struct memory *m, const struct map_element *e, uint8_t page_shift, struct refusal *r) {
        uint64_t end, mask = page_shift ? (UINT64_C(1) << page_shift) - 1 : 0;

        if (ADD_OVERFLOW(e->offset, e->length, &end) || end > m->size) {
                refuse(r, REFUSAL_BEYOND_OBJECT,
                       "offset 0x%" PRIx64 " plus length 0x%" PRIx64 " passes the end of memory object %" PRIu64 " (0x%" PRIx64
                       " bytes were registered)", e->offset, e->length, m->id, m->size);
                r->limit = m->size;
                r->asked = end;
                return -1;
        }
        if (ADD_OVERFLOW(end, mask, &end) || (end & ~mask) > m->size) {
                refuse(r, REFUSAL_BEYOND_OBJECT,
                       "the IOMMU page at the end of offset 0x%" PRIx64 " plus length 0x%" PRIx64 " passes the end of memory "
                       "object %" PRIu64 " (0x%" PRIx64 " bytes were registered): it cannot be exposed", e->offset, e->length,
                       m->id, m->size);
                r->limit = m->size;
                r->asked = end & ~mask;
                return -1;
        }
        if ((e->access & BACKEND_ACCESS_WRITE) && !m->writable)
                return refuse(r, REFUSAL_MEMORY_READ_ONLY,
                              "memory object %" PRIu64 " was registered for reading only; a device may not write it. Register it "
                              "through a descriptor that is open for writing", m->id);
        return 0;
}

int map_check_window(const struct domain *d, const struct memory *m, const struct map_element *e, struct refusal *r) {
        const struct window *w = window_set_at(&d->windows, e->iova);

        if (!w)
                return 0;
        if (window_check_memory(w, page_mask_smallest(d->info.page_sizes), m->id, m->page_size, r) < 0)
                return -1;
        return window_check_quota(w, e->length, r);
}

int map_check_free(struct domain *d, struct iova_range range, struct refusal *r) {
        const struct mapping *there = mapping_set_find(&d->mappings, range);

        if (!there)
                return 0;
        if (there->state == MAPPING_UNMAPPING || there->state == MAPPING_DEFERRED)
                refuse(r, REFUSAL_IN_PROGRESS,
                       "IOVA 0x%" PRIx64 "-0x%" PRIx64 " is not free yet: 0x%" PRIx64 "-0x%" PRIx64 " was unmapped and %s",
                       range.first, range.last, there->range.first, there->range.last,
                       there->state == MAPPING_DEFERRED ? "waits for the domain's next flush, or for a sync" : "is on its way out");
        else
                refuse(r, REFUSAL_OVERLAP,
                       "IOVA 0x%" PRIx64 "-0x%" PRIx64 " overlaps the mapping 0x%" PRIx64 "-0x%" PRIx64 " of memory object %" PRIu64
                       "; unmap that first", range.first, range.last, there->range.first, there->range.last, there->memory->id);
        r->conflict_first = there->range.first;
        r->conflict_last = there->range.last;
        return -1;
}
