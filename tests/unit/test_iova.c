/* SPDX-License-Identifier: Apache-2.0 */
/* link: util */
/* IOVA ranges and page masks: each edge from both sides, and what lies beyond 2^64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "util/iova.h"

#define TOP UINT64_MAX

static void a_range_has_inclusive_ends(void **state) {
        struct iova_range r;

        (void)state;
        assert_true(iova_range_make(0x1000, 0x1000, &r));
        assert_int_equal(r.first, 0x1000);
        assert_int_equal(r.last, 0x1fff);
        assert_int_equal(iova_range_length(r), 0x1000);
        assert_true(iova_range_make(5, 1, &r));
        assert_int_equal(r.first, 5);
        assert_int_equal(r.last, 5);
}

static void a_range_of_no_length_is_none(void **state) {
        struct iova_range r = { 1, 2 };

        (void)state;
        assert_false(iova_range_make(0, 0, &r));
        assert_false(iova_range_make(0x1000, 0, &r));
        assert_false(iova_range_make(TOP, 0, &r));
        assert_int_equal(r.first, 1);
        assert_int_equal(r.last, 2);
}

static void a_range_may_end_exactly_at_the_top_and_not_pass_it(void **state) {
        struct iova_range r = { 1, 2 };

        (void)state;
        assert_false(iova_range_make(TOP - 0xfff, 0x1001, &r));
        assert_false(iova_range_make(TOP, 2, &r));
        assert_false(iova_range_make(2, TOP, &r));
        assert_true(iova_range_make(TOP - 0xfff, 0x1000, &r));
        assert_int_equal(r.last, TOP);
        assert_int_equal(iova_range_length(r), 0x1000);
        assert_true(iova_range_make(TOP, 1, &r));
        assert_int_equal(r.first, TOP);
        assert_int_equal(r.last, TOP);
        assert_true(iova_range_make(0, TOP, &r));
        assert_int_equal(r.last, TOP - 1);
        assert_true(iova_range_make(1, TOP, &r));
        assert_int_equal(r.last, TOP);
}

static void a_failed_make_leaves_the_result_untouched(void **state) {
        struct iova_range r = { 7, 9 };

        (void)state;
        assert_false(iova_range_make(TOP, 2, &r));
        assert_int_equal(r.first, 7);
        assert_int_equal(r.last, 9);
}

static void the_whole_space_has_the_length_that_cannot_be_written(void **state) {
        (void)state;
        assert_int_equal(iova_range_length((struct iova_range){ 0, TOP }), 0);
        assert_int_equal(iova_range_length((struct iova_range){ 1, TOP }), TOP);
}

static void ranges_overlap_when_they_share_a_byte(void **state) {
        const struct iova_range a = { 0x1000, 0x1fff };

        (void)state;
        assert_true(iova_range_overlaps(a, a));
        assert_true(iova_range_overlaps(a, (struct iova_range){ 0x1fff, 0x2fff }));
        assert_false(iova_range_overlaps(a, (struct iova_range){ 0x2000, 0x2fff }));
        assert_true(iova_range_overlaps(a, (struct iova_range){ 0, 0x1000 }));
        assert_false(iova_range_overlaps(a, (struct iova_range){ 0, 0xfff }));
        assert_true(iova_range_overlaps(a, (struct iova_range){ 0x1800, 0x1800 }));
        assert_true(iova_range_overlaps(a, (struct iova_range){ 0, TOP }));
        assert_true(iova_range_overlaps((struct iova_range){ TOP, TOP }, (struct iova_range){ 0, TOP }));
        assert_false(iova_range_overlaps((struct iova_range){ TOP, TOP }, (struct iova_range){ 0, TOP - 1 }));
}

static void containing_is_up_to_both_ends(void **state) {
        const struct iova_range outer = { 0x1000, 0x4fff };

        (void)state;
        assert_true(iova_range_contains(outer, outer));
        assert_true(iova_range_contains(outer, (struct iova_range){ 0x1000, 0x1000 }));
        assert_true(iova_range_contains(outer, (struct iova_range){ 0x4fff, 0x4fff }));
        assert_false(iova_range_contains(outer, (struct iova_range){ 0xfff, 0x4fff }));
        assert_false(iova_range_contains(outer, (struct iova_range){ 0x1000, 0x5000 }));
        assert_false(iova_range_contains(outer, (struct iova_range){ 0, TOP }));
        assert_true(iova_range_contains((struct iova_range){ 0, TOP }, outer));
}

static void an_intersection_is_what_both_have(void **state) {
        static const struct iova_range a[] = { { 0, 99 }, { 200, 299 }, { 400, TOP } };
        static const struct iova_range b[] = { { 50, 249 }, { 299, 400 }, { TOP, TOP } };
        static const struct iova_range expected[] = {
                { 50, 99 }, { 200, 249 }, { 299, 299 }, { 400, 400 }, { TOP, TOP }
        };
        struct iova_range result[IOVA_RANGES_MAX];

        (void)state;
        assert_int_equal(iova_ranges_intersect(a, 3, b, 3, result), 5);
        assert_memory_equal(result, expected, sizeof expected);
        assert_int_equal(iova_ranges_intersect(b, 3, a, 3, result), 5);
        assert_memory_equal(result, expected, sizeof expected);
}

static void an_intersection_with_nothing_is_nothing(void **state) {
        static const struct iova_range a[] = { { 0, 99 } }, touching[] = { { 100, 199 } };
        struct iova_range result[IOVA_RANGES_MAX];

        (void)state;
        assert_int_equal(iova_ranges_intersect(a, 1, NULL, 0, result), 0);
        assert_int_equal(iova_ranges_intersect(NULL, 0, a, 1, result), 0);
        assert_int_equal(iova_ranges_intersect(a, 1, touching, 1, result), 0);
}

static void an_intersection_never_writes_more_than_it_may(void **state) {
        struct iova_range a[IOVA_RANGES_MAX], b[IOVA_RANGES_MAX], result[IOVA_RANGES_MAX + 1];

        (void)state;
        for (uint64_t i = 0; i < IOVA_RANGES_MAX; i++) {        /* offset by a half: nearly two results for each */
                a[i] = (struct iova_range){ i * 100, i * 100 + 89 };
                b[i] = (struct iova_range){ i * 100 + 50, i * 100 + 139 };
        }
        memset(result, 0xee, sizeof result);
        assert_int_equal(iova_ranges_intersect(a, IOVA_RANGES_MAX, b, IOVA_RANGES_MAX, result), IOVA_RANGES_MAX);
        assert_int_equal(result[IOVA_RANGES_MAX].first, UINT64_C(0xeeeeeeeeeeeeeeee));
        assert_int_equal(result[0].first, 50);
        assert_int_equal(result[1].first, 100);
}

static void the_smallest_page_is_the_lowest_bit(void **state) {
        (void)state;
        assert_int_equal(page_mask_smallest(0), 0);
        assert_int_equal(page_mask_smallest(0x1000), 0x1000);
        assert_int_equal(page_mask_smallest(0x40201000), 0x1000);
        assert_int_equal(page_mask_smallest(0x20010000), 0x10000);
        assert_int_equal(page_mask_smallest(TOP), 1);
        assert_int_equal(page_mask_smallest(UINT64_C(1) << 63), UINT64_C(1) << 63);
}

static void checked_arithmetic_says_when_it_wraps(void **state) {
        uint64_t r;

        (void)state;
        assert_false(ADD_OVERFLOW(TOP - 1, UINT64_C(1), &r));
        assert_int_equal(r, TOP);
        assert_true(ADD_OVERFLOW(TOP, UINT64_C(1), &r));
        assert_false(MUL_OVERFLOW(UINT64_C(1) << 32, (UINT64_C(1) << 32) - 1, &r));
        assert_true(MUL_OVERFLOW(UINT64_C(1) << 32, UINT64_C(1) << 32, &r));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_range_has_inclusive_ends),
                cmocka_unit_test(a_range_of_no_length_is_none),
                cmocka_unit_test(a_range_may_end_exactly_at_the_top_and_not_pass_it),
                cmocka_unit_test(a_failed_make_leaves_the_result_untouched),
                cmocka_unit_test(the_whole_space_has_the_length_that_cannot_be_written),
                cmocka_unit_test(ranges_overlap_when_they_share_a_byte),
                cmocka_unit_test(containing_is_up_to_both_ends),
                cmocka_unit_test(an_intersection_is_what_both_have),
                cmocka_unit_test(an_intersection_with_nothing_is_nothing),
                cmocka_unit_test(an_intersection_never_writes_more_than_it_may),
                cmocka_unit_test(the_smallest_page_is_the_lowest_bit),
                cmocka_unit_test(checked_arithmetic_says_when_it_wraps),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
