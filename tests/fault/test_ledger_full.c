/* SPDX-License-Identifier: Apache-2.0 */
/* link: brokenledger testlib sdk proto util */
/* The disk under the ledger is full: new work is refused, DMA goes on, and it goes on by itself when there is space again. */
#include "fault/broken_ledger.h"

static void test_full(void **state) {
        (void)state;
        broken_passes(FAULT_FULL, FAULT_STATE, 0, "no space is left");
}

/* In the middle of a transaction: sqlite undoes it by itself. */
static void test_full_within_a_commit(void **state) {
        (void)state;
        broken_passes(FAULT_FULL, FAULT_STATE, 1, "no space is left");
}

static void test_both_files(void **state) {
        (void)state;
        broken_passes(FAULT_FULL, FAULT_BOTH, 0, "no space is left");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_full, harness_teardown),
                cmocka_unit_test_teardown(test_full_within_a_commit, harness_teardown),
                cmocka_unit_test_teardown(test_both_files, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
