/* SPDX-License-Identifier: Apache-2.0 */
/* A state.db that an older program wrote is brought to the newest schema with everything in it, or stays as it was. */
/* link: db util */
#include "test_ledger_fixture.h"

#include "migrate.h"

#define AT(address) "(" #address " + (-9223372036854775807 - 1))"       /* as stored */

/* Two sessions with all that schema 1 had: mappings at both ends of the addresses, a settled op with its answer,
 * unsettled ones of a MAP and an UNMAP with their ranges. */
static const char rows_of_schema_1[] =
        "INSERT INTO session VALUES (11, 'acme', 'c', 1, 2, 3, -1, 4, 5, 6, randomblob(32), zeroblob(32), 2), "
        "(12, 'other', '', 1, 2, 3, 4, 5, 6, 7, randomblob(32), zeroblob(32), 3);"
        "INSERT INTO domain VALUES (21, 11, 'first', 2), (22, 12, 'second', 4);"
        "INSERT INTO memory VALUES (31, 11, 1048576, 4096, -1, 5, 1, 1, 2, 3), "
        "(32, 12, 1048576, 4096, 1, 1, 0, 1, 2, 1);"
        "INSERT INTO attachment VALUES (41, 21, '0000:00:04.0', 7, 1, 2);"
        "INSERT INTO mapping VALUES (21, " AT(0) ", " AT(0xfff) ", 31, 4096, 1, 51), "
        "(21, 9223372036854771712, 9223372036854775807, 31, 0, 3, 51), (21, 0, 4095, 31, 8192, 2, 54), "
        "(22, " AT(0x1000) ", " AT(0x1fff) ", 32, 0, 3, 52);"
        "INSERT INTO op VALUES (51, 11, 21, 7, zeroblob(16), -2, 1, x'616263', NULL), "
        "(53, 12, 22, 8, NULL, 0, 0, NULL, :unmapped), "
        "(54, 11, 21, 7, x'01000000000000000000000000000000', 9, 0, NULL, :mapped), "
        "(55, 11, 21, 1, NULL, 0, 0, NULL, NULL);";

static struct migration_set version_1(void) {
        struct migration_set set = migrations_state;

        set.n_steps = 1;
        return set;
}

/* Values for the placeholders, then all statements. */
static void insert_rows(void) {
        const struct ledger_range mapped = { UINT64_C(1) << 63, 0x1000 }, unmapped = { 0x1000, 0x1000 };
        const char *sql = rows_of_schema_1;
        sqlite3 *db = NULL;

        assert_int_equal(sqlite3_open(in_dir("state.db"), &db), SQLITE_OK);
        while (*sql) {
                sqlite3_stmt *s = NULL;

                if (sqlite3_prepare_v2(db, sql, -1, &s, &sql) != SQLITE_OK)
                        fail_msg("%s", sqlite3_errmsg(db));
                (void)sqlite3_bind_blob(s, sqlite3_bind_parameter_index(s, ":mapped"), &mapped, sizeof mapped,
                                        SQLITE_STATIC);
                (void)sqlite3_bind_blob(s, sqlite3_bind_parameter_index(s, ":unmapped"), &unmapped, sizeof unmapped,
                                        SQLITE_STATIC);
                if (sqlite3_step(s) != SQLITE_DONE)
                        fail_msg("%s", sqlite3_errmsg(db));
                sqlite3_finalize(s);
        }
        assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void read_boot_id(char ret[static 40]) {
        sqlite3 *db = NULL;
        sqlite3_stmt *s = NULL;

        assert_int_equal(sqlite3_open(in_dir("state.db"), &db), SQLITE_OK);
        assert_int_equal(sqlite3_prepare_v2(db, "SELECT boot_id FROM boot", -1, &s, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(s), SQLITE_ROW);
        (void)snprintf(ret, 40, "%s", (const char *)sqlite3_column_text(s, 0));
        sqlite3_finalize(s);
        sqlite3_close(db);
}

/* config.db of this program, state.db of the one before, of this boot. */
static int make_old(void **state) {
        struct migration_set set = version_1();
        char sql[160], boot[40];
        bool created;

        if (make_directory(state) < 0)
                return -1;
        ledger_close(open_ledger());
        raw("config.db", "UPDATE id_counter SET next = 100");
        read_boot_id(boot);
        (void)remove(in_dir("state.db"));
        OK(migrate_file(dir, &set, &created, &r));
        assert_int_equal(raw_number("state.db", "PRAGMA user_version"), 1);
        insert_rows();
        (void)snprintf(sql, sizeof sql, "INSERT INTO boot VALUES (1, '%s')", boot);
        raw("state.db", sql);
        return 0;
}

static struct ledger *open_upgraded(void) {
        struct ledger *l = open_ledger();

        assert_false(ledger_state_is_from_other_boot(l));
        assert_int_equal(raw_number("state.db", "PRAGMA user_version"), (int64_t)migrations_state.n_steps);
        return l;
}

struct seen_ops {
        size_t n;
        struct ledger_op at[4];
        size_t n_ranges[4];
        struct ledger_range range;
};

static int see_op(const struct ledger_op *op, const struct ledger_op_parts *parts, void *arg) {
        struct seen_ops *seen = arg;

        assert_true(seen->n < ARRAY_SIZE(seen->at));
        assert_int_equal(parts->n_rests, 0);
        assert_false(op->has_effect);
        if (parts->n_ranges)
                seen->range = parts->ranges[0];
        seen->n_ranges[seen->n] = parts->n_ranges;
        seen->at[seen->n++] = *op;
        return 0;
}

static int see_domain(const struct ledger_domain *d, void *arg) {
        assert_int_equal(d->id, 21);
        assert_string_equal(d->label, "first");
        assert_int_equal(d->state, LEDGER_LIVE);
        assert_false(d->lazy);
        ++*(size_t *)arg;
        return 0;
}

static int see_window(const struct ledger_window *w, void *arg) {
        (void)w;
        ++*(size_t *)arg;
        return 0;
}

static void test_rows_are_there(void **state) {
        struct ledger *l = open_upgraded();
        static struct mappings all;
        size_t domains = 0, windows = 0;

        (void)state;
        assert_int_equal(count_violations(l), 0);
        OK(ledger_domains(l, 11, see_domain, &domains, &r));
        OK(ledger_windows(l, 21, see_window, &windows, &r));
        assert_int_equal(domains, 1);
        assert_int_equal(windows, 0);
        assert_int_equal(load_mappings(l, 21, &all), 3);
        assert_int_equal(all.at[0].iova, 0);
        assert_int_equal(all.at[0].length, 0x1000);
        assert_int_equal(all.at[0].offset, 4096);
        assert_int_equal(all.at[0].access, 1);
        assert_int_equal(all.at[0].op, 51);
        assert_int_equal(all.at[1].iova, UINT64_C(1) << 63);
        assert_int_equal(all.at[2].iova, UINT64_MAX - 0xfff);
        for (size_t i = 0; i < all.n; i++)
                assert_int_equal(all.at[i].chunk_shift + all.at[i].page_shift, 0);
        assert_int_equal(raw_number("state.db", "SELECT sum(mapped) FROM memory"), 4);
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM attachment WHERE device = '0000:00:04.0'"), 1);
        ledger_close(l);
}

static void test_operations_are_there(void **state) {
        struct ledger *l = open_upgraded();
        struct seen_ops seen = { 0 };

        (void)state;
        OK(ledger_ops(l, 11, see_op, &seen, &r));
        assert_int_equal(seen.n, 3);
        assert_int_equal(seen.at[0].id, 51);
        assert_true(seen.at[0].settled && seen.at[0].has_key);
        assert_int_equal(seen.at[0].request_hash, UINT64_MAX - 1);
        assert_int_equal(seen.at[0].answer_size, 3);
        assert_memory_equal(seen.at[0].answer, "abc", 3);
        assert_false(seen.at[1].settled);
        assert_int_equal(seen.at[1].key[0], 1);
        assert_int_equal(seen.at[2].kind, LEDGER_OP_CREATE_DOMAIN);
        assert_false(seen.at[2].has_key);
        seen.n = 0;
        OK(ledger_ops(l, 12, see_op, &seen, &r));
        assert_int_equal(seen.n, 1);
        assert_int_equal(seen.n_ranges[0], 1);
        assert_int_equal(seen.range.iova, 0x1000);
        ledger_close(l);
}

/* What began under the old schema ends under the new one. */
static void test_unsettled_operations_can_settle(void **state) {
        struct ledger_op map = { .id = 54, .session = 11, .object = 21, .kind = LEDGER_OP_MAP, .has_key = true },
                         unmap = { .id = 53, .session = 12, .object = 22, .kind = LEDGER_OP_UNMAP };
        struct ledger *l = open_upgraded();
        static struct mappings all;

        (void)state;
        OK(ledger_begin(l, &r));
        OK(ledger_op_settle(l, &map, false, &r));
        OK(ledger_op_settle(l, &unmap, true, &r));
        OK(ledger_commit(l, &r));
        assert_int_equal(load_mappings(l, 21, &all), 2);
        assert_int_equal(load_mappings(l, 22, &all), 0);
        assert_int_equal(count_violations(l), 0);
        ledger_close(l);
}

/* The rules of the old schema hold in what was rebuilt and in what was added to. */
static void test_rules_still_hold(void **state) {
        struct ledger_op op = { .id = 60, .session = 11, .object = 21, .kind = LEDGER_OP_RESET_WINDOWS,
                                .has_key = true };
        struct ledger *l = open_upgraded();

        (void)state;
        OK(ledger_begin(l, &r));
        REFUSED(ledger_op_intend(l, &op, &r), REFUSAL_KEY_REUSED, "used this request key");
        op.key[0] = 2;
        OK(ledger_op_intend(l, &op, &r));
        op.id = 61;
        op.has_key = false;
        op.kind = 14;
        REFUSED(ledger_op_intend(l, &op, &r), REFUSAL_LEDGER_UNAVAILABLE, "op_kind_1_to_13");
        op.kind = 0;
        REFUSED(ledger_op_intend(l, &op, &r), REFUSAL_LEDGER_UNAVAILABLE, "op_kind_1_to_13");
        op.kind = LEDGER_OP_DETACH;
        op.session = 99;
        REFUSED(ledger_op_intend(l, &op, &r), REFUSAL_LEDGER_UNAVAILABLE, "FOREIGN KEY");
        REFUSED(ledger_memory_delete(l, 31, &r), REFUSAL_IN_USE, "still mapped");       /* a trigger */
        OK(ledger_session_delete(l, 11, &r));                                           /* and cascades */
        OK(ledger_commit(l, &r));
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM op"), 1);
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM mapping"), 1);
        assert_int_equal(count_violations(l), 0);
        ledger_close(l);
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name IN "
                                                "('domain_of_session', 'memory_of_session', 'attachment_of_domain', "
                                                "'window_of_domain', 'sqlite_autoindex_op_1')"),
                         5);
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM pragma_table_list WHERE strict AND name IN "
                                                "('boot', 'session', 'domain', 'memory', 'attachment', 'window', "
                                                "'mapping', 'op', 'touched')"),
                         9);
}

/* A row that the new schema refuses: nothing is lost, the old program can go on. */
static void test_failed_upgrade_leaves_the_file(void **state) {
        struct ledger_options options = { .directory = dir };
        struct migration_set set = version_1();
        size_t before_size, after_size;
        _cleanup_free_ char *before = NULL, *after = NULL;
        struct ledger *l = NULL;
        int64_t version = 0;

        (void)state;
        raw("state.db", "PRAGMA ignore_check_constraints = ON; UPDATE op SET kind = 77 WHERE id = 55");
        before = slurp("state.db", &before_size);
        REFUSED(ledger_open(&options, &l, &r), REFUSAL_LEDGER_UNAVAILABLE, "state_0002_windows failed");
        assert_non_null(strstr(r.text, "op_kind_1_to_13"));
        after = slurp("state.db", &after_size);
        assert_int_equal(before_size, after_size);
        assert_memory_equal(before, after, before_size);
        assert_int_equal(access(in_dir("state.db.new"), F_OK), -1);
        OK(migrate_inspect(dir, &set, &version, &r));
        assert_int_equal(version, 1);
        raw("state.db", "UPDATE op SET kind = 1 WHERE id = 55");        /* repaired, it is upgraded */
        ledger_close(open_upgraded());
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_old, remove_directory)
        const struct CMUnitTest tests[] = {
                TEST(test_rows_are_there),
                TEST(test_operations_are_there),
                TEST(test_unsettled_operations_can_settle),
                TEST(test_rules_still_hold),
                TEST(test_failed_upgrade_leaves_the_file),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
