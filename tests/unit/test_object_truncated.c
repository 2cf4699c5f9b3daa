/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* Sizes: what is announced must be there, what is mapped must be inside, and still be there when it is not sealed. */
#include "test_object_helpers.h"

#define SIZE (8 * PAGE)

static void test_smaller_than_announced(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(SIZE);

        (void)state;
        assert_refused(try_register(o, 1, fd, SIZE + 1, 0), MEMORY_TRUNCATED);
        assert_int_equal(last_refusal.limit, SIZE);
        assert_int_equal(last_refusal.asked, SIZE + 1);
        assert_refused(try_register(o, 1, fd, UINT64_MAX, 0), MEMORY_TRUNCATED);
        assert_done(try_register(o, 1, fd, SIZE, 0));
        assert_int_equal(last_info.size, SIZE);
        close(fd);
        objects_free(o);
}

static void test_beyond_the_object(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(SIZE);

        (void)state;
        assert_done(try_register(o, 1, fd, SIZE, 0));
        assert_done(try_use(o, 1, 0, SIZE, READ_WRITE));
        assert_done(try_use(o, 1, SIZE - PAGE, PAGE, READ_WRITE));
        assert_refused(try_use(o, 1, 0, SIZE + 1, READ_WRITE), BEYOND_OBJECT);
        assert_refused(try_use(o, 1, SIZE, 1, READ_WRITE), BEYOND_OBJECT);
        assert_refused(try_use(o, 1, SIZE - PAGE, PAGE + 1, READ_WRITE), BEYOND_OBJECT);
        assert_refused(try_use(o, 1, UINT64_MAX, 1, READ_WRITE), BEYOND_OBJECT);
        assert_refused(try_use(o, 1, 1, UINT64_MAX, READ_WRITE), BEYOND_OBJECT);        /* the sum is 0 */
        assert_refused(try_use(o, 1, PAGE, 0 - PAGE + 1, READ_WRITE), BEYOND_OBJECT);   /* the sum is 1 */
        assert_refused(try_use(o, 1, 0, 0, READ_WRITE), ZERO_LENGTH);
        close(fd);
        objects_free(o);
}

static void test_truncated_later(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(SIZE);

        (void)state;
        assert_done(try_register(o, 1, fd, SIZE, 0));
        assert_int_equal(ftruncate(fd, SIZE - PAGE), 0);
        assert_refused(try_use(o, 1, SIZE - PAGE, PAGE, READ_WRITE), MEMORY_TRUNCATED);
        assert_done(try_use(o, 1, 0, PAGE, READ_WRITE));
        close(fd);
        objects_free(o);
}

static void test_odd_size(void **state) {
        struct objects *o = objects_new(4);
        int fd = empty_memfd(SIZE - 100);

        (void)state;
        touch(fd, 0, SIZE - 100);
        assert_done(try_register(o, 1, fd, SIZE - 100, 0));
        assert_done(try_use(o, 1, 0, SIZE - PAGE, READ_WRITE));
        assert_refused(try_use(o, 1, 0, SIZE, READ_WRITE), BEYOND_OBJECT);
        close(fd);
        objects_free(o);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_smaller_than_announced),
                cmocka_unit_test(test_beyond_the_object),
                cmocka_unit_test(test_truncated_later),
                cmocka_unit_test(test_odd_size),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
