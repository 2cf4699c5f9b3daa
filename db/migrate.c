/* SPDX-License-Identifier: Apache-2.0 */
#include "migrate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "stmt.h"
#include "util/cleanup.h"
#include "util/log.h"

#include "migrations.h"

const struct migration_set migrations_config = {
        .file = "config.db",
        .application_id = 0x494f4d43,   /* "IOMC" */
        .page_size = 4096,
        .n_steps = ARRAY_SIZE(config_steps),
        .steps = config_steps,
};

/* A commit writes whole pages to the WAL, three or four for a single map: smaller pages make it cheaper, and a batch a
 * little dearer. 2 KiB is the best sum (README.md has the figures). */
const struct migration_set migrations_state = {
        .file = "state.db",
        .application_id = 0x494f4d53,   /* "IOMS" */
        .page_size = 2048,
        .n_steps = ARRAY_SIZE(state_steps),
        .steps = state_steps,
};

static int refuse_path(struct refusal *r, const char *path, const char *what, int errnum) {
        (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "%s: %s: %s.", path, what, strerror(errnum));
        r->errnum = errnum;
        return -1;
}

/* Like refuse(), of what no other try will find otherwise. */
__attribute__((format(printf, 2, 3))) static int refuse_lasting(struct refusal *r, const char *format, ...) {
        char text[REFUSAL_TEXT_MAX];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "%s", text);
        r->errnum = EUCLEAN;
        return -1;
}

static const char *file_type(mode_t mode) {
        return S_ISDIR(mode)    ? "a directory"
               : S_ISFIFO(mode) ? "a pipe"
               : S_ISSOCK(mode) ? "a socket"
               : S_ISCHR(mode)  ? "a character device"
               : S_ISBLK(mode)  ? "a block device"
                                : "a symbolic link";
}

/* The head of a text file as a person recognises it; anything but printable ASCII becomes a dot. */
static void printable(char *text, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (text[i] < ' ' || text[i] > '~')
                        text[i] = '.';
        text[n] = 0;
}

/* What can be said before sqlite looks. Must not run while this process has the file open in sqlite: closing any
 * descriptor of a file drops the process's POSIX locks on it. */
static int inspect_bytes(const char *path, bool *ret_missing, struct refusal *r) {
        _cleanup_close_ int fd = -1;
        struct stat st;
        char head[17];
        ssize_t n;

        *ret_missing = false;
        if (lstat(path, &st) < 0) {
                *ret_missing = errno == ENOENT;
                return *ret_missing ? 0 : refuse_path(r, path, "cannot be looked at", errno);
        }
        if (!S_ISREG(st.st_mode))
                return refuse_lasting(r, "%s is not a ledger: it is %s.", path, file_type(st.st_mode));
        fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) {
                int e = errno;

                (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                             "%s cannot be opened for reading and writing by uid %u: %s (mode %04o, owner %u:%u).",
                             path, geteuid(), strerror(e), st.st_mode & 07777U, st.st_uid, st.st_gid);
                r->errnum = e;
                return -1;
        }
        n = pread(fd, head, sizeof head - 1, 0);
        if (n < 0)
                return refuse_path(r, path, "cannot be read", errno);
        if (n == 0)
                return refuse_lasting(r, "%s is not a ledger: it is empty. Restore a backup, or remove it to start afresh.",
                                      path);
        if (n == sizeof head - 1 && memcmp(head, "SQLite format 3", sizeof head - 1) == 0)
                return 0;
        printable(head, (size_t)n);
        return refuse_lasting(r, "%s is not a ledger: it is not an SQLite database (it starts with \"%s\").", path, head);
}

static int inspect_header(const char *path, const struct migration_set *set, int64_t *ret_version, struct refusal *r) {
        _cleanup_(db_close) struct db d = { 0 };
        int64_t id = 0, version = 0;

        if (db_open(&d, path, SQLITE_OPEN_READONLY, r) < 0 || db_get_int64(&d, "PRAGMA application_id", &id, r) < 0 ||
            db_get_int64(&d, "PRAGMA user_version", &version, r) < 0)
                return -1;
        if ((uint32_t)id != set->application_id)
                return refuse_lasting(r, "%s is not a ledger: it is an SQLite database of something else (application id 0x%08x, "
                                      "expected 0x%08x).", path, (uint32_t)id, set->application_id);
        if (version < 0 || (uint64_t)version > set->n_steps)
                return refuse_lasting(r, "%s has schema version %" PRId64 ", this program knows versions up to %zu: it was written "
                                      "by a newer one. Run that, or restore a backup.", path, version, set->n_steps);
        *ret_version = version;
        return 0;
}

int migrate_inspect(const char *directory, const struct migration_set *set, int64_t *ret_version, struct refusal *r) {
        char path[PATH_MAX];
        bool missing;

        if (db_path(path, directory, set->file, "", r) < 0 || inspect_bytes(path, &missing, r) < 0)
                return -1;
        if (missing) {
                *ret_version = -1;
                return 0;
        }
        return inspect_header(path, set, ret_version, r);
}

/* Foreign keys are not enforced while a step runs, because rebuilding a table would delete its children: they are
 * checked before its commit instead. */
static int apply_step(struct db *d, const struct migration_set *set, size_t at, struct refusal *r) {
        const struct migration_step *step = &set->steps[at];
        char version[128];
        int64_t broken = 0;
        struct refusal why;

        (void)snprintf(version, sizeof version, "PRAGMA application_id = %u; PRAGMA user_version = %zu",
                       set->application_id, at + 1);
        if (db_exec(d, "PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE", &why) < 0 || db_exec(d, step->sql, &why) < 0 ||
            db_get_int64(d, "SELECT count(*) FROM pragma_foreign_key_check", &broken, &why) < 0)
                goto fail;
        if (broken != 0) {
                (void)refuse(&why, REFUSAL_LEDGER_UNAVAILABLE, "it would leave %" PRId64 " rows without their parent",
                             broken);
                goto fail;
        }
        if (db_exec(d, version, &why) < 0 || db_exec(d, "COMMIT", &why) < 0)
                goto fail;
        return 0;
fail:
        (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "Migration step %s failed, %s is as it was: %.200s", step->name,
                     set->file, why.text);
        r->errnum = d->fault == FAULT_PASSING ? why.errnum : EUCLEAN;
        return -1;
}

/* Copies what a reader of the original sees now, its WAL included. The original is only read. */
static int copy_database(const char *from_path, struct db *to, struct refusal *r) {
        _cleanup_(db_close) struct db from = { 0 };
        sqlite3_backup *b;
        int rc;

        if (db_open(&from, from_path, SQLITE_OPEN_READONLY, r) < 0)
                return -1;
        b = sqlite3_backup_init(to->handle, "main", from.handle, "main");
        if (!b)
                return db_refuse(to, r);
        rc = sqlite3_backup_step(b, -1);
        (void)sqlite3_backup_finish(b);
        if (rc != SQLITE_DONE)
                return db_refuse(to, r);
        return db_exec(to, "PRAGMA journal_mode = DELETE", r);  /* the copy must be one file when it is renamed */
}

/* Builds the new file beside the old one and makes sure that it is on the disk. */
static int build_copy(const char *old_path, const char *new_path, const struct migration_set *set, int64_t version,
                      struct refusal *r) {
        _cleanup_close_ int fd = open(new_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        struct db d = { 0 };
        char page_size[64];
        int k;

        if (fd < 0)
                return refuse_path(r, new_path, "cannot be created", errno);
        (void)snprintf(page_size, sizeof page_size, "PRAGMA page_size = %u", set->page_size);
        k = db_open(&d, new_path, SQLITE_OPEN_READWRITE, r);
        if (k == 0)
                k = version < 0 ? db_exec(&d, page_size, r) : copy_database(old_path, &d, r);
        for (size_t i = version < 0 ? 0 : (size_t)version; k == 0 && i < set->n_steps; i++)
                k = apply_step(&d, set, i, r);
        db_close(&d);
        if (k == 0 && fsync(fd) < 0)
                k = refuse_path(r, new_path, "cannot be written to the disk", errno);
        return k;
}

/* A WAL left by a crash belongs to the old file; beside the new one sqlite would replay it into that. So it is moved
 * into the old file first: closing the last connection does it and removes the WAL. */
static int fold_wal(const char *path, struct refusal *r) {
        _cleanup_(db_close) struct db d = { 0 };

        if (db_open(&d, path, SQLITE_OPEN_READWRITE, r) < 0)
                return -1;
        return db_exec(&d, "PRAGMA journal_mode = DELETE", r);
}

/* What a removed file left behind: sqlite would replay that WAL into the new one, too. */
static int drop_companions(const char *directory, const struct migration_set *set, struct refusal *r) {
        static const char *const suffixes[] = { "-wal", "-shm", "-journal" };
        char path[PATH_MAX];

        for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
                if (db_path(path, directory, set->file, suffixes[i], r) < 0)
                        return -1;
                if (unlink(path) < 0 && errno != ENOENT)
                        return refuse_path(r, path, "cannot be removed", errno);
        }
        return 0;
}

static int replace(const char *directory, const char *old_path, const char *new_path, struct refusal *r) {
        _cleanup_close_ int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (fd < 0)
                return refuse_path(r, directory, "cannot be opened", errno);
        if (rename(new_path, old_path) < 0)
                return refuse_path(r, old_path, "cannot be replaced", errno);
        if (fsync(fd) < 0)
                return refuse_path(r, directory, "cannot be written to the disk", errno);
        return 0;
}

int migrate_file(const char *directory, const struct migration_set *set, bool *ret_created, struct refusal *r) {
        char old_path[PATH_MAX], new_path[PATH_MAX], journal[PATH_MAX];
        int64_t version;

        if (db_path(old_path, directory, set->file, "", r) < 0 ||
            db_path(new_path, directory, set->file, ".new", r) < 0 ||
            db_path(journal, directory, set->file, ".new-journal", r) < 0 ||
            migrate_inspect(directory, set, &version, r) < 0)
                return -1;
        (void)unlink(new_path);                 /* of a migration that was interrupted */
        (void)unlink(journal);
        *ret_created = version < 0;
        if (version == (int64_t)set->n_steps)
                return 0;
        if (version < 0 && drop_companions(directory, set, r) < 0)
                return -1;
        if (build_copy(old_path, new_path, set, version, r) < 0 || (version >= 0 && fold_wal(old_path, r) < 0) ||
            replace(directory, old_path, new_path, r) < 0) {
                (void)unlink(new_path);
                (void)unlink(journal);
                return -1;
        }
        if (version >= 0)
                log_notice("%s was migrated from schema %" PRId64 " to %zu", old_path, version, set->n_steps);
        return 0;
}
