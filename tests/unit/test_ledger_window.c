/* SPDX-License-Identifier: Apache-2.0 */
/* Windows and lazy domains: round trips, what the schema refuses, what goes with what. */
/* link: db util */
#include "test_ledger_fixture.h"

#define TOP (UINT64_C(1) << 63)

static struct ledger *l;
static struct objects o;

static int open_one(void **state) {
        if (make_directory(state) < 0)
                return -1;
        l = open_ledger();
        o = put_objects(l);
        return 0;
}

static int close_one(void **state) {
        l = ledger_close(l);
        return remove_directory(state);
}

struct windows {
        size_t n;
        struct ledger_window at[4];
};

static int collect_window(const struct ledger_window *w, void *arg) {
        struct windows *all = arg;

        assert_true(all->n < ARRAY_SIZE(all->at));
        all->at[all->n++] = *w;
        return 0;
}

static struct windows load_windows(uint64_t domain) {
        struct windows all = { 0 };

        OK(ledger_windows(l, domain, collect_window, &all, &r));
        return all;
}

static void put(const struct ledger_window *w) {
        OK(ledger_begin(l, &r));
        OK(ledger_window_put(l, w, &r));
        OK(ledger_commit(l, &r));
}

static void same_window(const struct ledger_window *a, const struct ledger_window *b) {
        assert_int_equal(a->id, b->id);
        assert_int_equal(a->domain, b->domain);
        assert_int_equal(a->start, b->start);
        assert_int_equal(a->size, b->size);
        assert_int_equal(a->quota, b->quota);
        assert_int_equal(a->table_bytes, b->table_bytes);
        assert_int_equal(a->page_shift, b->page_shift);
        assert_int_equal(a->levels, b->levels);
        assert_int_equal(a->is_default, b->is_default);
        assert_int_equal(a->state, b->state);
}

static void test_round_trip_at_limits(void **state) {
        struct ledger_window w[] = {
                { .id = 100, .domain = o.domain, .page_shift = 12, .is_default = true, .state = LEDGER_INTENDED },
                { .id = 101, .domain = o.domain, .start = TOP, .size = TOP, .quota = UINT64_MAX,
                  .table_bytes = UINT64_MAX, .page_shift = 63, .levels = UINT32_MAX, .state = LEDGER_QUARANTINED },
                { .id = INT64_MAX, .domain = o.domain, .start = UINT64_MAX, .size = 1, .quota = 1, .table_bytes = TOP,
                  .page_shift = 16, .levels = 5, .state = LEDGER_ENDING },
        };
        struct windows all;

        (void)state;
        for (size_t i = ARRAY_SIZE(w); i-- > 0;)
                put(&w[i]);
        ledger_close(l);
        l = open_ledger();
        all = load_windows(o.domain);
        assert_int_equal(all.n, ARRAY_SIZE(w));
        for (size_t i = 0; i < ARRAY_SIZE(w); i++)
                same_window(&all.at[i], &w[i]);
}

static void test_put_again_replaces(void **state) {
        struct ledger_window w = a_window(100, &o, 0, 0x10000), other = a_window(101, &o, 0x10000, 0x10000);
        struct windows all;

        (void)state;
        put(&w);
        put(&other);
        w = a_window(100, &o, TOP, TOP / 2);
        w.is_default = true;
        w.quota = 3;
        w.table_bytes = 4;
        w.levels = 2;
        w.page_shift = 21;
        w.state = LEDGER_ENDING;
        put(&w);
        all = load_windows(o.domain);
        assert_int_equal(all.n, 2);
        same_window(&all.at[0], &w);
        same_window(&all.at[1], &other);
}

static void test_delete_and_cascade(void **state) {
        struct objects elsewhere = put_objects(l);
        struct ledger_window a = a_window(100, &o, 0, 0x10000), b = a_window(101, &o, 0x10000, 0x10000),
                             c = a_window(102, &elsewhere, 0, 0x10000);

        (void)state;
        put(&a);
        put(&b);
        put(&c);
        OK(ledger_begin(l, &r));
        OK(ledger_window_delete(l, 100, &r));
        OK(ledger_window_delete(l, 100, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_windows(o.domain).n, 1);
        assert_int_equal(load_windows(o.domain).at[0].id, 101);
        OK(ledger_begin(l, &r));
        OK(ledger_domain_delete(l, o.domain, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_windows(o.domain).n, 0);
        assert_int_equal(load_windows(elsewhere.domain).n, 1);
        OK(ledger_begin(l, &r));
        OK(ledger_session_delete(l, elsewhere.session, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM window"), 0);
        put_objects(l);
}

static void test_reset_forgets_them(void **state) {
        struct ledger_window w = a_window(100, &o, 0, 0x10000);

        (void)state;
        put(&w);
        OK(ledger_state_reset(l, &r));
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM window"), 0);
}

static void accepted(uint64_t start, uint64_t size, bool is_default) {
        struct ledger_window w = a_window(200, &o, start, size);

        w.is_default = is_default;
        put(&w);
        assert_int_equal(load_windows(o.domain).at[0].start, start);
        assert_int_equal(load_windows(o.domain).at[0].size, size);
        assert_int_equal(count_violations(l), 0);
}

static void refused(uint64_t start, uint64_t size, bool is_default, const char *words) {
        struct ledger_window w = a_window(201, &o, start, size);

        w.is_default = is_default;
        OK(ledger_begin(l, &r));
        REFUSED(ledger_window_put(l, &w, &r), REFUSAL_LEDGER_UNAVAILABLE, words);
        ledger_rollback(l);
}

static void test_sizes(void **state) {
        (void)state;
        for (unsigned n = 0; n < 64; n++)
                accepted(0, UINT64_C(1) << n, false);
        accepted(0, 0, false);
        accepted(0x1000, 3, true);
        accepted(0, TOP + 1, true);
        accepted(0, UINT64_MAX, true);
        for (unsigned n = 2; n < 64; n++) {
                refused(0, (UINT64_C(1) << n) - 1, false, "window_size_power_of_two");
                refused(0, (UINT64_C(1) << n) + 1, false, "window_size_power_of_two");
        }
        refused(0, UINT64_MAX, false, "window_size_power_of_two");
}

/* 2^64 is the end, and may be reached. */
static void test_ends(void **state) {
        (void)state;
        accepted(UINT64_MAX, 1, false);
        accepted(UINT64_MAX - 0xfff, 0x1000, false);
        accepted(TOP, TOP, false);
        accepted(TOP / 2, TOP, false);
        accepted(0, TOP, false);
        accepted(TOP - 1, TOP + 1, true);
        accepted(1, UINT64_MAX, true);
        refused(UINT64_MAX, 2, false, "window_does_not_wrap");
        refused(UINT64_MAX - 0xffe, 0x1000, false, "window_does_not_wrap");
        refused(TOP + 1, TOP, false, "window_does_not_wrap");
        refused(TOP, TOP + 1, true, "window_does_not_wrap");
        refused(2, UINT64_MAX, true, "window_does_not_wrap");
        refused(1, 0, true, "window_does_not_wrap");
        refused(TOP, 0, true, "window_does_not_wrap");
        refused(UINT64_MAX, 0, true, "window_does_not_wrap");
}

static void test_constraints(void **state) {
        struct ledger_window w = a_window(200, &o, 0, 0x1000);

        (void)state;
        OK(ledger_begin(l, &r));
        w.page_shift = 11;
        REFUSED(ledger_window_put(l, &w, &r), REFUSAL_LEDGER_UNAVAILABLE, "window_page_shift_12_to_63");
        w.page_shift = 64;
        REFUSED(ledger_window_put(l, &w, &r), REFUSAL_LEDGER_UNAVAILABLE, "window_page_shift_12_to_63");
        w = a_window(200, &o, 0, 0x1000);
        w.domain = 99999;
        REFUSED(ledger_window_put(l, &w, &r), REFUSAL_LEDGER_UNAVAILABLE, "FOREIGN KEY");
        w = a_window(0, &o, 0, 0x1000);
        REFUSED(ledger_window_put(l, &w, &r), REFUSAL_LEDGER_UNAVAILABLE, "id > 0");
        w = a_window(200, &o, 0, 0x1000);
        w.state = 5;
        REFUSED(ledger_window_put(l, &w, &r), REFUSAL_LEDGER_UNAVAILABLE, "state BETWEEN 1 AND 4");
        ledger_rollback(l);
        w = a_window(200, &o, 0, 0x1000);
        REFUSED(ledger_window_put(l, &w, &r), REFUSAL_LEDGER_UNAVAILABLE, "No transaction");
        REFUSED(ledger_window_delete(l, 200, &r), REFUSAL_LEDGER_UNAVAILABLE, "No transaction");
}

static int collect_lazy(const struct ledger_domain *d, void *arg) {
        unsigned *lazy = arg;

        *lazy = *lazy * 2 + d->lazy;
        return 0;
}

static void test_lazy_domains(void **state) {
        struct ledger_domain d = { .id = 300, .session = o.session, .state = LEDGER_LIVE, .lazy = true };
        unsigned lazy = 1;

        (void)state;
        OK(ledger_begin(l, &r));
        OK(ledger_domain_put(l, &d, &r));
        d.id = 301;
        OK(ledger_domain_put(l, &d, &r));
        d.lazy = false;
        OK(ledger_domain_put(l, &d, &r));
        OK(ledger_commit(l, &r));
        ledger_close(l);
        l = open_ledger();
        OK(ledger_domains(l, o.session, collect_lazy, &lazy, &r));
        assert_int_equal(lazy, 0xa);            /* 1, then not, lazy, not */
}

/* ---- what made the kernel allocate tables ---- */

static int count_touched(struct iova_range range, void *arg) {
        struct iova_range *last = arg;

        *last = range;
        return range.first > range.last;
}

static void touch(uint64_t domain, uint64_t first, uint64_t last) {
        OK(ledger_begin(l, &r));
        OK(ledger_touched_put(l, domain, (struct iova_range){ first, last }, &r));
        OK(ledger_commit(l, &r));
}

/* Of each range once, up to the last address; gone with its domain. */
static void test_touched(void **state) {
        struct iova_range last = { 0 };

        (void)state;
        touch(o.domain, UINT64_MAX - 4095, UINT64_MAX);
        touch(o.domain, 0, 4095);
        touch(o.domain, 0, 4095);
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM touched"), 2);
        OK(ledger_touched(l, o.domain, count_touched, &last, &r));
        assert_int_equal(last.first, UINT64_MAX - 4095);
        assert_int_equal(last.last, UINT64_MAX);
        OK(ledger_begin(l, &r));
        OK(ledger_domain_delete(l, o.domain, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM touched"), 0);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_one, close_one)
        const struct CMUnitTest tests[] = {
                TEST(test_round_trip_at_limits),
                TEST(test_put_again_replaces),
                TEST(test_delete_and_cascade),
                TEST(test_reset_forgets_them),
                TEST(test_sizes),
                TEST(test_ends),
                TEST(test_constraints),
                TEST(test_lazy_domains),
                TEST(test_touched),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
