/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* I6, seen from the link: a repeated seq gets the first answer and has no second effect. */
#include "test_holder_harness.h"

#define DOMAIN 5
#define SIZE (16 * PAGE)

static int begin(struct holder *h) {
        int fd = memory_new(SIZE, 0, NULL);

        holder_start(h);
        assert_done(register_fd(h, 1, fd, SIZE, LINK_REGISTER_SEAL, NULL));
        assert_done(link_op(h, LINK_DOMAIN_CREATE, DOMAIN, 0, NULL, 0, NULL));
        return fd;
}

static struct link_result again(struct holder *h, uint64_t seq, enum link_type type, const void *payload, size_t size) {
        struct link_result r;

        link_post(h, type, seq, DOMAIN, 1, payload, size, NULL, 0);
        result_of(h, seq, &r);
        return r;
}

static size_t n_mappings(struct holder *h) {
        static struct seen seen;

        dump(h, &seen);
        return seen.n_mappings;
}

static void test_map(void **state) {
        struct link_map_entry m = { .iova = 0x10000, .length = PAGE, .memory = 1, .access = READ_WRITE };
        struct holder h;
        int fd = begin(&h);
        uint64_t seq;

        (void)state;
        assert_done(link_op(&h, LINK_MAP, DOMAIN, 1, &m, sizeof m, NULL));
        seq = h.seq;
        assert_done(again(&h, seq, LINK_MAP, &m, sizeof m).refusal.reason);     /* not OVERLAP */
        assert_done(unmap_one(&h, DOMAIN, 0x10000, PAGE));
        assert_done(again(&h, seq, LINK_MAP, &m, sizeof m).refusal.reason);
        assert_int_equal(n_mappings(&h), 0);
        close(fd);
        holder_end(&h);
}

static void test_refusal(void **state) {
        struct link_unmap_entry u = { 0x10000, PAGE };
        struct link_result first, second;
        struct holder h;
        int fd = begin(&h);
        uint64_t seq;

        (void)state;
        assert_refused(link_op(&h, LINK_UNMAP, DOMAIN, 1, &u, sizeof u, &first), NOT_MAPPED);
        seq = h.seq;
        assert_done(map_one(&h, DOMAIN, 0x10000, PAGE, 1, 0, READ_WRITE));
        second = again(&h, seq, LINK_UNMAP, &u, sizeof u);
        assert_memory_equal(&first.refusal, &second.refusal, sizeof first.refusal);
        assert_int_equal(n_mappings(&h), 1);
        close(fd);
        holder_end(&h);
}

/* The ticket is used up; the answer is not. */
static void test_register(void **state) {
        struct holder h;
        int fd = begin(&h), other = memory_new(SIZE, 0, NULL);
        struct link_register q = { .memory = 2, .ticket = client_ticket(&h, other), .size = SIZE };
        struct link_result first, second;
        static struct seen seen;

        (void)state;
        assert_done(link_op(&h, LINK_REGISTER, 0, 0, &q, sizeof q, &first));
        second = again(&h, h.seq, LINK_REGISTER, &q, sizeof q);
        assert_done(second.refusal.reason);
        assert_memory_equal(&first.memory, &second.memory, sizeof first.memory);
        dump(&h, &seen);
        assert_int_equal(seen.n_memories, 2);
        close(other);
        close(fd);
        holder_end(&h);
}

static void test_settled_is_refused(void **state) {
        struct link_map_entry m = { .iova = 0x10000, .length = PAGE, .memory = 1, .access = READ_WRITE };
        struct holder h;
        int fd = begin(&h);
        uint64_t seq;

        (void)state;
        assert_done(link_op(&h, LINK_MAP, DOMAIN, 1, &m, sizeof m, NULL));
        seq = h.seq;
        assert_done(unmap_one(&h, DOMAIN, 0x10000, PAGE));
        link_post(&h, LINK_SETTLED, h.seq, 0, 0, NULL, 0, NULL, 0);
        assert_refused(again(&h, seq, LINK_MAP, &m, sizeof m).refusal.reason, BAD_MESSAGE);
        assert_int_equal(n_mappings(&h), 0);
        close(fd);
        holder_end(&h);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_map),
                cmocka_unit_test(test_refusal),
                cmocka_unit_test(test_register),
                cmocka_unit_test(test_settled_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
