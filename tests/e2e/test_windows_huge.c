/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * A window of large pages: what is mapped in it has pages at least as large, hugetlb memory, and both ends of it are reached. On
 * the software IOMMU's personality of POWER, and inside an aperture, where the window is the service's promise alone.
 */
#include <errno.h>

#include "lib/edu.h"
#include "lib/huge_pages.h"
#include "lib/job.h"

#define GIB UINT64_C(0x40000000)
#define HUGE_SHIFT 21U
#define HUGE_PAGES 2U

static bool has_huge_pages;

static int setup(void **state) {
        (void)state;
        has_huge_pages = huge_pages_take(HUGE_PAGES);
        return 0;
}

static int teardown(void **state) {
        if (has_huge_pages)
                huge_pages_return(HUGE_PAGES);
        return harness_teardown(state);
}

/* The device writes what it reads at `from` to `to`; the memory tells. */
static void assert_copied(struct job *j, uint8_t *bytes, uint64_t window, uint64_t from, uint64_t to) {
        memset(bytes + from, 0x5a, EDU_BLOCK);
        memset(bytes + to, 0, EDU_BLOCK);
        must(edu_transfer(j->device, window + from, EDU_BLOCK, false));
        must(edu_transfer(j->device, window + to, EDU_BLOCK, true));
        for (size_t i = 0; i < EDU_BLOCK; i++)
                assert_int_equal(bytes[to + i], 0x5a);
}

static void use(struct job *j) {
        const struct iommud_memory_options huge = { .size = sizeof huge, .huge_page_size = HUGE_PAGE };
        struct iommud_window w = job_window(j->domain, GIB, HUGE_SHIFT);
        const uint64_t last = HUGE_PAGES * HUGE_PAGE - EDU_BLOCK, end = w.start + w.length - HUGE_PAGE;
        struct iommud_memory *memory;

        assert_int_equal(w.page_shift, HUGE_SHIFT);
        refused(iommud_map(j->domain, w.start, j->memory, 0, HUGE_PAGE, IOMMUD_READ_WRITE), EINVAL,
                IOMMUD_REASON_MEMORY_PAGE_SIZE, NULL);  /* of pages of 4K */
        must(iommud_memory_alloc(j->client, HUGE_PAGES * HUGE_PAGE, &huge, &memory));
        refused(iommud_map(j->domain, w.start, memory, 0, PAGE, IOMMUD_READ_WRITE), EINVAL, IOMMUD_REASON_UNALIGNED, NULL);
        must(iommud_map(j->domain, w.start, memory, 0, HUGE_PAGES * HUGE_PAGE, IOMMUD_READ_WRITE));
        must(iommud_map(j->domain, end, memory, HUGE_PAGE, HUGE_PAGE, IOMMUD_READ_WRITE));
        assert_int_equal(job_used(j->client, IOMMUD_RESOURCE_LOCKED_BYTES), HUGE_PAGES * HUGE_PAGE);
        assert_copied(j, iommud_memory_addr(memory), w.start, 0, last);
        must(edu_transfer(j->device, end + HUGE_PAGE - EDU_BLOCK, EDU_BLOCK, false));   /* the same bytes as at last */
        must(edu_transfer(j->device, w.start, EDU_BLOCK, true));
        assert_int_equal(((uint8_t *)iommud_memory_addr(memory))[0], 0x5a);
        must(iommud_window_remove(j->domain, w.id, 1));
        memset(iommud_memory_addr(memory), 0, EDU_BLOCK);
        must(edu_transfer(j->device, w.start, EDU_BLOCK, true));
        assert_int_equal(((uint8_t *)iommud_memory_addr(memory))[0], 0);
        assert_int_equal(job_used(j->client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        must(iommud_memory_close(memory));
}

static void with_personality(const char *soft, bool remove_default) {
        struct service *s;
        struct job j;

        if (!has_huge_pages)
                skip_because("no huge pages of 2 MiB can be reserved (it takes root and a kernel with hugetlb)");
        s = service_start(&(struct service_options){ .soft = soft, .defaults = "locked_bytes = 1G\ntable_bytes = 128M\n" });
        job_begin(&j, s->client, "edu0", HUGE_PAGE);
        if (remove_default) {
                struct iommud_window *list;
                size_t n;

                must(iommud_window_query(j.domain, &list, &n, NULL));
                must(iommud_window_remove(j.domain, list[0].id, 0));
                iommud_window_list_free(list);
        }
        use(&j);
        job_end(&j);
        service_end(s);
}

static void test_as_on_power(void **state) {
        (void)state;
        with_personality("windows = spapr\ndevices = edu0\ndma_delay_us = 1\n", false);
}

/* Created once the default window has made room. */
static void test_inside_an_aperture(void **state) {
        (void)state;
        with_personality("devices = edu0\ndma_delay_us = 1\npage_sizes = 4K 2M\n", true);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_as_on_power, setup, teardown),
                cmocka_unit_test_setup_teardown(test_inside_an_aperture, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
