/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I6: the service, a holder, a client or both are killed at random moments under a random workload. After each round
 * the ledger and the holders agree, and at the end nothing is left. IOMMUD_TEST_SEED replays the order of the kills,
 * IOMMUD_TEST_ROUNDS asks for more of them.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/agent.h"
#include "lib/job.h"

#define AGENTS 3

struct victims {
        struct service *service;
        struct agent agents[AGENTS];
        uint64_t seed;
};

static void begin_agent(struct victims *v, struct agent *a) {
        agent_start(a);
        agent_ok(a, "connect %s", v->service->client);
        agent_ok(a, "domain");
        agent_ok(a, "domain");
        agent_ok(a, "alloc 16384");
        agent_ok(a, "alloc 16384");
        agent_ok(a, "workload %llu", (unsigned long long)harness_random(&v->seed));
}

/* Between 0 and 30 ms. */
static void random_moment(struct victims *v) {
        const struct timespec t = { .tv_nsec = (long)(harness_random(&v->seed) % 30000000) };

        nanosleep(&t, NULL);
}

static void restart(struct victims *v) {
        service_kill(v->service);
        service_launch(v->service);
        service_wait_recovered(v->service);
}

/* The holder dies, and with it the session; the agent ends and another takes its place. */
static void replace(struct victims *v, struct agent *a) {
        agent_kill(a);
        begin_agent(v, a);
}

static void one_round(struct victims *v, int round) {
        struct agent *a = &v->agents[harness_random(&v->seed) % AGENTS];
        unsigned what = (unsigned)(harness_random(&v->seed) % 5);
        pid_t holder = service_holder_of(v->service, a->pid);

        assert_true(holder > 0);
        random_moment(v);
        switch (what) {
        case 0:         /* the holder */
                assert_int_equal(kill(holder, SIGKILL), 0);
                replace(v, a);
                break;
        case 1:         /* the client */
                replace(v, a);
                break;
        case 2:         /* service and holder */
                assert_int_equal(kill(v->service->pid, SIGKILL), 0);
                (void)kill(holder, SIGKILL);
                assert_int_equal(harness_wait(v->service->pid, HARNESS_PATIENCE_MS), 128 + SIGKILL);
                v->service->pid = -1;
                service_launch(v->service);
                service_wait_recovered(v->service);
                replace(v, a);
                break;
        default:        /* the service */
                restart(v);
                break;
        }
        service_wait_sessions(v->service, AGENTS);
        service_assert_ledger(v->service);
        for (size_t i = 0; i < AGENTS; i++)
                if (strncmp(agent_ask(&v->agents[i], "rounds"), "ok", 2) != 0)
                        fail_msg("round %d (kill %u): session %zu ended: %s", round, what, i, v->agents[i].answer);
}

static void test_at_any_moment(void **state) {
        const char *more = getenv("IOMMUD_TEST_ROUNDS");
        int rounds = more ? atoi(more) : 15;
        struct victims v = { .seed = harness_seed() };

        (void)state;
        v.service = service_start(&(struct service_options){
                .limits = "session_starts_per_second = 1000\nrecover_seconds = 5\n" });
        for (size_t i = 0; i < AGENTS; i++)
                begin_agent(&v, &v.agents[i]);
        for (int i = 0; i < rounds; i++)
                one_round(&v, i);
        for (size_t i = 0; i < AGENTS; i++)
                agent_kill(&v.agents[i]);
        service_end(v.service);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_at_any_moment, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
