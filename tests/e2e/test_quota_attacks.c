/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I1, I5: how a client could try to pin more than it pays for. Pages taken from under a mapping and mapped again, many
 * threads at once, sub-page mappings that are smaller than what they pin, a terabyte of nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/job.h"

#define MIB UINT64_C(0x100000)

static struct service *start_with(const char *soft, const char *quotas) {
        char tenants[256], personality[256];

        (void)snprintf(tenants, sizeof tenants, "[tenant me]\nrule = uid:%u\n%s", getuid(), quotas);
        (void)snprintf(personality, sizeof personality, "devices = edu0\ndma_delay_us = 1\n%s", soft);
        return service_start(&(struct service_options){ .tenants = tenants, .soft = personality });
}

static uint64_t locked(struct job *j) {
        return job_used(j->client, IOMMUD_RESOURCE_LOCKED_BYTES);
}

/* ---- other pages at the same offset ---- */

/* Of a sealed object nothing can be taken away, so a page that is counted stays the page that is mapped. */
static void test_sealed_memory_keeps_its_pages(void **state) {
        struct service *s = start_with("", "locked_bytes = 64K\n");
        struct job j;
        int fd;

        (void)state;
        job_begin(&j, s->client, "edu0", 8 * PAGE);
        job_map(&j);
        fd = iommud_memory_fd(j.memory);
        errno = 0;
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(ftruncate(fd, PAGE), -1);
        assert_int_equal(madvise(j.bytes, PAGE, MADV_REMOVE), -1);
        must(iommud_map(j.domain, 0x40000000, j.memory, 0, 8 * PAGE, IOMMUD_READ_WRITE));
        assert_int_equal(locked(&j), 8 * PAGE);
        job_assert_dma(&j, JOB_IOVA, 0, 4 * PAGE);
        job_end(&j);
        service_end(s);
}

/* Of memory that is not sealed they can: each mapping pays, and what is gone is not mapped. */
static void test_unsealed_memory_pays_each_time(void **state) {
        const struct iommud_memory_options options = { .size = sizeof options, .no_seal = 1 };
        struct service *s = start_with("", "allow_unsealed = yes\nlocked_bytes = 64K\n");
        struct iommud_memory *memory;
        struct iommud_error e;
        struct job j;
        int fd = memfd_create("unsealed", MFD_CLOEXEC);
        uint8_t *bytes;

        (void)state;
        assert_int_equal(ftruncate(fd, 8 * PAGE), 0);
        bytes = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        memset(bytes, 1, 8 * PAGE);
        job_begin(&j, s->client, "edu0", PAGE);
        must(iommud_memory_import(j.client, fd, 8 * PAGE, &options, &memory));
        must(iommud_map(j.domain, JOB_IOVA, memory, 0, 8 * PAGE, IOMMUD_READ_WRITE));
        assert_int_equal(madvise(bytes, PAGE, MADV_REMOVE), 0);         /* the page that is mapped is nobody's now */
        refused(iommud_map(j.domain, 0x40000000, memory, 0, PAGE, IOMMUD_READ_WRITE), EFAULT, IOMMUD_REASON_MEMORY_HOLES, NULL);
        bytes[0] = 2;                                                   /* and here is another one */
        must(iommud_map(j.domain, 0x40000000, memory, 0, PAGE, IOMMUD_READ_WRITE));
        assert_int_equal(locked(&j), 9 * PAGE);
        refused(iommud_map(j.domain, 0x50000000, memory, 0, 8 * PAGE, IOMMUD_READ), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.used, 9 * PAGE);
        assert_int_equal(e.asked, 8 * PAGE);
        assert_int_equal(ftruncate(fd, 4 * PAGE), 0);
        refused(iommud_map(j.domain, 0x60000000, memory, 4 * PAGE, PAGE, IOMMUD_READ), EFAULT,
                IOMMUD_REASON_MEMORY_TRUNCATED, NULL);
        munmap(bytes, 8 * PAGE);
        close(fd);
        job_end(&j);
        service_end(s);
}

/* ---- many threads ---- */

struct racer {
        pthread_t thread;
        struct job *job;
        uint64_t seed, iova;
        unsigned done, refused;
};

static atomic_bool racing_is_over;

static void *race(void *arg) {
        struct racer *r = arg;

        for (int i = 0; i < 60; i++) {
                uint64_t at = harness_random(&r->seed) % 8, n = 1 + harness_random(&r->seed) % 4;
                uint64_t iova = r->iova + at * MIB;

                if (iommud_map(r->job->domain, iova, r->job->memory, at * 4 * PAGE, n * PAGE, IOMMUD_READ) == 0) {
                        r->done++;
                        must(iommud_unmap(r->job->domain, iova, n * PAGE));
                } else
                        r->refused++;
        }
        return NULL;
}

/* The balance is never above the quota, whoever looks, and zero at the end. */
static void *watch(void *arg) {
        struct job *j = arg;

        while (!atomic_load(&racing_is_over))
                if (locked(j) > 8 * PAGE)
                        return j;
        return NULL;
}

static void test_races(void **state) {
        struct service *s = start_with("", "locked_bytes = 32K\n");
        struct racer racers[6];
        uint64_t seed = harness_seed();
        pthread_t watcher;
        unsigned done = 0;
        void *above;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 64 * PAGE);
        atomic_store(&racing_is_over, false);
        assert_int_equal(pthread_create(&watcher, NULL, watch, &j), 0);
        for (size_t i = 0; i < 6; i++) {
                racers[i] = (struct racer){ .job = &j, .seed = seed + i, .iova = (i + 1) * 0x10000000 };
                assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
        }
        for (size_t i = 0; i < 6; i++) {
                pthread_join(racers[i].thread, NULL);
                done += racers[i].done;
        }
        atomic_store(&racing_is_over, true);
        pthread_join(watcher, &above);
        assert_null(above);
        assert_true(done > 0);
        assert_int_equal(locked(&j), 0);
        job_end(&j);
        service_end(s);
}

/* ---- less than a page ---- */

static void test_a_part_of_a_page_pays_for_the_page(void **state) {
        const struct iommud_map_options expose = { .size = sizeof expose, .flags = IOMMUD_MAP_EXPOSE_PAGES };
        const struct iommud_memory_options unsealed = { .size = sizeof unsealed, .no_seal = 1 };
        struct service *s = start_with("page_sizes = 64K\n", "allow_unsealed = yes\nlocked_bytes = 192K\n");
        struct iommud_map_entry entry = { .iova = JOB_IOVA, .length = 64, .access = IOMMUD_READ };
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", 4 * 65536);
        entry.memory = j.memory;
        for (uint64_t i = 0; i < 4; i++) {
                entry.iova = JOB_IOVA + i * 65536;
                entry.offset = i * 65536;
                if (i < 3)
                        must(iommud_map_with(j.domain, &entry, 1, &expose, NULL));
                else
                        refused(iommud_map_with(j.domain, &entry, 1, &expose, NULL), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
                assert_int_equal(locked(&j), (i < 3 ? i + 1 : 3) * 65536);
        }
        must(iommud_unmap_all(j.domain, NULL));
        assert_int_equal(locked(&j), 0);
        /* not sealed: two in one page pay twice */
        must(iommud_memory_alloc(j.client, 65536, &unsealed, &entry.memory));
        entry.iova = JOB_IOVA;
        entry.offset = 0;
        must(iommud_map_with(j.domain, &entry, 1, &expose, NULL));
        entry.iova += 64;
        entry.offset += 64;
        must(iommud_map_with(j.domain, &entry, 1, &expose, NULL));
        assert_int_equal(locked(&j), 2 * 65536);
        job_end(&j);
        service_end(s);
}

/* ---- nothing, and much of it ---- */

static void test_a_terabyte_of_holes(void **state) {
        const struct iommud_memory_options options = { .size = sizeof options };
        struct iommud_memory *memory;
        struct iommud_error e;
        struct service *s;
        struct job j;
        int fd;

        (void)state;
#ifdef __SANITIZE_THREAD__
        skip_because("ThreadSanitizer leaves a process no terabyte of addresses");
#endif
        s = start_with("", "registered_bytes = 2T\nmemory_objects = 16\n");
        fd = memfd_create("holes", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0);
        job_begin(&j, s->client, "edu0", PAGE);
        for (int i = 0; i < 3; i++)     /* its pages are not there, and nobody fills them */
                refused(iommud_memory_import(j.client, fd, UINT64_C(1) << 40, &options, &memory), EFAULT,
                        IOMMUD_REASON_MEMORY_HOLES, &e);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_REGISTERED_BYTES), PAGE);
        refused(iommud_memory_import(j.client, fd, (UINT64_C(2) << 40) + PAGE, &options, &memory), EDQUOT,
                IOMMUD_REASON_QUOTA_EXCEEDED, &e);
        assert_int_equal(e.resource, IOMMUD_RESOURCE_REGISTERED_BYTES);
        close(fd);
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_sealed_memory_keeps_its_pages, harness_teardown),
                cmocka_unit_test_teardown(test_unsealed_memory_pays_each_time, harness_teardown),
                cmocka_unit_test_teardown(test_races, harness_teardown),
                cmocka_unit_test_teardown(test_a_part_of_a_page_pays_for_the_page, harness_teardown),
                cmocka_unit_test_teardown(test_a_terabyte_of_holes, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
