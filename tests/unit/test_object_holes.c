/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* Memory with holes is refused or populated, on kernels with cachestat(2) and without. */
#include "test_object_helpers.h"

#include <seccomp.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define NR_CACHESTAT 451
#define SIZE (16 * PAGE)

static void test_holes_are_refused(void **state) {
        struct objects *o = objects_new(4);
        int fd = empty_memfd(SIZE);

        (void)state;
        assert_refused(try_register(o, 1, fd, SIZE, 0), MEMORY_HOLES);
        assert_int_equal(last_refusal.asked, SIZE);
        assert_int_equal(last_refusal.used, 0);
        touch(fd, 0, SIZE - PAGE);
        assert_refused(try_register(o, 1, fd, SIZE, 0), MEMORY_HOLES);
        assert_int_equal(last_refusal.asked, PAGE);
        assert_int_equal(last_refusal.used, SIZE - PAGE);
        assert_int_equal(last_refusal.limit, SIZE);
        assert_non_null(strstr(last_refusal.text, "4096 bytes of 65536"));
        touch(fd, SIZE - PAGE, PAGE);
        assert_done(try_register(o, 1, fd, SIZE, 0));
        close(fd);
        objects_free(o);
}

static void test_allocated_is_populated(void **state) {
        struct objects *o = objects_new(4);
        int fd = empty_memfd(SIZE);

        (void)state;
        assert_int_equal(fallocate(fd, 0, 0, SIZE), 0);         /* SEEK_HOLE would call all of it a hole */
        assert_done(try_register(o, 1, fd, SIZE, 0));
        close(fd);
        objects_free(o);
}

static void populate_with(uint32_t flags) {
        struct objects *o = objects_new(4);
        int fd = empty_memfd(SIZE);
        struct stat st;

        touch(fd, 4 * PAGE, PAGE);
        assert_done(try_register(o, 1, fd, SIZE, LINK_REGISTER_POPULATE | flags));
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_blocks * 512, SIZE);
        close(fd);
        objects_free(o);
}

static void test_populated_on_request(void **state) {
        (void)state;
        populate_with(0);
        populate_with(LINK_REGISTER_SEAL);
        populate_with(READ_ONLY);
}

/* What populates is not what writes: what is there stays there. */
static void test_populating_keeps_content(void **state) {
        struct objects *o = objects_new(4);
        int fd = empty_memfd(SIZE);
        uint8_t byte = 0;

        (void)state;
        touch(fd, 4 * PAGE, PAGE);
        assert_done(try_register(o, 1, fd, SIZE, LINK_REGISTER_POPULATE));
        assert_int_equal(pread(fd, &byte, 1, 4 * PAGE), 1);
        assert_int_equal(byte, 1);
        close(fd);
        objects_free(o);
}

/* Needs cachestat(2): a hole beyond the registered part does not count. */
static void test_only_the_registered_part_counts(void **state) {
        struct objects *o = objects_new(4);
        int fd = empty_memfd(SIZE);
        struct stat st;

        (void)state;
        if (syscall(NR_CACHESTAT, -1, NULL, NULL, 0) < 0 && errno == ENOSYS) {
                print_message("cachestat(2) is not there: only whole files can be judged\n");
                skip();
        }
        touch(fd, 0, 4 * PAGE);
        assert_done(try_register(o, 1, fd, 4 * PAGE, 0));
        assert_int_equal(last_info.size, 4 * PAGE);
        assert_refused(try_use(o, 1, 4 * PAGE, PAGE, READ_WRITE), BEYOND_OBJECT);
        assert_done(try_register(o, 2, fd, 6 * PAGE, LINK_REGISTER_POPULATE));
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_blocks * 512, 6 * PAGE);         /* and no more than that */
        close(fd);
        objects_free(o);
}

/* A hole that is punched after registration is seen by the next map that would touch it. */
static void test_punched_later(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(SIZE);

        (void)state;
        assert_done(try_register(o, 1, fd, SIZE, 0));
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4 * PAGE, PAGE), 0);
        assert_refused(try_use(o, 1, 0, SIZE, READ_WRITE), MEMORY_HOLES);
        assert_int_equal(last_refusal.asked, PAGE);
        touch(fd, 4 * PAGE, PAGE);
        assert_done(try_use(o, 1, 0, SIZE, READ_WRITE));
        close(fd);
        objects_free(o);
}

/* The rest in a process for which the kernel has no cachestat(2). cmocka's failures end it with a status. */
static void forget_cachestat(void) {
        scmp_filter_ctx f = seccomp_init(SCMP_ACT_ALLOW);

        assert_int_equal(seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), NR_CACHESTAT, 0), 0);
        assert_int_equal(seccomp_load(f), 0);
        seccomp_release(f);
}

static void test_without_cachestat(void **state) {
        const struct CMUnitTest again[] = {
                cmocka_unit_test(test_holes_are_refused),
                cmocka_unit_test(test_allocated_is_populated),
                cmocka_unit_test(test_populated_on_request),
                cmocka_unit_test(test_punched_later),
        };
        pid_t pid = fork();
        int status;

        (void)state;
        if (pid == 0) {
                forget_cachestat();
                _exit(_cmocka_run_group_tests("old kernel", again, ARRAY_SIZE(again), NULL, NULL) ? 1 : 0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_holes_are_refused),
                cmocka_unit_test(test_allocated_is_populated),
                cmocka_unit_test(test_populated_on_request),
                cmocka_unit_test(test_populating_keeps_content),
                cmocka_unit_test(test_only_the_registered_part_counts),
                cmocka_unit_test(test_punched_later),
                cmocka_unit_test(test_without_cachestat),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
