/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I3, I4: mappings smaller than an IOMMU page. Refused unless the caller consents to expose the whole page; then counted:
 * the page stays while one mapping needs it, devices may do what all of them together ask for and no more, and two that
 * disagree on what is behind the page are refused with both named. IOMMU pages of 64K, larger than the host's.
 */
#include <errno.h>

#include "lib/edu.h"
#include "lib/job.h"

#define IO_PAGE UINT64_C(0x10000)

static const struct service_options pages_64k = {
        .soft = "devices = edu0 edu1\ndma_delay_us = 1\npage_sizes = 64K 512M\n",
};

static void begin(struct service **s, struct job *j) {
        *s = service_start(&pages_64k);
        job_begin(j, (*s)->client, "edu0", 4 * IO_PAGE);
}

static void end(struct service *s, struct job *j) {
        job_end(j);
        service_end(s);
}

/* [offset, offset + length) of the memory at JOB_IOVA + offset. */
static int map_part(struct job *j, uint64_t offset, uint64_t length, enum iommud_access access) {
        const struct iommud_map_entry entry = { .iova = JOB_IOVA + offset, .memory = j->memory, .offset = offset,
                                                .length = length, .access = access };
        const struct iommud_map_options options = { .size = sizeof options, .flags = IOMMUD_MAP_EXPOSE_PAGES };

        return iommud_map_with(j->domain, &entry, 1, &options, NULL);
}

static bool device_writes(struct job *j, uint64_t offset) {
        memset(j->bytes, 0x77, 4 * IO_PAGE);
        must(edu_transfer(j->device, JOB_IOVA + offset, EDU_BLOCK, true));
        return memcmp(j->bytes + offset, "wwwwwwww", 8) != 0;   /* 'w' is 0x77 */
}

/* Fills the device's buffer from the offset, and looks whether it came; needs a page at offset 3 that it may write. */
static bool device_reads(struct job *j, uint64_t offset) {
        uint64_t to = 3 * IO_PAGE;

        memset(j->bytes, 0, 4 * IO_PAGE);
        must(edu_transfer(j->device, JOB_IOVA + to, EDU_BLOCK, false));         /* the buffer is zero now */
        memset(j->bytes + offset, 0x55, EDU_BLOCK);
        must(edu_transfer(j->device, JOB_IOVA + offset, EDU_BLOCK, false));
        must(edu_transfer(j->device, JOB_IOVA + to, EDU_BLOCK, true));
        return j->bytes[to] == 0x55;
}

static void test_refused_without_consent(void **state) {
        struct service *s;
        struct iommud_error e;
        struct job j;

        (void)state;
        begin(&s, &j);
        refused(iommud_map(j.domain, JOB_IOVA + PAGE, j.memory, PAGE, IO_PAGE, IOMMUD_READ), EINVAL, IOMMUD_REASON_UNALIGNED, &e);
        assert_int_equal(e.limit, IO_PAGE);
        assert_int_equal(e.nearest_below, JOB_IOVA);
        assert_int_equal(e.nearest_above, JOB_IOVA + IO_PAGE);
        assert_non_null(strstr(e.text, "0x10000"));
        refused(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ), EINVAL, IOMMUD_REASON_UNALIGNED, &e);
        end(s, &j);
}

/* The last one takes the page away, not the first; pages are charged once however many share them. */
static void test_counted(void **state) {
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j);
        must(map_part(&j, 0x100, 0x200, IOMMUD_READ_WRITE));
        must(map_part(&j, 0x1000, 0x1000, IOMMUD_READ_WRITE));
        must(map_part(&j, 0xf000, 0x1000, IOMMUD_READ_WRITE));
        assert_int_equal(job_domain_info(j.domain).shared_pages, 1);
        assert_int_equal(job_domain_info(j.domain).kernel_mappings, 1);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), IO_PAGE);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_MAPPINGS), 3);
        assert_true(device_writes(&j, 0x8000));         /* all of the page: that was consented to */
        must(iommud_unmap(j.domain, JOB_IOVA + 0x100, 0x200));
        must(iommud_unmap(j.domain, JOB_IOVA + 0xf000, 0x1000));
        assert_true(device_writes(&j, 0));
        must(iommud_unmap(j.domain, JOB_IOVA + 0x1000, 0x1000));
        assert_false(device_writes(&j, 0));
        assert_int_equal(job_domain_info(j.domain).shared_pages, 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        end(s, &j);
}

/* A reader's page becomes writable with the first writer, and is not any more when that one goes. */
static void test_access_is_the_union(void **state) {
        struct service *s;
        struct iommud_mapping *list;
        struct job j;
        size_t n;

        (void)state;
        begin(&s, &j);
        must(iommud_map(j.domain, JOB_IOVA + 3 * IO_PAGE, j.memory, 3 * IO_PAGE, IO_PAGE, IOMMUD_READ_WRITE));
        must(map_part(&j, 0, 0x1000, IOMMUD_READ));
        assert_false(device_writes(&j, 0));
        assert_true(device_reads(&j, 0));
        must(map_part(&j, 0x1000, 0x1000, IOMMUD_WRITE));
        must(iommud_mapping_list(j.domain, &list, &n));
        assert_int_equal(n, 3);
        assert_int_equal(list[0].access, IOMMUD_READ);
        assert_int_equal(list[0].exposed_access, IOMMUD_READ_WRITE);
        assert_int_equal(list[0].exposed_first, JOB_IOVA);
        assert_int_equal(list[0].exposed_last, JOB_IOVA + IO_PAGE - 1);
        assert_true(list[2].exposed_first > list[2].exposed_last);
        iommud_mapping_list_free(list);
        assert_true(device_writes(&j, 0));
        assert_true(device_reads(&j, 0));
        must(iommud_unmap(j.domain, JOB_IOVA + 0x1000, 0x1000));
        assert_false(device_writes(&j, 0));
        assert_true(device_reads(&j, 0));
        must(iommud_unmap(j.domain, JOB_IOVA, 0x1000));
        assert_false(device_reads(&j, 0));
        end(s, &j);
}

/* Head and tail are shared, the body is its own. */
static void test_a_range_over_several_pages(void **state) {
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j);
        must(map_part(&j, 0x8000, 2 * IO_PAGE, IOMMUD_READ_WRITE));
        must(map_part(&j, 0, 0x8000, IOMMUD_READ_WRITE));
        must(map_part(&j, 2 * IO_PAGE + 0x8000, 0x1000, IOMMUD_READ_WRITE));
        assert_int_equal(job_domain_info(j.domain).shared_pages, 2);
        assert_int_equal(job_domain_info(j.domain).kernel_mappings, 3);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 3 * IO_PAGE);
        must(iommud_unmap(j.domain, JOB_IOVA + 0x8000, 2 * IO_PAGE));
        assert_true(device_writes(&j, 0));
        assert_false(device_writes(&j, IO_PAGE));
        assert_true(device_writes(&j, 2 * IO_PAGE));
        end(s, &j);
}

/* Where a mapping that begins inside a page can be cut: at the end of that page, not a page behind its own beginning. */
static void test_borders_are_those_of_pages(void **state) {
        struct service *s;
        struct iommud_error e;
        struct job j;

        (void)state;
        begin(&s, &j);
        must(map_part(&j, 0x8000, 2 * IO_PAGE, IOMMUD_READ_WRITE));
        refused(job_unmap_part(&j, 0x8000, 0x1000, IOMMUD_SPLIT_REMAP), EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, &e);
        assert_int_equal(e.nearest_below, JOB_IOVA + 0x8000);
        assert_int_equal(e.nearest_above, JOB_IOVA + IO_PAGE);
        refused(job_unmap_part(&j, 2 * IO_PAGE, 0x1000, IOMMUD_SPLIT_REMAP), EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, &e);
        assert_int_equal(e.nearest_below, JOB_IOVA + 2 * IO_PAGE);
        assert_int_equal(e.nearest_above, JOB_IOVA + 2 * IO_PAGE + 0x8000);
        must(job_unmap_part(&j, 0x8000, 0x8000, IOMMUD_SPLIT_REMAP));
        end(s, &j);
}

static void test_disagreement(void **state) {
        const struct iommud_map_options options = { .size = sizeof options, .flags = IOMMUD_MAP_EXPOSE_PAGES };
        struct iommud_map_entry entry = { .access = IOMMUD_READ, .length = 0x1000 };
        struct service *s;
        struct iommud_memory *other;
        struct job_snapshot before;
        struct iommud_error e;
        struct job j;

        (void)state;
        begin(&s, &j);
        must(iommud_memory_alloc(j.client, IO_PAGE, NULL, &other));
        must(map_part(&j, 0, 0x1000, IOMMUD_READ));
        job_snapshot(&j, &before);
        entry.iova = JOB_IOVA + 0x1000;
        entry.offset = IO_PAGE + 0x1000;
        entry.memory = j.memory;
        refused(iommud_map_with(j.domain, &entry, 1, &options, NULL), EEXIST, IOMMUD_REASON_OVERLAP, &e);
        assert_int_equal(e.conflict_first, JOB_IOVA);
        assert_int_equal(e.conflict_last, JOB_IOVA + 0xfff);
        assert_non_null(strstr(e.text, "0x101000-0x101fff"));
        entry.offset = 0x1000;
        entry.memory = other;
        refused(iommud_map_with(j.domain, &entry, 1, &options, NULL), EEXIST, IOMMUD_REASON_OVERLAP, NULL);
        entry.offset = 0x2000;          /* lies otherwise in its page than the IOVA */
        entry.memory = j.memory;
        refused(iommud_map_with(j.domain, &entry, 1, &options, NULL), EINVAL, IOMMUD_REASON_UNALIGNED, &e);
        assert_int_equal(e.nearest_below, 0x1000);
        job_assert_unchanged(&j, &before);
        end(s, &j);
}

/* The object must have the whole page: what was not registered is not exposed. */
static void test_not_beyond_the_object(void **state) {
        const struct iommud_map_options options = { .size = sizeof options, .flags = IOMMUD_MAP_EXPOSE_PAGES };
        struct iommud_map_entry entry = { .iova = JOB_IOVA, .access = IOMMUD_READ, .length = PAGE };
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j);
        must(iommud_memory_alloc(j.client, PAGE, NULL, &entry.memory));
        refused(iommud_map_with(j.domain, &entry, 1, &options, NULL), EINVAL, IOMMUD_REASON_BEYOND_OBJECT, NULL);
        end(s, &j);
}

/* Shared pages, their access and their counts are known after a restart. */
static void test_survives_a_restart(void **state) {
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j);
        must(iommud_map(j.domain, JOB_IOVA + 3 * IO_PAGE, j.memory, 3 * IO_PAGE, IO_PAGE, IOMMUD_READ_WRITE));
        must(map_part(&j, 0, 0x1000, IOMMUD_READ));
        must(map_part(&j, 0x1000, 0x1000, IOMMUD_WRITE));
        must(map_part(&j, 0x2000, 0x1000, IOMMUD_READ));
        must(iommud_unmap(j.domain, JOB_IOVA + 0x2000, 0x1000));        /* nothing that the holder hears of */
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        service_assert_ledger(s);
        assert_int_equal(job_mappings(j.domain), 3);
        assert_int_equal(job_domain_info(j.domain).shared_pages, 1);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 2 * IO_PAGE);
        assert_true(device_writes(&j, 0x4000));
        must(iommud_unmap(j.domain, JOB_IOVA + 0x1000, 0x1000));
        assert_false(device_writes(&j, 0x4000));
        assert_true(device_reads(&j, 0x4000));
        end(s, &j);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_refused_without_consent, harness_teardown),
                cmocka_unit_test_teardown(test_counted, harness_teardown),
                cmocka_unit_test_teardown(test_access_is_the_union, harness_teardown),
                cmocka_unit_test_teardown(test_a_range_over_several_pages, harness_teardown),
                cmocka_unit_test_teardown(test_borders_are_those_of_pages, harness_teardown),
                cmocka_unit_test_teardown(test_disagreement, harness_teardown),
                cmocka_unit_test_teardown(test_not_beyond_the_object, harness_teardown),
                cmocka_unit_test_teardown(test_survives_a_restart, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
