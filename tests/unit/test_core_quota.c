/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker util */
/* A tenant's balances (I1): the exact edge from both sides, all resources or none, the wrap-around, and what is given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "core/quota.h"
#include "util/cleanup.h"

#define NONE UINT64_MAX         /* no limit */

/* An account whose limits are all NONE but one. */
static void account(struct quota_account *a, enum resource what, uint64_t limit) {
        uint64_t limits[_RESOURCE_N];

        for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
                limits[i] = NONE;
        limits[what] = limit;
        quota_account_init(a, "alpha");
        quota_account_set_limits(a, limits);
}

static struct quota_amounts only(enum resource what, uint64_t n) {
        struct quota_amounts amounts = { 0 };

        amounts.of[what] = n;
        return amounts;
}

static uint64_t used(struct quota_account *a, enum resource what) {
        uint64_t limit[_RESOURCE_N], have[_RESOURCE_N];

        quota_account_read(a, limit, have);
        return have[what];
}

static int charge(struct quota_account *a, enum resource what, uint64_t n) {
        const struct quota_amounts amounts = only(what, n);
        struct refusal r;

        return quota_charge(a, &amounts, &r);
}

static void refund(struct quota_account *a, enum resource what, uint64_t n) {
        const struct quota_amounts amounts = only(what, n);

        quota_refund(a, &amounts);
}

static void every_resource_is_charged_up_to_its_limit_and_not_beyond(void **state) {
        (void)state;
        for (unsigned what = 1; what < _RESOURCE_N; what++) {
                struct quota_account a;

                account(&a, what, 100);
                assert_int_equal(charge(&a, what, 101), -1);
                assert_int_equal(used(&a, what), 0);
                assert_int_equal(charge(&a, what, 99), 0);
                assert_int_equal(charge(&a, what, 2), -1);
                assert_int_equal(used(&a, what), 99);
                assert_int_equal(charge(&a, what, 1), 0);
                assert_int_equal(used(&a, what), 100);
                assert_int_equal(charge(&a, what, 1), -1);
                assert_int_equal(used(&a, what), 100);
                refund(&a, what, 100);
                quota_account_clear(&a);
        }
}

static void a_limit_of_zero_refuses_the_first_one(void **state) {
        struct quota_account a;

        (void)state;
        account(&a, RESOURCE_DEVICES, 0);
        assert_int_equal(charge(&a, RESOURCE_DEVICES, 1), -1);
        assert_int_equal(charge(&a, RESOURCE_DEVICES, 0), 0);
        assert_int_equal(charge(&a, RESOURCE_DOMAINS, 1), 0);
}

static void a_refusal_names_resource_limit_use_and_what_was_asked(void **state) {
        const struct quota_amounts asked = { .of[RESOURCE_MAPPINGS] = 3, .of[RESOURCE_LOCKED_BYTES] = 8192 };
        struct quota_account a;
        struct refusal r;

        (void)state;
        account(&a, RESOURCE_LOCKED_BYTES, 12288);
        assert_int_equal(charge(&a, RESOURCE_LOCKED_BYTES, 4097), 0);
        assert_int_equal(quota_charge(&a, &asked, &r), -1);
        assert_int_equal(r.reason, REFUSAL_QUOTA_EXCEEDED);
        assert_int_equal(r.resource, RESOURCE_LOCKED_BYTES);
        assert_int_equal(r.limit, 12288);
        assert_int_equal(r.used, 4097);
        assert_int_equal(r.asked, 8192);
        assert_non_null(strstr(r.text, "alpha"));
        assert_non_null(strstr(r.text, "locked-bytes"));
}

static void several_resources_are_charged_together_or_not_at_all(void **state) {
        struct quota_amounts all = { 0 };
        struct quota_account a;
        struct refusal r;

        (void)state;
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                all.of[i] = 10 + i;
        /* the last one in the order does not fit: those before it must not have been taken */
        account(&a, _RESOURCE_N - 1, all.of[_RESOURCE_N - 1] - 1);
        assert_int_equal(quota_charge(&a, &all, &r), -1);
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                assert_int_equal(used(&a, i), 0);
        account(&a, _RESOURCE_N - 1, all.of[_RESOURCE_N - 1]);
        assert_int_equal(quota_charge(&a, &all, &r), 0);
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                assert_int_equal(used(&a, i), all.of[i]);
        quota_refund(&a, &all);
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                assert_int_equal(used(&a, i), 0);
}

static void the_count_of_an_unlimited_resource_does_not_wrap(void **state) {
        struct quota_account a;

        (void)state;
        account(&a, RESOURCE_MAPPINGS, NONE);
        assert_int_equal(charge(&a, RESOURCE_MAPPINGS, UINT64_MAX - 1), 0);
        assert_int_equal(charge(&a, RESOURCE_MAPPINGS, 2), -1);
        assert_int_equal(used(&a, RESOURCE_MAPPINGS), UINT64_MAX - 1);
        assert_int_equal(charge(&a, RESOURCE_MAPPINGS, 1), 0);
        assert_int_equal(charge(&a, RESOURCE_MAPPINGS, 1), -1);
        assert_int_equal(used(&a, RESOURCE_MAPPINGS), UINT64_MAX);
}

static void a_sum_that_wraps_to_something_small_is_refused(void **state) {
        struct quota_account a;

        (void)state;
        account(&a, RESOURCE_LOCKED_BYTES, 1 << 20);
        assert_int_equal(charge(&a, RESOURCE_LOCKED_BYTES, 4096), 0);
        assert_int_equal(charge(&a, RESOURCE_LOCKED_BYTES, UINT64_MAX - 4095), -1);
        assert_int_equal(charge(&a, RESOURCE_LOCKED_BYTES, UINT64_MAX), -1);
        assert_int_equal(used(&a, RESOURCE_LOCKED_BYTES), 4096);
}

static void a_lowered_limit_tears_nothing_down_and_refuses_more(void **state) {
        uint64_t limits[_RESOURCE_N];
        struct quota_account a;

        (void)state;
        account(&a, RESOURCE_DOMAINS, 10);
        assert_int_equal(charge(&a, RESOURCE_DOMAINS, 8), 0);
        for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
                limits[i] = NONE;
        limits[RESOURCE_DOMAINS] = 4;
        quota_account_set_limits(&a, limits);
        assert_int_equal(used(&a, RESOURCE_DOMAINS), 8);
        assert_int_equal(charge(&a, RESOURCE_DOMAINS, 1), -1);
        /* what asks for nothing of it goes on */
        assert_int_equal(charge(&a, RESOURCE_MAPPINGS, 1), 0);
        refund(&a, RESOURCE_DOMAINS, 5);
        assert_int_equal(charge(&a, RESOURCE_DOMAINS, 1), 0);
        assert_int_equal(charge(&a, RESOURCE_DOMAINS, 1), -1);
}

static void a_refund_makes_room_for_as_much(void **state) {
        struct quota_account a;

        (void)state;
        account(&a, RESOURCE_SESSIONS, 3);
        assert_int_equal(charge(&a, RESOURCE_SESSIONS, 3), 0);
        refund(&a, RESOURCE_SESSIONS, 2);
        assert_int_equal(used(&a, RESOURCE_SESSIONS), 1);
        assert_int_equal(charge(&a, RESOURCE_SESSIONS, 3), -1);
        assert_int_equal(charge(&a, RESOURCE_SESSIONS, 2), 0);
}

static void a_refund_beyond_the_balance_leaves_zero(void **state) {
        struct quota_account a;

        (void)state;
        account(&a, RESOURCE_SESSIONS, 3);
        assert_int_equal(charge(&a, RESOURCE_SESSIONS, 1), 0);
        assert_int_equal(charge(&a, RESOURCE_DOMAINS, 5), 0);
        refund(&a, RESOURCE_SESSIONS, 2);
        assert_int_equal(used(&a, RESOURCE_SESSIONS), 0);
        assert_int_equal(used(&a, RESOURCE_DOMAINS), 5);
}

static void recovery_takes_over_what_exists_whatever_the_limit(void **state) {
        const struct quota_amounts nine = { .of[RESOURCE_MAPPINGS] = 9, .of[RESOURCE_DOMAINS] = 1 };
        const struct quota_amounts top = { .of[RESOURCE_DOMAINS] = 1, .of[RESOURCE_MAPPINGS] = UINT64_MAX - 8 };
        struct quota_account a;

        (void)state;
        account(&a, RESOURCE_MAPPINGS, 4);
        assert_true(quota_adopt(&a, &nine));
        assert_int_equal(used(&a, RESOURCE_MAPPINGS), 9);
        assert_int_equal(charge(&a, RESOURCE_MAPPINGS, 1), -1);
        assert_false(quota_adopt(&a, &top));
        assert_int_equal(used(&a, RESOURCE_MAPPINGS), 9);
        assert_int_equal(used(&a, RESOURCE_DOMAINS), 1);
}

static void two_tenants(struct quota_account *host, struct quota_account t[2], uint64_t limit) {
        account(host, RESOURCE_LOCKED_BYTES, limit);
        host->tenant = NULL;
        for (unsigned i = 0; i < 2; i++) {
                account(&t[i], RESOURCE_LOCKED_BYTES, 100);
                t[i].host = host;
        }
}

static void the_host_refuses_what_quotas_promised_too_much_of(void **state) {
        const struct quota_amounts asked = { .of[RESOURCE_LOCKED_BYTES] = 61, .of[RESOURCE_MAPPINGS] = 1 };
        struct quota_account host, t[2];
        struct refusal r;

        (void)state;
        two_tenants(&host, t, 150);
        assert_int_equal(charge(&t[0], RESOURCE_LOCKED_BYTES, 90), 0);
        assert_int_equal(quota_charge(&t[1], &asked, &r), -1);
        assert_int_equal(r.reason, REFUSAL_LIMIT_EXCEEDED);
        assert_int_equal(r.resource, RESOURCE_LOCKED_BYTES);
        assert_int_equal(r.limit, 150);
        assert_int_equal(r.used, 90);
        assert_int_equal(r.asked, 61);
        assert_non_null(strstr(r.text, "this host"));
        assert_null(strstr(r.text, "alpha"));
        /* nothing was charged, here or there */
        assert_int_equal(used(&t[1], RESOURCE_LOCKED_BYTES), 0);
        assert_int_equal(used(&t[1], RESOURCE_MAPPINGS), 0);
        assert_int_equal(used(&host, RESOURCE_LOCKED_BYTES), 90);
        assert_int_equal(charge(&t[1], RESOURCE_LOCKED_BYTES, 60), 0);
        assert_int_equal(charge(&t[1], RESOURCE_LOCKED_BYTES, 1), -1);
        refund(&t[0], RESOURCE_LOCKED_BYTES, 1);
        assert_int_equal(charge(&t[1], RESOURCE_LOCKED_BYTES, 1), 0);
        assert_int_equal(used(&host, RESOURCE_LOCKED_BYTES), 150);
        /* what the host has no limit on is not counted there */
        assert_int_equal(charge(&t[0], RESOURCE_DOMAINS, 1), 0);
        assert_int_equal(used(&host, RESOURCE_DOMAINS), 0);
}

static void the_tenant_s_own_limit_is_told_before_the_host_s(void **state) {
        const struct quota_amounts asked = { .of[RESOURCE_LOCKED_BYTES] = 200 };
        struct quota_account host, t[2];
        struct refusal r;

        (void)state;
        two_tenants(&host, t, 150);
        assert_int_equal(quota_charge(&t[1], &asked, &r), -1);
        assert_int_equal(r.reason, REFUSAL_QUOTA_EXCEEDED);
        assert_int_equal(r.limit, 100);
        assert_int_equal(used(&host, RESOURCE_LOCKED_BYTES), 0);
}

static void recovery_counts_on_the_host_as_well(void **state) {
        const struct quota_amounts had = { .of[RESOURCE_LOCKED_BYTES] = 190, .of[RESOURCE_TABLE_BYTES] = 7 };
        struct quota_account host, t[2];

        (void)state;
        two_tenants(&host, t, 150);
        assert_true(quota_adopt(&t[0], &had));
        assert_int_equal(used(&host, RESOURCE_LOCKED_BYTES), 190);
        assert_int_equal(used(&host, RESOURCE_TABLE_BYTES), 7);
        assert_int_equal(charge(&t[1], RESOURCE_LOCKED_BYTES, 1), -1);
        assert_int_equal(charge(&t[1], RESOURCE_TABLE_BYTES, 1), 0);
        /* a refund that is too large takes nothing from the others */
        refund(&t[1], RESOURCE_LOCKED_BYTES, 100);
        assert_int_equal(used(&host, RESOURCE_LOCKED_BYTES), 190);
        quota_refund(&t[0], &had);
        assert_int_equal(used(&host, RESOURCE_LOCKED_BYTES), 0);
        assert_int_equal(used(&host, RESOURCE_TABLE_BYTES), 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(every_resource_is_charged_up_to_its_limit_and_not_beyond),
                cmocka_unit_test(a_limit_of_zero_refuses_the_first_one),
                cmocka_unit_test(a_refusal_names_resource_limit_use_and_what_was_asked),
                cmocka_unit_test(several_resources_are_charged_together_or_not_at_all),
                cmocka_unit_test(the_count_of_an_unlimited_resource_does_not_wrap),
                cmocka_unit_test(a_sum_that_wraps_to_something_small_is_refused),
                cmocka_unit_test(a_lowered_limit_tears_nothing_down_and_refuses_more),
                cmocka_unit_test(a_refund_makes_room_for_as_much),
                cmocka_unit_test(a_refund_beyond_the_balance_leaves_zero),
                cmocka_unit_test(recovery_takes_over_what_exists_whatever_the_limit),
                cmocka_unit_test(the_host_refuses_what_quotas_promised_too_much_of),
                cmocka_unit_test(the_tenant_s_own_limit_is_told_before_the_host_s),
                cmocka_unit_test(recovery_counts_on_the_host_as_well),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
