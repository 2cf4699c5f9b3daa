/* SPDX-License-Identifier: Apache-2.0 */
/* Tenants and bindings come back as they went in, also at their limits. */
/* link: db util */
#include "test_ledger_fixture.h"

static struct ledger *l;

static int open_one(void **state) {
        if (make_directory(state) < 0)
                return -1;
        l = open_ledger();
        return 0;
}

static int close_one(void **state) {
        l = ledger_close(l);
        return remove_directory(state);
}

static void fill(char *text, size_t size, char c) {
        memset(text, c, size - 1);
        text[size - 1] = 0;
}

static struct ledger_tenant largest(void) {
        struct ledger_tenant t = { .own_socket = true, .allow_unsealed = true, .n_rules = LEDGER_RULES_MAX,
                                   .n_devices = LEDGER_DEVICES_MAX };

        fill(t.name, sizeof t.name, 'n');
        for (int i = 1; i < _RESOURCE_N; i++)
                t.quota[i] = UINT64_MAX - (uint64_t)(i - 1);
        t.quota[RESOURCE_SESSIONS] = 0;
        t.quota[RESOURCE_DEVICES] = UINT64_C(1) << 63;
        for (uint32_t i = 0; i < LEDGER_RULES_MAX; i++) {
                t.rules[i].has_uid = i % 2 == 0;
                t.rules[i].has_gid = i % 3 == 0;
                t.rules[i].uid = t.rules[i].has_uid ? UINT32_MAX - i : 0;
                t.rules[i].gid = t.rules[i].has_gid ? i : 0;
                fill(t.rules[i].cgroup_prefix, sizeof t.rules[i].cgroup_prefix, (char)('a' + i % 26));
        }
        for (uint32_t i = 0; i < LEDGER_DEVICES_MAX; i++)
                fill(t.devices[i], sizeof t.devices[i], (char)('A' + i % 26));
        return t;
}

struct found {
        size_t n;
        struct ledger_tenant at[8];
};

static int collect(const struct ledger_tenant *t, void *arg) {
        struct found *f = arg;

        assert_true(f->n < ARRAY_SIZE(f->at));
        f->at[f->n++] = *t;
        return 0;
}

/* Field by field: the padding between them is anything. */
static void expect_same(const struct ledger_tenant *a, const struct ledger_tenant *b) {
        assert_string_equal(a->name, b->name);
        assert_memory_equal(a->quota, b->quota, sizeof a->quota);
        assert_int_equal(a->own_socket, b->own_socket);
        assert_int_equal(a->allow_unsealed, b->allow_unsealed);
        assert_int_equal(a->n_rules, b->n_rules);
        assert_int_equal(a->n_devices, b->n_devices);
        for (uint32_t i = 0; i < a->n_rules; i++) {
                assert_int_equal(a->rules[i].has_uid, b->rules[i].has_uid);
                assert_int_equal(a->rules[i].has_gid, b->rules[i].has_gid);
                assert_int_equal(a->rules[i].uid, b->rules[i].uid);
                assert_int_equal(a->rules[i].gid, b->rules[i].gid);
                assert_string_equal(a->rules[i].cgroup_prefix, b->rules[i].cgroup_prefix);
        }
        for (uint32_t i = 0; i < a->n_devices; i++)
                assert_string_equal(a->devices[i], b->devices[i]);
}

static void expect(const struct ledger_tenant *tenants, size_t n) {
        struct found f = { 0 };

        OK(ledger_tenants(l, collect, &f, &r));
        assert_int_equal(f.n, n);
        for (size_t i = 0; i < n; i++)
                expect_same(&f.at[i], &tenants[i]);
}

static void test_round_trip_at_limits(void **state) {
        struct ledger_tenant t[2] = { { .name = "a" }, largest() };

        (void)state;
        OK(ledger_tenant_put(l, &t[1], &r));
        OK(ledger_tenant_put(l, &t[0], &r));
        expect(t, 2);
        ledger_close(l);
        l = open_ledger();
        expect(t, 2);
}

static void test_put_replaces(void **state) {
        struct ledger_tenant t = largest(), small = { .n_rules = 1, .rules = { { .has_uid = true } } };

        (void)state;
        memcpy(small.name, t.name, sizeof t.name);
        OK(ledger_tenant_put(l, &t, &r));
        OK(ledger_tenant_put(l, &small, &r));
        expect(&small, 1);
        OK(ledger_tenant_put(l, &t, &r));
        expect(&t, 1);
}

static void test_delete(void **state) {
        struct ledger_tenant t = largest();

        (void)state;
        REFUSED(ledger_tenant_delete(l, "nobody", &r), REFUSAL_UNKNOWN_TENANT, "\"nobody\"");
        OK(ledger_tenant_put(l, &t, &r));
        OK(ledger_tenant_delete(l, t.name, &r));
        expect(NULL, 0);
        REFUSED(ledger_tenant_delete(l, t.name, &r), REFUSAL_UNKNOWN_TENANT, "no tenant");
        ledger_close(l);
        assert_int_equal(raw_number("config.db", "SELECT (SELECT count(*) FROM tenant_quota) + (SELECT count(*) FROM "
                                                 "tenant_rule) + (SELECT count(*) FROM tenant_device)"), 0);
        l = open_ledger();
}

static void test_refused_put_keeps_the_old_one(void **state) {
        struct ledger_tenant t = largest(), bad = largest(), unnamed = { 0 };

        (void)state;
        OK(ledger_tenant_put(l, &t, &r));
        bad.devices[7][0] = 0;                  /* the database takes no empty device name */
        REFUSED(ledger_tenant_put(l, &bad, &r), REFUSAL_LEDGER_UNAVAILABLE, "CHECK");
        bad.n_rules = LEDGER_RULES_MAX + 1;
        REFUSED(ledger_tenant_put(l, &bad, &r), REFUSAL_LEDGER_UNAVAILABLE, "33 rules");
        REFUSED(ledger_tenant_put(l, &unnamed, &r), REFUSAL_LEDGER_UNAVAILABLE, "tenant_name_1_to_63_bytes");
        expect(&t, 1);
}

static int delete_it(const struct ledger_tenant *t, void *arg) {
        ++*(int *)arg;
        return ledger_tenant_delete(l, t->name, &r);
}

static int stop(const struct ledger_tenant *t, void *arg) {
        (void)t;
        ++*(int *)arg;
        return 17;
}

static void test_walk(void **state) {
        int n = 0;

        (void)state;
        for (char c = 'a'; c < 'e'; c++) {
                struct ledger_tenant t = { .name = { c } };

                OK(ledger_tenant_put(l, &t, &r));
        }
        assert_int_equal(ledger_tenants(l, stop, &n, &r), 17);
        assert_int_equal(n, 1);
        OK(ledger_tenants(l, delete_it, &n, &r));       /* each() may call the ledger */
        assert_int_equal(n, 5);
        expect(NULL, 0);
}

static void test_bindings(void **state) {
        char driver[LEDGER_NAME_MAX] = "untouched";
        bool found;

        (void)state;
        OK(ledger_binding_get(l, "0000:00:05.0", driver, &found, &r));
        assert_false(found);
        assert_string_equal(driver, "untouched");
        OK(ledger_binding_put(l, "0000:00:05.0", "nvme", &r));
        OK(ledger_binding_put(l, "0000:00:06.0", "", &r));
        ledger_close(l);
        l = open_ledger();
        OK(ledger_binding_get(l, "0000:00:05.0", driver, &found, &r));
        assert_true(found);
        assert_string_equal(driver, "nvme");
        OK(ledger_binding_get(l, "0000:00:06.0", driver, &found, &r));
        assert_true(found);
        assert_string_equal(driver, "");
        OK(ledger_binding_put(l, "0000:00:05.0", "e1000e", &r));
        OK(ledger_binding_get(l, "0000:00:05.0", driver, &found, &r));
        assert_string_equal(driver, "e1000e");
        OK(ledger_binding_delete(l, "0000:00:05.0", &r));
        OK(ledger_binding_delete(l, "0000:00:05.0", &r));
        OK(ledger_binding_get(l, "0000:00:05.0", driver, &found, &r));
        assert_false(found);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_one, close_one)
        const struct CMUnitTest tests[] = {
                TEST(test_round_trip_at_limits),
                TEST(test_put_replaces),
                TEST(test_delete),
                TEST(test_refused_put_keeps_the_old_one),
                TEST(test_walk),
                TEST(test_bindings),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
