/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* I2: a device gets at memory only as far as the client's fd allows. The kernel does not check this when it pins. */
#include "test_object_helpers.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

static void refuse_fd(int fd, enum refusal_reason reason) {
        struct objects *o = objects_new(4);

        assert_true(fd >= 0);
        assert_string_equal(refusal_reason_name(try_register(o, 1, fd, PAGE, 0)), refusal_reason_name(reason));
        assert_string_equal(refusal_reason_name(try_register(o, 1, fd, PAGE, READ_ONLY)), refusal_reason_name(reason));
        close(fd);
        objects_free(o);
}

static void test_o_path(void **state) {
        int fd = full_memfd(PAGE);

        (void)state;
        refuse_fd(reopened(fd, O_PATH), REFUSAL_MEMORY_O_PATH);
        close(fd);
}

static void test_not_regular(void **state) {
        int pair[2];

        (void)state;
        assert_int_equal(pipe(pair), 0);
        refuse_fd(pair[0], REFUSAL_MEMORY_NOT_REGULAR);
        assert_non_null(strstr(last_refusal.text, "a pipe"));
        close(pair[1]);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        refuse_fd(pair[0], REFUSAL_MEMORY_NOT_REGULAR);
        assert_non_null(strstr(last_refusal.text, "a socket"));
        close(pair[1]);
        refuse_fd(open("/dev/shm", O_RDONLY | O_DIRECTORY), REFUSAL_MEMORY_NOT_REGULAR);
        assert_non_null(strstr(last_refusal.text, "a directory"));
        refuse_fd(open("/dev/zero", O_RDWR), REFUSAL_MEMORY_NOT_REGULAR);
        assert_non_null(strstr(last_refusal.text, "a character device"));
}

/* Anonymous inodes are of no kind, and of a regular one on some kernels. */
static void test_kernel_objects(void **state) {
        int fds[2] = { eventfd(0, 0), epoll_create1(0) };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
                struct objects *o = objects_new(4);
                enum refusal_reason reason = try_register(o, 1, fds[i], PAGE, 0);

                assert_true(reason == REFUSAL_MEMORY_NOT_REGULAR || reason == REFUSAL_MEMORY_BAD_FILESYSTEM);
                close(fds[i]);
                objects_free(o);
        }
}

static void test_write_only(void **state) {
        int fd = full_memfd(PAGE);

        (void)state;
        refuse_fd(reopened(fd, O_WRONLY), REFUSAL_BAD_ACCESS);
        close(fd);
}

static void test_bad_filesystem(void **state) {
        (void)state;
        refuse_fd(open("/proc/self/maps", O_RDONLY), REFUSAL_MEMORY_BAD_FILESYSTEM);
        refuse_fd(open("/proc/self/exe", O_RDONLY), REFUSAL_MEMORY_BAD_FILESYSTEM);
}

static void test_empty(void **state) {
        (void)state;
        refuse_fd(empty_memfd(0), REFUSAL_MEMORY_EMPTY);
}

static void test_zero_bytes_announced(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_refused(try_register(o, 1, fd, 0, 0), ZERO_LENGTH);
        close(fd);
        objects_free(o);
}

/* A read-only fd serves device-read and nothing else, also when the same file is registered for writing already. */
static void test_read_only_fd(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE), ro = reopened(fd, O_RDONLY);

        (void)state;
        assert_refused(try_register(o, 1, ro, PAGE, 0), MEMORY_READ_ONLY);
        assert_done(try_register(o, 1, ro, PAGE, READ_ONLY));
        assert_int_equal(last_info.writable, 0);
        assert_done(try_use(o, 1, 0, PAGE, BACKEND_ACCESS_READ));
        assert_refused(try_use(o, 1, 0, PAGE, BACKEND_ACCESS_WRITE), MEMORY_READ_ONLY);
        assert_refused(try_use(o, 1, 0, PAGE, READ_WRITE), MEMORY_READ_ONLY);
        assert_done(try_register(o, 2, fd, PAGE, 0));
        assert_int_equal(last_info.writable, 1);
        assert_refused(try_register(o, 3, ro, PAGE, 0), MEMORY_READ_ONLY);
        assert_refused(try_use(o, 1, 0, PAGE, READ_WRITE), MEMORY_READ_ONLY);
        assert_done(try_use(o, 2, 0, PAGE, READ_WRITE));
        close(ro);
        close(fd);
        objects_free(o);
}

static void test_registered_read_only_though_writable(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_done(try_register(o, 1, fd, PAGE, READ_ONLY));
        assert_refused(try_use(o, 1, 0, PAGE, BACKEND_ACCESS_WRITE), MEMORY_READ_ONLY);
        close(fd);
        objects_free(o);
}

static void test_access_bits(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_done(try_register(o, 1, fd, PAGE, 0));
        assert_refused(try_use(o, 1, 0, PAGE, 0), BAD_ACCESS);
        assert_refused(try_use(o, 1, 0, PAGE, 4), BAD_ACCESS);
        close(fd);
        objects_free(o);
}

/* A plain file on tmpfs is memory too. */
static void test_tmpfs_file(void **state) {
        char path[] = "/dev/shm/test-object-XXXXXX";
        struct objects *o = objects_new(4);
        int fd = mkstemp(path);

        (void)state;
        assert_true(fd >= 0);
        unlink(path);
        assert_int_equal(ftruncate(fd, PAGE), 0);
        touch(fd, 0, PAGE);
        assert_done(try_register(o, 1, fd, PAGE, 0));
        assert_int_equal(last_info.sealed, 0);
        close(fd);
        objects_free(o);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_o_path),
                cmocka_unit_test(test_not_regular),
                cmocka_unit_test(test_kernel_objects),
                cmocka_unit_test(test_write_only),
                cmocka_unit_test(test_bad_filesystem),
                cmocka_unit_test(test_empty),
                cmocka_unit_test(test_zero_bytes_announced),
                cmocka_unit_test(test_read_only_fd),
                cmocka_unit_test(test_registered_read_only_though_writable),
                cmocka_unit_test(test_access_bits),
                cmocka_unit_test(test_tmpfs_file),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
