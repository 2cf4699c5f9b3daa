/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * The stages of a session: row intended, holder started, connection handed over and closed here, row live, token. And whose
 * token it is (I8).
 */
#include "test_core_harness.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

/* ---- what the broker sends, seen as it is sent: every sendmsg() of this program comes by here ---- */

static atomic_int watched_fd = -1;      /* the broker's copy of the client's connection */
static atomic_int open_at_client, open_at_go;   /* was it open when that message was sent: 1 yes, 2 no */

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags) {
        const struct link_header *h = msg->msg_iov[0].iov_base;
        int watched = watched_fd, now = fcntl(watched, F_GETFD) >= 0 ? 1 : 2;

        if (watched >= 0 && msg->msg_iov[0].iov_len >= sizeof *h) {
                if (h->type == LINK_CLIENT)
                        atomic_store(&open_at_client, now);
                if (h->type == LINK_GO)
                        atomic_store(&open_at_go, now);
        }
        return syscall(SYS_sendmsg, fd, msg, flags);
}

static int64_t session_state(void) {
        return sql("SELECT ifnull((SELECT state FROM session), 0)");
}

/* ---- starting ---- */

static void a_row_is_intended_before_the_holder_hears_and_live_before_the_token(void **state) {
        struct holder *h;

        (void)state;
        core_start();
        h = holder_connect("alpha");            /* LINK_SETUP has come */
        assert_int_equal(session_state(), LEDGER_INTENDED);
        assert_int_equal(charged("alpha", RESOURCE_SESSIONS), 1);
        holder_greet(h);
        holder_take_client(h);                  /* LINK_TOKEN has come */
        assert_int_equal(session_state(), LEDGER_LIVE);
}

/* Whoever closes a session connection last may hang in it (DESIGN, section 4): the holder serves it, and with that can close
 * it, only when the broker has closed its own copy. */
static void the_holder_may_go_on_when_the_connection_is_closed_here(void **state) {
        struct holder *h;
        char byte;

        (void)state;
        core_start();
        h = holder_connect("alpha");
        watched_fd = h->given;
        assert_true(fcntl(watched_fd, F_GETFD) >= 0);
        atomic_store(&open_at_client, 0);
        atomic_store(&open_at_go, 0);
        holder_greet(h);
        holder_take_client(h);
        watched_fd = -1;
        assert_int_equal(atomic_load(&open_at_client), 1);
        assert_int_equal(atomic_load(&open_at_go), 2);
        /* ours was the last one */
        h->connection = fd_close(h->connection);
        assert_int_equal(recv(h->client, &byte, 1, 0), 0);
}

static void a_holder_of_somebody_else_gets_no_client(void **state) {
        struct holder *h;
        struct link_hello hello;

        (void)state;
        core_start();
        h = holder_connect("alpha");
        hello = (struct link_hello){ .session = h->setup.session, .pid = UINT32_MAX / 2 };
        holder_send(h, LINK_HELLO, 0, &hello, sizeof hello);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        while (holder_receive(h, SILENCE_MS))
                assert_int_equal(h->got.header.type, LINK_END);
        EVENTUALLY(sql("SELECT count(*) FROM session") == 0);
}

static void a_session_beyond_the_quota_costs_nothing(void **state) {
        struct peer peer;
        int pair[2];

        (void)state;
        core.tenants[0].quota[RESOURCE_SESSIONS] = 1;
        core_start();
        holder_open("alpha");
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(peer_from_socket(pair[1], PEER_SOCKET_TENANT, "alpha", &peer), 0);
        session_start(core.broker, pair[1], &peer);
        peer_clear(&peer);
        fd_close(pair[0]);
        assert_int_equal(charged("alpha", RESOURCE_SESSIONS), 1);
        assert_int_equal(sql("SELECT count(*) FROM session"), 1);
        holder_open("beta");
}

/* The kernel counts a page for every mapping of it, we count it once. */
static void a_holder_may_lock_the_quota_many_times_over(void **state) {
        static const struct {
                uint64_t quota, memlock;
        } cases[] = { { 1ULL << 30, (16ULL << 30) + (64U << 20) }, { 0, 64U << 20 }, { UINT64_MAX, UINT64_MAX - 1 },
                      { UINT64_MAX / 16, UINT64_MAX - 1 } };

        (void)state;
        core.options.holder_uid_first = 2000000000;
        core.options.holder_uid_last = 2000000099;
        core_start();
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct refusal r;
                struct holder *h;

                core.tenants[0].quota[RESOURCE_LOCKED_BYTES] = cases[i].quota;
                assert_int_equal(broker_reload(core.broker, core.tenants, 2, &r), 0);
                h = holder_connect("alpha");
                assert_true(h->setup.memlock == cases[i].memlock);
        }
}

/* Identified while the tenant was still there, started when it is not. */
static void a_tenant_that_was_taken_out_takes_no_sessions(void **state) {
        struct holder *h;
        struct peer peer;
        struct refusal r;
        int pair[2];

        (void)state;
        core_start();
        h = holder_open("alpha");
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        assert_int_equal(peer_from_socket(pair[1], PEER_SOCKET_TENANT, "alpha", &peer), 0);
        assert_int_equal(broker_reload(core.broker, &core.tenants[1], 1, &r), 0);
        session_start(core.broker, pair[1], &peer);
        peer_clear(&peer);
        fd_close(pair[0]);
        assert_int_equal(charged("alpha", RESOURCE_SESSIONS), 1);
        assert_int_equal(sql("SELECT count(*) FROM session"), 1);
        make_domain(h);                         /* open ones go on */
        holder_open("beta");
}

/* ---- whose token ---- */

static enum refusal_reason authenticate(const char *token, const struct peer *peer) {
        struct session *s = NULL;
        struct refusal r;

        if (session_authenticate(core.broker, token, peer, &s, &r) < 0)
                return r.reason;
        session_unref(s);
        return REFUSAL_NONE;
}

/* The pidfd of a peer that was made by changing another one would still tell the first one's process. */
static struct peer without_pidfd(const struct peer *p) {
        struct peer other = *p;

        other.pidfd = -1;
        return other;
}

static void a_token_is_worth_nothing_to_anybody_else(void **state) {
        struct holder *h;
        struct peer other;

        (void)state;
        core_start();
        h = holder_open("alpha");
        other = without_pidfd(&h->peer);
        assert_int_equal(authenticate(h->token, &other), REFUSAL_NONE);
        other.pid++;
        assert_int_equal(authenticate(h->token, &other), REFUSAL_UNKNOWN_SESSION);
        other = without_pidfd(&h->peer);
        other.start_time++;
        assert_int_equal(authenticate(h->token, &other), REFUSAL_UNKNOWN_SESSION);
        other = without_pidfd(&h->peer);
        other.uid++;
        assert_int_equal(authenticate(h->token, &other), REFUSAL_UNKNOWN_SESSION);
}

static void a_token_is_worth_nothing_through_another_tenants_socket(void **state) {
        struct holder *h;
        struct peer other;

        (void)state;
        core_start();
        h = holder_open("alpha");
        other = without_pidfd(&h->peer);
        strcpy(other.tenant, "beta");
        assert_int_equal(authenticate(h->token, &other), REFUSAL_UNKNOWN_SESSION);
        other.tenant[0] = '\0';
        assert_int_equal(authenticate(h->token, &other), REFUSAL_UNKNOWN_SESSION);
}

static void what_is_nearly_a_token_is_none(void **state) {
        struct holder *h;
        char token[sizeof h->token];

        (void)state;
        core_start();
        h = holder_open("alpha");
        assert_int_equal(strlen(h->token), 2 * SESSION_TOKEN_BYTES);
        assert_int_equal(authenticate("", &h->peer), REFUSAL_UNKNOWN_SESSION);
        memcpy(token, h->token, sizeof token);
        token[sizeof token - 2] = '\0';
        assert_int_equal(authenticate(token, &h->peer), REFUSAL_UNKNOWN_SESSION);
        memcpy(token, h->token, sizeof token);
        token[0] = token[0] == '0' ? '1' : '0';
        assert_int_equal(authenticate(token, &h->peer), REFUSAL_UNKNOWN_SESSION);
        assert_int_equal(authenticate(h->token, &h->peer), REFUSAL_NONE);
}

static void an_ended_session_has_no_token_and_takes_no_work(void **state) {
        struct asked a = asked_new();
        struct holder *h;

        (void)state;
        core_start();
        h = holder_open("alpha");
        session_close_request(h->session, &a.reply);
        assert_done(&a);
        assert_int_equal(authenticate(h->token, &h->peer), REFUSAL_UNKNOWN_SESSION);
        ask_register(h, PAGE, &a);
        assert_refused(&a, REFUSAL_UNKNOWN_SESSION);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_int_equal(charged("alpha", RESOURCE_MEMORY_OBJECTS), 0);
}

static void an_unclaimed_session_ends_by_itself(void **state) {
        struct holder *h;

        (void)state;
        core.options.unclaimed_seconds = 0;
        core_start();
        h = holder_connect("alpha");
        holder_greet(h);
        for (unsigned i = 0; i < 3; i++)        /* CLIENT, GO, TOKEN; nobody presents it */
                assert_true(holder_receive(h, WAIT_MS));
        fd_close(h->fds[0]);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_false(child_is_alive(h));
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(a_row_is_intended_before_the_holder_hears_and_live_before_the_token),
                T(the_holder_may_go_on_when_the_connection_is_closed_here),
                T(a_holder_of_somebody_else_gets_no_client),
                T(a_session_beyond_the_quota_costs_nothing),
                T(a_holder_may_lock_the_quota_many_times_over),
                T(a_tenant_that_was_taken_out_takes_no_sessions),
                T(a_token_is_worth_nothing_to_anybody_else),
                T(a_token_is_worth_nothing_through_another_tenants_socket),
                T(what_is_nearly_a_token_is_none),
                T(an_ended_session_has_no_token_and_takes_no_work),
                T(an_unclaimed_session_ends_by_itself),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
