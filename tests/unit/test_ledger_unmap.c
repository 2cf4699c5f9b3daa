/* SPDX-License-Identifier: Apache-2.0 */
/* Unmaps that cut mappings, that happen later, or that belong to a window: what they record, and what is left when they
 * have happened or have not. */
/* link: db util */
#include "test_ledger_fixture.h"

#define MIB UINT64_C(0x100000)

static struct ledger *l;
static struct objects o;
static struct mappings all;

static int open_one(void **state) {
        if (make_directory(state) < 0)
                return -1;
        l = open_ledger();
        o = put_objects(l);
        return 0;
}

static int close_one(void **state) {
        l = ledger_close(l);
        return remove_directory(state);
}

static void reopen(void) {
        ledger_close(l);
        l = open_ledger();
}

static void settle(const struct ledger_op *op, bool applied) {
        OK(ledger_begin(l, &r));
        OK(ledger_op_settle(l, op, applied, &r));
        OK(ledger_commit(l, &r));
}

/* A chunked mapping, at iova, that shows its memory from there on. */
static struct ledger_mapping chunked(uint64_t iova, uint64_t length) {
        struct ledger_mapping m = a_mapping(&o, iova, length);

        m.offset = iova;
        m.chunk_shift = 20;
        m.access = 1;
        return m;
}

static void map(const struct ledger_mapping *row) {
        struct ledger_op op = an_op(l, &o, LEDGER_OP_MAP);

        OK(ledger_begin(l, &r));
        OK(ledger_map_intend(l, &op, row, 1, &r));
        OK(ledger_op_settle(l, &op, true, &r));
        OK(ledger_commit(l, &r));
}

static struct ledger_op intend(enum ledger_op_kind kind, struct ledger_range range, const struct ledger_mapping *rests,
                               size_t n_rests) {
        struct ledger_op op = an_op(l, &o, kind);

        OK(ledger_begin(l, &r));
        OK(ledger_unmap_intend(l, &op, &range, 1, rests, n_rests, &r));
        OK(ledger_commit(l, &r));
        return op;
}

static void expect_row(size_t at, const struct ledger_mapping *m, uint64_t op) {
        assert_true(at < all.n);
        assert_int_equal(all.at[at].iova, m->iova);
        assert_int_equal(all.at[at].length, m->length);
        assert_int_equal(all.at[at].memory, m->memory);
        assert_int_equal(all.at[at].offset, m->offset);
        assert_int_equal(all.at[at].access, m->access);
        assert_int_equal(all.at[at].chunk_shift, m->chunk_shift);
        assert_int_equal(all.at[at].page_shift, m->page_shift);
        assert_int_equal(all.at[at].op, op);
}

static int64_t mapped(void) {
        return raw_number("state.db", "SELECT sum(mapped) FROM memory");
}

struct ops {
        size_t n, n_ranges, n_rests;
        struct ledger_op at[4];
        struct ledger_range ranges[4];
        struct ledger_mapping rests[4];
};

static int collect_op(const struct ledger_op *op, const struct ledger_op_parts *parts, void *arg) {
        struct ops *ops = arg;

        assert_true(ops->n < ARRAY_SIZE(ops->at) && ops->n_ranges + parts->n_ranges <= ARRAY_SIZE(ops->ranges) &&
                    ops->n_rests + parts->n_rests <= ARRAY_SIZE(ops->rests));
        ops->at[ops->n++] = *op;
        for (size_t i = 0; i < parts->n_ranges; i++)
                ops->ranges[ops->n_ranges++] = parts->ranges[i];
        for (size_t i = 0; i < parts->n_rests; i++)
                ops->rests[ops->n_rests++] = parts->rests[i];
        return 0;
}

static struct ops load_ops(void) {
        struct ops ops = { 0 };

        OK(ledger_ops(l, o.session, collect_op, &ops, &r));
        return ops;
}

/* Map 8 MiB, unmap 3 MiB at 5 MiB; and a second cut of the same mapping at its beginning. */
static void test_rests_come_in_the_place_of_what_is_cut(void **state) {
        struct ledger_mapping whole = chunked(0, 8 * MIB), beside = chunked(8 * MIB, MIB);
        const struct ledger_mapping rest = chunked(MIB, 4 * MIB);
        struct ledger_op op;

        (void)state;
        map(&whole);
        map(&beside);
        op = intend(LEDGER_OP_UNMAP, (struct ledger_range){ 0, 8 * MIB }, &rest, 1);
        reopen();
        assert_int_equal(load_mappings(l, o.domain, &all), 2);
        assert_int_equal(all.at[0].length, 8 * MIB);    /* until it has happened */
        assert_int_equal(mapped(), 2);
        assert_int_equal(count_violations(l), 0);
        settle(&op, true);
        assert_int_equal(load_mappings(l, o.domain, &all), 2);
        expect_row(0, &rest, op.id);
        expect_row(1, &beside, all.at[1].op);
        assert_int_equal(mapped(), 2);
        assert_int_equal(load_ops().n, 0);
        assert_int_equal(count_violations(l), 0);
}

/* Ranges and rests in no order; one of the rests exposes pages, to see that this is kept. */
static void test_several_rests(void **state) {
        struct ledger_mapping whole = chunked(0, 8 * MIB), beside = chunked(16 * MIB, 2 * MIB);
        struct ledger_mapping rests[] = { chunked(7 * MIB, MIB), chunked(0, MIB), chunked(17 * MIB, MIB),
                                          chunked(3 * MIB, MIB) };
        const struct ledger_range ranges[] = { { 16 * MIB, 2 * MIB }, { 0, 8 * MIB } };
        struct ledger_op op = an_op(l, &o, LEDGER_OP_UNMAP);

        (void)state;
        rests[1].chunk_shift = 0;
        rests[1].page_shift = 16;
        map(&whole);
        map(&beside);
        OK(ledger_begin(l, &r));
        OK(ledger_unmap_intend(l, &op, ranges, 2, rests, 4, &r));
        OK(ledger_commit(l, &r));
        settle(&op, true);
        assert_int_equal(load_mappings(l, o.domain, &all), 4);
        expect_row(0, &rests[1], op.id);
        expect_row(1, &rests[3], op.id);
        expect_row(2, &rests[0], op.id);
        expect_row(3, &rests[2], op.id);
        assert_int_equal(mapped(), 4);
        assert_int_equal(count_violations(l), 0);
}

static void test_not_applied_leaves_the_mapping_whole(void **state) {
        struct ledger_mapping whole = chunked(0, 8 * MIB);
        const struct ledger_mapping rest = chunked(0, 5 * MIB);
        struct ledger_op op;

        (void)state;
        map(&whole);
        op = intend(LEDGER_OP_UNMAP, (struct ledger_range){ 0, 8 * MIB }, &rest, 1);
        settle(&op, false);
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        expect_row(0, &whole, all.at[0].op);
        assert_int_equal(mapped(), 1);
        assert_int_equal(load_ops().n, 0);
        assert_int_equal(count_violations(l), 0);
        settle(&op, true);              /* settled already: nothing happens any more */
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        assert_int_equal(all.at[0].length, 8 * MIB);
}

/* Every kind that takes mappings away, both ways; and one that does not, though it has recorded ranges. */
static void test_kinds(void **state) {
        static const enum ledger_op_kind kinds[] = { LEDGER_OP_UNMAP, LEDGER_OP_UNMAP_LAZY, LEDGER_OP_REMOVE_WINDOW,
                                                     LEDGER_OP_RESET_WINDOWS };
        const struct ledger_range range = { 0x1000, 0x1000 };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
                struct ledger_op op;

                map_one(l, &o, range.iova, range.length);
                op = intend(kinds[i], range, NULL, 0);
                reopen();
                assert_int_equal(load_ops().n_ranges, 1);
                assert_int_equal(load_ops().ranges[0].iova, range.iova);
                assert_int_equal(load_ops().ranges[0].length, range.length);
                assert_int_equal(count_violations(l), 0);
                settle(&op, false);
                assert_int_equal(load_mappings(l, o.domain, &all), 1);
                op = intend(kinds[i], range, NULL, 0);
                settle(&op, true);
                assert_int_equal(load_mappings(l, o.domain, &all), 0);
                assert_int_equal(mapped(), 0);
        }
        map_one(l, &o, range.iova, range.length);
        settle(&(struct ledger_op){ .id = intend(LEDGER_OP_CREATE_WINDOW, range, NULL, 0).id, .session = o.session,
                                    .object = o.domain, .kind = LEDGER_OP_CREATE_WINDOW }, true);
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
}

/* A lazy domain's client goes on with what is left before the first cut has happened. */
static void test_unmap_of_a_rest_that_is_to_come(void **state) {
        struct ledger_mapping whole = chunked(0, 8 * MIB);
        const struct ledger_mapping first = chunked(0, 5 * MIB), second = chunked(MIB, 4 * MIB);
        struct ledger_op a, b;

        (void)state;
        map(&whole);
        a = intend(LEDGER_OP_UNMAP_LAZY, (struct ledger_range){ 0, 8 * MIB }, &first, 1);
        b = intend(LEDGER_OP_UNMAP_LAZY, (struct ledger_range){ 0, 5 * MIB }, &second, 1);
        reopen();
        assert_int_equal(count_violations(l), 0);
        assert_int_equal(load_ops().n, 2);
        OK(ledger_begin(l, &r));
        OK(ledger_op_settle(l, &a, true, &r));
        OK(ledger_op_settle(l, &b, true, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        expect_row(0, &second, b.id);
        assert_int_equal(mapped(), 1);
        assert_int_equal(count_violations(l), 0);
}

/* What a later one leaves cannot be unmapped by an earlier one, nor what it leaves in another domain or size. */
static void test_unmap_of_what_will_not_be_there(void **state) {
        struct objects other = put_objects(l);
        struct ledger_mapping whole = chunked(0, 8 * MIB);
        const struct ledger_mapping rest = chunked(0, 5 * MIB);
        struct ledger_op early, elsewhere = an_op(l, &other, LEDGER_OP_UNMAP_LAZY);

        (void)state;
        map(&whole);
        early = intend(LEDGER_OP_UNMAP_LAZY, (struct ledger_range){ 0, 5 * MIB }, NULL, 0);
        intend(LEDGER_OP_UNMAP_LAZY, (struct ledger_range){ 0, 8 * MIB }, &rest, 1);
        assert_int_equal(count_violations(l), 1);
        settle(&early, false);
        assert_int_equal(count_violations(l), 0);
        intend(LEDGER_OP_UNMAP_LAZY, (struct ledger_range){ 0, 4 * MIB }, NULL, 0);
        intend(LEDGER_OP_UNMAP_LAZY, (struct ledger_range){ 0, 6 * MIB }, NULL, 0);
        assert_int_equal(count_violations(l), 2);
        elsewhere.id = ledger_next_id(l);
        OK(ledger_begin(l, &r));
        OK(ledger_unmap_intend(l, &elsewhere, &(struct ledger_range){ 0, 5 * MIB }, 1, NULL, 0, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(count_violations(l), 3);
}

static void test_parts_round_trip(void **state) {
        struct ledger_mapping whole = chunked(0, 8 * MIB), rest = chunked(5 * MIB, 3 * MIB), loaded;
        const struct ledger_effect effect = {
                .gone = { 1, 2, 3, 4, 5, 6 },
                .made = { UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 2, UINT64_MAX - 3, UINT32_MAX, UINT32_MAX - 1 },
        };
        struct ledger_op op = an_op(l, &o, LEDGER_OP_UNMAP_LAZY);
        struct ops ops;

        (void)state;
        map(&whole);
        op.has_effect = op.has_key = true;
        op.effect = effect;
        op.answer_size = 3;
        memcpy(op.answer, "yes", 3);
        OK(ledger_begin(l, &r));
        OK(ledger_unmap_intend(l, &op, &(struct ledger_range){ 0, 8 * MIB }, 1, &rest, 1, &r));
        OK(ledger_commit(l, &r));
        reopen();
        ops = load_ops();
        assert_int_equal(ops.n + ops.n_ranges + ops.n_rests, 3);
        assert_true(ops.at[0].has_effect);
        assert_memory_equal(&ops.at[0].effect, &effect, sizeof effect);
        assert_int_equal(ops.at[0].kind, LEDGER_OP_UNMAP_LAZY);
        assert_false(ops.at[0].settled);
        assert_int_equal(ops.at[0].answer_size, 3);     /* acknowledged before it has happened */
        assert_memory_equal(ops.at[0].answer, "yes", 3);
        loaded = ops.rests[0];
        assert_int_equal(loaded.domain, o.domain);
        assert_int_equal(loaded.op, op.id);
        assert_int_equal(loaded.iova, rest.iova);
        assert_int_equal(loaded.length, rest.length);
        assert_int_equal(loaded.memory, rest.memory);
        assert_int_equal(loaded.offset, rest.offset);
        assert_int_equal(loaded.access, rest.access);
        assert_int_equal(loaded.chunk_shift, rest.chunk_shift);
        assert_int_equal(loaded.page_shift, rest.page_shift);
        settle(&op, true);
        ops = load_ops();
        assert_int_equal(ops.n, 1);
        assert_true(ops.at[0].settled);
        assert_false(ops.at[0].has_effect);
        assert_int_equal(ops.n_ranges + ops.n_rests, 0);
        assert_int_equal(ops.at[0].answer_size, 3);
}

static void test_effect_of_map_and_plain_op(void **state) {
        struct ledger_op map_op = an_op(l, &o, LEDGER_OP_MAP), plain = an_op(l, &o, LEDGER_OP_CREATE_WINDOW);
        struct ledger_mapping row = chunked(0, MIB);
        struct ops ops;

        (void)state;
        map_op.has_effect = true;
        map_op.effect.made.length = 77;
        plain.effect.made.length = 78;          /* and has_effect is false */
        OK(ledger_begin(l, &r));
        OK(ledger_map_intend(l, &map_op, &row, 1, &r));
        OK(ledger_op_intend(l, &plain, &r));
        plain.id = ledger_next_id(l);
        plain.has_effect = true;
        OK(ledger_op_intend(l, &plain, &r));
        OK(ledger_commit(l, &r));
        reopen();
        ops = load_ops();
        assert_int_equal(ops.n, 3);
        assert_true(ops.at[0].has_effect && !ops.at[1].has_effect && ops.at[2].has_effect);
        assert_int_equal(ops.at[0].effect.made.length, 77);
        assert_int_equal(ops.at[2].effect.made.length, 78);
        assert_int_equal(ops.n_ranges, 0);              /* a map's are not anybody's to load */
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        expect_row(0, &row, map_op.id);
}

static void refused(struct ledger_mapping *rests, size_t n, enum refusal_reason reason, const char *words) {
        static const struct ledger_range ranges[] = { { 4 * MIB, MIB }, { 0, MIB }, { MIB, MIB } };
        struct ledger_op op = an_op(l, &o, LEDGER_OP_UNMAP);

        OK(ledger_begin(l, &r));
        REFUSED(ledger_unmap_intend(l, &op, ranges, ARRAY_SIZE(ranges), rests, n, &r), reason, words);
        OK(ledger_commit(l, &r));
        assert_int_equal(load_ops().n, 0);
}

#define REFUSED_REST(reason, words, ...)                                                                               \
        do {                                                                                                           \
                struct ledger_mapping rest = chunked(0, MIB);                                                          \
                                                                                                                       \
                __VA_ARGS__;                                                                                           \
                refused(&rest, 1, reason, words);                                                                      \
        } while (0)

static void test_rest_outside_what_goes(void **state) {
        (void)state;
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "none of the mappings", rest.length = 0);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "none of the mappings", rest.length = MIB + 1);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "none of the mappings", rest.iova = 3 * MIB);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "none of the mappings", rest.iova = 4 * MIB - 1, rest.length = 1);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "none of the mappings", rest.iova = 5 * MIB, rest.length = 1);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "none of the mappings", rest.iova = 4 * MIB + 1);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "none of the mappings", rest.iova = 0, rest.length = UINT64_MAX);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "none of the mappings", rest.iova = UINT64_MAX, rest.length = 2);
}

static void test_rests_that_overlap(void **state) {
        struct ledger_mapping rests[] = { chunked(MIB / 2, MIB / 2), chunked(0, MIB / 2 + 1) };

        (void)state;
        refused(rests, 2, REFUSAL_OVERLAP, "0x0-0x80000");
        assert_int_equal(r.conflict_last, MIB / 2);
}

/* Each of them the table or a count would refuse when the unmap has happened. */
static void test_rest_that_is_no_mapping(void **state) {
        struct objects other = put_objects(l);

        (void)state;
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "is no mapping", rest.access = 0);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "is no mapping", rest.access = 4);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "is no mapping", rest.offset = UINT64_C(1) << 63);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "is no mapping", rest.chunk_shift = 11);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "is no mapping", rest.chunk_shift = 64);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "is no mapping", rest.chunk_shift = 0, rest.page_shift = 11);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "is no mapping", rest.chunk_shift = 0, rest.page_shift = 64);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "is no mapping", rest.page_shift = 12);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "has no session with memory", rest.memory = other.memory);
        REFUSED_REST(REFUSAL_LEDGER_UNAVAILABLE, "has no session with memory", rest.memory = 99999);
}

static void test_rests_at_their_limits(void **state) {
        struct ledger_mapping whole = a_mapping(&o, 0, UINT64_MAX),
                              rests[] = { a_mapping(&o, 0, 1), a_mapping(&o, 1, 1), a_mapping(&o, UINT64_MAX - 1, 1) };
        struct ledger_op op;

        (void)state;
        map(&whole);
        rests[0].offset = INT64_MAX;
        rests[0].chunk_shift = 63;
        rests[1].page_shift = 63;
        rests[2].access = 2;
        rests[2].chunk_shift = 12;
        op = intend(LEDGER_OP_UNMAP, (struct ledger_range){ 0, UINT64_MAX }, rests, 3);
        settle(&op, true);
        assert_int_equal(load_mappings(l, o.domain, &all), 3);
        for (size_t i = 0; i < 3; i++)
                expect_row(i, &rests[i], op.id);
}

/* What a mapping that is made may be: to the byte, and one of chunked and exposed. */
static void test_shifts_of_a_map(void **state) {
        static const struct {
                uint32_t chunk_shift, page_shift;
                const char *refused;
        } cases[] = {
                { 0, 0, NULL },   { 12, 0, NULL },  { 63, 0, NULL },  { 0, 12, NULL },  { 0, 63, NULL },
                { 11, 0, "mapping_chunk_shift_0_or_12_to_63" },       { 64, 0, "mapping_chunk_shift_0_or_12_to_63" },
                { 0, 11, "mapping_page_shift_0_or_12_to_63" },        { 0, 64, "mapping_page_shift_0_or_12_to_63" },
                { 12, 12, "mapping_chunked_or_exposed" },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct ledger_op op = an_op(l, &o, LEDGER_OP_MAP);
                struct ledger_mapping m = a_mapping(&o, 0x1003 + i * 0x10, 7);

                m.offset = 3;
                m.chunk_shift = cases[i].chunk_shift;
                m.page_shift = cases[i].page_shift;
                OK(ledger_begin(l, &r));
                if (cases[i].refused)
                        REFUSED(ledger_map_intend(l, &op, &m, 1, &r), REFUSAL_LEDGER_UNAVAILABLE, cases[i].refused);
                else
                        OK(ledger_map_intend(l, &op, &m, 1, &r));
                OK(ledger_commit(l, &r));
                if (!cases[i].refused) {
                        assert_int_equal(load_mappings(l, o.domain, &all), i + 1);
                        expect_row(i, &m, op.id);
                }
        }
        assert_int_equal(mapped(), 5);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_one, close_one)
        const struct CMUnitTest tests[] = {
                TEST(test_rests_come_in_the_place_of_what_is_cut),
                TEST(test_several_rests),
                TEST(test_not_applied_leaves_the_mapping_whole),
                TEST(test_kinds),
                TEST(test_unmap_of_a_rest_that_is_to_come),
                TEST(test_unmap_of_what_will_not_be_there),
                TEST(test_parts_round_trip),
                TEST(test_effect_of_map_and_plain_op),
                TEST(test_rest_outside_what_goes),
                TEST(test_rests_that_overlap),
                TEST(test_rest_that_is_no_mapping),
                TEST(test_rests_at_their_limits),
                TEST(test_shifts_of_a_map),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
