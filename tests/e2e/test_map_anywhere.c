/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * The service chooses the place: in a window, straight for the largest pages that memory and size allow, never in a reserved
 * region, and what was unmapped can be had again.
 */
#include <errno.h>
#include <stdlib.h>

#include "lib/edu.h"
#include "lib/job.h"

#define MIB UINT64_C(0x100000)
#define GIB UINT64_C(0x40000000)

static const struct service_options fast = { .soft = "devices = edu0\ndma_delay_us = 1\n" };

static int anywhere(struct job *j, const struct iommud_map_entry *entries, size_t n, uint64_t window, uint32_t flags,
                    struct iommud_map_result *ret) {
        const struct iommud_map_options options = { .size = sizeof options, .flags = IOMMUD_MAP_ANYWHERE | flags,
                                                    .window = window };

        ret->size = sizeof *ret;
        return iommud_map_with(j->domain, entries, n, &options, ret);
}

static uint64_t one(struct job *j, uint64_t offset, uint64_t length) {
        const struct iommud_map_entry e = { .memory = j->memory, .offset = offset, .length = length,
                                            .access = IOMMUD_READ_WRITE };
        struct iommud_map_result result;

        must(anywhere(j, &e, 1, 0, 0, &result));
        return result.iova;
}

static void test_entries_lie_one_after_another(void **state) {
        struct service *s = service_start(&fast);
        struct iommud_map_result dry, result;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 64 * (uint64_t)PAGE);
        const struct iommud_map_entry entries[] = {
                { .memory = j.memory, .offset = 8 * PAGE, .length = 3 * PAGE, .access = IOMMUD_READ_WRITE },
                { .memory = j.memory, .offset = 0, .length = PAGE, .access = IOMMUD_READ_WRITE },
                { .memory = j.memory, .offset = 32 * PAGE, .length = 2 * PAGE, .access = IOMMUD_READ_WRITE },
        };
        must(anywhere(&j, entries, 3, 0, IOMMUD_MAP_DRY_RUN, &dry));
        assert_int_equal(job_mappings(j.domain), 0);
        must(anywhere(&j, entries, 3, 0, 0, &result));
        assert_int_equal(result.iova, dry.iova);
        assert_int_equal(result.mappings, 3);
        assert_true(result.iova != 0);
        memset(j.bytes, 0x21, EDU_BLOCK);
        must(edu_transfer(j.device, result.iova + 3 * PAGE, EDU_BLOCK, false));
        must(edu_transfer(j.device, result.iova + 5 * PAGE, EDU_BLOCK, true));
        assert_int_equal(j.bytes[33 * PAGE], 0x21);
        must(iommud_unmap(j.domain, result.iova, 6 * PAGE));
        must(anywhere(&j, entries, 3, 0, IOMMUD_MAP_MERGE, &dry));
        assert_int_equal(dry.iova, result.iova);        /* free again, and the lowest */
        job_end(&j);
        service_end(s);
}

static void test_neither_reserved_nor_taken(void **state) {
        struct service *s = service_start(&(struct service_options){
                .soft = "devices = edu0\ndma_delay_us = 1\naperture = 0x10000-0x1fffff\nreserved = 0x80000-0x8ffff\n" });
        struct iommud_error error = { .size = sizeof error };
        struct iommud_map_entry e = { .access = IOMMUD_READ };
        struct iommud_map_result result;
        unsigned pages = 0, taken = 0;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, 64 * (uint64_t)PAGE);
        must(iommud_map(j.domain, 0x20000, j.memory, 0, 4 * PAGE, IOMMUD_READ));
        e.memory = j.memory;
        e.length = PAGE;
        while (anywhere(&j, &e, 1, 0, 0, &result) == 0) {
                assert_true(result.iova >= 0x10000 && result.iova + PAGE <= 0x200000);
                assert_true(result.iova + PAGE <= 0x80000 || result.iova >= 0x90000);
                assert_true(result.iova + PAGE <= 0x20000 || result.iova >= 0x24000);
                pages++;
        }
        assert_int_equal(pages, (0x1f0000 - 0x10000) / PAGE - 4);
        must(iommud_error_detail(&error));
        assert_int_equal(error.reason, IOMMUD_REASON_LIMIT_EXCEEDED);
        assert_int_equal(error.nearest_below, 0);
        must(iommud_unmap(j.domain, 0x22000, 0) == -EINVAL ? 0 : -1);
        for (uint64_t iova = 0x100000; iova < 0x110000; iova += 2 * PAGE, taken++)
                must(iommud_unmap(j.domain, iova, PAGE));
        e.length = 2 * PAGE;
        refused(anywhere(&j, &e, 1, 0, 0, &result), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, &error);
        assert_int_equal(error.nearest_below, PAGE);
        e.length = PAGE;
        while (taken-- > 0)
                must(anywhere(&j, &e, 1, 0, 0, &result));
        assert_int_equal(result.iova, 0x10e000);
        job_end(&j);
        service_end(s);
}

static void test_in_a_window_that_is_named(void **state) {
        struct service *s = service_start(&fast);
        struct iommud_window *list, a, b;
        struct iommud_map_entry e = { .length = PAGE, .access = IOMMUD_READ };
        struct iommud_map_result result;
        struct job j;
        size_t n;

        (void)state;
        job_begin(&j, s->client, NULL, 64 * (uint64_t)PAGE);
        must(iommud_window_query(j.domain, &list, &n, NULL));
        must(iommud_window_remove(j.domain, list[0].id, 0));
        iommud_window_list_free(list);
        a = job_window(j.domain, 16 * (uint64_t)PAGE, 12);
        b = job_window(j.domain, 16 * (uint64_t)PAGE, 12);
        e.memory = j.memory;
        must(anywhere(&j, &e, 1, b.id, 0, &result));
        assert_int_equal(result.iova, b.start);
        must(anywhere(&j, &e, 1, a.id, 0, &result));
        assert_int_equal(result.iova, a.start + PAGE);          /* 0 is the last choice */
        e.length = 15 * PAGE;
        must(anywhere(&j, &e, 1, 0, 0, &result));               /* only the second has room */
        assert_int_equal(result.iova, b.start + PAGE);
        refused(anywhere(&j, &e, 1, 99999, 0, &result), ENOENT, IOMMUD_REASON_UNKNOWN_WINDOW, NULL);
        refused(anywhere(&j, &e, 1, a.id, 0, &result), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, NULL);
        job_end(&j);
        service_end(s);
}

/* Parts of pages: the place begins within a page as the memory does, in pages that nobody has. */
static void test_parts_of_pages(void **state) {
        struct service *s = service_start(&fast);
        const struct iommud_map_options options = { .size = sizeof options,
                                                    .flags = IOMMUD_MAP_ANYWHERE | IOMMUD_MAP_EXPOSE_PAGES };
        struct iommud_map_entry e = { .offset = 0x3200, .length = 0x1000, .access = IOMMUD_READ };
        struct iommud_map_result first = { .size = sizeof first }, second = { .size = sizeof second };
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, 64 * (uint64_t)PAGE);
        e.memory = j.memory;
        must(iommud_map_with(j.domain, &e, 1, &options, &first));
        assert_int_equal(first.iova % PAGE, 0x200);
        e.offset = 0x7200;
        must(iommud_map_with(j.domain, &e, 1, &options, &second));
        assert_true(second.iova / PAGE > (first.iova + 0xfff) / PAGE);
        assert_int_equal(one(&j, 0, PAGE) % PAGE, 0);
        job_end(&j);
        service_end(s);
}

static void test_a_thousand_places_come_and_go(void **state) {
        struct service *s = service_start(&fast);
        uint64_t at[200] = { 0 };
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 64 * (uint64_t)PAGE);
        srand(7);
        for (int step = 0; step < 1000; step++) {
                size_t i = (size_t)rand() % 200;
                uint64_t length = (1 + i % 5) * PAGE;

                if (at[i]) {
                        must(iommud_unmap(j.domain, at[i], length));
                        at[i] = 0;
                } else
                        at[i] = one(&j, (uint64_t)(rand() % 59) * PAGE, length);
        }
        must(iommud_unmap_all(j.domain, NULL));
        assert_int_equal(one(&j, 0, 64 * (uint64_t)PAGE), PAGE);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_entries_lie_one_after_another, harness_teardown),
                cmocka_unit_test_teardown(test_neither_reserved_nor_taken, harness_teardown),
                cmocka_unit_test_teardown(test_in_a_window_that_is_named, harness_teardown),
                cmocka_unit_test_teardown(test_parts_of_pages, harness_teardown),
                cmocka_unit_test_teardown(test_a_thousand_places_come_and_go, harness_teardown),
        };

        return cmocka_run_group_tests_name("map anywhere", tests, NULL, NULL);
}
