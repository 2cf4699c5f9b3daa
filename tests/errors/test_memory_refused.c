/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Every descriptor that is no memory for devices, and every use of memory that its descriptor does not allow, is
 * refused with its reason, and nothing stays registered or charged.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/huge_pages.h"
#include "lib/job.h"
#include "lib/raw_client.h"
#include "util/cleanup.h"

#define PAGES(n) ((uint64_t)(n) * PAGE)

static struct service *service;
static struct job job;
static struct job_snapshot before;

static int begin_with(const struct service_options *o) {
        service = service_start(o);
        job_begin(&job, service->client, "edu0", PAGES(2));
        job_map(&job);
        job_snapshot(&job, &before);
        return 0;
}

static int begin(void **state) {
        (void)state;
        return begin_with(&(struct service_options){ 0 });
}

static void end(void) {
        job_assert_given_back(&job, &before);
        job_assert_dma(&job, JOB_IOVA, 0, PAGE);
        job_end(&job);
        service_end(service);
}

static int import_as(int fd, uint64_t size, bool read_only, bool no_seal, struct iommud_memory **ret) {
        const struct iommud_memory_options o = { .size = sizeof o, .read_only = read_only, .no_seal = no_seal };

        return iommud_memory_import(job.client, fd, size, &o, ret);
}

/* Refused in the same way whether the device is to write or only to read. Closes the fd. */
static void assert_no_memory(int fd, uint64_t size, int error, enum iommud_reason reason, const char *what) {
        struct iommud_memory *m;

        assert_true(fd >= 0);
        job_refused(import_as(fd, size, false, false, &m), error, reason, what, NULL);
        job_refused(import_as(fd, size, true, false, &m), error, reason, what, NULL);
        job_assert_unchanged(&job, &before);
        close(fd);
}

static void test_what_is_no_file(void **state) {
        int ends[2];

        (void)state;
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        close(ends[1]);
        assert_no_memory(ends[0], PAGE, EINVAL, IOMMUD_REASON_MEMORY_NOT_REGULAR, "a pipe");
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        close(ends[1]);
        assert_no_memory(ends[0], PAGE, EINVAL, IOMMUD_REASON_MEMORY_NOT_REGULAR, "a socket");
        assert_no_memory(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC), PAGE, EINVAL, IOMMUD_REASON_MEMORY_NOT_REGULAR,
                         "a directory");
        assert_no_memory(open("/dev/shm", O_RDONLY | O_DIRECTORY | O_CLOEXEC), PAGE, EINVAL,
                         IOMMUD_REASON_MEMORY_NOT_REGULAR, "a directory on tmpfs");
        assert_no_memory(open("/dev/zero", O_RDWR | O_CLOEXEC), PAGE, EINVAL, IOMMUD_REASON_MEMORY_NOT_REGULAR,
                         "/dev/zero");
        end();
}

static void test_files_elsewhere(void **state) {
        char self[4096];

        (void)state;
        harness_program("iommud", self, sizeof self);
        assert_no_memory(open("/proc/self/status", O_RDONLY | O_CLOEXEC), PAGE, EINVAL,
                         IOMMUD_REASON_MEMORY_BAD_FILESYSTEM,
                         "a file of procfs");
        assert_no_memory(open(self, O_RDONLY | O_CLOEXEC), PAGE, EINVAL, IOMMUD_REASON_MEMORY_BAD_FILESYSTEM,
                         "a file on disk");
        end();
}

static void test_descriptors_without_rights(void **state) {
        char path[64];
        int fd = raw_memfd(PAGE);

        (void)state;
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        assert_no_memory(open(path, O_PATH | O_CLOEXEC), PAGE, EINVAL, IOMMUD_REASON_MEMORY_O_PATH, "O_PATH");
        assert_no_memory(open(path, O_WRONLY | O_CLOEXEC), PAGE, EINVAL, IOMMUD_REASON_BAD_ACCESS, "O_WRONLY");
        close(fd);
        end();
}

static void test_size(void **state) {
        struct iommud_memory *m;
        struct iommud_error e;
        int fd;

        (void)state;
        assert_no_memory(memfd_create("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING), PAGE, EINVAL,
                         IOMMUD_REASON_MEMORY_EMPTY, "empty");
        fd = raw_memfd(PAGES(2));
        refused(import_as(fd, PAGES(3), false, false, &m), EFAULT, IOMMUD_REASON_MEMORY_TRUNCATED, &e);
        assert_int_equal(e.limit, PAGES(2));
        assert_int_equal(e.asked, PAGES(3));
        refused(import_as(fd, 0, false, false, &m), EINVAL, IOMMUD_REASON_ZERO_LENGTH, NULL);
        refused(import_as(fd, UINT64_MAX, false, false, &m), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
        refused(import_as(fd, 1ULL << 63, false, false, &m), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
        close(fd);
        assert_int_equal(import_as(-1, PAGE, false, false, &m), -EBADF);
        refused(iommud_memory_alloc(job.client, 0, NULL, &m), EINVAL, IOMMUD_REASON_ZERO_LENGTH, NULL);
        end();
}

/* The device may write only what the client may: through a read-only fd, or a memfd that is sealed against writing,
 * nothing. */
static void test_read_only(void **state) {
        struct iommud_memory *m;
        char path[64];
        int fd, sealed;

        (void)state;
        fd = raw_memfd(PAGE);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        sealed = open(path, O_RDONLY | O_CLOEXEC);
        refused(import_as(sealed, PAGE, false, false, &m), EACCES, IOMMUD_REASON_MEMORY_READ_ONLY, NULL);
        job_assert_unchanged(&job, &before);
        close(sealed);
        close(fd);

        fd = raw_memfd(PAGE);
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
        refused(import_as(fd, PAGE, false, false, &m), EACCES, IOMMUD_REASON_MEMORY_WRITE_SEALED, NULL);
        job_assert_unchanged(&job, &before);
        must(import_as(fd, PAGE, true, false, &m));             /* for reading it will do */
        refused(iommud_map(job.domain, 0x800000, m, 0, PAGE, IOMMUD_READ_WRITE), EACCES, IOMMUD_REASON_MEMORY_READ_ONLY,
                NULL);
        refused(iommud_map(job.domain, 0x800000, m, 0, PAGE, IOMMUD_WRITE), EACCES, IOMMUD_REASON_MEMORY_READ_ONLY,
                NULL);
        must(iommud_map(job.domain, 0x800000, m, 0, PAGE, IOMMUD_READ));
        must(edu_transfer(job.device, 0x800000, EDU_BLOCK, true));
        must(edu_transfer(job.device, 0x800000, EDU_BLOCK, false));
        must(edu_transfer(job.device, JOB_IOVA, EDU_BLOCK, true));
        assert_int_equal(job.bytes[0], 0x5a);                   /* it was read, and not written */
        must(iommud_unmap(job.domain, 0x800000, PAGE));
        must(iommud_memory_close(m));
        close(fd);
        end();
}

static void test_holes(void **state) {
        const struct iommud_memory_options fill = { .size = sizeof fill, .populate = 1 };
        struct iommud_memory *m;
        struct iommud_error e;
        int fd;

        (void)state;
        fd = memfd_create("holes", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        assert_int_equal(ftruncate(fd, (off_t)PAGES(4)), 0);
        refused(import_as(fd, PAGES(4), false, false, &m), EFAULT, IOMMUD_REASON_MEMORY_HOLES, &e);
        assert_int_equal(e.asked, PAGES(4));                    /* bytes that are missing */
        assert_int_equal(pwrite(fd, "x", 1, 0), 1);
        assert_int_equal(pwrite(fd, "x", 1, (off_t)PAGES(2)), 1);
        refused(import_as(fd, PAGES(4), false, false, &m), EFAULT, IOMMUD_REASON_MEMORY_HOLES, &e);
        assert_int_equal(e.asked, PAGES(2));
        job_assert_unchanged(&job, &before);
        must(iommud_memory_import(job.client, fd, PAGES(4), &fill, &m));        /* or filled, when asked for */
        must(iommud_map(job.domain, 0x800000, m, 0, PAGES(4), IOMMUD_READ_WRITE));
        must(iommud_unmap(job.domain, 0x800000, PAGES(4)));
        must(iommud_memory_close(m));
        close(fd);
        end();
}

#define HUGE_PAGES 4
static bool has_huge_pages;

static int teardown_huge(void **state) {
        if (has_huge_pages)
                huge_pages_return(HUGE_PAGES);
        has_huge_pages = false;
        return harness_teardown(state);
}

static void hugetlb_holes(void) {
        const uint64_t huge = HUGE_PAGE;
        struct iommud_memory *m;
        int fd = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
        char *p;

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t)(2 * huge)), 0);
        refused(import_as(fd, 2 * huge, false, false, &m), EFAULT, IOMMUD_REASON_MEMORY_HOLES, NULL);
        p = mmap(NULL, 2 * huge, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(p != MAP_FAILED);
        p[0] = 1;
        refused(import_as(fd, 2 * huge, false, false, &m), EFAULT, IOMMUD_REASON_MEMORY_HOLES, NULL);
        job_assert_unchanged(&job, &before);
        p[huge] = 1;
        must(import_as(fd, 2 * huge, false, false, &m));
        must(iommud_map(job.domain, 0x40000000, m, 0, 2 * huge, IOMMUD_READ_WRITE));
        must(iommud_unmap(job.domain, 0x40000000, 2 * huge));
        must(iommud_memory_close(m));
        munmap(p, 2 * huge);
        close(fd);
}

static void test_holes_in_hugetlb(void **state) {
        (void)state;
        has_huge_pages = huge_pages_take(HUGE_PAGES);
        if (!has_huge_pages) {
                end();
                skip_because("no huge pages of 2 MiB can be reserved (it takes root and a kernel with hugetlb)");
        }
        hugetlb_holes();
        end();
}

/* ---- seals and policy ---- */

static void test_unsealed_needs_the_policy(void **state) {
        struct iommud_memory *m;
        int fd = memfd_create("no seals", MFD_CLOEXEC);

        (void)state;
        assert_int_equal(ftruncate(fd, PAGE), 0);
        assert_int_equal(fallocate(fd, 0, 0, PAGE), 0);
        refused(import_as(fd, PAGE, false, false, &m), EBUSY, IOMMUD_REASON_MEMORY_UNSEALED, NULL);
        /* asking is not enough */
        refused(import_as(fd, PAGE, false, true, &m), EBUSY, IOMMUD_REASON_MEMORY_UNSEALED, NULL);
        job_assert_unchanged(&job, &before);
        close(fd);
        end();
}

/* Where the policy allows it, what is there is looked at when it is mapped. */
static void test_truncated_after_registration(void **state) {
        struct iommud_memory *m;
        struct iommud_error e;
        char tenants[128];
        int fd;

        (void)state;
        (void)snprintf(tenants, sizeof tenants, "[tenant me]\nrule = uid:%u\nallow_unsealed = yes\n", getuid());
        (void)begin_with(&(struct service_options){ .tenants = tenants });
        fd = raw_memfd(PAGES(4));
        must(import_as(fd, PAGES(4), false, true, &m));
        must(iommud_map(job.domain, 0x800000, m, 0, PAGES(4), IOMMUD_READ_WRITE));
        assert_int_equal(ftruncate(fd, (off_t)PAGES(2)), 0);
        must(edu_transfer(job.device, 0x800000 + PAGES(3), EDU_BLOCK, true));   /* nobody dies of it */
        must(edu_transfer(job.device, 0x800000 + PAGES(3), EDU_BLOCK, false));
        must(iommud_unmap(job.domain, 0x800000, PAGES(4)));
        refused(iommud_map(job.domain, 0x800000, m, 0, PAGES(4), IOMMUD_READ), EFAULT, IOMMUD_REASON_MEMORY_TRUNCATED,
                &e);
        assert_int_equal(e.limit, PAGES(2));
        assert_int_equal(e.asked, PAGES(4));
        must(iommud_map(job.domain, 0x800000, m, 0, PAGES(2), IOMMUD_READ));
        must(iommud_unmap(job.domain, 0x800000, PAGES(2)));
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), 0);
        refused(iommud_map(job.domain, 0x800000, m, 0, PAGES(2), IOMMUD_READ), EFAULT, IOMMUD_REASON_MEMORY_HOLES,
                NULL);
        must(iommud_memory_close(m));
        close(fd);
        end();
}

/* Sealed by the registration: the client itself cannot take it away any more. */
static void test_registered_memory_is_stable(void **state) {
        struct iommud_memory *m;
        int fd = raw_memfd(PAGES(2));

        (void)state;
        must(import_as(fd, PAGES(2), false, false, &m));
        assert_int_equal(ftruncate(fd, PAGE), -1);
        assert_int_equal(errno, EPERM);
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), -1);
        assert_int_equal(errno, EPERM);
        must(iommud_memory_close(m));
        close(fd);
        end();
}

static void test_memory_in_use_stays(void **state) {
        struct iommud_error e;

        (void)state;
        refused(iommud_memory_close(job.memory), EBUSY, IOMMUD_REASON_IN_USE, &e);
        assert_int_equal(e.used, 1);
        end();
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, harness_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                TEST(test_what_is_no_file),
                TEST(test_files_elsewhere),
                TEST(test_descriptors_without_rights),
                TEST(test_size),
                TEST(test_read_only),
                TEST(test_holes),
                cmocka_unit_test_setup_teardown(test_holes_in_hugetlb, begin, teardown_huge),
                TEST(test_unsealed_needs_the_policy),
                cmocka_unit_test_teardown(test_truncated_after_registration, harness_teardown),
                TEST(test_registered_memory_is_stable),
                TEST(test_memory_in_use_stays),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
