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
        refused(iommud_map(j.domain, 0x800000, j.memory, (uint64_t)20 * PAGE, (uint64_t)2 * PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_LOCKED_BYTES, 65536, 15 * PAGE, 2 * PAGE);
        job_assert_unchanged(&j, &before);
        must(iommud_map(j.domain, 0x800000, j.memory, (uint64_t)20 * PAGE, PAGE, IOMMUD_READ));         /* exactly */
        refused(iommud_map(j.domain, 0x900000, j.memory, (uint64_t)21 * PAGE, PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_numbers(&e, IOMMUD_RESOURCE_LOCKED_BYTES, 65536, 65536, PAGE);
        must(iommud_unmap(j.domain, 0x800000, PAGE));
        must(iommud_map(j.domain, 0x900000, j.memory, (uint64_t)21 * PAGE, PAGE, IOMMUD_READ));         /* given back */
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
        refused(iommud_map(b.domain, 0x200000, b.memory, PAGE, PAGE, IOMMUD_READ), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED,
                &e);
        assert_numbers(&e, IOMMUD_RESOURCE_LOCKED_BYTES, 16384, 16384, PAGE);
        job_end(&a);
        service_wait_sessions(s, 1);
        must(iommud_map(b.domain, 0x200000, b.memory, PAGE, (uint64_t)3 * PAGE, IOMMUD_READ));
        job_end(&b);
        service_end(s);
}

/* ---- lowered ---- */

static void set_quota(const struct service *s, const char *tenant, Iommud__V1__Resource resource, uint64_t limit) {
        Iommud__V1__UpsertTenantRequest request = IOMMUD__V1__UPSERT_TENANT_REQUEST__INIT;
        Iommud__V1__Quota quota = IOMMUD__V1__QUOTA__INIT, *quotas[] = { &quota };
        Iommud__V1__Tenant t = IOMMUD__V1__TENANT__INIT;
        ProtobufCMessage *answer;
        char message[512];

        quota.resource = resource;
        quota.limit = limit;
        t.name = (char *)tenant;
        t.n_quotas = 1;
        t.quotas = quotas;
        request.tenant = &t;
        request.must_exist = true;
        request.fields = IOMMUD__V1__TENANT_FIELD__TENANT_FIELD_QUOTAS;
        if (service_operate(s, "UpsertTenant", &request.base, &iommud__v1__upsert_tenant_response__descriptor, &answer, message,
                            sizeof message) != 0)
                fail_msg("%s", message);
        protobuf_c_message_free_unpacked(answer, NULL);
}

/* What the operator's list says is in use above the limit. */
static uint64_t over(const struct service *s, const char *tenant) {
        Iommud__V1__ListTenantsRequest request = IOMMUD__V1__LIST_TENANTS_REQUEST__INIT;
        Iommud__V1__ListTenantsResponse *list;
        ProtobufCMessage *answer;
        uint64_t found = UINT64_MAX;
        char message[512];

        if (service_operate(s, "ListTenants", &request.base, &iommud__v1__list_tenants_response__descriptor, &answer, message,
                            sizeof message) != 0)
                fail_msg("%s", message);
        list = (Iommud__V1__ListTenantsResponse *)answer;
        for (size_t i = 0; i < list->n_tenants; i++)
                for (size_t k = 0; k < list->tenants[i]->n_quotas; k++)
                        if (strcmp(list->tenants[i]->name, tenant) == 0 &&
                            list->tenants[i]->quotas[k]->resource == IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES)
                                found = list->tenants[i]->quotas[k]->over;
        protobuf_c_message_free_unpacked(answer, NULL);
        return found;
}

/* Below what is in use: nothing is taken away, more is refused, and the excess is shown until it is gone. */
static void test_lowered(void **state) {
        struct service *s = service_start(&(struct service_options){ .soft = "devices = edu0\ndma_delay_us = 1\n" });
        struct iommud_error e;
        char directory[160];
        struct job j;

        (void)state;
        service_add_tenant(s, "tight", directory, sizeof directory);
        job_begin(&j, directory, "edu0", (uint64_t)16 * PAGE);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, (uint64_t)8 * PAGE, IOMMUD_READ_WRITE));
        must(iommud_map(j.domain, 0x800000, j.memory, (uint64_t)8 * PAGE, (uint64_t)4 * PAGE, IOMMUD_READ_WRITE));
        set_quota(s, "tight", IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES, (uint64_t)6 * PAGE);
        assert_int_equal(over(s, "tight"), 6 * PAGE);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 12 * PAGE);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        refused(iommud_map(j.domain, 0x900000, j.memory, (uint64_t)12 * PAGE, PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.limit, 6 * PAGE);
        assert_int_equal(e.used, 12 * PAGE);
        must(iommud_unmap(j.domain, JOB_IOVA, (uint64_t)8 * PAGE));
        assert_int_equal(over(s, "tight"), 0);
        must(iommud_map(j.domain, 0x900000, j.memory, (uint64_t)12 * PAGE, (uint64_t)2 * PAGE, IOMMUD_READ));
        refused(iommud_map(j.domain, 0xa00000, j.memory, (uint64_t)14 * PAGE, PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
        job_end(&j);
        service_wait_sessions(s, 0);
        service_assert_nothing_used(s, "tight");
        service_end(s);
}

/* A quota that is raised is raised for the sessions that are open, too. */
static void test_raised(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct iommud_memory *m[3];
        struct iommud_client *c;
        char directory[160];

        (void)state;
        service_add_tenant(s, "poor", directory, sizeof directory);
        set_quota(s, "poor", IOMMUD__V1__RESOURCE__RESOURCE_MEMORY_OBJECTS, 0);
        c = job_connect(directory);
        refused(iommud_memory_alloc(c, PAGE, NULL, &m[0]), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
        set_quota(s, "poor", IOMMUD__V1__RESOURCE__RESOURCE_MEMORY_OBJECTS, 2);
        must(iommud_memory_alloc(c, PAGE, NULL, &m[0]));
        must(iommud_memory_alloc(c, PAGE, NULL, &m[1]));
        refused(iommud_memory_alloc(c, PAGE, NULL, &m[2]), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
        iommud_close(c);
        service_wait_sessions(s, 0);
        service_assert_nothing_used(s, "poor");
        service_end(s);
}

/* ---- who holds it ---- */

static void test_a_refusal_names_the_domains_that_hold_most(void **state) {
        struct service *s = start_with("locked_bytes = 64K\n");
        struct iommud_domain *big, *small;
        struct iommud_error e;
        char words[128];
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, (uint64_t)32 * PAGE);
        must(iommud_domain_create(j.client, "small", &small));
        must(iommud_domain_create(j.client, "big", &big));
        must(iommud_map(small, JOB_IOVA, j.memory, 0, (uint64_t)2 * PAGE, IOMMUD_READ));
        must(iommud_map(big, JOB_IOVA, j.memory, (uint64_t)2 * PAGE, (uint64_t)13 * PAGE, IOMMUD_READ));
        refused(iommud_map(j.domain, JOB_IOVA, j.memory, (uint64_t)20 * PAGE, (uint64_t)2 * PAGE, IOMMUD_READ), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        (void)snprintf(words, sizeof words, "domain %llu 'big' holds 52K, domain %llu 'small' holds 8K",
                       (unsigned long long)iommud_domain_id(big), (unsigned long long)iommud_domain_id(small));
        assert_non_null(strstr(e.text, words));
        job_end(&j);
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
                cmocka_unit_test_teardown(test_lowered, harness_teardown),
                cmocka_unit_test_teardown(test_raised, harness_teardown),
                cmocka_unit_test_teardown(test_a_refusal_names_the_domains_that_hold_most, harness_teardown),
                cmocka_unit_test_teardown(test_zero, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
