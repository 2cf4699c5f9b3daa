/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* The broker goes and comes back: the session lives on, and the new broker learns what became of everything. */
#include "test_holder_harness.h"

#include <time.h>

#define DOMAIN 5
#define SIZE (16 * PAGE)

static uint8_t *map;

static int begin(struct holder *h, uint32_t orphan_seconds) {
        int fd = memory_new(SIZE, 0, &map);
        struct session_msg m;

        holder_default_setup(h);
        h->setup.orphan_seconds = orphan_seconds;
        holder_setup(h, NULL);
        holder_give_client(h, 0);
        client_expect(h, SESSION_TOKEN, &m, NULL);
        assert_done(register_fd(h, 1, fd, SIZE, LINK_REGISTER_SEAL, NULL));
        assert_done(link_op(h, LINK_DOMAIN_CREATE, DOMAIN, 0, NULL, 0, NULL));
        assert_done(attach(h, DOMAIN, 8, 0, "edu0", NULL));
        return fd;
}

static void come_back(struct holder *h, struct message *m) {
        assert_true(readable(h->listener, PATIENCE_MS));
        h->link = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(h->link >= 0);
        link_expect(h, LINK_HELLO, m);
        assert_int_equal(m->hello.session, h->setup.session);
        assert_memory_equal(m->hello.secret, h->setup.secret, LINK_SECRET_BYTES);
        assert_int_equal(m->hello.pid, h->pid);
}

static void test_what_was_applied_stays(void **state) {
        static struct seen seen;
        struct holder h;
        struct message m;
        int fd = begin(&h, 60), device;
        uint64_t last;

        (void)state;
        assert_done(map_one(&h, DOMAIN, 0x10000, 2 * PAGE, 1, 0, READ_WRITE));
        last = h.seq;
        ack(&h, DOMAIN, 8);
        device = client_device(&h, 8);
        h.link = fd_close(h.link);
        assert_true(device_copies(device, 0x10000, 0x11000, map, map + PAGE, 0x21));    /* while nobody is there */
        usleep(300000);
        listener_open(&h);
        come_back(&h, &m);
        assert_int_equal(m.hello.last_seq, last);
        assert_int_equal(m.hello.client_gone, 0);
        dump(&h, &seen);
        assert_int_equal(seen.n_mappings, 1);
        assert_int_equal(seen.attachments[0].acked, 1);
        assert_true(device_copies(device, 0x10000, 0x11000, map, map + PAGE, 0x32));
        assert_done(unmap_one(&h, DOMAIN, 0x10000, 2 * PAGE));
        close(client_device(&h, 8));    /* soft: nothing was kept, so nothing was lost with the broker */
        close(device);
        close(fd);
        holder_end(&h);
}

/* Sent before the loss, answered after it. */
static void test_lost_answers_are_given_again(void **state) {
        struct link_map_entry e = { .iova = 0x10000, .length = PAGE, .memory = 1, .access = READ_WRITE };
        static struct seen seen;
        struct link_result r;
        struct holder h;
        struct message m;
        int fd = begin(&h, 60);
        uint64_t seq = ++h.seq;

        (void)state;
        link_post(&h, LINK_MAP, seq, DOMAIN, 1, &e, sizeof e, NULL, 0);
        assert_true(readable(h.link, PATIENCE_MS));     /* done; and never read */
        h.link = fd_close(h.link);
        listener_open(&h);
        come_back(&h, &m);
        assert_int_equal(m.hello.last_seq, seq);
        link_post(&h, LINK_MAP, seq, DOMAIN, 1, &e, sizeof e, NULL, 0);
        result_of(&h, seq, &r);
        assert_done(r.refusal.reason);
        dump(&h, &seen);
        assert_int_equal(seen.n_mappings, 1);
        close(fd);
        holder_end(&h);
}

/* A broker that dies before the token may have left no row: the next one would not know this holder, and the client, which
 * waits for its token, would wait for ever. */
static void test_no_session_before_the_token(void **state) {
        struct session_msg s;
        struct holder h;
        int pair[2];

        (void)state;
        holder_default_setup(&h);
        h.setup.orphan_seconds = 0;
        holder_setup(&h, NULL);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        h.client = pair[0];
        link_post(&h, LINK_CLIENT, 0, 0, 0, NULL, 0, &pair[1], 1);
        close(pair[1]);
        link_post(&h, LINK_GO, 0, 0, 0, NULL, 0, NULL, 0);
        h.link = fd_close(h.link);
        client_expect(&h, SESSION_ENDED, &s, NULL);
        assert_refused(s.reason, RECOVERING);
        assert_int_equal(wait_exit(h.pid), 0);
        holder_cleanup(&h);
}

static void test_orphan_ends(void **state) {
        struct session_msg s;
        struct holder h;
        int fd = begin(&h, 1);
        time_t begun = time(NULL);

        (void)state;
        h.link = fd_close(h.link);
        client_expect(&h, SESSION_ENDED, &s, NULL);
        assert_refused(s.reason, HOLDER_LOST);
        assert_int_equal(wait_exit(h.pid), 0);
        assert_true(time(NULL) - begun >= 1);
        close(fd);
        holder_cleanup(&h);
}

/* A socket that is there is no broker that speaks: the orphan's clock goes on. */
static void test_silence_is_no_broker(void **state) {
        struct holder h;
        struct message m;
        int fd = begin(&h, 1);

        (void)state;
        listener_open(&h);
        h.link = fd_close(h.link);
        come_back(&h, &m);
        assert_int_equal(wait_exit(h.pid), 0);
        close(fd);
        holder_cleanup(&h);
}

/* A broker that drops the holder at once is tried again, at growing distance. */
static void test_dropped_again_and_again(void **state) {
        struct holder h;
        struct message m;
        int fd = begin(&h, 60);

        (void)state;
        listener_open(&h);
        for (int i = 0; i < 3; i++) {
                h.link = fd_close(h.link);
                come_back(&h, &m);
        }
        assert_done(map_one(&h, DOMAIN, 0x10000, PAGE, 1, 0, READ_WRITE));
        close(fd);
        holder_end(&h);
}

static void test_client_dies_meanwhile(void **state) {
        static struct seen seen;
        struct holder h;
        struct message m;
        int fd = begin(&h, 60);

        (void)state;
        assert_done(map_one(&h, DOMAIN, 0x10000, PAGE, 1, 0, READ_WRITE));
        h.link = fd_close(h.link);
        h.client = fd_close(h.client);
        usleep(300000);
        listener_open(&h);
        come_back(&h, &m);
        assert_int_equal(m.hello.client_gone, 1);
        dump(&h, &seen);
        assert_int_equal(seen.n_mappings, 0);
        assert_int_equal(seen.n_domains, 1);
        close(fd);
        holder_end(&h);
}

/* Without a client there is nothing to come back for. */
static void test_unused_holder_ends_with_its_link(void **state) {
        struct holder h;

        (void)state;
        holder_default_setup(&h);
        holder_setup(&h, NULL);
        h.link = fd_close(h.link);
        assert_int_equal(wait_exit(h.pid), 0);
        holder_cleanup(&h);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_was_applied_stays),
                cmocka_unit_test(test_lost_answers_are_given_again),
                cmocka_unit_test(test_no_session_before_the_token),
                cmocka_unit_test(test_orphan_ends),
                cmocka_unit_test(test_silence_is_no_broker),
                cmocka_unit_test(test_dropped_again_and_again),
                cmocka_unit_test(test_client_dies_meanwhile),
                cmocka_unit_test(test_unused_holder_ends_with_its_link),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
