/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * The main job on the software IOMMU: connect, domain, device, memory, map, DMA both ways with every byte compared,
 * unmap, and then no DMA any more.
 */
#include "lib/edu.h"
#include "lib/job.h"

static void test_bytes_go_both_ways(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        memset(j.bytes, 0xee, (size_t)2 * PAGE);
        for (unsigned i = 0; i < 4; i++)
                job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        for (size_t i = EDU_BLOCK; i < PAGE; i++) {             /* nothing beside it changed */
                assert_int_equal(j.bytes[i], 0xee);
                assert_int_equal(j.bytes[PAGE + i], 0xee);
        }
        job_end(&j);
        service_end(s);
}

static void test_mapped_before_attach(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, (uint64_t)2 * PAGE);
        job_map(&j);
        must(iommud_device_attach(j.domain, "edu1", &j.device));
        must(edu_enable(j.device));
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        job_end(&j);
        service_end(s);
}

static void test_after_unmap_nothing_is_reached(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        must(iommud_unmap(j.domain, JOB_IOVA, (uint64_t)2 * PAGE));
        assert_int_equal(job_mappings(j.domain), 0);
        job_assert_no_dma(&j, JOB_IOVA);
        job_assert_no_dma(&j, JOB_IOVA + PAGE);
        job_map(&j);                    /* and the same again works */
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        job_end(&j);
        service_end(s);
}

/* Two mappings side by side: unmapping one leaves the other alone (I3). */
static void test_unmap_takes_no_more_than_asked(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)4 * PAGE);
        for (uint64_t i = 0; i < 4; i++)
                must(iommud_map(j.domain, JOB_IOVA + i * PAGE, j.memory, i * PAGE, PAGE, IOMMUD_READ_WRITE));
        must(iommud_unmap(j.domain, JOB_IOVA + PAGE, PAGE));
        job_assert_no_dma(&j, JOB_IOVA + PAGE);
        job_assert_dma(&j, JOB_IOVA, 0, (uint64_t)2 * PAGE);
        job_assert_dma(&j, JOB_IOVA, 0, (uint64_t)3 * PAGE);
        job_end(&j);
        service_end(s);
}

/* One page at two addresses: unmapping one leaves the other (I3). */
static void test_alias_outlives_the_other(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        must(iommud_map(j.domain, 0x40000000, j.memory, 0, (uint64_t)2 * PAGE, IOMMUD_READ_WRITE));
        must(iommud_unmap(j.domain, JOB_IOVA, (uint64_t)2 * PAGE));
        job_assert_dma(&j, 0x40000000, 0, PAGE);
        job_assert_no_dma(&j, JOB_IOVA);
        job_end(&j);
        service_end(s);
}

/* The device reads and writes no more than the access that was given (I2). */
static void test_access_is_enforced(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        uint8_t *to;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        to = j.bytes + PAGE;
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ));
        must(iommud_map(j.domain, JOB_IOVA + PAGE, j.memory, PAGE, PAGE, IOMMUD_WRITE));
        memset(j.bytes, 0x22, PAGE);
        memset(to, 0x33, PAGE);
        must(edu_transfer(j.device, JOB_IOVA, EDU_BLOCK, false));               /* the device's buffer has 0x22 */
        /* may not be read: the buffer keeps it */
        must(edu_transfer(j.device, JOB_IOVA + PAGE, EDU_BLOCK, false));
        must(edu_transfer(j.device, JOB_IOVA + PAGE, EDU_BLOCK, true));
        for (size_t i = 0; i < EDU_BLOCK; i++)
                assert_int_equal(to[i], 0x22);
        memset(j.bytes, 0x44, PAGE);
        must(edu_transfer(j.device, JOB_IOVA, EDU_BLOCK, true));                /* may not be written */
        for (size_t i = 0; i < PAGE; i++)
                assert_int_equal(j.bytes[i], 0x44);
        job_end(&j);
        service_end(s);
}

static void test_objects_close_one_by_one(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        job_map(&j);
        must(iommud_device_detach(j.device));
        must(iommud_unmap_all(j.domain, NULL));
        must(iommud_domain_destroy(j.domain));
        must(iommud_memory_close(j.memory));
        for (unsigned r = IOMMUD_RESOURCE_LOCKED_BYTES; r <= IOMMUD_RESOURCE_WINDOWS; r++)
                assert_int_equal(service_used(s, "me", r), r == IOMMUD_RESOURCE_SESSIONS);
        job_end(&j);
        service_end(s);
}

/* Nothing mapped is nothing to unmap, and no error. */
static void test_unmap_all_of_an_empty_domain(void **state) {
        struct service *s = service_start(&(struct service_options){ 0 });
        uint64_t bytes = 1;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)2 * PAGE);
        must(iommud_unmap_all(j.domain, &bytes));
        assert_int_equal(bytes, 0);
        job_map(&j);
        must(iommud_unmap_all(j.domain, &bytes));
        assert_int_equal(bytes, 2 * PAGE);
        must(iommud_unmap_all(j.domain, &bytes));
        assert_int_equal(bytes, 0);
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_bytes_go_both_ways, harness_teardown),
                cmocka_unit_test_teardown(test_mapped_before_attach, harness_teardown),
                cmocka_unit_test_teardown(test_after_unmap_nothing_is_reached, harness_teardown),
                cmocka_unit_test_teardown(test_unmap_takes_no_more_than_asked, harness_teardown),
                cmocka_unit_test_teardown(test_alias_outlives_the_other, harness_teardown),
                cmocka_unit_test_teardown(test_access_is_enforced, harness_teardown),
                cmocka_unit_test_teardown(test_unmap_all_of_an_empty_domain, harness_teardown),
                cmocka_unit_test_teardown(test_objects_close_one_by_one, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
