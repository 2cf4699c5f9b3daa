/* SPDX-License-Identifier: Apache-2.0 */
#include "rows.h"

#include <string.h>

#include "ledger_private.h"

struct rows_table {
        sqlite3_vtab base;
        struct rows *rows;
};

struct rows_cursor {
        sqlite3_vtab_cursor base;
        size_t at;
};

static struct rows *rows_of(sqlite3_vtab_cursor *c) {
        return ((struct rows_table *)(void *)c->pVtab)->rows;
}

static int rows_connect(sqlite3 *handle, void *aux, int argc, const char *const *argv, sqlite3_vtab **ret,
                        char **error) {
        struct rows_table *t;
        int rc;

        (void)argc, (void)argv, (void)error;
        rc = sqlite3_declare_vtab(handle, "CREATE TABLE x (iova, last, memory, offset, access, chunk_shift, "
                                  "page_shift)");
        if (rc != SQLITE_OK)
                return rc;
        t = sqlite3_malloc64(sizeof *t);
        if (!t)
                return SQLITE_NOMEM;
        *t = (struct rows_table){ .rows = aux };
        *ret = &t->base;
        return SQLITE_OK;
}

static int rows_disconnect(sqlite3_vtab *t) {
        sqlite3_free(t);
        return SQLITE_OK;
}

static int rows_best_index(sqlite3_vtab *t, sqlite3_index_info *info) {
        (void)t;
        info->estimatedCost = 100;
        info->estimatedRows = 100;
        return SQLITE_OK;
}

static int rows_open(sqlite3_vtab *t, sqlite3_vtab_cursor **ret) {
        struct rows_cursor *c = sqlite3_malloc64(sizeof *c);

        (void)t;
        if (!c)
                return SQLITE_NOMEM;
        *c = (struct rows_cursor){ 0 };
        *ret = &c->base;
        return SQLITE_OK;
}

static int rows_close(sqlite3_vtab_cursor *c) {
        sqlite3_free(c);
        return SQLITE_OK;
}

static int rows_filter(sqlite3_vtab_cursor *c, int n, const char *s, int argc, sqlite3_value **argv) {
        (void)n, (void)s, (void)argc, (void)argv;
        ((struct rows_cursor *)(void *)c)->at = 0;
        return SQLITE_OK;
}

static int rows_next(sqlite3_vtab_cursor *c) {
        ((struct rows_cursor *)(void *)c)->at++;
        return SQLITE_OK;
}

static int rows_eof(sqlite3_vtab_cursor *c) {
        return ((struct rows_cursor *)(void *)c)->at >= rows_of(c)->n;
}

static int rows_rowid(sqlite3_vtab_cursor *c, sqlite3_int64 *ret) {
        *ret = (sqlite3_int64)((struct rows_cursor *)(void *)c)->at;
        return SQLITE_OK;
}

static int64_t column_of(const struct ledger_mapping *m, int column) {
        switch (column) {
        case 2:
                return (int64_t)m->memory;
        case 3:
                return (int64_t)m->offset;
        case 4:
                return m->access;
        case 5:
                return m->chunk_shift;
        default:
                return m->page_shift;
        }
}

static int rows_column(sqlite3_vtab_cursor *c, sqlite3_context *context, int column) {
        const struct rows *rows = rows_of(c);
        size_t at = ((struct rows_cursor *)(void *)c)->at;
        const struct ledger_mapping *m = rows->mappings ? &rows->mappings[at] : NULL;
        uint64_t iova = m ? m->iova : rows->ranges[at].iova;
        uint64_t length = m ? m->length : rows->ranges[at].length;

        if (column == 0)
                sqlite3_result_int64(context, address_encode(iova));
        else if (column == 1)
                sqlite3_result_int64(context, address_encode(iova + length - 1));
        else if (m)
                sqlite3_result_int64(context, column_of(m, column));
        return SQLITE_OK;       /* no result: NULL */
}

/* No xCreate: the table exists in every connection that registered it, and nowhere on disk. */
static const sqlite3_module rows_module = {
        .xConnect = rows_connect,
        .xBestIndex = rows_best_index,
        .xDisconnect = rows_disconnect,
        .xOpen = rows_open,
        .xClose = rows_close,
        .xFilter = rows_filter,
        .xNext = rows_next,
        .xEof = rows_eof,
        .xColumn = rows_column,
        .xRowid = rows_rowid,
};

int rows_register(sqlite3 *handle, struct rows *rows) {
        return sqlite3_create_module_v2(handle, "ledger_rows", &rows_module, rows, NULL);
}
