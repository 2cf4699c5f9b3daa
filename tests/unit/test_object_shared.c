/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* The same file registered twice is mapped once; an object lives as long as it is used; their number is limited. */
#include "test_object_helpers.h"

#define SIZE (4 * PAGE)

static void *where(struct objects *o, uint64_t memory) {
        struct object *object = object_get(o, memory);
        void *p = object_vaddr(object, 0);

        object_put(o, object);
        return p;
}

static bool is_mapped(void *p) {
        unsigned char v;

        return mincore(p, PAGE, &v) == 0;
}

static void test_one_mapping_per_file(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(SIZE), other = full_memfd(SIZE), ro = reopened(fd, O_RDONLY);
        void *p;

        (void)state;
        assert_done(try_register(o, 1, fd, SIZE, 0));
        assert_done(try_register(o, 2, fd, 2 * PAGE, 0));
        assert_done(try_register(o, 3, ro, SIZE, READ_ONLY));
        assert_done(try_register(o, 4, other, SIZE, 0));
        p = where(o, 1);
        assert_ptr_equal(where(o, 2), p);
        assert_ptr_equal(where(o, 3), p);
        assert_ptr_not_equal(where(o, 4), p);
        assert_done(try_unregister(o, 1));
        assert_done(try_unregister(o, 3));
        assert_true(is_mapped(p));
        assert_ptr_equal(where(o, 2), p);
        assert_done(try_unregister(o, 2));
        assert_false(is_mapped(p));
        close(ro);
        close(fd);
        close(other);
        objects_free(o);
}

/* A read-only mapping cannot serve a writable object: it gets its own. */
static void test_writable_after_read_only(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(SIZE);

        (void)state;
        assert_done(try_register(o, 1, fd, SIZE, READ_ONLY));
        assert_done(try_register(o, 2, fd, SIZE, 0));
        assert_ptr_not_equal(where(o, 1), where(o, 2));
        *(volatile char *)where(o, 2) = 1;      /* would fault on a read-only mapping */
        close(fd);
        objects_free(o);
}

/* The same for what has grown since. */
static void test_grown_file(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(SIZE);

        (void)state;
        assert_done(try_register(o, 1, fd, SIZE, 0));
        assert_int_equal(ftruncate(fd, 2 * SIZE), 0);
        touch(fd, 0, 2 * SIZE);
        assert_done(try_register(o, 2, fd, 2 * SIZE, 0));
        assert_int_equal(*(volatile char *)((char *)where(o, 2) + 2 * SIZE - 1), 1);
        assert_refused(try_use(o, 1, SIZE, PAGE, READ_WRITE), BEYOND_OBJECT);
        close(fd);
        objects_free(o);
}

static void test_in_use(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(SIZE);
        struct object *use;

        (void)state;
        assert_done(try_register(o, 1, fd, SIZE, 0));
        assert_null(object_get(o, 2));
        use = object_get(o, 1);
        assert_refused(try_unregister(o, 1), IN_USE);
        assert_int_equal(last_refusal.used, 1);
        object_put(o, use);
        assert_done(try_unregister(o, 1));
        assert_refused(try_unregister(o, 1), UNKNOWN_MEMORY);
        close(fd);
        objects_free(o);
}

static void test_limit(void **state) {
        struct objects *o = objects_new(2);
        int fd = full_memfd(SIZE);

        (void)state;
        assert_done(try_register(o, 1, fd, SIZE, 0));
        assert_refused(try_register(o, 1, fd, SIZE, 0), IN_USE);
        assert_done(try_register(o, 2, fd, SIZE, 0));
        assert_refused(try_register(o, 3, fd, SIZE, 0), LIMIT_EXCEEDED);
        assert_int_equal(last_refusal.limit, 2);
        assert_int_equal(last_refusal.resource, RESOURCE_MEMORY_OBJECTS);
        assert_done(try_unregister(o, 1));
        assert_done(try_register(o, 3, fd, SIZE, 0));
        close(fd);
        objects_free(o);
}

static void test_unsealed_are_counted(void **state) {
        struct objects *o = objects_new(4);
        int fd = full_memfd(SIZE), other = full_memfd(SIZE);

        (void)state;
        assert_false(objects_any_unsealed(o));
        assert_done(try_register(o, 1, fd, SIZE, LINK_REGISTER_SEAL));
        assert_false(objects_any_unsealed(o));
        assert_done(try_register(o, 2, other, SIZE, 0));
        assert_true(objects_any_unsealed(o));
        assert_done(try_unregister(o, 2));
        assert_false(objects_any_unsealed(o));
        close(fd);
        close(other);
        objects_free(o);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_one_mapping_per_file),
                cmocka_unit_test(test_writable_after_read_only),
                cmocka_unit_test(test_grown_file),
                cmocka_unit_test(test_in_use),
                cmocka_unit_test(test_limit),
                cmocka_unit_test(test_unsealed_are_counted),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
