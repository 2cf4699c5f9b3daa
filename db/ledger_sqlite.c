/* SPDX-License-Identifier: Apache-2.0 */
/* Opening, locking and closing of the ledger, and the numbers it hands out. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ledger_private.h"
#include "migrate.h"
#include "util/log.h"
#include "wal_check.h"

#define BOOT_ID_FILE "/proc/sys/kernel/random/boot_id"
#define ID_BLOCK 1000000

#define X(name, sql) [STMT_##name] = sql,
static const char *const config_sql[] = { CONFIG_STATEMENTS(X) };
static const char *const state_sql[] = { STATE_STATEMENTS(X) };
#undef X

static int refuse_errno(struct refusal *r, const char *path, const char *what, int errnum) {
        (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "%s %s by uid %u: %s.", path, what, geteuid(), strerror(errnum));
        r->errnum = errnum;
        return -1;
}

/* The pid that the lock's owner wrote; it may not have come to that yet. */
static int refuse_locked(struct refusal *r, const char *directory, int fd) {
        char text[16] = "";
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        long pid = n > 0 ? strtol(text, NULL, 10) : 0;

        if (pid > 0)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "The ledger in %s is in use by process %ld.", directory,
                              pid);
        return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "The ledger in %s is in use by a process that is just starting.",
                      directory);
}

static int read_boot_id(char ret[static 40], struct refusal *r) {
        _cleanup_close_ int fd = open(BOOT_ID_FILE, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, ret, 36);

        if (n != 36)
                return refuse_errno(r, BOOT_ID_FILE, "cannot be read", n < 0 ? errno : EIO);
        ret[36] = 0;
        return 0;
}

/* flock and not fcntl: it also excludes a second ledger in this process, and no close() elsewhere drops it. The file
 * stays when the lock goes; removing it would let two processes lock two files of that name. In it: the pid, and the
 * boot under which the ledger was last used. */
int ledger_lock(const char *directory, bool *ret_same_boot, struct refusal *r) {
        char path[PATH_MAX], boot_id[40], old[80] = "";
        _cleanup_close_ int fd = -1;

        if (db_path(path, directory, "ledger.lock", "", r) < 0)
                return -1;
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return refuse_errno(r, path, "cannot be opened for writing", errno);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? refuse_locked(r, directory, fd)
                                            : refuse_errno(r, path, "cannot be locked", errno);
        if (read_boot_id(boot_id, r) < 0)
                return -1;
        *ret_same_boot = pread(fd, old, sizeof old - 1, 0) > 0 && strstr(old, boot_id);
        if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n%s\n", (int)getpid(), boot_id) < 0)
                return refuse_errno(r, path, "cannot be written", errno);
        return fd_steal(&fd);
}

/* A missing file is fine. */
static int remove_state(const char *directory, struct refusal *r) {
        static const char *const suffixes[] = { "", "-wal", "-shm" };
        char path[PATH_MAX];

        for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
                if (db_path(path, directory, "state.db", suffixes[i], r) < 0)
                        return -1;
                if (unlink(path) < 0 && errno != ENOENT)
                        return refuse_errno(r, path, "cannot be removed", errno);
        }
        return 0;
}

/* Both are looked at before either is touched: a refused start changes nothing. */
static int migrate_both(const struct ledger_options *o, bool same_boot, bool *ret_state_created, struct refusal *r) {
        bool created;
        int64_t version;

        if (o->forget_state && remove_state(o->directory, r) < 0)
                return -1;
        if (same_boot && (wal_check(o->directory, "config.db", r) < 0 || wal_check(o->directory, "state.db", r) < 0))
                return -1;
        if (migrate_inspect(o->directory, &migrations_config, &version, r) < 0 ||
            migrate_inspect(o->directory, &migrations_state, &version, r) < 0 ||
            migrate_file(o->directory, &migrations_config, &created, r) < 0)
                return -1;
        return migrate_file(o->directory, &migrations_state, ret_state_created, r);
}

/* Who has it locked is not ours, and what waits for it is everybody's. */
#define LOCKED_MS 500

static int open_database(struct db *d, const char *path, const char *pragmas, struct refusal *r) {
        int64_t is_wal = 0;

        if (db_open(d, path, SQLITE_OPEN_READWRITE, r) < 0 || db_exec(d, "PRAGMA journal_mode = WAL", r) < 0 ||
            db_get_int64(d, "SELECT journal_mode = 'wal' FROM pragma_journal_mode", &is_wal, r) < 0)
                return -1;
        if (!is_wal)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "%s cannot have a write-ahead log: its file system does not support shared memory.",
                              path);
        (void)sqlite3_busy_timeout(d->handle, LOCKED_MS);
        return db_exec(d, pragmas, r);
}

static int open_config(struct ledger *l, struct refusal *r) {
        char path[PATH_MAX];

        if (db_path(path, l->directory, "config.db", "", r) < 0 ||
            open_database(&l->config, path, "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON", r) < 0)
                return -1;
        return db_prepare(&l->config, config_sql, _STMT_CONFIG_N, r);
}

/* cache_size: a million mappings are 50 MB, and a map touches a few leaves of them. temp_store: what a batch needs to
 * be undone stays in memory. secure_delete: nothing secret is in here, and zeroing costs. */
static int open_state(struct ledger *l, struct refusal *r) {
        char path[PATH_MAX];

        if (db_path(path, l->directory, "state.db", "", r) < 0 ||
            open_database(&l->state, path,
                          "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON; PRAGMA secure_delete = OFF; "
                          "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -32768; "
                          "PRAGMA journal_size_limit = 268435456",
                          r) < 0)
                return -1;
        if (rows_register(l->state.handle, &l->rows) != SQLITE_OK)
                return db_refuse(&l->state, r);
        if (db_prepare(&l->state, state_sql, _STMT_STATE_N, r) < 0)
                return -1;
        return maintenance_start(l, path, r);
}

/* A new file is of this boot. One without a boot id (its creator died before writing it) says nothing of value. */
static int settle_boot_id(struct ledger *l, bool created, struct refusal *r) {
        char sql[160];
        int64_t same = 0;

        if (created) {
                (void)snprintf(sql, sizeof sql, "INSERT INTO boot VALUES (1, '%s')", l->boot_id);
                return db_exec(&l->state, sql, r);
        }
        (void)snprintf(sql, sizeof sql, "SELECT boot_id = '%s' FROM boot", l->boot_id);
        if (db_get_int64(&l->state, sql, &same, r) < 0)
                return -1;
        atomic_store(&l->other_boot, !same);
        return 0;
}

static void init_locks(struct ledger *l) {
        pthread_mutex_init(&l->config_lock, NULL);
        pthread_mutex_init(&l->state_gate, NULL);
        pthread_mutex_init(&l->ids.lock, NULL);
        pthread_mutex_init(&l->audit.lock, NULL);
        pthread_mutex_init(&l->maintenance.lock, NULL);
        pthread_cond_init(&l->maintenance.wake, NULL);
        damage_init(&l->damage);
        l->config.damage = l->state.damage = l->maintenance.db.damage = &l->damage;
}

static void ledger_close_p(struct ledger **l) {
        *l = ledger_close(*l);
}

int ledger_open(const struct ledger_options *o, struct ledger **ret, struct refusal *r) {
        _cleanup_(ledger_close_p) struct ledger *l = calloc(1, sizeof *l);
        bool created = false, same_boot;

        if (!l)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory to open the ledger.");
        l->lock_fd = -1;
        init_locks(l);
        if (snprintf(l->directory, sizeof l->directory, "%s", o->directory) >= PATH_MAX)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "The ledger's directory name is too long: %.200s...",
                              o->directory);
        if (mkdir(o->directory, 0700) < 0 && errno != EEXIST)
                return refuse_errno(r, o->directory, "cannot be created", errno);
        l->lock_fd = ledger_lock(o->directory, &same_boot, r);
        if (l->lock_fd < 0)
                return -1;
        if (read_boot_id(l->boot_id, r) < 0 || migrate_both(o, same_boot, &created, r) < 0 || audit_init(&l->audit, r) < 0 ||
            open_config(l, r) < 0 || open_state(l, r) < 0 || settle_boot_id(l, created, r) < 0)
                return -1;
        *ret = l;
        l = NULL;
        return 0;
}

struct ledger *ledger_close(struct ledger *l) {
        struct refusal r;

        if (!l)
                return NULL;
        maintenance_stop(l);
        if (l->config.handle && !ledger_is_damaged(l) && ledger_audit_flush(l, &r) < 0)
                log_error("audit lines were lost: %s", r.text);
        db_close(&l->state);
        db_close(&l->config);
        audit_destroy(&l->audit);
        free(l->scratch);
        (void)fd_close(l->lock_fd);
        pthread_mutex_destroy(&l->config_lock);
        pthread_mutex_destroy(&l->state_gate);
        pthread_mutex_destroy(&l->ids.lock);
        pthread_mutex_destroy(&l->audit.lock);
        pthread_mutex_destroy(&l->maintenance.lock);
        pthread_cond_destroy(&l->maintenance.wake);
        damage_destroy(&l->damage);
        free(l);
        return NULL;
}

bool ledger_is_damaged(struct ledger *l) {
        struct refusal ignored;

        return damage_check(&l->damage, &ignored) < 0;
}

bool ledger_is_unwell(struct ledger *l) {
        return l->state.fault != FAULT_OF_REQUEST;
}

bool ledger_state_is_from_other_boot(const struct ledger *l) {
        return atomic_load(&l->other_boot);
}

/* The block is on the disk before its first number is handed out: a crash skips numbers and repeats none. */
static int reserve_ids(struct ledger *l, struct refusal *r) {
        LOCK_SCOPE(&l->config_lock);
        _cleanup_stmt_ struct stmt reserve = db_stmt(&l->config, STMT_ID_RESERVE);
        _cleanup_stmt_ struct stmt next = db_stmt(&l->config, STMT_ID_NEXT);
        uint64_t end = 0;

        if (config_begin(l, r) < 0)
                return -1;
        stmt_int64(&reserve, 1, ID_BLOCK);
        if (stmt_run(&reserve, NULL, r) < 0 || stmt_next(&next, r) < 0)
                goto fail;
        end = stmt_get_bits(&next, 0);
        stmt_end(&next);                /* a read in progress would keep the commit from finishing */
        if (end <= ID_BLOCK) {
                (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "config.db has lost its id counter.");
                goto fail;
        }
        if (config_commit(l, r) < 0)
                return -1;
        l->ids.end = end;
        l->ids.next = end - ID_BLOCK;
        return 0;
fail:
        stmt_end(&next);
        config_rollback(l);
        return -1;
}

#define IDS_OF_A_REQUEST 16     /* more than any needs */

int ledger_ids_ready(struct ledger *l, struct refusal *r) {
        LOCK_SCOPE(&l->ids.lock);

        return l->ids.end - l->ids.next >= IDS_OF_A_REQUEST ? 0 : reserve_ids(l, r);
}

uint64_t ledger_next_id(struct ledger *l) {
        LOCK_SCOPE(&l->ids.lock);
        struct refusal r;

        if (l->ids.next == l->ids.end && reserve_ids(l, &r) < 0) {
                log_error("no new ids: %s", r.text);
                return 0;
        }
        return l->ids.next++;
}
