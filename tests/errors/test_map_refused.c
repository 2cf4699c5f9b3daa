/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Every range that cannot be mapped or unmapped is refused with its reason and with numbers that help, and leaves
 * nothing behind.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/edu.h"
#include "lib/job.h"
#include "util/cleanup.h"

#define APERTURE_END (1ULL << 48)
#define RESERVED 0xfee00000ULL
#define RESERVED_END 0xfef00000ULL
#define TOP (0ULL - PAGE)               /* the last page that an address can name */
#define PAGES(n) ((uint64_t)(n) * PAGE)

struct fixture {
        struct service *service;
        struct job job;                 /* 16 pages of memory, 4 of them mapped at JOB_IOVA */
        struct job_snapshot before;
};

static void begin(struct fixture *f) {
        f->service = service_start(&(struct service_options){ 0 });
        job_begin(&f->job, f->service->client, "edu0", PAGES(16));
        must(iommud_map(f->job.domain, JOB_IOVA, f->job.memory, 0, PAGES(4), IOMMUD_READ_WRITE));
        job_snapshot(&f->job, &f->before);
}

static void end(struct fixture *f) {
        job_assert_given_back(&f->job, &f->before);
        job_assert_dma(&f->job, JOB_IOVA, 0, PAGE);
        job_end(&f->job);
        service_end(f->service);
}

struct bad_map {
        uint64_t iova, offset, length;
        unsigned access;
        int error;
        enum iommud_reason reason;
};

static void assert_refused(struct fixture *f, const struct bad_map *b, struct iommud_error *e) {
        struct job_snapshot before;
        char call[128];

        job_snapshot(&f->job, &before);
        (void)snprintf(call, sizeof call, "map 0x%llx offset 0x%llx length 0x%llx access %u",
                       (unsigned long long)b->iova,
                       (unsigned long long)b->offset, (unsigned long long)b->length, b->access);
        job_refused(iommud_map(f->job.domain, b->iova, f->job.memory, b->offset, b->length,
                               (enum iommud_access)b->access),
                    b->error, b->reason, call, e);
        assert_int_equal(e->element, -1);
        assert_string_equal(e->call, "iommud_map");
        job_assert_unchanged(&f->job, &before);
}

static void test_zero_length(void **state) {
        const struct bad_map b = { 0x800000, 0, 0, 3, EINVAL, IOMMUD_REASON_ZERO_LENGTH };
        struct iommud_error e;
        struct fixture f;

        (void)state;
        begin(&f);
        assert_refused(&f, &b, &e);
        end(&f);
}

static void test_unaligned(void **state) {
        static const struct {
                struct bad_map map;
                uint64_t asked, below, above;
        } bad[] = {
                { { 0x800001, 0, PAGE, 3, EINVAL, IOMMUD_REASON_UNALIGNED }, 0x800001, 0x800000, 0x801000 },
                { { 0x800fff, 0, PAGE, 3, EINVAL, IOMMUD_REASON_UNALIGNED }, 0x800fff, 0x800000, 0x801000 },
                { { 0x800000, 1, PAGE, 3, EINVAL, IOMMUD_REASON_UNALIGNED }, 1, 0, 0x1000 },
                { { 0x800000, 0x1800, PAGE, 3, EINVAL, IOMMUD_REASON_UNALIGNED }, 0x1800, 0x1000, 0x2000 },
                { { 0x800000, 0, 1, 3, EINVAL, IOMMUD_REASON_UNALIGNED }, 1, 0, 0x1000 },
                { { 0x800000, 0, PAGE + 1, 3, EINVAL, IOMMUD_REASON_UNALIGNED }, 0x1001, 0x1000, 0x2000 },
                { { UINT64_MAX, 0, PAGE, 3, EINVAL, IOMMUD_REASON_UNALIGNED }, UINT64_MAX, TOP, TOP },
                { { 0x800000, 0, UINT64_MAX, 3, EINVAL, IOMMUD_REASON_UNALIGNED }, UINT64_MAX, TOP, TOP },
        };
        struct iommud_error e;
        struct fixture f;

        (void)state;
        begin(&f);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_refused(&f, &bad[i].map, &e);
                assert_int_equal(e.limit, PAGE);
                assert_int_equal(e.asked, bad[i].asked);
                assert_int_equal(e.nearest_below, bad[i].below);
                assert_int_equal(e.nearest_above, bad[i].above);
        }
        end(&f);
}

static void test_past_the_end_of_addresses(void **state) {
        const struct bad_map wraps = { TOP, 0, PAGES(2), 3, EINVAL, IOMMUD_REASON_RANGE_WRAPS };
        const struct bad_map wraps_far = { PAGES(16), 0, TOP, 3, EINVAL, IOMMUD_REASON_RANGE_WRAPS };
        const struct bad_map last = { TOP, 0, PAGE, 3, EINVAL, IOMMUD_REASON_OUTSIDE_APERTURE };
        struct iommud_error e;
        struct fixture f;

        (void)state;
        begin(&f);
        assert_refused(&f, &wraps, &e);
        assert_int_equal(e.asked, PAGES(2));
        assert_int_equal(e.limit, PAGE);                /* so much would fit */
        assert_refused(&f, &wraps_far, &e);
        assert_refused(&f, &last, &e);                  /* ends with the addresses: fits them, but not the aperture */
        assert_int_equal(e.asked, UINT64_MAX);
        assert_int_equal(e.limit, APERTURE_END - 1);
        end(&f);
}

static void test_outside_aperture(void **state) {
        static const struct bad_map bad[] = {
                { APERTURE_END, 0, PAGE, 3, EINVAL, IOMMUD_REASON_OUTSIDE_APERTURE },
                { APERTURE_END - PAGE, 0, PAGES(2), 3, EINVAL, IOMMUD_REASON_OUTSIDE_APERTURE },
                { 0xffff000000000000ULL, 0, PAGE, 3, EINVAL, IOMMUD_REASON_OUTSIDE_APERTURE },
                { 1ULL << 63, 0, PAGE, 1, EINVAL, IOMMUD_REASON_OUTSIDE_APERTURE },
        };
        struct iommud_error e;
        struct fixture f;

        (void)state;
        begin(&f);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_refused(&f, &bad[i], &e);
                assert_int_equal(e.nearest_above, APERTURE_END - 1);
        }
        /* up to it is fine */
        must(iommud_map(f.job.domain, APERTURE_END - PAGE, f.job.memory, PAGES(4), PAGE, IOMMUD_READ_WRITE));
        must(iommud_map(f.job.domain, 0, f.job.memory, PAGES(4), PAGE, IOMMUD_READ_WRITE));
        must(iommud_unmap(f.job.domain, APERTURE_END - PAGE, PAGE));
        must(iommud_unmap(f.job.domain, 0, PAGE));
        end(&f);
}

static void test_reserved_region(void **state) {
        static const struct bad_map bad[] = {
                { RESERVED, 0, PAGE, 3, EINVAL, IOMMUD_REASON_RESERVED_REGION },
                { RESERVED + PAGES(7), 0, PAGES(2), 3, EINVAL, IOMMUD_REASON_RESERVED_REGION },
                { RESERVED_END - PAGE, 0, PAGE, 3, EINVAL, IOMMUD_REASON_RESERVED_REGION },
                { RESERVED - PAGE, 0, PAGES(2), 3, EINVAL, IOMMUD_REASON_RESERVED_REGION },
                { RESERVED_END - PAGE, 0, PAGES(2), 3, EINVAL, IOMMUD_REASON_RESERVED_REGION },
        };
        struct iommud_error e;
        struct fixture f;

        (void)state;
        begin(&f);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_refused(&f, &bad[i], &e);
                assert_int_equal(e.conflict_first, RESERVED);
                assert_int_equal(e.conflict_last, RESERVED_END - 1);
                assert_int_equal(e.nearest_above, RESERVED_END);
        }
        must(iommud_map(f.job.domain, RESERVED - PAGE, f.job.memory, 0, PAGE, IOMMUD_READ));    /* beside it is fine */
        must(iommud_map(f.job.domain, RESERVED_END, f.job.memory, 0, PAGE, IOMMUD_READ));
        must(iommud_unmap(f.job.domain, RESERVED - PAGE, PAGE));
        must(iommud_unmap(f.job.domain, RESERVED_END, PAGE));
        end(&f);
}

static void test_overlap(void **state) {
        static const struct bad_map bad[] = {
                { JOB_IOVA, 0, PAGES(4), 3, EEXIST, IOMMUD_REASON_OVERLAP },
                { JOB_IOVA - PAGE, 0, PAGES(2), 3, EEXIST, IOMMUD_REASON_OVERLAP },
                { JOB_IOVA + PAGES(3), 0, PAGES(2), 3, EEXIST, IOMMUD_REASON_OVERLAP },
                { JOB_IOVA + PAGE, 0, PAGE, 3, EEXIST, IOMMUD_REASON_OVERLAP },
                { JOB_IOVA - PAGE, 0, PAGES(8), 3, EEXIST, IOMMUD_REASON_OVERLAP },
                { JOB_IOVA, 0, PAGE, 3, EEXIST, IOMMUD_REASON_OVERLAP },
        };
        struct iommud_error e;
        struct fixture f;

        (void)state;
        begin(&f);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_refused(&f, &bad[i], &e);
                assert_int_equal(e.conflict_first, JOB_IOVA);
                assert_int_equal(e.conflict_last, JOB_IOVA + PAGES(4) - 1);
        }
        must(iommud_map(f.job.domain, JOB_IOVA - PAGE, f.job.memory, 0, PAGE, IOMMUD_READ));    /* beside it is fine */
        must(iommud_map(f.job.domain, JOB_IOVA + PAGES(4), f.job.memory, 0, PAGE, IOMMUD_READ));
        must(iommud_unmap(f.job.domain, JOB_IOVA - PAGE, PAGE));
        must(iommud_unmap(f.job.domain, JOB_IOVA + PAGES(4), PAGE));
        end(&f);
}

static void test_beyond_the_object(void **state) {
        static const struct bad_map bad[] = {
                { 0x800000, PAGES(16), PAGE, 3, EINVAL, IOMMUD_REASON_BEYOND_OBJECT },
                { 0x800000, PAGES(15), PAGES(2), 3, EINVAL, IOMMUD_REASON_BEYOND_OBJECT },
                { 0x800000, 0, PAGES(17), 3, EINVAL, IOMMUD_REASON_BEYOND_OBJECT },
                { 0x800000, TOP, PAGE, 3, EINVAL, IOMMUD_REASON_BEYOND_OBJECT },        /* offset + length is 2^64 */
                { 0x800000, TOP, PAGES(2), 3, EINVAL, IOMMUD_REASON_BEYOND_OBJECT },    /* and past it */
        };
        struct iommud_error e;
        struct fixture f;

        (void)state;
        begin(&f);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_refused(&f, &bad[i], &e);
                assert_int_equal(e.limit, PAGES(16));
        }
        must(iommud_map(f.job.domain, 0x800000, f.job.memory, PAGES(15), PAGE, IOMMUD_READ));   /* up to it is fine */
        must(iommud_unmap(f.job.domain, 0x800000, PAGE));
        end(&f);
}

static void test_bad_access(void **state) {
        static const unsigned bad[] = { 0, 4, 7, 0x80000000U };
        struct iommud_error e;
        struct fixture f;

        (void)state;
        begin(&f);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                const struct bad_map b = { 0x800000, 0, PAGE, bad[i], EINVAL, IOMMUD_REASON_BAD_ACCESS };

                assert_refused(&f, &b, &e);
                assert_int_equal(e.asked, bad[i]);
        }
        end(&f);
}

static void test_bad_unmap(void **state) {
        static const struct {
                uint64_t iova, length;
                int error;
                enum iommud_reason reason;
                uint64_t conflict_first, conflict_last;
        } bad[] = {
                { JOB_IOVA, 0, EINVAL, IOMMUD_REASON_ZERO_LENGTH, 1, 0 },
                { TOP, PAGES(2), EINVAL, IOMMUD_REASON_RANGE_WRAPS, 1, 0 },
                { 0x800000, PAGE, ENOENT, IOMMUD_REASON_NOT_MAPPED, 0x800000, 0x800fff },
                { TOP, PAGE, ENOENT, IOMMUD_REASON_NOT_MAPPED, TOP, UINT64_MAX },
                { JOB_IOVA, PAGES(5), ENOENT, IOMMUD_REASON_NOT_MAPPED, JOB_IOVA + PAGES(4), JOB_IOVA + PAGES(5) - 1 },
                { JOB_IOVA - PAGE, PAGES(5), ENOENT, IOMMUD_REASON_NOT_MAPPED, JOB_IOVA - PAGE, JOB_IOVA - 1 },
                { JOB_IOVA, PAGE, EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, JOB_IOVA, JOB_IOVA + PAGES(4) - 1 },
                { JOB_IOVA + PAGE, PAGES(3), EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, JOB_IOVA, JOB_IOVA + PAGES(4) - 1 },
                { JOB_IOVA + 1, PAGE, EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, JOB_IOVA, JOB_IOVA + PAGES(4) - 1 },
        };
        struct iommud_error e;
        struct fixture f;

        (void)state;
        begin(&f);
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                char call[64];

                (void)snprintf(call, sizeof call, "unmap 0x%llx length 0x%llx", (unsigned long long)bad[i].iova,
                               (unsigned long long)bad[i].length);
                job_refused(iommud_unmap(f.job.domain, bad[i].iova, bad[i].length), bad[i].error, bad[i].reason, call,
                            &e);
                if (bad[i].conflict_first <= bad[i].conflict_last) {
                        assert_int_equal(e.conflict_first, bad[i].conflict_first);
                        assert_int_equal(e.conflict_last, bad[i].conflict_last);
                }
                if (bad[i].reason == IOMMUD_REASON_PARTIAL_UNMAP) {
                        assert_int_equal(e.nearest_below, JOB_IOVA);
                        assert_int_equal(e.nearest_above, JOB_IOVA + PAGES(4));
                }
                job_assert_unchanged(&f.job, &f.before);
        }
        end(&f);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_zero_length, harness_teardown),
                cmocka_unit_test_teardown(test_unaligned, harness_teardown),
                cmocka_unit_test_teardown(test_past_the_end_of_addresses, harness_teardown),
                cmocka_unit_test_teardown(test_outside_aperture, harness_teardown),
                cmocka_unit_test_teardown(test_reserved_region, harness_teardown),
                cmocka_unit_test_teardown(test_overlap, harness_teardown),
                cmocka_unit_test_teardown(test_beyond_the_object, harness_teardown),
                cmocka_unit_test_teardown(test_bad_access, harness_teardown),
                cmocka_unit_test_teardown(test_bad_unmap, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
