/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * An unmap of more mappings than one message holds is one operation all the same (I6, I9): it is told in parts and answered
 * once; when the service dies between two parts the next one finishes it; when the holder refuses one in the middle, which
 * cannot be taken back, the domain is quarantined and says so.
 */
#include "test_core_crash.h"

#define AT 0x100000ULL
#define MANY (LINK_BATCH_MAX + 5ULL)

struct scene {
        struct holder *h;
        uint64_t domain, memory;
        struct link_map_entry there[MANY];
};

static void map_batch(struct scene *s, uint64_t from, uint64_t n) {
        static uint64_t iova[LINK_BATCH_MAX], length[LINK_BATCH_MAX], offset[LINK_BATCH_MAX];
        const uint32_t access = BACKEND_ACCESS_READ;
        const struct map_request request = { .domain = s->domain, .n = n, .iova = iova, .length = length, .offset = offset,
                                             .memory = &s->memory, .n_memory = 1, .access = &access, .n_access = 1 };
        struct asked a = asked_new();

        for (uint64_t i = 0; i < n; i++) {
                iova[i] = AT + 2 * (from + i) * PAGE;
                length[i] = PAGE;
                s->there[from + i] = (struct link_map_entry){ .iova = iova[i], .length = PAGE, .memory = s->memory,
                                                              .access = access };
        }
        map_request_start(s->h->session, &request, &a.reply);
        holder_expect(s->h, LINK_MAP);
        holder_done(s->h);
        assert_done(&a);
}

static void begin(struct scene *s) {
        core_start();
        memory_is_unsealed = true;      /* each mapping counts */
        s->h = holder_open("alpha");
        s->domain = make_domain(s->h);
        s->memory = make_memory(s->h, 64 * PAGE);
        map_batch(s, 0, LINK_BATCH_MAX);
        map_batch(s, LINK_BATCH_MAX, MANY - LINK_BATCH_MAX);
        EVENTUALLY(sql("SELECT count(*) FROM op WHERE settled = 0") == 0);
}

static void expect_part(struct scene *s, size_t first, size_t n) {
        const struct link_unmap_entry *e = (const struct link_unmap_entry *)s->h->got.payload;

        holder_expect(s->h, LINK_UNMAP);
        assert_int_equal(s->h->got.header.count, n);
        for (size_t i = 0; i < n; i++)
                assert_int_equal(e[i].iova, s->there[first + i].iova);
}

static void assert_there(struct scene *s, uint64_t n) {
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), n);
        assert_int_equal(charged("alpha", RESOURCE_LOCKED_BYTES), n * PAGE);
        EVENTUALLY(sql("SELECT count(*) FROM mapping") == (int64_t)n);
        (void)s;
}

static void restart(struct scene *s, size_t first) {
        crash(s->h);
        core_start();
        come_back(s->h);
        dump_memory(s->h, s->memory, 64 * PAGE);
        dump_domain(s->h, s->domain, s->there + first, MANY - first);
        holder_done(s->h);
}

/* What the next service knows of it, and that a repeated key has the answer of all of it. */
static void assert_finished(struct scene *s) {
        struct asked a;

        EVENTUALLY(is_back(s->h));
        assert_there(s, 0);
        assert_int_equal(sql("SELECT count(*) FROM op WHERE settled = 0"), 0);
        ask_unmap(s->h, s->domain, 0, 0, 9, &a);
        assert_done(&a);
        assert_int_equal(a.answer.unmapped_mappings, MANY);
        assert_int_equal(a.answer.unmapped_bytes, MANY * PAGE);
        holder_expect_silence(s->h);
}

static void it_is_told_in_parts_and_answered_once(void **state) {
        static struct scene s;
        struct asked a;

        (void)state;
        begin(&s);
        ask_unmap(s.h, s.domain, 0, 0, 9, &a);
        expect_part(&s, 0, LINK_BATCH_MAX);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), MANY);
        holder_done(s.h);
        expect_part(&s, LINK_BATCH_MAX, MANY - LINK_BATCH_MAX);
        assert_false(is_answered(&a));
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), MANY - LINK_BATCH_MAX);
        holder_done(s.h);
        assert_done(&a);
        assert_int_equal(a.answer.unmapped_mappings, MANY);
        assert_there(&s, 0);
        EVENTUALLY(sql("SELECT count(*) FROM op WHERE settled = 0") == 0);
        ask_unmap(s.h, s.domain, 0, 0, 9, &a);  /* repeated */
        assert_done(&a);
        assert_int_equal(a.answer.unmapped_mappings, MANY);
}

/* The service dies when the holder has done the first part. */
static void what_was_begun_is_finished_by_the_next_service(void **state) {
        static struct scene s;
        struct asked a;

        (void)state;
        begin(&s);
        ask_unmap(s.h, s.domain, 0, 0, 9, &a);
        expect_part(&s, 0, LINK_BATCH_MAX);
        holder_done(s.h);
        expect_part(&s, LINK_BATCH_MAX, MANY - LINK_BATCH_MAX);
        restart(&s, LINK_BATCH_MAX);
        expect_part(&s, LINK_BATCH_MAX, MANY - LINK_BATCH_MAX);
        assert_finished(&s);
}

/* The service dies before the holder has done anything. */
static void so_is_what_was_only_intended(void **state) {
        static struct scene s;
        struct asked a;

        (void)state;
        begin(&s);
        ask_unmap(s.h, s.domain, 0, 0, 9, &a);
        expect_part(&s, 0, LINK_BATCH_MAX);
        restart(&s, 0);
        expect_part(&s, 0, LINK_BATCH_MAX);
        expect_part(&s, LINK_BATCH_MAX, MANY - LINK_BATCH_MAX);
        assert_finished(&s);
}

/* Nothing of it was done yet: everything is as it was. */
static void a_first_part_that_is_refused_leaves_everything(void **state) {
        static struct scene s;
        struct asked a;

        (void)state;
        begin(&s);
        ask_unmap(s.h, s.domain, 0, 0, 9, &a);
        expect_part(&s, 0, LINK_BATCH_MAX);
        holder_refuse(s.h, REFUSAL_BACKEND_REFUSED, 0);
        assert_refused(&a, REFUSAL_BACKEND_REFUSED);
        assert_there(&s, MANY);
        EVENTUALLY(sql("SELECT count(*) FROM op WHERE settled = 0") == 0);
        ask_unmap(s.h, s.domain, 0, 0, 10, &a);
        expect_part(&s, 0, LINK_BATCH_MAX);     /* and can be asked for again */
        holder_done(s.h);
        expect_part(&s, LINK_BATCH_MAX, MANY - LINK_BATCH_MAX);
        holder_done(s.h);
        assert_done(&a);
        assert_there(&s, 0);
}

/* Half is gone, half may be there: what stays is charged, and nothing new is admitted. */
static void a_later_part_that_is_refused_quarantines(void **state) {
        static struct scene s;
        struct asked a;

        (void)state;
        begin(&s);
        ask_unmap(s.h, s.domain, 0, 0, 9, &a);
        expect_part(&s, 0, LINK_BATCH_MAX);
        holder_done(s.h);
        expect_part(&s, LINK_BATCH_MAX, MANY - LINK_BATCH_MAX);
        holder_refuse(s.h, REFUSAL_BACKEND_REFUSED, 0);
        assert_refused(&a, REFUSAL_DOMAIN_QUARANTINED);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), MANY - LINK_BATCH_MAX);
        assert_int_equal(charged("alpha", RESOURCE_LOCKED_BYTES), (MANY - LINK_BATCH_MAX) * PAGE);
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 0, &a);
        assert_refused(&a, REFUSAL_DOMAIN_QUARANTINED);
        ask_unmap(s.h, s.domain, 0, 0, 9, &a);  /* repeated: the same answer */
        assert_refused(&a, REFUSAL_DOMAIN_QUARANTINED);
        holder_expect_silence(s.h);
}

/* The same of a reset of the windows, which ends with an operation of another kind. */
static void a_reset_that_is_refused_half_way_quarantines(void **state) {
        static struct scene s;
        struct asked a = asked_new();

        (void)state;
        begin(&s);
        windows_reset_request(s.h->session, &(struct reset_windows_request){ .domain = s.domain }, &a.reply);
        expect_part(&s, 0, LINK_BATCH_MAX);
        holder_done(s.h);
        expect_part(&s, LINK_BATCH_MAX, MANY - LINK_BATCH_MAX);
        holder_refuse(s.h, REFUSAL_BACKEND_REFUSED, 0);
        assert_refused(&a, REFUSAL_DOMAIN_QUARANTINED);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), MANY - LINK_BATCH_MAX);
        ask_map(s.h, s.domain, s.memory, AT, PAGE, 0, &a);
        assert_refused(&a, REFUSAL_DOMAIN_QUARANTINED);
}

static void a_reset_whose_first_part_is_refused_leaves_everything(void **state) {
        static struct scene s;
        struct asked a = asked_new();

        (void)state;
        begin(&s);
        windows_reset_request(s.h->session, &(struct reset_windows_request){ .domain = s.domain }, &a.reply);
        expect_part(&s, 0, LINK_BATCH_MAX);
        holder_refuse(s.h, REFUSAL_BACKEND_REFUSED, 0);
        assert_refused(&a, REFUSAL_BACKEND_REFUSED);
        assert_there(&s, MANY);
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(it_is_told_in_parts_and_answered_once),
                T(what_was_begun_is_finished_by_the_next_service),
                T(so_is_what_was_only_intended),
                T(a_first_part_that_is_refused_leaves_everything),
                T(a_later_part_that_is_refused_quarantines),
                T(a_reset_that_is_refused_half_way_quarantines),
                T(a_reset_whose_first_part_is_refused_leaves_everything),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
