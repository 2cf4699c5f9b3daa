/* SPDX-License-Identifier: Apache-2.0 */
/* `ledger check` finds every class of violation that it knows, says it in words, and finds nothing if all is well. */
/* link: db util */
#include "test_ledger_fixture.h"

#include "check.h"

/* A sound ledger: session 1 (domain 2, memory 3), session 4 (domain 5, memory 6), each with one mapping. */
static struct objects a, b;

static int make_sound(void **state) {
        struct ledger *l;

        if (make_directory(state) < 0)
                return -1;
        l = open_ledger();
        a = put_objects(l);
        b = put_objects(l);
        map_one(l, &a, 0x10000, 0x4000);
        map_one(l, &b, 0x10000, 0x4000);
        ledger_close(l);
        return a.session == 1 && a.memory == 3 && b.session == 4 && b.memory == 6 ? 0 : -1;
}

struct found {
        size_t n;
        struct ledger_violation at[16];
};

static void collect(const struct ledger_violation *v, void *arg) {
        struct found *f = arg;

        if (f->n < ARRAY_SIZE(f->at))
                f->at[f->n] = *v;
        f->n++;
}

static struct found check(void) {
        struct found f = { 0 };
        uint64_t rows = 0;

        OK(ledger_check_offline(dir, collect, &f, &rows, &r));
        assert_true(rows >= 8);
        return f;
}

static void expect(const struct found *f, const char *invariant, const char *words) {
        for (size_t i = 0; i < f->n && i < ARRAY_SIZE(f->at); i++)
                if (strcmp(f->at[i].invariant, invariant) == 0 && strstr(f->at[i].text, words))
                        return;
        for (size_t i = 0; i < f->n && i < ARRAY_SIZE(f->at); i++)
                print_message("found: %s: %s\n", f->at[i].invariant, f->at[i].text);
        fail_msg("not found: %s: %s", invariant, words);
}

/* seed is put in with nothing to stop it. only: it is the one violation. */
static void seeded(const char *file, const char *seed, bool only, const char *invariant, const char *words) {
        char sql[2048];
        struct found f;

        (void)snprintf(sql, sizeof sql, "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON; %s", seed);
        raw(file, sql);
        f = check();
        expect(&f, invariant, words);
        if (only)
                assert_int_equal(f.n, 1);
}

#define AT(address) "(" #address " + (-9223372036854775807 - 1))"       /* as stored */
/* Unsettled, of session 1. */
#define AN_OP(kind, object)                                                                                            \
        "INSERT INTO op VALUES (50, 1, " #object ", " #kind ", NULL, 0, 0, NULL, NULL, NULL, NULL); "
#define A_WINDOW(id, start, size)                                                                                      \
        "INSERT INTO window VALUES (" #id ", 2, " AT(start) ", " #size ", 12, 0, 0, 0, 0, 2); "
#define SEEDED(name, ...)                                                                                              \
        static void test_##name(void **state) {                                                                        \
                (void)state;                                                                                           \
                seeded(__VA_ARGS__);                                                                                   \
        }

SEEDED(mapping_overlap, "state.db",
       "INSERT INTO mapping VALUES (2, " AT(0x13fff) ", " AT(0x14fff) ", 3, 0, 3, 9, 0, 0); "
       "UPDATE memory SET mapped = 2 WHERE id = 3",
       true, "I2", "The mapping 0x13fff-0x14fff in domain 2 overlaps one that ends at 0x13fff")
SEEDED(nested_overlap, "state.db",
       "INSERT INTO mapping VALUES (2, " AT(0x11000) ", " AT(0x11fff) ", 3, 0, 3, 9, 0, 0), "
       "(2, " AT(0x13000) ", " AT(0x13fff) ", 3, 0, 3, 9, 0, 0); UPDATE memory SET mapped = 3 WHERE id = 3",
       false, "I2", "The mapping 0x13000-0x13fff in domain 2 overlaps one that ends at 0x13fff")
SEEDED(mapping_beyond_memory, "state.db", "UPDATE memory SET size = 16383 WHERE id = 3", true, "I2",
       "reaches beyond the 16383 bytes of memory 3")
SEEDED(mapping_writes_read_only, "state.db", "UPDATE memory SET writable = 0 WHERE id = 3", true, "I2",
       "lets a device write memory 3, which is read-only")
SEEDED(mapping_of_other_session, "state.db",
       "UPDATE mapping SET memory = 6 WHERE domain = 2; UPDATE memory SET mapped = (id = 6) * 2", true, "I2",
       "(session 1) shows memory 6 of session 4")
SEEDED(mapping_of_intended_memory, "state.db", "UPDATE memory SET state = 1 WHERE id = 3", true, "I2",
       "whose registration never ended")
SEEDED(mapping_outside_window, "state.db", A_WINDOW(60, 0x0, 4096), true, "I2",
       "The mapping 0x10000-0x13fff in domain 2 is not inside one of its windows")
SEEDED(mapping_before_window, "state.db", A_WINDOW(60, 0x10001, 65536), true, "I2",
       "The mapping 0x10000-0x13fff in domain 2 is not inside one of its windows")
SEEDED(mapping_beyond_window, "state.db", A_WINDOW(60, 0x10000, 8192), true, "I2",
       "The mapping 0x10000-0x13fff in domain 2 is not inside one of its windows")
SEEDED(mapping_across_windows, "state.db", A_WINDOW(60, 0x10000, 8192) A_WINDOW(61, 0x12000, 8192), true, "I2",
       "The mapping 0x10000-0x13fff in domain 2 is not inside one of its windows")
SEEDED(mapping_in_window_of_other_domain, "state.db",
       A_WINDOW(60, 0x0, 4096) "UPDATE window SET domain = 5, start = " AT(0x20000) "; " A_WINDOW(61, 0x10000, 16384),
       true, "I2", "The mapping 0x10000-0x13fff in domain 5 is not inside one of its windows")
SEEDED(window_overlap, "state.db", A_WINDOW(60, 0x10000, 65536) A_WINDOW(61, 0x1ffff, 4096), true, "I2",
       "In domain 2, window 60 (0x10000-0x1ffff) overlaps window 61 (0x1ffff-0x20ffe)")
SEEDED(window_overlaps_upper_half, "state.db", A_WINDOW(61, 0x0, -9223372036854775807 - 1)
       "INSERT INTO window VALUES (62, 2, -1, -9223372036854775807 - 1, 12, 0, 0, 0, 0, 2)", true, "I2",
       "window 61 (0x0-0x7fffffffffffffff) overlaps window 62 (0x7fffffffffffffff-0xfffffffffffffffe)")
SEEDED(window_overlaps_default, "state.db", A_WINDOW(60, 0x10000, 65536) A_WINDOW(61, 0x0, 0)
       "UPDATE window SET is_default = 1 WHERE id = 61", true, "I2",
       "window 60 (0x10000-0x1ffff) overlaps window 61 (0x0-0xffffffffffffffff)")
SEEDED(window_size, "state.db", A_WINDOW(60, 0x0, 131073), false, "I2",
       "Window 60 of domain 2 has 0x20001 bytes, which is no power of two")
SEEDED(window_size_beyond_2_63, "state.db", A_WINDOW(60, 0x0, -4096), false, "I2",
       "Window 60 of domain 2 has 0xfffffffffffff000 bytes, which is no power of two")
SEEDED(mapping_without_memory, "state.db", "UPDATE memory SET mapped = 0; DELETE FROM memory WHERE id = 3", false, "I3",
       "shows memory 3, which has no row")
SEEDED(memory_count, "state.db", "UPDATE memory SET mapped = 5 WHERE id = 3", true, "I3",
       "Memory 3 counts 5 mappings, 1 are there")
SEEDED(memory_count_of_nothing, "state.db", "DELETE FROM mapping WHERE domain = 2", true, "I3",
       "Memory 3 counts 1 mappings, 0 are there")
SEEDED(mapping_of_foreign_intent, "state.db",
       AN_OP(1, 5) "UPDATE mapping SET op = 50 WHERE domain = 2", true, "I6",
       "names operation 50, which is no map of that domain")
SEEDED(intent_without_domain, "state.db", AN_OP(7, 5), true, "I6",
       "Operation 50 of session 1 is unsettled, but domain 5 is not the session's")
SEEDED(lazy_intent_without_domain, "state.db", AN_OP(9, 5), true, "I6",
       "Operation 50 of session 1 is unsettled, but domain 5 is not the session's")
SEEDED(window_intent_without_domain, "state.db", AN_OP(11, 5) "UPDATE op SET ranges = x''", true, "I6",
       "Operation 50 of session 1 is unsettled, but domain 5 is not the session's")
SEEDED(window_number_not_reserved, "state.db", A_WINDOW(1000001, 0x0, 131072), true, "I6",
       "Window 1000001 has a number that was never handed out: the next block starts at 1000001")
SEEDED(window_without_domain, "state.db", A_WINDOW(60, 0x0, 131072) "UPDATE window SET domain = 99", true, "I6",
       "A row of window (60) refers to a domain that has no row")
SEEDED(number_not_reserved, "config.db", "UPDATE id_counter SET next = 6", false, "I6",
       "Memory 6 has a number that was never handed out: the next block starts at 6")
SEEDED(row_without_parent, "state.db", "INSERT INTO attachment VALUES (60, 99, 'edu0', 0, 0, 2)", true, "I6",
       "A row of attachment (60) refers to a domain that has no row")
SEEDED(mapping_without_domain, "state.db", "DELETE FROM domain WHERE id = 2", false, "I6",
       "A row of mapping (no rowid) refers to a domain that has no row")
SEEDED(config_row_without_parent, "config.db", "INSERT INTO tenant_rule VALUES ('ghost', 0, NULL, NULL, '')", true,
       "I6", "A row of tenant_rule (no rowid) refers to a tenant that has no row")
SEEDED(state_file, "state.db", "UPDATE mapping SET access = 9 WHERE domain = 2", true, "I6",
       "state.db: CHECK constraint failed in mapping")
SEEDED(mapping_wraps, "state.db", "UPDATE mapping SET last = iova - 1 WHERE domain = 2", true, "I6",
       "state.db: CHECK constraint failed in mapping")
SEEDED(config_file, "config.db", "UPDATE tenant SET own_socket = 7", true, "I6",
       "config.db: CHECK constraint failed in tenant")
SEEDED(device_in_two_domains, "state.db",
       "INSERT INTO attachment VALUES (60, 2, 'edu0', 1, 2, 2), (61, 5, 'edu0', 1, 2, 2)", true, "I7",
       "Device edu0 is attached to domain 2 and to domain 5")
SEEDED(group_in_two_domains, "state.db",
       "INSERT INTO attachment VALUES (60, 2, 'edu0', 1, 2, 2), (61, 5, 'edu1', 1, 2, 2)", true, "I7",
       "IOMMU group 1 is attached to domain 2 (edu0) and to domain 5 (edu1)")
SEEDED(holder_of_two_sessions, "state.db", "UPDATE session SET holder_pid = 77", true, "I7",
       "Holder process 77 serves session 1 and session 4")
SEEDED(token_of_two_sessions, "state.db",
       "UPDATE session SET token_hash = (SELECT token_hash FROM session WHERE id = 1)", true, "I8",
       "Session 1 and session 4 have the same token")

static void test_sound(void **state) {
        (void)state;
        assert_int_equal(check().n, 0);
}

/* Lowering a quota is allowed, and takes nothing away. */
static void test_quota_lowered_below_use(void **state) {
        (void)state;
        raw("config.db", "UPDATE tenant_quota SET amount = 1");
        assert_int_equal(check().n, 0);
}

/* Windows that meet, a mapping that fills one, intents that are about a window and not a domain. */
static void test_windows_in_order(void **state) {
        (void)state;
        raw("state.db", A_WINDOW(60, 0x10000, 16384) A_WINDOW(61, 0x14000, 16384) A_WINDOW(62, 0xc000, 16384)
            "INSERT INTO window VALUES (63, 2, 0, -9223372036854775807 - 1, 12, 0, 0, 0, 0, 2);"
            "INSERT INTO window VALUES (64, 5, " AT(0x10000) ", 16385, 12, 0, 0, 0, 1, 2);" AN_OP(10, 60));
        assert_int_equal(check().n, 0);
        raw("state.db", "DELETE FROM op; " AN_OP(11, 60) "DELETE FROM window WHERE id = 64; INSERT INTO window VALUES "
                        "(64, 5, -9223372036854775807 - 1, 0, 12, 0, 0, 0, 1, 2)");
        assert_int_equal(check().n, 0);
}

/* Two groups, two devices, an old attachment, unlimited quotas: nothing to complain about. */
static void test_lookalikes(void **state) {
        (void)state;
        raw("state.db", "INSERT INTO attachment VALUES (60, 2, 'edu0', 1, 2, 2), (61, 2, 'edu1', 1, 2, 2), "
                        "(62, 5, 'edu2', 2, 2, 2), (63, 5, 'edu0', 1, 2, 3), (64, 5, 'x', 1, 1, 2);"
                        "UPDATE session SET token_hash = zeroblob(32), holder_pid = 0");
        assert_int_equal(check().n, 0);
}

/* The two that are not a query: intents whose recorded ranges and rows do not fit. */
static void test_intent_without_mapping(void **state) {
        const struct ledger_range ranges[] = { { 0x10000, 0x4000 }, { 0x20000, 0x1000 }, { 0x10000, 0x1000 } };
        struct ledger *l = open_ledger();
        struct ledger_op unmap = an_op(l, &a, LEDGER_OP_UNMAP), map = an_op(l, &b, LEDGER_OP_MAP);
        struct ledger_mapping m = a_mapping(&b, 0x8000, 0x1000);
        struct found f;

        (void)state;
        OK(ledger_begin(l, &r));
        OK(ledger_unmap_intend(l, &unmap, ranges, 3, NULL, 0, &r));
        OK(ledger_map_intend(l, &map, &m, 1, &r));
        OK(ledger_commit(l, &r));
        ledger_close(l);
        f = check();
        expect(&f, "I6", "is to unmap 0x20000-0x20fff in domain 2, but there is no such mapping");
        expect(&f, "I6", "is to unmap 0x10000-0x10fff in domain 2, but there is no such mapping");
        assert_int_equal(f.n, 2);
        raw("state.db", "UPDATE mapping SET op = 1 WHERE op IN (SELECT id FROM op)");
        f = check();
        expect(&f, "I6", "is to map 0x8000-0x8fff in domain 5, but there is no such mapping");
        assert_int_equal(f.n, 3);
}

static void test_online_sees_a_snapshot(void **state) {
        struct ledger *l = open_ledger();
        struct ledger_op op = an_op(l, &a, LEDGER_OP_MAP);
        struct ledger_mapping m = a_mapping(&a, 0x8000, 0x1000);
        uint64_t before = 0, during = 0;
        size_t n = 0;

        (void)state;
        OK(ledger_check(l, print_violation, &n, &before, &r));
        OK(ledger_begin(l, &r));
        OK(ledger_map_intend(l, &op, &m, 1, &r));
        OK(ledger_check(l, print_violation, &n, &during, &r));  /* not stopped by the transaction, and blind to it */
        OK(ledger_commit(l, &r));
        assert_int_equal(before, during);
        OK(ledger_check(l, print_violation, &n, &during, &r));
        assert_int_equal(during, before + 2);
        assert_int_equal(n, 0);
        ledger_close(l);
}

static void repair(const struct ledger_violation *v, void *arg) {
        if (strcmp(v->invariant, "I2") == 0)
                raw("state.db", "UPDATE memory SET mapped = 1");
        collect(v, arg);
}

/* What is repaired while the check runs is still reported: all queries see the moment at which it began. */
static void test_one_snapshot_for_all_queries(void **state) {
        struct ledger *l;
        struct found f = { 0 };
        uint64_t rows;

        (void)state;
        raw("state.db", "UPDATE memory SET writable = 0, mapped = 5 WHERE id = 3");
        l = open_ledger();
        OK(ledger_check(l, repair, &f, &rows, &r));
        ledger_close(l);
        expect(&f, "I2", "read-only");
        expect(&f, "I3", "Memory 3 counts 5 mappings, 1 are there");
        assert_int_equal(check().n, 1);
}

static void test_old_schema_offline(void **state) {
        struct found f = { 0 };
        uint64_t rows;

        (void)state;
        raw("state.db", "PRAGMA user_version = 0");
        REFUSED(ledger_check_offline(dir, collect, &f, &rows, &r), REFUSAL_LEDGER_UNAVAILABLE, "schema version 0");
}

static void test_many_violations_end(void **state) {
        (void)state;
        raw("state.db",
            "WITH RECURSIVE i (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM i WHERE n < 5000) INSERT INTO mapping "
            "SELECT 2, n, n + 1, 3, 0, 3, 9, 0, 0 FROM i; UPDATE memory SET mapped = 5002 WHERE id = 3");
        assert_int_equal(check().n, 1000);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(test_##f, make_sound, remove_directory)
        const struct CMUnitTest tests[] = {
                TEST(sound),
                TEST(lookalikes),
                TEST(windows_in_order),
                TEST(quota_lowered_below_use),
                TEST(mapping_overlap),
                TEST(nested_overlap),
                TEST(mapping_beyond_memory),
                TEST(mapping_writes_read_only),
                TEST(mapping_of_other_session),
                TEST(mapping_of_intended_memory),
                TEST(mapping_outside_window),
                TEST(mapping_before_window),
                TEST(mapping_beyond_window),
                TEST(mapping_across_windows),
                TEST(mapping_in_window_of_other_domain),
                TEST(window_overlap),
                TEST(window_overlaps_upper_half),
                TEST(window_overlaps_default),
                TEST(window_size),
                TEST(window_size_beyond_2_63),
                TEST(mapping_without_memory),
                TEST(memory_count),
                TEST(memory_count_of_nothing),
                TEST(mapping_of_foreign_intent),
                TEST(intent_without_domain),
                TEST(lazy_intent_without_domain),
                TEST(window_intent_without_domain),
                TEST(window_number_not_reserved),
                TEST(window_without_domain),
                TEST(number_not_reserved),
                TEST(row_without_parent),
                TEST(mapping_without_domain),
                TEST(config_row_without_parent),
                TEST(state_file),
                TEST(mapping_wraps),
                TEST(config_file),
                TEST(device_in_two_domains),
                TEST(group_in_two_domains),
                TEST(holder_of_two_sessions),
                TEST(token_of_two_sessions),
                TEST(intent_without_mapping),
                TEST(online_sees_a_snapshot),
                TEST(one_snapshot_for_all_queries),
                TEST(old_schema_offline),
                TEST(many_violations_end),
        };
        size_t n;

        (void)check_queries(&n);
        print_message("%zu queries\n", n);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
