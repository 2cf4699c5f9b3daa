/* SPDX-License-Identifier: Apache-2.0 */
/* link: brokenledger testlib sdk proto util */
/* A ledger that a newer program has written: this one says so, touches nothing, and what is mapped stays mapped. */
#include <stdio.h>

#include "fault/broken_ledger.h"

static void newer(const char *file) {
        struct broken b;
        char sql[64];
        int64_t version;

        broken_begin(&b);
        service_kill(b.s);
        version = ledger_number(b.s, file, "PRAGMA user_version");
        ledger_sql(b.s, file, "PRAGMA user_version = 99");
        broken_assert_no_start(&b, "it was written by a newer one");
        (void)snprintf(sql, sizeof sql, "PRAGMA user_version = %d", (int)version);
        ledger_sql(b.s, file, sql);
        broken_assert_restored(&b);
        broken_end(&b);
}

static void test_state(void **state) {
        (void)state;
        newer("state.db");
}

static void test_configuration(void **state) {
        (void)state;
        newer("config.db");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_state, harness_teardown),
                cmocka_unit_test_teardown(test_configuration, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
