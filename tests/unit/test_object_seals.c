/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* Sealed memory stays what it is; what is sealed against writing is not written by devices either. */
#include "test_object_helpers.h"

static void test_sealed_on_request(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(2 * PAGE);

        (void)state;
        assert_done(try_register(o, 1, fd, 2 * PAGE, LINK_REGISTER_SEAL));
        assert_int_equal(last_info.sealed, 1);
        assert_int_equal(fcntl(fd, F_GET_SEALS), STABLE_SEALS);
        assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE), -1);
        assert_int_equal(ftruncate(fd, PAGE), -1);
        close(fd);
        objects_free(o);
}

static void test_not_sealed_without_request(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_done(try_register(o, 1, fd, PAGE, 0));
        assert_int_equal(last_info.sealed, 0);
        assert_int_equal(fcntl(fd, F_GET_SEALS), 0);
        close(fd);
        objects_free(o);
}

static void test_write_sealed(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
        assert_refused(try_register(o, 1, fd, PAGE, 0), MEMORY_WRITE_SEALED);
        assert_int_equal(last_refusal.errnum, 0);       /* found by looking, not by a mmap that fails */
        close(fd);
        objects_free(o);
}

/* The read-only way round. Before Linux 6.7 it took a read-only fd. */
static void test_write_sealed_serves_device_reads(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE), ro = reopened(fd, O_RDONLY);

        (void)state;
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW), 0);
        assert_done(try_register(o, 1, ro, PAGE, READ_ONLY | LINK_REGISTER_SEAL));
        assert_int_equal(last_info.sealed, 1);
        assert_refused(try_use(o, 1, 0, PAGE, BACKEND_ACCESS_WRITE), MEMORY_READ_ONLY);
        close(ro);
        close(fd);
        objects_free(o);
}

static void test_future_write_sealed_before_us(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
        assert_refused(try_register(o, 1, fd, PAGE, 0), MEMORY_WRITE_SEALED);
        assert_done(try_register(o, 1, fd, PAGE, READ_ONLY));
        assert_refused(try_register(o, 2, fd, PAGE, 0), MEMORY_WRITE_SEALED);   /* a read-only mapping is of no help */
        close(fd);
        objects_free(o);
}

/* What this session mapped and sealed itself it can register again, as long as it keeps one registration. */
static void test_future_write_sealed_by_us(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_done(try_register(o, 1, fd, PAGE, LINK_REGISTER_SEAL));
        assert_done(try_register(o, 2, fd, PAGE, LINK_REGISTER_SEAL));
        assert_done(try_unregister(o, 1));
        assert_done(try_register(o, 3, fd, PAGE, LINK_REGISTER_SEAL));
        assert_done(try_unregister(o, 2));
        assert_done(try_unregister(o, 3));
        assert_refused(try_register(o, 4, fd, PAGE, LINK_REGISTER_SEAL), MEMORY_WRITE_SEALED);
        close(fd);
        objects_free(o);
}

static void test_cannot_be_sealed(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL), 0);
        assert_refused(try_register(o, 1, fd, PAGE, LINK_REGISTER_SEAL), MEMORY_UNSEALED);
        assert_int_equal(last_refusal.errnum, EPERM);
        assert_done(try_register(o, 1, fd, PAGE, LINK_REGISTER_SEAL | LINK_REGISTER_ALLOW_UNSEALED));
        assert_int_equal(last_info.sealed, 0);
        close(fd);
        objects_free(o);
}

/* Half of the seals is no seal. */
static void test_partly_sealed(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
        assert_refused(try_register(o, 1, fd, PAGE, LINK_REGISTER_SEAL), MEMORY_UNSEALED);
        assert_done(try_register(o, 1, fd, PAGE, 0));
        assert_int_equal(last_info.sealed, 0);
        close(fd);
        objects_free(o);
}

static void test_sealed_against_writes_only(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(PAGE);

        (void)state;
        assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL), 0);
        assert_refused(try_register(o, 1, fd, PAGE, READ_ONLY | LINK_REGISTER_SEAL), MEMORY_UNSEALED);
        assert_done(try_register(o, 1, fd, PAGE, READ_ONLY));
        assert_int_equal(last_info.sealed, 0);          /* it can still be truncated */
        close(fd);
        objects_free(o);
}

/* Memory that is refused must not be left sealed: the client could never register it again. */
static void test_refused_is_not_sealed(void **state) {
        struct objects *o = objects_new(4);
        int fd = empty_memfd(2 * PAGE);

        (void)state;
        touch(fd, 0, PAGE);
        assert_refused(try_register(o, 1, fd, 2 * PAGE, LINK_REGISTER_SEAL), MEMORY_HOLES);
        assert_int_equal(fcntl(fd, F_GET_SEALS), 0);
        touch(fd, PAGE, PAGE);
        assert_done(try_register(o, 1, fd, 2 * PAGE, LINK_REGISTER_SEAL));
        close(fd);
        objects_free(o);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_sealed_on_request),
                cmocka_unit_test(test_not_sealed_without_request),
                cmocka_unit_test(test_write_sealed),
                cmocka_unit_test(test_write_sealed_serves_device_reads),
                cmocka_unit_test(test_future_write_sealed_before_us),
                cmocka_unit_test(test_future_write_sealed_by_us),
                cmocka_unit_test(test_cannot_be_sealed),
                cmocka_unit_test(test_partly_sealed),
                cmocka_unit_test(test_sealed_against_writes_only),
                cmocka_unit_test(test_refused_is_not_sealed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
