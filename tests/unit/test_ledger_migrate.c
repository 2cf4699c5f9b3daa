/* SPDX-License-Identifier: Apache-2.0 */
/* A migration happens wholly or leaves the file as it was. */
/* link: db util */
#include "test_ledger_fixture.h"

#include "migrate.h"

static const struct migration_step steps[] = {
        { "one", "CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT; INSERT INTO parent VALUES (1), (2);"
                 "CREATE TABLE child (of INTEGER REFERENCES parent (id)) STRICT; INSERT INTO child VALUES (2);" },
        { "two", "ALTER TABLE parent ADD COLUMN name TEXT; UPDATE parent SET name = 'n' || id;" },
        { "bad_sql", "CREATE TABLE more (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);" },
        { "bad_rows", "DELETE FROM parent WHERE id = 2;" },
};

static const struct migration_set version_1 = { "t.db", 0x1234, 2048, 1, steps };
static const struct migration_set version_2 = { "t.db", 0x1234, 2048, 2, steps };
static const struct migration_set version_3 = { "t.db", 0x1234, 2048, 3, steps };

static void migrate(const struct migration_set *set, bool expect_created) {
        bool created;

        OK(migrate_file(dir, set, &created, &r));
        assert_int_equal(created, expect_created);
}

static void test_fresh(void **state) {
        (void)state;
        migrate(&version_2, true);
        assert_int_equal(raw_number("t.db", "SELECT count(*) FROM parent WHERE name = 'n' || id"), 2);
        assert_int_equal(raw_number("t.db", "PRAGMA user_version"), 2);
        assert_int_equal(raw_number("t.db", "PRAGMA application_id"), 0x1234);
        assert_int_equal(raw_number("t.db", "PRAGMA page_size"), 2048);
        migrate(&version_2, false);
}

static void test_upgrade_keeps_what_was_only_in_the_wal(void **state) {
        sqlite3 *db;

        (void)state;
        migrate(&version_1, true);
        raw("t.db", "PRAGMA journal_mode = WAL");
        assert_int_equal(sqlite3_open(in_dir("t.db"), &db), SQLITE_OK);
        sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);       /* as if it had been killed */
        assert_int_equal(sqlite3_exec(db, "INSERT INTO parent VALUES (3)", NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(db);
        assert_int_equal(access(in_dir("t.db-wal"), F_OK), 0);
        migrate(&version_2, false);
        assert_int_equal(raw_number("t.db", "SELECT count(*) FROM parent WHERE name = 'n' || id"), 3);
        assert_int_equal(access(in_dir("t.db-wal"), F_OK), -1);
}

static void expect_untouched(const struct migration_set *set, const char *words) {
        size_t before_size, after_size;
        _cleanup_free_ char *before = slurp("t.db", &before_size);
        _cleanup_free_ char *after = NULL;
        bool created;

        REFUSED(migrate_file(dir, set, &created, &r), REFUSAL_LEDGER_UNAVAILABLE, words);
        after = slurp("t.db", &after_size);
        assert_int_equal(before_size, after_size);
        assert_memory_equal(before, after, before_size);
        assert_int_equal(access(in_dir("t.db.new"), F_OK), -1);
        migrate(&version_1, false);     /* the old program goes on with it */
}

static void test_bad_step_leaves_the_file(void **state) {
        (void)state;
        migrate(&version_1, true);
        raw("t.db", "PRAGMA journal_mode = WAL");
        expect_untouched(&version_3, "step bad_sql failed, t.db is as it was: ");
        assert_non_null(strstr(r.text, "no such table: nowhere"));
}

static void test_step_that_orphans_rows(void **state) {
        static const struct migration_step orphaning[] = { { "one", "" },
                                                           { "bad_rows", "DELETE FROM parent WHERE id = 2;" } };
        static const struct migration_set set = { "t.db", 0x1234, 2048, 2, orphaning };

        (void)state;
        migrate(&version_1, true);
        expect_untouched(&set, "1 rows without their parent");
}

static void test_bad_first_step_leaves_nothing(void **state) {
        static const struct migration_set set = { "t.db", 0x1234, 2048, 1, &steps[2] };
        bool created;

        (void)state;
        REFUSED(migrate_file(dir, &set, &created, &r), REFUSAL_LEDGER_UNAVAILABLE, "bad_sql");
        assert_int_equal(access(in_dir("t.db"), F_OK), -1);
        assert_int_equal(access(in_dir("t.db.new"), F_OK), -1);
}

static void test_interrupted_copy_is_ignored(void **state) {
        FILE *f;

        (void)state;
        migrate(&version_1, true);
        f = fopen(in_dir("t.db.new"), "we");
        assert_non_null(f);
        (void)fputs("half a database", f);
        (void)fclose(f);
        migrate(&version_2, false);
        assert_int_equal(raw_number("t.db", "SELECT count(*) FROM parent WHERE name = 'n' || id"), 2);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_directory, remove_directory)
        const struct CMUnitTest tests[] = {
                TEST(test_fresh),
                TEST(test_upgrade_keeps_what_was_only_in_the_wal),
                TEST(test_bad_step_leaves_the_file),
                TEST(test_step_that_orphans_rows),
                TEST(test_bad_first_step_leaves_nothing),
                TEST(test_interrupted_copy_is_ignored),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
