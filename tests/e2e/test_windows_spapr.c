/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Windows as POWER has them, on the software IOMMU's personality: two at a time, where the IOMMU wants them; a huge one that is
 * used sparsely; memory that appears after its window did (the mail thread on GPU memory); the same memory over and over.
 */
#include <errno.h>
#include <stdio.h>

#include "lib/edu.h"
#include "lib/job.h"

#define MIB UINT64_C(0x100000)
#define GIB UINT64_C(0x40000000)
#define HIGH UINT64_C(0x800000000000000)
#define LARGEST (UINT64_C(0x80000000) << 12)

static const struct service_options power = {
        .soft = "windows = spapr\ndevices = edu0 edu1\ndma_delay_us = 1\n",
        .defaults = "locked_bytes = 1G\ntable_bytes = 128M\n",
};

static void begin(struct service **s, struct job *j, uint64_t bytes) {
        *s = service_start(&power);
        job_begin(j, (*s)->client, "edu0", bytes);
}

static void end(struct service *s, struct job *j) {
        job_end(j);
        service_end(s);
}

static struct iommud_window window_at(struct iommud_domain *domain, size_t index) {
        struct iommud_window *list, w = { 0 };
        size_t n;

        must(iommud_window_query(domain, &list, &n, NULL));
        assert_true(index < n);
        w = list[index];
        iommud_window_list_free(list);
        return w;
}

static int map_at(struct job *j, uint64_t iova, uint64_t offset, uint64_t length) {
        return iommud_map(j->domain, iova, j->memory, offset, length, IOMMUD_READ_WRITE);
}

/* DMA to and from the page at iova, which shows the memory at offset. */
static void assert_reached(struct job *j, uint64_t iova, uint64_t offset) {
        for (size_t i = 0; i < EDU_BLOCK; i++)
                j->bytes[offset + i] = (uint8_t)(i * 13 + offset / PAGE);
        must(edu_transfer(j->device, iova, EDU_BLOCK, false));
        memset(j->bytes + offset, 0, EDU_BLOCK);
        must(edu_transfer(j->device, iova, EDU_BLOCK, true));
        for (size_t i = 0; i < EDU_BLOCK; i++)
                assert_int_equal(j->bytes[offset + i], (uint8_t)(i * 13 + offset / PAGE));
}

static void test_what_a_query_says(void **state) {
        struct iommud_window_limits limits = { .size = sizeof limits };
        struct iommud_window w;
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j, 16 * (uint64_t)PAGE);
        assert_int_equal(job_windows(j.domain, &limits), 1);
        assert_int_equal(limits.largest, LARGEST);
        assert_int_equal(limits.can_create, 1);
        assert_int_equal(limits.levels_max, 5);
        assert_int_equal(limits.page_sizes, 0x1211000);
        w = window_at(j.domain, 0);
        assert_true(w.is_default);
        assert_int_equal(w.start, 0);
        assert_int_equal(w.length, GIB);
        assert_int_equal(w.page_shift, 12);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), 0);
        end(s, &j);
}

static void test_a_second_window_has_dma_at_both_ends(void **state) {
        const struct iommud_window_options one_level = { .size = sizeof one_level, .length = 4 * GIB, .levels = 1 };
        struct iommud_window w;
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j, 16 * (uint64_t)PAGE);
        must(iommud_window_create(j.domain, &one_level, &w));
        assert_int_equal(w.start, HIGH);
        assert_int_equal(w.levels, 1);
        assert_int_equal(w.table_bytes, 16 * MIB);      /* 8 bytes a page, and as much for whose it is */
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), 16 * MIB);
        must(map_at(&j, HIGH, 0, PAGE));
        must(map_at(&j, HIGH + 4 * GIB - PAGE, PAGE, PAGE));
        must(map_at(&j, GIB - PAGE, 2 * PAGE, PAGE));
        assert_reached(&j, HIGH, 0);
        assert_reached(&j, HIGH + 4 * GIB - PAGE, PAGE);
        assert_reached(&j, GIB - PAGE, 2 * PAGE);
        refused(map_at(&j, HIGH + 4 * GIB - PAGE, 0, 2 * PAGE), ERANGE, IOMMUD_REASON_NO_WINDOW, NULL);
        refused(map_at(&j, GIB, 0, PAGE), ERANGE, IOMMUD_REASON_NO_WINDOW, NULL);
        refused(iommud_window_create(j.domain, &(struct iommud_window_options){ .size = sizeof(struct iommud_window_options),
                                                                               .length = GIB }, NULL),
                ENOSPC, IOMMUD_REASON_WINDOW_LIMIT, NULL);
        must(iommud_window_remove(j.domain, w.id, 1));
        assert_true(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES) < MIB);
        job_assert_no_dma(&j, HIGH);
        job_assert_no_dma(&j, HIGH + 4 * GIB - PAGE);
        assert_reached(&j, GIB - PAGE, 2 * PAGE);       /* the other one goes on */
        assert_int_equal(job_mappings(j.domain), 1);
        end(s, &j);
}

static void test_the_default_window_goes_and_comes_back(void **state) {
        struct iommud_window w;
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j, 16 * (uint64_t)PAGE);
        must(map_at(&j, JOB_IOVA, 0, PAGE));
        w = job_window(j.domain, GIB * 2, 12);
        must(map_at(&j, w.start, 0, PAGE));
        must(iommud_window_remove(j.domain, window_at(j.domain, 0).id, 1));
        job_assert_no_dma(&j, JOB_IOVA);
        assert_reached(&j, w.start, 0);
        refused(map_at(&j, JOB_IOVA, 0, PAGE), ERANGE, IOMMUD_REASON_NO_WINDOW, NULL);
        must(iommud_window_reset(j.domain));
        job_assert_no_dma(&j, w.start);
        assert_int_equal(job_windows(j.domain, NULL), 1);
        assert_true(window_at(j.domain, 0).is_default);
        must(map_at(&j, JOB_IOVA, 0, PAGE));
        assert_reached(&j, JOB_IOVA, 0);
        end(s, &j);
}

/* The window is as large as the seed's number allows; its cost is what is mapped, not what it spans. */
static void test_a_huge_window_costs_what_is_mapped(void **state) {
        struct iommud_window w;
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j, 64 * (uint64_t)PAGE);
        w = job_window(j.domain, LARGEST, 12);
        assert_int_equal(w.levels, 3);
        assert_int_equal(w.table_bytes, 32768);         /* the first level, twice */
        for (uint64_t i = 0; i < 64; i++)
                must(map_at(&j, w.start + i * (LARGEST / 64), i * PAGE, PAGE));
        must(map_at(&j, w.start + LARGEST - PAGE, 0, PAGE));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 64 * PAGE);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_MAPPINGS), 65);
        assert_true(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES) < 2 * MIB);
        assert_reached(&j, w.start + 63 * (LARGEST / 64), 63 * PAGE);
        assert_reached(&j, w.start + LARGEST - PAGE, 0);
        end(s, &j);
}

static void test_memory_that_appears_later(void **state) {
        struct iommud_memory *late;
        struct iommud_window w;
        struct service *s;
        struct job j;
        uint8_t *bytes;

        (void)state;
        begin(&s, &j, 16 * (uint64_t)PAGE);
        w = job_window(j.domain, LARGEST, 12);
        must(map_at(&j, w.start, 0, 16 * PAGE));
        must(iommud_memory_alloc(j.client, 64 * (uint64_t)PAGE, NULL, &late));
        bytes = iommud_memory_addr(late);
        must(iommud_map(j.domain, w.start + LARGEST / 2, late, 0, 64 * (uint64_t)PAGE, IOMMUD_READ_WRITE));
        memset(j.bytes, 0x5a, EDU_BLOCK);
        must(edu_transfer(j.device, w.start, EDU_BLOCK, false));
        must(edu_transfer(j.device, w.start + LARGEST / 2 + 63 * PAGE, EDU_BLOCK, true));
        assert_int_equal(bytes[63 * PAGE], 0x5a);
        assert_int_equal(bytes[63 * PAGE + EDU_BLOCK - 1], 0x5a);
        assert_int_equal(window_at(j.domain, 1).id, w.id);      /* the same window as before */
        end(s, &j);
}

static void test_the_same_memory_over_and_over(void **state) {
        struct iommud_window w;
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j, 4 * (uint64_t)PAGE);
        w = job_window(j.domain, 16 * GIB, 12);
        for (uint64_t i = 0; i < 100; i++)
                must(map_at(&j, w.start + i * 4 * PAGE, 0, 4 * PAGE));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 4 * PAGE);
        assert_int_equal(window_at(j.domain, 1).mapped_bytes, 400 * PAGE);
        assert_reached(&j, w.start + (99 * 4 + 3) * PAGE, 3 * PAGE);
        for (uint64_t i = 0; i < 99; i++)
                must(iommud_unmap(j.domain, w.start + i * 4 * PAGE, 4 * PAGE));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 4 * PAGE);
        assert_reached(&j, w.start + (99 * 4 + 3) * PAGE, 3 * PAGE);
        end(s, &j);
}

/* A second group has a container of its own: it gets the windows, and the tenant pays for its tables too. */
static void test_windows_follow_into_another_container(void **state) {
        const struct iommud_window_options one_level = { .size = sizeof one_level, .length = GIB, .levels = 1 };
        struct iommud_attachment *second;
        struct iommud_window w;
        struct service *s;
        struct job j;
        uint64_t one;

        (void)state;
        begin(&s, &j, 16 * (uint64_t)PAGE);
        must(iommud_window_create(j.domain, &one_level, &w));
        must(iommud_window_remove(j.domain, window_at(j.domain, 0).id, 0));
        must(map_at(&j, w.start, 0, PAGE));
        one = job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES);
        must(iommud_device_attach(j.domain, "edu1", &second));
        must(edu_enable(second));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), 2 * one);
        memset(j.bytes, 0x33, EDU_BLOCK);
        must(edu_transfer(second, w.start, EDU_BLOCK, false));
        memset(j.bytes, 0, EDU_BLOCK);
        must(edu_transfer(second, w.start, EDU_BLOCK, true));
        assert_int_equal(j.bytes[0], 0x33);
        /* without any device the windows are still there, and the next one finds them */
        must(iommud_device_detach(second));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), one);
        must(iommud_device_detach(j.device));
        assert_int_equal(job_windows(j.domain, NULL), 1);
        refused(iommud_window_create(j.domain, &(struct iommud_window_options){ .size = sizeof(struct iommud_window_options),
                                                                               .length = GIB }, NULL),
                ENOTSUP, IOMMUD_REASON_UNSUPPORTED, NULL);
        must(iommud_device_attach(j.domain, "edu0", &j.device));
        must(edu_enable(j.device));
        assert_int_equal(window_at(j.domain, 0).id, w.id);
        assert_reached(&j, w.start, 0);
        must(iommud_window_remove(j.domain, w.id, 1));
        job_assert_no_dma(&j, w.start);
        end(s, &j);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_what_a_query_says, harness_teardown),
                cmocka_unit_test_teardown(test_a_second_window_has_dma_at_both_ends, harness_teardown),
                cmocka_unit_test_teardown(test_the_default_window_goes_and_comes_back, harness_teardown),
                cmocka_unit_test_teardown(test_a_huge_window_costs_what_is_mapped, harness_teardown),
                cmocka_unit_test_teardown(test_memory_that_appears_later, harness_teardown),
                cmocka_unit_test_teardown(test_the_same_memory_over_and_over, harness_teardown),
                cmocka_unit_test_teardown(test_windows_follow_into_another_container, harness_teardown),
        };

        return cmocka_run_group_tests_name("windows like POWER's", tests, NULL, NULL);
}
