/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Many clients at once: threads that share a client, threads with clients of their own, processes; and sessions that
 * come and go leave nothing behind.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/agent.h"
#include "lib/edu.h"
#include "lib/job.h"
#include "util/cleanup.h"

#define THREADS 8
#define ROUNDS 40

struct worker {
        pthread_t thread;
        const char *directory;          /* a client of its own, */
        struct job *shared;             /* or this one */
        uint64_t iova;
        int result;
        char text[400];
};

static int map_rounds(struct iommud_domain *d, struct iommud_memory *m, uint64_t iova) {
        for (unsigned i = 0; i < ROUNDS; i++) {
                int r = iommud_map(d, iova, m, 0, PAGE, IOMMUD_READ_WRITE);

                if (r == 0)
                        r = iommud_map(d, iova + 2 * PAGE, m, 0, PAGE, IOMMUD_READ);
                if (r == 0)
                        r = iommud_unmap(d, iova, PAGE);
                if (r == 0)
                        r = iommud_unmap(d, iova + 2 * PAGE, PAGE);
                if (r < 0)
                        return r;
        }
        return 0;
}

static int own_client(const char *directory) {
        const struct iommud_connect_options o = { .size = sizeof o, .directory = directory };
        struct iommud_client *c;
        struct iommud_domain *d;
        struct iommud_memory *m;
        int r = iommud_connect(&o, &c);

        if (r < 0)
                return r;
        r = iommud_domain_create(c, NULL, &d);
        if (r == 0)
                r = iommud_memory_alloc(c, PAGE, NULL, &m);
        if (r == 0)
                r = map_rounds(d, m, JOB_IOVA);
        iommud_close(c);
        return r;
}

static void *work(void *arg) {
        struct worker *w = arg;

        w->result = w->shared ? map_rounds(w->shared->domain, w->shared->memory, w->iova) : own_client(w->directory);
        if (w->result < 0)
                (void)snprintf(w->text, sizeof w->text, "%s", iommud_last_error());
        return NULL;
}

static void run_workers(struct worker *w, size_t n) {
        for (size_t i = 0; i < n; i++)
                assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
        for (size_t i = 0; i < n; i++)
                pthread_join(w[i].thread, NULL);
        for (size_t i = 0; i < n; i++)
                if (w[i].result < 0)
                        fail_msg("thread %zu: %d %s", i, w[i].result, w[i].text);
}

static void test_threads_share_a_client(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct worker w[THREADS] = { 0 };
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", PAGE);
        for (size_t i = 0; i < THREADS; i++)
                w[i] = (struct worker){ .shared = &j, .iova = JOB_IOVA + i * 16 * PAGE };
        run_workers(w, THREADS);
        assert_int_equal(job_mappings(j.domain), 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        job_end(&j);
        service_end(s);
}

static void test_threads_with_clients_of_their_own(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct worker w[THREADS] = { 0 };

        (void)state;
        for (size_t i = 0; i < THREADS; i++)
                w[i].directory = s->client;
        run_workers(w, THREADS);
        service_end(s);
}

static bool has_done(struct agent *a, unsigned long rounds) {
        return strtoul(agent_ok(a, "rounds"), NULL, 10) >= rounds;
}

static void test_processes(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct agent a[6];

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(a); i++) {
                agent_start(&a[i]);
                agent_ok(&a[i], "connect %s", s->client);
                agent_ok(&a[i], "domain");
                agent_ok(&a[i], "alloc 16384");
                agent_ok(&a[i], "workload %zu", i);
        }
        for (size_t i = 0; i < ARRAY_SIZE(a); i++)
                wait_for(has_done(&a[i], 50));
        service_assert_ledger(s);       /* also while they work */
        for (size_t i = 0; i < ARRAY_SIZE(a); i += 2)
                agent_kill(&a[i]);
        service_wait_sessions(s, ARRAY_SIZE(a) / 2);
        service_assert_ledger(s);
        for (size_t i = 1; i < ARRAY_SIZE(a); i += 2)
                agent_end(&a[i]);
        service_end(s);
}

/* One device, many who want it: one has it at a time, and everybody gets it. */
static void test_device_goes_round(void **state) {
        struct service *s = service_start(&(struct service_options){ .soft = "devices = edu0\ndma_delay_us = 1\n" });

        (void)state;
        for (unsigned i = 0; i < 10; i++) {
                struct iommud_attachment *none;
                struct job j, k;

                job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
                job_begin(&k, s->client, NULL, PAGE);
                refused(iommud_device_attach(k.domain, "edu0", &none), EBUSY, IOMMUD_REASON_DEVICE_BUSY, NULL);
                job_map(&j);
                job_assert_dma(&j, JOB_IOVA, 0, PAGE);
                must(iommud_device_detach(j.device));
                must(iommud_device_attach(k.domain, "edu0", &none));
                job_end(&j);
                job_end(&k);
                service_wait_sessions(s, 0);
        }
        service_end(s);
}

static unsigned open_files(pid_t pid) {
        char command[64];
        unsigned n = 0;
        FILE *f;

        (void)snprintf(command, sizeof command, "ls /proc/%d/fd | wc -l", pid);
        f = popen(command, "r");
        assert_non_null(f);
        assert_int_equal(fscanf(f, "%u", &n), 1);
        (void)pclose(f);
        return n;
}

/* How fast sessions may be opened is limited; who is told so comes again. */
static void churn_once(struct service *s, unsigned i) {
        const struct iommud_connect_options o = { .size = sizeof o, .directory = s->client };
        struct job j = { 0 };
        int r = 0;

        wait_for((r = iommud_connect(&o, &j.client)) != -EDQUOT);
        must(r);
        must(iommud_domain_create(j.client, NULL, &j.domain));
        must(iommud_memory_alloc(j.client, PAGE, NULL, &j.memory));
        if (i % 2)
                must(iommud_device_attach(j.domain, "edu0", &j.device));
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ));
        if (i % 3)
                must(iommud_unmap_all(j.domain, NULL));
        job_end(&j);
        service_wait_sessions(s, 0);    /* or the next one would not get the device */
}

static void test_a_hundred_sessions_leave_nothing(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        unsigned before;

        (void)state;
        for (unsigned i = 0; i < 10; i++)
                churn_once(s, i);
        before = open_files(s->pid);
        for (unsigned i = 0; i < 90; i++)
                churn_once(s, i);
        service_assert_nothing_used(s, "me");
        wait_for(open_files(s->pid) <= before + 3);
        wait_for(harness_holders(s) <= 1);      /* the disposable process that closes refused connections */
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_threads_share_a_client, harness_teardown),
                cmocka_unit_test_teardown(test_threads_with_clients_of_their_own, harness_teardown),
                cmocka_unit_test_teardown(test_processes, harness_teardown),
                cmocka_unit_test_teardown(test_device_goes_round, harness_teardown),
                cmocka_unit_test_teardown(test_a_hundred_sessions_leave_nothing, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
