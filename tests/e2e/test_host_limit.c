/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * What all tenants together may lock is limited, whatever their quotas promise: who comes last is refused, with the host's
 * numbers and nobody's name; an operator sees limit, use and promise, and can change the limit at run time.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/job.h"

/* Two tenants that were promised 64K each, of a host that has 96K. */
static const char *text(char *buffer, size_t size, const char *host) {
        (void)snprintf(buffer, size, "[host]\n%s[tenant me]\nrule = uid:%u\nlocked_bytes = 64K\n"
                       "[tenant neighbour]\nown_socket = yes\nlocked_bytes = 64K\n", host, getuid());
        return buffer;
}

static struct service *start(const char *host) {
        char tenants[512];

        return service_start(&(struct service_options){ .tenants = text(tenants, sizeof tenants, host) });
}

static void neighbour_begin(const struct service *s, struct job *j) {
        char directory[160];

        (void)snprintf(directory, sizeof directory, "%s/tenants/neighbour", s->runtime);
        job_begin(j, directory, NULL, (uint64_t)16 * PAGE);
}

static void test_the_last_one_is_refused(void **state) {
        struct service *s = start("locked_bytes = 96K\n");
        struct iommud_error e;
        struct job j, k;

        (void)state;
        job_begin(&j, s->client, NULL, (uint64_t)16 * PAGE);
        neighbour_begin(s, &k);
        must(iommud_map(k.domain, JOB_IOVA, k.memory, 0, (uint64_t)16 * PAGE, IOMMUD_READ));
        refused(iommud_map(j.domain, JOB_IOVA, j.memory, 0, (uint64_t)9 * PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_LIMIT_EXCEEDED, &e);
        assert_int_equal(e.resource, IOMMUD_RESOURCE_LOCKED_BYTES);
        assert_int_equal(e.limit, 96 << 10);
        assert_int_equal(e.used, 64 << 10);
        assert_int_equal(e.asked, 36 << 10);
        assert_non_null(strstr(e.text, "this host allows 96K locked-bytes to all tenants together"));
        assert_null(strstr(e.text, "neighbour"));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, (uint64_t)8 * PAGE, IOMMUD_READ));     /* exactly */
        job_end(&k);
        service_wait_sessions(s, 1);
        must(iommud_map(j.domain, 0x800000, j.memory, (uint64_t)8 * PAGE, (uint64_t)8 * PAGE, IOMMUD_READ));
        job_end(&j);
        service_end(s);
}

static void assert_host(const struct service *s, uint64_t limit, uint64_t used, uint64_t promised) {
        Iommud__V1__GetStatusResponse *status = service_status(s);

        assert_int_equal(status->n_host, 2);
        assert_int_equal(status->host[0]->resource, IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES);
        assert_int_equal(status->host[1]->resource, IOMMUD__V1__RESOURCE__RESOURCE_TABLE_BYTES);
        assert_int_equal(status->host[0]->limit, limit);
        assert_int_equal(status->host[0]->used, used);
        assert_int_equal(status->host[0]->promised, promised);
        iommud__v1__get_status_response__free_unpacked(status, NULL);
}

static void test_status_shows_what_is_promised(void **state) {
        struct service *s = start("locked_bytes = 96K\n");
        char directory[160];
        struct job j;

        (void)state;
        assert_host(s, 96 << 10, 0, 128 << 10);
        job_begin(&j, s->client, NULL, PAGE);
        job_map(&j);
        assert_host(s, 96 << 10, PAGE, 128 << 10);
        service_add_tenant(s, "third", directory, sizeof directory);    /* the default: 64M */
        assert_host(s, 96 << 10, PAGE, (128 << 10) + (64 << 20));
        job_end(&j);
        service_wait_sessions(s, 0);
        assert_host(s, 96 << 10, 0, (128 << 10) + (64 << 20));
        service_end(s);
}

static void test_the_limit_changes_at_run_time(void **state) {
        struct service *s = start("locked_bytes = 4K\n");
        char tenants[512];
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, (uint64_t)16 * PAGE);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ));
        refused(iommud_map(j.domain, 0x800000, j.memory, PAGE, PAGE, IOMMUD_READ), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, NULL);
        service_write_config(s, &(struct service_options){ .tenants = text(tenants, sizeof tenants, "locked_bytes = 8K\n") });
        assert_int_equal(kill(s->pid, SIGHUP), 0);
        wait_for(service_logged(s, "reloaded"));
        must(iommud_map(j.domain, 0x800000, j.memory, PAGE, PAGE, IOMMUD_READ));
        refused(iommud_map(j.domain, 0x900000, j.memory, (uint64_t)2 * PAGE, PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_LIMIT_EXCEEDED, NULL);
        job_end(&j);
        service_end(s);
}

/* A service that comes back counts what is there, also above a limit that was lowered meanwhile. */
static void test_a_restart_counts_again(void **state) {
        struct service *s = start("locked_bytes = 96K\n");
        char tenants[512];
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, (uint64_t)16 * PAGE);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, (uint64_t)4 * PAGE, IOMMUD_READ));
        service_kill(s);
        service_write_config(s, &(struct service_options){ .tenants = text(tenants, sizeof tenants, "locked_bytes = 8K\n") });
        service_launch(s);
        service_wait_recovered(s);
        assert_host(s, 8 << 10, 4 * PAGE, 128 << 10);
        refused(iommud_map(j.domain, 0x800000, j.memory, (uint64_t)4 * PAGE, PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_LIMIT_EXCEEDED, NULL);
        must(iommud_unmap_all(j.domain, NULL));
        must(iommud_map(j.domain, 0x800000, j.memory, (uint64_t)4 * PAGE, (uint64_t)2 * PAGE, IOMMUD_READ));
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_the_last_one_is_refused, harness_teardown),
                cmocka_unit_test_teardown(test_status_shows_what_is_promised, harness_teardown),
                cmocka_unit_test_teardown(test_the_limit_changes_at_run_time, harness_teardown),
                cmocka_unit_test_teardown(test_a_restart_counts_again, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
