/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Software IOMMUs of many kinds: what is told before a device is attached is what holds afterwards, and each range can
 * be used from its first to its last page and not beyond. One of them has an aperture that ends with the addresses
 * themselves.
 */
#include <errno.h>
#include <stdio.h>

#include "lib/edu.h"
#include "lib/job.h"
#include "util/cleanup.h"

static void assert_same(const char *what, const struct iommud_constraints *a, const struct iommud_constraints *b) {
        bool same = a->page_sizes == b->page_sizes && a->max_mappings == b->max_mappings && a->n_ranges == b->n_ranges;

        for (uint32_t i = 0; same && i < a->n_ranges; i++)
                same = a->ranges[i].first == b->ranges[i].first && a->ranges[i].last == b->ranges[i].last;
        if (same)
                return;
        for (uint32_t i = 0; i < a->n_ranges; i++)
                print_error("%#llx-%#llx ", (unsigned long long)a->ranges[i].first,
                            (unsigned long long)a->ranges[i].last);
        print_error("against ");
        for (uint32_t i = 0; i < b->n_ranges; i++)
                print_error("%#llx-%#llx ", (unsigned long long)b->ranges[i].first,
                            (unsigned long long)b->ranges[i].last);
        fail_msg("%s differ", what);
}

/* First and last page of a range carry DMA; the byte before and the page after are refused. */
static void assert_range(struct job *j, uint64_t page, uint64_t first, uint64_t last) {
        const uint64_t at[] = { first, last - page + 1 };

        for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
                must(iommud_map(j->domain, at[i], j->memory, 0, page, IOMMUD_READ_WRITE));
                memset(j->bytes, 0, page);
                must(edu_transfer(j->device, at[i] + page - EDU_BLOCK, EDU_BLOCK, false));
                memset(j->bytes, 0x77, page);
                must(edu_transfer(j->device, at[i] + page - EDU_BLOCK, EDU_BLOCK, true));
                assert_int_equal(j->bytes[page - 1], 0);
                assert_int_equal(j->bytes[page - EDU_BLOCK], 0);
                assert_int_equal(j->bytes[page - EDU_BLOCK - 1], 0x77);
                must(iommud_unmap(j->domain, at[i], page));
        }
        if (first != 0)
                assert_int_equal(iommud_map(j->domain, first - page, j->memory, 0, page, IOMMUD_READ), -EINVAL);
        if (last != UINT64_MAX)
                assert_int_equal(iommud_map(j->domain, last + 1, j->memory, 0, page, IOMMUD_READ), -EINVAL);
}

static void run(const char *soft, uint64_t page, uint32_t ranges, uint64_t last) {
        struct iommud_constraints without = { .size = sizeof without }, with = { .size = sizeof with };
        struct iommud_domain_info before = { .size = sizeof before, .constraints.size = sizeof before.constraints };
        struct iommud_domain_info after = { .size = sizeof after, .constraints.size = sizeof after.constraints };
        struct service *s = service_start(&(struct service_options){ .soft = soft });
        struct job j;

        job_begin(&j, s->client, NULL, page);
        must(iommud_capabilities(j.client, NULL, &without));
        must(iommud_capabilities(j.client, "edu0", &with));
        must(iommud_domain_info(j.domain, &before));
        must(iommud_device_attach(j.domain, "edu0", &j.device));
        must(edu_enable(j.device));
        must(iommud_domain_info(j.domain, &after));
        assert_int_equal(after.constraints.page_sizes & (~after.constraints.page_sizes + 1), page);
        assert_int_equal(after.constraints.n_ranges, ranges);
        assert_int_equal(after.constraints.ranges[ranges - 1].last, last);
        for (uint32_t i = 0; i < ranges; i++)
                assert_range(&j, page, after.constraints.ranges[i].first, after.constraints.ranges[i].last);
        assert_same("before and after the device was attached", &before.constraints, &after.constraints);
        assert_same("with and without a device", &without, &with);
        assert_same("told and true", &with, &after.constraints);
        job_end(&j);
        service_end(s);
}

static void test_usual(void **state) {
        (void)state;
        run("dma_delay_us = 1\n", PAGE, 2, 0xffffffffffff);
}

static void test_16k(void **state) {
        (void)state;
        run("dma_delay_us = 1\npage_sizes = 16K\n", 16384, 2, 0xffffffffffff);
}

/* The last address there is can be mapped, and nothing wraps. */
static void test_aperture_up_to_the_last_address(void **state) {
        (void)state;
        run("dma_delay_us = 1\npage_sizes = 64K\naperture = 0x0-0xffffffffffffffff\nreserved =\n", 65536, 1,
            UINT64_MAX);
}

static void test_reserved_at_the_end(void **state) {
        (void)state;
        run("dma_delay_us = 1\naperture = 0x0-0xffffffff\nreserved = 0xfff00000-0xffffffff\n", PAGE, 1, 0xffefffff);
}

static void test_reserved_at_the_beginning(void **state) {
        (void)state;
        run("dma_delay_us = 1\naperture = 0x0-0xffffffff\nreserved = 0x0-0xfffff\n", PAGE, 1, 0xffffffff);
}

static void test_reserved_beyond_the_aperture(void **state) {
        (void)state;
        run("dma_delay_us = 1\naperture = 0x100000-0x7fffffff\n", PAGE, 1, 0x7fffffff);
}

static void test_borders_within_a_page(void **state) {
        (void)state;
        run("dma_delay_us = 1\naperture = 0x100800-0x7ffffeff\nreserved = 0x200100-0x2001ff\n", PAGE, 2, 0x7fffefff);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_usual, harness_teardown),
                cmocka_unit_test_teardown(test_16k, harness_teardown),
                cmocka_unit_test_teardown(test_aperture_up_to_the_last_address, harness_teardown),
                cmocka_unit_test_teardown(test_reserved_at_the_end, harness_teardown),
                cmocka_unit_test_teardown(test_reserved_at_the_beginning, harness_teardown),
                cmocka_unit_test_teardown(test_reserved_beyond_the_aperture, harness_teardown),
                cmocka_unit_test_teardown(test_borders_within_a_page, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
