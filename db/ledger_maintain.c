/* SPDX-License-Identifier: Apache-2.0 */
/* The ledger's own thread: writes audit lines, and moves the WAL of state.db into the file. */
#include <errno.h>
#include <signal.h>
#include <time.h>

#include "ledger_private.h"
#include "util/log.h"

#define INTERVAL_SECONDS 1
#define WAL_IDLE 1024           /* pages (2 MiB): worth a checkpoint when nobody has committed for an interval */
#define WAL_STEP 32768          /* pages (64 MiB): worth one beside a busy writer, each time it has grown by this */
#define WAL_HARD 131072         /* pages (256 MiB): the writer is stopped so that the WAL can start again */

/* Runs in the committing thread, after each commit. Installing it also turns sqlite's own checkpoint off, which would
 * sync two files right there. */
static int after_commit(void *arg, sqlite3 *handle, const char *schema, int pages) {
        struct ledger *l = arg;
        struct maintenance *m = &l->maintenance;

        (void)handle, (void)schema;
        if (pages < atomic_exchange(&m->wal_pages, pages))
                atomic_store(&m->poke_at, atomic_load(&m->wal_step));   /* the WAL has started again */
        if (pages >= atomic_load(&m->poke_at)) {
                atomic_store(&m->poke_at, pages + atomic_load(&m->wal_step));
                maintenance_poke(l);
        }
        return SQLITE_OK;
}

/* A checkpoint syncs two files, and a commit that comes meanwhile may wait for the disk with it (tens of milliseconds,
 * seen): while commits come they are few and large, and the small ones happen when there are no commits. */
static bool wants_checkpoint(struct maintenance *m, int *seen) {
        int pages = atomic_load(&m->wal_pages);
        bool idle = pages == *seen;

        *seen = pages;
        return pages >= (idle ? WAL_IDLE : atomic_load(&m->wal_step));
}

/* Passive: copies what no reader needs, beside the running writer. The WAL starts again by itself when a commit finds
 * all of it copied, which a writer that never pauses may prevent: then the writer is stopped, for the little that is
 * left. A reader (ledger_check) can prevent both; there is always a next time. */
static void checkpoint(struct ledger *l) {
        int in_wal = 0, copied = 0, rc;

        if (ledger_is_damaged(l))
                return;
        rc = sqlite3_wal_checkpoint_v2(l->maintenance.db.handle, NULL, SQLITE_CHECKPOINT_PASSIVE, &in_wal, &copied);
        if (rc == SQLITE_OK && in_wal >= atomic_load(&l->maintenance.wal_hard)) {
                LOCK_SCOPE(&l->state_gate);
                rc = sqlite3_wal_checkpoint_v2(l->maintenance.db.handle, NULL, SQLITE_CHECKPOINT_RESTART, &in_wal,
                                               &copied);
        }
        if (rc != SQLITE_OK && (rc & 0xff) != SQLITE_BUSY) {
                struct refusal r;

                (void)db_refuse(&l->maintenance.db, &r);
                log_error("state.db: its WAL (%d pages, %d copied) cannot be moved into the file: %s", in_wal, copied, r.text);
        }
}

/* Waits for a poke or the end of the interval; false: stop. */
static bool wait_for_work(struct maintenance *m) {
        LOCK_SCOPE(&m->lock);
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += INTERVAL_SECONDS;
        while (!m->stop && !m->poked)
                if (pthread_cond_clockwait(&m->wake, &m->lock, CLOCK_MONOTONIC, &until) == ETIMEDOUT)
                        break;
        m->poked = false;
        return !m->stop;
}

static void *maintenance_run(void *arg) {
        struct ledger *l = arg;
        struct refusal r;
        bool failing = false;
        int seen = 0;

        while (wait_for_work(&l->maintenance)) {
                bool failed = !ledger_is_damaged(l) && ledger_audit_flush(l, &r) < 0;

                if (failed && !failing)
                        log_error("audit lines wait in memory: %s", r.text);
                failing = failed;
                if (wants_checkpoint(&l->maintenance, &seen))
                        checkpoint(l);
        }
        return NULL;
}

void maintenance_poke(struct ledger *l) {
        LOCK_SCOPE(&l->maintenance.lock);

        l->maintenance.poked = true;
        pthread_cond_signal(&l->maintenance.wake);
}

int maintenance_start(struct ledger *l, const char *state_path, struct refusal *r) {
        struct maintenance *m = &l->maintenance;
        sigset_t all, old;
        int e;

        if (db_open(&m->db, state_path, SQLITE_OPEN_READWRITE, r) < 0)
                return -1;
        /* Never waits for a reader while it keeps the writer out. */
        (void)sqlite3_busy_timeout(m->db.handle, 0);
        if (db_exec(&m->db, "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -256", r) < 0)
                return -1;
        atomic_store(&m->poke_at, WAL_STEP);
        atomic_store(&m->wal_step, WAL_STEP);
        atomic_store(&m->wal_hard, WAL_HARD);
        sigfillset(&all);               /* the program's signals are not this thread's */
        pthread_sigmask(SIG_SETMASK, &all, &old);
        e = pthread_create(&m->thread, NULL, maintenance_run, l);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (e != 0)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No thread for the ledger's upkeep: error %d.", e);
        m->started = true;
        (void)sqlite3_wal_hook(l->state.handle, after_commit, l);
        return 0;
}

void maintenance_stop(struct ledger *l) {
        struct maintenance *m = &l->maintenance;

        if (m->started) {
                pthread_mutex_lock(&m->lock);
                m->stop = true;
                pthread_cond_signal(&m->wake);
                pthread_mutex_unlock(&m->lock);
                pthread_join(m->thread, NULL);
                m->started = false;
        }
        db_close(&m->db);
}
