/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Ids and names that mean nothing: refused alike whether they never were, are gone, or belong to somebody else. (What
 * another session may not reach: tests/e2e/test_isolation.c.)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/job.h"
#include "lib/raw_client.h"
#include "util/cleanup.h"

static const uint64_t strange[] = { 0, 1, 999999999, 1ULL << 63, UINT64_MAX };

static void test_ids(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        uint64_t domain, gone, memory, id;
        int fd = raw_memfd(PAGE), device;
        struct raw_client c;
        size_t n;

        (void)state;
        raw_open(&c, s->client);
        raw_must(raw_create_domain(&c, NULL, &domain));
        raw_must(raw_create_domain(&c, NULL, &gone));
        raw_must(raw_destroy_domain(&c, NULL, gone));
        raw_must(raw_register(&c, NULL, fd, PAGE, &memory));
        for (size_t i = 0; i <= ARRAY_SIZE(strange); i++) {
                uint64_t no = i < ARRAY_SIZE(strange) ? strange[i] : gone;

                if (no == domain || no == memory)
                        continue;
                assert_int_equal(raw_describe_domain(&c, no), IOMMUD_REASON_UNKNOWN_DOMAIN);
                assert_int_equal(raw_list_mappings(&c, no, &n), IOMMUD_REASON_UNKNOWN_DOMAIN);
                assert_int_equal(raw_destroy_domain(&c, NULL, no), IOMMUD_REASON_UNKNOWN_DOMAIN);
                assert_int_equal(raw_map(&c, NULL, no, JOB_IOVA, memory, PAGE), IOMMUD_REASON_UNKNOWN_DOMAIN);
                assert_int_equal(raw_unmap(&c, NULL, no, JOB_IOVA, PAGE), IOMMUD_REASON_UNKNOWN_DOMAIN);
                assert_int_equal(raw_unmap_all(&c, NULL, no), IOMMUD_REASON_UNKNOWN_DOMAIN);
                assert_int_equal(raw_attach(&c, NULL, no, "edu0", &id), IOMMUD_REASON_UNKNOWN_DOMAIN);
                assert_int_equal(raw_map(&c, NULL, domain, JOB_IOVA, no, PAGE), IOMMUD_REASON_UNKNOWN_MEMORY);
                assert_int_equal(raw_unregister(&c, NULL, no), IOMMUD_REASON_UNKNOWN_MEMORY);
                assert_int_equal(raw_detach(&c, NULL, no), IOMMUD_REASON_UNKNOWN_ATTACHMENT);
                assert_int_equal(raw_device_fd(&c, no, &device), IOMMUD_REASON_UNKNOWN_ATTACHMENT);
                assert_int_equal(raw_register_ticket(&c, NULL, no + 77, PAGE, &id), IOMMUD_REASON_UNKNOWN_TICKET);
        }
        /* an id of one kind is none of another */
        assert_int_equal(raw_map(&c, NULL, memory, JOB_IOVA, memory, PAGE), IOMMUD_REASON_UNKNOWN_DOMAIN);
        assert_int_equal(raw_map(&c, NULL, domain, JOB_IOVA, domain, PAGE), IOMMUD_REASON_UNKNOWN_MEMORY);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_MAPPINGS), 0);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_DOMAINS), 1);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_MEMORY_OBJECTS), 1);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_DEVICES), 0);
        raw_close(&c);
        close(fd);
        service_end(s);
}

static void test_a_ticket_serves_once(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        int fd = raw_memfd(PAGE);
        uint64_t ticket, id;
        struct raw_client c;

        (void)state;
        raw_open(&c, s->client);
        ticket = raw_send_memory(&c, fd);
        raw_must(raw_register_ticket(&c, NULL, ticket, PAGE, &id));
        assert_int_equal(raw_register_ticket(&c, NULL, ticket, PAGE, &id), IOMMUD_REASON_UNKNOWN_TICKET);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_MEMORY_OBJECTS), 1);
        raw_close(&c);
        close(fd);
        service_end(s);
}

static void test_devices(void **state) {
        char tenants[256], name[300];
        struct iommud_attachment *a;
        struct iommud_device *list;
        struct service *s;
        struct job j;
        size_t n;

        (void)state;
        (void)snprintf(tenants, sizeof tenants, "[tenant me]\nrule = uid:%u\nallowed_devices = edu1\n", getuid());
        s = service_start(&(struct service_options){ .tenants = tenants });
        job_begin(&j, s->client, NULL, PAGE);
        refused(iommud_device_attach(j.domain, "edu7", &a), ENODEV, IOMMUD_REASON_UNKNOWN_DEVICE, NULL);
        refused(iommud_device_attach(j.domain, "", &a), EINVAL, IOMMUD_REASON_BAD_NAME, NULL);
        memset(name, 'x', sizeof name - 1);
        name[sizeof name - 1] = '\0';
        refused(iommud_device_attach(j.domain, name, &a), EINVAL, IOMMUD_REASON_BAD_NAME, NULL);
        refused(iommud_device_attach(j.domain, "../../../etc/passwd", &a), ENODEV, IOMMUD_REASON_UNKNOWN_DEVICE, NULL);
        assert_true(iommud_device_attach(j.domain, "edu0", &a) < 0);    /* there, but not for us */
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_DEVICES), 0);
        must(iommud_device_list(j.client, &list, &n));
        assert_int_equal(n, 1);
        assert_string_equal(list[0].name, "edu1");
        iommud_device_list_free(list, n);
        must(iommud_device_attach(j.domain, "edu1", &a));
        refused(iommud_device_attach(j.domain, "edu1", &a), EBUSY, IOMMUD_REASON_DEVICE_BUSY, NULL);
        job_end(&j);
        service_end(s);
}

static void test_labels(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct iommud_client *c = job_connect(s->client);
        struct iommud_domain *d;
        char label[200];

        (void)state;
        memset(label, 'l', sizeof label - 1);
        label[sizeof label - 1] = '\0';
        assert_true(iommud_domain_create(c, label, &d) < 0);
        assert_true(strlen(iommud_last_error()) > 10);
        assert_int_equal(job_used(c, IOMMUD_RESOURCE_DOMAINS), 0);
        label[63] = '\0';
        must(iommud_domain_create(c, label, &d));
        iommud_close(c);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_ids, harness_teardown),
                cmocka_unit_test_teardown(test_a_ticket_serves_once, harness_teardown),
                cmocka_unit_test_teardown(test_devices, harness_teardown),
                cmocka_unit_test_teardown(test_labels, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
