/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * The way of an operation, with a holder that answers what no real one would: the ledger knows first, the answer comes last, and
 * whatever is refused leaves range, charge and marks as they were.
 */
#include "test_core_harness.h"

#define AT 0x100000ULL

struct scene {
        struct holder *h;
        uint64_t domain, memory;
};

static struct scene scene(void) {
        struct scene s;

        core_start();
        s.h = holder_open("alpha");
        s.domain = make_domain(s.h);
        s.memory = make_memory(s.h, 64 * PAGE);
        return s;
}

static void assert_charged(uint64_t mappings, uint64_t bytes) {
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), mappings);
        assert_int_equal(charged("alpha", RESOURCE_LOCKED_BYTES), bytes);
}

#define OPEN_OPS "SELECT count(*) FROM op WHERE settled = 0"
#define MAPPINGS "SELECT count(*) FROM mapping"

/* ---- order ---- */

/* I6: what the holder hears is in the ledger already, and what the client hears has happened. */
static void the_ledger_knows_before_the_holder_and_the_client_last(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        EVENTUALLY(sql(OPEN_OPS) == 0);
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 0, &a);
        holder_expect(s.h, LINK_MAP);
        assert_int_equal(sql(OPEN_OPS), 1);
        assert_int_equal(sql(MAPPINGS), 1);
        assert_charged(1, PAGE);
        assert_false(is_answered(&a));
        holder_done(s.h);
        assert_done(&a);
        EVENTUALLY(sql(OPEN_OPS) == 0);
        assert_int_equal(sql(MAPPINGS), 1);
}

static void an_unmap_is_intended_before_and_gone_after(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        map(s.h, s.domain, s.memory, AT, 2 * PAGE);
        EVENTUALLY(sql(OPEN_OPS) == 0);
        ask_unmap(s.h, s.domain, AT, 2 * PAGE, 0, &a);
        holder_expect(s.h, LINK_UNMAP);
        assert_int_equal(sql(OPEN_OPS), 1);
        assert_int_equal(sql(MAPPINGS), 1);
        assert_charged(1, 2 * PAGE);            /* until the holder has unmapped */
        assert_false(is_answered(&a));
        holder_done(s.h);
        assert_done(&a);
        assert_int_equal(a.answer.unmapped_bytes, 2 * PAGE);
        assert_int_equal(a.answer.unmapped_mappings, 1);
        assert_charged(0, 0);
        EVENTUALLY(sql(OPEN_OPS) == 0 && sql(MAPPINGS) == 0);
}

/* The settle is queued before the range is free: or the next intent would meet the row that is still there. */
static void a_range_can_be_mapped_again_as_soon_as_it_is_free(void **state) {
        struct scene s = scene();

        (void)state;
        for (unsigned i = 0; i < 300; i++) {
                struct asked unmapped, mapped;

                map(s.h, s.domain, s.memory, AT, PAGE);
                ask_unmap(s.h, s.domain, AT, PAGE, 0, &unmapped);
                holder_expect(s.h, LINK_UNMAP);
                holder_done(s.h);
                while (charged("alpha", RESOURCE_MAPPINGS) != 0)
                        ;       /* no sleep: the moment after it is what this is about */
                ask_map(s.h, s.domain, s.memory, AT, PAGE, 0, &mapped);
                holder_expect(s.h, LINK_MAP);
                holder_done(s.h);
                assert_done(&mapped);
                assert_done(&unmapped);
                ask_unmap(s.h, s.domain, AT, PAGE, 0, &unmapped);
                holder_expect(s.h, LINK_UNMAP);
                holder_done(s.h);
                assert_done(&unmapped);
        }
}

/* ---- refusals ---- */

static void a_refused_map_gives_everything_back(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 0, &a);
        holder_expect(s.h, LINK_MAP);
        holder_refuse(s.h, REFUSAL_BACKEND_REFUSED, 0);
        assert_refused(&a, REFUSAL_BACKEND_REFUSED);
        assert_charged(0, 0);
        EVENTUALLY(sql(OPEN_OPS) == 0 && sql(MAPPINGS) == 0);
        map(s.h, s.domain, s.memory, AT, PAGE);
        assert_charged(1, PAGE);
}

static void a_refused_element_gives_back_those_before_it(void **state) {
        struct scene s = scene();
        const uint64_t iova[] = { AT, AT + PAGE, AT + PAGE }, length[] = { PAGE, PAGE, PAGE }, offset[] = { 0, 0, 0 };
        const uint32_t access = BACKEND_ACCESS_READ;
        const struct map_request request = { .domain = s.domain, .n = 3, .iova = iova, .length = length, .offset = offset,
                                             .memory = &s.memory, .n_memory = 1, .access = &access, .n_access = 1 };
        struct asked a = asked_new();

        (void)state;
        map_request_start(s.h->session, &request, &a.reply);
        assert_refused(&a, REFUSAL_OVERLAP);
        assert_int_equal(a.refusal.element, 2);
        assert_charged(0, 0);
        holder_expect_silence(s.h);
        map(s.h, s.domain, s.memory, AT, PAGE);
        map(s.h, s.domain, s.memory, AT + PAGE, PAGE);
}

static void the_last_byte_of_the_quota_can_be_used_and_no_more(void **state) {
        struct scene s;
        struct asked a;

        (void)state;
        core.tenants[0].quota[RESOURCE_LOCKED_BYTES] = 4 * PAGE;
        s = scene();
        ask_map(s.h, s.domain, s.memory, AT, 5 * PAGE, 0, &a);
        assert_refused(&a, REFUSAL_QUOTA_EXCEEDED);
        assert_charged(0, 0);
        map(s.h, s.domain, s.memory, AT, 4 * PAGE);
        ask_map(s.h, s.domain, s.memory, AT + 16 * PAGE, 5 * PAGE, 0, &a);      /* four that are there, and one */
        assert_refused(&a, REFUSAL_QUOTA_EXCEEDED);
        assert_int_equal(a.refusal.asked, PAGE);
        assert_charged(1, 4 * PAGE);
        holder_expect_silence(s.h);
}

static void a_range_is_taken_while_its_map_is_under_way(void **state) {
        struct scene s = scene();
        struct asked first, second;

        (void)state;
        ask_map(s.h, s.domain, s.memory, AT, 2 * PAGE, 0, &first);
        holder_expect(s.h, LINK_MAP);
        ask_map(s.h, s.domain, s.memory, AT + PAGE, PAGE, 0, &second);
        assert_refused(&second, REFUSAL_OVERLAP);
        ask_unmap(s.h, s.domain, AT, 2 * PAGE, 0, &second);
        assert_refused(&second, REFUSAL_IN_PROGRESS);
        holder_done(s.h);
        assert_done(&first);
}

static void a_refused_unmap_leaves_the_mapping_as_it_was(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        map(s.h, s.domain, s.memory, AT, PAGE);
        ask_unmap(s.h, s.domain, AT, PAGE, 0, &a);
        holder_expect(s.h, LINK_UNMAP);
        holder_refuse(s.h, REFUSAL_BACKEND_REFUSED, 0);
        assert_refused(&a, REFUSAL_BACKEND_REFUSED);
        assert_charged(1, PAGE);
        EVENTUALLY(sql(OPEN_OPS) == 0);
        assert_int_equal(sql(MAPPINGS), 1);
        ask_unmap(s.h, s.domain, AT, PAGE, 0, &a);
        holder_expect(s.h, LINK_UNMAP);
        holder_done(s.h);
        assert_done(&a);
}

/* What was marked before the hole, or before the mapping that would be split, is not marked afterwards. */
static void an_unmap_that_is_not_admitted_marks_nothing(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        map(s.h, s.domain, s.memory, AT, PAGE);
        map(s.h, s.domain, s.memory, AT + 2 * PAGE, 2 * PAGE);
        ask_unmap(s.h, s.domain, AT, 4 * PAGE, 0, &a);
        assert_refused(&a, REFUSAL_NOT_MAPPED);
        assert_int_equal(a.refusal.conflict_first, AT + PAGE);
        assert_int_equal(a.refusal.conflict_last, AT + 2 * PAGE - 1);
        map(s.h, s.domain, s.memory, AT + PAGE, PAGE);
        ask_unmap(s.h, s.domain, AT, 3 * PAGE, 0, &a);
        assert_refused(&a, REFUSAL_PARTIAL_UNMAP);
        assert_int_equal(a.refusal.nearest_below, AT + 2 * PAGE);
        assert_int_equal(a.refusal.nearest_above, AT + 4 * PAGE);
        holder_expect_silence(s.h);
        ask_unmap(s.h, s.domain, AT, 4 * PAGE, 0, &a);
        holder_expect(s.h, LINK_UNMAP);
        assert_int_equal(s.h->got.header.count, 3);
        holder_done(s.h);
        assert_done(&a);
        assert_charged(0, 0);
}

/* ---- memory ---- */

static void memory_in_use_stays_and_its_charge_goes_with_it(void **state) {
        struct scene s = scene();
        const struct unregister_request request = { .memory = s.memory };
        struct asked a = asked_new();

        (void)state;
        assert_int_equal(charged("alpha", RESOURCE_REGISTERED_BYTES), 64 * PAGE);
        assert_int_equal(charged("alpha", RESOURCE_MEMORY_OBJECTS), 1);
        map(s.h, s.domain, s.memory, AT, PAGE);
        memory_unregister_request(s.h->session, &request, &a.reply);
        assert_refused(&a, REFUSAL_IN_USE);
        ask_unmap(s.h, s.domain, AT, PAGE, 0, &a);
        holder_expect(s.h, LINK_UNMAP);
        holder_done(s.h);
        assert_done(&a);
        a = asked_new();
        memory_unregister_request(s.h->session, &request, &a.reply);
        holder_expect(s.h, LINK_UNREGISTER);
        assert_int_equal(charged("alpha", RESOURCE_REGISTERED_BYTES), 64 * PAGE);
        holder_done(s.h);
        assert_done(&a);
        assert_int_equal(charged("alpha", RESOURCE_REGISTERED_BYTES), 0);
        assert_int_equal(charged("alpha", RESOURCE_MEMORY_OBJECTS), 0);
        EVENTUALLY(sql("SELECT count(*) FROM memory") == 0);
}

static void a_refused_registration_costs_nothing(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        ask_register(s.h, PAGE, &a);
        holder_expect(s.h, LINK_REGISTER);
        assert_int_equal(charged("alpha", RESOURCE_REGISTERED_BYTES), 65 * PAGE);
        holder_refuse(s.h, REFUSAL_MEMORY_HOLES, 0);
        assert_refused(&a, REFUSAL_MEMORY_HOLES);
        assert_int_equal(charged("alpha", RESOURCE_REGISTERED_BYTES), 64 * PAGE);
        assert_int_equal(charged("alpha", RESOURCE_MEMORY_OBJECTS), 1);
        EVENTUALLY(sql("SELECT count(*) FROM memory") == 1);
}

/* ---- request keys ---- */

static void a_repeated_key_gets_the_first_answer_and_no_second_effect(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 7, &a);
        holder_expect(s.h, LINK_MAP);
        holder_done(s.h);
        assert_done(&a);
        ask_unmap(s.h, s.domain, AT, PAGE, 8, &a);
        holder_expect(s.h, LINK_UNMAP);
        holder_done(s.h);
        assert_done(&a);
        ask_unmap(s.h, s.domain, AT, PAGE, 8, &a);
        assert_done(&a);
        assert_int_equal(a.answer.unmapped_bytes, PAGE);
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 7, &a);
        assert_done(&a);
        holder_expect_silence(s.h);
        assert_charged(0, 0);
}

static void a_refusal_is_the_answer_of_its_key_too(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 7, &a);
        holder_expect(s.h, LINK_MAP);
        holder_refuse(s.h, REFUSAL_BACKEND_REFUSED, 0);
        assert_refused(&a, REFUSAL_BACKEND_REFUSED);
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 7, &a);
        assert_refused(&a, REFUSAL_BACKEND_REFUSED);
        holder_expect_silence(s.h);
}

static void a_key_serves_one_request_only(void **state) {
        struct scene s = scene();
        struct asked first, a;

        (void)state;
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 7, &first);
        holder_expect(s.h, LINK_MAP);
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 7, &a);
        assert_refused(&a, REFUSAL_IN_PROGRESS);
        ask_map(s.h, s.domain, s.memory, AT + PAGE, PAGE, 7, &a);
        assert_refused(&a, REFUSAL_KEY_REUSED);
        holder_done(s.h);
        assert_done(&first);
        ask_map(s.h, s.domain, s.memory, AT, 2 * PAGE, 7, &a);
        assert_refused(&a, REFUSAL_KEY_REUSED);
        holder_expect_silence(s.h);
}

/* ---- outcomes that are not known ---- */

/* I9: what could not be undone quarantines the domain; it stays charged, and explained by its rows. */
static void a_failed_undo_quarantines_and_stays_charged(void **state) {
        struct scene s = scene();
        struct domain_view view;
        struct refusal r;
        struct asked a;

        (void)state;
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 0, &a);
        holder_expect(s.h, LINK_MAP);
        holder_refuse(s.h, REFUSAL_BACKEND_REFUSED, LINK_RESULT_UNDO_FAILED);
        assert_refused(&a, REFUSAL_BACKEND_REFUSED);
        assert_charged(1, PAGE);
        assert_int_equal(domain_describe(core.broker, s.h->session, s.domain, &view, &r), 0);
        assert_string_equal(view.state, "quarantined");
        ask_map(s.h, s.domain, s.memory, AT + PAGE, PAGE, 0, &a);
        assert_refused(&a, REFUSAL_DOMAIN_QUARANTINED);
        holder_expect_silence(s.h);
        assert_int_equal(sql(MAPPINGS), 1);
}

static void a_holder_that_goes_takes_everything_with_it(void **state) {
        struct scene s = scene();
        struct asked a;

        (void)state;
        map(s.h, s.domain, s.memory, AT, PAGE);
        ask_map(s.h, s.domain, s.memory, AT + PAGE, PAGE, 0, &a);
        holder_expect(s.h, LINK_MAP);
        s.h->link = fd_close(s.h->link);
        assert_refused(&a, REFUSAL_HOLDER_LOST);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 0);
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                assert_int_equal(charged("alpha", i), 0);
        EVENTUALLY(sql("SELECT (SELECT count(*) FROM session) + (SELECT count(*) FROM op) + (SELECT count(*) FROM mapping)") == 0);
        assert_false(child_is_alive(s.h));
}

static void an_operation_that_takes_too_long_ends_its_session_alone(void **state) {
        struct scene s;
        struct holder *other;
        struct asked a;
        uint64_t domain;

        (void)state;
        core.options.operation_deadline_ms = 100;
        s = scene();
        other = holder_open("alpha");
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 0, &a);
        holder_expect(s.h, LINK_MAP);
        assert_refused(&a, REFUSAL_HOLDER_LOST);
        EVENTUALLY(charged("alpha", RESOURCE_SESSIONS) == 1);
        assert_false(child_is_alive(s.h));
        assert_true(child_is_alive(other));
        domain = make_domain(other);
        assert_true(domain > 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(the_ledger_knows_before_the_holder_and_the_client_last),
                T(an_unmap_is_intended_before_and_gone_after),
                T(a_range_can_be_mapped_again_as_soon_as_it_is_free),
                T(a_refused_map_gives_everything_back),
                T(a_refused_element_gives_back_those_before_it),
                T(the_last_byte_of_the_quota_can_be_used_and_no_more),
                T(a_range_is_taken_while_its_map_is_under_way),
                T(a_refused_unmap_leaves_the_mapping_as_it_was),
                T(an_unmap_that_is_not_admitted_marks_nothing),
                T(memory_in_use_stays_and_its_charge_goes_with_it),
                T(a_refused_registration_costs_nothing),
                T(a_repeated_key_gets_the_first_answer_and_no_second_effect),
                T(a_refusal_is_the_answer_of_its_key_too),
                T(a_key_serves_one_request_only),
                T(a_failed_undo_quarantines_and_stays_charged),
                T(a_holder_that_goes_takes_everything_with_it),
                T(an_operation_that_takes_too_long_ends_its_session_alone),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
