/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I5: a page of sealed memory is charged once to its tenant, however it is reached; memory that is not sealed is charged for each
 * mapping; the kernel's tables are charged until their domain is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/huge_pages.h"
#include "lib/job.h"

#define READ IOMMUD_READ
#define MIB (1ULL << 20)

static struct service *start_with(const char *quotas) {
        char tenants[512];

        (void)snprintf(tenants, sizeof tenants, "[tenant me]\nrule = uid:%u\n%s[tenant other]\nown_socket = yes\n", getuid(),
                       quotas);
        return service_start(&(struct service_options){ .tenants = tenants,
                                                        .soft = "devices = edu0 edu1 edu2\ndma_delay_us = 1\n" });
}

static uint64_t locked(struct iommud_client *c) {
        return job_used(c, IOMMUD_RESOURCE_LOCKED_BYTES);
}

static void test_aliases_cost_nothing(void **state) {
        struct service *s = start_with("locked_bytes = 16K\n");
        struct iommud_domain *second;
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", (uint64_t)8 * PAGE);
        must(iommud_domain_create(j.client, "second", &second));
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, (uint64_t)4 * PAGE, IOMMUD_READ_WRITE));
        for (uint64_t i = 1; i <= 20; i++)
                must(iommud_map(j.domain, JOB_IOVA + i * MIB, j.memory, 0, (uint64_t)4 * PAGE, READ));
        must(iommud_map(second, JOB_IOVA, j.memory, PAGE, (uint64_t)3 * PAGE, READ));
        assert_int_equal(locked(j.client), 4 * PAGE);
        /* three that are there and one that is not: the one is too many, and it alone is asked for */
        refused(iommud_map(second, JOB_IOVA + MIB, j.memory, PAGE, (uint64_t)4 * PAGE, READ), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.asked, PAGE);
        assert_int_equal(e.used, 4 * PAGE);
        must(iommud_unmap_all(j.domain, NULL));
        assert_int_equal(locked(j.client), 3 * PAGE);           /* what the second domain reaches */
        must(iommud_domain_destroy(second));
        assert_int_equal(locked(j.client), 0);
        job_end(&j);
        service_end(s);
}

/* One file: registered twice, by its fd, by a duplicate, by /proc/self/fd, and by another session of the tenant. */
static void test_the_same_file_however_it_is_named(void **state) {
        const struct iommud_memory_options options = { .size = sizeof options, .populate = 1 };
        /* what is sealed already can be mapped in another session for reading alone */
        const struct iommud_memory_options reading = { .size = sizeof reading, .read_only = 1 };
        struct service *s = start_with("locked_bytes = 8K\n");
        struct iommud_memory *m[4];
        struct job j, k;
        char path[64];
        int fd[3];

        (void)state;
        fd[0] = memfd_create("shared", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(ftruncate(fd[0], (off_t)2 * PAGE), 0);
        fd[1] = dup(fd[0]);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd[0]);
        fd[2] = open(path, O_RDWR | O_CLOEXEC);
        assert_true(fd[2] >= 0);
        job_begin(&j, s->client, NULL, PAGE);
        job_begin(&k, s->client, NULL, PAGE);
        for (unsigned i = 0; i < 3; i++) {
                must(iommud_memory_import(j.client, fd[i], (uint64_t)2 * PAGE, &options, &m[i]));
                must(iommud_map(j.domain, JOB_IOVA + i * MIB, m[i], 0, (uint64_t)2 * PAGE, READ));
                assert_int_equal(locked(j.client), 2 * PAGE);
        }
        must(iommud_memory_import(k.client, fd[1], (uint64_t)2 * PAGE, &reading, &m[3]));
        must(iommud_map(k.domain, JOB_IOVA, m[3], 0, (uint64_t)2 * PAGE, READ));
        assert_int_equal(locked(k.client), 2 * PAGE);
        /* the first session ends: the second one still reaches both pages */
        job_end(&j);
        service_wait_sessions(s, 1);
        assert_int_equal(locked(k.client), 2 * PAGE);
        refused(iommud_map(k.domain, JOB_IOVA + MIB, k.memory, 0, PAGE, READ), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
        must(iommud_unmap_all(k.domain, NULL));
        assert_int_equal(locked(k.client), 0);
        job_end(&k);
        for (int i = 0; i < 3; i++)
                close(fd[i]);
        service_end(s);
}

/* Each tenant pays for what it reaches, also where others reach it too. */
static void test_each_tenant_pays(void **state) {
        const struct iommud_memory_options reading = { .size = sizeof reading, .read_only = 1 };
        struct service *s = start_with("");
        struct iommud_memory *theirs;
        char directory[160];
        struct job j, k;

        (void)state;
        (void)snprintf(directory, sizeof directory, "%s/tenants/other", s->runtime);
        job_begin(&j, s->client, NULL, (uint64_t)4 * PAGE);
        job_begin(&k, directory, NULL, PAGE);
        job_map(&j);
        must(iommud_memory_import(k.client, iommud_memory_fd(j.memory), (uint64_t)4 * PAGE, &reading, &theirs));
        must(iommud_map(k.domain, JOB_IOVA, theirs, 0, (uint64_t)4 * PAGE, READ));
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_LOCKED_BYTES), 4 * PAGE);
        assert_int_equal(service_used(s, "other", IOMMUD_RESOURCE_LOCKED_BYTES), 4 * PAGE);
        job_end(&j);
        job_end(&k);
        service_wait_sessions(s, 0);
        service_assert_nothing_used(s, "other");
        service_end(s);
}

static void test_unsealed_memory_is_charged_each_time(void **state) {
        const struct iommud_memory_options options = { .size = sizeof options, .no_seal = 1 };
        struct service *s = start_with("locked_bytes = 16K\nallow_unsealed = yes\n");
        struct iommud_memory *m;
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, PAGE);
        must(iommud_memory_alloc(j.client, (uint64_t)2 * PAGE, &options, &m));
        must(iommud_map(j.domain, JOB_IOVA, m, 0, (uint64_t)2 * PAGE, READ));
        must(iommud_map(j.domain, JOB_IOVA + MIB, m, 0, (uint64_t)2 * PAGE, READ));
        assert_int_equal(locked(j.client), 4 * PAGE);
        refused(iommud_map(j.domain, JOB_IOVA + 2 * MIB, m, 0, PAGE, READ), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.asked, PAGE);
        must(iommud_unmap(j.domain, JOB_IOVA, (uint64_t)2 * PAGE));
        assert_int_equal(locked(j.client), 2 * PAGE);
        job_end(&j);
        service_end(s);
}

/* A service that comes back counts pages, not mappings. */
static void test_a_restart_counts_once(void **state) {
        struct service *s = start_with("");
        uint64_t tables;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, (uint64_t)4 * PAGE);
        job_map(&j);
        must(iommud_map(j.domain, JOB_IOVA + MIB, j.memory, 0, (uint64_t)3 * PAGE, READ));
        tables = job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES);
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        assert_int_equal(locked(j.client), 4 * PAGE);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), tables);
        service_assert_ledger(s);
        must(iommud_unmap(j.domain, JOB_IOVA, (uint64_t)4 * PAGE));
        assert_int_equal(locked(j.client), 3 * PAGE);
        job_end(&j);
        service_end(s);
}

/* A page here, a page there: tables are what that costs. They stay when the page goes, as they do in the kernel, and the quota
 * ends it; the domain takes them along. */
static void test_tables(void **state) {
        struct service *s = start_with("table_bytes = 256K\nlocked_bytes = 4K\n");
        uint64_t used = 0, before, i;
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, PAGE);
        for (i = 0; i < 1000; i++) {
                before = job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES);
                if (iommud_map(j.domain, i * 2 * MIB, j.memory, 0, PAGE, READ) < 0)
                        break;
                used = job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES);
                assert_true(used > before && used <= 256 << 10);
                must(iommud_unmap(j.domain, i * 2 * MIB, PAGE));
                assert_in_range(used - job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), 64, 512);       /* the record */
        }
        assert_in_range(i, 50, 64);             /* 64 tables of 4K, of which some are of higher levels */
        refused(iommud_map(j.domain, i * 2 * MIB, j.memory, 0, PAGE, READ), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.resource, IOMMUD_RESOURCE_TABLE_BYTES);
        assert_int_equal(e.limit, 256 << 10);
        assert_true(e.used + e.asked > e.limit);
        assert_int_equal(locked(j.client), 0);
        service_kill(s);                        /* the kernel keeps them, and so does the next service */
        service_launch(s);
        service_wait_recovered(s);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), e.used);
        service_assert_ledger(s);
        must(iommud_map(j.domain, 0, j.memory, 0, PAGE, READ));         /* where there is a table already */
        must(iommud_domain_destroy(j.domain));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), 0);
        job_end(&j);
        service_end(s);
}

/* Each IOMMU group with a device in the domain has tables of its own, and records. */
static void test_tables_in_each_container(void **state) {
        struct service *s = start_with("table_bytes = 64K\n");
        struct iommud_attachment *first, *second, *third;
        struct iommud_error e;
        uint64_t one;
        struct job j;

        (void)state;
        job_begin(&j, s->client, NULL, PAGE);
        must(iommud_map(j.domain, JOB_IOVA, j.memory, 0, PAGE, READ));
        one = job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES);
        must(iommud_device_attach(j.domain, "edu0", &first));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), one);         /* was paid for before */
        must(iommud_device_attach(j.domain, "edu1", &second));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), 2 * one);
        must(iommud_map(j.domain, JOB_IOVA + PAGE, j.memory, 0, PAGE, READ));           /* another record, in both */
        assert_in_range(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES) - 2 * one, 2 * 64, 2 * 512);
        must(iommud_unmap(j.domain, JOB_IOVA + PAGE, PAGE));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), 2 * one);
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), 2 * one);
        service_assert_ledger(s);
        must(iommud_device_detach(first));
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES), one);
        must(iommud_device_attach(j.domain, "edu0", &first));
        for (uint64_t i = 1; job_used(j.client, IOMMUD_RESOURCE_TABLE_BYTES) <= 48 << 10; i++)
                must(iommud_map(j.domain, JOB_IOVA + i * 2 * MIB, j.memory, 0, PAGE, READ));
        refused(iommud_device_attach(j.domain, "edu2", &third), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.resource, IOMMUD_RESOURCE_TABLE_BYTES);
        assert_int_equal(e.asked, e.used / 2);
        must(iommud_unmap_all(j.domain, NULL));
        job_end(&j);
        service_end(s);
}

/* ---- huge pages ---- */

#define HUGE_PAGES 4U
static bool has_huge_pages;

static int teardown_huge(void **state) {
        if (has_huge_pages)
                huge_pages_return(HUGE_PAGES);
        has_huge_pages = false;
        return harness_teardown(state);
}

/* The kernel pins a huge page whole, whatever part of it is mapped. */
static void count_huge(struct job *j) {
        const struct iommud_memory_options huge = { .size = sizeof huge, .huge_page_size = HUGE_PAGE };
        struct iommud_memory *memory;
        struct iommud_error e;

        must(iommud_memory_alloc(j->client, 3 * HUGE_PAGE, &huge, &memory));
        must(iommud_map(j->domain, JOB_IOVA, memory, 0, PAGE, READ));
        assert_int_equal(locked(j->client), HUGE_PAGE);
        must(iommud_map(j->domain, JOB_IOVA + MIB, memory, HUGE_PAGE - PAGE, PAGE, READ));
        assert_int_equal(locked(j->client), HUGE_PAGE);
        must(iommud_map(j->domain, JOB_IOVA + 2 * MIB, memory, HUGE_PAGE - PAGE, (uint64_t)2 * PAGE, READ));
        assert_int_equal(locked(j->client), 2 * HUGE_PAGE);
        refused(iommud_map(j->domain, JOB_IOVA + 3 * MIB, memory, 2 * HUGE_PAGE, PAGE, READ), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.asked, HUGE_PAGE);
        must(iommud_unmap(j->domain, JOB_IOVA, PAGE));
        assert_int_equal(locked(j->client), 2 * HUGE_PAGE);
        must(iommud_unmap(j->domain, JOB_IOVA + 2 * MIB, (uint64_t)2 * PAGE));
        assert_int_equal(locked(j->client), HUGE_PAGE);
        must(iommud_unmap(j->domain, JOB_IOVA + MIB, PAGE));
        assert_int_equal(locked(j->client), 0);
        must(iommud_memory_close(memory));
}

static void test_huge_pages_count_whole(void **state) {
        struct service *s;
        struct job j;

        (void)state;
        has_huge_pages = huge_pages_take(HUGE_PAGES);
        if (!has_huge_pages)
                skip_because("no huge pages of 2 MiB can be reserved (it takes root and a kernel with hugetlb)");
        s = start_with("locked_bytes = 4M\n");
        job_begin(&j, s->client, "edu0", PAGE);
        count_huge(&j);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_aliases_cost_nothing, harness_teardown),
                cmocka_unit_test_teardown(test_the_same_file_however_it_is_named, harness_teardown),
                cmocka_unit_test_teardown(test_each_tenant_pays, harness_teardown),
                cmocka_unit_test_teardown(test_unsealed_memory_is_charged_each_time, harness_teardown),
                cmocka_unit_test_teardown(test_a_restart_counts_once, harness_teardown),
                cmocka_unit_test_teardown(test_tables, harness_teardown),
                cmocka_unit_test_teardown(test_tables_in_each_container, harness_teardown),
                cmocka_unit_test_teardown(test_huge_pages_count_whole, teardown_huge),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
