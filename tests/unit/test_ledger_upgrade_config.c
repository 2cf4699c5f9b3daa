/* SPDX-License-Identifier: Apache-2.0 */
/* A ledger of an earlier version: what its tenants may do is what they could do, also of resources that it did not know. */
/* link: db util */
#include "test_ledger_fixture.h"

#include "migrate.h"

/* config.db as the first version made it, with three tenants. */
static void old_config(void) {
        struct migration_set first = migrations_config;
        bool created;

        first.n_steps = 1;
        OK(migrate_file(dir, &first, &created, &r));
        raw("config.db", "INSERT INTO tenant VALUES ('small', 0, 0), ('large', 0, 0), ('free', 0, 0), ('bare', 0, 0)");
        raw("config.db", "INSERT INTO tenant_quota VALUES ('small', 1, 4096), ('small', 2, 7), ('large', 1, 1 << 40), "
                         "('free', 1, -1), ('free', 2, -1)");
}

static int look(const struct ledger_tenant *t, void *arg) {
        unsigned *seen = arg;
        uint64_t tables = t->quota[RESOURCE_TABLE_BYTES];

        (*seen)++;
        assert_int_equal(t->quota[RESOURCE_WINDOWS], 64);
        if (strcmp(t->name, "free") == 0)
                assert_true(tables == UINT64_MAX);
        else
                assert_int_equal(tables, strcmp(t->name, "large") == 0 ? UINT64_C(1) << 33 : 64 << 20);
        if (strcmp(t->name, "small") == 0) {
                assert_int_equal(t->quota[RESOURCE_LOCKED_BYTES], 4096);
                assert_int_equal(t->quota[RESOURCE_MAPPINGS], 7);
        }
        return 0;
}

static void test_quotas_that_did_not_exist(void **state) {
        unsigned seen = 0;
        struct ledger *l;

        (void)state;
        old_config();
        l = open_ledger();
        OK(ledger_tenants(l, look, &seen, &r));
        assert_int_equal(seen, 4);
        ledger_close(l);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM tenant_quota WHERE resource > 7"), 8);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_quotas_that_did_not_exist, make_directory, remove_directory),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
