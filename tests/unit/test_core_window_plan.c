/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/* What can be asked for as a window, from both sides of every edge; where it comes to lie; what its table costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "core/window_plan.h"

#define K UINT64_C(1024)
#define M (K * K)
#define G (K * M)
#define PAGE (4 * K)
#define BIT(n) (UINT64_C(1) << (n))
#define HIGH UINT64_C(0x800000000000000)
#define PAGES_OF_THE_SEED UINT64_C(0x80000000)

/* ---- three IOMMUs ---- */

/* 48 bits with the interrupt window, as x86 has it */
static struct container_info x86(void) {
        return (struct container_info){
                .page_sizes = BIT(12) | BIT(21) | BIT(30), .max_mappings = UINT32_MAX, .n_ranges = 2,
                .ranges = { { 0, 0xfedfffff }, { 0xfef00000, BIT(48) - 1 } },
        };
}

/* as the software IOMMU's personality is, and a guest on POWER */
static struct container_info pseries(void) {
        return (struct container_info){
                .page_sizes = BIT(12) | BIT(16) | BIT(21) | BIT(24), .max_mappings = UINT32_MAX, .n_ranges = 2,
                .ranges = { { 0, (PAGES_OF_THE_SEED << 12) - 1 }, { HIGH, HIGH + (PAGES_OF_THE_SEED << 12) - 1 } },
                .windows = { .page_sizes = BIT(12) | BIT(16) | BIT(21) | BIT(24), .largest = PAGES_OF_THE_SEED << 12,
                             .max_windows = 2, .levels_max = 1, .levels_default = 1,
                             .initial = { .start = 0, .size = 1 * G, .page_shift = 12, .levels = 1 } },
        };
}

static struct container_info powernv(void) {
        struct container_info i = pseries();

        i.windows.page_sizes = BIT(12) | BIT(16) | BIT(21) | BIT(30);
        i.windows.levels_max = 5;
        i.windows.levels_default = 1;
        i.windows.initial.size = 2 * G;
        return i;
}

static struct window_rules rules_of(struct container_info info) {
        struct window_rules rules;

        window_rules_of(&info, 4096, &rules);
        return rules;
}

static void add_window(struct window_set *set, uint64_t id, uint64_t start, uint64_t size) {
        const struct window w = { .id = id, .range = window_range_at(start, size), .page_shift = 12, .state = LEDGER_LIVE };

        assert_non_null(window_set_add(set, &w));
}

static struct window_set with_default(const struct window_rules *rules) {
        struct window w = rules->initial;
        struct window_set set;

        assert_true(rules->has_initial);
        w.id = 1;
        window_set_init(&set);
        assert_non_null(window_set_add(&set, &w));
        return set;
}

static struct window_set empty(void) {
        struct window_set set;

        window_set_init(&set);
        return set;
}

/* One request that asks for a size and a page shift, against no other windows. */
static enum refusal_reason ask(const struct window_rules *rules, uint64_t size, uint32_t page_shift, struct window *w,
                               struct refusal *r) {
        const struct create_window_request req = { .size = size, .page_shift = page_shift };
        const struct window_set none = empty();

        return window_plan(&none, rules, &req, w, r) < 0 ? r->reason : REFUSAL_NONE;
}

static enum refusal_reason ask_page(const struct window_rules *rules, uint64_t least, uint32_t *ret_shift, struct refusal *r) {
        const struct create_window_request req = { .size = 2 * G, .min_page_size = least };
        const struct window_set none = empty();
        struct window w;

        if (window_plan(&none, rules, &req, &w, r) < 0)
                return r->reason;
        *ret_shift = w.page_shift;
        return REFUSAL_NONE;
}

/* ---- sizes ---- */

static void sizes_are_powers_of_two(void **state) {
        const struct window_rules rules = rules_of(pseries());
        struct refusal r;
        struct window w;

        (void)state;
        for (uint64_t size = PAGE; size <= PAGES_OF_THE_SEED << 12; size <<= 1) {
                assert_int_equal(ask(&rules, size, 12, &w, &r), REFUSAL_NONE);
                assert_int_equal(iova_range_length(w.range), size);
                if (size == PAGE)
                        continue;
                assert_int_equal(ask(&rules, size - 1, 12, &w, &r), REFUSAL_WINDOW_SIZE);
                assert_int_equal(r.asked, size - 1);
                assert_int_equal(r.nearest_below, size / 2);
                assert_int_equal(r.nearest_above, size);
                if (size == PAGES_OF_THE_SEED << 12)
                        continue;
                assert_int_equal(ask(&rules, size + 1, 12, &w, &r), REFUSAL_WINDOW_SIZE);
                assert_int_equal(r.nearest_below, size);
                assert_int_equal(r.nearest_above, size * 2);
        }
}

static void nothing_is_no_window(void **state) {
        const struct window_rules rules = rules_of(pseries());
        struct refusal r;
        struct window w;

        (void)state;
        assert_int_equal(ask(&rules, 0, 16, &w, &r), REFUSAL_WINDOW_SIZE);
        assert_int_equal(r.asked, 0);
        assert_int_equal(r.nearest_below, 0);
        assert_int_equal(r.nearest_above, 64 * K);
}

static void a_window_has_a_page_at_least(void **state) {
        const struct window_rules rules = rules_of(pseries());
        struct refusal r;
        struct window w;

        (void)state;
        assert_int_equal(ask(&rules, 2 * M, 21, &w, &r), REFUSAL_NONE);
        assert_int_equal(ask(&rules, 1 * M, 21, &w, &r), REFUSAL_WINDOW_SIZE);
        assert_int_equal(r.limit, 2 * M);
        assert_int_equal(r.nearest_above, 2 * M);
        assert_int_equal(ask(&rules, 1, 12, &w, &r), REFUSAL_WINDOW_SIZE);
}

static void the_largest_is_the_power_of_two_of_the_seed(void **state) {
        const struct window_rules rules = rules_of(pseries());
        struct refusal r;
        struct window w;

        (void)state;
        assert_int_equal(rules.largest, UINT64_C(0x80000000) * 4096);
        assert_int_equal(ask(&rules, rules.largest, 12, &w, &r), REFUSAL_NONE);
        assert_int_equal(ask(&rules, UINT64_C(0xffffffff) * 4096, 12, &w, &r), REFUSAL_WINDOW_SIZE);
        assert_int_equal(r.nearest_below, rules.largest);
        assert_int_equal(r.nearest_above, 0);
        assert_int_equal(ask(&rules, rules.largest + 1, 12, &w, &r), REFUSAL_WINDOW_SIZE);
        assert_int_equal(ask(&rules, rules.largest * 2, 12, &w, &r), REFUSAL_WINDOW_SIZE);
        assert_int_equal(r.limit, rules.largest);
        assert_int_equal(ask(&rules, UINT64_MAX, 12, &w, &r), REFUSAL_WINDOW_SIZE);
        assert_int_equal(ask(&rules, BIT(63), 12, &w, &r), REFUSAL_WINDOW_SIZE);
}

static void without_windows_of_its_own_the_largest_is_what_a_range_can_hold(void **state) {
        struct container_info whole = { .page_sizes = BIT(12), .n_ranges = 1, .ranges = { { 0, UINT64_MAX } } };
        struct container_info crooked = { .page_sizes = BIT(12), .n_ranges = 1, .ranges = { { PAGE, 4 * G - 1 } } };
        struct refusal r;
        struct window w;
        struct window_rules rules = rules_of(x86());

        (void)state;
        assert_int_equal(rules.largest, BIT(47));       /* 2^48 would begin at 0, where the interrupts are in it */
        assert_int_equal(ask(&rules, BIT(47), 12, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.range.first, BIT(47));
        assert_int_equal(ask(&rules, BIT(48), 12, &w, &r), REFUSAL_WINDOW_SIZE);
        assert_int_equal(r.nearest_below, BIT(47));
        rules = rules_of(whole);
        assert_int_equal(rules.largest, BIT(63));
        assert_int_equal(ask(&rules, BIT(63), 12, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.range.first, 0);
        rules = rules_of(crooked);
        assert_int_equal(rules.largest, 2 * G);
        assert_int_equal(ask(&rules, 2 * G, 12, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.range.first, 2 * G);
}

/* ---- pages ---- */

static void a_page_size_of_the_mask_is_taken_and_others_name_their_neighbours(void **state) {
        static const uint32_t wrong[] = { 1, 11, 13, 15, 17, 20, 22, 23, 25, 63 };
        static const uint64_t below[] = { 0, 0, BIT(12), BIT(12), BIT(16), BIT(16), BIT(21), BIT(21), BIT(24), BIT(24) };
        static const uint64_t above[] = { BIT(12), BIT(12), BIT(16), BIT(16), BIT(21), BIT(21), BIT(24), BIT(24), 0, 0 };
        const struct window_rules rules = rules_of(pseries());
        struct refusal r;
        struct window w;

        (void)state;
        for (uint32_t shift = 12; shift <= 24; shift++)
                if (rules.page_sizes & BIT(shift)) {
                        assert_int_equal(ask(&rules, 1 * G, shift, &w, &r), REFUSAL_NONE);
                        assert_int_equal(w.page_shift, shift);
                }
        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
                assert_int_equal(ask(&rules, 1 * G, wrong[i], &w, &r), REFUSAL_WINDOW_PAGE);
                assert_int_equal(r.limit, rules.page_sizes);
                assert_int_equal(r.asked, BIT(wrong[i]));
                assert_int_equal(r.nearest_below, below[i]);
                assert_int_equal(r.nearest_above, above[i]);
        }
        assert_int_equal(ask(&rules, 1 * G, 64, &w, &r), REFUSAL_WINDOW_PAGE);
        assert_int_equal(r.nearest_below, BIT(24));
        assert_int_equal(ask(&rules, 1 * G, UINT32_MAX, &w, &r), REFUSAL_WINDOW_PAGE);
}

static void at_least_a_page_size_takes_the_smallest_that_does(void **state) {
        const struct window_rules rules = rules_of(pseries());
        struct refusal r;
        uint32_t shift;

        (void)state;
        assert_int_equal(ask_page(&rules, 0, &shift, &r), REFUSAL_NONE);
        assert_int_equal(shift, 12);
        assert_int_equal(ask_page(&rules, PAGE, &shift, &r), REFUSAL_NONE);
        assert_int_equal(shift, 12);
        assert_int_equal(ask_page(&rules, PAGE + 1, &shift, &r), REFUSAL_NONE);
        assert_int_equal(shift, 16);
        assert_int_equal(ask_page(&rules, 64 * K + 1, &shift, &r), REFUSAL_NONE);
        assert_int_equal(shift, 21);
        assert_int_equal(ask_page(&rules, 16 * M, &shift, &r), REFUSAL_NONE);
        assert_int_equal(shift, 24);
        assert_int_equal(ask_page(&rules, 16 * M + 1, &shift, &r), REFUSAL_WINDOW_PAGE);
        assert_int_equal(r.asked, 16 * M + 1);
        assert_int_equal(r.nearest_below, 16 * M);
        assert_int_equal(r.nearest_above, 0);
        assert_int_equal(ask_page(&rules, UINT64_MAX, &shift, &r), REFUSAL_WINDOW_PAGE);
}

static void a_shift_and_a_least_size_must_agree(void **state) {
        const struct window_rules rules = rules_of(pseries());
        struct create_window_request req = { .size = 1 * G, .page_shift = 16, .min_page_size = 64 * K };
        const struct window_set none = empty();
        struct refusal r;
        struct window w;

        (void)state;
        assert_int_equal(window_plan(&none, &rules, &req, &w, &r), 0);
        req.min_page_size++;
        assert_int_equal(window_plan(&none, &rules, &req, &w, &r), -1);
        assert_int_equal(r.reason, REFUSAL_WINDOW_PAGE);
        assert_int_equal(r.nearest_above, 2 * M);
}

/* ---- levels and tables ---- */

static enum refusal_reason ask_levels(const struct window_rules *rules, uint64_t size, uint32_t shift, uint32_t levels,
                                      struct window *w, struct refusal *r) {
        const struct create_window_request req = { .size = size, .page_shift = shift, .levels = levels };
        const struct window_set none = empty();

        return window_plan(&none, rules, &req, w, r) < 0 ? r->reason : REFUSAL_NONE;
}

static void levels_are_those_of_the_platform(void **state) {
        const struct window_rules one = rules_of(pseries()), five = rules_of(powernv()), none = rules_of(x86());
        struct refusal r;
        struct window w;

        (void)state;
        assert_int_equal(ask_levels(&one, 1 * G, 12, 1, &w, &r), REFUSAL_NONE);
        assert_int_equal(ask_levels(&one, 1 * G, 12, 2, &w, &r), REFUSAL_WINDOW_LEVELS);
        assert_int_equal(r.limit, 1);
        assert_int_equal(r.asked, 2);
        assert_int_equal(r.nearest_below, 1);
        assert_int_equal(ask_levels(&five, 1 * G, 12, 2, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.levels, 2);
        assert_int_equal(ask_levels(&five, 1 * G, 12, 9, &w, &r), REFUSAL_WINDOW_LEVELS);
        assert_int_equal(ask_levels(&five, 1 * G, 12, UINT32_MAX, &w, &r), REFUSAL_WINDOW_LEVELS);
        assert_int_equal(ask_levels(&none, 1 * G, 12, 1, &w, &r), REFUSAL_NONE);
        assert_int_equal(ask_levels(&none, 1 * G, 12, 2, &w, &r), REFUSAL_WINDOW_LEVELS);
}

/* Each level is a page of the host at least: five of 9 bits and 12 of the page are 57, which the kernel refuses. */
static void levels_that_the_kernel_would_refuse_are_refused_before(void **state) {
        struct container_info info = powernv();
        struct window_rules rules = rules_of(info);
        struct refusal r;
        struct window w;

        (void)state;
        assert_int_equal(ask_levels(&rules, 1 * G, 12, 4, &w, &r), REFUSAL_NONE);       /* 4 * 9 + 12 = 48 */
        assert_int_equal(ask_levels(&rules, 1 * G, 12, 5, &w, &r), REFUSAL_WINDOW_LEVELS);
        assert_int_equal(r.nearest_below, 4);
        window_rules_of(&info, 64 * K, &rules);
        assert_int_equal(ask_levels(&rules, 1 * G, 16, 2, &w, &r), REFUSAL_NONE);       /* 2 * 13 + 16 = 42 */
        assert_int_equal(ask_levels(&rules, 1 * G, 16, 3, &w, &r), REFUSAL_WINDOW_LEVELS);      /* 3 * 13 + 16 = 55 */
        assert_int_equal(r.nearest_below, 2);
}

static void the_service_chooses_levels_that_keep_the_first_one_small(void **state) {
        struct container_info info = powernv();
        struct window_rules rules = rules_of(info);
        struct refusal r;
        struct window w;

        (void)state;
        assert_int_equal(ask_levels(&rules, 32 * M, 12, 0, &w, &r), REFUSAL_NONE);      /* 8192 entries, 64K */
        assert_int_equal(w.levels, 1);
        assert_int_equal(ask_levels(&rules, 64 * M, 12, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.levels, 2);
        assert_int_equal(ask_levels(&rules, rules.largest, 12, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.levels, 3);
        window_rules_of(&info, 64 * K, &rules);         /* three would be refused: two */
        assert_int_equal(ask_levels(&rules, rules.largest, 16, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.levels, 2);
        info.windows.levels_default = 2;
        window_rules_of(&info, 4096, &rules);
        assert_int_equal(ask_levels(&rules, 32 * M, 12, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.levels, 2);
}

static uint64_t table_size(const struct window_rules *rules, uint64_t size, uint32_t shift, uint32_t levels) {
        uint64_t bytes;

        assert_true(window_table_size(rules, size, shift, levels, &bytes));
        return bytes;
}

static void one_level_costs_an_entry_a_page_in_whole_pages(void **state) {
        struct window_rules rules = rules_of(pseries());

        (void)state;
        assert_int_equal(table_size(&rules, 1 * G, 12, 1), 2 * M);
        assert_int_equal(table_size(&rules, 1 * G, 24, 1), 4096);
        assert_int_equal(table_size(&rules, 2 * M, 12, 1), 4096);
        assert_int_equal(table_size(&rules, 4 * M, 12, 1), 8192);
        assert_int_equal(table_size(&rules, PAGES_OF_THE_SEED << 12, 12, 1), 16 * G);
        assert_int_equal(rules.initial.table_bytes, 0);         /* was there before anybody asked */
        rules.host_page = 64 * K;
        assert_int_equal(table_size(&rules, 4 * M, 12, 1), 64 * K);
}

static void several_levels_cost_the_first_one_twice(void **state) {
        const struct window_rules rules = rules_of(powernv());

        (void)state;
        assert_int_equal(table_size(&rules, 1 * G, 12, 1), 2 * 2 * M);
        assert_int_equal(table_size(&rules, 1 * G, 12, 2), 2 * 4096);   /* 18 bits: 9 in each */
        assert_int_equal(table_size(&rules, 2 * G, 12, 2), 2 * 8192);   /* 19: 10 in the first */
        assert_int_equal(table_size(&rules, PAGES_OF_THE_SEED << 12, 12, 3), 2 * 16 * K);       /* 31: 11 in each */
}

static void a_window_that_is_only_a_promise_has_no_table(void **state) {
        const struct window_rules rules = rules_of(x86());

        (void)state;
        assert_int_equal(table_size(&rules, BIT(47), 12, 1), 0);
}

static void a_table_that_64_bits_do_not_hold_is_refused(void **state) {
        struct window_rules rules = rules_of(pseries());
        struct refusal r;
        struct window w;
        uint64_t bytes;

        (void)state;
        assert_true(window_table_size(&rules, BIT(63), 3, 1, &bytes));
        assert_int_equal(bytes, BIT(63));
        assert_false(window_table_size(&rules, BIT(63), 2, 1, &bytes));
        rules.levels_max = 2;
        assert_false(window_table_size(&rules, BIT(63), 3, 1, &bytes));
        rules.page_sizes = BIT(2);
        rules.largest = BIT(63);
        rules.levels_max = 1;
        assert_int_equal(ask(&rules, BIT(63), 2, &w, &r), REFUSAL_WINDOW_SIZE);
}

/* ---- how many, and where ---- */

static void one_window_more_than_the_platform_has_is_refused_with_the_number(void **state) {
        const struct window_rules rules = rules_of(pseries());
        const struct create_window_request req = { .size = 1 * G };
        struct window_set set = with_default(&rules);
        struct refusal r;
        struct window w;

        (void)state;
        assert_int_equal(window_can_create(&set, &rules), 1);
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
        assert_false(window_has_place(&w));             /* the platform chooses */
        assert_int_equal(w.state, LEDGER_INTENDED);
        assert_false(w.is_default);
        assert_non_null(window_set_add(&set, &w));      /* one on its way counts */
        assert_int_equal(window_can_create(&set, &rules), 0);
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), -1);
        assert_int_equal(r.reason, REFUSAL_WINDOW_LIMIT);
        assert_int_equal(r.limit, 2);
        assert_int_equal(r.used, 2);
        assert_int_equal(r.asked, 1);
        window_set_remove(&set, set.of[0]);
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
        window_set_clear(&set);
}

static void the_default_window_is_all_there_is_and_leaves_no_room(void **state) {
        const struct window_rules rules = rules_of(x86());
        const struct create_window_request req = { .size = PAGE };
        struct window_set set = with_default(&rules);
        struct iova_range ranges[IOVA_RANGES_MAX];
        struct refusal r;
        struct window w;

        (void)state;
        assert_int_equal(set.of[0]->range.first, 0);
        assert_int_equal(set.of[0]->range.last, BIT(48) - 1);
        assert_true(set.of[0]->is_default);
        assert_int_equal(window_can_create(&set, &rules), 0);
        assert_int_equal(window_free_ranges(&set, &rules, ranges), 0);
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), -1);
        assert_int_equal(r.reason, REFUSAL_WINDOW_LIMIT);
        assert_int_equal(r.conflict_last, BIT(48) - 1);
        assert_int_equal(r.nearest_below, 0);
        assert_non_null(strstr(r.text, "default window 1"));
        window_set_remove(&set, set.of[0]);
        assert_int_equal(window_can_create(&set, &rules), WINDOWS_MAX);
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
        assert_int_equal(w.range.first, 0);
        window_set_clear(&set);
}

static void a_new_window_takes_the_first_place_that_is_a_multiple_of_its_size(void **state) {
        const struct window_rules rules = rules_of(x86());
        struct create_window_request req = { .size = 1 * G };
        struct window_set set = empty();
        struct iova_range ranges[IOVA_RANGES_MAX];
        struct refusal r;
        struct window w;

        (void)state;
        add_window(&set, 1, 0, 16 * M);
        add_window(&set, 2, 1 * G, 1 * G);
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
        assert_int_equal(w.range.first, 2 * G);
        add_window(&set, 3, 2 * G, 1 * G);
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
        assert_int_equal(w.range.first, 4 * G);         /* 3G..4G has the interrupts in it */
        req.size = 512 * M;
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
        assert_int_equal(w.range.first, 512 * M);
        req.size = 16 * M;
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
        assert_int_equal(w.range.first, 16 * M);
        assert_int_equal(window_free_ranges(&set, &rules, ranges), 3);
        assert_int_equal(ranges[0].first, 16 * M);
        assert_int_equal(ranges[0].last, 1 * G - 1);
        assert_int_equal(ranges[1].first, 3 * G);
        assert_int_equal(ranges[1].last, 0xfedfffff);
        assert_int_equal(ranges[2].first, 0xfef00000);
        assert_int_equal(ranges[2].last, BIT(48) - 1);
        window_set_clear(&set);
}

static void no_room_beside_others_says_how_much_there_is(void **state) {
        struct container_info small = { .page_sizes = BIT(12), .n_ranges = 1, .ranges = { { 0, 4 * G - 1 } } };
        const struct window_rules rules = rules_of(small);
        struct create_window_request req = { .size = 2 * G };
        struct window_set set = empty();
        struct refusal r;
        struct window w;

        (void)state;
        add_window(&set, 7, 1 * G, PAGE);
        add_window(&set, 8, 4 * G - PAGE, PAGE);
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), -1);
        assert_int_equal(r.reason, REFUSAL_WINDOW_LIMIT);
        assert_int_equal(r.asked, 2 * G);
        assert_int_equal(r.nearest_below, 1 * G);
        assert_non_null(strstr(r.text, "1G"));
        req.size = 1 * G;
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
        assert_int_equal(w.range.first, 0);
        window_set_clear(&set);
}

static void the_last_window_of_the_space_ends_with_it(void **state) {
        struct container_info whole = { .page_sizes = BIT(12), .n_ranges = 1, .ranges = { { 0, UINT64_MAX } } };
        const struct window_rules rules = rules_of(whole);
        const struct create_window_request req = { .size = BIT(62) };
        struct window_set set = empty();
        struct refusal r;
        struct window w;

        (void)state;
        for (uint64_t i = 0; i < 4; i++) {
                assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
                assert_int_equal(w.range.first, i << 62);
                w.id = i + 1;
                assert_non_null(window_set_add(&set, &w));
        }
        assert_int_equal(set.of[3]->range.last, UINT64_MAX);
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), -1);
        assert_int_equal(r.reason, REFUSAL_WINDOW_LIMIT);
        assert_int_equal(window_can_create(&set, &rules), 0);
        window_set_clear(&set);
}

static void windows_of_our_own_are_counted_too(void **state) {
        const struct window_rules rules = rules_of(x86());
        const struct create_window_request req = { .size = PAGE };
        struct window_set set = empty();
        struct refusal r;
        struct window w;

        (void)state;
        for (uint64_t i = 0; i < WINDOWS_MAX; i++) {
                assert_int_equal(window_plan(&set, &rules, &req, &w, &r), 0);
                assert_non_null(window_set_add(&set, &w));
        }
        assert_int_equal(window_plan(&set, &rules, &req, &w, &r), -1);
        assert_int_equal(r.limit, WINDOWS_MAX);
        window_set_clear(&set);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(sizes_are_powers_of_two),
                cmocka_unit_test(nothing_is_no_window),
                cmocka_unit_test(a_window_has_a_page_at_least),
                cmocka_unit_test(the_largest_is_the_power_of_two_of_the_seed),
                cmocka_unit_test(without_windows_of_its_own_the_largest_is_what_a_range_can_hold),
                cmocka_unit_test(a_page_size_of_the_mask_is_taken_and_others_name_their_neighbours),
                cmocka_unit_test(at_least_a_page_size_takes_the_smallest_that_does),
                cmocka_unit_test(a_shift_and_a_least_size_must_agree),
                cmocka_unit_test(levels_are_those_of_the_platform),
                cmocka_unit_test(levels_that_the_kernel_would_refuse_are_refused_before),
                cmocka_unit_test(the_service_chooses_levels_that_keep_the_first_one_small),
                cmocka_unit_test(one_level_costs_an_entry_a_page_in_whole_pages),
                cmocka_unit_test(several_levels_cost_the_first_one_twice),
                cmocka_unit_test(a_window_that_is_only_a_promise_has_no_table),
                cmocka_unit_test(a_table_that_64_bits_do_not_hold_is_refused),
                cmocka_unit_test(one_window_more_than_the_platform_has_is_refused_with_the_number),
                cmocka_unit_test(the_default_window_is_all_there_is_and_leaves_no_room),
                cmocka_unit_test(a_new_window_takes_the_first_place_that_is_a_multiple_of_its_size),
                cmocka_unit_test(no_room_beside_others_says_how_much_there_is),
                cmocka_unit_test(the_last_window_of_the_space_ends_with_it),
                cmocka_unit_test(windows_of_our_own_are_counted_too),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
