/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I6 for windows: the service dies at each point of an operation while a client works on the windows of its domain, on both
 * kinds of IOMMU. The client's calls all work in the end; ledger, holder and charges agree. When a holder dies its session ends
 * and nothing is left. IOMMUD_TEST_SEED replays the order.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>

#include "lib/faults.h"
#include "lib/window_life.h"
#include "util/cleanup.h"

static const enum failpoint of_broker[] = {
        FAILPOINT_admitted, FAILPOINT_intent_written, FAILPOINT_commit_begins, FAILPOINT_commit_done,
        FAILPOINT_intent_committed, FAILPOINT_sending, FAILPOINT_sent, FAILPOINT_result_received, FAILPOINT_finished,
        FAILPOINT_settle_queued, FAILPOINT_replying, FAILPOINT_replied, FAILPOINT_settle_written, FAILPOINT_settle_committed,
        FAILPOINT_results_released,
};
static const enum failpoint of_holder[] = {
        FAILPOINT_apply_begins, FAILPOINT_apply_unmap_element, FAILPOINT_applied, FAILPOINT_result_remembered,
        FAILPOINT_result_sent,
};

struct trial {
        struct service *s;
        struct failpoints *f;
        struct job j;
        struct window_life life;
        uint64_t seed;
};

static void begin_life(struct trial *t) {
        job_begin(&t->j, t->s->client, "edu0", PAGE);
        window_life_start(&t->life, &t->j);
}

/* At some moment of a round, which has a dozen operations. */
static void provoke(struct trial *t, enum failpoint p) {
        print_message("%s\n", failpoint_name(p));
        faults_arm(t->f, p, 1 + (unsigned)(harness_random(&t->seed) % 14), KILL_SELF);
        wait_for(atomic_load(&t->f->fired) != 0 || atomic_load(&t->life.failed));
        faults_disarm(t->f);
}

static void assert_works(const struct trial *t, enum failpoint p) {
        if (atomic_load(&t->life.failed))
                fail_msg("%s: %s", failpoint_name(p), t->life.text);
}

static void broker_dies(struct trial *t, enum failpoint p) {
        unsigned long before;

        provoke(t, p);
        assert_works(t, p);
        assert_int_equal(harness_wait(t->s->pid, HARNESS_PATIENCE_MS), 128 + SIGKILL);
        t->s->pid = -1;
        service_launch(t->s);
        service_wait_recovered(t->s);
        service_assert_ledger(t->s);
        before = atomic_load(&t->life.rounds);
        wait_for(atomic_load(&t->life.rounds) > before + 1 || atomic_load(&t->life.failed));
        assert_works(t, p);
}

static void holder_dies(struct trial *t, enum failpoint p) {
        provoke(t, p);
        wait_for(atomic_load(&t->life.failed));
        window_life_stop(&t->life);
        if (t->life.error != -ECONNRESET)
                fail_msg("%s: %s", failpoint_name(p), t->life.text);
        job_end(&t->j);
        service_wait_sessions(t->s, 0);
        service_assert_nothing_used(t->s, "me");
        service_assert_ledger(t->s);
        begin_life(t);
}

static void run(const char *soft) {
        struct trial t = { .seed = harness_seed() };

        t.s = service_new(&(struct service_options){
                .failpoints = true, .soft = soft, .limits = "session_starts_per_second = 1000\nrecover_seconds = 10\n" });
        t.f = faults_open(t.s);
        service_launch(t.s);
        begin_life(&t);
        for (size_t i = 0; i < ARRAY_SIZE(of_broker); i++)
                broker_dies(&t, of_broker[i]);
        for (size_t i = 0; i < ARRAY_SIZE(of_holder); i++)
                holder_dies(&t, of_holder[i]);
        window_life_stop(&t.life);
        assert_works(&t, of_holder[0]);
        assert_int_equal(job_windows(t.j.domain, NULL), 1);
        job_end(&t.j);
        service_end(t.s);
        faults_close(t.f);
}

static void test_ranges(void **state) {
        (void)state;
        run("devices = edu0\n");
}

static void test_power(void **state) {
        (void)state;
        run("windows = spapr\ndevices = edu0\n");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_ranges, harness_teardown),
                cmocka_unit_test_teardown(test_power, harness_teardown),
        };

        return cmocka_run_group_tests_name("windows and crashes", tests, NULL, NULL);
}
