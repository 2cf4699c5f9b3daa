/* SPDX-License-Identifier: Apache-2.0 */
/* I6: what was acknowledged before a kill is there, what was not is there wholly or not at all. No id comes twice. */
/* link: db util */
#include "test_ledger_fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define ROUNDS 12
#define BATCH 16U               /* mappings of one operation */
#define BATCH_BYTES (BATCH * 0x2000U)

struct report {                 /* what the child says through the pipe, after the commit */
        uint64_t number, op, object;
};

static uint64_t seed;

static uint64_t next_random(void) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return seed >> 33;
}

/* Operation number n maps its own stretch of IOVAs; every third is unmapped again by the next transaction. */
static void map_batch(struct ledger *l, const struct objects *o, uint64_t number, struct ledger_op *op) {
        struct ledger_mapping rows[BATCH];

        *op = an_op(l, o, LEDGER_OP_MAP);
        for (uint64_t i = 0; i < BATCH; i++)
                rows[i] = a_mapping(o, number * BATCH_BYTES + i * 0x2000, 0x1000);
        OK(ledger_begin(l, &r));
        OK(ledger_map_intend(l, op, rows, BATCH, &r));
        OK(ledger_commit(l, &r));
}

static void child_main(int pipe_fd, const struct objects *o, uint64_t number) {
        struct ledger *l = open_ledger();

        for (;; number++) {
                struct ledger_op op;
                struct report report;

                map_batch(l, o, number, &op);
                report = (struct report){ number, op.id, ledger_next_id(l) };
                if (write(pipe_fd, &report, sizeof report) != (ssize_t)sizeof report)
                        _exit(1);
                ledger_audit(l, "test", NULL, 0, 0, "line");
                OK(ledger_begin(l, &r));
                OK(ledger_op_settle(l, &op, number % 3 != 0, &r));
                OK(ledger_commit(l, &r));
        }
}

struct seen {
        uint64_t first, partly;         /* op numbers from first on; how many rows each has */
        uint8_t rows[1 << 16];
};

static struct seen seen;

static int see_mapping(const struct ledger_mapping *m, void *arg) {
        uint64_t number = m->iova / BATCH_BYTES;

        (void)arg;
        assert_true(number < ARRAY_SIZE(seen.rows));
        seen.rows[number]++;
        return 0;
}

/* last: the newest number that the child reported. Rows of every third are gone once settled, so they may be there or
 * not; the newest reported one is intended, so it is there in any case. */
static void judge(struct ledger *l, const struct objects *o, uint64_t from, uint64_t last, bool any) {
        memset(&seen, 0, sizeof seen);
        OK(ledger_mappings(l, o->domain, see_mapping, NULL, &r));
        for (uint64_t n = from; n < ARRAY_SIZE(seen.rows); n++) {
                if (seen.rows[n] != 0 && seen.rows[n] != BATCH)
                        fail_msg("operation %llu is there in part: %u rows", (unsigned long long)n, seen.rows[n]);
                if (any && n <= last && n % 3 != 0 && seen.rows[n] != BATCH)
                        fail_msg("operation %llu was acknowledged and is lost", (unsigned long long)n);
                if (any && n < last && n % 3 == 0 && seen.rows[n] != 0)
                        fail_msg("operation %llu was undone and is back", (unsigned long long)n);
                if (n > last + 1 && seen.rows[n] != 0)
                        fail_msg("operation %llu was never made", (unsigned long long)n);
        }
        assert_int_equal(count_violations(l), 0);
}

/* One child, killed at a random moment. Returns the first number for the next round. */
static uint64_t round_of_killing(const struct objects *o, uint64_t from, uint64_t *highest_id) {
        struct timespec pause = { 0, (long)(next_random() % 60000000) };
        struct report report, last = { 0 };
        bool any = false;
        struct ledger *l;
        int fds[2];
        pid_t child;

        assert_int_equal(pipe(fds), 0);
        child = fork();
        if (child == 0) {
                close(fds[0]);
                child_main(fds[1], o, from);
        }
        close(fds[1]);
        nanosleep(&pause, NULL);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
        while (read(fds[0], &report, sizeof report) == (ssize_t)sizeof report) {
                assert_true(report.op > *highest_id);
                assert_true(report.object > report.op);
                *highest_id = report.object;
                last = report;
                any = true;
        }
        close(fds[0]);
        l = open_ledger();
        judge(l, o, from, any ? last.number : from, any);
        assert_true(ledger_next_id(l) > *highest_id);
        ledger_close(l);
        return (any ? last.number : from) + 2;
}

static void test_killed_between_and_within_commits(void **state) {
        struct ledger *l = open_ledger();
        struct objects o = put_objects(l);
        uint64_t from = 1, highest_id = o.memory;

        (void)state;
        ledger_close(l);
        for (int i = 0; i < ROUNDS; i++)
                from = round_of_killing(&o, from, &highest_id);
        print_message("%llu operations\n", (unsigned long long)from);
        assert_true(from > ROUNDS * 2);         /* else it tested nothing */
}

int main(void) {
        const char *given = getenv("SEED");
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_killed_between_and_within_commits, make_directory,
                                                remove_directory),
        };

        seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
        print_message("SEED=%llu\n", (unsigned long long)seed);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
