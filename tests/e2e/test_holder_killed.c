/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I6, I2: a holder is killed, alone or with the service. Nothing of its client is reachable any more, the client is
 * told, and nothing stays charged.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/agent.h"
#include "lib/edu.h"
#include "lib/job.h"

/* A call that comes before the client has noticed hears from the service that the session is over; then, why. */
static bool says_holder_lost(struct job *j) {
        struct iommud_error e = { .size = sizeof e };

        assert_int_equal(iommud_unmap_all(j->domain, NULL), -ECONNRESET);
        assert_int_equal(iommud_error_detail(&e), 0);
        if (e.reason != IOMMUD_REASON_HOLDER_LOST)
                assert_int_equal(e.reason, IOMMUD_REASON_UNKNOWN_SESSION);
        return e.reason == IOMMUD_REASON_HOLDER_LOST;
}

static bool agent_says_holder_lost(struct agent *a) {
        int error = 0, reason = 0;

        assert_int_equal(sscanf(agent_ask(a, "domain"), "err %d %d", &error, &reason), 2);
        assert_int_equal(error, ECONNRESET);
        if (reason != IOMMUD_REASON_HOLDER_LOST)
                assert_int_equal(reason, IOMMUD_REASON_UNKNOWN_SESSION);
        return reason == IOMMUD_REASON_HOLDER_LOST;
}

static void test_session_ends_with_the_reason(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct job j, other;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        service_kill_holder(s, getpid());
        wait_for(says_holder_lost(&j));
        service_wait_sessions(s, 0);
        service_assert_nothing_used(s, "me");
        refused(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ), ECONNRESET, IOMMUD_REASON_HOLDER_LOST,
                NULL);
        assert_true(edu_transfer(j.device, JOB_IOVA, EDU_BLOCK, true) < 0);
        job_begin(&other, s->client, "edu0", (uint64_t)2 * PAGE);       /* lent again */
        job_map(&other);
        job_assert_dma(&other, JOB_IOVA, 0, PAGE);
        memset(j.bytes, 0x66, (size_t)2 * PAGE);
        job_assert_no_dma(&other, JOB_IOVA + (uint64_t)2 * PAGE);
        assert_int_equal(j.bytes[0], 0x66);
        job_end(&other);
        job_end(&j);
        service_end(s);
}

/* Another session is not disturbed, not even in the middle of its transfers. */
static void test_only_its_own_session_ends(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct agent victim;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        agent_start(&victim);
        agent_ok(&victim, "connect %s", s->client);
        agent_ok(&victim, "domain");
        agent_ok(&victim, "attach 0 edu1");
        agent_ok(&victim, "alloc 8192");
        agent_ok(&victim, "map 0 0x100000 0 0 8192 3");
        service_kill_holder(s, victim.pid);
        wait_for(agent_says_holder_lost(&victim));
        service_wait_sessions(s, 1);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        must(iommud_device_attach(j.domain, "edu1", &(struct iommud_attachment *){ NULL }));
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_LOCKED_BYTES), 2 * PAGE);
        agent_end(&victim);
        job_end(&j);
        service_end(s);
}

static void test_both_killed(void **state) {
        struct service *s = service_start(&(struct service_options){ .limits = "session_starts_per_second = 1000\n"
                                                                              "recover_seconds = 1\n" });
        struct job j, other;
        pid_t holder;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        holder = service_holder_of(s, getpid());
        service_kill(s);
        assert_int_equal(kill(holder, SIGKILL), 0);
        wait_for(!process_lives(holder));
        service_launch(s);
        service_wait_recovered(s);
        service_wait_sessions(s, 0);
        service_assert_nothing_used(s, "me");
        service_assert_ledger(s);
        assert_true(iommud_unmap_all(j.domain, NULL) == -ECONNRESET);
        job_begin(&other, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&other);
        job_assert_dma(&other, JOB_IOVA, 0, PAGE);
        job_end(&other);
        job_end(&j);
        service_end(s);
}

/* The holder dies while nobody serves; its client keeps waiting. The next service finds out. */
static void test_holder_dies_meanwhile(void **state) {
        struct service *s = service_start(&(struct service_options){ .limits = "session_starts_per_second = 1000\n"
                                                                              "recover_seconds = 1\n" });
        struct agent keeps, loses;
        pid_t holder;

        (void)state;
        agent_start(&keeps);
        agent_start(&loses);
        agent_ok(&keeps, "connect %s", s->client);
        agent_ok(&loses, "connect %s", s->client);
        agent_ok(&keeps, "domain");
        agent_ok(&loses, "domain");
        holder = service_holder_of(s, loses.pid);
        service_kill(s);
        assert_int_equal(kill(holder, SIGKILL), 0);
        wait_for(!process_lives(holder));
        service_launch(s);
        service_wait_recovered(s);
        service_wait_sessions(s, 1);
        agent_ok(&keeps, "domain");
        wait_for(agent_says_holder_lost(&loses));
        agent_end(&keeps);
        agent_end(&loses);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_session_ends_with_the_reason, harness_teardown),
                cmocka_unit_test_teardown(test_only_its_own_session_ends, harness_teardown),
                cmocka_unit_test_teardown(test_both_killed, harness_teardown),
                cmocka_unit_test_teardown(test_holder_dies_meanwhile, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
