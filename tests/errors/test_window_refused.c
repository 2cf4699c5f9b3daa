/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Everything that can be wrong with a window, on both kinds of IOMMU: refused by us, with the values that would do, and
 * nothing is left behind.
 */
#include <errno.h>

#include "lib/edu.h"
#include "lib/job.h"
#include "util/cleanup.h"

#define MIB UINT64_C(0x100000)
#define GIB UINT64_C(0x40000000)
#define LARGEST (UINT64_C(0x80000000) << 12)

struct kind {
        const char *soft;
        uint64_t largest, page_sizes;
        uint32_t levels_max;
};

static const struct kind ranges = { "devices = edu0\n", UINT64_C(1) << 47, UINT64_C(0x40201000), 1 };
static const struct kind power = { "windows = spapr\ndevices = edu0\n", LARGEST, 0x1211000, 5 };

static struct service *service;
static struct job j;

/* A domain where a window can be created. */
static void begin(const struct kind *k) {
        struct iommud_window *list;
        size_t n;

        service = service_start(&(struct service_options){ .soft = k->soft, .defaults = "table_bytes = 256M\n" });
        job_begin(&j, service->client, "edu0", (uint64_t)16 * PAGE);
        must(iommud_window_query(j.domain, &list, &n, NULL));
        assert_int_equal(n, 1);
        must(iommud_window_remove(j.domain, list[0].id, 0));
        iommud_window_list_free(list);
}

static void end(void) {
        job_end(&j);
        service_end(service);
}

static void create_refused(const struct iommud_window_options *o, int error, enum iommud_reason reason, struct iommud_error *ret) {
        struct job_snapshot before;
        size_t n = job_windows(j.domain, NULL);

        job_snapshot(&j, &before);
        refused(iommud_window_create(j.domain, o, NULL), error, reason, ret);
        job_assert_unchanged(&j, &before);
        assert_int_equal(job_windows(j.domain, NULL), n);
}

static void bad_size(uint64_t length, uint32_t page_shift, uint64_t below, uint64_t above) {
        const struct iommud_window_options o = { .size = sizeof o, .length = length, .page_shift = page_shift };
        struct iommud_error e = { .size = sizeof e };

        create_refused(&o, E2BIG, IOMMUD_REASON_WINDOW_SIZE, &e);
        assert_int_equal(e.asked, length);
        assert_int_equal(e.nearest_below, below);
        assert_int_equal(e.nearest_above, above);
}

static void sizes(const struct kind *k) {
        begin(k);
        bad_size(0, 0, 0, PAGE);
        bad_size(1, 0, 0, PAGE);
        bad_size(PAGE - 1, 0, 0, PAGE);
        bad_size(PAGE + 1, 0, PAGE, 2 * PAGE);
        bad_size(3 * MIB, 0, 2 * MIB, 4 * MIB);
        bad_size(MIB, 21, 0, 2 * MIB);
        bad_size(k->largest - 1, 0, k->largest / 2, k->largest);
        bad_size(k->largest + 1, 0, k->largest, 0);
        bad_size(UINT64_C(0xffffffff) << 12, 0, k->largest == LARGEST ? LARGEST : UINT64_C(0x80000000) << 12,
                 k->largest == LARGEST ? 0 : UINT64_C(0x80000000) << 13);
        bad_size(2 * k->largest, 0, k->largest, 0);
        bad_size(UINT64_MAX, 0, k->largest, 0);
        (void)job_window(j.domain, k->largest, 0);
        end();
}

static void bad_page(uint32_t page_shift, uint64_t least, uint64_t asked, uint64_t below, uint64_t above, uint64_t mask) {
        const struct iommud_window_options o = { .size = sizeof o, .length = GIB, .page_shift = page_shift,
                                                 .min_page_size = least };
        struct iommud_error e = { .size = sizeof e };

        create_refused(&o, EINVAL, IOMMUD_REASON_WINDOW_PAGE, &e);
        assert_int_equal(e.limit, mask);
        assert_int_equal(e.asked, asked);
        assert_int_equal(e.nearest_below, below);
        assert_int_equal(e.nearest_above, above);
}

static void pages(const struct kind *k) {
        uint64_t top = UINT64_C(1) << (63 - __builtin_clzll(k->page_sizes));

        begin(k);
        bad_page(11, 0, 2048, 0, PAGE, k->page_sizes);
        bad_page(13, 0, 8192, PAGE, k->levels_max > 1 ? 65536 : 2 * MIB, k->page_sizes);
        bad_page(22, 0, 4 * MIB, 2 * MIB, k->levels_max > 1 ? 16 * MIB : GIB, k->page_sizes);
        bad_page(31, 0, 2 * GIB, top, 0, k->page_sizes);
        bad_page(64, 0, 0, top, 0, k->page_sizes);
        bad_page(UINT32_MAX, 0, 0, top, 0, k->page_sizes);
        bad_page(0, top + 1, top + 1, top, 0, k->page_sizes);
        bad_page(12, PAGE + 1, PAGE, 0, k->levels_max > 1 ? 65536 : 2 * MIB, k->page_sizes);
        end();
}

static void levels(const struct kind *k) {
        const uint32_t bad[] = { k->levels_max + 1, 9, UINT32_MAX };
        struct iommud_error e = { .size = sizeof e };

        begin(k);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                const struct iommud_window_options o = { .size = sizeof o, .length = GIB, .levels = bad[i] };

                create_refused(&o, EINVAL, IOMMUD_REASON_WINDOW_LEVELS, &e);
                assert_int_equal(e.asked, bad[i]);
                assert_in_range(e.nearest_below, 1, k->levels_max);
        }
        end();
}

static void test_sizes(void **state) {
        (void)state;
        sizes(&ranges);
        sizes(&power);
}

static void test_pages(void **state) {
        (void)state;
        pages(&ranges);
        pages(&power);
}

static void test_levels(void **state) {
        (void)state;
        levels(&ranges);
        levels(&power);
}

/* ---- one too many ---- */

static void test_more_than_the_platform_has(void **state) {
        const struct iommud_window_options o = { .size = sizeof o, .length = GIB };
        struct iommud_error e = { .size = sizeof e };

        (void)state;
        begin(&power);
        (void)job_window(j.domain, GIB, 12);
        (void)job_window(j.domain, GIB, 12);
        create_refused(&o, ENOSPC, IOMMUD_REASON_WINDOW_LIMIT, &e);
        assert_int_equal(e.limit, 2);
        assert_int_equal(e.used, 2);
        end();
}

static void test_more_than_there_is_room_for(void **state) {
        const struct iommud_window_options o = { .size = sizeof o, .length = UINT64_C(1) << 47 };
        struct iommud_error e = { .size = sizeof e };
        struct iommud_window w;

        (void)state;
        begin(&ranges);
        w = job_window(j.domain, UINT64_C(1) << 47, 12);
        create_refused(&o, ENOSPC, IOMMUD_REASON_WINDOW_LIMIT, &e);
        assert_int_equal(e.conflict_first, w.start);
        assert_int_equal(e.nearest_below, UINT64_C(1) << 46);
        (void)job_window(j.domain, e.nearest_below, 12);
        end();
}

/* A table of one level is there as a whole: more than the tenant may have of tables. */
static void test_a_table_beyond_the_quota(void **state) {
        const struct iommud_window_options o = { .size = sizeof o, .length = LARGEST, .levels = 1 };
        struct iommud_error e = { .size = sizeof e };

        (void)state;
        begin(&power);
        create_refused(&o, EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.resource, IOMMUD_RESOURCE_TABLE_BYTES);
        assert_int_equal(e.asked, 32 * GIB);
        end();
}

/* ---- mapping ---- */

static void mapping(const struct kind *k) {
        struct iommud_error e = { .size = sizeof e };
        struct job_snapshot before;
        struct iommud_window a, b, of64k;

        begin(k);
        a = job_window(j.domain, GIB, 12);
        b = job_window(j.domain, GIB, 12);
        job_snapshot(&j, &before);
        refused(iommud_map(j.domain, a.start + GIB - PAGE, j.memory, 0, 2 * PAGE, IOMMUD_READ), ERANGE,
                IOMMUD_REASON_NO_WINDOW, &e);
        assert_int_equal(e.conflict_first, a.start);
        refused(iommud_map(j.domain, b.start - PAGE, j.memory, 0, 2 * PAGE, IOMMUD_READ), ERANGE, IOMMUD_REASON_NO_WINDOW, &e);
        refused(iommud_map(j.domain, UINT64_C(0x100000000), j.memory, 0, PAGE, IOMMUD_READ), ERANGE, IOMMUD_REASON_NO_WINDOW,
                &e);
        assert_true(e.conflict_first > e.conflict_last);
        refused(iommud_map(j.domain, a.start + 1, j.memory, 0, PAGE, IOMMUD_READ), EINVAL, IOMMUD_REASON_UNALIGNED, &e);
        assert_int_equal(e.limit, PAGE);
        job_assert_unchanged(&j, &before);
        must(iommud_window_remove(j.domain, b.id, 0));
        of64k = job_window(j.domain, GIB, k == &power ? 16 : 21);
        job_snapshot(&j, &before);
        refused(iommud_map(j.domain, of64k.start + PAGE, j.memory, 0, PAGE, IOMMUD_READ), EINVAL, IOMMUD_REASON_UNALIGNED, &e);
        assert_int_equal(e.limit, UINT64_C(1) << of64k.page_shift);
        assert_int_equal(e.nearest_below, of64k.start);
        if (k == &power) {
                refused(iommud_map(j.domain, of64k.start, j.memory, 0, 16 * PAGE, IOMMUD_READ), EINVAL,
                        IOMMUD_REASON_MEMORY_PAGE_SIZE, &e);
                assert_int_equal(e.limit, 65536);
                assert_int_equal(e.asked, PAGE);
        }
        job_assert_unchanged(&j, &before);
        end();
}

static void test_mapping(void **state) {
        (void)state;
        mapping(&ranges);
        mapping(&power);
}

/* ---- removing ---- */

static void removing(const struct kind *k) {
        struct iommud_error e = { .size = sizeof e };
        struct iommud_domain *other;
        struct iommud_window w;

        begin(k);
        refused(iommud_window_remove(j.domain, 999999, 0), ENOENT, IOMMUD_REASON_UNKNOWN_WINDOW, &e);
        assert_int_equal(e.asked, 999999);
        refused(iommud_window_remove(j.domain, 0, 1), ENOENT, IOMMUD_REASON_UNKNOWN_WINDOW, NULL);
        w = job_window(j.domain, GIB, 12);
        must(iommud_domain_create(j.client, "other", &other));
        refused(iommud_window_remove(other, w.id, 1), ENOENT, IOMMUD_REASON_UNKNOWN_WINDOW, NULL);
        must(iommud_map(j.domain, w.start, j.memory, 0, PAGE, IOMMUD_READ));
        refused(iommud_window_remove(j.domain, w.id, 0), EBUSY, IOMMUD_REASON_IN_USE, &e);
        assert_int_equal(e.used, 1);
        must(iommud_window_remove(j.domain, w.id, 1));
        refused(iommud_window_remove(j.domain, w.id, 1), ENOENT, IOMMUD_REASON_UNKNOWN_WINDOW, NULL);
        end();
}

static void test_removing(void **state) {
        (void)state;
        removing(&ranges);
        removing(&power);
}

/* Windows of an IOMMU's own live in its container. */
static void test_without_a_device(void **state) {
        const struct iommud_window_options o = { .size = sizeof o, .length = GIB };
        struct iommud_domain *other;
        struct iommud_window *list;
        size_t n;

        (void)state;
        begin(&power);
        must(iommud_domain_create(j.client, "other", &other));
        must(iommud_window_query(other, &list, &n, NULL));
        assert_int_equal(n, 1);
        refused(iommud_window_create(other, &o, NULL), ENOTSUP, IOMMUD_REASON_UNSUPPORTED, NULL);
        refused(iommud_window_remove(other, list[0].id, 1), ENOTSUP, IOMMUD_REASON_UNSUPPORTED, NULL);
        iommud_window_list_free(list);
        must(iommud_map(other, JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ));
        must(iommud_window_reset(other));
        assert_int_equal(job_mappings(other), 0);
        end();
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_sizes, harness_teardown),
                cmocka_unit_test_teardown(test_pages, harness_teardown),
                cmocka_unit_test_teardown(test_levels, harness_teardown),
                cmocka_unit_test_teardown(test_more_than_the_platform_has, harness_teardown),
                cmocka_unit_test_teardown(test_more_than_there_is_room_for, harness_teardown),
                cmocka_unit_test_teardown(test_a_table_beyond_the_quota, harness_teardown),
                cmocka_unit_test_teardown(test_mapping, harness_teardown),
                cmocka_unit_test_teardown(test_removing, harness_teardown),
                cmocka_unit_test_teardown(test_without_a_device, harness_teardown),
        };

        return cmocka_run_group_tests_name("what can be wrong with a window", tests, NULL, NULL);
}
