/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/soft_private.h"

#include <inttypes.h>

#define DEFAULT_PAGE_SIZES (UINT64_C(1) << 12 | UINT64_C(1) << 21 | UINT64_C(1) << 30)
#define DEFAULT_APERTURE_LAST ((UINT64_C(1) << 48) - 1)
#define DEFAULT_RESERVED_FIRST UINT64_C(0xfee00000)
#define DEFAULT_RESERVED_LAST UINT64_C(0xfeefffff)
#define DEFAULT_DMA_DELAY_US 1000U

struct soft_personality soft_personality_complete(struct soft_personality p) {
        if (p.page_sizes == 0)
                p.page_sizes = DEFAULT_PAGE_SIZES;
        if (p.aperture_last == 0)
                p.aperture_last = DEFAULT_APERTURE_LAST;
        if (p.reserved_first == 0 && p.reserved_last == 0) {
                p.reserved_first = DEFAULT_RESERVED_FIRST;
                p.reserved_last = DEFAULT_RESERVED_LAST;
        }
        if (p.max_mappings == 0)
                p.max_mappings = UINT32_MAX;
        if (p.dma_delay_us == 0)
                p.dma_delay_us = DEFAULT_DMA_DELAY_US;
        return p;
}

/* --- ranges -------------------------------------------------------------------------------------------------------*/

/* Adds what of [first, last] is whole pages. */
static void add_range(struct container_info *i, uint64_t first, uint64_t last, uint64_t page) {
        uint64_t begin, end;

        if (first > last || ADD_OVERFLOW(first, page - 1, &begin))
                return;
        begin &= ~(page - 1);
        end = ((last + 1) & ~(page - 1)) - 1; /* last + 1 may be 2^64, that is 0: then end is 2^64 - 1, as it should */
        if (begin < end && end <= last)
                i->ranges[i->n_ranges++] = (struct iova_range){ begin, end };
}

/* The usable ranges: the aperture without the reserved region (first > last: there is none). */
static void add_ranges(const struct soft_personality *p, struct container_info *ret) {
        uint64_t page = page_mask_smallest(p->page_sizes);

        if (p->reserved_first > p->reserved_last || p->reserved_last < p->aperture_first ||
            p->reserved_first > p->aperture_last) {
                add_range(ret, p->aperture_first, p->aperture_last, page);
                return;
        }
        if (p->reserved_first > p->aperture_first)
                add_range(ret, p->aperture_first, p->reserved_first - 1, page);
        if (p->reserved_last < p->aperture_last)
                add_range(ret, p->reserved_last + 1, p->aperture_last, page);
}

static int ranges_info(const struct soft_personality *p, struct container_info *ret, struct refusal *r) {
        struct container_info i = { .page_sizes = p->page_sizes, .max_mappings = p->max_mappings };
        unsigned bits;

        if (!soft_pgtable_expresses(p->page_sizes))
                return refuse(r, REFUSAL_UNSUPPORTED,
                              "the software IOMMU cannot express the page sizes 0x%" PRIx64
                              ": the smallest must be 4K to 64K, the others those of its table levels",
                              p->page_sizes);
        bits = soft_pgtable_bits(p->page_sizes);
        if (bits < 64 && p->aperture_last >> bits)
                return refuse(r, REFUSAL_UNSUPPORTED,
                              "the aperture ends at 0x%" PRIx64
                              ", the software IOMMU has %u address bits with this page size",
                              p->aperture_last, bits);
        add_ranges(p, &i);
        if (i.n_ranges == 0)
                return refuse(r, REFUSAL_UNSUPPORTED, "the personality of the software IOMMU leaves no usable address");
        *ret = i;
        return 0;
}

/* --- windows ------------------------------------------------------------------------------------------------------*/

/* As a pseries guest sees them on Linux 6.12 (GET_INFO), and 0x80000000 pages of 4K as the largest window: a power of two
 * below what 32 bits of a page count can say, and not a matter of how much memory there is. Tables may have levels, as on
 * powernv: a huge window with few mappings in it needs them. */
#define SPAPR_PAGE_SIZES (UINT64_C(1) << 12 | UINT64_C(1) << 16 | UINT64_C(1) << 21 | UINT64_C(1) << 24)
#define SPAPR_LARGEST (UINT64_C(0x80000000) << 12)
#define SPAPR_INITIAL_SIZE (UINT64_C(1) << 30)

static void spapr_info(const struct soft_personality *p, struct container_info *ret) {
        *ret = (struct container_info){
                .page_sizes = SPAPR_PAGE_SIZES,
                .max_mappings = p->max_mappings,
                .n_ranges = 2,
                .ranges = { { 0, SPAPR_LARGEST - 1 },
                            { SOFT_WINDOW_HIGH, SOFT_WINDOW_HIGH + (SPAPR_LARGEST - 1) } },
                .windows = { .page_sizes = SPAPR_PAGE_SIZES, .largest = SPAPR_LARGEST, .max_windows = 2, .levels_max = 5,
                             .levels_default = 1,
                             .initial = { .start = 0, .size = SPAPR_INITIAL_SIZE, .page_shift = 12, .levels = 1 } },
        };
}

int soft_personality_info(const struct soft_personality *p, struct container_info *ret, struct refusal *r) {
        const struct soft_personality full = soft_personality_complete(*p);

        switch (full.windows) {
        case SOFT_WINDOWS_NONE:
                return ranges_info(&full, ret, r);
        case SOFT_WINDOWS_SPAPR:
                spapr_info(&full, ret);
                return 0;
        default:
                return refuse(r, REFUSAL_UNSUPPORTED, "the software IOMMU has no windows of kind %" PRIu32, full.windows);
        }
}
