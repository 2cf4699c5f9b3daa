/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Tenants change at run time: made and deleted by the operator, with sockets of their own, and by reloading the
 * configuration.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/job.h"

static int connect_error(const char *directory, struct iommud_error *e) {
        const struct iommud_connect_options o = { .size = sizeof o, .directory = directory };
        struct iommud_client *c;
        int r = iommud_connect(&o, &c);

        *e = (struct iommud_error){ .size = sizeof *e };
        if (r == 0)
                iommud_close(c);
        else
                assert_int_equal(iommud_error_detail(e), 0);
        return r;
}

static void delete_tenant(struct service *s, const char *name, int status) {
        Iommud__V1__DeleteTenantRequest request = IOMMUD__V1__DELETE_TENANT_REQUEST__INIT;
        char message[512];
        int got;

        request.name = (char *)name;
        got = service_operate(s, "DeleteTenant", &request.base, NULL, NULL, message, sizeof message);
        if (got != status)
                fail_msg("DeleteTenant %s: %d %s", name, got, message);
}

static void test_own_sockets(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        char directory[128];
        struct iommud_error e;
        struct job j;

        (void)state;
        service_add_tenant(s, "guest", directory, sizeof directory);
        job_begin(&j, directory, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        assert_int_equal(service_used(s, "guest", IOMMUD_RESOURCE_LOCKED_BYTES), 2 * PAGE);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_SESSIONS), 0);
        delete_tenant(s, "guest", 9);                           /* in use */
        job_end(&j);
        service_wait_sessions(s, 0);
        delete_tenant(s, "guest", 0);
        assert_true(connect_error(directory, &e) < 0);
        delete_tenant(s, "guest", 5);                           /* no such */
        service_add_tenant(s, "guest", directory, sizeof directory);
        job_begin(&j, directory, "edu0", (uint64_t)2 * PAGE);   /* anew, in the same place */
        job_end(&j);
        service_end(s);
}

/* Tenants and their sockets are there again after a restart, and so are sessions that came through them. */
static void test_own_sockets_survive(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        char directory[128];
        struct job j, k;

        (void)state;
        service_add_tenant(s, "guest", directory, sizeof directory);
        job_begin(&j, directory, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        assert_int_equal(job_mappings(j.domain), 1);
        must(iommud_unmap_all(j.domain, NULL));
        job_begin(&k, directory, NULL, PAGE);
        assert_int_equal(service_used(s, "guest", IOMMUD_RESOURCE_SESSIONS), 2);
        job_end(&k);
        job_end(&j);
        service_end(s);
}

static void test_own_sockets_from_the_file(void **state) {
        struct service *s = service_start(&(struct service_options){ .tenants = "[tenant boxed]\nown_socket = yes\n" });
        char directory[128];
        struct iommud_error e;
        struct job j;

        (void)state;
        (void)snprintf(directory, sizeof directory, "%s/tenants/boxed", s->runtime);
        job_begin(&j, directory, NULL, PAGE);
        assert_int_equal(service_used(s, "boxed", IOMMUD_RESOURCE_SESSIONS), 1);
        assert_int_equal(connect_error(s->client, &e), -EACCES);        /* through the common socket it is nobody */
        assert_int_equal(e.reason, IOMMUD_REASON_UNKNOWN_PEER);
        job_end(&j);
        service_end(s);
}

/* ---- reload ---- */

static void reload(struct service *s, const char *tenants, const char *text) {
        service_write_config(s, &(struct service_options){ .tenants = tenants });
        assert_int_equal(kill(s->pid, SIGHUP), 0);
        wait_for(service_logged(s, text));
}

static void test_reload_changes_quotas(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct iommud_error e;
        char tenants[128];
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)4 * PAGE);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, (uint64_t)2 * PAGE, IOMMUD_READ_WRITE));
        (void)snprintf(tenants, sizeof tenants, "[tenant me]\nrule = uid:%u\nlocked_bytes = 4K\n", getuid());
        reload(s, tenants, "reloaded");
        /* below what is used: that stays, more is refused */
        refused(iommud_map(j.domain, 0x200000, j.memory, (uint64_t)3 * PAGE, PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.limit, 4096);
        assert_int_equal(e.used, 8192);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        must(iommud_unmap_all(j.domain, NULL));
        must(iommud_map(j.domain, 0x200000, j.memory, 0, PAGE, IOMMUD_READ));
        job_end(&j);
        service_end(s);
}

static void test_reload_removes_and_adds_tenants(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        char tenants[128], directory[128];
        struct iommud_error e;
        struct job j, k;

        (void)state;
        job_begin(&j, s->client, NULL, PAGE);
        reload(s, "[tenant boxed]\nown_socket = yes\n", "reloaded");
        assert_int_equal(connect_error(s->client, &e), -EACCES);
        assert_int_equal(e.reason, IOMMUD_REASON_UNKNOWN_PEER);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ));   /* open sessions go on */
        (void)snprintf(directory, sizeof directory, "%s/tenants/boxed", s->runtime);
        job_begin(&k, directory, NULL, PAGE);
        job_end(&k);
        (void)snprintf(tenants, sizeof tenants, "[tenant me]\nrule = uid:%u\n", getuid());
        service_write_config(s, &(struct service_options){ .tenants = tenants });
        assert_int_equal(kill(s->pid, SIGHUP), 0);
        wait_for(connect_error(s->client, &e) == 0);
        assert_true(connect_error(directory, &e) < 0);
        job_end(&j);
        service_end(s);
}

/* A tenant that left the file while its session was open: the next service still knows the session. */
static void test_restart_without_the_tenant(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        service_kill(s);
        service_write_config(s, &(struct service_options){ .tenants = "[tenant boxed]\nown_socket = yes\n" });
        service_launch(s);
        service_wait_recovered(s);
        assert_int_equal(service_sessions(s), 1);
        assert_int_equal(connect_error(s->client, &e), -EACCES);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        service_assert_ledger(s);
        job_end(&j);
        service_end(s);
}

static void test_reload_of_nonsense_keeps_the_old(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct iommud_error e;

        (void)state;
        service_write_text(s, "[tenant me]\nrule = uid:no-such-user\n");
        assert_int_equal(kill(s->pid, SIGHUP), 0);
        wait_for(service_logged(s, "not reloaded"));
        assert_true(service_logged(s, ":2: "));
        assert_int_equal(connect_error(s->client, &e), 0);
        service_write_config(s, &(struct service_options){ 0 });
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_own_sockets, harness_teardown),
                cmocka_unit_test_teardown(test_own_sockets_survive, harness_teardown),
                cmocka_unit_test_teardown(test_own_sockets_from_the_file, harness_teardown),
                cmocka_unit_test_teardown(test_reload_changes_quotas, harness_teardown),
                cmocka_unit_test_teardown(test_reload_removes_and_adds_tenants, harness_teardown),
                cmocka_unit_test_teardown(test_restart_without_the_tenant, harness_teardown),
                cmocka_unit_test_teardown(test_reload_of_nonsense_keeps_the_old, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
