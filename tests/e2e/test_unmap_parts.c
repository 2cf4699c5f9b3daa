/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * An unmap need not match its map (the mail thread on block splitting: map 8 MiB, unmap 3 MiB of it): chunked mappings are
 * cut at their chunks and the rest is not touched; others only with consent to a moment without translation; whatever cannot
 * be done names the nearest borders. What remains is reachable, charged and listed, and nothing else is.
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/job.h"

#define MIB UINT64_C(0x100000)

static const struct service_options fast = { .soft = "devices = edu0 edu1\ndma_delay_us = 1\n" };

static void begin(struct service **s, struct job *j, uint64_t bytes) {
        *s = service_start(&fast);
        job_begin(j, (*s)->client, "edu0", bytes);
}

static void end(struct service *s, struct job *j) {
        job_end(j);
        service_end(s);
}

static void assert_mapping(struct job *j, size_t i, size_t n, uint64_t offset, uint64_t length) {
        struct iommud_mapping *list;
        size_t count;

        must(iommud_mapping_list(j->domain, &list, &count));
        assert_int_equal(count, n);
        assert_int_equal(list[i].iova, JOB_IOVA + offset);
        assert_int_equal(list[i].offset, offset);
        assert_int_equal(list[i].length, length);
        iommud_mapping_list_free(list);
}

/* The seed's case. */
static void test_three_of_eight_mib(void **state) {
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j, 8 * MIB);
        must(job_map_part(&j, 0, 8 * MIB, 0, MIB, NULL));
        assert_int_equal(job_domain_info(j.domain).kernel_mappings, 8);
        job_assert_dma(&j, JOB_IOVA, 0, 7 * MIB);
        must(job_unmap_part(&j, 5 * MIB, 3 * MIB, IOMMUD_SPLIT_AT_CHUNKS));
        assert_mapping(&j, 0, 1, 0, 5 * MIB);
        assert_int_equal(job_domain_info(j.domain).kernel_mappings, 5);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 5 * MIB);
        job_assert_dma(&j, JOB_IOVA, 0, 5 * MIB - EDU_BLOCK);
        job_assert_no_dma(&j, JOB_IOVA + 5 * MIB);
        job_assert_no_dma(&j, JOB_IOVA + 8 * MIB - EDU_BLOCK);
        end(s, &j);
}

static void test_a_hole_in_the_middle(void **state) {
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j, 8 * MIB);
        must(job_map_part(&j, 0, 8 * MIB, 0, MIB, NULL));
        must(job_unmap_part(&j, 2 * MIB, 3 * MIB, IOMMUD_SPLIT_AT_CHUNKS));
        assert_mapping(&j, 0, 2, 0, 2 * MIB);
        assert_mapping(&j, 1, 2, 5 * MIB, 3 * MIB);
        job_assert_dma(&j, JOB_IOVA, MIB, 6 * MIB);
        job_assert_no_dma(&j, JOB_IOVA + 2 * MIB);
        must(job_unmap_part(&j, 6 * MIB, MIB, IOMMUD_SPLIT_AT_CHUNKS));         /* the rest is chunked as it was */
        assert_mapping(&j, 2, 3, 7 * MIB, MIB);
        must(iommud_map(j.domain, JOB_IOVA + 2 * MIB, j.memory, 2 * MIB, 3 * MIB, IOMMUD_READ_WRITE));
        job_assert_dma(&j, JOB_IOVA, 3 * MIB, 4 * MIB);
        end(s, &j);
}

/* Between chunks: refused with the borders on either side, and nothing has changed. */
static void test_borders_are_named(void **state) {
        struct service *s;
        struct iommud_error e;
        struct job_snapshot before;
        struct job j;

        (void)state;
        begin(&s, &j, 8 * MIB);
        must(job_map_part(&j, 0, 8 * MIB, 0, MIB, NULL));
        job_snapshot(&j, &before);
        refused(job_unmap_part(&j, 5 * MIB + PAGE, MIB, IOMMUD_SPLIT_AT_CHUNKS), EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, &e);
        assert_int_equal(e.nearest_below, JOB_IOVA + 5 * MIB);
        assert_int_equal(e.nearest_above, JOB_IOVA + 6 * MIB);
        assert_int_equal(e.conflict_first, JOB_IOVA);
        assert_int_equal(e.conflict_last, JOB_IOVA + 8 * MIB - 1);
        refused(job_unmap_part(&j, 5 * MIB, MIB - PAGE, IOMMUD_SPLIT_AT_CHUNKS), EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, &e);
        assert_int_equal(e.nearest_below, JOB_IOVA + 5 * MIB);
        assert_int_equal(e.nearest_above, JOB_IOVA + 6 * MIB);
        job_assert_unchanged(&j, &before);
        job_assert_dma(&j, JOB_IOVA, 5 * MIB, 6 * MIB);
        end(s, &j);
}

/* Not chunked: only whole, unless the caller consents. */
static void test_remap_needs_consent(void **state) {
        struct service *s;
        struct iommud_error e;
        struct job j;

        (void)state;
        begin(&s, &j, 16 * PAGE);
        job_map(&j);
        refused(job_unmap_part(&j, 4 * PAGE, PAGE, IOMMUD_SPLIT_AT_CHUNKS), EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, &e);
        assert_int_equal(e.nearest_below, JOB_IOVA);
        assert_int_equal(e.nearest_above, JOB_IOVA + 16 * PAGE);
        refused(job_unmap_part(&j, 4 * PAGE, PAGE, IOMMUD_SPLIT_HITLESS), ENOTSUP, IOMMUD_REASON_UNSUPPORTED, NULL);
        must(job_unmap_part(&j, 4 * PAGE, PAGE, IOMMUD_SPLIT_REMAP));
        assert_mapping(&j, 0, 2, 0, 4 * PAGE);
        assert_mapping(&j, 1, 2, 5 * PAGE, 11 * PAGE);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 15 * PAGE);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_MAPPINGS), 2);
        job_assert_dma(&j, JOB_IOVA, 3 * PAGE, 5 * PAGE);
        job_assert_no_dma(&j, JOB_IOVA + 4 * PAGE);
        refused(job_unmap_part(&j, 6 * PAGE + 1, PAGE, IOMMUD_SPLIT_REMAP), EBUSY, IOMMUD_REASON_PARTIAL_UNMAP, &e);
        assert_int_equal(e.nearest_below, JOB_IOVA + 6 * PAGE);
        assert_int_equal(e.nearest_above, JOB_IOVA + 7 * PAGE);
        end(s, &j);
}

/* Several cuts in one mapping, whole ones beside it, in one request and not in order; and one that is named twice. */
static void test_several_cuts_at_once(void **state) {
        const struct iommud_unmap_options options = { .size = sizeof options, .split = IOMMUD_SPLIT_AT_CHUNKS };
        struct service *s;
        struct iommud_error e;
        struct job_snapshot before;
        uint64_t bytes = 0;
        struct job j;

        (void)state;
        begin(&s, &j, 16 * PAGE);
        must(job_map_part(&j, 0, 8 * PAGE, 0, PAGE, NULL));
        must(job_map_part(&j, 8 * PAGE, PAGE, 0, 0, NULL));
        must(job_map_part(&j, 9 * PAGE, 7 * PAGE, 0, PAGE, NULL));
        job_snapshot(&j, &before);
        {
                const struct iommud_unmap_entry twice[] = { { JOB_IOVA + 5 * PAGE, PAGE }, { JOB_IOVA + 2 * PAGE, 4 * PAGE } };

                refused(iommud_unmap_with(j.domain, twice, 2, &options, NULL), EEXIST, IOMMUD_REASON_OVERLAP, &e);
                assert_int_equal(e.element, 1);
                job_assert_unchanged(&j, &before);
        }
        const struct iommud_unmap_entry cuts[] = { { JOB_IOVA + 7 * PAGE, 4 * PAGE }, { JOB_IOVA + 3 * PAGE, PAGE },
                                                   { JOB_IOVA, PAGE } };
        must(iommud_unmap_with(j.domain, cuts, 3, &options, &bytes));
        assert_int_equal(bytes, 6 * PAGE);
        assert_mapping(&j, 0, 3, PAGE, 2 * PAGE);
        assert_mapping(&j, 1, 3, 4 * PAGE, 3 * PAGE);
        assert_mapping(&j, 2, 3, 11 * PAGE, 5 * PAGE);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 10 * PAGE);
        job_assert_dma(&j, JOB_IOVA, 2 * PAGE, 4 * PAGE);
        job_assert_no_dma(&j, JOB_IOVA + 3 * PAGE);
        must(iommud_unmap_all(j.domain, &bytes));
        assert_int_equal(bytes, 10 * PAGE);
        end(s, &j);
}

/* A cut needs a mapping more: at the limit it is refused, and what makes none more is not. */
static void test_at_the_limit_of_mappings(void **state) {
        char tenants[64];
        struct service *s;
        struct job j;

        (void)state;
        (void)snprintf(tenants, sizeof tenants, "[tenant me]\nrule = uid:%u\nmappings = 1\n", getuid());
        s = service_start(&(struct service_options){ .tenants = tenants });
        job_begin(&j, s->client, NULL, 8 * PAGE);
        must(job_map_part(&j, 0, 8 * PAGE, 0, PAGE, NULL));
        refused(job_unmap_part(&j, 4 * PAGE, PAGE, IOMMUD_SPLIT_AT_CHUNKS), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
        must(job_unmap_part(&j, 6 * PAGE, 2 * PAGE, IOMMUD_SPLIT_AT_CHUNKS));
        assert_mapping(&j, 0, 1, 0, 6 * PAGE);
        must(job_unmap_part(&j, 0, 6 * PAGE, IOMMUD_SPLIT_AT_CHUNKS));
        assert_int_equal(job_mappings(j.domain), 0);
        end(s, &j);
}

/* The broker is killed after cuts: the next one knows what is left. */
static void test_cuts_survive_a_restart(void **state) {
        struct service *s;
        struct job j;

        (void)state;
        begin(&s, &j, 8 * MIB);
        must(job_map_part(&j, 0, 4 * MIB, 0, MIB, NULL));
        must(job_map_part(&j, 4 * MIB, 4 * MIB, 0, 0, NULL));
        must(job_unmap_part(&j, MIB, MIB, IOMMUD_SPLIT_AT_CHUNKS));
        must(job_unmap_part(&j, 5 * MIB, MIB, IOMMUD_SPLIT_REMAP));
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        service_assert_ledger(s);
        assert_mapping(&j, 0, 4, 0, MIB);
        assert_mapping(&j, 1, 4, 2 * MIB, 2 * MIB);
        assert_mapping(&j, 3, 4, 6 * MIB, 2 * MIB);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 6 * MIB);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_MAPPINGS), 4);
        must(job_unmap_part(&j, 3 * MIB, MIB, IOMMUD_SPLIT_AT_CHUNKS));
        job_assert_dma(&j, JOB_IOVA, 2 * MIB, 7 * MIB);
        job_assert_no_dma(&j, JOB_IOVA + MIB);
        end(s, &j);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_three_of_eight_mib, harness_teardown),
                cmocka_unit_test_teardown(test_a_hole_in_the_middle, harness_teardown),
                cmocka_unit_test_teardown(test_borders_are_named, harness_teardown),
                cmocka_unit_test_teardown(test_remap_needs_consent, harness_teardown),
                cmocka_unit_test_teardown(test_several_cuts_at_once, harness_teardown),
                cmocka_unit_test_teardown(test_at_the_limit_of_mappings, harness_teardown),
                cmocka_unit_test_teardown(test_cuts_survive_a_restart, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
