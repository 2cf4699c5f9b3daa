/* SPDX-License-Identifier: Apache-2.0 */
#include "core/window_plan.h"

#include <inttypes.h>
#include <string.h>

#include "util/size.h"

#define TABLE_ENTRY UINT64_C(8)
#define FIRST_LEVEL_MOST UINT64_C(65536)        /* a window's first level is not larger if levels can help it */

static uint32_t log2_of(uint64_t power) {
        return 63U - (uint32_t)__builtin_clzll(power);
}

static bool is_power(uint64_t n) {
        return n != 0 && (n & (n - 1)) == 0;
}

/* ---- rules ---- */

static bool align_up(uint64_t address, uint64_t align, uint64_t *ret) {
        if (ADD_OVERFLOW(address, align - 1, ret))
                return false;
        *ret &= ~(align - 1);
        return true;
}

static bool has_room(struct iova_range range, uint64_t start, uint64_t size) {
        return start >= range.first && start <= range.last && range.last - start >= size - 1;
}

/* The first multiple of size in range that has size bytes free of windows. *ret_in_way: the last window that took room, if
 * any did. The windows ascend, so that one pass will do. */
static bool place_in(const struct window_set *set, struct iova_range range, uint64_t size, uint64_t *ret,
                     const struct window **ret_in_way) {
        uint64_t start;

        if (!align_up(range.first, size, &start) || !has_room(range, start, size))
                return false;
        for (size_t i = 0; set && i < set->n; i++) {
                const struct window *w = set->of[i];

                if (!window_has_place(w) || !iova_range_overlaps(w->range, window_range_at(start, size)))
                        continue;
                *ret_in_way = w;
                if (ADD_OVERFLOW(w->range.last, 1, &start) || !align_up(start, size, &start) || !has_room(range, start, size))
                        return false;
        }
        *ret = start;
        return true;
}

static bool place(const struct window_set *set, const struct window_rules *rules, uint64_t size, uint64_t *ret,
                  const struct window **ret_in_way) {
        const struct window *ignored;

        for (size_t i = 0; i < rules->n_ranges; i++)
                if (place_in(set, rules->ranges[i], size, ret, ret_in_way ? ret_in_way : &ignored))
                        return true;
        return false;
}

/* The largest window that fits beside those of the set (NULL: beside none); 0: none. */
static uint64_t largest_free(const struct window_set *set, const struct window_rules *rules) {
        uint64_t smallest = page_mask_smallest(rules->page_sizes), start;

        for (uint64_t size = UINT64_C(1) << 63; size && size >= smallest; size >>= 1)
                if (place(set, rules, size, &start, NULL))
                        return size;
        return 0;
}

/* The default window is all there is, holes included: those are refused as what they are. */
static void rules_of_ranges(const struct container_info *info, struct window_rules *ret) {
        ret->page_sizes = info->page_sizes;
        ret->max_windows = WINDOWS_MAX;
        ret->levels_max = ret->levels_default = 1;
        ret->largest = largest_free(NULL, ret);
        ret->has_initial = ret->n_ranges > 0;
        if (!ret->has_initial)
                return;
        ret->initial = (struct window){
                .range = { ret->ranges[0].first, ret->ranges[ret->n_ranges - 1].last },
                .page_shift = log2_of(page_mask_smallest(info->page_sizes)),
        };
}

static void rules_of_windows(const struct window_caps *caps, struct window_rules *ret) {
        ret->own = true;
        ret->page_sizes = caps->page_sizes;
        ret->max_windows = caps->max_windows < WINDOWS_MAX ? caps->max_windows : WINDOWS_MAX;
        ret->levels_max = caps->levels_max ? caps->levels_max : 1;
        ret->levels_default = caps->levels_default ? caps->levels_default : 1;
        ret->largest = caps->largest;
        ret->has_initial = caps->initial.size > 0;
        if (!ret->has_initial)
                return;
        ret->initial = (struct window){
                .range = window_range_at(caps->initial.start, caps->initial.size), .levels = caps->initial.levels,
                .page_shift = caps->initial.page_shift,
        };
}

void window_rules_of(const struct container_info *info, uint64_t host_page, struct window_rules *ret) {
        memset(ret, 0, sizeof *ret);
        ret->host_page = host_page;
        ret->n_ranges = info->n_ranges;
        memcpy(ret->ranges, info->ranges, info->n_ranges * sizeof ret->ranges[0]);
        if (info->windows.max_windows > 0)
                rules_of_windows(&info->windows, ret);
        else
                rules_of_ranges(info, ret);
        ret->initial.is_default = true;
        ret->initial.state = LEDGER_LIVE;
}

/* ---- tables ---- */

/* Address bits that one level resolves. */
static uint32_t level_bits(uint64_t size, uint32_t page_shift, uint32_t levels) {
        uint32_t entries = log2_of(size) - page_shift;

        return (entries + levels - 1) / levels;
}

bool window_table_size(const struct window_rules *rules, uint64_t size, uint32_t page_shift, uint32_t levels, uint64_t *ret) {
        uint64_t bytes;

        if (!rules->own) {
                *ret = 0;
                return true;
        }
        if (MUL_OVERFLOW(UINT64_C(1) << level_bits(size, page_shift, levels), TABLE_ENTRY, &bytes) ||
            !align_up(bytes, rules->host_page, &bytes) || MUL_OVERFLOW(bytes, rules->levels_max > 1 ? 2U : 1U, &bytes))
                return false;
        *ret = bytes;
        return true;
}

/* The kernel refuses tables whose levels, each a page of the host at least, would resolve 55 bits or more. */
static bool levels_possible(const struct window_rules *rules, uint64_t size, uint32_t page_shift, uint32_t levels) {
        uint32_t bits = level_bits(size, page_shift, levels), least = log2_of(rules->host_page) - log2_of(TABLE_ENTRY);

        return (bits > least ? bits : least) * levels + page_shift < 55;
}

/* As few as keep the first level small: what is mapped sparsely costs what is mapped then. */
static uint32_t choose_levels(const struct window_rules *rules, uint64_t size, uint32_t page_shift) {
        uint32_t chosen = rules->levels_default ? rules->levels_default : 1;

        while (chosen < rules->levels_max && TABLE_ENTRY << level_bits(size, page_shift, chosen) > FIRST_LEVEL_MOST &&
               levels_possible(rules, size, page_shift, chosen + 1))
                chosen++;
        return chosen;
}

/* ---- the checks ---- */

static void offer_pages(uint64_t mask, uint64_t page, struct refusal *r) {
        uint64_t below = page ? mask & (page - 1) : mask, above = page ? mask & ~((page << 1) - 1) : 0;

        r->limit = mask;
        r->asked = page;
        r->nearest_below = below ? UINT64_C(1) << log2_of(below) : 0;
        r->nearest_above = page_mask_smallest(above);
}

static int choose_page(const struct window_rules *rules, const struct create_window_request *req, uint32_t *ret,
                       struct refusal *r) {
        uint64_t mask = rules->page_sizes, fits = 0;

        if (req->page_shift != 0) {
                uint64_t page = req->page_shift < 64 ? UINT64_C(1) << req->page_shift : 0;

                if (!(mask & page) || page < req->min_page_size) {
                        refuse(r, REFUSAL_WINDOW_PAGE,
                               "pages of 2^%" PRIu32 " bytes were asked for%s; windows of this domain have page sizes 0x%" PRIx64
                               " (bit n: 2^n bytes)", req->page_shift,
                               mask & page ? ", which are smaller than the smallest that would do" : "", mask);
                        offer_pages(mask, page, r);
                        return -1;
                }
                *ret = req->page_shift;
                return 0;
        }
        for (uint64_t rest = mask; rest && !fits; rest &= rest - 1)
                if (page_mask_smallest(rest) >= req->min_page_size)
                        fits = page_mask_smallest(rest);
        if (fits) {
                *ret = log2_of(fits);
                return 0;
        }
        refuse(r, REFUSAL_WINDOW_PAGE,
               "pages of at least 0x%" PRIx64 " bytes were asked for; windows of this domain have page sizes 0x%" PRIx64
               " (bit n: 2^n bytes)", req->min_page_size, mask);
        r->limit = mask;
        r->asked = req->min_page_size;
        r->nearest_below = mask ? UINT64_C(1) << log2_of(mask) : 0;
        return -1;
}

static int check_size(const struct window_rules *rules, uint64_t size, uint64_t page, struct refusal *r) {
        uint64_t below = size ? UINT64_C(1) << log2_of(size) : 0;
        char text[2][SIZE_TEXT_MAX];

        if (is_power(size) && size >= page && size <= rules->largest)
                return 0;
        if (size < page)
                refuse(r, REFUSAL_WINDOW_SIZE, "a window of 0x%" PRIx64 " bytes was asked for; the smallest has one page, %s", size,
                       size_format(page, text[0]));
        else if (size > rules->largest)
                refuse(r, REFUSAL_WINDOW_SIZE, "a window of 0x%" PRIx64 " bytes was asked for; the largest here has %s", size,
                       size_format(rules->largest, text[0]));
        else
                refuse(r, REFUSAL_WINDOW_SIZE,
                       "a window of 0x%" PRIx64 " bytes was asked for; sizes are powers of two, the next ones are %s and %s", size,
                       size_format(below, text[0]), size_format(below << 1, text[1]));
        r->asked = size;
        r->limit = size < page ? page : rules->largest;
        if (size < page)
                r->nearest_above = page <= rules->largest ? page : 0;
        else if (size > rules->largest)
                r->nearest_below = rules->largest >= page ? rules->largest : 0;
        else {
                r->nearest_below = below;
                r->nearest_above = below << 1;  /* not past the largest, which is a power of two and larger than the size */
        }
        return -1;
}

static int check_levels(const struct window_rules *rules, const struct window *w, uint64_t size, struct refusal *r) {
        uint32_t most = rules->levels_max;

        while (rules->own && most > 1 && !levels_possible(rules, size, w->page_shift, most))
                most--;
        if (w->levels <= most)
                return 0;
        refuse(r, REFUSAL_WINDOW_LEVELS,
               "a table of %" PRIu32 " levels was asked for; that of such a window has 1 to %" PRIu32 " (0: the service chooses)",
               w->levels, most);
        r->limit = most;
        r->asked = w->levels;
        r->nearest_below = most;
        return -1;
}

static int check_count(const struct window_set *set, const struct window_rules *rules, struct refusal *r) {
        if (set->n < rules->max_windows)
                return 0;
        refuse(r, REFUSAL_WINDOW_LIMIT,
               "the domain has %zu windows, and this IOMMU has no more than %" PRIu32 " at one time, the default one counted; "
               "remove one first", set->n, rules->max_windows);
        r->limit = rules->max_windows;
        r->used = set->n;
        r->asked = 1;
        return -1;
}

static int refuse_room(const struct window_set *set, const struct window_rules *rules, uint64_t size,
                       const struct window *in_way, struct refusal *r) {
        uint64_t fits = largest_free(set, rules);
        char text[2][SIZE_TEXT_MAX];

        refuse(r, REFUSAL_WINDOW_LIMIT,
               "there is no room for a window of %s beside the %zu that are there; %s%s. Remove %s%" PRIu64 " first",
               size_format(size, text[0]), set->n, fits ? "the largest that fits now has " : "none fits now",
               fits ? size_format(fits, text[1]) : "", in_way->is_default ? "the default window " : "window ", in_way->id);
        r->asked = size;
        r->limit = fits;
        r->nearest_below = fits;
        r->conflict_first = in_way->range.first;
        r->conflict_last = in_way->range.last;
        return -1;
}

int window_plan(const struct window_set *set, const struct window_rules *rules, const struct create_window_request *req,
                struct window *ret, struct refusal *r) {
        struct window w = { .quota = req->quota, .levels = req->levels, .state = LEDGER_INTENDED };
        const struct window *in_way = NULL;
        uint64_t start = WINDOW_NOWHERE;

        if (choose_page(rules, req, &w.page_shift, r) < 0 || check_size(rules, req->size, window_page(&w), r) < 0)
                return -1;
        if (w.levels == 0)
                w.levels = choose_levels(rules, req->size, w.page_shift);
        if (check_levels(rules, &w, req->size, r) < 0 || check_count(set, rules, r) < 0)
                return -1;
        if (!rules->own && !place(set, rules, req->size, &start, &in_way))
                return in_way ? refuse_room(set, rules, req->size, in_way, r)
                              : refuse(r, REFUSAL_INTERNAL, "there is no place for a window of that size");
        if (!window_table_size(rules, req->size, w.page_shift, w.levels, &w.table_bytes))
                return refuse(r, REFUSAL_WINDOW_SIZE, "the table of a window of 0x%" PRIx64 " bytes passes 2^64 bytes", req->size);
        if (!rules->own)
                w.levels = 0;
        w.range = window_range_at(start, req->size);
        *ret = w;
        return 0;
}

/* ---- what is left ---- */

uint32_t window_can_create(const struct window_set *set, const struct window_rules *rules) {
        if (set->n >= rules->max_windows || (!rules->own && largest_free(set, rules) == 0))
                return 0;
        return rules->max_windows - (uint32_t)set->n;
}

size_t window_free_ranges(const struct window_set *set, const struct window_rules *rules, struct iova_range *ret) {
        size_t n = 0;

        if (rules->own)
                return 0;
        for (size_t i = 0; i < rules->n_ranges; i++) {
                struct iova_range rest = rules->ranges[i];
                bool left = true;

                for (size_t k = 0; k < set->n && left && n < IOVA_RANGES_MAX; k++) {
                        struct iova_range w = set->of[k]->range;

                        if (!window_has_place(set->of[k]) || !iova_range_overlaps(w, rest))
                                continue;
                        if (w.first > rest.first)
                                ret[n++] = (struct iova_range){ rest.first, w.first - 1 };
                        left = w.last < rest.last;
                        if (left)
                                rest.first = w.last + 1;
                }
                if (left && n < IOVA_RANGES_MAX)
                        ret[n++] = rest;
        }
        return n;
}
