/* SPDX-License-Identifier: Apache-2.0 */
/* link: brokenledger testlib sdk proto util */
/* A migration that fails leaves the ledger as it was, and what is mapped stays mapped (more: unit/test_ledger_migrate). */
#include <stdio.h>
#include <unistd.h>

#include "fault/broken_ledger.h"

/* Said to have no tables yet: the first step finds them in its way. */
static void test_a_step_fails(void **state) {
        struct broken b;
        char sql[64], path[128];
        int64_t version;

        (void)state;
        broken_begin(&b);
        service_kill(b.s);
        version = ledger_number(b.s, "state.db", "PRAGMA user_version");
        ledger_sql(b.s, "state.db", "PRAGMA user_version = 0");
        broken_assert_no_start(&b, "failed, state.db is as it was");
        (void)snprintf(path, sizeof path, "%s/state.db.new", b.s->state);
        assert_int_equal(access(path, F_OK), -1);
        (void)snprintf(sql, sizeof sql, "PRAGMA user_version = %d", (int)version);
        ledger_sql(b.s, "state.db", sql);
        broken_assert_restored(&b);
        broken_end(&b);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_a_step_fails, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
