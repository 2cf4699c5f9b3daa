/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I9: a batch happens wholly or not at all, and says which element failed. Messages that are no requests are refused,
 * and the connection goes on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/grpc_client.h"
#include "lib/job.h"
#include "lib/raw_client.h"
#include "util/cleanup.h"

#define PAGES(n) ((uint64_t)(n) * PAGE)
#define N 8U
#define BATCH_MAX 1024U

static struct service *service;
static struct job job;
static struct job_snapshot before;

static int begin(void **state) {
        (void)state;
        service = service_start(&(struct service_options){ 0 });
        job_begin(&job, service->client, "edu0", PAGES(16));
        must(iommud_map(job.domain, JOB_IOVA, job.memory, 0, PAGES(2), IOMMUD_READ_WRITE));
        job_snapshot(&job, &before);
        return 0;
}

static void end(void) {
        job_assert_given_back(&job, &before);
        job_assert_dma(&job, JOB_IOVA, 0, PAGE);
        job_end(&job);
        service_end(service);
}

static void fill(struct iommud_map_entry *e, size_t n) {
        for (size_t i = 0; i < n; i++)
                e[i] = (struct iommud_map_entry){ 0x10000000 + PAGES(i), job.memory, 0, PAGE, IOMMUD_READ_WRITE };
}

/* ---- map ---- */

static void test_last_element_is_bad(void **state) {
        static const struct {
                uint64_t iova, offset, length;
                unsigned access;
                int error;
                enum iommud_reason reason;
        } bad[] = {
                { 0x20000000, 0, 0, 3, EINVAL, IOMMUD_REASON_ZERO_LENGTH },
                { 0x20000001, 0, PAGE, 3, EINVAL, IOMMUD_REASON_UNALIGNED },
                { 0 - PAGES(1), 0, PAGES(2), 3, EINVAL, IOMMUD_REASON_RANGE_WRAPS },
                { 1ULL << 60, 0, PAGE, 3, EINVAL, IOMMUD_REASON_OUTSIDE_APERTURE },
                { 0xfee00000, 0, PAGE, 3, EINVAL, IOMMUD_REASON_RESERVED_REGION },
                { JOB_IOVA, 0, PAGE, 3, EEXIST, IOMMUD_REASON_OVERLAP },
                { 0x10000000, 0, PAGE, 3, EEXIST, IOMMUD_REASON_OVERLAP },      /* with the first element */
                { 0x20000000, PAGES(16), PAGE, 3, EINVAL, IOMMUD_REASON_BEYOND_OBJECT },
                { 0x20000000, 0, PAGE, 8, EINVAL, IOMMUD_REASON_BAD_ACCESS },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                for (size_t at = 0; at < N; at += N - 1) {
                        struct iommud_map_entry e[N];
                        struct iommud_error error;

                        if (at == 0 && bad[i].iova == 0x10000000)
                                continue;
                        fill(e, N);
                        e[at] = (struct iommud_map_entry){ bad[i].iova, job.memory, bad[i].offset, bad[i].length,
                                                           (enum iommud_access)bad[i].access };
                        refused(iommud_map_batch(job.domain, e, N), bad[i].error, bad[i].reason, &error);
                        assert_int_equal(error.element, at);
                        job_assert_unchanged(&job, &before);
                }
        job_assert_no_dma(&job, 0x10000000);
        end();
}

static void test_unmap_batch(void **state) {
        struct iommud_map_entry e[N];
        struct iommud_unmap_entry u[N + 1];
        struct iommud_error error;

        (void)state;
        fill(e, N);
        must(iommud_map_batch(job.domain, e, N));
        for (size_t i = 0; i < N; i++)
                u[i] = (struct iommud_unmap_entry){ e[i].iova, PAGE };
        u[N] = (struct iommud_unmap_entry){ JOB_IOVA, PAGE };   /* would split */
        refused(iommud_unmap_batch(job.domain, u, N + 1), EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, &error);
        assert_int_equal(error.element, N);
        u[N] = (struct iommud_unmap_entry){ 0x30000000, PAGE };
        refused(iommud_unmap_batch(job.domain, u, N + 1), ENOENT, IOMMUD_REASON_NOT_MAPPED, &error);
        assert_int_equal(error.element, N);
        u[N] = u[0];                                            /* twice */
        assert_true(iommud_unmap_batch(job.domain, u, N + 1) < 0);
        assert_int_equal(iommud_error_detail(&error), 0);
        assert_int_equal(error.element, N);
        assert_int_equal(job_mappings(job.domain), N + 1);
        must(iommud_unmap_batch(job.domain, u, N));
        end();
}

/* The largest batch works; one more is refused, by the SDK and by the service. */
static void test_size_of_a_batch(void **state) {
        _cleanup_free_ struct iommud_map_entry *e = calloc(BATCH_MAX + 1, sizeof *e);
        _cleanup_free_ struct iommud_unmap_entry *u = calloc(BATCH_MAX + 1, sizeof *u);
        struct iommud_error error;

        (void)state;
        fill(e, BATCH_MAX + 1);
        for (size_t i = 0; i <= BATCH_MAX; i++)
                u[i] = (struct iommud_unmap_entry){ e[i].iova, PAGE };
        refused(iommud_map_batch(job.domain, e, BATCH_MAX + 1), EINVAL, IOMMUD_REASON_BATCH_TOO_LARGE, &error);
        assert_int_equal(error.limit, BATCH_MAX);
        assert_int_equal(error.asked, BATCH_MAX + 1);
        must(iommud_map_batch(job.domain, e, BATCH_MAX));
        refused(iommud_unmap_batch(job.domain, u, BATCH_MAX + 1), EINVAL, IOMMUD_REASON_BATCH_TOO_LARGE, NULL);
        must(iommud_unmap_batch(job.domain, u, BATCH_MAX));
        must(iommud_map_batch(job.domain, NULL, 0));            /* nothing is no call */
        end();
}

/* ---- on the wire ---- */

struct columns {
        uint64_t iova[BATCH_MAX + 1], length[BATCH_MAX + 1], memory[BATCH_MAX + 1], offset[BATCH_MAX + 1];
        uint32_t access[BATCH_MAX + 1];
};

static unsigned map_columns(struct raw_client *c, uint64_t domain, struct columns *k, const size_t n[5]) {
        Iommud__V1__MapRequest q = IOMMUD__V1__MAP_REQUEST__INIT;
        struct raw_refusal r;

        q.domain = domain;
        q.n_iova = n[0];
        q.iova = k->iova;
        q.n_length = n[1];
        q.length = k->length;
        q.n_memory = n[2];
        q.memory = k->memory;
        q.n_offset = n[3];
        q.offset = k->offset;
        q.n_access = n[4];
        q.access = k->access;
        (void)raw_call(c, "Map", &q.base, NULL, NULL, &r);
        if (r.status != 0 && (r.reason == 0 || strlen(r.text) < 10))
                fail_msg("Map: status %d, no reason: %s", r.status, r.text);
        return r.reason;
}

static void test_columns_that_do_not_fit_together(void **state) {
        static const size_t bad[][5] = { { 0, 0, 0, 0, 0 }, { 2, 1, 1, 2, 1 }, { 2, 2, 1, 1, 1 }, { 2, 2, 0, 2, 1 },
                                         { 2, 2, 1, 2, 0 }, { 3, 3, 2, 3, 1 }, { 3, 3, 1, 3, 2 }, { 1, 2, 1, 1, 1 } };
        const size_t many[] = { BATCH_MAX + 1, BATCH_MAX + 1, 1, BATCH_MAX + 1, 1 };
        _cleanup_free_ struct columns *k = calloc(1, sizeof *k);
        uint64_t domain, memory;
        struct raw_client c;
        int fd = raw_memfd(PAGE);
        size_t n;

        (void)state;
        raw_open(&c, service->client);
        raw_must(raw_create_domain(&c, NULL, &domain));
        raw_must(raw_register(&c, NULL, fd, PAGE, &memory));
        for (size_t i = 0; i <= BATCH_MAX; i++) {
                k->iova[i] = 0x10000000 + PAGES(i);
                k->length[i] = PAGE;
                k->memory[i] = memory;
                k->access[i] = 3;
        }
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                unsigned reason = map_columns(&c, domain, k, bad[i]);

                if (reason != IOMMUD_REASON_BAD_MESSAGE && !(i == 0 && reason == IOMMUD_REASON_ZERO_LENGTH))
                        fail_msg("columns %zu: reason %u", i, reason);
        }
        assert_int_equal(map_columns(&c, domain, k, many), IOMMUD_REASON_BATCH_TOO_LARGE);
        raw_must(raw_list_mappings(&c, domain, &n));
        assert_int_equal(n, 0);
        assert_int_equal(map_columns(&c, domain, k, (const size_t[]){ 2, 2, 2, 2, 2 }), 0);
        raw_close(&c);
        close(fd);
        service_wait_sessions(service, 1);
        end();
}

/* Bytes that are no message, an unknown method, and a message that is larger than the limit; the connection goes on. */
static void test_messages_that_are_none(void **state) {
        _cleanup_free_ uint8_t *large = calloc(1, 4U << 20);
        struct grpc_client_answer a;
        struct raw_client c;
        uint64_t domain;

        (void)state;
        raw_open(&c, service->client);
        memset(large, 0xff, 4U << 20);
        grpc_client_unary(c.grpc, "/iommud.v1.Client/Map", c.token, large, 100, 20000, &a);
        assert_int_equal(a.status, 3);
        grpc_client_answer_clear(&a);
        grpc_client_unary(c.grpc, "/iommud.v1.Client/NoSuchThing", c.token, "", 0, 20000, &a);
        assert_int_equal(a.status, 12);
        grpc_client_answer_clear(&a);
        /* not on this socket */
        grpc_client_unary(c.grpc, "/iommud.v1.Operator/GetStatus", c.token, "", 0, 20000, &a);
        assert_true(a.status == 12 || a.status == 7);
        grpc_client_answer_clear(&a);
        grpc_client_unary(c.grpc, "/iommud.v1.Client/Map", c.token, large, 4U << 20, 20000, &a);
        assert_int_equal(a.status, 8);
        grpc_client_answer_clear(&a);
        raw_must(raw_create_domain(&c, NULL, &domain));
        raw_close(&c);
        service_wait_sessions(service, 1);
        end();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, harness_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_last_element_is_bad),
                TEST(test_unmap_batch),
                TEST(test_size_of_a_batch),
                TEST(test_columns_that_do_not_fit_together),
                TEST(test_messages_that_are_none),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
