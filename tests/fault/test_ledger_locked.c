/* SPDX-License-Identifier: Apache-2.0 */
/* link: brokenledger testlib sdk proto util */
/* Another process has the ledger locked for writing. */
#include <sqlite3.h>
#include <stdio.h>
#include <unistd.h>

#include "fault/broken_ledger.h"

static void test_locked(void **state) {
        (void)state;
        broken_passes(FAULT_LOCKED, FAULT_STATE, 0, "has locked it for writing");
}

static sqlite3 *lock(const struct service *s) {
        char path[128];
        sqlite3 *db;

        (void)snprintf(path, sizeof path, "%s/state.db", s->state);
        assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
        (void)sqlite3_busy_timeout(db, 5000);
        assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
        return db;
}

/* For real, by us: the refusal says who it is, and comes soon. */
static void test_it_is_said_by_whom(void **state) {
        struct broken b;
        char words[64];
        uint64_t began;
        sqlite3 *db;

        (void)state;
        broken_begin(&b);
        db = lock(b.s);
        (void)snprintf(words, sizeof words, "process %d has locked it", (int)getpid());
        broken_assert_refused(&b, words);
        began = harness_ms();
        assert_int_equal(raw_unmap_all(&b.c, NULL, b.domain), IOMMUD_REASON_LEDGER_UNAVAILABLE);
        assert_true(harness_ms() - began < 4000);
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
        broken_assert_works(&b);
        broken_end(&b);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_locked, harness_teardown),
                cmocka_unit_test_teardown(test_it_is_said_by_whom, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
