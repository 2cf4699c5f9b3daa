/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* Refused connections: told why, and closed by nobody but the disposable process. */
#include "test_holder_harness.h"

#include "holder/discard.h"

static const char *const args[] = { "--discard", NULL };

static void start(struct holder *h) {
        *h = (struct holder){ .client = -1, .listener = -1 };
        h->link = holder_spawn(&h->pid, args);
}

/* Announces a connection and returns the client's end. */
static int announce(struct holder *h, enum refusal_reason reason, const char *text) {
        struct discard_message m = { .reason = reason };
        int pair[2];

        (void)snprintf(m.text, sizeof m.text, "%s", text);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(fdmsg_send(h->link, &m, sizeof m, &pair[1], 1, 0), 0);
        close(pair[1]);
        return pair[0];
}

static void gone(struct holder *h) {
        assert_int_equal(fdmsg_send(h->link, DISCARD_GONE, DISCARD_GONE_SIZE, NULL, 0, 0), 0);
}

static void expect_refused(int client, enum refusal_reason reason, const char *text) {
        struct holder h = { .client = client };
        struct session_msg m;

        client_expect(&h, SESSION_REFUSED, &m, NULL);
        assert_int_equal(m.reason, reason);
        assert_string_equal(m.text, text);
        assert_false(client_read(&h, &m, NULL));
        close(client);
}

static void test_closed_after_gone(void **state) {
        struct holder h;
        int client;

        (void)state;
        start(&h);
        client = announce(&h, REFUSAL_UNKNOWN_PEER, "who are you");
        assert_false(readable(client, 200));    /* the broker still has its copy */
        gone(&h);
        expect_refused(client, REFUSAL_UNKNOWN_PEER, "who are you");
        close(h.link);
        assert_int_equal(wait_exit(h.pid), 0);
}

static void test_several_in_order(void **state) {
        struct holder h;
        int clients[3];

        (void)state;
        start(&h);
        for (int i = 0; i < 3; i++)
                clients[i] = announce(&h, REFUSAL_NOT_PERMITTED, i == 1 ? "second" : "other");
        gone(&h);
        expect_refused(clients[0], REFUSAL_NOT_PERMITTED, "other");
        assert_false(readable(clients[1], 100));
        gone(&h);
        expect_refused(clients[1], REFUSAL_NOT_PERMITTED, "second");
        close(h.link);
        expect_refused(clients[2], REFUSAL_NOT_PERMITTED, "other");     /* with the broker all its copies went */
        assert_int_equal(wait_exit(h.pid), 0);
}

/* What the client had sent already does not turn the answer into a reset. */
static void test_client_that_spoke_first(void **state) {
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_MEMORY };
        int memory = memory_new(PAGE, 0, NULL), client;
        struct holder h;

        (void)state;
        start(&h);
        client = announce(&h, REFUSAL_UNKNOWN_PEER, "no");
        for (int i = 0; i < 3; i++)
                assert_int_equal(fdmsg_send(client, &m, sizeof m, &memory, 1, 0), 0);
        gone(&h);
        usleep(200000);                 /* until it is closed */
        expect_refused(client, REFUSAL_UNKNOWN_PEER, "no");
        close(memory);
        close(h.link);
        assert_int_equal(wait_exit(h.pid), 0);
}

static void test_what_does_not_fit_ends_it(void **state) {
        struct holder h;

        (void)state;
        start(&h);
        gone(&h);
        assert_int_equal(wait_exit(h.pid), EXIT_FAILURE);
        close(h.link);
        start(&h);
        assert_int_equal(fdmsg_send(h.link, "what", 4, NULL, 0, 0), 0);
        assert_int_equal(wait_exit(h.pid), EXIT_FAILURE);
        close(h.link);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_closed_after_gone),
                cmocka_unit_test(test_several_in_order),
                cmocka_unit_test(test_client_that_spoke_first),
                cmocka_unit_test(test_what_does_not_fit_ends_it),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
