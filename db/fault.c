/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator hears when the ledger's files fail. */
#include "fault.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lock_owner.h"
#include "stmt.h"
#include "util/log.h"

enum db_fault db_fault_of(int sqlite_code) {
        switch (sqlite_code & 0xff) {
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
        case SQLITE_NOMEM:
        case SQLITE_READONLY:
        case SQLITE_IOERR:
        case SQLITE_FULL:
        case SQLITE_CANTOPEN:
        case SQLITE_PROTOCOL:
        case SQLITE_PERM:
        case SQLITE_AUTH: return FAULT_PASSING;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB: return FAULT_LASTING;
        default: return FAULT_OF_REQUEST;
        }
}

static int last_errno(const struct db *d, int which) {
        sqlite3_file *f = NULL;
        int e = 0;

        if (sqlite3_file_control(d->handle, "main", which, &f) != SQLITE_OK || !f || !f->pMethods ||
            f->pMethods->xFileControl(f, SQLITE_FCNTL_LAST_ERRNO, &e) != SQLITE_OK)
                return 0;
        return e;
}

/* The system's number behind it. What fails in a commit sqlite knows of its files alone: the database's and the WAL's. */
static int system_errno(const struct db *d) {
        int e = sqlite3_system_errno(d->handle);

        if (e == 0)
                e = last_errno(d, SQLITE_FCNTL_JOURNAL_POINTER);
        return e != 0 ? e : last_errno(d, SQLITE_FCNTL_FILE_POINTER);
}

static int errno_of(const struct db *d, int code) {
        int e = system_errno(d);

        switch (code & 0xff) {
        case SQLITE_FULL: return ENOSPC;
        case SQLITE_NOMEM: return ENOMEM;
        case SQLITE_BUSY:
        case SQLITE_LOCKED: return EBUSY;
        case SQLITE_READONLY: return e ? e : EROFS;
        default: return e ? e : EIO;
        }
}

static void describe(const struct db *d, int errnum, char *ret, size_t size) {
        long pid;

        switch (errnum) {
        case ENOSPC:
        case EDQUOT:
                (void)snprintf(ret, size, "no space is left where it lies: free some, and it goes on by itself");
                break;
        case EROFS:
        case EACCES:
        case EPERM:
                (void)snprintf(ret, size, "it may not be written (%s): mount its file system for writing, or give back its "
                               "permissions, and it goes on by itself", strerrordesc_np(errnum));
                break;
        case EBUSY:
                pid = lock_owner_of(sqlite3_db_filename(d->handle, "main"));
                if (pid > 0)
                        (void)snprintf(ret, size, "process %ld has locked it for writing: end that, and it goes on by itself",
                                       pid);
                else
                        (void)snprintf(ret, size, "another process has locked it for writing: end that, and it goes on by "
                                       "itself");
                break;
        case ENOMEM:
                (void)snprintf(ret, size, "no memory is left");
                break;
        default:
                (void)snprintf(ret, size, "the disk or its file system fails (%s): look at the kernel's log; each request tries "
                               "again", strerrordesc_np(errnum));
        }
}

int db_fault_refuse(const struct db *d, struct refusal *r) {
        int code = sqlite3_extended_errcode(d->handle);
        char what[200];
        int errnum;

        switch (db_fault_of(code)) {
        case FAULT_PASSING:
                errnum = errno_of(d, code);
                describe(d, errnum, what, sizeof what);
                (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "The ledger (%s) cannot be used: %s (%s, sqlite error %d).", d->name,
                             what, sqlite3_errmsg(d->handle), code);
                r->errnum = errnum;
                return -1;
        case FAULT_LASTING:
                (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                             "The ledger (%s) is damaged: %s (sqlite error %d). Nothing is written to it any more; what is mapped "
                             "stays mapped. Keep a copy and restore a backup, or remove its files: then all sessions end.",
                             d->name, sqlite3_errmsg(d->handle), code);
                r->errnum = EUCLEAN;
                return -1;
        case FAULT_OF_REQUEST:
        default:
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "The ledger (%s) answers: %s (sqlite error %d).", d->name,
                              sqlite3_errmsg(d->handle), code);
        }
}

/* ---- damage ---- */

void damage_init(struct damage *d) {
        atomic_init(&d->found, false);
        pthread_mutex_init(&d->lock, NULL);
}

void damage_destroy(struct damage *d) {
        pthread_mutex_destroy(&d->lock);
}

void damage_note(struct damage *d, const char *text) {
        LOCK_SCOPE(&d->lock);

        if (atomic_load(&d->found))
                return;
        (void)snprintf(d->text, sizeof d->text, "%s", text);
        atomic_store(&d->found, true);
        log_error("%s", text);
}

int damage_check(struct damage *d, struct refusal *r) {
        if (!atomic_load(&d->found))
                return 0;
        LOCK_SCOPE(&d->lock);
        (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "%s", d->text);
        r->errnum = EUCLEAN;
        return -1;
}
