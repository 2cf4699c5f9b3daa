/* SPDX-License-Identifier: Apache-2.0 */
/* Operations: what intending and settling leave behind, both ways, and that a refused intent leaves nothing. */
/* link: db util */
#include "test_ledger_fixture.h"

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

struct ops {
        size_t n, n_ranges;
        struct ledger_op at[4];
        struct ledger_range ranges[8];
};

static int collect_op(const struct ledger_op *op, const struct ledger_op_parts *parts, void *arg) {
        struct ops *ops = arg;
        size_t n = parts->n_ranges;

        assert_true(ops->n < ARRAY_SIZE(ops->at));
        assert_true(n <= ARRAY_SIZE(ops->ranges));
        ops->at[ops->n++] = *op;
        if (n > 0)
                memcpy(ops->ranges, parts->ranges, n * sizeof *parts->ranges);
        ops->n_ranges = n;
        return 0;
}

static struct ops load_ops(void) {
        struct ops ops = { 0 };

        OK(ledger_ops(l, o.session, collect_op, &ops, &r));
        return ops;
}

static void reopen(void) {
        ledger_close(l);
        l = open_ledger();
}

static void settle(struct ledger_op *op, bool applied, const char *answer) {
        op->answer_size = (uint32_t)strlen(answer);
        memcpy(op->answer, answer, op->answer_size);
        OK(ledger_begin(l, &r));
        OK(ledger_op_settle(l, op, applied, &r));
        OK(ledger_commit(l, &r));
}

static struct ledger_op intend_map(const uint64_t *iovas, size_t n) {
        struct ledger_op op = an_op(l, &o, LEDGER_OP_MAP);
        struct ledger_mapping rows[8];

        for (size_t i = 0; i < n; i++) {
                rows[i] = a_mapping(&o, iovas[i], 0x1000);
                rows[i].offset = i * 0x1000;
        }
        OK(ledger_begin(l, &r));
        OK(ledger_map_intend(l, &op, rows, n, &r));
        OK(ledger_commit(l, &r));
        return op;
}

static void test_map_applied(void **state) {
        struct ledger_op op = intend_map((uint64_t[]){ 0x1000, 0x2000, 0x8000 }, 3);

        (void)state;
        reopen();
        assert_int_equal(load_mappings(l, o.domain, &all), 3);
        assert_int_equal(all.at[2].iova, 0x8000);
        assert_int_equal(all.at[2].length, 0x1000);
        assert_int_equal(all.at[2].offset, 0x2000);
        assert_int_equal(all.at[2].memory, o.memory);
        assert_int_equal(all.at[2].access, 3);
        assert_int_equal(all.at[2].op, op.id);
        assert_int_equal(load_ops().n, 1);
        assert_false(load_ops().at[0].settled);
        assert_int_equal(load_ops().n_ranges, 0);       /* of an UNMAP only */
        settle(&op, true, "");
        reopen();
        assert_int_equal(load_mappings(l, o.domain, &all), 3);
        assert_int_equal(load_ops().n, 0);              /* had no key */
        assert_int_equal(count_violations(l), 0);
}

static void test_map_not_applied(void **state) {
        struct ledger_op keep = intend_map((uint64_t[]){ 0x5000 }, 1);
        struct ledger_op op = intend_map((uint64_t[]){ 0x9000, 0x1000, 0x8000 }, 3);

        (void)state;
        settle(&keep, true, "");
        reopen();
        settle(&op, false, "");
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        assert_int_equal(all.at[0].iova, 0x5000);
        assert_int_equal(load_ops().n, 0);
        assert_int_equal(count_violations(l), 0);       /* also: the memory's count came back */
}

/* What took the place of rows that recovery removed is not the failed operation's to delete. */
static void test_map_not_applied_spares_rows_of_others(void **state) {
        struct ledger_op op = intend_map((uint64_t[]){ 0x1000 }, 1);

        (void)state;
        OK(ledger_begin(l, &r));
        OK(ledger_mapping_delete(l, o.domain, 0x1000, &r));
        OK(ledger_mapping_delete(l, o.domain, 0x1000, &r));
        OK(ledger_commit(l, &r));
        map_one(l, &o, 0x1000, 0x1000);
        settle(&op, false, "");
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        assert_int_equal(count_violations(l), 0);
}

static struct ledger_op intend_unmap(const struct ledger_range *ranges, size_t n) {
        struct ledger_op op = an_op(l, &o, LEDGER_OP_UNMAP);

        op.has_key = true;
        op.key[15] = 9;
        OK(ledger_begin(l, &r));
        OK(ledger_unmap_intend(l, &op, ranges, n, NULL, 0, &r));
        OK(ledger_commit(l, &r));
        return op;
}

static void test_unmap(void **state) {
        const struct ledger_range ranges[] = { { 0x8000, 0x1000 }, { 0x1000, 0x1000 } };
        struct ledger_op map = intend_map((uint64_t[]){ 0x1000, 0x2000, 0x8000 }, 3), op;
        struct ops ops;

        (void)state;
        settle(&map, true, "");
        op = intend_unmap(ranges, 2);
        reopen();
        assert_int_equal(load_mappings(l, o.domain, &all), 3);
        ops = load_ops();
        assert_int_equal(ops.n, 1);
        assert_int_equal(ops.n_ranges, 2);
        assert_memory_equal(ops.ranges, ranges, sizeof ranges);
        settle(&op, false, "refused");
        assert_int_equal(load_mappings(l, o.domain, &all), 3);
        assert_int_equal(load_ops().n_ranges, 0);
        op.key[0] = 1;
        op.id = ledger_next_id(l);
        OK(ledger_begin(l, &r));
        OK(ledger_unmap_intend(l, &op, ranges, 2, NULL, 0, &r));
        OK(ledger_op_settle(l, &op, true, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_mappings(l, o.domain, &all), 1);
        assert_int_equal(all.at[0].iova, 0x2000);
        assert_int_equal(count_violations(l), 0);
}

static void test_answer_is_remembered(void **state) {
        struct ledger_op op = an_op(l, &o, LEDGER_OP_CREATE_DOMAIN);
        struct ops ops;

        (void)state;
        op.has_key = true;
        for (size_t i = 0; i < sizeof op.key; i++)
                op.key[i] = (uint8_t)(0xf0 + i);
        op.request_hash = UINT64_MAX - 1;
        OK(ledger_begin(l, &r));
        OK(ledger_op_intend(l, &op, &r));
        OK(ledger_commit(l, &r));
        op.answer_size = LEDGER_ANSWER_MAX;
        memset(op.answer, 0xab, sizeof op.answer);
        OK(ledger_begin(l, &r));
        OK(ledger_op_settle(l, &op, true, &r));
        OK(ledger_commit(l, &r));
        reopen();
        ops = load_ops();
        assert_int_equal(ops.n, 1);
        assert_int_equal(ops.at[0].id, op.id);
        assert_int_equal(ops.at[0].session, op.session);
        assert_int_equal(ops.at[0].object, op.object);
        assert_int_equal(ops.at[0].kind, op.kind);
        assert_true(ops.at[0].has_key && ops.at[0].settled);
        assert_memory_equal(ops.at[0].key, op.key, sizeof op.key);
        assert_int_equal(ops.at[0].request_hash, op.request_hash);
        assert_int_equal(ops.at[0].answer_size, LEDGER_ANSWER_MAX);
        assert_memory_equal(ops.at[0].answer, op.answer, sizeof op.answer);
        OK(ledger_begin(l, &r));
        op.answer_size++;
        REFUSED(ledger_op_settle(l, &op, true, &r), REFUSAL_LEDGER_UNAVAILABLE, "1025 bytes");
        ledger_rollback(l);
}

static void test_key_is_unique_in_its_session(void **state) {
        struct objects other = put_objects(l);
        struct ledger_op a = an_op(l, &o, LEDGER_OP_MAP), b = an_op(l, &o, LEDGER_OP_UNMAP),
                         c = an_op(l, &other, LEDGER_OP_MAP);
        struct ledger_mapping m = a_mapping(&o, 0x1000, 0x1000);

        (void)state;
        a.has_key = b.has_key = c.has_key = true;       /* all the same key: zeroes */
        OK(ledger_begin(l, &r));
        OK(ledger_op_intend(l, &a, &r));
        REFUSED(ledger_op_intend(l, &b, &r), REFUSAL_KEY_REUSED, "used this request key");
        REFUSED(ledger_map_intend(l, &b, &m, 1, &r), REFUSAL_KEY_REUSED, "used this request key");
        OK(ledger_op_intend(l, &c, &r));
        b.has_key = c.has_key = false;                  /* without one as many as you like */
        c.id = ledger_next_id(l);
        OK(ledger_op_intend(l, &b, &r));
        OK(ledger_op_intend(l, &c, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_mappings(l, o.domain, &all), 0);
        assert_int_equal(load_ops().n, 2);
}

static void try_map(const struct ledger_mapping *rows, size_t n, enum refusal_reason reason, int element,
                    uint64_t conflict) {
        struct ledger_op op = an_op(l, &o, LEDGER_OP_MAP);

        OK(ledger_begin(l, &r));
        REFUSED(ledger_map_intend(l, &op, rows, n, &r), reason, "");
        assert_int_equal(r.element, element);
        if (reason == REFUSAL_OVERLAP)
                assert_int_equal(r.conflict_first, conflict);
        OK(ledger_commit(l, &r));
        assert_int_equal(load_mappings(l, o.domain, &all), 3);
        assert_int_equal(load_ops().n, 0);
        assert_int_equal(count_violations(l), 0);
}

static void test_overlap_is_refused_wholly(void **state) {
        (void)state;
        map_one(l, &o, 0x10000, 0x4000);
        map_one(l, &o, 0x20000, 0x1000);
        map_one(l, &o, UINT64_MAX - 0xfff, 0x1000);
        try_map((struct ledger_mapping[]){ a_mapping(&o, 0x10000, 0x4000) }, 1, REFUSAL_OVERLAP, 0, 0x10000);
        try_map((struct ledger_mapping[]){ a_mapping(&o, 0x13fff, 1) }, 1, REFUSAL_OVERLAP, 0, 0x10000);
        try_map((struct ledger_mapping[]){ a_mapping(&o, 0xf000, 0x1001) }, 1, REFUSAL_OVERLAP, 0, 0x10000);
        try_map((struct ledger_mapping[]){ a_mapping(&o, 0, UINT64_MAX) }, 1, REFUSAL_OVERLAP, 0, UINT64_MAX - 0xfff);
        try_map((struct ledger_mapping[]){ a_mapping(&o, 0x1000, 0x1000), a_mapping(&o, 0x30000, 0x1000),
                                           a_mapping(&o, 0x20fff, 1) }, 3, REFUSAL_OVERLAP, 2, 0x20000);
        try_map((struct ledger_mapping[]){ a_mapping(&o, 0x30000, 0x1000), a_mapping(&o, 0x30fff, 0x1000) }, 2,
                REFUSAL_OVERLAP, -1, 0x30000);
        try_map((struct ledger_mapping[]){ a_mapping(&o, 0x30000, 0x1000), a_mapping(&o, 0x30000, 0x1000) }, 2,
                REFUSAL_OVERLAP, -1, 0x30000);
        try_map((struct ledger_mapping[]){ a_mapping(&o, 0x31000, 0x1000), a_mapping(&o, 0x30000, 0x1001) }, 2,
                REFUSAL_OVERLAP, -1, 0x30000);
}

static void test_neighbours_and_gaps_are_fine(void **state) {
        struct ledger_op op = an_op(l, &o, LEDGER_OP_MAP);
        struct ledger_mapping rows[] = { a_mapping(&o, 0x21000, 0x1000), a_mapping(&o, 0, 0x10000),
                                         a_mapping(&o, 0x14000, 0xc000) };

        (void)state;
        map_one(l, &o, 0x10000, 0x4000);
        map_one(l, &o, 0x20000, 0x1000);
        OK(ledger_begin(l, &r));
        OK(ledger_map_intend(l, &op, rows, 3, &r));
        OK(ledger_op_settle(l, &op, true, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_mappings(l, o.domain, &all), 5);
        assert_int_equal(count_violations(l), 0);
}

static void test_bad_rows_are_refused_wholly(void **state) {
        struct ledger_mapping good = a_mapping(&o, 0x1000, 0x1000), bad;

        (void)state;
        map_one(l, &o, 0x10000, 0x4000);
        map_one(l, &o, 0x20000, 0x1000);
        map_one(l, &o, 0x30000, 0x1000);
        bad = a_mapping(&o, 0x2000, 0);
        try_map((struct ledger_mapping[]){ good, bad }, 2, REFUSAL_ZERO_LENGTH, 1, 0);
        bad = a_mapping(&o, UINT64_MAX, 2);
        try_map((struct ledger_mapping[]){ good, bad }, 2, REFUSAL_RANGE_WRAPS, 1, 0);
        bad = a_mapping(&o, 0x2000, 0x1000);
        bad.access = 4;
        try_map((struct ledger_mapping[]){ good, bad }, 2, REFUSAL_LEDGER_UNAVAILABLE, -1, 0);
        assert_non_null(strstr(r.text, "mapping_access_read_write"));
        bad = a_mapping(&o, 0x2000, 0x1000);
        bad.offset = UINT64_C(1) << 63;
        try_map((struct ledger_mapping[]){ good, bad }, 2, REFUSAL_LEDGER_UNAVAILABLE, -1, 0);
        bad = a_mapping(&o, 0x2000, 0x1000);
        bad.memory = 999;
        try_map((struct ledger_mapping[]){ good, bad }, 2, REFUSAL_LEDGER_UNAVAILABLE, 1, 0);
        bad = a_mapping(&o, 0x2000, 0x1000);
        bad.domain++;
        try_map((struct ledger_mapping[]){ good, bad }, 2, REFUSAL_LEDGER_UNAVAILABLE, -1, 0);
}

/* One refused intent does not cost its neighbours in the transaction theirs. */
static void test_refusal_in_the_middle_of_a_group(void **state) {
        struct ledger_op a = an_op(l, &o, LEDGER_OP_MAP), b = an_op(l, &o, LEDGER_OP_MAP),
                         c = an_op(l, &o, LEDGER_OP_MAP);
        struct ledger_mapping at_1 = a_mapping(&o, 0x1000, 0x1000), at_2 = a_mapping(&o, 0x2000, 0x1000);

        (void)state;
        OK(ledger_begin(l, &r));
        OK(ledger_map_intend(l, &a, &at_1, 1, &r));
        REFUSED(ledger_map_intend(l, &b, &at_1, 1, &r), REFUSAL_OVERLAP, "0x1000-0x1fff");
        OK(ledger_map_intend(l, &c, &at_2, 1, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_mappings(l, o.domain, &all), 2);
        assert_int_equal(load_ops().n, 2);
}

static void test_settling_what_is_gone_is_harmless(void **state) {
        struct ledger_op op = intend_map((uint64_t[]){ 0x1000 }, 1);

        (void)state;
        OK(ledger_begin(l, &r));
        OK(ledger_session_delete(l, o.session, &r));
        OK(ledger_op_settle(l, &op, false, &r));
        op.has_key = true;
        OK(ledger_op_settle(l, &op, true, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_ops().n, 0);
}

/* The newest 1024 stay; of the others some, because pruning happens at random: 8192 too many has a chance of e^-32. */
static void test_answers_are_pruned(void **state) {
        const uint64_t n = 12000;
        uint64_t first = 0, last = 0;

        (void)state;
        OK(ledger_begin(l, &r));
        for (uint64_t i = 0; i < n; i++) {
                struct ledger_op op = an_op(l, &o, LEDGER_OP_CREATE_DOMAIN);

                op.has_key = true;
                memcpy(op.key, &op.id, sizeof op.id);
                OK(ledger_op_intend(l, &op, &r));
                OK(ledger_op_settle(l, &op, true, &r));
                first = first ? first : op.id;
                last = op.id;
        }
        OK(ledger_commit(l, &r));
        ledger_close(l);
        assert_true(raw_number("state.db", "SELECT count(*) FROM op") < 1024 + 8192);
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM op WHERE id > (SELECT max(id) FROM op) - 1024"),
                         1024);
        assert_int_equal(raw_number("state.db", "SELECT max(id) FROM op"), (int64_t)last);
        assert_int_equal(last - first, n - 1);
        l = open_ledger();
}

static void test_outside_a_transaction(void **state) {
        struct ledger_op op = an_op(l, &o, LEDGER_OP_MAP);
        struct ledger_mapping m = a_mapping(&o, 0x1000, 0x1000);

        (void)state;
        REFUSED(ledger_map_intend(l, &op, &m, 1, &r), REFUSAL_LEDGER_UNAVAILABLE, "No transaction");
        REFUSED(ledger_op_settle(l, &op, true, &r), REFUSAL_LEDGER_UNAVAILABLE, "No transaction");
        REFUSED(ledger_session_delete(l, o.session, &r), REFUSAL_LEDGER_UNAVAILABLE, "No transaction");
        REFUSED(ledger_commit(l, &r), REFUSAL_LEDGER_UNAVAILABLE, "No transaction");
        ledger_rollback(l);
        OK(ledger_begin(l, &r));
        REFUSED(ledger_begin(l, &r), REFUSAL_LEDGER_UNAVAILABLE, "open in this thread already");
        OK(ledger_map_intend(l, &op, &m, 1, &r));
        ledger_rollback(l);
        assert_int_equal(load_mappings(l, o.domain, &all), 0);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_one, close_one)
        const struct CMUnitTest tests[] = {
                TEST(test_map_applied),
                TEST(test_map_not_applied),
                TEST(test_map_not_applied_spares_rows_of_others),
                TEST(test_unmap),
                TEST(test_answer_is_remembered),
                TEST(test_key_is_unique_in_its_session),
                TEST(test_overlap_is_refused_wholly),
                TEST(test_neighbours_and_gaps_are_fine),
                TEST(test_bad_rows_are_refused_wholly),
                TEST(test_refusal_in_the_middle_of_a_group),
                TEST(test_settling_what_is_gone_is_harmless),
                TEST(test_answers_are_pruned),
                TEST(test_outside_a_transaction),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
