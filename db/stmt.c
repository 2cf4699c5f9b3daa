/* SPDX-License-Identifier: Apache-2.0 */
#include "stmt.h"

#include <stdio.h>
#include <string.h>

#define BUSY_TIMEOUT_MS 5000

int db_path(char ret[static PATH_MAX], const char *directory, const char *file, const char *suffix, struct refusal *r) {
        int n = snprintf(ret, PATH_MAX, "%s/%s%s", directory, file, suffix);

        if (n < 0 || n >= PATH_MAX)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "The ledger's directory name is too long: %.200s...",
                              directory);
        return 0;
}

/* A name's last component, cut to the field. */
static void db_set_name(struct db *d, const char *path) {
        const char *slash = strrchr(path, '/');

        (void)snprintf(d->name, sizeof d->name, "%s", slash ? slash + 1 : path);
}

int db_refuse(struct db *d, struct refusal *r) {
        (void)db_fault_refuse(d, r);
        d->fault = db_fault_of(sqlite3_extended_errcode(d->handle));
        if (d->fault == FAULT_LASTING && d->damage)
                damage_note(d->damage, r->text);
        return -1;
}

int db_open(struct db *d, const char *path, int flags, struct refusal *r) {
        struct damage *damage = d->damage;
        int rc;

        *d = (struct db){ .damage = damage };
        db_set_name(d, path);
        rc = sqlite3_open_v2(path, &d->handle, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);
        if (rc != SQLITE_OK) {
                (void)db_refuse(d, r);
                db_close(d);
                return -1;
        }
        (void)sqlite3_busy_timeout(d->handle, BUSY_TIMEOUT_MS);
        return 0;
}

void db_close(struct db *d) {
        for (size_t i = 0; i < d->n_cached; i++)
                sqlite3_finalize(d->cached[i]);
        free(d->cached);
        /* The last one out would move the WAL into the file. */
        if (d->handle && d->damage && atomic_load(&d->damage->found))
                (void)sqlite3_db_config(d->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        sqlite3_close(d->handle);
        *d = (struct db){ .damage = d->damage };
}

int db_exec(struct db *d, const char *sql, struct refusal *r) {
        if (sqlite3_exec(d->handle, sql, NULL, NULL, NULL) != SQLITE_OK)
                return db_refuse(d, r);
        return 0;
}

int db_get_int64(struct db *d, const char *sql, int64_t *ret, struct refusal *r) {
        _cleanup_once_ struct stmt s = { 0 };
        int k;

        if (db_prepare_one(d, sql, &s, r) < 0)
                return -1;
        k = stmt_next(&s, r);
        if (k > 0)
                *ret = stmt_get_int64(&s, 0);
        return k < 0 ? -1 : 0;
}

int db_prepare_one(struct db *d, const char *sql, struct stmt *ret, struct refusal *r) {
        *ret = (struct stmt){ .db = d };
        if (sqlite3_prepare_v2(d->handle, sql, -1, &ret->handle, NULL) != SQLITE_OK)
                return db_refuse(d, r);
        return 0;
}

int db_prepare(struct db *d, const char *const *sql, size_t n, struct refusal *r) {
        d->cached = calloc(n, sizeof *d->cached);
        if (!d->cached)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory to prepare the statements of %s.", d->name);
        for (; d->n_cached < n; d->n_cached++)
                if (sqlite3_prepare_v3(d->handle, sql[d->n_cached], -1, SQLITE_PREPARE_PERSISTENT,
                                       &d->cached[d->n_cached], NULL) != SQLITE_OK)
                        return db_refuse(d, r);
        return 0;
}

int stmt_next(struct stmt *s, struct refusal *r) {
        if (s->rc != SQLITE_OK)
                return db_refuse(s->db, r);
        switch (sqlite3_step(s->handle)) {
        case SQLITE_ROW:
                return 1;
        case SQLITE_DONE:
                return 0;
        default:
                return db_refuse(s->db, r);
        }
}

int stmt_run(struct stmt *s, int64_t *ret_changed, struct refusal *r) {
        int k = stmt_next(s, r);

        if (k > 0)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "A statement of %s gave rows where none were expected.",
                              s->db->name);
        if (k == 0 && ret_changed)
                *ret_changed = sqlite3_changes64(s->db->handle);
        return k;
}

void stmt_get_text(const struct stmt *s, int column, char *ret, size_t size) {
        const unsigned char *text = sqlite3_column_text(s->handle, column);

        (void)snprintf(ret, size, "%s", text ? (const char *)text : "");
}

size_t stmt_get_blob(const struct stmt *s, int column, void *ret, size_t size) {
        const void *blob = sqlite3_column_blob(s->handle, column);      /* before bytes: it may convert */
        int n = sqlite3_column_bytes(s->handle, column);
        size_t have = blob && n > 0 ? (size_t)n : 0;

        if (have > size)
                have = size;
        if (have > 0)
                memcpy(ret, blob, have);
        return have;
}
