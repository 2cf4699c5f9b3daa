/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* I10: nothing that a client sends is fatal, and what a broker sends wrong ends the link, not the session. */
#include "test_holder_harness.h"

static void send_raw(int fd, const void *data, size_t size, const int *fds, size_t n) {
        assert_int_equal(fdmsg_send(fd, data, size, fds, n, 0), 0);
}

/* The session still works, and everything that was sent before has been dealt with. */
static void check_alive(struct holder *h) {
        int fd = memory_new(PAGE, 0, NULL);
        struct session_msg m;

        client_write(h, SESSION_DROP_TICKET, client_ticket(h, fd), 0, -1);
        client_write(h, SESSION_TOKEN, 0, 0, -1);
        client_expect(h, SESSION_ERROR, &m, NULL);
        assert_done(link_op(h, LINK_DOMAIN_CREATE, h->seq + 1000, 0, NULL, 0, NULL));
        close(fd);
}

static void expect_error(struct holder *h) {
        struct session_msg m;

        client_expect(h, SESSION_ERROR, &m, NULL);
        assert_refused(m.reason, BAD_MESSAGE);
        assert_string_not_equal(m.text, "");
}

static void test_wrong_sizes_of_the_client(void **state) {
        static uint8_t big[20000];
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_MEMORY };
        struct holder h;

        (void)state;
        holder_start(&h);
        send_raw(h.client, &m, 1, NULL, 0);
        expect_error(&h);
        send_raw(h.client, &m, sizeof m - 1, NULL, 0);
        expect_error(&h);
        send_raw(h.client, big, sizeof big, NULL, 0);
        expect_error(&h);
        send_raw(h.client, "", 0, NULL, 0);             /* reads like the end, and is not */
        expect_error(&h);
        m.version = 9;
        send_raw(h.client, &m, sizeof m, NULL, 0);
        expect_error(&h);
        check_alive(&h);
        holder_end(&h);
}

static void test_unknown_types_of_the_client(void **state) {
        const uint32_t types[] = { 0, SESSION_TOKEN, SESSION_ENDED, 35, UINT32_MAX };
        struct holder h;

        (void)state;
        holder_start(&h);
        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                client_write(&h, types[i], 1, 2, -1);
                expect_error(&h);
        }
        client_write(&h, SESSION_DROP_TICKET, 12345, 0, -1);    /* no answer */
        check_alive(&h);
        holder_end(&h);
}

static size_t open_fds(pid_t pid) {
        char path[64];
        size_t n = 0;

        for (int fd = 0; fd < 256; fd++) {
                (void)snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
                n += faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
        }
        return n;
}

/* fds in messages that carry none, too many of them, none where one belongs: all closed, all answered. */
static void test_surplus_fds_of_the_client(void **state) {
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_MEMORY, .cookie = 5 };
        int fds[FDMSG_MAX_FDS];
        struct session_msg a;
        struct holder h;
        size_t before;

        (void)state;
        holder_start(&h);
        check_alive(&h);
        before = open_fds(h.pid);
        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                fds[i] = memory_new(PAGE, 0, NULL);
        for (size_t n = 0; n <= FDMSG_MAX_FDS; n++) {
                if (n == 1)
                        continue;
                send_raw(h.client, &m, sizeof m, fds, n);
                client_expect(&h, SESSION_TICKET, &a, NULL);
                assert_int_equal(a.cookie, 5);
                assert_refused(a.reason, BAD_MESSAGE);
        }
        m.type = SESSION_DEVICE_FD;
        send_raw(h.client, &m, sizeof m, fds, 1);
        expect_error(&h);
        send_raw(h.client, &m, 3, fds, 2);
        expect_error(&h);
        check_alive(&h);
        assert_int_equal(open_fds(h.pid), before);
        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                close(fds[i]);
        holder_end(&h);
}

static void test_tickets_are_limited(void **state) {
        struct holder h;
        int fd = memory_new(PAGE, 0, NULL);
        struct session_msg a;
        uint64_t ticket = 0;

        (void)state;
        holder_start(&h);
        for (uint32_t i = 0; i < h.setup.max_objects; i++)
                ticket = client_ticket(&h, fd);
        client_write(&h, SESSION_MEMORY, 0, 3, fd);
        client_expect(&h, SESSION_TICKET, &a, NULL);
        assert_refused(a.reason, LIMIT_EXCEEDED);
        client_write(&h, SESSION_DROP_TICKET, ticket, 0, -1);
        (void)client_ticket(&h, fd);
        close(fd);
        holder_end(&h);
}

/* Who sends and never reads loses the session, and nobody else anything. */
static void test_flood(void **state) {
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = 999 };
        struct holder h;
        struct message l;
        struct timeval patience = { .tv_sec = 5 };

        (void)state;
        holder_start(&h);
        setsockopt(h.client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
        while (fdmsg_send(h.client, &m, sizeof m, NULL, 0, 0) == 0)
                ;
        link_expect(&h, LINK_CLIENT_GONE, &l);
        assert_refused(link_op(&h, LINK_DOMAIN_CREATE, 5, 0, NULL, 0, NULL), UNKNOWN_SESSION);
        holder_end(&h);
}

/* --- the broker ---------------------------------------------------------------------------------------------------*/

static void come_back(struct holder *h) {
        struct message m;

        assert_false(link_read(h, &m));
        fd_close(h->link);
        assert_true(readable(h->listener, PATIENCE_MS));
        h->link = accept4(h->listener, NULL, NULL, SOCK_CLOEXEC);
        link_expect(h, LINK_HELLO, &m);
}

static void bad_message(struct holder *h, uint32_t version, uint16_t type, uint64_t seq, uint32_t count, size_t size) {
        static uint8_t zeroes[LINK_MESSAGE_MAX + 4096];
        struct link_header header = { .version = version, .type = type, .seq = seq, .count = count, .domain = 1 };

        assert_int_equal(link_write(h, &header, zeroes, size, NULL, 0), 0);
        come_back(h);
}

static void test_messages_that_do_not_fit(void **state) {
        struct holder h;

        (void)state;
        holder_start(&h);
        listener_open(&h);
        send_raw(h.link, "x", 1, NULL, 0);
        come_back(&h);
        bad_message(&h, LINK_VERSION + 0x10000, LINK_DUMP, 1, 0, 0);
        bad_message(&h, LINK_VERSION, 999, 1, 0, 0);
        bad_message(&h, LINK_VERSION, LINK_SETUP, 0, 0, sizeof(struct link_setup));
        bad_message(&h, LINK_VERSION, LINK_GO, 0, 0, 0);                                /* a second time */
        bad_message(&h, LINK_VERSION, LINK_DOMAIN_CREATE, 0, 0, 0);                     /* without a seq */
        bad_message(&h, LINK_VERSION, LINK_MAP, 1, 0, 0);
        bad_message(&h, LINK_VERSION, LINK_MAP, 1, 2, sizeof(struct link_map_entry));
        bad_message(&h, LINK_VERSION, LINK_MAP, 1, 1, sizeof(struct link_map_entry) + 1);
        bad_message(&h, LINK_VERSION, LINK_MAP, 1, LINK_BATCH_MAX + 1, 0);
        bad_message(&h, LINK_VERSION, LINK_UNMAP, 1, UINT32_MAX, 0);
        bad_message(&h, LINK_VERSION, LINK_REGISTER, 1, 0, sizeof(struct link_register) - 1);
        bad_message(&h, LINK_VERSION, LINK_ATTACH, 1, 0, sizeof(struct link_attach) - 1);
        bad_message(&h, LINK_VERSION, LINK_END, 0, 0, 3);
        check_alive(&h);
        holder_end(&h);
}

static void test_too_big_for_a_message(void **state) {
        struct holder h;

        (void)state;
        holder_start(&h);
        listener_open(&h);
        bad_message(&h, LINK_VERSION, LINK_DUMP, 1, 0, LINK_MESSAGE_MAX);
        check_alive(&h);
        holder_end(&h);
}

/* fds that a message does not call for are closed. */
static void test_surplus_fds_of_the_broker(void **state) {
        struct link_map_entry e = { .iova = 0, .length = PAGE, .memory = 1, .access = READ_WRITE };
        struct holder h;
        struct link_result r;
        int fds[2] = { memory_new(PAGE, 0, NULL), memory_new(PAGE, 0, NULL) };
        size_t before;

        (void)state;
        holder_start(&h);
        check_alive(&h);
        before = open_fds(h.pid);
        link_post(&h, LINK_MAP, ++h.seq, 77, 1, &e, sizeof e, fds, 2);
        result_of(&h, h.seq, &r);
        assert_refused(r.refusal.reason, UNKNOWN_DOMAIN);
        check_alive(&h);
        assert_int_equal(open_fds(h.pid), before);
        close(fds[0]);
        close(fds[1]);
        holder_end(&h);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_wrong_sizes_of_the_client),
                cmocka_unit_test(test_unknown_types_of_the_client),
                cmocka_unit_test(test_surplus_fds_of_the_client),
                cmocka_unit_test(test_tickets_are_limited),
                cmocka_unit_test(test_flood),
                cmocka_unit_test(test_messages_that_do_not_fit),
                cmocka_unit_test(test_too_big_for_a_message),
                cmocka_unit_test(test_surplus_fds_of_the_broker),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
