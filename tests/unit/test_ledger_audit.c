/* SPDX-License-Identifier: Apache-2.0 */
/* The audit trail loses nothing on a clean close, is bounded in memory and on disk, and says where it has a hole. */
/* link: db util */
#include "test_ledger_fixture.h"

#include <time.h>

static void test_nothing_is_lost_on_close(void **state) {
        struct ledger *l = open_ledger();

        (void)state;
        for (uint32_t i = 0; i < 3000; i++)
                ledger_audit(l, "session.refused", i % 2 ? "acme" : NULL, 1000 + i, i, "why \"it\" was refused; é");
        ledger_close(l);
        assert_int_equal(raw_number("config.db",
                                    "SELECT count(*) FROM audit WHERE event = 'session.refused' AND pid + 1000 = "
                                    "uid AND text = 'why \"it\" was refused; é'"),
                         3000);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit WHERE tenant = 'acme'"), 1500);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit WHERE tenant IS NULL"), 1500);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit a JOIN audit b ON b.id = a.id + 1 "
                                                 "WHERE b.time_ns < a.time_ns OR b.pid <> a.pid + 1"), 0);
}

static void test_flush(void **state) {
        struct ledger *l = open_ledger();

        (void)state;
        ledger_audit(l, "a", NULL, 1, 2, "x");
        OK(ledger_audit_flush(l, &r));
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit"), 1);
        OK(ledger_audit_flush(l, &r));
        ledger_close(l);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit"), 1);
}

static void test_written_without_being_asked(void **state) {
        struct ledger *l = open_ledger();

        (void)state;
        ledger_audit(l, "a", NULL, 1, 2, "x");
        for (int i = 0; i < 200 && raw_number("config.db", "SELECT count(*) FROM audit") == 0; i++)
                nanosleep(&(struct timespec){ 0, 50000000 }, NULL);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit"), 1);
        ledger_close(l);
}

/* The writer is kept out, so that the buffer must overflow; nobody waits for it. */
static void test_overflow_is_bounded_and_said(void **state) {
        struct ledger *l = open_ledger();
        struct timespec begin, end;
        sqlite3 *db;

        (void)state;
        assert_int_equal(sqlite3_open(in_dir("config.db"), &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
        clock_gettime(CLOCK_MONOTONIC, &begin);
        for (uint32_t i = 0; i < 10000; i++)
                ledger_audit(l, "flood", NULL, 0, i, "x");
        clock_gettime(CLOCK_MONOTONIC, &end);
        assert_true(end.tv_sec - begin.tv_sec < 2);
        sqlite3_close(db);
        ledger_close(l);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit WHERE event = 'flood'"), 4096);
        assert_int_equal(raw_number("config.db", "SELECT max(pid) FROM audit WHERE event = 'flood'"), 4095);
        /* said in one line or more: a flush may have begun in the middle of the flood */
        assert_int_equal(raw_number("config.db",
                                    "SELECT sum(CAST(text AS INTEGER)) FROM audit WHERE event = 'audit.dropped'"), 5904);
}

static void test_failed_flush_keeps_the_lines(void **state) {
        struct ledger *l = open_ledger();

        (void)state;
        raw("config.db", "CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk on fire'); END");
        ledger_audit(l, "a", NULL, 1, 2, "x");
        REFUSED(ledger_audit_flush(l, &r), REFUSAL_LEDGER_UNAVAILABLE, "disk on fire");
        raw("config.db", "DROP TRIGGER no");
        ledger_close(l);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit"), 1);
}

static void test_newest_are_kept(void **state) {
        struct ledger *l;

        (void)state;
        ledger_close(open_ledger());
        raw("config.db", "WITH RECURSIVE i (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < 100000) "
                         "INSERT INTO audit SELECT n, n, 'old', NULL, 0, n, '' FROM i");
        l = open_ledger();
        for (uint32_t i = 0; i < 10; i++)
                ledger_audit(l, "new", NULL, 0, i, "");
        ledger_close(l);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit"), LEDGER_AUDIT_MAX);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit WHERE event = 'new'"), 10);
        assert_int_equal(raw_number("config.db", "SELECT min(id) FROM audit"), 11);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_directory, remove_directory)
        const struct CMUnitTest tests[] = {
                TEST(test_nothing_is_lost_on_close),
                TEST(test_flush),
                TEST(test_written_without_being_asked),
                TEST(test_overflow_is_bounded_and_said),
                TEST(test_failed_flush_keeps_the_lines),
                TEST(test_newest_are_kept),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
