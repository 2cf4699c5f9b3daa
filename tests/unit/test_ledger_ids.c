/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers rise and are never handed out twice: over threads, restarts, kills, and without anything to write to. */
/* link: db util */
#include "test_ledger_fixture.h"

#include <signal.h>
#include <sys/wait.h>

#define THREADS 4
#define EACH 300000             /* together more than one block */

static struct ledger *l;

static void *take(void *arg) {
        uint64_t *ids = arg;

        for (size_t i = 0; i < EACH; i++)
                ids[i] = ledger_next_id(l);
        return NULL;
}

static int compare(const void *a, const void *b) {
        const uint64_t *x = a, *y = b;

        return *x < *y ? -1 : *x > *y;
}

static void test_threads_get_different_ones(void **state) {
        _cleanup_free_ uint64_t *ids = calloc(THREADS * EACH, sizeof *ids);
        pthread_t threads[THREADS];

        (void)state;
        assert_non_null(ids);
        l = open_ledger();
        for (size_t i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, take, ids + i * EACH), 0);
        for (size_t i = 0; i < THREADS; i++)
                pthread_join(threads[i], NULL);
        for (size_t i = 1; i < THREADS * EACH; i++)
                if (i % EACH != 0)
                        assert_true(ids[i] > ids[i - 1]);
        qsort(ids, THREADS * EACH, sizeof *ids, compare);
        assert_int_equal(ids[0], 1);
        for (size_t i = 1; i < THREADS * EACH; i++)
                assert_int_equal(ids[i], ids[i - 1] + 1);
        ledger_close(l);
}

static void test_reopened(void **state) {
        uint64_t a, b;

        (void)state;
        l = open_ledger();
        a = ledger_next_id(l);
        ledger_close(l);
        l = open_ledger();
        b = ledger_next_id(l);
        ledger_close(l);
        assert_true(b > a);
}

static void test_killed(void **state) {
        uint64_t highest = 0, id;
        int fds[2];

        (void)state;
        for (int i = 0; i < 5; i++) {
                pid_t child;

                assert_int_equal(pipe(fds), 0);
                child = fork();
                if (child == 0) {
                        l = open_ledger();
                        id = ledger_next_id(l);
                        (void)!write(fds[1], &id, sizeof id);
                        kill(getpid(), SIGKILL);
                }
                close(fds[1]);
                assert_int_equal(read(fds[0], &id, sizeof id), sizeof id);
                close(fds[0]);
                assert_int_equal(waitpid(child, NULL, 0), child);
                assert_true(id > highest);
                highest = id;
        }
}

/* 0 and not a number that a restart would hand out again. */
static void test_none_when_they_cannot_be_reserved(void **state) {
        (void)state;
        l = open_ledger();
        raw("config.db",
            "CREATE TRIGGER no BEFORE UPDATE ON id_counter BEGIN SELECT RAISE(ABORT, 'disk on fire'); END");
        assert_int_equal(ledger_next_id(l), 0);
        raw("config.db", "DROP TRIGGER no");
        assert_int_equal(ledger_next_id(l), 1);
        ledger_close(l);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_directory, remove_directory)
        const struct CMUnitTest tests[] = {
                TEST(test_threads_get_different_ones),
                TEST(test_reopened),
                TEST(test_killed),
                TEST(test_none_when_they_cannot_be_reserved),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
