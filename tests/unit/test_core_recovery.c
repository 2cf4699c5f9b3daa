/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * After a restart (I6): the ledger is the authority on intent, the holder on what was applied. Each case is one disagreement of
 * the two, made on purpose: the service dies between any two steps, and the holder that comes back says what it likes.
 */
#include "test_core_crash.h"

#define AT 0x100000ULL

/* ---- what the holder says ---- */

struct account {                        /* what the holder says to have */
        uint64_t domain, memory;
        size_t n;
        struct link_map_entry mappings[4];
};

static void tell(struct holder *h, const struct account *a) {
        if (a->memory)
                dump_memory(h, a->memory, 64 * PAGE);
        if (a->domain)
                dump_domain(h, a->domain, a->mappings, a->n);
        holder_done(h);
}

/* SIGTERM: sessions go on in their holders, and so does what they were told to do. */
static void stop(struct holder *h) {
        h->session = session_unref(h->session);
        broker_stop(core.broker, false);
        core.broker = broker_free(core.broker);
        core.ledger = ledger_close(core.ledger);
        h->link = fd_close(h->link);
}

/* The whole: dies now, comes back, and has what it says. */
static void restart(struct holder *h, const struct account *a) {
        crash(h);
        core_start();
        come_back(h);
        tell(h, a);
        EVENTUALLY(is_back(h));
}

/* ---- the scene ---- */

struct scene {
        struct holder *h;
        struct account account;
        struct asked asked;             /* what was under way; its answer comes while the old service is taken down */
};

static struct scene scene(void) {
        struct scene s = { 0 };

        core_start();
        s.h = holder_open("alpha");
        s.account.domain = make_domain(s.h);
        memory_is_unsealed = true;      /* each mapping counts */
        s.account.memory = make_memory(s.h, 64 * PAGE);
        return s;
}

static struct link_map_entry entry(const struct scene *s, uint64_t iova, uint64_t length) {
        return (struct link_map_entry){ .iova = iova, .length = length, .memory = s->account.memory,
                                        .access = BACKEND_ACCESS_READ };
}

static void map_now(struct scene *s, uint64_t iova, uint64_t length) {
        map(s->h, s->account.domain, s->account.memory, iova, length);
        EVENTUALLY(sql("SELECT count(*) FROM op") == 0);        /* settled on the disk: no open operation explains it */
        s->account.mappings[s->account.n++] = entry(s, iova, length);
}

static void assert_mapped(const struct scene *s, size_t n, uint64_t bytes) {
        struct mapping_view views[8];
        struct refusal r;
        size_t found;
        bool more;

        assert_int_equal(mapping_list(core.broker, s->h->session, s->account.domain, (struct iova_range){ 0, UINT64_MAX }, 8, views,
                                      &found, &more, &r), 0);
        assert_int_equal(found, n);
        for (size_t i = 0; i < found; i++)
                assert_string_equal(views[i].state, "live");
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), n);
        assert_int_equal(charged("alpha", RESOURCE_LOCKED_BYTES), bytes);
        assert_int_equal(sql("SELECT count(*) FROM mapping"), n);
        assert_int_equal(sql("SELECT count(*) FROM op WHERE settled = 0"), 0);
        assert_int_equal(sql("SELECT mapped FROM memory"), n);
}

/* ---- agreement ---- */

static void what_both_have_goes_on(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        map_now(&s, AT, PAGE);
        map_now(&s, AT + 4 * PAGE, 2 * PAGE);
        restart(s.h, &s.account);
        assert_mapped(&s, 2, 3 * PAGE);
        assert_int_equal(charged("alpha", RESOURCE_SESSIONS), 1);
        assert_int_equal(charged("alpha", RESOURCE_DOMAINS), 1);
        assert_int_equal(charged("alpha", RESOURCE_REGISTERED_BYTES), 64 * PAGE);
        holder_expect_silence(s.h);
        ask_unmap(s.h, s.account.domain, AT, PAGE, 0, &a);
        holder_expect(s.h, LINK_UNMAP);
        holder_done(s.h);
        assert_done(&a);
}

/* ---- a map that was under way ---- */

static void map_under_way(struct scene *s) {
        map_now(s, AT, PAGE);
        ask_map(s->h, s->account.domain, s->account.memory, AT + PAGE, PAGE, 7, &s->asked);
        holder_expect(s->h, LINK_MAP);
}

static void a_map_that_the_holder_did_is_done(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        map_under_way(&s);
        s.account.mappings[s.account.n++] = entry(&s, AT + PAGE, PAGE);
        restart(s.h, &s.account);
        assert_mapped(&s, 2, 2 * PAGE);
        ask_map(s.h, s.account.domain, s.account.memory, AT + PAGE, PAGE, 7, &a);
        assert_done(&a);                        /* the first one's answer, and no second effect */
        holder_expect_silence(s.h);
}

static void a_map_that_the_holder_did_not_do_left_nothing(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        map_under_way(&s);
        restart(s.h, &s.account);
        assert_mapped(&s, 1, PAGE);
        ask_map(s.h, s.account.domain, s.account.memory, AT + PAGE, PAGE, 7, &a);
        holder_expect(s.h, LINK_MAP);           /* repeating it does it */
        holder_done(s.h);
        assert_done(&a);
        EVENTUALLY(sql("SELECT count(*) FROM mapping") == 2);
}

/* ---- an unmap that was under way ---- */

static void unmap_under_way(struct scene *s) {
        map_now(s, AT, PAGE);
        map_now(s, AT + PAGE, PAGE);
        ask_unmap(s->h, s->account.domain, AT + PAGE, PAGE, 8, &s->asked);
        holder_expect(s->h, LINK_UNMAP);
}

static void an_unmap_that_the_holder_did_is_done(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        unmap_under_way(&s);
        s.account.n--;
        restart(s.h, &s.account);
        assert_mapped(&s, 1, PAGE);
        ask_unmap(s.h, s.account.domain, AT + PAGE, PAGE, 8, &a);
        assert_done(&a);
        assert_int_equal(a.answer.unmapped_bytes, PAGE);
        holder_expect_silence(s.h);
}

static void an_unmap_that_the_holder_did_not_do_can_be_repeated(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        unmap_under_way(&s);
        restart(s.h, &s.account);
        assert_mapped(&s, 2, 2 * PAGE);
        ask_unmap(s.h, s.account.domain, AT + PAGE, PAGE, 8, &a);
        holder_expect(s.h, LINK_UNMAP);
        holder_done(s.h);
        assert_done(&a);
        EVENTUALLY(sql("SELECT count(*) FROM mapping") == 1);
}

/* ---- a service that stops in good order ---- */

static void stopping_leaves_a_map_under_way_to_the_next_service(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        map_under_way(&s);
        stop(s.h);
        s.account.mappings[s.account.n++] = entry(&s, AT + PAGE, PAGE);
        core_start();
        come_back(s.h);
        tell(s.h, &s.account);
        EVENTUALLY(is_back(s.h));
        holder_expect_silence(s.h);
        assert_mapped(&s, 2, 2 * PAGE);
        ask_map(s.h, s.account.domain, s.account.memory, AT + PAGE, PAGE, 7, &a);
        assert_done(&a);
        holder_expect_silence(s.h);
}

static void stopping_leaves_an_unmap_under_way_to_the_next_service(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        unmap_under_way(&s);
        stop(s.h);
        s.account.n--;
        core_start();
        come_back(s.h);
        tell(s.h, &s.account);
        EVENTUALLY(is_back(s.h));
        assert_mapped(&s, 1, PAGE);
        ask_unmap(s.h, s.account.domain, AT + PAGE, PAGE, 8, &a);
        assert_done(&a);
        assert_int_equal(a.answer.unmapped_bytes, PAGE);
        holder_expect_silence(s.h);
}

/* ---- what no operation explains ---- */

static void what_no_row_explains_is_undone(void **state) {
        struct scene s = scene();

        (void)state;
        map_now(&s, AT, PAGE);
        s.account.mappings[s.account.n++] = entry(&s, AT + 8 * PAGE, PAGE);
        crash(s.h);
        core_start();
        come_back(s.h);
        tell(s.h, &s.account);
        holder_expect(s.h, LINK_UNMAP);
        assert_int_equal(((const struct link_unmap_entry *)s.h->got.payload)->iova, AT + 8 * PAGE);
        assert_int_equal(((const struct link_unmap_entry *)s.h->got.payload)->length, PAGE);
        EVENTUALLY(is_back(s.h));
        assert_mapped(&s, 1, PAGE);
}

static void what_the_holder_has_in_another_way_is_undone(void **state) {
        struct scene s = scene();

        (void)state;
        map_now(&s, AT, PAGE);
        s.account.mappings[0].access = BACKEND_ACCESS_READ | BACKEND_ACCESS_WRITE;
        crash(s.h);
        core_start();
        come_back(s.h);
        tell(s.h, &s.account);
        holder_expect(s.h, LINK_UNMAP);
        EVENTUALLY(is_back(s.h));
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 0);
}

static void what_the_holder_lost_is_not_charged_any_more(void **state) {
        struct scene s = scene();

        (void)state;
        map_now(&s, AT, PAGE);
        map_now(&s, AT + PAGE, PAGE);
        s.account.n = 1;
        restart(s.h, &s.account);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 1);
        assert_int_equal(charged("alpha", RESOURCE_LOCKED_BYTES), PAGE);
}

/* Or nobody could be mapped there any more, and the next service would charge it again. */
static void what_the_holder_lost_leaves_no_row(void **state) {
        struct scene s = scene();

        (void)state;
        map_now(&s, AT, PAGE);
        map_now(&s, AT + PAGE, PAGE);
        s.account.n = 1;
        restart(s.h, &s.account);
        assert_mapped(&s, 1, PAGE);
        map_now(&s, AT + PAGE, PAGE);
}

static void a_domain_that_the_holder_lost_leaves_no_row(void **state) {
        struct scene s = scene();

        (void)state;
        map_now(&s, AT, PAGE);
        s.account = (struct account){ .memory = s.account.memory };
        restart(s.h, &s.account);
        assert_int_equal(charged("alpha", RESOURCE_DOMAINS), 0);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 0);
        assert_int_equal(sql("SELECT (SELECT count(*) FROM domain) + (SELECT count(*) FROM mapping)"), 0);
}

/* ---- who comes back, and who does not ---- */

static void a_wrong_secret_is_nobodys_holder(void **state) {
        struct scene s = scene();
        uint8_t secret[LINK_SECRET_BYTES];

        (void)state;
        core.options.recover_seconds = 5;
        memcpy(secret, s.h->setup.secret, sizeof secret);
        secret[LINK_SECRET_BYTES - 1] ^= 1;
        crash(s.h);
        core_start();
        return_as(s.h, secret);
        assert_false(holder_receive(s.h, WAIT_MS));     /* closed */
        assert_false(is_back(s.h));
        come_back(s.h);
        tell(s.h, &s.account);
        EVENTUALLY(is_back(s.h));
}

/* One that was taken over could fill the service's memory with its account. */
static void a_holder_that_tells_without_end_is_ended(void **state) {
        struct scene s = scene();
        struct {
                struct link_header header;
                struct link_map_entry mappings[LINK_BATCH_MAX];
        } *m = calloc(1, sizeof *m);

        (void)state;
        core.options.recover_seconds = 600;
        crash(s.h);
        core_start();
        come_back(s.h);
        m->header = (struct link_header){ .version = LINK_VERSION, .type = LINK_DUMP_MAPPINGS, .domain = s.account.domain,
                                          .count = LINK_BATCH_MAX };
        for (unsigned i = 0; i < 1000; i++)
                if (fdmsg_send(s.h->link, m, sizeof *m, NULL, 0, MSG_NOSIGNAL) < 0)
                        break;
        free(m);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_false(child_is_alive(s.h));
}

static bool is_closed(int fd) {
        struct pollfd p = { .fd = fd };

        return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

/* I10: who connects and says nothing is waited for by nobody; a bounded number of them is kept. */
static void who_does_not_greet_holds_up_nobody(void **state) {
        struct scene s = scene();
        int silent[LOOP_GUESTS_MAX], last;

        (void)state;
        crash(s.h);
        core_start();
        for (unsigned i = 0; i < LOOP_GUESTS_MAX; i++)
                silent[i] = connect_silently(s.h);
        assert_false(is_closed(silent[0]));
        last = connect_silently(s.h);
        EVENTUALLY(is_closed(silent[0]));
        come_back(s.h);
        tell(s.h, &s.account);
        EVENTUALLY(is_back(s.h));
        EVENTUALLY(is_closed(silent[1]));       /* the holder was one more */
        assert_false(is_closed(silent[2]));
        assert_int_equal(send(last, "nonsense", 8, 0), 8);
        EVENTUALLY(is_closed(last));
        for (unsigned i = 0; i < LOOP_GUESTS_MAX; i++)
                close(silent[i]);
        close(last);
}

static void a_token_waits_for_its_holder(void **state) {
        struct scene s = scene();
        struct session *session;
        struct refusal r;

        (void)state;
        core.options.recover_seconds = 5;
        crash(s.h);
        core_start();
        assert_true(broker_is_recovering(core.broker));
        assert_int_equal(session_authenticate(core.broker, s.h->token, &s.h->peer, &session, &r), -1);
        assert_int_equal(r.reason, REFUSAL_RECOVERING);
        come_back(s.h);
        assert_int_equal(session_authenticate(core.broker, s.h->token, &s.h->peer, &session, &r), -1);
        assert_int_equal(r.reason, REFUSAL_RECOVERING);
        tell(s.h, &s.account);
        EVENTUALLY(is_back(s.h));
        EVENTUALLY(!broker_is_recovering(core.broker));
}

static void a_holder_that_does_not_come_back_is_ended(void **state) {
        struct scene s = scene();

        (void)state;
        map_now(&s, AT, PAGE);
        crash(s.h);
        core_start();
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 1);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                assert_int_equal(charged("alpha", i), 0);
        assert_false(child_is_alive(s.h));
        EVENTUALLY(sql("SELECT (SELECT count(*) FROM session) + (SELECT count(*) FROM mapping)") == 0);
        EVENTUALLY(!broker_is_recovering(core.broker));
}

static void a_holder_that_is_dead_is_not_waited_for(void **state) {
        struct scene s = scene();

        (void)state;
        core.options.recover_seconds = 600;
        map_now(&s, AT, PAGE);
        crash(s.h);
        kill(s.h->child, SIGKILL);
        waitpid(s.h->child, NULL, 0);
        s.h->child = -1;
        core_start();
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(what_both_have_goes_on),
                T(a_map_that_the_holder_did_is_done),
                T(a_map_that_the_holder_did_not_do_left_nothing),
                T(an_unmap_that_the_holder_did_is_done),
                T(an_unmap_that_the_holder_did_not_do_can_be_repeated),
                T(stopping_leaves_a_map_under_way_to_the_next_service),
                T(stopping_leaves_an_unmap_under_way_to_the_next_service),
                T(what_no_row_explains_is_undone),
                T(what_the_holder_has_in_another_way_is_undone),
                T(what_the_holder_lost_is_not_charged_any_more),
                T(what_the_holder_lost_leaves_no_row),
                T(a_domain_that_the_holder_lost_leaves_no_row),
                T(a_wrong_secret_is_nobodys_holder),
                T(a_holder_that_tells_without_end_is_ended),
                T(who_does_not_greet_holds_up_nobody),
                T(a_token_waits_for_its_holder),
                T(a_holder_that_does_not_come_back_is_ended),
                T(a_holder_that_is_dead_is_not_waited_for),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
