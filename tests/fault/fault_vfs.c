/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linked into $BUILD/failpoints/iommud alone: sqlite's files with the faults that a test asks for (fault/failpoints.h),
 * between sqlite and the VFS that it would use. Only config.db and state.db, with their WALs and journals, have faults.
 */
#include <errno.h>
#include <sqlite3.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "fault/failpoint_file.h"

struct fault_file {
        sqlite3_file base;
        unsigned which;                 /* FAULT_CONFIG, FAULT_STATE, or 0 */
        sqlite3_file real[];            /* the other VFS's, of its size */
};

static sqlite3_vfs *real_vfs;

static sqlite3_file *real_of(sqlite3_file *f) {
        return ((struct fault_file *)f)->real;
}

/* Does this call of this kind fail, and how? */
static enum ledger_fault fault_of(sqlite3_file *f) {
        struct failpoints *shared = failpoint_file();
        unsigned which = ((struct fault_file *)f)->which;

        if (!shared || (atomic_load(&shared->fault_files) & which) == 0)
                return FAULT_NONE;
        return (enum ledger_fault)atomic_load(&shared->fault);
}

/* A call that would fail: perhaps some of them still work. */
static int fail(int code) {
        struct failpoints *shared = failpoint_file();
        unsigned left = atomic_load(&shared->fault_after);

        while (left > 0)
                if (atomic_compare_exchange_weak(&shared->fault_after, &left, left - 1))
                        return SQLITE_OK;
        atomic_fetch_add(&shared->faults, 1);
        return code;
}

/* What the operating system would have said; 0: nothing. */
static int errno_of_fault(enum ledger_fault fault) {
        switch (fault) {
        case FAULT_FULL: return ENOSPC;
        case FAULT_READ_ONLY: return EROFS;
        case FAULT_WRITE:
        case FAULT_SHORT:
        case FAULT_READ:
        case FAULT_SYNC: return EIO;
        case FAULT_LOCKED:
        case FAULT_NONE:
        default: return 0;
        }
}

/* ---- files ---- */

static int file_close(sqlite3_file *f) {
        return real_of(f)->pMethods->xClose(real_of(f));
}

static int file_read(sqlite3_file *f, void *data, int n, sqlite3_int64 at) {
        int k = fault_of(f) == FAULT_READ ? fail(SQLITE_IOERR_READ) : SQLITE_OK;

        return k != SQLITE_OK ? k : real_of(f)->pMethods->xRead(real_of(f), data, n, at);
}

static int write_fault(sqlite3_file *f) {
        switch (fault_of(f)) {
        case FAULT_FULL: return fail(SQLITE_FULL);
        case FAULT_WRITE:
        case FAULT_SHORT: return fail(SQLITE_IOERR_WRITE);
        case FAULT_READ_ONLY: return fail(SQLITE_IOERR_WRITE);
        case FAULT_NONE:
        case FAULT_READ:
        case FAULT_SYNC:
        case FAULT_LOCKED:
        default: return SQLITE_OK;
        }
}

static int file_write(sqlite3_file *f, const void *data, int n, sqlite3_int64 at) {
        struct failpoints *shared = failpoint_file();
        int k = write_fault(f);

        if (k != SQLITE_OK) {
                if (fault_of(f) == FAULT_SHORT && n > 1)
                        (void)real_of(f)->pMethods->xWrite(real_of(f), data, n / 2, at);
                return k;
        }
        if (shared && ((struct fault_file *)f)->which)
                atomic_fetch_add(&shared->bytes_written, (unsigned long long)n);
        return real_of(f)->pMethods->xWrite(real_of(f), data, n, at);
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size) {
        int k = write_fault(f);

        return k != SQLITE_OK ? k : real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int file_sync(sqlite3_file *f, int flags) {
        enum ledger_fault fault = fault_of(f);
        int k = fault == FAULT_SYNC || fault == FAULT_WRITE ? fail(SQLITE_IOERR_FSYNC) : SQLITE_OK;

        return k != SQLITE_OK ? k : real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int file_size(sqlite3_file *f, sqlite3_int64 *ret) {
        return real_of(f)->pMethods->xFileSize(real_of(f), ret);
}

static int file_lock(sqlite3_file *f, int level) {
        int k = fault_of(f) == FAULT_LOCKED && level > SQLITE_LOCK_SHARED ? fail(SQLITE_BUSY) : SQLITE_OK;

        return k != SQLITE_OK ? k : real_of(f)->pMethods->xLock(real_of(f), level);
}

static int file_unlock(sqlite3_file *f, int level) {
        return real_of(f)->pMethods->xUnlock(real_of(f), level);
}

static int file_check_reserved(sqlite3_file *f, int *ret) {
        return real_of(f)->pMethods->xCheckReservedLock(real_of(f), ret);
}

static int file_control(sqlite3_file *f, int op, void *arg) {
        int e = op == SQLITE_FCNTL_LAST_ERRNO ? errno_of_fault(fault_of(f)) : 0;

        if (e != 0) {
                *(int *)arg = e;
                return SQLITE_OK;
        }
        return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int file_sector_size(sqlite3_file *f) {
        return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int file_characteristics(sqlite3_file *f) {
        return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

static int file_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **ret) {
        return real_of(f)->pMethods->xShmMap(real_of(f), page, size, extend, ret);
}

/* In WAL mode the writer's lock is one of these. */
static int file_shm_lock(sqlite3_file *f, int offset, int n, int flags) {
        bool writes = (flags & SQLITE_SHM_LOCK) && (flags & SQLITE_SHM_EXCLUSIVE) && offset == 0;
        int k = fault_of(f) == FAULT_LOCKED && writes ? fail(SQLITE_BUSY) : SQLITE_OK;

        return k != SQLITE_OK ? k : real_of(f)->pMethods->xShmLock(real_of(f), offset, n, flags);
}

static void file_shm_barrier(sqlite3_file *f) {
        real_of(f)->pMethods->xShmBarrier(real_of(f));
}

static int file_shm_unmap(sqlite3_file *f, int delete_it) {
        return real_of(f)->pMethods->xShmUnmap(real_of(f), delete_it);
}

static const sqlite3_io_methods methods = {
        .iVersion = 2,                  /* without memory-mapped reads, which would pass us by */
        .xClose = file_close, .xRead = file_read, .xWrite = file_write, .xTruncate = file_truncate, .xSync = file_sync,
        .xFileSize = file_size, .xLock = file_lock, .xUnlock = file_unlock, .xCheckReservedLock = file_check_reserved,
        .xFileControl = file_control, .xSectorSize = file_sector_size, .xDeviceCharacteristics = file_characteristics,
        .xShmMap = file_shm_map, .xShmLock = file_shm_lock, .xShmBarrier = file_shm_barrier, .xShmUnmap = file_shm_unmap,
};

/* ---- the file system ---- */

static unsigned which_file(const char *path) {
        const char *name = path ? strrchr(path, '/') : NULL;

        if (!name)
                return 0;
        return strncmp(name, "/config.db", 10) == 0 ? FAULT_CONFIG : strncmp(name, "/state.db", 9) == 0 ? FAULT_STATE : 0;
}

static int vfs_open(sqlite3_vfs *v, const char *path, sqlite3_file *f, int flags, int *ret_flags) {
        struct fault_file *file = (struct fault_file *)f;
        int k;

        (void)v;
        file->which = which_file(path);
        k = real_vfs->xOpen(real_vfs, path, file->real, flags, ret_flags);
        file->base.pMethods = file->real->pMethods ? &methods : NULL;
        return k;
}

static int vfs_last_error(sqlite3_vfs *v, int size, char *text) {
        int e = errno_of_fault(failpoint_file() ? (enum ledger_fault)atomic_load(&failpoint_file()->fault) : FAULT_NONE);

        (void)v;
        return e ? e : real_vfs->xGetLastError(real_vfs, size, text);
}

/* Before main(): whatever opens a database gets this one. The other methods are the real VFS's own. */
__attribute__((constructor)) static void fault_vfs_register(void) {
        static sqlite3_vfs fault_vfs;

        if (sqlite3_initialize() != SQLITE_OK || !(real_vfs = sqlite3_vfs_find(NULL)))
                abort();
        fault_vfs = *real_vfs;
        fault_vfs.zName = "fault";
        fault_vfs.szOsFile = (int)sizeof(struct fault_file) + real_vfs->szOsFile;
        fault_vfs.xOpen = vfs_open;
        fault_vfs.xGetLastError = vfs_last_error;
        if (sqlite3_vfs_register(&fault_vfs, 1) != SQLITE_OK)
                abort();
}
