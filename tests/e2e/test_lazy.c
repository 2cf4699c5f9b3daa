/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Lazy (non-strict) domains: an unmap is answered before the IOMMU has heard of it. Until the flush the range is not reused,
 * the memory not released and the charge kept; flushes are coalesced, and come by count, by bytes, by age and when asked for.
 * After a crash what was acknowledged as unmapped is unmapped.
 */
#include <errno.h>
#include <pthread.h>

#include "lib/edu.h"
#include "lib/job.h"

/* Flushed by nothing but what the test does. */
#define PATIENT "lazy_flush_ms = 60000\nlazy_flush_mappings = 100000\nlazy_flush_bytes = 4294967295\n"

static struct service *start_with(const char *limits) {
        return service_start(&(struct service_options){ .limits = limits, .soft = "devices = edu0 edu1\ndma_delay_us = 1\n" });
}

static void begin(struct job *j, struct service *s, uint64_t bytes) {
        const struct iommud_domain_options options = { .size = sizeof options, .flush_mode = IOMMUD_FLUSH_LAZY };

        *j = (struct job){ .client = job_connect(s->client) };
        must(iommud_domain_create_with(j->client, &options, &j->domain));
        must(iommud_memory_alloc(j->client, bytes, NULL, &j->memory));
        j->bytes = iommud_memory_addr(j->memory);
        must(iommud_device_attach(j->domain, "edu0", &j->device));
        must(edu_enable(j->device));
}

static void end(struct service *s, struct job *j) {
        job_end(j);
        service_end(s);
}

static uint64_t waiting(struct job *j) {
        return job_domain_info(j->domain).deferred_mappings;
}

static void map_pages(struct job *j, uint64_t n) {
        for (uint64_t i = 0; i < n; i++)
                must(job_map_part(j, i * PAGE, PAGE, 0, 0, NULL));
}

static void test_until_the_flush_nothing_is_given_back(void **state) {
        struct service *s = start_with(PATIENT);
        uint64_t bytes = 0;
        struct job j;

        (void)state;
        begin(&j, s, 16 * PAGE);
        job_map(&j);
        must(iommud_unmap(j.domain, JOB_IOVA, 16 * PAGE));
        assert_int_equal(job_domain_info(j.domain).flush_mode, IOMMUD_FLUSH_LAZY);
        assert_int_equal(waiting(&j), 1);
        assert_int_equal(job_domain_info(j.domain).deferred_bytes, 16 * PAGE);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 16 * PAGE);
        job_assert_dma(&j, JOB_IOVA, 0, 8 * PAGE);      /* still translated: that is the bargain */
        refused(iommud_map(j.domain, JOB_IOVA + PAGE, j.memory, 0, PAGE, IOMMUD_READ), EAGAIN, IOMMUD_REASON_IN_PROGRESS, NULL);
        refused(iommud_unmap(j.domain, JOB_IOVA, 16 * PAGE), ENOENT, IOMMUD_REASON_NOT_MAPPED, NULL);
        refused(iommud_memory_close(j.memory), EBUSY, IOMMUD_REASON_IN_USE, NULL);
        must(iommud_domain_sync(j.domain, &bytes));
        assert_int_equal(bytes, 16 * PAGE);
        assert_int_equal(waiting(&j), 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        job_assert_no_dma(&j, JOB_IOVA);
        must(iommud_domain_sync(j.domain, &bytes));
        assert_int_equal(bytes, 0);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ));
        end(s, &j);
}

static void test_flushed_by_count(void **state) {
        struct service *s = start_with("lazy_flush_ms = 60000\nlazy_flush_mappings = 4\n");
        struct job j;

        (void)state;
        begin(&j, s, 16 * PAGE);
        map_pages(&j, 5);
        for (uint64_t i = 0; i < 3; i++)
                must(job_unmap_part(&j, i * PAGE, PAGE, IOMMUD_SPLIT_AT_CHUNKS));
        assert_int_equal(waiting(&j), 3);
        must(job_unmap_part(&j, 3 * PAGE, PAGE, IOMMUD_SPLIT_AT_CHUNKS));
        wait_for(waiting(&j) == 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), PAGE);
        end(s, &j);
}

static void test_flushed_by_bytes(void **state) {
        struct service *s = start_with("lazy_flush_ms = 60000\nlazy_flush_bytes = 32768\n");
        struct job j;

        (void)state;
        begin(&j, s, 16 * PAGE);
        map_pages(&j, 16);
        must(iommud_unmap(j.domain, JOB_IOVA, 7 * PAGE));
        assert_int_equal(waiting(&j), 7);
        must(iommud_unmap(j.domain, JOB_IOVA + 7 * PAGE, PAGE));
        wait_for(waiting(&j) == 0);
        end(s, &j);
}

static void test_flushed_by_age(void **state) {
        struct service *s = start_with("lazy_flush_ms = 1\n");
        struct job j;

        (void)state;
        begin(&j, s, PAGE);
        job_map(&j);
        must(iommud_unmap(j.domain, JOB_IOVA, PAGE));
        wait_for(waiting(&j) == 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        end(s, &j);
}

/* More than one message's worth, and other threads that go on unmapping while one syncs. */
static void *unmap_second_half(void *arg) {
        struct job *j = arg;

        for (uint64_t i = 2048; i < 4096; i += 64)
                must(iommud_unmap(j->domain, JOB_IOVA + i * PAGE, 64 * PAGE));
        return NULL;
}

static void test_sync_beside_other_threads(void **state) {
        struct service *s = start_with(PATIENT);
        pthread_t other;
        struct job j;

        (void)state;
        begin(&j, s, 4096 * PAGE);
        for (uint64_t i = 0; i < 4096; i += 64)
                must(job_map_part(&j, i * PAGE, 64 * PAGE, 0, 0, NULL));
        for (uint64_t i = 0; i < 2048; i += 64)
                must(iommud_unmap(j.domain, JOB_IOVA + i * PAGE, 64 * PAGE));
        assert_int_equal(pthread_create(&other, NULL, unmap_second_half, &j), 0);
        for (int i = 0; i < 20; i++)
                must(iommud_domain_sync(j.domain, NULL));
        pthread_join(other, NULL);
        must(iommud_domain_sync(j.domain, NULL));
        assert_int_equal(waiting(&j), 0);
        assert_int_equal(job_mappings(j.domain), 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        end(s, &j);
}

/* Acknowledged is done: the next service flushes what the last one had promised. */
static void test_promises_survive_a_restart(void **state) {
        struct service *s = start_with(PATIENT);
        struct job j;

        (void)state;
        begin(&j, s, 16 * PAGE);
        map_pages(&j, 16);
        must(iommud_unmap(j.domain, JOB_IOVA, 4 * PAGE));
        must(iommud_unmap(j.domain, JOB_IOVA + 8 * PAGE, 4 * PAGE));
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        service_assert_ledger(s);
        assert_false(service_logged(s, "differ"));
        assert_int_equal(waiting(&j), 8);               /* they wait again, charged */
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 16 * PAGE);
        refused(iommud_unmap(j.domain, JOB_IOVA, 4 * PAGE), ENOENT, IOMMUD_REASON_NOT_MAPPED, NULL);
        must(iommud_domain_sync(j.domain, NULL));
        assert_int_equal(job_mappings(j.domain), 8);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 8 * PAGE);
        job_assert_no_dma(&j, JOB_IOVA + PAGE);
        job_assert_no_dma(&j, JOB_IOVA + 8 * PAGE);
        job_assert_dma(&j, JOB_IOVA, 4 * PAGE, 12 * PAGE);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, 4 * PAGE, IOMMUD_READ_WRITE));
        must(iommud_unmap(j.domain, JOB_IOVA, 4 * PAGE));
        assert_int_equal(waiting(&j), 1);               /* it is still a lazy domain */
        end(s, &j);
}

static void test_a_domain_goes_with_what_waits(void **state) {
        struct service *s = start_with(PATIENT);
        struct job j;

        (void)state;
        begin(&j, s, 16 * PAGE);
        map_pages(&j, 16);
        must(iommud_unmap(j.domain, JOB_IOVA, 4 * PAGE));
        must(iommud_domain_destroy(j.domain));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        must(iommud_memory_close(j.memory));
        service_assert_ledger(s);
        end(s, &j);
}

/* What is cut is unmapped at once, in a lazy domain too. */
static void test_cuts_are_strict(void **state) {
        struct service *s = start_with(PATIENT);
        struct job j;

        (void)state;
        begin(&j, s, 16 * PAGE);
        must(job_map_part(&j, 0, 16 * PAGE, 0, PAGE, NULL));
        must(job_unmap_part(&j, 4 * PAGE, PAGE, IOMMUD_SPLIT_AT_CHUNKS));
        assert_int_equal(waiting(&j), 0);
        job_assert_no_dma(&j, JOB_IOVA + 4 * PAGE);
        end(s, &j);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_until_the_flush_nothing_is_given_back, harness_teardown),
                cmocka_unit_test_teardown(test_flushed_by_count, harness_teardown),
                cmocka_unit_test_teardown(test_flushed_by_bytes, harness_teardown),
                cmocka_unit_test_teardown(test_flushed_by_age, harness_teardown),
                cmocka_unit_test_teardown(test_sync_beside_other_threads, harness_teardown),
                cmocka_unit_test_teardown(test_promises_survive_a_restart, harness_teardown),
                cmocka_unit_test_teardown(test_a_domain_goes_with_what_waits, harness_teardown),
                cmocka_unit_test_teardown(test_cuts_are_strict, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
