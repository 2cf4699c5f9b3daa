/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib holder backend util */
/* Huge pages: their own page size, holes found without SEEK_HOLE (which sees none), seals. */
#include "test_object_helpers.h"

#include "../lib/huge_pages.h"

#define PAGES 4U

static bool taken;

static int setup_pool(void **state) {
        (void)state;
        taken = huge_pages_take(PAGES);
        return 0;
}

static int restore_pool(void **state) {
        (void)state;
        if (taken)
                huge_pages_return(PAGES);
        return 0;
}

static int huge_memfd(uint64_t size) {
        int fd = memfd_create("huge", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB);
        void *p;

        if (fd >= 0 && ftruncate(fd, (off_t)size) == 0) {
                p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);        /* reserves */
                if (p != MAP_FAILED) {
                        munmap(p, size);
                        return fd;
                }
        }
        print_message("no huge pages of 2 MiB can be had here (%s; it takes root)\n", strerror(errno));
        if (fd >= 0)
                close(fd);
        skip();
        return -1;
}

static void test_holes(void **state) {
        struct objects *o = objects_new(4);
        int fd = huge_memfd(2 * HUGE_PAGE);

        (void)state;
        assert_refused(try_register(o, 1, fd, 2 * HUGE_PAGE, 0), MEMORY_HOLES);
        assert_int_equal(last_refusal.asked, 2 * HUGE_PAGE);
        touch(fd, 0, HUGE_PAGE);
        assert_refused(try_register(o, 1, fd, 2 * HUGE_PAGE, 0), MEMORY_HOLES);
        assert_int_equal(last_refusal.asked, HUGE_PAGE);
        touch(fd, HUGE_PAGE, HUGE_PAGE);
        assert_done(try_register(o, 1, fd, 2 * HUGE_PAGE, LINK_REGISTER_SEAL));
        assert_int_equal(last_info.page_size, HUGE_PAGE);
        assert_int_equal(last_info.sealed, 1);
        assert_int_equal(fcntl(fd, F_GET_SEALS), STABLE_SEALS);
        close(fd);
        objects_free(o);
}

static void test_populate(void **state) {
        struct objects *o = objects_new(4);
        int fd = huge_memfd(2 * HUGE_PAGE);
        struct stat st;

        (void)state;
        assert_done(try_register(o, 1, fd, 2 * HUGE_PAGE, LINK_REGISTER_POPULATE));
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_blocks * 512, 2 * HUGE_PAGE);
        close(fd);
        objects_free(o);
}

/* More than the pool has: a reason, not a SIGBUS. */
static void test_pool_too_small(void **state) {
        struct objects *o = objects_new(4);
        int fd = huge_memfd(HUGE_PAGE);

        (void)state;
        assert_int_equal(ftruncate(fd, (off_t)(4096 * HUGE_PAGE)), 0);
        assert_refused(try_register(o, 1, fd, 4096 * HUGE_PAGE, LINK_REGISTER_POPULATE), MEMORY_HOLES);
        assert_true(last_refusal.errnum != 0);
        close(fd);
        objects_free(o);
}

static void test_punched_later(void **state) {
        struct objects *o = objects_new(4);
        int fd = huge_memfd(2 * HUGE_PAGE);

        (void)state;
        assert_done(try_register(o, 1, fd, 2 * HUGE_PAGE, LINK_REGISTER_POPULATE));
        assert_done(try_use(o, 1, 0, HUGE_PAGE, READ_WRITE));
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, HUGE_PAGE), 0);
        assert_refused(try_use(o, 1, 0, HUGE_PAGE, READ_WRITE), MEMORY_HOLES);
        close(fd);
        objects_free(o);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_holes),
                cmocka_unit_test(test_populate),
                cmocka_unit_test(test_pool_too_small),
                cmocka_unit_test(test_punched_later),
        };

        return cmocka_run_group_tests(tests, setup_pool, restore_pool);
}
