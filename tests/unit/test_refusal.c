/* SPDX-License-Identifier: Apache-2.0 */
/* link: util */
/* A refusal: filled afresh each time, never without a terminated text; every reason has a name and a status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "util/cleanup.h"
#include "util/refusal.h"

static const enum refusal_reason all[] = {
#define X(name, number, status) REFUSAL_##name,
        REFUSAL_REASONS(X)
#undef X
};

static void a_refusal_keeps_nothing_of_the_one_before(void **state) {
        struct refusal r;

        (void)state;
        memset(&r, 0xff, sizeof r);
        assert_int_equal(refuse(&r, REFUSAL_OVERLAP, "%s %d", "text", 7), -1);
        assert_int_equal(r.reason, REFUSAL_OVERLAP);
        assert_int_equal(r.resource, RESOURCE_NONE);
        assert_int_equal(r.element, -1);
        assert_int_equal(r.errnum, 0);
        assert_int_equal(r.limit | r.used | r.asked | r.nearest_below | r.nearest_above, 0);
        assert_true(r.conflict_first > r.conflict_last);
        assert_string_equal(r.text, "text 7");
}

static void a_text_that_is_too_long_is_cut_and_terminated(void **state) {
        char text[2 * REFUSAL_TEXT_MAX];
        struct refusal r;

        (void)state;
        memset(text, 'x', sizeof text - 1);
        text[sizeof text - 1] = '\0';
        assert_int_equal(refuse(&r, REFUSAL_INTERNAL, "%s", text), -1);
        assert_int_equal(strlen(r.text), REFUSAL_TEXT_MAX - 1);
}

static void every_reason_has_a_name_of_its_own_and_a_status_of_grpc(void **state) {
        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
                int status = refusal_grpc_status(all[i]);

                assert_in_range(status, 1, 16);
                assert_int_not_equal(status, 2);        /* UNKNOWN is for what is none of ours */
                assert_string_not_equal(refusal_reason_name(all[i]), "UNSPECIFIED");
                for (size_t k = 0; k < i; k++) {
                        assert_int_not_equal(all[i], all[k]);
                        assert_string_not_equal(refusal_reason_name(all[i]), refusal_reason_name(all[k]));
                }
        }
}

static void what_is_no_reason_has_a_name_and_a_status_too(void **state) {
        (void)state;
        assert_string_equal(refusal_reason_name(REFUSAL_NONE), "UNSPECIFIED");
        assert_int_equal(refusal_grpc_status(REFUSAL_NONE), 0);
        for (int number = -1; number <= 10000; number += 10001) {
                assert_string_equal(refusal_reason_name((enum refusal_reason)number), "UNSPECIFIED");
                assert_int_equal(refusal_grpc_status((enum refusal_reason)number), 2);
        }
}

static void every_resource_has_a_name_of_its_own(void **state) {
        (void)state;
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                for (unsigned k = 0; k < i; k++)
                        assert_string_not_equal(resource_name(i), resource_name(k));
        assert_string_equal(resource_name(_RESOURCE_N), "none");
        assert_string_equal(resource_name((enum resource)-1), "none");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_refusal_keeps_nothing_of_the_one_before),
                cmocka_unit_test(a_text_that_is_too_long_is_cut_and_terminated),
                cmocka_unit_test(every_reason_has_a_name_of_its_own_and_a_status_of_grpc),
                cmocka_unit_test(what_is_no_reason_has_a_name_and_a_status_too),
                cmocka_unit_test(every_resource_has_a_name_of_its_own),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
