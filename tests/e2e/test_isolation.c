/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I2, I8: nobody reaches what is another's: not by guessing ids, not with another's token, not with the device that
 * another had before, and not at the addresses that another uses.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/agent.h"
#include "lib/edu.h"
#include "lib/job.h"
#include "lib/raw_client.h"

/* ---- ids ---- */

/* Everything that the wire offers with the other session's ids. Answers must be those of ids that never were. */
static void assert_untouchable(struct raw_client *c, uint64_t domain, uint64_t memory, uint64_t attachment) {
        const uint64_t never = 999999999;
        char text[512];
        uint64_t own, id;
        size_t n;
        int fd;

        raw_must(raw_create_domain(c, NULL, &own));
        assert_int_equal(raw_describe_domain(c, domain), IOMMUD_REASON_UNKNOWN_DOMAIN);
        assert_int_equal(raw_list_mappings(c, domain, &n), IOMMUD_REASON_UNKNOWN_DOMAIN);
        assert_int_equal(raw_unmap(c, NULL, domain, JOB_IOVA, PAGE), IOMMUD_REASON_UNKNOWN_DOMAIN);
        assert_int_equal(raw_unmap_all(c, NULL, domain), IOMMUD_REASON_UNKNOWN_DOMAIN);
        assert_int_equal(raw_attach(c, NULL, domain, "edu1", &id), IOMMUD_REASON_UNKNOWN_DOMAIN);
        assert_int_equal(raw_destroy_domain(c, NULL, domain), IOMMUD_REASON_UNKNOWN_DOMAIN);
        assert_int_equal(raw_map(c, NULL, own, JOB_IOVA, memory, PAGE), IOMMUD_REASON_UNKNOWN_MEMORY);
        assert_int_equal(raw_map(c, NULL, domain, JOB_IOVA, memory, PAGE), IOMMUD_REASON_UNKNOWN_DOMAIN);
        assert_int_equal(raw_unregister(c, NULL, memory), IOMMUD_REASON_UNKNOWN_MEMORY);
        assert_int_equal(raw_detach(c, NULL, attachment), IOMMUD_REASON_UNKNOWN_ATTACHMENT);
        assert_int_equal(raw_device_fd(c, attachment, &fd), IOMMUD_REASON_UNKNOWN_ATTACHMENT);
        /* word for word but for the number */
        (void)raw_unregister(c, NULL, never);
        (void)snprintf(text, sizeof text, "this session has no memory object %llu", (unsigned long long)never);
        assert_string_equal(raw_text(), text);
        (void)raw_unregister(c, NULL, memory);
        (void)snprintf(text, sizeof text, "this session has no memory object %llu", (unsigned long long)memory);
        assert_string_equal(raw_text(), text);
        raw_must(raw_destroy_domain(c, NULL, own));
}

static void test_foreign_ids_are_unknown(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct raw_client c;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        raw_open(&c, s->client);
        assert_untouchable(&c, iommud_domain_id(j.domain), iommud_memory_id(j.memory), iommud_attachment_id(j.device));
        assert_int_equal(job_mappings(j.domain), 1);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        raw_close(&c);
        job_end(&j);
        service_end(s);
}

/* The same of another tenant, and of a session that has ended. */
static void test_foreign_ids_of_another_tenant(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        uint64_t domain, memory, attachment;
        char directory[128];
        struct raw_client c;
        struct job j;

        (void)state;
        service_add_tenant(s, "other", directory, sizeof directory);
        job_begin(&j, s->client, "edu0", PAGE);
        job_map(&j);
        domain = iommud_domain_id(j.domain);
        memory = iommud_memory_id(j.memory);
        attachment = iommud_attachment_id(j.device);
        raw_open(&c, directory);
        assert_untouchable(&c, domain, memory, attachment);
        job_end(&j);
        service_wait_sessions(s, 1);
        assert_untouchable(&c, domain, memory, attachment);
        raw_close(&c);
        service_end(s);
}

/* ---- identity ---- */

static unsigned reason_with_token(struct service *s, const char *token) {
        Iommud__V1__GetQuotaRequest q = IOMMUD__V1__GET_QUOTA_REQUEST__INIT;
        struct raw_client c = { .session = -1 };
        struct raw_refusal r;

        (void)snprintf(c.directory, sizeof c.directory, "%s", s->client);
        (void)snprintf(c.token, sizeof c.token, "%s", token);
        raw_reconnect(&c);
        (void)raw_call(&c, "GetQuota", &q.base, NULL, NULL, &r);
        raw_close(&c);
        return r.reason;
}

/* Same uid, same program, another process: the token is worth nothing there (I8). */
static void test_token_of_another_process(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        char token[64];
        struct agent a;

        (void)state;
        agent_start(&a);
        (void)snprintf(token, sizeof token, "%s", agent_ok(&a, "session %s", s->client));
        assert_int_equal(strlen(token), 32);
        assert_int_equal(reason_with_token(s, token), IOMMUD_REASON_UNKNOWN_SESSION);
        assert_int_equal(reason_with_token(s, "0123456789abcdef0123456789abcdef"), IOMMUD_REASON_UNKNOWN_SESSION);
        assert_int_equal(reason_with_token(s, "short"), IOMMUD_REASON_UNKNOWN_SESSION);
        agent_kill(&a);
        service_wait_sessions(s, 0);
        assert_int_equal(reason_with_token(s, token), IOMMUD_REASON_UNKNOWN_SESSION);
        service_end(s);
}

/* Through another tenant's socket, the same process is another tenant. */
static void test_token_through_another_tenants_socket(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        Iommud__V1__GetQuotaRequest q = IOMMUD__V1__GET_QUOTA_REQUEST__INIT;
        struct raw_client c, thief;
        char directory[128];
        struct raw_refusal r;

        (void)state;
        service_add_tenant(s, "other", directory, sizeof directory);
        raw_open(&c, s->client);
        thief = c;
        thief.grpc = NULL;
        (void)snprintf(thief.directory, sizeof thief.directory, "%s", directory);
        raw_reconnect(&thief);
        (void)raw_call(&thief, "GetQuota", &q.base, NULL, NULL, &r);
        assert_int_equal(r.reason, IOMMUD_REASON_UNKNOWN_SESSION);
        thief.session = -1;
        raw_close(&thief);
        raw_close(&c);
        service_end(s);
}

/* A uid that no rule names gets EACCES, and the audit has a row of it. */
static void test_unknown_uid(void **state) {
        struct service *s;
        struct agent a;

        (void)state;
        if (!running_as_root())
                skip_because("another uid takes root");
        s = service_start(&(struct service_options){ .tenants = "[tenant one]\nrule = uid:54321\n" });
        agent_start(&a);
        agent_ok(&a, "uid 54322");
        assert_non_null(strstr(agent_refused(&a, EACCES, IOMMUD_REASON_UNKNOWN_PEER, "connect %s", s->client),
                               "54322"));
        agent_end(&a);
        agent_start(&a);
        agent_ok(&a, "uid 54321");
        agent_ok(&a, "connect %s", s->client);
        agent_ok(&a, "domain");
        assert_int_equal(service_used(s, "one", IOMMUD_RESOURCE_DOMAINS), 1);
        agent_end(&a);
        service_wait_sessions(s, 0);
        service_stop(s);
        assert_true(service_audit_rows(s, "peer.refused") >= 1);
        assert_true(service_audit_rows(s, "session.opened") >= 1);
        service_end(s);
}

/* Two uids, two tenants, each charged for its own. */
static void test_two_tenants_by_uid(void **state) {
        struct service *s;
        struct agent a, b;

        (void)state;
        if (!running_as_root())
                skip_because("other uids take root");
        s = service_start(&(struct service_options){ .tenants = "[tenant one]\nrule = uid:54321\nlocked_bytes = 8K\n"
                                                               "[tenant two]\nrule = uid:54322\nlocked_bytes = 8K\n" });
        agent_start(&a);
        agent_start(&b);
        agent_ok(&a, "uid 54321");
        agent_ok(&b, "uid 54322");
        agent_ok(&a, "connect %s", s->client);
        agent_ok(&b, "connect %s", s->client);
        agent_ok(&a, "domain");
        agent_ok(&b, "domain");
        agent_ok(&a, "alloc 16384");
        agent_ok(&b, "alloc 16384");
        agent_ok(&a, "map 0 0x100000 0 0 8192 3");
        agent_refused(&a, EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, "map 0 0x200000 0 8192 4096 3");
        agent_ok(&b, "map 0 0x100000 0 0 4096 3");              /* the same address in a domain of its own */
        assert_int_equal(service_used(s, "one", IOMMUD_RESOURCE_LOCKED_BYTES), 8192);
        assert_int_equal(service_used(s, "two", IOMMUD_RESOURCE_LOCKED_BYTES), 4096);
        agent_ok(&a, "attach 0 edu0");
        agent_refused(&b, EBUSY, IOMMUD_REASON_DEVICE_BUSY, "attach 0 edu0");
        agent_end(&a);
        service_wait_sessions(s, 1);
        agent_ok(&b, "attach 0 edu0");
        assert_int_equal(service_used(s, "two", IOMMUD_RESOURCE_LOCKED_BYTES), 4096);
        agent_end(&b);
        service_end(s);
}

/* ---- memory ---- */

/* Two domains use the same addresses for different memory: each device finds its own. */
static void test_same_address_in_two_domains(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct job a, b;

        (void)state;
        job_begin(&a, s->client, "edu0", (uint64_t)2 * PAGE);
        job_begin(&b, s->client, "edu1", (uint64_t)2 * PAGE);
        job_map(&a);
        job_map(&b);
        memset(b.bytes, 0x55, (size_t)2 * PAGE);
        job_assert_dma(&a, JOB_IOVA, 0, PAGE);
        for (size_t i = 0; i < (size_t)2 * PAGE; i++)
                assert_int_equal(b.bytes[i], 0x55);
        must(iommud_unmap_all(a.domain, NULL));
        job_assert_dma(&b, JOB_IOVA, 0, PAGE);
        job_assert_no_dma(&a, JOB_IOVA);
        job_end(&a);
        job_end(&b);
        service_end(s);
}

/* The client dies in the middle of a transfer; whoever gets its device next does not reach its memory. */
static void test_client_killed_during_transfer(void **state) {
        struct service *s = service_start(&(struct service_options){
                .soft = "devices = edu0\ndma_delay_us = 300000\n" });
        struct agent a;
        struct job j;

        (void)state;
        agent_start(&a);
        agent_ok(&a, "connect %s", s->client);
        agent_ok(&a, "domain");
        agent_ok(&a, "attach 0 edu0");
        agent_ok(&a, "alloc 8192");
        agent_ok(&a, "map 0 0x%x 0 0 8192 3", JOB_IOVA);
        agent_ok(&a, "start 0 0x%x to", JOB_IOVA);              /* ends in 300 ms */
        agent_kill(&a);
        service_wait_sessions(s, 0);
        service_assert_nothing_used(s, "me");
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_assert_no_dma(&j, JOB_IOVA);                        /* nothing is there for it */
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_foreign_ids_are_unknown, harness_teardown),
                cmocka_unit_test_teardown(test_foreign_ids_of_another_tenant, harness_teardown),
                cmocka_unit_test_teardown(test_token_of_another_process, harness_teardown),
                cmocka_unit_test_teardown(test_token_through_another_tenants_socket, harness_teardown),
                cmocka_unit_test_teardown(test_unknown_uid, harness_teardown),
                cmocka_unit_test_teardown(test_two_tenants_by_uid, harness_teardown),
                cmocka_unit_test_teardown(test_same_address_in_two_domains, harness_teardown),
                cmocka_unit_test_teardown(test_client_killed_during_transfer, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
