/* SPDX-License-Identifier: Apache-2.0 */
/* Linked into every test program: CMOCKA_TEST_FILTER=PATTERN runs the cases of that name (* and ?) and no others. cmocka 1.1 has
 * the filter, and does not ask the environment for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

__attribute__((constructor)) static void filter_cases(void) {
        const char *pattern = getenv("CMOCKA_TEST_FILTER");

        if (pattern && *pattern)
                cmocka_set_test_filter(pattern);
}
