/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Windows where the IOMMU has none of its own: the contract is the same as on POWER, inside the ranges that it has. The default
 * window is all of them, so that who knows nothing of windows maps as before; it can be removed, and a reset brings it back.
 */
#include <errno.h>

#include "lib/edu.h"
#include "lib/job.h"
#include "util/cleanup.h"

#define MIB UINT64_C(0x100000)
#define GIB UINT64_C(0x40000000)

static const struct service_options fast = { .soft = "devices = edu0 edu1\ndma_delay_us = 1\n" };

static struct iommud_window the_default(struct iommud_domain *domain) {
        struct iommud_window *list, w = { 0 };
        size_t n;

        must(iommud_window_query(domain, &list, &n, NULL));
        for (size_t i = 0; i < n; i++)
                if (list[i].is_default)
                        w = list[i];
        iommud_window_list_free(list);
        assert_true(w.is_default);
        return w;
}

static struct iommud_window window(struct iommud_domain *domain, uint64_t id) {
        struct iommud_window *list, w = { 0 };
        size_t n;

        must(iommud_window_query(domain, &list, &n, NULL));
        for (size_t i = 0; i < n; i++)
                if (list[i].id == id)
                        w = list[i];
        iommud_window_list_free(list);
        assert_int_equal(w.id, id);
        return w;
}

static int map_in(struct job *j, uint64_t iova, uint64_t offset, uint64_t length) {
        return iommud_map(j->domain, iova, j->memory, offset, length, IOMMUD_READ_WRITE);
}

static void test_the_default_window_is_all_there_is(void **state) {
        struct iommud_window_limits limits = { .size = sizeof limits };
        struct service *s = service_start(&fast);
        struct iommud_error error = { .size = sizeof error };
        struct iommud_window w;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 64 * (uint64_t)PAGE);
        assert_int_equal(job_windows(j.domain, &limits), 1);
        assert_int_equal(limits.can_create, 0);
        assert_int_equal(limits.largest, UINT64_C(1) << 47);    /* 48 bits, with the interrupts in the lower half */
        w = the_default(j.domain);
        assert_int_equal(w.start, 0);
        assert_int_equal(w.length, UINT64_C(1) << 48);
        assert_int_equal(w.page_shift, 12);
        assert_int_equal(w.table_bytes, 0);
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, 32 * PAGE);
        w = the_default(j.domain);
        assert_int_equal(w.mappings, 1);
        assert_int_equal(w.mapped_bytes, 64 * PAGE);
        refused(iommud_window_create(j.domain, &(struct iommud_window_options){ .size = sizeof(struct iommud_window_options),
                                                                               .length = GIB }, NULL),
                ENOSPC, IOMMUD_REASON_WINDOW_LIMIT, &error);
        job_end(&j);
        service_end(s);
}

static void test_a_created_window_takes_what_lies_in_it_and_nothing_else(void **state) {
        struct service *s = service_start(&fast);
        struct iommud_error error = { .size = sizeof error };
        struct iommud_window a, b;
        struct job_snapshot before;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 64 * (uint64_t)PAGE);
        must(iommud_window_remove(j.domain, the_default(j.domain).id, 0));
        refused(map_in(&j, 0, 0, PAGE), ERANGE, IOMMUD_REASON_NO_WINDOW, NULL);
        a = job_window(j.domain, 16 * MIB, 12);
        b = job_window(j.domain, 16 * MIB, 12);
        assert_int_equal(a.start, 0);
        assert_int_equal(b.start, 16 * MIB);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_WINDOWS), 2);
        must(map_in(&j, 0, 0, PAGE));
        must(map_in(&j, 16 * MIB - PAGE, PAGE, PAGE));
        must(map_in(&j, 32 * MIB - 2 * PAGE, 2 * PAGE, 2 * PAGE));
        job_snapshot(&j, &before);
        refused(map_in(&j, 32 * MIB, 0, PAGE), ERANGE, IOMMUD_REASON_NO_WINDOW, NULL);
        refused(map_in(&j, 8 * MIB, 0, 0), EINVAL, IOMMUD_REASON_ZERO_LENGTH, NULL);
        must(iommud_unmap(j.domain, 16 * MIB - PAGE, PAGE));
        refused(map_in(&j, 16 * MIB - PAGE, 0, 2 * PAGE), ERANGE, IOMMUD_REASON_NO_WINDOW, &error);
        assert_int_equal(error.conflict_first, 0);
        assert_int_equal(error.conflict_last, 16 * MIB - 1);
        must(map_in(&j, 16 * MIB - PAGE, PAGE, PAGE));
        job_assert_unchanged(&j, &before);
        assert_int_equal(window(j.domain, a.id).mappings, 2);
        assert_int_equal(window(j.domain, b.id).mapped_bytes, 2 * PAGE);
        refused(iommud_window_remove(j.domain, a.id, 0), EBUSY, IOMMUD_REASON_IN_USE, NULL);
        must(iommud_window_remove(j.domain, a.id, 1));
        assert_int_equal(job_mappings(j.domain), 1);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 2 * PAGE);
        job_assert_no_dma(&j, 0);
        refused(iommud_window_remove(j.domain, a.id, 1), ENOENT, IOMMUD_REASON_UNKNOWN_WINDOW, NULL);
        must(iommud_window_remove(j.domain, b.id, 1));
        assert_int_equal(job_windows(j.domain, NULL), 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_WINDOWS), 0);
        job_end(&j);
        service_end(s);
}

/* A guest reboots: it finds what it found at first. */
static void test_a_reset_brings_the_default_back(void **state) {
        struct service *s = service_start(&fast);
        struct iommud_window first, again;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 64 * (uint64_t)PAGE);
        first = the_default(j.domain);
        job_map(&j);
        must(iommud_window_remove(j.domain, first.id, 1));
        (void)job_window(j.domain, 64 * MIB, 12);
        must(map_in(&j, JOB_IOVA, 0, 64 * PAGE));
        job_assert_dma(&j, JOB_IOVA, 0, 32 * PAGE);
        must(iommud_window_reset(j.domain));
        job_assert_no_dma(&j, JOB_IOVA);
        assert_int_equal(job_mappings(j.domain), 0);
        assert_int_equal(job_windows(j.domain, NULL), 1);
        again = the_default(j.domain);
        assert_int_equal(again.start, first.start);
        assert_int_equal(again.length, first.length);
        assert_int_equal(again.mappings, 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_WINDOWS), 0);
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, 32 * PAGE);
        must(iommud_window_reset(j.domain));                    /* the default one stays what it is */
        assert_int_equal(the_default(j.domain).id, again.id);
        assert_int_equal(job_mappings(j.domain), 0);
        must(iommud_window_reset(j.domain));                    /* and with nothing to do */
        job_end(&j);
        service_end(s);
}

/* More mappings than go in one message. */
static void test_a_full_window_goes_as_a_whole(void **state) {
        const uint64_t n = 3000;
        struct service *s = service_start(&(struct service_options){ .soft = fast.soft,
                                                                    .defaults = "locked_bytes = 1G\nmappings = 10000\n" });
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", n * PAGE);
        for (uint64_t i = 0; i < n; i += 1000) {
                struct iommud_map_entry entries[1000];

                for (uint64_t k = 0; k < 1000; k++)
                        entries[k] = (struct iommud_map_entry){ .iova = 2 * (i + k) * PAGE, .memory = j.memory,
                                                                .offset = (i + k) * PAGE, .length = PAGE,
                                                                .access = IOMMUD_READ_WRITE };
                must(iommud_map_batch(j.domain, entries, 1000));
        }
        job_assert_dma(&j, 0, 0, 0);
        must(iommud_window_remove(j.domain, the_default(j.domain).id, 1));
        assert_int_equal(job_mappings(j.domain), 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_MAPPINGS), 0);
        job_assert_no_dma(&j, 0);
        job_assert_no_dma(&j, 2 * (n - 1) * PAGE);
        must(iommud_window_reset(j.domain));
        job_map(&j);
        must(iommud_window_reset(j.domain));
        job_end(&j);
        service_end(s);
}

static void test_a_windows_own_quota_and_the_tenants(void **state) {
        struct service *s = service_start(&(struct service_options){ .soft = fast.soft, .defaults = "windows = 2\n" });
        struct iommud_window_options options = { .size = sizeof options, .length = 16 * MIB, .quota = 4 * PAGE };
        struct iommud_error error = { .size = sizeof error };
        struct iommud_window a;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, 64 * (uint64_t)PAGE);
        must(iommud_window_remove(j.domain, the_default(j.domain).id, 0));
        must(iommud_window_create(j.domain, &options, &a));
        assert_int_equal(a.quota, 4 * PAGE);
        must(map_in(&j, a.start, 0, 4 * PAGE));
        refused(map_in(&j, a.start + MIB, 0, PAGE), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &error);
        assert_int_equal(error.limit, 4 * PAGE);
        assert_int_equal(error.used, 4 * PAGE);
        must(iommud_unmap(j.domain, a.start, 4 * PAGE));
        must(map_in(&j, a.start + MIB, 0, PAGE));
        (void)job_window(j.domain, 16 * MIB, 12);
        refused(iommud_window_create(j.domain, &options, NULL), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &error);
        assert_int_equal(error.resource, IOMMUD_RESOURCE_WINDOWS);
        assert_int_equal(error.limit, 2);
        job_end(&j);
        service_end(s);
}

/* A lazy domain's window goes with what its client has unmapped already. */
static void test_a_lazy_domain_flushes_first(void **state) {
        const struct iommud_domain_options lazy = { .size = sizeof lazy, .flush_mode = IOMMUD_FLUSH_LAZY };
        struct service *s = service_start(&(struct service_options){ .soft = fast.soft, .limits = "lazy_flush_ms = 60000\n" });
        struct iommud_domain *domain;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, 64 * (uint64_t)PAGE);
        must(iommud_domain_create_with(j.client, &lazy, &domain));
        must(iommud_map(domain, 0x10000, j.memory, 0, PAGE, IOMMUD_READ));
        must(iommud_unmap(domain, 0x10000, PAGE));
        must(iommud_window_remove(domain, the_default(domain).id, 0));
        (void)job_window(domain, GIB, 12);
        must(iommud_map(domain, 0x10000, j.memory, 0, PAGE, IOMMUD_READ));
        must(iommud_map(domain, 0x20000, j.memory, 0, PAGE, IOMMUD_READ));
        must(iommud_unmap(domain, 0x10000, PAGE));
        must(iommud_window_reset(domain));
        assert_int_equal(job_mappings(domain), 0);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_the_default_window_is_all_there_is, harness_teardown),
                cmocka_unit_test_teardown(test_a_created_window_takes_what_lies_in_it_and_nothing_else, harness_teardown),
                cmocka_unit_test_teardown(test_a_reset_brings_the_default_back, harness_teardown),
                cmocka_unit_test_teardown(test_a_full_window_goes_as_a_whole, harness_teardown),
                cmocka_unit_test_teardown(test_a_windows_own_quota_and_the_tenants, harness_teardown),
                cmocka_unit_test_teardown(test_a_lazy_domain_flushes_first, harness_teardown),
        };

        return cmocka_run_group_tests_name("windows of ranges", tests, NULL, NULL);
}
