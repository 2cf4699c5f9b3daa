/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * DESIGN, section 4: run as root, every holder has a uid of its own that nobody else has, and finds its way back to
 * the next service all the same.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/agent.h"
#include "lib/edu.h"
#include "lib/job.h"

#define HOLDERS "holder_uids = 2000000000-2000000063\nholder_group = 65533\n"

/* The value of a line of /proc/PID/status. */
static void status_of(pid_t pid, const char *name, char *value, size_t size) {
        char path[64], line[256];
        FILE *f;

        (void)snprintf(path, sizeof path, "/proc/%d/status", pid);
        f = fopen(path, "re");
        assert_non_null(f);
        value[0] = '\0';
        while (fgets(line, sizeof line, f))
                if (strncmp(line, name, strlen(name)) == 0)
                        (void)snprintf(value, size, "%s", line + strlen(name));
        (void)fclose(f);
}

static unsigned uid_of(pid_t pid) {
        char value[128];

        status_of(pid, "Uid:", value, sizeof value);
        return (unsigned)strtoul(value, NULL, 10);
}

static struct service *start(void) {
        return service_start(&(struct service_options){ .own_holder_uids = true, .service = HOLDERS });
}

static void test_uids_are_their_own(void **state) {
        struct service *s;
        unsigned one, two;
        char value[128];
        struct agent a;
        struct job j;

        (void)state;
        if (!running_as_root())
                skip_because("holders with uids of their own take root");
        s = start();
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        agent_start(&a);
        agent_ok(&a, "connect %s", s->client);
        one = uid_of(service_holder_of(s, getpid()));
        two = uid_of(service_holder_of(s, a.pid));
        assert_in_range(one, 2000000000, 2000000063);
        assert_in_range(two, 2000000000, 2000000063);
        assert_int_not_equal(one, two);
        status_of(service_holder_of(s, a.pid), "CapEff:", value, sizeof value);
        assert_int_equal(strtoull(value, NULL, 16), 0);
        status_of(service_holder_of(s, a.pid), "NoNewPrivs:", value, sizeof value);
        assert_int_equal(strtoull(value, NULL, 10), 1);
        agent_end(&a);
        job_end(&j);
        service_end(s);
}

static void test_they_come_back(void **state) {
        struct job_snapshot before;
        struct service *s;
        struct job j;

        (void)state;
        if (!running_as_root())
                skip_because("holders with uids of their own take root");
        s = start();
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        job_snapshot(&j, &before);
        for (int i = 0; i < 2; i++) {
                service_kill(s);
                job_assert_dma(&j, JOB_IOVA, 0, PAGE);
                service_launch(s);
                service_wait_recovered(s);
                assert_int_equal(service_sessions(s), 1);
                job_assert_unchanged(&j, &before);
        }
        service_kill_holder(s, getpid());
        service_wait_sessions(s, 0);
        job_end(&j);
        service_end(s);
}

static bool says(const struct service *s, const char *what) {
        Iommud__V1__GetStatusResponse *status = service_status(s);
        bool said = false;

        for (size_t i = 0; i < status->n_degraded; i++)
                said = said || strstr(status->degraded[i], what);
        iommud__v1__get_status_response__free_unpacked(status, NULL);
        return said && service_logged(s, what);
}

/* The socket that holders come back to is its owner's and their group's: without one they stay away, and the operator must not have
 * to find out why. */
static void test_without_a_group_they_cannot_and_that_is_said(void **state) {
        const struct service_options alone = { .own_holder_uids = true, .limits = "recover_seconds = 2\n",
                                               .service = "holder_uids = 2000000000-2000000063\nholder_group =\n" };
        struct service *s;
        struct agent a;

        (void)state;
        if (!running_as_root())
                skip_because("holders with uids of their own take root");
        s = start();
        assert_false(says(s, "holder_group"));
        service_end(s);
        s = service_start(&alone);
        assert_true(says(s, "holder_group"));
        agent_start(&a);
        agent_ok(&a, "connect %s", s->client);
        service_kill(s);
        service_launch(s);
        service_wait_sessions(s, 0);
        agent_kill(&a);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_uids_are_their_own, harness_teardown),
                cmocka_unit_test_teardown(test_they_come_back, harness_teardown),
                cmocka_unit_test_teardown(test_without_a_group_they_cannot_and_that_is_said, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
