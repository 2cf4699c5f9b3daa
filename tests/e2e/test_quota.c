/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I1: exactly the quota can be used, one more is refused with the numbers, and afterwards the balance is zero. Every
 * resource.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/job.h"

static struct service *start_with(const char *quotas) {
        char tenants[512];

        (void)snprintf(tenants, sizeof tenants, "[tenant me]\nrule = uid:%u\n%s", getuid(), quotas);
        return service_start(&(struct service_options){ .tenants = tenants,
                                                        .soft = "devices = edu0 edu1 edu2\ndma_delay_us = 1\n" });
}

static void assert_numbers(const struct iommud_error *e, enum iommud_resource resource, uint64_t limit, uint64_t used,
                           uint64_t asked) {
        assert_int_equal(e->resource, resource);
        assert_int_equal(e->limit, limit);
        assert_int_equal(e->used, used);
        assert_int_equal(e->asked, asked);
        assert_non_null(strstr(e->text, "me"));
}

static void test_locked_bytes(void **state) {
        struct service *s = start_with("locked_bytes = 64K\n");
        struct job_snapshot before;
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, (uint64_t)32 * PAGE);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, (uint64_t)15 * PAGE, IOMMUD_READ_WRITE));
        job_snapshot(&j, &before);
        refused(iommud_map(j.domain, 0x800000, j.memory, 0, (uint64_t)2 * PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_LOCKED_BYTES, 65536, 15 * PAGE, 2 * PAGE);
        job_assert_unchanged(&j, &before);
        must(iommud_map(j.domain, 0x800000, j.memory, 0, PAGE, IOMMUD_READ));           /* exactly */
        refused(iommud_map(j.domain, 0x900000, j.memory, 0, PAGE, IOMMUD_READ), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED,
                &e);
        assert_numbers(&e, IOMMUD_RESOURCE_LOCKED_BYTES, 65536, 65536, PAGE);
        must(iommud_unmap(j.domain, 0x800000, PAGE));
        must(iommud_map(j.domain, 0x900000, j.memory, 0, PAGE, IOMMUD_READ));           /* given back */
        must(iommud_unmap_all(j.domain, NULL));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        job_end(&j);
        service_end(s);
}

static void test_mappings(void **state) {
        struct service *s = start_with("mappings = 8\n");
        struct iommud_map_entry entries[9];
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, (uint64_t)9 * PAGE);
        for (uint64_t i = 0; i < 9; i++)
                entries[i] = (struct iommud_map_entry){ JOB_IOVA + i * 2 * PAGE, j.memory, i * PAGE, PAGE,
                                                        IOMMUD_READ };
        refused(iommud_map_batch(j.domain, entries, 9), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_MAPPINGS, 8, 0, 9);
        assert_int_equal(job_mappings(j.domain), 0);
        must(iommud_map_batch(j.domain, entries, 8));
        refused(iommud_map_batch(j.domain, entries + 8, 1), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_MAPPINGS, 8, 8, 1);
        must(iommud_unmap(j.domain, JOB_IOVA, PAGE));
        must(iommud_map_batch(j.domain, entries + 8, 1));
        must(iommud_domain_destroy(j.domain));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_MAPPINGS), 0);
        job_end(&j);
        service_end(s);
}

static void test_domains(void **state) {
        struct service *s = start_with("domains = 3\n");
        struct iommud_client *c = job_connect(s->client);
        struct iommud_domain *d[4];
        struct iommud_error e;

        (void)state;
        for (int i = 0; i < 3; i++)
                must(iommud_domain_create(c, NULL, &d[i]));
        refused(iommud_domain_create(c, NULL, &d[3]), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_DOMAINS, 3, 3, 1);
        must(iommud_domain_destroy(d[1]));
        must(iommud_domain_create(c, NULL, &d[3]));
        assert_int_equal(job_used(c, IOMMUD_RESOURCE_DOMAINS), 3);
        iommud_close(c);
        service_end(s);
}

static void test_memory_objects(void **state) {
        struct service *s = start_with("memory_objects = 3\n");
        struct iommud_client *c = job_connect(s->client);
        struct iommud_memory *m[4];
        struct iommud_error e;

        (void)state;
        for (int i = 0; i < 3; i++)
                must(iommud_memory_alloc(c, PAGE, NULL, &m[i]));
        refused(iommud_memory_alloc(c, PAGE, NULL, &m[3]), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_MEMORY_OBJECTS, 3, 3, 1);
        must(iommud_memory_close(m[0]));
        must(iommud_memory_alloc(c, PAGE, NULL, &m[3]));
        iommud_close(c);
        service_end(s);
}

static void test_registered_bytes(void **state) {
        struct service *s = start_with("registered_bytes = 64K\n");
        struct iommud_client *c = job_connect(s->client);
        struct iommud_memory *a, *b;
        struct iommud_error e;

        (void)state;
        refused(iommud_memory_alloc(c, 65537, NULL, &a), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_REGISTERED_BYTES, 65536, 0, 65536 + PAGE);
        must(iommud_memory_alloc(c, (uint64_t)15 * PAGE, NULL, &a));
        refused(iommud_memory_alloc(c, (uint64_t)2 * PAGE, NULL, &b), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_REGISTERED_BYTES, 65536, 15 * PAGE, 2 * PAGE);
        must(iommud_memory_alloc(c, PAGE, NULL, &b));
        must(iommud_memory_close(a));
        must(iommud_memory_close(b));
        assert_int_equal(job_used(c, IOMMUD_RESOURCE_REGISTERED_BYTES), 0);
        must(iommud_memory_alloc(c, 65536, NULL, &a));
        iommud_close(c);
        service_end(s);
}

static void test_sessions(void **state) {
        struct service *s = start_with("sessions = 2\n");
        const struct iommud_connect_options o = { .size = sizeof o, .directory = s->client };
        struct iommud_client *a = job_connect(s->client), *b = job_connect(s->client), *c;
        struct iommud_error e;

        (void)state;
        refused(iommud_connect(&o, &c), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_non_null(strstr(e.text, "2 sessions"));
        iommud_close(a);
        service_wait_sessions(s, 1);
        must(iommud_connect(&o, &c));
        iommud_close(b);
        iommud_close(c);
        service_end(s);
}

static void test_devices(void **state) {
        struct service *s = start_with("devices = 2\n");
        struct iommud_attachment *a, *b, *c;
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, PAGE);
        must(iommud_device_attach(j.domain, "edu0", &a));
        must(iommud_device_attach(j.domain, "edu1", &b));
        refused(iommud_device_attach(j.domain, "edu2", &c), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_DEVICES, 2, 2, 1);
        must(iommud_device_detach(a));
        must(iommud_device_attach(j.domain, "edu2", &c));
        job_end(&j);
        service_end(s);
}

/* One tenant's charge, two sessions of it: the sum counts. */
static void test_sessions_share_the_quota(void **state) {
        struct service *s = start_with("locked_bytes = 16K\n");
        struct iommud_error e;
        struct job a, b;

        (void)state;
        job_begin(&a, s->client, NULL, (uint64_t)4 * PAGE);
        job_begin(&b, s->client, NULL, (uint64_t)4 * PAGE);
        must(iommud_map(a.domain, JOB_IOVA, a.memory, 0, (uint64_t)3 * PAGE, IOMMUD_READ));
        must(iommud_map(b.domain, JOB_IOVA, b.memory, 0, PAGE, IOMMUD_READ));
        refused(iommud_map(b.domain, 0x200000, b.memory, 0, PAGE, IOMMUD_READ), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED,
                &e);
        assert_numbers(&e, IOMMUD_RESOURCE_LOCKED_BYTES, 16384, 16384, PAGE);
        job_end(&a);
        service_wait_sessions(s, 1);
        must(iommud_map(b.domain, 0x200000, b.memory, 0, (uint64_t)3 * PAGE, IOMMUD_READ));
        job_end(&b);
        service_end(s);
}

/* Quotas that nothing fits in: everything is refused, and nothing breaks. */
static void test_zero(void **state) {
        struct service *s = start_with("locked_bytes = 0\nmappings = 0\ndevices = 0\n");
        struct iommud_attachment *a;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, PAGE);
        refused(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED,
                NULL);
        refused(iommud_device_attach(j.domain, "edu0", &a), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_locked_bytes, harness_teardown),
                cmocka_unit_test_teardown(test_mappings, harness_teardown),
                cmocka_unit_test_teardown(test_domains, harness_teardown),
                cmocka_unit_test_teardown(test_memory_objects, harness_teardown),
                cmocka_unit_test_teardown(test_registered_bytes, harness_teardown),
                cmocka_unit_test_teardown(test_sessions, harness_teardown),
                cmocka_unit_test_teardown(test_devices, harness_teardown),
                cmocka_unit_test_teardown(test_sessions_share_the_quota, harness_teardown),
                cmocka_unit_test_teardown(test_zero, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
