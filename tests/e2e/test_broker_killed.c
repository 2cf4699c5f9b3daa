/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I6: the service is killed at any moment; DMA and mappings go on without it, the next one takes them over, clients
 * continue with the handles they have, and a request that is repeated with its key has no second effect.
 */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/agent.h"
#include "lib/edu.h"
#include "lib/job.h"
#include "lib/raw_client.h"

static unsigned long agent_rounds(struct agent *a) {
        return strtoul(agent_ok(a, "rounds"), NULL, 10);
}

static void test_dma_goes_on(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct agent a;
        unsigned long before;

        (void)state;
        agent_start(&a);
        agent_ok(&a, "connect %s", s->client);
        agent_ok(&a, "domain");
        agent_ok(&a, "attach 0 edu0");
        agent_ok(&a, "alloc 8192");
        agent_ok(&a, "map 0 0x100000 0 0 8192 3");
        agent_ok(&a, "loop 0 0x100000 0");
        wait_for(agent_rounds(&a) > 20);
        service_kill(s);
        before = agent_rounds(&a);
        wait_for(agent_rounds(&a) > before + 50);               /* nobody serves, and the device works */
        service_launch(s);
        service_wait_recovered(s);
        before = agent_rounds(&a);
        wait_for(agent_rounds(&a) > before + 20);
        service_assert_ledger(s);
        agent_ok(&a, "map 0 0x200000 0 0 4096 3");              /* the same handle */
        agent_refused(&a, 17, IOMMUD_REASON_OVERLAP, "map 0 0x101000 0 0 4096 3");
        agent_ok(&a, "unmap 0 0x200000 4096");
        service_assert_ledger(s);
        agent_kill(&a);
        service_end(s);
}

static void test_mappings_and_charges_are_the_same(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct iommud_domain_info info = { .size = sizeof info };
        struct job_snapshot before;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)64 * PAGE);
        for (uint64_t i = 0; i < 32; i++)
                must(iommud_map(j.domain, JOB_IOVA + 2 * i * PAGE, j.memory, i * PAGE, PAGE, IOMMUD_READ_WRITE));
        job_snapshot(&j, &before);
        for (int i = 0; i < 3; i++) {
                service_kill(s);
                service_launch(s);
                job_assert_unchanged(&j, &before);              /* waits for the recovery by itself */
                must(iommud_domain_info(j.domain, &info));
                assert_int_equal(info.attachments, 1);
                job_assert_no_dma(&j, JOB_IOVA + PAGE);
                service_assert_ledger(s);
        }
        must(iommud_unmap(j.domain, JOB_IOVA, PAGE));
        job_assert_no_dma(&j, JOB_IOVA);
        must(iommud_device_detach(j.device));
        must(iommud_device_attach(j.domain, "edu0", &j.device));
        job_end(&j);
        service_end(s);
}

/* A stop is not an end either: sessions outlive an upgrade. */
static void test_sigterm_keeps_sessions(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct job_snapshot before;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        job_snapshot(&j, &before);
        service_stop(s);
        assert_int_equal(harness_holders(s), 1);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        service_launch(s);
        job_assert_unchanged(&j, &before);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        job_end(&j);
        service_end(s);
}

/* A client that dies while nobody serves is cleaned up by the next service. */
static void test_client_dies_meanwhile(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct agent a;
        struct job j;

        (void)state;
        agent_start(&a);
        agent_ok(&a, "connect %s", s->client);
        agent_ok(&a, "domain");
        agent_ok(&a, "attach 0 edu0");
        agent_ok(&a, "alloc 8192");
        agent_ok(&a, "map 0 0x100000 0 0 8192 3");
        service_kill(s);
        agent_kill(&a);
        service_launch(s);
        service_wait_recovered(s);
        service_wait_sessions(s, 0);
        service_assert_nothing_used(s, "me");
        job_begin(&j, s->client, "edu0", PAGE);                 /* the device is free */
        job_end(&j);
        service_end(s);
}

/* ---- repeated requests ---- */

static void make_key(uint8_t key[16], uint8_t n) {
        memset(key, n, 16);
}

/* Every mutation, its answer thrown away, the service killed, and the same again with the same key. */
static void test_repeated_keys_have_one_effect(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        uint64_t domain, again, memory, attachment;
        int fd = raw_memfd((size_t)2 * PAGE);
        struct raw_client c;
        uint64_t ticket;
        uint8_t key[16];
        size_t n;

        (void)state;
        raw_open(&c, s->client);
        ticket = raw_send_memory(&c, fd);
        make_key(key, 1);
        raw_must(raw_create_domain(&c, key, &domain));
        make_key(key, 2);
        raw_must(raw_register_ticket(&c, key, ticket, (uint64_t)2 * PAGE, &memory));
        make_key(key, 3);
        raw_must(raw_map(&c, key, domain, JOB_IOVA, memory, PAGE));
        make_key(key, 4);
        raw_must(raw_attach(&c, key, domain, "edu0", &attachment));
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        raw_reconnect(&c);

        make_key(key, 1);
        raw_must(raw_create_domain(&c, key, &again));
        assert_int_equal(again, domain);
        make_key(key, 2);
        raw_must(raw_register_ticket(&c, key, ticket, (uint64_t)2 * PAGE, &again));
        assert_int_equal(again, memory);
        make_key(key, 3);
        raw_must(raw_map(&c, key, domain, JOB_IOVA, memory, PAGE));
        make_key(key, 4);
        raw_must(raw_attach(&c, key, domain, "edu0", &again));
        assert_int_equal(again, attachment);
        raw_must(raw_list_mappings(&c, domain, &n));
        assert_int_equal(n, 1);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_DOMAINS), 1);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_MAPPINGS), 1);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_MEMORY_OBJECTS), 1);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_DEVICES), 1);

        make_key(key, 5);
        raw_must(raw_unmap(&c, key, domain, JOB_IOVA, PAGE));
        raw_must(raw_map(&c, NULL, domain, JOB_IOVA, memory, PAGE));
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        raw_reconnect(&c);
        raw_must(raw_unmap(&c, key, domain, JOB_IOVA, PAGE));        /* the first answer */
        raw_must(raw_list_mappings(&c, domain, &n));
        assert_int_equal(n, 1);                                                 /* and no second effect */
        make_key(key, 3);
        assert_int_equal(raw_map(&c, key, domain, JOB_IOVA, memory, (uint64_t)2 * PAGE), IOMMUD_REASON_KEY_REUSED);
        raw_close(&c);
        close(fd);
        service_end(s);
}

static size_t attach_answer(struct raw_client *c, const uint8_t *key, uint64_t domain, uint8_t *ret, size_t room) {
        Iommud__V1__AttachDeviceRequest q = IOMMUD__V1__ATTACH_DEVICE_REQUEST__INIT;
        ProtobufCMessage *answer;
        struct raw_refusal r;
        size_t n;

        q.request_key = (ProtobufCBinaryData){ .len = 16, .data = (uint8_t *)key };
        q.domain = domain;
        q.device = (char *)"edu0";
        if (raw_call(c, "AttachDevice", &q.base, &iommud__v1__attach_device_response__descriptor, &answer, &r) != 0)
                fail_msg("%s", r.text);
        n = protobuf_c_message_get_packed_size(answer);
        assert_true(n <= room);
        (void)protobuf_c_message_pack(answer, ret);
        protobuf_c_message_free_unpacked(answer, NULL);
        return n;
}

/* All of it: the constraints too, whether the operation was settled before the kill or found out after it. */
static void test_repeated_attach_has_its_constraints(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        uint8_t key[16], first[1024], again[1024];
        struct raw_client c;
        uint64_t domain;
        size_t n;

        (void)state;
        raw_open(&c, s->client);
        raw_must(raw_create_domain(&c, NULL, &domain));
        make_key(key, 1);
        n = attach_answer(&c, key, domain, first, sizeof first);
        assert_true(n > 8);
        for (int i = 0; i < 2; i++) {
                service_kill(s);
                service_launch(s);
                service_wait_recovered(s);
                raw_reconnect(&c);
                assert_int_equal(attach_answer(&c, key, domain, again, sizeof again), n);
                assert_memory_equal(again, first, n);
        }
        raw_close(&c);
        service_end(s);
}

#define MANY 1024U

static void lazy_domain_of_many(struct raw_client *c, uint64_t memory, uint64_t *ret_domain) {
        static uint64_t iova[MANY], length[MANY], offset[MANY];
        Iommud__V1__CreateDomainRequest create = IOMMUD__V1__CREATE_DOMAIN_REQUEST__INIT;
        Iommud__V1__MapRequest map = IOMMUD__V1__MAP_REQUEST__INIT;
        uint32_t access = 3;
        ProtobufCMessage *answer;
        struct raw_refusal r;

        create.flush_mode = IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY;
        assert_int_equal(raw_call(c, "CreateDomain", &create.base, &iommud__v1__create_domain_response__descriptor, &answer,
                                  &r), 0);
        *ret_domain = map.domain = ((Iommud__V1__CreateDomainResponse *)answer)->domain;
        protobuf_c_message_free_unpacked(answer, NULL);
        for (size_t i = 0; i < MANY; i++) {
                iova[i] = JOB_IOVA + 2 * i * PAGE;
                length[i] = PAGE;
        }
        map.n_iova = map.n_length = map.n_offset = MANY;
        map.n_memory = map.n_access = 1;
        map.iova = iova;
        map.length = length;
        map.offset = offset;
        map.memory = &memory;
        map.access = &access;
        if (raw_call(c, "Map", &map.base, NULL, NULL, &r) != 0)
                fail_msg("%s", r.text);
}

static void sync_domain(struct raw_client *c, uint64_t domain) {
        Iommud__V1__SyncRequest q = IOMMUD__V1__SYNC_REQUEST__INIT;
        struct raw_refusal r;

        q.domain = domain;
        if (raw_call(c, "Sync", &q.base, NULL, NULL, &r) != 0)
                fail_msg("%s", r.text);
}

/* It was acknowledged, and waits again: the next service does it, all of it. */
static void test_lazy_unmaps_are_done(void **state) {
        struct service *s = service_start(&(struct service_options){
                .limits = "session_starts_per_second = 1000\nlazy_flush_mappings = 100000\nlazy_flush_ms = 60000\n" });
        int fd = raw_memfd(PAGE);
        uint64_t memory, domain;
        struct raw_client c;
        size_t n;

        (void)state;
        raw_open(&c, s->client);
        raw_must(raw_register(&c, NULL, fd, PAGE, &memory));
        lazy_domain_of_many(&c, memory, &domain);
        raw_must(raw_unmap_all(&c, NULL, domain));
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_MAPPINGS), MANY);        /* charged until it is done */
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        raw_reconnect(&c);
        service_assert_ledger(s);                                                       /* asks the holder */
        sync_domain(&c, domain);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_MAPPINGS), 0);
        service_assert_ledger(s);
        raw_must(raw_list_mappings(&c, domain, &n));
        assert_int_equal(n, 0);
        raw_must(raw_unregister(&c, NULL, memory));
        raw_close(&c);
        close(fd);
        service_end(s);
}

/* ---- under way ---- */

struct mapper {
        struct job *job;
        atomic_bool stop;
        atomic_ulong done;
        atomic_int result;
        char text[400];
};

/* Maps and unmaps; the SDK repeats what a restart interrupts. Every call must work: nobody else uses the domain. */
static void *map_and_unmap(void *arg) {
        struct mapper *m = arg;

        while (!atomic_load(&m->stop) && atomic_load(&m->result) >= 0) {
                int r = iommud_map(m->job->domain, JOB_IOVA, m->job->memory, 0, PAGE, IOMMUD_READ_WRITE);

                if (r >= 0)
                        r = iommud_unmap(m->job->domain, JOB_IOVA, PAGE);
                if (r < 0)
                        (void)snprintf(m->text, sizeof m->text, "%s", iommud_last_error());
                atomic_store(&m->result, r);
                atomic_fetch_add(&m->done, 1);
        }
        return NULL;
}

static void test_calls_under_way_are_repeated(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct mapper m = { 0 };
        pthread_t thread;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", PAGE);
        m.job = &j;
        assert_int_equal(pthread_create(&thread, NULL, map_and_unmap, &m), 0);
        for (int i = 0; i < 5; i++) {
                unsigned long before = atomic_load(&m.done);

                wait_for(atomic_load(&m.done) > before + 3 || atomic_load(&m.result) < 0);
                service_kill(s);
                service_launch(s);
        }
        atomic_store(&m.stop, true);
        pthread_join(thread, NULL);
        if (atomic_load(&m.result) < 0)
                fail_msg("a call was not repeated: %d %s", atomic_load(&m.result), m.text);
        assert_int_equal(job_mappings(j.domain), 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_dma_goes_on, harness_teardown),
                cmocka_unit_test_teardown(test_mappings_and_charges_are_the_same, harness_teardown),
                cmocka_unit_test_teardown(test_sigterm_keeps_sessions, harness_teardown),
                cmocka_unit_test_teardown(test_client_dies_meanwhile, harness_teardown),
                cmocka_unit_test_teardown(test_repeated_keys_have_one_effect, harness_teardown),
                cmocka_unit_test_teardown(test_repeated_attach_has_its_constraints, harness_teardown),
                cmocka_unit_test_teardown(test_lazy_unmaps_are_done, harness_teardown),
                cmocka_unit_test_teardown(test_calls_under_way_are_repeated, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
