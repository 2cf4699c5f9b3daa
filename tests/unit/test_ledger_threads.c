/* SPDX-License-Identifier: Apache-2.0 */
/* Everything that may run at the same time does, while checkpoints are forced: no transaction sees another's, no check
 * finds a violation. For the thread sanitizer as much as for the asserts. */
/* link: db util */
#include "test_ledger_fixture.h"

#include <stdatomic.h>

#include "ledger_private.h"

#define COMMITTERS 3
#define ROUNDS 400

static struct ledger *l;
static struct objects o[COMMITTERS];
static atomic_bool done;
static atomic_int failures;

#define EXPECT(call)                                                                                                   \
        do {                                                                                                           \
                if ((call) != 0) {                                                                                     \
                        (void)fprintf(stderr, "%s: %s\n", #call, why.text);                                            \
                        atomic_fetch_add(&failures, 1);                                                                \
                }                                                                                                      \
        } while (0)

static void *commit(void *arg) {
        const struct objects *mine = arg;
        struct refusal why;

        for (uint64_t i = 0; i < ROUNDS; i++) {
                struct ledger_op op = an_op(l, mine, LEDGER_OP_MAP);
                struct ledger_mapping rows[8];

                for (uint64_t k = 0; k < 8; k++)
                        rows[k] = a_mapping(mine, (i * 8 + k) * 0x1000, 0x1000);
                EXPECT(ledger_begin(l, &why));
                EXPECT(ledger_map_intend(l, &op, rows, 8, &why));
                EXPECT(ledger_op_settle(l, &op, i % 2 == 0, &why));
                if (i % 5 == 4)
                        ledger_rollback(l);
                else
                        EXPECT(ledger_commit(l, &why));
                ledger_audit(l, "map", "acme", 0, 0, "mapped");
        }
        return NULL;
}

static int ignore_tenant(const struct ledger_tenant *t, void *arg) {
        (void)t, (void)arg;
        return 0;
}

static void *configure(void *arg) {
        struct ledger_tenant t = { .name = "other" };
        struct refusal why;

        (void)arg;
        while (!atomic_load(&done)) {
                EXPECT(ledger_tenant_put(l, &t, &why));
                EXPECT(ledger_tenants(l, ignore_tenant, NULL, &why));
                EXPECT(ledger_tenant_delete(l, "other", &why));
                EXPECT(ledger_audit_flush(l, &why));
        }
        return NULL;
}

static void count(const struct ledger_violation *v, void *arg) {
        (void)arg;
        (void)fprintf(stderr, "%s: %s\n", v->invariant, v->text);
        atomic_fetch_add(&failures, 1);
}

static void *watch(void *arg) {
        struct refusal why;
        uint64_t rows;

        (void)arg;
        while (!atomic_load(&done)) {
                EXPECT(ledger_check(l, count, NULL, &rows, &why));
                (void)ledger_state_is_from_other_boot(l);
        }
        return NULL;
}

/* So that checkpoints of both kinds happen all the time, instead of after 64 and 256 MiB. */
static void lower_wal_limits(void) {
        atomic_store(&l->maintenance.wal_hard, 64);
        atomic_store(&l->maintenance.wal_step, 16);
        atomic_store(&l->maintenance.poke_at, 16);
}

/* A writer that never pauses, and no reader: only the hard limit makes the WAL start again, after some hundred commits
 * or some thousand, as the disk is. */
static void test_wal_starts_again(void **state) {
        int before = 0, restarts = 0;
        uint64_t n = 0;

        (void)state;
        l = open_ledger();
        o[0] = put_objects(l);
        lower_wal_limits();
        for (; n < 100000 && restarts < 3; n++) {
                int pages;

                map_one(l, &o[0], n * 0x1000, 0x1000);
                pages = atomic_load(&l->maintenance.wal_pages);
                restarts += pages < before;
                before = pages;
        }
        print_message("%d restarts in %d commits\n", restarts, (int)n);
        assert_int_equal(restarts, 3);
        ledger_close(l);
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM mapping"), n);
        assert_int_equal(access(in_dir("state.db-wal"), F_OK), -1);
}

static void test_together(void **state) {
        pthread_t committers[COMMITTERS], configurer, watcher;
        int kept = 0;

        (void)state;
        l = open_ledger();
        lower_wal_limits();
        for (size_t i = 0; i < COMMITTERS; i++)
                o[i] = put_objects(l);
        assert_int_equal(pthread_create(&configurer, NULL, configure, NULL), 0);
        assert_int_equal(pthread_create(&watcher, NULL, watch, NULL), 0);
        for (size_t i = 0; i < COMMITTERS; i++)
                assert_int_equal(pthread_create(&committers[i], NULL, commit, &o[i]), 0);
        for (size_t i = 0; i < COMMITTERS; i++)
                pthread_join(committers[i], NULL);
        atomic_store(&done, true);
        pthread_join(configurer, NULL);
        pthread_join(watcher, NULL);
        assert_int_equal(atomic_load(&failures), 0);
        for (int i = 0; i < ROUNDS; i++)
                kept += i % 2 == 0 && i % 5 != 4 ? 8 : 0;
        assert_true(kept > 0);
        assert_int_equal(raw_number("state.db", "SELECT min(mapped) FROM memory"), kept);
        assert_int_equal(raw_number("state.db", "SELECT max(mapped) FROM memory"), kept);
        assert_int_equal(count_violations(l), 0);
        ledger_close(l);
        assert_int_equal(raw_number("config.db", "SELECT count(*) FROM audit WHERE event = 'map'"),
                         COMMITTERS * ROUNDS);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_wal_starts_again, make_directory, remove_directory),
                cmocka_unit_test_setup_teardown(test_together, make_directory, remove_directory),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
