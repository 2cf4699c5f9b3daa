/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * What a Map can be asked besides: a dry run gives the answer that the real one gives, success and refusal, and changes
 * nothing; neighbours that continue each other are merged when the caller allows it; the IOMMU's own budget counts what the
 * IOMMU has, pieces of chunked mappings and one for what was merged; the same again is refused as an overlap, the same memory
 * elsewhere is not.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/job.h"

static struct service *start_with(const char *soft, const char *quotas) {
        char tenants[256], personality[256];

        (void)snprintf(tenants, sizeof tenants, "[tenant me]\nrule = uid:%u\n%s", getuid(), quotas);
        (void)snprintf(personality, sizeof personality, "devices = edu0\ndma_delay_us = 1\n%s", soft);
        return service_start(&(struct service_options){ .tenants = tenants, .soft = personality });
}

static int map_all(struct job *j, const struct iommud_map_entry *entries, size_t n, uint32_t flags, uint64_t chunk,
                   struct iommud_map_result *ret) {
        const struct iommud_map_options options = { .size = sizeof options, .flags = flags, .chunk = chunk };

        if (ret)
                ret->size = sizeof *ret;
        return iommud_map_with(j->domain, entries, n, &options, ret);
}

/* Pages [first, first + n) of the memory at the same place in IOVA space. */
static struct iommud_map_entry pages(const struct job *j, uint64_t first, uint64_t n) {
        return (struct iommud_map_entry){ JOB_IOVA + first * PAGE, j->memory, first * PAGE, n * PAGE, IOMMUD_READ_WRITE };
}

/* ---- dry run ---- */

static void test_a_dry_run_says_what_the_real_one_says(void **state) {
        struct service *s = start_with("", "");
        struct iommud_map_result dry, real;
        struct job_snapshot before;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 16 * PAGE);
        const struct iommud_map_entry entries[] = { pages(&j, 0, 4), pages(&j, 8, 2),
                                                    { 0x40000000, j.memory, 0, PAGE, IOMMUD_READ } };

        job_snapshot(&j, &before);
        must(map_all(&j, entries, 3, IOMMUD_MAP_DRY_RUN, 0, &dry));
        job_assert_unchanged(&j, &before);
        must(map_all(&j, entries, 3, IOMMUD_MAP_DRY_RUN, 0, &dry));
        must(map_all(&j, entries, 3, 0, 0, &real));
        assert_int_equal(dry.mappings, 3);
        assert_int_equal(dry.locked_bytes, 6 * PAGE);
        assert_true(dry.table_bytes > 0);
        assert_int_equal(real.mappings, dry.mappings);
        assert_int_equal(real.locked_bytes, dry.locked_bytes);
        assert_int_equal(real.table_bytes, dry.table_bytes);
        assert_int_equal(real.iova, dry.iova);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), real.locked_bytes);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), real.table_bytes);
        job_end(&j);
        service_end(s);
}

static void test_a_dry_run_is_refused_as_the_real_one(void **state) {
        struct service *s = start_with("max_mappings = 6\n", "locked_bytes = 32K\nmappings = 4\n");
        struct job_snapshot before;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 16 * PAGE);
        must(map_all(&j, &(struct iommud_map_entry){ JOB_IOVA, j.memory, 0, PAGE, IOMMUD_READ }, 1, 0, 0, NULL));
        const struct {
                struct iommud_map_entry entries[5];
                size_t n;
                uint64_t chunk;
        } bad[] = {
                { { pages(&j, 4, 1), pages(&j, 0, 2) }, 2, 0 },                 /* overlap */
                { { pages(&j, 4, 9) }, 1, 0 },                                  /* locked bytes */
                { { pages(&j, 4, 1), pages(&j, 6, 1), pages(&j, 8, 1), pages(&j, 10, 1) }, 4, 0 },      /* mappings */
                { { pages(&j, 4, 6) }, 1, PAGE },                               /* the IOMMU's budget */
                { { pages(&j, 4, 1), pages(&j, 15, 2) }, 2, 0 },                /* beyond the object */
                { { { JOB_IOVA + 1, j.memory, 0, PAGE, IOMMUD_READ } }, 1, 0 },
                { { pages(&j, 4, 2) }, 1, 3 * PAGE },                           /* no power of two */
        };

        job_snapshot(&j, &before);
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
                struct iommud_error dry = { .size = sizeof dry }, real = { .size = sizeof real };
                int a = map_all(&j, bad[i].entries, bad[i].n, IOMMUD_MAP_DRY_RUN, bad[i].chunk, NULL);

                assert_int_equal(iommud_error_detail(&dry), 0);
                assert_int_equal(map_all(&j, bad[i].entries, bad[i].n, 0, bad[i].chunk, NULL), a);
                assert_true(a < 0);
                assert_int_equal(iommud_error_detail(&real), 0);
                assert_int_equal(dry.reason, real.reason);
                assert_int_equal(dry.element, real.element);
                assert_int_equal(dry.limit, real.limit);
                assert_int_equal(dry.used, real.used);
                assert_int_equal(dry.asked, real.asked);
                assert_string_equal(dry.text, real.text);
                job_assert_unchanged(&j, &before);
        }
        job_end(&j);
        service_end(s);
}

/* ---- merging ---- */

static void test_neighbours_become_one(void **state) {
        struct service *s = start_with("", "");
        struct iommud_map_result result;
        struct iommud_mapping *list;
        struct job j;
        size_t n;

        (void)state;
        job_begin(&j, s->client, "edu0", 16 * PAGE);
        const struct iommud_map_entry entries[] = {
                pages(&j, 0, 1), pages(&j, 1, 2), pages(&j, 3, 1),                      /* one */
                { JOB_IOVA + 4 * PAGE, j.memory, 4 * PAGE, PAGE, IOMMUD_READ },         /* other access */
                pages(&j, 6, 1),                                                        /* a gap before it */
                { JOB_IOVA + 7 * PAGE, j.memory, 9 * PAGE, PAGE, IOMMUD_READ_WRITE },   /* other memory behind it */
        };

        must(map_all(&j, entries, 6, IOMMUD_MAP_MERGE, 0, &result));
        assert_int_equal(result.mappings, 4);
        must(iommud_mapping_list(j.domain, &list, &n));
        assert_int_equal(n, 4);
        assert_int_equal(list[0].length, 4 * PAGE);
        iommud_mapping_list_free(list);
        assert_int_equal(job_domain_info(j.domain).kernel_mappings, 4);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_MAPPINGS), 4);
        job_assert_dma(&j, JOB_IOVA, 0, 3 * PAGE);
        refused(iommud_unmap(j.domain, JOB_IOVA, PAGE), EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, NULL);      /* one is one */
        must(iommud_unmap_all(j.domain, NULL));
        {
                const struct iommud_map_entry nothing[] = { pages(&j, 0, 0), pages(&j, 0, 1) };
                struct iommud_error e;

                refused(map_all(&j, nothing, 2, IOMMUD_MAP_MERGE, 0, NULL), EINVAL, IOMMUD_REASON_ZERO_LENGTH, &e);
                assert_int_equal(e.element, 0);
        }
        must(map_all(&j, entries, 6, 0, 0, &result));
        assert_int_equal(result.mappings, 6);
        must(iommud_unmap(j.domain, JOB_IOVA, PAGE));
        job_end(&j);
        service_end(s);
}

/* ---- the IOMMU's budget ---- */

static void test_the_budget_counts_what_the_iommu_has(void **state) {
        struct service *s = start_with("max_mappings = 8\n", "");
        struct iommud_map_entry entries[9];
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 16 * PAGE);
        for (uint64_t i = 0; i < 9; i++)
                entries[i] = pages(&j, i, 1);
        refused(map_all(&j, entries, 9, 0, 0, NULL), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, &e);
        assert_int_equal(e.limit, 8);
        assert_int_equal(e.used, 0);
        assert_int_equal(e.asked, 9);
        must(map_all(&j, entries, 9, IOMMUD_MAP_MERGE, 0, NULL));
        assert_int_equal(job_domain_info(j.domain).kernel_mappings, 1);
        must(iommud_unmap_all(j.domain, NULL));
        entries[0] = pages(&j, 0, 9);
        refused(map_all(&j, entries, 1, 0, PAGE, NULL), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, &e);
        assert_int_equal(e.asked, 9);
        entries[0] = pages(&j, 0, 8);
        must(map_all(&j, entries, 1, 0, PAGE, NULL));
        entries[0] = pages(&j, 8, 1);
        refused(map_all(&j, entries, 1, 0, 0, NULL), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, &e);
        assert_int_equal(e.used, 8);
        must(job_unmap_part(&j, 3 * PAGE, PAGE, IOMMUD_SPLIT_AT_CHUNKS));
        must(map_all(&j, entries, 1, 0, 0, NULL));
        job_end(&j);
        service_end(s);
}

/* A remap makes two of one: at the end of the budget it is refused, and everything stays. */
static void test_a_remap_needs_budget(void **state) {
        struct service *s = start_with("max_mappings = 1\n", "");
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 16 * PAGE);
        job_map(&j);
        refused(job_unmap_part(&j, 4 * PAGE, PAGE, IOMMUD_SPLIT_REMAP), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, NULL);
        job_assert_dma(&j, JOB_IOVA, 4 * PAGE, 8 * PAGE);
        must(job_unmap_part(&j, 4 * PAGE, 12 * PAGE, IOMMUD_SPLIT_REMAP));
        job_assert_dma(&j, JOB_IOVA, 0, PAGE);
        job_end(&j);
        service_end(s);
}

/* ---- the same again ---- */

static void test_the_same_again_and_elsewhere(void **state) {
        struct service *s = start_with("", "");
        struct iommud_map_entry entries[64];
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 4 * PAGE);
        job_map(&j);
        refused(iommud_map(j.domain, JOB_IOVA, j.memory, 0, 4 * PAGE, IOMMUD_READ_WRITE), EEXIST, IOMMUD_REASON_OVERLAP, &e);
        assert_int_equal(e.conflict_first, JOB_IOVA);
        assert_int_equal(e.conflict_last, JOB_IOVA + 4 * PAGE - 1);
        for (uint64_t i = 0; i < 64; i++)
                entries[i] = (struct iommud_map_entry){ 0x10000000 + i * 0x100000, j.memory, 0, 4 * PAGE, IOMMUD_READ_WRITE };
        must(iommud_map_batch(j.domain, entries, 64));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 4 * PAGE);
        for (uint64_t i = 0; i < 64; i += 21)
                job_assert_dma(&j, entries[i].iova, 0, PAGE);
        must(iommud_unmap(j.domain, JOB_IOVA, 4 * PAGE));
        job_assert_dma(&j, entries[5].iova, 0, PAGE);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_a_dry_run_says_what_the_real_one_says, harness_teardown),
                cmocka_unit_test_teardown(test_a_dry_run_is_refused_as_the_real_one, harness_teardown),
                cmocka_unit_test_teardown(test_neighbours_become_one, harness_teardown),
                cmocka_unit_test_teardown(test_the_budget_counts_what_the_iommu_has, harness_teardown),
                cmocka_unit_test_teardown(test_a_remap_needs_budget, harness_teardown),
                cmocka_unit_test_teardown(test_the_same_again_and_elsewhere, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
