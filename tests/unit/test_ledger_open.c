/* SPDX-License-Identifier: Apache-2.0 */
/* Who may open a ledger, and what is refused, in words that name the file and what it is. */
/* link: db util */
#include "test_ledger_fixture.h"

#include <sys/stat.h>
#include <sys/wait.h>

static int try_open(void) {
        struct ledger_options o = { .directory = dir };
        struct ledger *l = NULL;
        int k = ledger_open(&o, &l, &r);

        ledger_close(l);
        return k;
}

static void write_file(const char *file, const char *text) {
        FILE *f = fopen(in_dir(file), "we");

        assert_non_null(f);
        assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
        (void)fclose(f);
}

static void test_directory_is_created_private(void **state) {
        struct stat st;
        struct ledger *l;

        (void)state;
        assert_int_equal(rmdir(dir), 0);
        l = open_ledger();
        assert_int_equal(stat(dir, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0700);
        assert_int_equal(stat(in_dir("state.db"), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        assert_null(ledger_close(l));
        assert_null(ledger_close(NULL));
}

static void test_second_open_names_the_pid(void **state) {
        struct ledger *l = open_ledger();
        char pid[32];
        int status;
        pid_t child;

        (void)state;
        (void)snprintf(pid, sizeof pid, "process %d", (int)getpid());
        REFUSED(try_open(), REFUSAL_LEDGER_UNAVAILABLE, pid);
        child = fork();
        if (child == 0)
                _exit(try_open() == -1 && strstr(r.text, pid) && strstr(r.text, dir) ? 0 : 1);
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        ledger_close(l);
        OK(try_open());
}

static void test_offline_check_respects_the_lock(void **state) {
        struct ledger *l = open_ledger();
        uint64_t rows;
        size_t n = 0;

        (void)state;
        REFUSED(ledger_check_offline(dir, print_violation, &n, &rows, &r), REFUSAL_LEDGER_UNAVAILABLE,
                "in use by process");
        ledger_close(l);
        OK(ledger_check_offline(dir, print_violation, &n, &rows, &r));
        assert_int_equal(n, 0);
        l = open_ledger();              /* what the check left behind is in nobody's way */
        ledger_close(l);
}

static void test_offline_check_without_a_ledger(void **state) {
        uint64_t rows;
        size_t n = 0;

        (void)state;
        REFUSED(ledger_check_offline(dir, print_violation, &n, &rows, &r), REFUSAL_LEDGER_UNAVAILABLE,
                "config.db is missing");
}

static void test_text_file(void **state) {
        (void)state;
        write_file("state.db", "Dear diary, today I was not a database.\n");
        REFUSED(try_open(), REFUSAL_LEDGER_UNAVAILABLE, "state.db is not a ledger");
        assert_non_null(strstr(r.text, "starts with \"Dear diary"));
        assert_int_equal(access(in_dir("config.db"), F_OK), -1);        /* the other one was not made either */
}

static void test_empty_file(void **state) {
        (void)state;
        write_file("config.db", "");
        REFUSED(try_open(), REFUSAL_LEDGER_UNAVAILABLE, "it is empty");
}

static void test_other_database(void **state) {
        (void)state;
        raw("config.db", "CREATE TABLE cookies (a); PRAGMA application_id = 7");
        REFUSED(try_open(), REFUSAL_LEDGER_UNAVAILABLE, "something else (application id 0x00000007");
}

static void test_swapped_databases(void **state) {
        char from[PATH_MAX + 64];

        (void)state;
        ledger_close(open_ledger());
        (void)snprintf(from, sizeof from, "%s", in_dir("config.db"));
        assert_int_equal(rename(from, in_dir("state.db")), 0);
        REFUSED(try_open(), REFUSAL_LEDGER_UNAVAILABLE, "state.db is not a ledger");
}

static void test_directory_in_the_way(void **state) {
        (void)state;
        assert_int_equal(mkdir(in_dir("config.db"), 0700), 0);
        REFUSED(try_open(), REFUSAL_LEDGER_UNAVAILABLE, "it is a directory");
        assert_int_equal(rmdir(in_dir("config.db")), 0);
        assert_int_equal(symlink("/etc/passwd", in_dir("config.db")), 0);
        REFUSED(try_open(), REFUSAL_LEDGER_UNAVAILABLE, "it is a symbolic link");
}

static void test_directory_is_a_file(void **state) {
        struct ledger_options o = { 0 };
        struct ledger *l = NULL;
        char path[PATH_MAX + 64];

        (void)state;
        write_file("file", "x");
        (void)snprintf(path, sizeof path, "%s", in_dir("file"));
        o.directory = path;
        REFUSED(ledger_open(&o, &l, &r), REFUSAL_LEDGER_UNAVAILABLE, "Not a directory");
}

/* Permission bits mean nothing to root, who becomes nobody for this. */
static void test_unreadable(void **state) {
        bool root = geteuid() == 0;
        int k;

        (void)state;
        ledger_close(open_ledger());
        assert_int_equal(chmod(in_dir("config.db"), 0400), 0);
        assert_int_equal(root ? chmod(dir, 0777) : 0, 0);
        assert_int_equal(root ? chmod(in_dir("ledger.lock"), 0666) : 0, 0);
        assert_int_equal(root ? seteuid(65534) : 0, 0);
        k = try_open();
        assert_int_equal(root ? seteuid(0) : 0, 0);
        assert_int_equal(k, -1);
        assert_int_equal(r.errnum, EACCES);
        assert_non_null(strstr(r.text, "Permission denied (mode 0400"));
}

static void test_newer_schema(void **state) {
        size_t before_size, after_size;
        char *before, *after;

        (void)state;
        ledger_close(open_ledger());
        raw("state.db", "PRAGMA user_version = 99");
        before = slurp("state.db", &before_size);
        REFUSED(try_open(), REFUSAL_LEDGER_UNAVAILABLE, "schema version 99, this program knows versions up to 2");
        after = slurp("state.db", &after_size);
        assert_int_equal(before_size, after_size);
        assert_memory_equal(before, after, before_size);
        free(before);
        free(after);
}

/* A WAL whose database was removed must not flow into the new database. */
static void test_orphaned_wal(void **state) {
        struct ledger *l;
        struct objects o;
        char wal[PATH_MAX + 64];
        int status;
        pid_t child = fork();

        (void)state;
        if (child == 0) {
                l = open_ledger();
                o = put_objects(l);
                _exit(o.session ? 0 : 1);       /* no close: the WAL stays */
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        (void)snprintf(wal, sizeof wal, "%s", in_dir("state.db-wal"));
        assert_int_equal(access(wal, F_OK), 0);
        assert_int_equal(unlink(in_dir("state.db")), 0);
        l = open_ledger();
        ledger_close(l);
        assert_int_equal(raw_number("state.db", "SELECT count(*) FROM session"), 0);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_directory, remove_directory)
        const struct CMUnitTest tests[] = {
                TEST(test_directory_is_created_private),
                TEST(test_second_open_names_the_pid),
                TEST(test_offline_check_respects_the_lock),
                TEST(test_offline_check_without_a_ledger),
                TEST(test_text_file),
                TEST(test_empty_file),
                TEST(test_other_database),
                TEST(test_swapped_databases),
                TEST(test_directory_in_the_way),
                TEST(test_directory_is_a_file),
                TEST(test_unreadable),
                TEST(test_newer_schema),
                TEST(test_orphaned_wal),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
