/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include <sqlite3.h>

#include "fault.h"
#include "util/cleanup.h"
#include "util/refusal.h"

/*
 * SQLite, each primitive wrapped once with its diagnostic. Not thread-safe: one connection is used by one thread at a
 * time, and the caller sees to that.
 *
 * Functions return 0, or -1 with LEDGER_UNAVAILABLE and sqlite's own words.
 */
struct db {
        sqlite3 *handle;
        char name[32];                  /* for diagnostics: "state.db" */
        size_t n_cached;
        sqlite3_stmt **cached;          /* one per entry of the table that db_prepare() was given */
        struct damage *damage;          /* where a fault that lasts is noted; NULL: nowhere */
        enum db_fault fault;            /* of the last refusal */
};

/* directory/file with suffix; refuses what does not fit. */
int db_path(char ret[static PATH_MAX], const char *directory, const char *file, const char *suffix, struct refusal *r);

/* flags: SQLITE_OPEN_READWRITE or _READONLY; NOMUTEX and extended result codes are always added. A database that
 * is locked is waited for, but never long. On failure *d is closed. */
int db_open(struct db *d, const char *path, int flags, struct refusal *r);
void db_close(struct db *d);            /* harmless twice and on zeroes */

/* One or more statements without results. */
int db_exec(struct db *d, const char *sql, struct refusal *r);
/* The first column of the first row; *ret is untouched if there is none. */
int db_get_int64(struct db *d, const char *sql, int64_t *ret, struct refusal *r);
int db_prepare(struct db *d, const char *const *sql, size_t n, struct refusal *r);

/* Refuses with the connection's last error. */
int db_refuse(struct db *d, struct refusal *r);

/* A cached statement between bind and end. The first bind that fails is reported by the step after it. */
struct stmt {
        struct db *db;
        sqlite3_stmt *handle;
        int rc;
};

/* Ends by itself with the scope: it is reset then, also after a step that failed. */
#define _cleanup_stmt_ _cleanup_(stmt_end)

/* A statement that is used once; on failure there is nothing to finalize. */
int db_prepare_one(struct db *d, const char *sql, struct stmt *ret, struct refusal *r);
#define _cleanup_once_ _cleanup_(stmt_finalize)

static inline struct stmt db_stmt(struct db *d, size_t which) {
        return (struct stmt){ .db = d, .handle = d->cached[which], .rc = SQLITE_OK };
}

static inline void stmt_end(struct stmt *s) {
        sqlite3_reset(s->handle);
}

static inline void stmt_finalize(struct stmt *s) {
        sqlite3_finalize(s->handle);
        s->handle = NULL;
}

static inline void stmt_int64(struct stmt *s, int at, int64_t value) {
        if (s->rc == SQLITE_OK)
                s->rc = sqlite3_bind_int64(s->handle, at, value);
}

/* 64-bit pattern: numbers from 2^63 on are negative in the database. For amounts that are never compared there. */
static inline void stmt_bits(struct stmt *s, int at, uint64_t value) {
        stmt_int64(s, at, (int64_t)value);
}

static inline void stmt_null(struct stmt *s, int at) {
        if (s->rc == SQLITE_OK)
                s->rc = sqlite3_bind_null(s->handle, at);
}

/* The bytes must stay until the statement ended. NULL binds SQL NULL. */
static inline void stmt_text(struct stmt *s, int at, const char *text) {
        if (s->rc == SQLITE_OK)
                s->rc = sqlite3_bind_text(s->handle, at, text, -1, SQLITE_STATIC);
}

static inline void stmt_blob(struct stmt *s, int at, const void *data, size_t size) {
        if (s->rc == SQLITE_OK)
                s->rc = sqlite3_bind_blob64(s->handle, at, data, size, SQLITE_STATIC);
}

/* 1: a row, 0: no more, -1. */
int stmt_next(struct stmt *s, struct refusal *r);
/* A statement without rows. *ret_changed may be NULL; rows inserted, updated or deleted, without cascades. */
int stmt_run(struct stmt *s, int64_t *ret_changed, struct refusal *r);

static inline int64_t stmt_get_int64(const struct stmt *s, int column) {
        return sqlite3_column_int64(s->handle, column);
}

static inline uint64_t stmt_get_bits(const struct stmt *s, int column) {
        return (uint64_t)sqlite3_column_int64(s->handle, column);
}

static inline uint32_t stmt_get_u32(const struct stmt *s, int column) {
        return (uint32_t)sqlite3_column_int64(s->handle, column);
}

/* Copies, cut to size and terminated. */
void stmt_get_text(const struct stmt *s, int column, char *ret, size_t size);
/* Copies at most size bytes and returns how many there were to copy, at most size. */
size_t stmt_get_blob(const struct stmt *s, int column, void *ret, size_t size);
