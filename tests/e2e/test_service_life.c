/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Starting and stopping: signals, what is wrong with a configuration or a ledger is said with its place, and two
 * services never share a ledger.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/job.h"
#include "util/cleanup.h"

/* It must not start, must not crash, and its log must have the text. */
static void assert_ends_with(struct service *s, int status, const char *text) {
        int code = -1;

        if (service_try_launch(s, &code))
                fail_msg("it started; '%s' was expected", text);
        assert_int_equal(code, status);
        if (!service_logged(s, text))
                fail_msg("its log does not say '%s'", text);
}

static void assert_refuses_to_start(struct service *s, const char *text) {
        assert_ends_with(s, 1, text);
}

static void test_sigterm_is_clean(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });

        (void)state;
        service_stop(s);
        assert_true(service_logged(s, "stopping"));
        service_launch(s);              /* and it starts again in the same place */
        service_end(s);
}

static void test_sigint_is_clean(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });

        (void)state;
        assert_int_equal(kill(s->pid, SIGINT), 0);
        assert_int_equal(harness_wait(s->pid, HARNESS_PATIENCE_MS), 0);
        s->pid = -1;
        service_end(s);
}

/* iommud --private=DIR needs no configuration, and takes its sessions with it. */
static void test_private(void **state) {
        struct service *s = service_new(&(struct service_options){ 0 });
        char program[4096], option[128];
        char *argv[] = { program, option, NULL };
        struct job j;

        (void)state;
        harness_program("iommud", program, sizeof program);
        (void)snprintf(option, sizeof option, "--private=%s", s->directory);
        assert_int_equal(chmod(s->directory, 0700), 0);
        s->pid = harness_spawn(argv, -1, -1, s->log);
        wait_for(access(s->operator_socket, F_OK) == 0 && service_logged(s, "serves on"));
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        service_stop(s);
        assert_int_equal(harness_holders(s), 0);
        assert_true(iommud_unmap_all(j.domain, NULL) < 0);
        job_end(&j);
        service_end(s);
}

static void test_unknown_option(void **state) {
        struct service *s = service_new(&(struct service_options){ 0 });
        char program[4096];
        char *argv[] = { program, (char *)"--no-such-option", NULL };

        (void)state;
        harness_program("iommud", program, sizeof program);
        assert_int_equal(harness_wait(harness_spawn(argv, -1, -1, s->log), HARNESS_PATIENCE_MS), 2);
        assert_true(service_logged(s, "--config=FILE"));
        service_end(s);
}

static void test_configuration_errors_name_file_and_line(void **state) {
        static const struct {
                const char *text;
                unsigned line;
                const char *reason;
        } wrong[] = {
                { "[service]\nbackend = hard\n", 2, "'hard' is none of auto, soft, vfio-type1, vfio-spapr" },
                { "[service]\n\nbakend = soft\n", 3, "unknown key 'bakend'" },
                { "[sevrice]\n", 1, "unknown section [sevrice]" },
                { "[service]\nthreads = 0\n", 2, "threads" },
                { "[service]\nthreads = many\n", 2, "'many'" },
                { "backend = soft\n", 1, "before the first [section]" },
                { "[service]\nbackend = soft\nbackend = soft\n", 3, "twice" },
                { "[tenant A]\nrule = uid:1\n", 1, "'A' is no name for a tenant" },
                { "[tenant a]\nlocked_bytes = 1K\n", 1, "nobody could be it" },
                { "[tenant a]\nrule = uid:no-such-user\n", 2, "no user 'no-such-user'" },
                { "[tenant a]\nrule = uid:1\n[tenant a]\nrule = uid:2\n", 3, "twice" },
                { "[soft]\npage_sizes = 5000\n", 2, "not a power of two" },
                { "[soft]\naperture = 7\n", 2, "not a range" },
                { "[defaults]\nmappings = -1\n", 2, "'-1'" },
                { "[service]\nthis is nonsense\n", 2, "" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                struct service *s = service_new(&(struct service_options){ 0 });
                char place[128];

                service_write_text(s, "%s", wrong[i].text);
                (void)snprintf(place, sizeof place, "%s:%u: ", s->config, wrong[i].line);
                assert_refuses_to_start(s, place);
                if (!service_logged(s, wrong[i].reason))
                        fail_msg("no '%s' for: %s", wrong[i].reason, wrong[i].text);
                service_end(s);
        }
}

static void test_missing_configuration(void **state) {
        struct service *s = service_new(&(struct service_options){ 0 });
        char place[128];

        (void)state;
        assert_int_equal(unlink(s->config), 0);
        (void)snprintf(place, sizeof place, "%s: No such file or directory", s->config);
        assert_refuses_to_start(s, place);
        service_end(s);
}

/* A software IOMMU that cannot be: whoever attaches first is told what is wrong with it. */
static void test_impossible_personality(void **state) {
        struct service *s = service_start(&(struct service_options){
                .soft = "page_sizes = 4K\naperture = 0x0-0xffffffffffffffff\n" });
        struct iommud_attachment *a;
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, PAGE);
        refused(iommud_device_attach(j.domain, "edu0", &a), ENOTSUP, IOMMUD_REASON_UNSUPPORTED, &e);
        assert_non_null(strstr(e.text, "48 address bits"));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_DEVICES), 0);
        job_end(&j);
        service_end(s);
}

static void test_two_services_on_one_ledger(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 }), *second;
        char pid[32], runtime[80];
        struct job j;

        (void)state;
        second = service_new(&(struct service_options){ 0 });
        (void)snprintf(runtime, sizeof runtime, "%s", second->runtime);
        service_write_text(second,
                           "[service]\nbackend = soft\nstate_directory = %s\nruntime_directory = %s\nholder_uids =\n"
                                   "[tenant me]\nrule = uid:%u\n", s->state, runtime, getuid());
        (void)snprintf(pid, sizeof pid, "%d", s->pid);
        assert_refuses_to_start(second, pid);
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);           /* the first one goes on */
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        job_end(&j);
        service_end(second);
        service_end(s);
}

/* The same runtime folder, another ledger: the sockets of the first one are not taken from it. */
static void test_two_services_on_one_socket(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 }), *second;
        int code = -1;
        struct job j;

        (void)state;
        second = service_new(&(struct service_options){ 0 });
        service_write_text(second,
                           "[service]\nbackend = soft\nstate_directory = %s\nruntime_directory = %s\nholder_uids =\n"
                                   "[tenant me]\nrule = uid:%u\n", second->state, s->runtime, getuid());
        assert_false(service_try_launch(second, &code));
        assert_int_equal(code, 1);
        assert_true(service_logged(second, ".sock"));
        job_begin(&j, s->client, NULL, PAGE);
        service_kill(s);                /* holders come back to the first one's own socket */
        service_launch(s);
        service_wait_recovered(s);
        assert_int_equal(service_sessions(s), 1);
        assert_int_equal(job_mappings(j.domain), 0);
        job_end(&j);
        service_end(second);
        service_end(s);
}

static void write_file(const char *directory, const char *name, const char *text) {
        char path[160];
        FILE *f;

        (void)snprintf(path, sizeof path, "%s/%s", directory, name);
        f = fopen(path, "we");
        assert_non_null(f);
        (void)fputs(text, f);
        (void)fclose(f);
}

static void test_ledger_that_is_none(void **state) {
        static const char *const names[] = { "state.db", "config.db" };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                struct service *s = service_new(&(struct service_options){ 0 });
                char path[160], text[64] = "";
                FILE *f;

                assert_int_equal(mkdir(s->state, 0700), 0);
                write_file(s->state, names[i], "this is a shopping list, not a database\n");
                assert_ends_with(s, EX_DATAERR, names[i]);      /* another try will find no other */
                (void)snprintf(path, sizeof path, "%s/%s", s->state, names[i]);
                f = fopen(path, "re");
                assert_non_null(f);
                assert_non_null(fgets(text, sizeof text, f));
                (void)fclose(f);
                assert_non_null(strstr(text, "shopping"));      /* and was not overwritten */
                service_end(s);
        }
}

static void test_state_directory_that_cannot_be(void **state) {
        struct service *s = service_new(&(struct service_options){ 0 });

        (void)state;
        write_file(s->directory, "state", "a file is in the way\n");
        assert_refuses_to_start(s, s->state);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_sigterm_is_clean, harness_teardown),
                cmocka_unit_test_teardown(test_sigint_is_clean, harness_teardown),
                cmocka_unit_test_teardown(test_private, harness_teardown),
                cmocka_unit_test_teardown(test_unknown_option, harness_teardown),
                cmocka_unit_test_teardown(test_configuration_errors_name_file_and_line, harness_teardown),
                cmocka_unit_test_teardown(test_missing_configuration, harness_teardown),
                cmocka_unit_test_teardown(test_impossible_personality, harness_teardown),
                cmocka_unit_test_teardown(test_two_services_on_one_ledger, harness_teardown),
                cmocka_unit_test_teardown(test_two_services_on_one_socket, harness_teardown),
                cmocka_unit_test_teardown(test_ledger_that_is_none, harness_teardown),
                cmocka_unit_test_teardown(test_state_directory_that_cannot_be, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
