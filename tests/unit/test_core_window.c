/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/* The windows of a domain: which one has a range, and what is refused at each of its edges. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "core/window.h"

#define K UINT64_C(1024)
#define M (K * K)
#define G (K * M)
#define PAGE (4 * K)
#define HIGH UINT64_C(0x800000000000000)

static struct window *add(struct window_set *set, uint64_t id, uint64_t start, uint64_t size, uint32_t page_shift) {
        const struct window w = { .id = id, .range = window_range_at(start, size), .page_shift = page_shift, .levels = 1,
                                  .state = LEDGER_LIVE };
        struct window *added = window_set_add(set, &w);

        assert_non_null(added);
        return added;
}

/* 0..1G of 4K, 2G..4G of 64K with nothing between, 4G..5G of 2M right behind, as added in another order. */
static struct window_set three(void) {
        struct window_set set;

        window_set_init(&set);
        add(&set, 12, 2 * G, 2 * G, 16);
        add(&set, 13, 4 * G, 1 * G, 21);
        add(&set, 11, 0, 1 * G, 12);
        return set;
}

static enum refusal_reason contain(const struct window_set *set, uint64_t first, uint64_t length, uint64_t expected,
                                   struct refusal *r) {
        const struct iova_range range = { first, first + (length - 1) };
        const struct window *w = window_set_contain(set, range, r);

        if (!w)
                return r->reason;
        assert_int_equal(w->id, expected);
        return REFUSAL_NONE;
}

/* ---- the set ---- */

static void windows_are_sorted_by_place_and_the_placeless_come_last(void **state) {
        struct window_set set = three();
        struct window *nowhere = add(&set, 14, WINDOW_NOWHERE, 1 * G, 12);

        (void)state;
        assert_int_equal(set.n, 4);
        for (size_t i = 0; i < 4; i++)
                assert_int_equal(set.of[i]->id, 11 + i);
        assert_false(window_has_place(nowhere));
        assert_int_equal(iova_range_length(nowhere->range), 1 * G);
        assert_null(window_set_at(&set, UINT64_MAX));
        window_set_move(&set, nowhere, window_range_at(1 * G, 1 * G));
        assert_ptr_equal(set.of[1], nowhere);
        assert_ptr_equal(window_set_at(&set, 2 * G - 1), nowhere);
        window_set_remove(&set, set.of[0]);
        assert_int_equal(set.n, 3);
        assert_ptr_equal(set.of[0], nowhere);
        window_set_clear(&set);
        assert_int_equal(set.n, 0);
}

static void no_more_windows_than_can_be_shown(void **state) {
        struct window_set set;
        const struct window one = { .range = { 0, 1 } };

        (void)state;
        window_set_init(&set);
        for (size_t i = 0; i < WINDOWS_MAX; i++)
                add(&set, i + 1, i * G, G, 12);
        assert_null(window_set_add(&set, &one));
        assert_int_equal(set.n, WINDOWS_MAX);
        window_set_clear(&set);
}

static void an_unknown_id_is_refused_with_those_that_are_known(void **state) {
        struct window_set set = three();
        struct refusal r;

        (void)state;
        assert_ptr_equal(window_set_find(&set, 12, &r), set.of[1]);
        assert_null(window_set_find(&set, 9, &r));
        assert_int_equal(r.reason, REFUSAL_UNKNOWN_WINDOW);
        assert_int_equal(r.asked, 9);
        assert_non_null(strstr(r.text, "11, 12, 13"));
        window_set_remove(&set, set.of[1]);
        assert_null(window_set_find(&set, 12, &r));     /* a window that was removed is none */
        window_set_clear(&set);
        assert_null(window_set_find(&set, 12, &r));
        assert_non_null(strstr(r.text, "none"));
}

static void ids_of_many_windows_do_not_overflow_the_text(void **state) {
        struct window_set set;
        struct refusal r;

        (void)state;
        window_set_init(&set);
        for (size_t i = 0; i < WINDOWS_MAX; i++)
                add(&set, UINT64_MAX - i, i * G, G, 12);
        assert_null(window_set_find(&set, 1, &r));
        assert_in_range(strlen(r.text), 1, REFUSAL_TEXT_MAX - 1);
        window_set_clear(&set);
}

/* ---- containment ---- */

static void a_range_lies_in_a_window_to_its_first_and_last_byte(void **state) {
        struct window_set set = three();
        struct refusal r;

        (void)state;
        assert_int_equal(contain(&set, 0, PAGE, 11, &r), REFUSAL_NONE);
        assert_int_equal(contain(&set, 0, 1 * G, 11, &r), REFUSAL_NONE);
        assert_int_equal(contain(&set, 1 * G - PAGE, PAGE, 11, &r), REFUSAL_NONE);
        assert_int_equal(contain(&set, 2 * G, 2 * G, 12, &r), REFUSAL_NONE);
        assert_int_equal(contain(&set, 4 * G, PAGE, 13, &r), REFUSAL_NONE);
        assert_int_equal(contain(&set, 5 * G - 1, 1, 13, &r), REFUSAL_NONE);
        assert_int_equal(contain(&set, 5 * G, 1, 0, &r), REFUSAL_NO_WINDOW);
        assert_int_equal(contain(&set, 1 * G, 1, 0, &r), REFUSAL_NO_WINDOW);
        assert_int_equal(contain(&set, 2 * G - 1, 1, 0, &r), REFUSAL_NO_WINDOW);
        window_set_clear(&set);
}

static void a_range_from_one_window_into_the_next_names_both(void **state) {
        struct window_set set = three();
        struct refusal r;

        (void)state;
        assert_int_equal(contain(&set, 4 * G - PAGE, 2 * PAGE, 0, &r), REFUSAL_NO_WINDOW);
        assert_non_null(strstr(r.text, "window 12"));
        assert_non_null(strstr(r.text, "window 13"));
        assert_int_equal(r.conflict_first, 2 * G);
        assert_int_equal(r.conflict_last, 4 * G - 1);
        /* it would fit at the end of the one, in pages of 64K, and at the beginning of the other */
        assert_int_equal(r.nearest_below, 4 * G - 64 * K);
        assert_int_equal(r.nearest_above, 4 * G);
        window_set_clear(&set);
}

static void a_range_over_a_windows_end_names_it(void **state) {
        struct window_set set = three();
        struct refusal r;

        (void)state;
        assert_int_equal(contain(&set, 1 * G - PAGE, 2 * PAGE, 0, &r), REFUSAL_NO_WINDOW);
        assert_non_null(strstr(r.text, "begins in window 11"));
        assert_int_equal(r.conflict_first, 0);
        assert_int_equal(r.conflict_last, 1 * G - 1);
        assert_int_equal(r.nearest_below, 1 * G - 2 * PAGE);
        assert_int_equal(r.nearest_above, 2 * G);
        assert_int_equal(contain(&set, 2 * G - PAGE, 2 * PAGE, 0, &r), REFUSAL_NO_WINDOW);
        assert_non_null(strstr(r.text, "ends in window 12"));
        assert_int_equal(r.conflict_first, 2 * G);
        /* larger than the one below and the one above: only the middle one has room */
        assert_int_equal(contain(&set, 1 * G - PAGE, 1 * G + PAGE, 0, &r), REFUSAL_NO_WINDOW);
        assert_int_equal(r.nearest_below, 0);
        assert_int_equal(r.nearest_above, 2 * G);
        window_set_clear(&set);
}

static void a_range_in_no_window_has_no_conflict(void **state) {
        struct window_set set = three();
        struct refusal r;

        (void)state;
        assert_int_equal(contain(&set, HIGH, PAGE, 0, &r), REFUSAL_NO_WINDOW);
        assert_true(r.conflict_first > r.conflict_last);
        assert_int_equal(r.nearest_below, 5 * G - 2 * M);
        assert_int_equal(r.nearest_above, 0);
        window_set_clear(&set);
        assert_int_equal(contain(&set, 0, PAGE, 0, &r), REFUSAL_NO_WINDOW);
        assert_true(r.conflict_first > r.conflict_last);
        assert_int_equal(r.nearest_below, 0);
        assert_int_equal(r.nearest_above, 0);
}

static void the_whole_space_can_be_a_window(void **state) {
        struct window_set set;
        struct refusal r;
        struct ledger_window row;
        struct window_view view;

        (void)state;
        window_set_init(&set);
        add(&set, 1, 0, 0, 12);
        assert_int_equal(contain(&set, 0, 0, 1, &r), REFUSAL_NONE);
        assert_int_equal(contain(&set, UINT64_MAX, 1, 1, &r), REFUSAL_NONE);
        window_fill_view(set.of[0], &view);
        assert_int_equal(view.start, 0);
        assert_int_equal(view.size, 0);
        window_fill_row(set.of[0], 5, &row);
        assert_int_equal(row.size, 0);
        window_set_clear(&set);
}

static void only_a_live_window_takes_mappings(void **state) {
        struct window_set set = three();
        struct refusal r;

        (void)state;
        set.of[0]->state = LEDGER_INTENDED;
        assert_int_equal(contain(&set, 0, PAGE, 0, &r), REFUSAL_IN_PROGRESS);
        assert_non_null(strstr(r.text, "created"));
        set.of[0]->state = LEDGER_ENDING;
        assert_int_equal(contain(&set, 0, PAGE, 0, &r), REFUSAL_IN_PROGRESS);
        assert_non_null(strstr(r.text, "removed"));
        window_set_clear(&set);
}

/* ---- what a mapping must fulfil ---- */

static void addresses_are_multiples_of_the_windows_page(void **state) {
        struct window_set set = three();
        const struct window *w = set.of[1];
        struct refusal r;

        (void)state;
        assert_int_equal(window_check_aligned(w, "IOVA", 2 * G, &r), 0);
        assert_int_equal(window_check_aligned(w, "IOVA", 0, &r), 0);
        assert_int_equal(window_check_aligned(w, "IOVA", 2 * G + 64 * K - 1, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNALIGNED);
        assert_int_equal(window_check_aligned(w, "IOVA", 2 * G + PAGE, &r), -1);
        assert_int_equal(r.limit, 64 * K);
        assert_int_equal(r.asked, 2 * G + PAGE);
        assert_int_equal(r.nearest_below, 2 * G);
        assert_int_equal(r.nearest_above, 2 * G + 64 * K);
        assert_non_null(strstr(r.text, "window 12"));
        window_set_clear(&set);
}

static void pages_behind_it_are_at_least_as_large_as_the_windows(void **state) {
        struct window_set set = three();
        struct refusal r;

        (void)state;
        assert_int_equal(window_check_memory(set.of[2], PAGE, 7, 2 * M, &r), 0);
        assert_int_equal(window_check_memory(set.of[2], PAGE, 7, 1 * G, &r), 0);
        assert_int_equal(window_check_memory(set.of[2], PAGE, 7, 2 * M - 1, &r), -1);
        assert_int_equal(window_check_memory(set.of[2], PAGE, 7, PAGE, &r), -1);
        assert_int_equal(r.reason, REFUSAL_MEMORY_PAGE_SIZE);
        assert_int_equal(r.limit, 2 * M);
        assert_int_equal(r.asked, PAGE);
        assert_non_null(strstr(r.text, "2M"));
        assert_non_null(strstr(r.text, "4K"));
        /* a window of the domain's smallest pages takes any memory: an IOMMU with pages larger than the host's */
        assert_int_equal(window_check_memory(set.of[1], 64 * K, 7, PAGE, &r), 0);
        window_set_clear(&set);
}

static void a_windows_own_quota_is_kept_to_the_byte(void **state) {
        struct window_set set = three();
        struct window *w = set.of[0];
        struct refusal r;

        (void)state;
        assert_int_equal(window_check_quota(w, UINT64_MAX, &r), 0);     /* none of its own */
        w->quota = 4 * PAGE;
        assert_int_equal(window_check_quota(w, 4 * PAGE, &r), 0);
        assert_int_equal(window_check_quota(w, 4 * PAGE + 1, &r), -1);
        window_charge(w, 2, 3 * PAGE);
        assert_int_equal(window_check_quota(w, PAGE, &r), 0);
        assert_int_equal(window_check_quota(w, PAGE + 1, &r), -1);
        assert_int_equal(window_check_quota(w, UINT64_MAX, &r), -1);
        assert_int_equal(r.reason, REFUSAL_QUOTA_EXCEEDED);
        assert_int_equal(r.limit, 4 * PAGE);
        assert_int_equal(r.used, 3 * PAGE);
        assert_int_equal(r.asked, UINT64_MAX);
        assert_non_null(strstr(r.text, "window 11"));
        window_charge(w, 1, PAGE);
        assert_int_equal(window_check_quota(w, 1, &r), -1);
        assert_int_equal(window_check_quota(w, 0, &r), 0);
        window_refund(w, 3, 4 * PAGE);
        assert_int_equal(w->mappings, 0);
        assert_int_equal(w->mapped_bytes, 0);
        window_refund(w, 1, PAGE);      /* a mistake of ours does not wrap */
        assert_int_equal(w->mapped_bytes, 0);
        window_set_clear(&set);
}

/* ---- removing ---- */

static void a_window_with_mappings_is_removed_by_force_alone(void **state) {
        struct window_set set = three();
        struct window *w = set.of[0];
        struct refusal r;

        (void)state;
        assert_int_equal(window_check_removable(w, false, &r), 0);
        window_charge(w, 1, PAGE);
        assert_int_equal(window_check_removable(w, true, &r), 0);
        assert_int_equal(window_check_removable(w, false, &r), -1);
        assert_int_equal(r.reason, REFUSAL_IN_USE);
        assert_int_equal(r.used, 1);
        w->state = LEDGER_ENDING;
        assert_int_equal(window_check_removable(w, true, &r), -1);
        assert_int_equal(r.reason, REFUSAL_IN_PROGRESS);
        window_set_clear(&set);
}

static void a_row_brings_back_what_it_was_made_of(void **state) {
        const struct window w = { .id = 3, .range = window_range_at(HIGH, 8 * M), .page_shift = 16, .levels = 2, .quota = M,
                                  .table_bytes = 4096, .is_default = true, .state = LEDGER_ENDING };
        struct window nowhere = w, back;
        struct ledger_window row;

        (void)state;
        window_fill_row(&w, 5, &row);
        assert_int_equal(row.domain, 5);
        assert_int_equal(row.start, HIGH);
        assert_int_equal(row.size, 8 * M);
        window_from_row(&row, &back);
        assert_memory_equal(&back, &w, sizeof w);
        nowhere.range = window_range_at(WINDOW_NOWHERE, 8 * M);
        window_fill_row(&nowhere, 5, &row);
        window_from_row(&row, &back);
        assert_memory_equal(&back, &nowhere, sizeof nowhere);
        assert_false(window_has_place(&back));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(windows_are_sorted_by_place_and_the_placeless_come_last),
                cmocka_unit_test(no_more_windows_than_can_be_shown),
                cmocka_unit_test(an_unknown_id_is_refused_with_those_that_are_known),
                cmocka_unit_test(ids_of_many_windows_do_not_overflow_the_text),
                cmocka_unit_test(a_range_lies_in_a_window_to_its_first_and_last_byte),
                cmocka_unit_test(a_range_from_one_window_into_the_next_names_both),
                cmocka_unit_test(a_range_over_a_windows_end_names_it),
                cmocka_unit_test(a_range_in_no_window_has_no_conflict),
                cmocka_unit_test(the_whole_space_can_be_a_window),
                cmocka_unit_test(only_a_live_window_takes_mappings),
                cmocka_unit_test(addresses_are_multiples_of_the_windows_page),
                cmocka_unit_test(pages_behind_it_are_at_least_as_large_as_the_windows),
                cmocka_unit_test(a_windows_own_quota_is_kept_to_the_byte),
                cmocka_unit_test(a_window_with_mappings_is_removed_by_force_alone),
                cmocka_unit_test(a_row_brings_back_what_it_was_made_of),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
