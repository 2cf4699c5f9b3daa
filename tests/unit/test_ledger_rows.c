/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of state.db: round trips, what goes with what, order of addresses, other boots. */
/* link: db util */
#include "test_ledger_fixture.h"

static struct ledger *l;
static struct mappings all;

static int open_one(void **state) {
        if (make_directory(state) < 0)
                return -1;
        l = open_ledger();
        return 0;
}

static int close_one(void **state) {
        l = ledger_close(l);
        return remove_directory(state);
}

#define COLLECT(type)                                                                                                  \
        struct found_##type {                                                                                          \
                size_t n;                                                                                              \
                struct ledger_##type at[4];                                                                            \
        };                                                                                                             \
        static int collect_##type(const struct ledger_##type *x, void *arg) {                                          \
                struct found_##type *f = arg;                                                                          \
                                                                                                                       \
                assert_true(f->n < ARRAY_SIZE(f->at));                                                                 \
                f->at[f->n++] = *x;                                                                                    \
                return 0;                                                                                              \
        }
COLLECT(session)
COLLECT(domain)
COLLECT(memory)
COLLECT(attachment)

static void fill(char *text, size_t size, char c) {
        memset(text, c, size - 1);
        text[size - 1] = 0;
}

/* Field by field: the padding between them is anything. */
static void same_session(const struct ledger_session *a, const struct ledger_session *b) {
        assert_int_equal(a->id, b->id);
        assert_string_equal(a->tenant, b->tenant);
        assert_string_equal(a->client_name, b->client_name);
        assert_int_equal(a->uid, b->uid);
        assert_int_equal(a->gid, b->gid);
        assert_int_equal(a->pid, b->pid);
        assert_int_equal(a->holder_pid, b->holder_pid);
        assert_int_equal(a->holder_uid, b->holder_uid);
        assert_int_equal(a->start_time, b->start_time);
        assert_int_equal(a->holder_start_time, b->holder_start_time);
        assert_memory_equal(a->token_hash, b->token_hash, sizeof a->token_hash);
        assert_memory_equal(a->secret_hash, b->secret_hash, sizeof a->secret_hash);
        assert_int_equal(a->state, b->state);
}

static void same_domain(const struct ledger_domain *a, const struct ledger_domain *b) {
        assert_int_equal(a->id, b->id);
        assert_int_equal(a->session, b->session);
        assert_string_equal(a->label, b->label);
        assert_int_equal(a->state, b->state);
}

static void same_memory(const struct ledger_memory *a, const struct ledger_memory *b) {
        assert_int_equal(a->id, b->id);
        assert_int_equal(a->session, b->session);
        assert_int_equal(a->size, b->size);
        assert_int_equal(a->page_size, b->page_size);
        assert_int_equal(a->dev, b->dev);
        assert_int_equal(a->ino, b->ino);
        assert_int_equal(a->sealed, b->sealed);
        assert_int_equal(a->writable, b->writable);
        assert_int_equal(a->state, b->state);
}

static void same_attachment(const struct ledger_attachment *a, const struct ledger_attachment *b) {
        assert_int_equal(a->id, b->id);
        assert_int_equal(a->domain, b->domain);
        assert_int_equal(a->group, b->group);
        assert_int_equal(a->backend, b->backend);
        assert_string_equal(a->device, b->device);
        assert_int_equal(a->state, b->state);
}

static void test_round_trip_at_limits(void **state) {
        struct ledger_session s = { .id = INT64_MAX, .uid = UINT32_MAX, .gid = UINT32_MAX, .pid = UINT32_MAX,
                                    .holder_pid = UINT32_MAX, .holder_uid = UINT32_MAX, .start_time = UINT64_MAX,
                                    .holder_start_time = UINT64_MAX, .state = LEDGER_QUARANTINED };
        struct ledger_domain d = { .id = INT64_MAX - 1, .session = s.id, .state = LEDGER_ENDING };
        struct ledger_memory m = { .id = INT64_MAX - 2,
                                   .session = s.id,
                                   .size = INT64_MAX,
                                   .page_size = UINT64_C(1) << 62,
                                   .dev = UINT64_MAX,
                                   .ino = UINT64_MAX,
                                   .sealed = true,
                                   .state = LEDGER_LIVE };
        struct ledger_attachment a = { .id = INT64_MAX - 3, .domain = d.id, .group = UINT32_MAX, .backend = UINT32_MAX,
                                       .state = LEDGER_INTENDED };
        struct found_session sessions = { 0 };
        struct found_domain domains = { 0 };
        struct found_memory memories = { 0 };
        struct found_attachment attachments = { 0 };

        (void)state;
        fill(s.tenant, sizeof s.tenant, 't');
        fill(s.client_name, sizeof s.client_name, 'c');
        memset(s.token_hash, 0xff, sizeof s.token_hash);
        memset(s.secret_hash, 0x80, sizeof s.secret_hash);
        fill(d.label, sizeof d.label, 'l');
        fill(a.device, sizeof a.device, 'd');
        OK(ledger_begin(l, &r));
        OK(ledger_session_put(l, &s, &r));
        OK(ledger_domain_put(l, &d, &r));
        OK(ledger_memory_put(l, &m, &r));
        OK(ledger_attachment_put(l, &a, &r));
        OK(ledger_commit(l, &r));
        ledger_close(l);
        l = open_ledger();
        OK(ledger_sessions(l, collect_session, &sessions, &r));
        OK(ledger_domains(l, s.id, collect_domain, &domains, &r));
        OK(ledger_memories(l, s.id, collect_memory, &memories, &r));
        OK(ledger_attachments(l, d.id, collect_attachment, &attachments, &r));
        assert_int_equal(sessions.n + domains.n + memories.n + attachments.n, 4);
        same_session(&sessions.at[0], &s);
        same_domain(&domains.at[0], &d);
        same_memory(&memories.at[0], &m);
        same_attachment(&attachments.at[0], &a);
}

/* An insert-or-replace that deletes first would take everything below along. */
static void test_put_again_keeps_what_is_below(void **state) {
        struct objects o = put_objects(l);
        struct ledger_session s = a_session(o.session);
        struct ledger_domain d = {
                .id = o.domain, .session = o.session, .label = "other", .state = LEDGER_QUARANTINED
        };
        struct ledger_memory m = a_memory(o.memory, o.session);
        struct found_domain domains = { 0 };

        (void)state;
        map_one(l, &o, 0x1000, 0x1000);
        OK(ledger_begin(l, &r));
        OK(ledger_session_put(l, &s, &r));
        OK(ledger_domain_put(l, &d, &r));
        OK(ledger_memory_put(l, &m, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        OK(ledger_domains(l, o.session, collect_domain, &domains, &r));
        same_domain(&domains.at[0], &d);
        assert_int_equal(raw_number("state.db", "SELECT mapped FROM memory"), 1);
}

static void test_cascade(void **state) {
        struct objects o = put_objects(l), other = put_objects(l);
        struct ledger_attachment a = {
                .id = ledger_next_id(l), .domain = o.domain, .device = "edu0", .state = LEDGER_LIVE
        };
        struct ledger_op op = an_op(l, &o, LEDGER_OP_DETACH);

        (void)state;
        map_one(l, &o, 0x1000, 0x1000);
        map_one(l, &other, 0x1000, 0x1000);
        OK(ledger_begin(l, &r));
        OK(ledger_attachment_put(l, &a, &r));
        OK(ledger_op_intend(l, &op, &r));
        REFUSED(ledger_memory_delete(l, o.memory, &r), REFUSAL_IN_USE, "still mapped");
        OK(ledger_domain_delete(l, o.domain, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM attachment"), 0);
        assert_int_equal(load_mappings(l, o.domain, &all), 0);
        assert_int_equal(load_mappings(l, other.domain, &all), 1);
        OK(ledger_begin(l, &r));
        OK(ledger_memory_delete(l, o.memory, &r));      /* nothing maps it any more */
        OK(ledger_session_delete(l, other.session, &r));        /* while its memory is mapped */
        OK(ledger_session_delete(l, o.session, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(raw_number("state.db",
                                    "SELECT (SELECT count(*) FROM session) + (SELECT count(*) FROM domain) + "
                                    "(SELECT count(*) FROM memory) + (SELECT count(*) FROM mapping) + "
                                    "(SELECT count(*) FROM op)"),
                         0);
}

static void test_constraints(void **state) {
        struct objects o = put_objects(l);
        struct ledger_session s = a_session(0);
        struct ledger_memory m = a_memory(77, o.session);
        struct ledger_domain d = { .id = 78, .session = 12345, .state = LEDGER_LIVE };

        (void)state;
        OK(ledger_begin(l, &r));
        REFUSED(ledger_session_put(l, &s, &r), REFUSAL_LEDGER_UNAVAILABLE, "CHECK constraint failed: id > 0");
        REFUSED(ledger_domain_put(l, &d, &r), REFUSAL_LEDGER_UNAVAILABLE, "FOREIGN KEY");
        m.page_size = 4097;
        REFUSED(ledger_memory_put(l, &m, &r), REFUSAL_LEDGER_UNAVAILABLE, "memory_page_size_power_of_two");
        m = a_memory(77, o.session);
        m.size = 0;
        REFUSED(ledger_memory_put(l, &m, &r), REFUSAL_LEDGER_UNAVAILABLE, "memory_live_has_size");
        m.size = UINT64_C(1) << 63;
        REFUSED(ledger_memory_put(l, &m, &r), REFUSAL_LEDGER_UNAVAILABLE, "memory_size_below_2_63");
        m.size = 0;
        m.state = LEDGER_INTENDED;
        OK(ledger_memory_put(l, &m, &r));
        OK(ledger_commit(l, &r));
}

static void test_addresses_keep_their_order(void **state) {
        static const uint64_t iovas[] = { 0, 1, (UINT64_C(1) << 63) - 1, UINT64_C(1) << 63, (UINT64_C(1) << 63) + 1,
                                          UINT64_MAX - 1, UINT64_MAX };
        struct objects o = put_objects(l);

        (void)state;
        for (size_t i = ARRAY_SIZE(iovas); i-- > 0;)
                map_one(l, &o, iovas[i], 1);
        assert_int_equal(load_mappings(l, o.domain, &all), ARRAY_SIZE(iovas));
        for (size_t i = 0; i < ARRAY_SIZE(iovas); i++) {
                assert_int_equal(all.at[i].iova, iovas[i]);
                assert_int_equal(all.at[i].length, 1);
        }
        assert_int_equal(count_violations(l), 0);
}

static void test_longest_mapping(void **state) {
        struct objects o = put_objects(l);

        (void)state;
        OK(ledger_begin(l, &r));
        OK(ledger_commit(l, &r));
        map_one(l, &o, 1, UINT64_MAX);
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        assert_int_equal(all.at[0].length, UINT64_MAX);
}

static int stop(const struct ledger_mapping *m, void *arg) {
        (void)arg;
        return m->iova == 0x2000 ? 17 : 0;
}

static int walk_again(const struct ledger_mapping *m, void *arg) {
        return ledger_mappings(l, m->domain, stop, arg, &r);
}

static void test_walks(void **state) {
        struct objects o = put_objects(l);

        (void)state;
        for (uint64_t iova = 0x1000; iova < 0x5000; iova += 0x1000)
                map_one(l, &o, iova, 0x1000);
        assert_int_equal(ledger_mappings(l, o.domain, stop, NULL, &r), 17);
        assert_int_equal(ledger_mappings(l, o.domain, stop, NULL, &r), 17);
        REFUSED(ledger_mappings(l, o.domain, walk_again, NULL, &r), REFUSAL_LEDGER_UNAVAILABLE, "inside the same walk");
        assert_int_equal(load_mappings(l, o.domain, &all), 4);
}

static void test_other_boot(void **state) {
        struct objects o = put_objects(l);

        (void)state;
        map_one(l, &o, 0x1000, 0x1000);
        assert_false(ledger_state_is_from_other_boot(l));
        ledger_close(l);
        l = open_ledger();
        assert_false(ledger_state_is_from_other_boot(l));
        ledger_close(l);
        raw("state.db", "UPDATE boot SET boot_id = 'c0ffee'");
        l = open_ledger();
        assert_true(ledger_state_is_from_other_boot(l));
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        OK(ledger_state_reset(l, &r));
        assert_false(ledger_state_is_from_other_boot(l));
        assert_int_equal(load_mappings(l, o.domain, &all), 0);
        ledger_close(l);
        l = open_ledger();
        assert_false(ledger_state_is_from_other_boot(l));
        ledger_close(l);
        raw("state.db", "DELETE FROM boot");
        l = open_ledger();
        assert_true(ledger_state_is_from_other_boot(l));
}

static void test_forget_state(void **state) {
        struct ledger_options options = { .directory = dir, .forget_state = true };
        struct objects o = put_objects(l);
        uint64_t id;

        (void)state;
        map_one(l, &o, 0x1000, 0x1000);
        ledger_close(l);
        OK(ledger_open(&options, &l, &r));
        assert_int_equal(load_mappings(l, o.domain, &all), 0);
        assert_false(ledger_state_is_from_other_boot(l));
        id = ledger_next_id(l);
        assert_true(id > o.memory);             /* ids are not forgotten */
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_one, close_one)
        const struct CMUnitTest tests[] = {
                TEST(test_round_trip_at_limits),
                TEST(test_put_again_keeps_what_is_below),
                TEST(test_cascade),
                TEST(test_constraints),
                TEST(test_addresses_keep_their_order),
                TEST(test_longest_mapping),
                TEST(test_walks),
                TEST(test_other_boot),
                TEST(test_forget_state),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
