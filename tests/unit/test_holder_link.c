/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* The life of a session, told over the link as a broker would: from setup to DMA to the orderly end. */
#include "test_holder_harness.h"

#include <time.h>

#define DOMAIN 5
#define ATTACHMENT 8
#define MEMORY 3
#define MEMORY_SIZE (4ULL << 20)

static void test_hello_answers_setup(void **state) {
        struct holder h;

        (void)state;
        holder_start(&h);
        assert_int_equal(h.hello.session, 77);
        assert_memory_equal(h.hello.secret, h.setup.secret, LINK_SECRET_BYTES);
        assert_int_equal(h.hello.pid, h.pid);
        assert_int_equal(h.hello.client_gone, 0);
        assert_int_equal(h.hello.last_seq, 0);
        holder_end(&h);
}

static void test_token_reaches_the_client(void **state) {
        struct session_msg m;
        struct holder h;

        (void)state;
        holder_default_setup(&h);
        holder_setup(&h, NULL);
        holder_give_client(&h, 0);
        client_expect(&h, SESSION_TOKEN, &m, NULL);
        assert_string_equal(m.text, "00112233445566778899aabbccddeeff");
        holder_end(&h);
}

static void test_end_tells_the_client_why(void **state) {
        struct link_end e = { .reason = REFUSAL_NOT_PERMITTED, .text = "you were evicted" };
        struct session_msg m;
        struct holder h;

        (void)state;
        holder_start(&h);
        link_post(&h, LINK_END, 0, 0, 0, &e, sizeof e, NULL, 0);
        client_expect(&h, SESSION_ENDED, &m, NULL);
        assert_int_equal(m.reason, REFUSAL_NOT_PERMITTED);
        assert_string_equal(m.text, "you were evicted");
        assert_int_equal(wait_exit(h.pid), 0);
        assert_false(client_read(&h, &m, NULL));
        holder_cleanup(&h);
}

static uint8_t *map;            /* where the test sees the memory */

/* A session with memory, a domain and a device in it. Returns the memory. */
static int populate(struct holder *h) {
        int fd = memory_new(MEMORY_SIZE, 0, &map);
        struct link_result r;

        assert_done(register_fd(h, MEMORY, fd, MEMORY_SIZE, LINK_REGISTER_SEAL, &r));
        assert_int_equal(r.memory.size, MEMORY_SIZE);
        assert_int_equal(r.memory.page_size, PAGE);
        assert_int_equal(r.memory.sealed, 1);
        assert_int_equal(r.memory.writable, 1);
        assert_done(link_op(h, LINK_DOMAIN_CREATE, DOMAIN, 0, NULL, 0, NULL));
        assert_done(attach(h, DOMAIN, ATTACHMENT, 0, "edu0", &r));
        assert_int_equal(page_mask_smallest(r.info.page_sizes), PAGE);
        assert_true(r.info.n_ranges > 0);
        return fd;
}

static void test_dma_reaches_mapped_memory_only(void **state) {
        struct holder h;
        int memory, device;

        (void)state;
        holder_start(&h);
        memory = populate(&h);
        assert_done(map_one(&h, DOMAIN, 0x100000, PAGE, MEMORY, 0, BACKEND_ACCESS_READ));
        assert_done(map_one(&h, DOMAIN, 0x200000, PAGE, MEMORY, PAGE, BACKEND_ACCESS_WRITE));
        ack(&h, DOMAIN, ATTACHMENT);
        device = client_device(&h, ATTACHMENT);
        assert_true(device_copies(device, 0x100000, 0x200000, map, map + PAGE, 0x5a));
        assert_false(device_copies(device, 0x200000, 0x100000, map + PAGE, map, 0x6b));         /* read only there */
        assert_done(unmap_one(&h, DOMAIN, 0x200000, PAGE));
        assert_false(device_copies(device, 0x100000, 0x200000, map, map + PAGE, 0x7c));
        close(device);
        close(memory);
        holder_end(&h);
}

static void test_mapping_before_the_device(void **state) {
        struct holder h;
        int memory = memory_new(MEMORY_SIZE, 0, &map), device;

        (void)state;
        holder_start(&h);
        assert_done(register_fd(&h, MEMORY, memory, MEMORY_SIZE, LINK_REGISTER_SEAL, NULL));
        assert_done(link_op(&h, LINK_DOMAIN_CREATE, DOMAIN, 0, NULL, 0, NULL));
        assert_done(map_one(&h, DOMAIN, 0x100000, 2 * PAGE, MEMORY, 0, READ_WRITE));
        assert_done(attach(&h, DOMAIN, ATTACHMENT, 0, "edu0", NULL));
        ack(&h, DOMAIN, ATTACHMENT);
        device = client_device(&h, ATTACHMENT);
        assert_true(device_copies(device, 0x100000, 0x101000, map, map + PAGE, 0x11));
        close(device);
        close(memory);
        holder_end(&h);
}

static void test_attach_tells_what_does_not_fit(void **state) {
        struct holder h;
        int memory = memory_new(MEMORY_SIZE, 0, &map);
        struct link_result r;
        static struct seen seen;

        (void)state;
        holder_start(&h);
        assert_done(register_fd(&h, MEMORY, memory, MEMORY_SIZE, LINK_REGISTER_SEAL, NULL));
        assert_done(link_op(&h, LINK_DOMAIN_CREATE, DOMAIN, 0, NULL, 0, NULL));
        assert_done(map_one(&h, DOMAIN, 0xfee00000, PAGE, MEMORY, 0, READ_WRITE));      /* the interrupt window */
        assert_refused(attach(&h, DOMAIN, ATTACHMENT, 0, "edu0", &r), RESERVED_REGION);
        dump(&h, &seen);
        assert_int_equal(seen.n_attachments, 0);
        assert_int_equal(seen.n_mappings, 1);
        assert_done(unmap_one(&h, DOMAIN, 0xfee00000, PAGE));
        assert_refused(attach(&h, DOMAIN, ATTACHMENT, 0, "nonsense", &r), UNKNOWN_DEVICE);
        assert_done(attach(&h, DOMAIN, ATTACHMENT, 0, "edu0", NULL));
        close(memory);
        holder_end(&h);
}

/* I12: no device fd before the broker keeps what revokes it. A request that is early waits. */
static void test_device_fd_waits_for_the_ack(void **state) {
        struct link_attachment a = { ATTACHMENT };
        struct session_msg m;
        struct holder h;
        int memory, fd = -1;

        (void)state;
        holder_start(&h);
        memory = populate(&h);
        client_write(&h, SESSION_DEVICE_FD, ATTACHMENT, 41, -1);
        client_write(&h, SESSION_DEVICE_FD, ATTACHMENT, 42, -1);
        client_expect(&h, SESSION_DEVICE, &m, NULL);    /* one may wait, two are too many */
        assert_int_equal(m.cookie, 42);
        assert_refused(m.reason, IN_PROGRESS);
        assert_false(readable(h.client, 100));
        ack(&h, DOMAIN, ATTACHMENT);
        client_expect(&h, SESSION_DEVICE, &m, &fd);
        assert_int_equal(m.cookie, 41);
        assert_true(fd >= 0);
        close(fd);
        client_write(&h, SESSION_DEVICE_FD, ATTACHMENT + 1, 43, -1);
        client_expect(&h, SESSION_DEVICE, &m, NULL);
        assert_refused(m.reason, UNKNOWN_ATTACHMENT);
        assert_done(link_op(&h, LINK_DETACH, DOMAIN, 0, &a, sizeof a, NULL));
        client_write(&h, SESSION_DEVICE_FD, ATTACHMENT, 44, -1);
        client_expect(&h, SESSION_DEVICE, &m, NULL);
        assert_refused(m.reason, UNKNOWN_ATTACHMENT);
        close(memory);
        holder_end(&h);
}

/* A request that waits is answered when there is nothing left to wait for. */
static void test_detach_answers_who_waits(void **state) {
        struct link_attachment a = { ATTACHMENT };
        struct link_result r;
        struct session_msg m;
        struct holder h;
        int memory;

        (void)state;
        holder_start(&h);
        memory = populate(&h);
        client_write(&h, SESSION_DEVICE_FD, ATTACHMENT, 41, -1);
        assert_false(readable(h.client, 100));
        assert_done(link_op(&h, LINK_DETACH, DOMAIN, 0, &a, sizeof a, &r));
        assert_int_equal(r.info.page_sizes, 0);         /* the last one */
        client_expect(&h, SESSION_DEVICE, &m, NULL);
        assert_int_equal(m.cookie, 41);
        assert_refused(m.reason, UNKNOWN_ATTACHMENT);
        close(memory);
        holder_end(&h);
}

static void test_dump_is_what_was_applied(void **state) {
        static struct link_map_entry entries[LINK_BATCH_MAX];
        static struct seen seen;
        struct holder h;
        int memory;

        (void)state;
        holder_start(&h);
        memory = populate(&h);
        for (size_t i = 0; i < LINK_BATCH_MAX; i++)     /* falling IOVAs: the dump sorts */
                entries[i] = (struct link_map_entry){ .iova = (4 * LINK_BATCH_MAX - 2 * i) * PAGE, .length = PAGE,
                                                      .memory = MEMORY, .offset = i % 1024 * PAGE,
                                                      .access = i % 2 ? READ_WRITE : BACKEND_ACCESS_READ };
        assert_done(link_op(&h, LINK_MAP, DOMAIN, LINK_BATCH_MAX, entries, sizeof entries, NULL));
        assert_done(map_one(&h, DOMAIN, PAGE, PAGE, MEMORY, 0, READ_WRITE));
        dump(&h, &seen);
        assert_int_equal(seen.n_memories, 1);
        assert_int_equal(seen.memories[0].memory, MEMORY);
        assert_int_equal(seen.memories[0].info.size, MEMORY_SIZE);
        assert_int_equal(seen.n_domains, 1);
        assert_int_equal(seen.domain_ids[0], DOMAIN);
        assert_int_equal(seen.domains[0].quarantined, 0);
        assert_int_equal(seen.n_attachments, 1);
        assert_string_equal(seen.attachments[0].attach.device, "edu0");
        assert_int_equal(seen.attachments[0].acked, 0);
        assert_int_equal(seen.n_mappings, LINK_BATCH_MAX + 1);
        assert_int_equal(seen.mappings[0].iova, PAGE);
        for (size_t i = 1; i < seen.n_mappings; i++)
                assert_memory_equal(&seen.mappings[i], &entries[LINK_BATCH_MAX - i], sizeof entries[0]);
        ack(&h, 0, ATTACHMENT);
        dump(&h, &seen);
        assert_int_equal(seen.attachments[0].acked, 1);
        close(memory);
        holder_end(&h);
}

/* I9, and the refusal says which element. */
static void test_batches_are_all_or_nothing(void **state) {
        struct link_map_entry m[3] = {
                { .iova = 0x10000, .length = PAGE, .memory = MEMORY, .access = READ_WRITE },
                { .iova = 0x20000, .length = PAGE, .memory = MEMORY, .access = READ_WRITE },
                { .iova = 0x10000, .length = PAGE, .memory = MEMORY, .access = READ_WRITE },
        };
        struct link_unmap_entry u[2] = { { 0x30000, PAGE }, { 0x40000, PAGE } };
        static struct seen seen;
        struct link_result r;
        struct holder h;
        int memory;

        (void)state;
        holder_start(&h);
        memory = populate(&h);
        assert_refused(link_op(&h, LINK_MAP, DOMAIN, 3, m, sizeof m, &r), OVERLAP);
        assert_int_equal(r.refusal.element, 2);
        assert_int_equal(r.refusal.conflict_first, 0x10000);
        m[2].iova = 0x30000;
        m[2].offset = MEMORY_SIZE;
        assert_refused(link_op(&h, LINK_MAP, DOMAIN, 3, m, sizeof m, &r), BEYOND_OBJECT);
        assert_int_equal(r.refusal.element, 2);
        m[2].memory = MEMORY + 1;
        assert_refused(link_op(&h, LINK_MAP, DOMAIN, 3, m, sizeof m, &r), UNKNOWN_MEMORY);
        dump(&h, &seen);
        assert_int_equal(seen.n_mappings, 0);
        assert_done(map_one(&h, DOMAIN, 0x30000, PAGE, MEMORY, 0, READ_WRITE));
        assert_refused(link_op(&h, LINK_UNMAP, DOMAIN, 2, u, sizeof u, &r), NOT_MAPPED);
        assert_int_equal(r.refusal.element, 1);
        u[1].iova = u[0].iova;
        assert_refused(link_op(&h, LINK_UNMAP, DOMAIN, 2, u, sizeof u, &r), NOT_MAPPED);
        assert_refused(unmap_one(&h, DOMAIN, 0x30000, 2 * PAGE), NOT_MAPPED);
        dump(&h, &seen);
        assert_int_equal(seen.n_mappings, 1);
        assert_done(unmap_one(&h, DOMAIN, 0x30000, PAGE));
        close(memory);
        holder_end(&h);
}

static void test_unknown_ids_are_refused(void **state) {
        struct link_attachment a = { 99 };
        struct link_memory m = { 99 };
        struct link_register q = { .memory = 1, .ticket = 99, .size = PAGE };
        struct holder h;

        (void)state;
        holder_start(&h);
        assert_refused(map_one(&h, 99, 0, PAGE, 1, 0, READ_WRITE), UNKNOWN_DOMAIN);
        assert_refused(link_op(&h, LINK_DOMAIN_DESTROY, 99, 0, NULL, 0, NULL), UNKNOWN_DOMAIN);
        assert_refused(link_op(&h, LINK_UNREGISTER, 0, 0, &m, sizeof m, NULL), UNKNOWN_MEMORY);
        assert_refused(link_op(&h, LINK_REGISTER, 0, 0, &q, sizeof q, NULL), UNKNOWN_TICKET);
        assert_done(link_op(&h, LINK_DOMAIN_CREATE, DOMAIN, 0, NULL, 0, NULL));
        assert_refused(link_op(&h, LINK_DOMAIN_CREATE, DOMAIN, 0, NULL, 0, NULL), IN_USE);
        assert_refused(link_op(&h, LINK_DETACH, DOMAIN, 0, &a, sizeof a, NULL), UNKNOWN_ATTACHMENT);
        holder_end(&h);
}

static void test_destroyed_domain_leaves_nothing(void **state) {
        struct link_memory m = { MEMORY };
        static struct seen seen;
        struct holder h;
        int memory;

        (void)state;
        holder_start(&h);
        memory = populate(&h);
        assert_done(map_one(&h, DOMAIN, 0, MEMORY_SIZE, MEMORY, 0, READ_WRITE));
        assert_refused(link_op(&h, LINK_UNREGISTER, 0, 0, &m, sizeof m, NULL), IN_USE);
        assert_done(link_op(&h, LINK_DOMAIN_DESTROY, DOMAIN, 0, NULL, 0, NULL));
        assert_refused(map_one(&h, DOMAIN, 0, PAGE, MEMORY, 0, READ_WRITE), UNKNOWN_DOMAIN);
        assert_done(link_op(&h, LINK_UNREGISTER, 0, 0, &m, sizeof m, NULL));
        dump(&h, &seen);
        assert_int_equal(seen.n_domains + seen.n_memories + seen.n_attachments, 0);
        assert_done(link_op(&h, LINK_DOMAIN_CREATE, DOMAIN, 0, NULL, 0, NULL));
        close(memory);
        holder_end(&h);
}

static double now_us(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Not a promise, a figure: printed, never judged. */
static void test_round_trip(void **state) {
        enum { ROUNDS = 2000 };
        struct holder h;
        double begin;
        int memory;

        (void)state;
        holder_start(&h);
        memory = populate(&h);
        begin = now_us();
        for (int i = 0; i < ROUNDS; i++) {
                assert_done(map_one(&h, DOMAIN, 0x100000, PAGE, MEMORY, 0, READ_WRITE));
                assert_done(unmap_one(&h, DOMAIN, 0x100000, PAGE));
        }
        print_message("map or unmap of 4 KiB, there and back: %.1f us\n", (now_us() - begin) / (2 * ROUNDS));
        close(memory);
        holder_end(&h);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_hello_answers_setup),
                cmocka_unit_test(test_token_reaches_the_client),
                cmocka_unit_test(test_end_tells_the_client_why),
                cmocka_unit_test(test_dma_reaches_mapped_memory_only),
                cmocka_unit_test(test_mapping_before_the_device),
                cmocka_unit_test(test_attach_tells_what_does_not_fit),
                cmocka_unit_test(test_device_fd_waits_for_the_ack),
                cmocka_unit_test(test_detach_answers_who_waits),
                cmocka_unit_test(test_dump_is_what_was_applied),
                cmocka_unit_test(test_batches_are_all_or_nothing),
                cmocka_unit_test(test_unknown_ids_are_refused),
                cmocka_unit_test(test_destroyed_domain_leaves_nothing),
                cmocka_unit_test(test_round_trip),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
