/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/* A refusal for the quota tells which of the tenant's own domains hold most of what is missing, and of nobody else's. */
#include "test_core_harness.h"

#include <inttypes.h>

#define AT 0x100000ULL

static struct holder *h;
static uint64_t memory;

static void begin(enum resource what, uint64_t limit) {
        core.tenants[0].quota[what] = limit;
        core_start();
        h = holder_open("alpha");
        memory = make_memory(h, 64 * PAGE);
}

static uint64_t domain_called(const char *label) {
        return make_domain_as(h, &(struct create_domain_request){ .label = label });
}

static void refused_map(uint64_t domain, uint64_t pages, struct asked *ret) {
        ask_map(h, domain, memory, AT + (1U << 30), pages * PAGE, 0, ret);
        assert_refused(ret, REFUSAL_QUOTA_EXCEEDED);
}

static void the_three_largest_are_named_largest_first(void **state) {
        uint64_t d[5];
        char text[256];
        struct asked a;

        (void)state;
        begin(RESOURCE_LOCKED_BYTES, 20 * PAGE);
        d[0] = domain_called("one");
        d[1] = domain_called("");
        d[2] = domain_called("nothing");
        d[3] = domain_called("ten");
        d[4] = domain_called("two");
        map(h, d[0], memory, AT, PAGE);
        map(h, d[1], memory, AT, 3 * PAGE);
        map(h, d[3], memory, AT, 6 * PAGE);
        map(h, d[3], memory, AT + 16 * PAGE, 4 * PAGE);
        map(h, d[4], memory, AT, 2 * PAGE);
        refused_map(d[2], 64, &a);
        (void)snprintf(text, sizeof text, "=N. Of the tenant's domains, domain %" PRIu64 " 'ten' holds 40K, domain %" PRIu64
                       " holds 12K, domain %" PRIu64 " 'two' holds 8K", d[3], d[1], d[4]);
        assert_non_null(strstr(a.refusal.text, text));
        assert_string_equal(strstr(a.refusal.text, "=N. "), text);
}

static void mappings_are_counted_where_mappings_are_missing(void **state) {
        uint64_t few, many;
        char text[256];
        struct asked a;

        (void)state;
        begin(RESOURCE_MAPPINGS, 3);
        few = domain_called("few");
        many = domain_called("many");
        map(h, few, memory, AT, 8 * PAGE);
        map(h, many, memory, AT, PAGE);
        map(h, many, memory, AT + 2 * PAGE, PAGE);
        refused_map(few, 1, &a);
        (void)snprintf(text, sizeof text, "domain %" PRIu64 " 'many' holds 2, domain %" PRIu64 " 'few' holds 1", many, few);
        assert_non_null(strstr(a.refusal.text, text));
}

static void all_sessions_of_the_tenant_count_and_no_others(void **state) {
        struct holder *other, *foreign;
        uint64_t mine, theirs;
        char text[256];
        struct asked a;

        (void)state;
        begin(RESOURCE_LOCKED_BYTES, 20 * PAGE);
        mine = domain_called("mine");
        foreign = holder_open("beta");
        theirs = make_domain(foreign);
        map(foreign, theirs, make_memory(foreign, 64 * PAGE), AT, 50 * PAGE);
        other = holder_open("alpha");
        theirs = make_domain(other);
        map(other, theirs, make_memory(other, 64 * PAGE), AT, 5 * PAGE);
        refused_map(mine, 64, &a);
        (void)snprintf(text, sizeof text, "=N. Of the tenant's domains, domain %" PRIu64 " 'test' holds 20K", theirs);
        assert_string_equal(strstr(a.refusal.text, "=N. "), text);
}

static void nothing_is_added_when_no_domain_holds_any(void **state) {
        struct asked a;

        (void)state;
        begin(RESOURCE_LOCKED_BYTES, 0);
        refused_map(domain_called("x"), 1, &a);
        assert_null(strstr(a.refusal.text, "Of the tenant's"));
}

/* Whole pieces or none: the smallest one is told if it fits, byte for byte, and else left out. */
static void what_does_not_fit_is_left_out(void **state) {
        char label[LEDGER_NAME_MAX];
        unsigned told = 0, left_out = 0;
        uint64_t d;
        struct asked a;

        (void)state;
        memset(label, 'l', sizeof label - 1);
        label[sizeof label - 1] = '\0';
        begin(RESOURCE_LOCKED_BYTES, 20 * PAGE);
        for (uint64_t i = 2; i < 4; i++)
                map(h, d = domain_called("a name of 40 bytes, so that it comes to it"), memory, AT, i * PAGE);
        for (size_t length = 34; length < 52; length++) {
                char third[128];
                size_t end;

                label[length] = '\0';
                d = domain_called(label);
                map(h, d, memory, AT, PAGE);
                refused_map(d, 64, &a);
                (void)snprintf(third, sizeof third, ", domain %" PRIu64 " '%s' holds 4K", d, label);
                label[length] = 'l';
                end = strnlen(a.refusal.text, REFUSAL_TEXT_MAX);
                assert_true(end < REFUSAL_TEXT_MAX);
                if (strstr(a.refusal.text, third))
                        told++;
                else {
                        left_out++;
                        assert_string_equal(a.refusal.text + end - 8, "holds 8K");
                        assert_true(end + strlen(third) >= REFUSAL_TEXT_MAX);
                }
                ask_unmap(h, d, AT, PAGE, 0, &a);
                holder_expect(h, LINK_UNMAP);
                holder_done(h);
                assert_done(&a);
        }
        assert_true(told > 0 && left_out > 0);
}

/* Who asks too often gets the plain refusal: looking at everybody's sessions is not for free. */
static void it_is_told_a_number_of_times_a_second(void **state) {
        unsigned told = 0, plain = 0;
        uint64_t d;

        (void)state;
        begin(RESOURCE_LOCKED_BYTES, 2 * PAGE);
        d = domain_called("x");
        map(h, d, memory, AT, PAGE);
        for (unsigned i = 0; i < 2000; i++) {
                struct asked a;

                refused_map(d, 64, &a);
                strstr(a.refusal.text, "Of the tenant's") ? told++ : plain++;
        }
        assert_true(told >= 20);
        assert_true(plain > 0);
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)
        const struct CMUnitTest tests[] = {
                T(the_three_largest_are_named_largest_first),
                T(mappings_are_counted_where_mappings_are_missing),
                T(all_sessions_of_the_tenant_count_and_no_others),
                T(nothing_is_added_when_no_domain_holds_any),
                T(what_does_not_fit_is_left_out),
                T(it_is_told_a_number_of_times_a_second),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
