/* SPDX-License-Identifier: Apache-2.0 */
/* link: brokenledger testlib sdk proto util */
/* The file system under the ledger is remounted read-only, as file systems do when they find themselves damaged. */
#include "fault/broken_ledger.h"

static void test_read_only(void **state) {
        (void)state;
        broken_passes(FAULT_READ_ONLY, FAULT_BOTH, 0, "Read-only file system");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_read_only, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
