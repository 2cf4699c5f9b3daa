/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/* Map anywhere: in which window, at which address, and how straight. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "core/window_place.h"

#define K UINT64_C(1024)
#define M (K * K)
#define G (K * M)
#define PAGE (4 * K)
#define BIT(n) (UINT64_C(1) << (n))
#define HIGH UINT64_C(0x800000000000000)

struct stage {
        struct window_set set;
        struct window_rules rules;
        struct iova_space space;
};

static struct window *add(struct stage *s, uint64_t id, uint64_t start, uint64_t size, uint32_t page_shift) {
        const struct window w = { .id = id, .range = window_range_at(start, size), .page_shift = page_shift,
                                  .state = LEDGER_LIVE };
        struct window *added = window_set_add(&s->set, &w);

        assert_non_null(added);
        return added;
}

static void begin(struct stage *s, const struct container_info *info) {
        window_rules_of(info, 4096, &s->rules);
        window_set_init(&s->set);
        iova_space_init(&s->space);
}

static void end(struct stage *s) {
        window_set_clear(&s->set);
        iova_space_clear(&s->space);
}

/* 48 bits with the interrupt window; window 1 is all of it */
static void begin_x86(struct stage *s) {
        const struct container_info info = {
                .page_sizes = BIT(12) | BIT(21) | BIT(30), .n_ranges = 2,
                .ranges = { { 0, 0xfedfffff }, { 0xfef00000, BIT(48) - 1 } },
        };

        begin(s, &info);
        add(s, 1, 0, BIT(48), 12);
}

/* window 1: 1G of 4K at 0; window 2: 4G of 2M up there */
static void begin_spapr(struct stage *s) {
        const struct container_info info = {
                .page_sizes = BIT(12), .n_ranges = 2, .ranges = { { 0, BIT(43) - 1 }, { HIGH, HIGH + BIT(43) - 1 } },
                .windows = { .page_sizes = BIT(12) | BIT(21), .largest = BIT(43), .max_windows = 2, .levels_max = 1 },
        };

        begin(s, &info);
        add(s, 1, 0, 1 * G, 12);
        add(s, 2, HIGH, 4 * G, 21);
}

static enum refusal_reason place_at(struct stage *s, uint64_t window, uint64_t length, uint64_t units, uint64_t memory_page,
                                    uint64_t *ret_window, uint64_t *ret_iova, struct refusal *r) {
        const struct place_want want = { .window = window, .length = length, .units = units, .memory = 9,
                                         .memory_page = memory_page };
        struct window *w = NULL;

        if (window_place(&s->set, &s->rules, &s->space, &want, &w, ret_iova, r) < 0)
                return r->reason;
        assert_true(iova_range_contains(w->range, (struct iova_range){ *ret_iova, *ret_iova + (length - 1) }));
        *ret_window = w->id;
        return REFUSAL_NONE;
}

static void used(struct stage *s, uint64_t first, uint64_t length) {
        assert_true(iova_space_reserve(&s->space));
        assert_true(iova_space_take(&s->space, (struct iova_range){ first, first + (length - 1) }));
}

/* Where it goes, and takes it. */
static uint64_t take(struct stage *s, uint64_t window, uint64_t length, uint64_t memory_page) {
        struct refusal r;
        uint64_t id, iova;

        assert_int_equal(place_at(s, window, length, length, memory_page, &id, &iova, &r), REFUSAL_NONE);
        used(s, iova, length);
        return iova;
}

static void aligned_for_the_largest_page_that_memory_and_size_permit(void **state) {
        struct refusal r;
        struct stage s;
        uint64_t id, iova;

        (void)state;
        begin_x86(&s);
        assert_int_equal(take(&s, 0, PAGE, PAGE), PAGE);        /* not at 0 */
        assert_int_equal(take(&s, 0, 4 * M, PAGE), 2 * PAGE);   /* small pages behind it: no reason to be straight */
        assert_int_equal(take(&s, 0, 2 * M, 2 * M), 6 * M);
        assert_int_equal(take(&s, 0, 2 * M, 1 * G), 8 * M);     /* shorter than the memory's page */
        assert_int_equal(take(&s, 0, 1 * G, 1 * G), 1 * G);
        assert_int_equal(take(&s, 0, 1 * G, 2 * M), 2 * G);
        /* an offset within a large page permits only small ones */
        assert_int_equal(place_at(&s, 0, 2 * M, 2 * M | PAGE, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(iova, 10 * M);
        used(&s, 10 * M, 2 * M + PAGE);
        assert_int_equal(place_at(&s, 0, 2 * M, 2 * M | PAGE, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(iova, 12 * M + PAGE);
        end(&s);
}

static void reserved_regions_are_never_handed_out(void **state) {
        struct stage s;

        (void)state;
        begin_x86(&s);
        used(&s, 0, 0xfe000000);
        assert_int_equal(take(&s, 0, 14 * M, PAGE), 0xfe000000);        /* up to the region's first byte */
        assert_int_equal(take(&s, 0, PAGE, PAGE), 0xfef00000);          /* and on behind it */
        assert_int_equal(take(&s, 0, 2 * M, 2 * M), 0xff000000);
        end(&s);
}

static void address_zero_is_the_last_choice(void **state) {
        struct stage s;

        (void)state;
        begin_x86(&s);
        window_set_remove(&s.set, s.set.of[0]);
        add(&s, 5, 0, 4 * M, 12);
        assert_int_equal(take(&s, 0, 2 * M, 2 * M), 2 * M);
        assert_int_equal(take(&s, 0, 2 * M, 2 * M), 0);         /* straight at 0 rather than crooked elsewhere */
        end(&s);
}

static void a_crooked_place_is_taken_when_no_straight_one_is_left(void **state) {
        struct stage s;

        (void)state;
        begin_x86(&s);
        window_set_remove(&s.set, s.set.of[0]);
        add(&s, 5, 0, 8 * M, 12);
        used(&s, 0, 1 * M);
        used(&s, 4 * M - PAGE, 4 * M + PAGE);
        assert_int_equal(take(&s, 0, 2 * M, 2 * M), 1 * M);
        end(&s);
}

static void a_named_window_is_the_only_one_that_is_asked(void **state) {
        struct refusal r;
        struct stage s;
        uint64_t id, iova;

        (void)state;
        begin_spapr(&s);
        assert_int_equal(place_at(&s, 1, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(id, 1);
        assert_int_equal(place_at(&s, 2, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(id, 2);
        assert_int_equal(place_at(&s, 3, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_UNKNOWN_WINDOW);
        assert_int_equal(place_at(&s, 2, PAGE, PAGE, 2 * M, &id, &iova, &r), REFUSAL_UNALIGNED);
        assert_int_equal(r.limit, 2 * M);
        assert_int_equal(place_at(&s, 2, 2 * M, 2 * M, PAGE, &id, &iova, &r), REFUSAL_MEMORY_PAGE_SIZE);
        assert_int_equal(place_at(&s, 1, 2 * G, 2 * G, PAGE, &id, &iova, &r), REFUSAL_LIMIT_EXCEEDED);
        assert_int_equal(r.asked, 2 * G);
        assert_int_equal(r.limit, 1 * G);
        assert_int_equal(r.conflict_last, 1 * G - 1);
        s.set.of[0]->state = LEDGER_ENDING;
        assert_int_equal(place_at(&s, 1, PAGE, PAGE, PAGE, &id, &iova, &r), REFUSAL_IN_PROGRESS);
        end(&s);
}

static void the_best_window_has_the_largest_pages_that_fit(void **state) {
        struct refusal r;
        struct stage s;
        uint64_t id, iova;

        (void)state;
        begin_spapr(&s);
        assert_int_equal(place_at(&s, 0, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(id, 2);
        assert_int_equal(iova, HIGH);
        assert_int_equal(place_at(&s, 0, 2 * M, 2 * M, PAGE, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(id, 1);
        assert_int_equal(place_at(&s, 0, PAGE, PAGE, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(id, 1);
        s.set.of[1]->state = LEDGER_ENDING;             /* passed over */
        assert_int_equal(place_at(&s, 0, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(id, 1);
        s.set.of[1]->state = LEDGER_LIVE;
        s.set.of[1]->quota = 1 * M;                     /* has no room by its own limit */
        assert_int_equal(place_at(&s, 0, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(id, 1);
        s.set.of[0]->quota = 1 * M;
        assert_int_equal(place_at(&s, 0, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_QUOTA_EXCEEDED);
        end(&s);
}

static void a_full_window_is_passed_over_and_no_room_at_all_is_said(void **state) {
        struct refusal r;
        struct stage s;
        uint64_t id, iova;

        (void)state;
        begin_spapr(&s);
        used(&s, HIGH, 4 * G);
        assert_int_equal(place_at(&s, 0, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(id, 1);
        used(&s, 0, 1 * G - PAGE);
        assert_int_equal(place_at(&s, 0, PAGE, PAGE, PAGE, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(iova, 1 * G - PAGE);
        /* that there is no room where it would do is said rather than why another would not do */
        assert_int_equal(place_at(&s, 0, 2 * PAGE, 2 * PAGE, PAGE, &id, &iova, &r), REFUSAL_LIMIT_EXCEEDED);
        assert_int_equal(place_at(&s, 1, 2 * PAGE, 2 * PAGE, PAGE, &id, &iova, &r), REFUSAL_LIMIT_EXCEEDED);
        assert_int_equal(r.nearest_below, PAGE);
        used(&s, 1 * G - PAGE, PAGE);
        assert_int_equal(place_at(&s, 1, PAGE, PAGE, PAGE, &id, &iova, &r), REFUSAL_LIMIT_EXCEEDED);
        assert_int_equal(r.nearest_below, 0);
        end(&s);
}

static void without_a_window_nothing_can_be_placed(void **state) {
        struct refusal r;
        struct stage s;
        uint64_t id, iova;

        (void)state;
        begin_x86(&s);
        window_set_remove(&s.set, s.set.of[0]);
        assert_int_equal(place_at(&s, 0, PAGE, PAGE, PAGE, &id, &iova, &r), REFUSAL_NO_WINDOW);
        end(&s);
}

static void a_placeless_window_is_not_used(void **state) {
        struct refusal r;
        struct stage s;
        uint64_t id, iova;

        (void)state;
        begin_spapr(&s);
        add(&s, 3, WINDOW_NOWHERE, 1 * G, 21)->state = LEDGER_INTENDED;
        assert_int_equal(place_at(&s, 0, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_NONE);
        assert_int_equal(id, 2);
        assert_int_equal(place_at(&s, 3, 2 * M, 2 * M, 2 * M, &id, &iova, &r), REFUSAL_IN_PROGRESS);
        end(&s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(aligned_for_the_largest_page_that_memory_and_size_permit),
                cmocka_unit_test(reserved_regions_are_never_handed_out),
                cmocka_unit_test(address_zero_is_the_last_choice),
                cmocka_unit_test(a_crooked_place_is_taken_when_no_straight_one_is_left),
                cmocka_unit_test(a_named_window_is_the_only_one_that_is_asked),
                cmocka_unit_test(the_best_window_has_the_largest_pages_that_fit),
                cmocka_unit_test(a_full_window_is_passed_over_and_no_room_at_all_is_said),
                cmocka_unit_test(without_a_window_nothing_can_be_placed),
                cmocka_unit_test(a_placeless_window_is_not_used),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
