/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

#include <sqlite3.h>

#include "ledger.h"

/*
 * A C array seen as the SQL table ledger_rows (iova, last, memory, offset, access, chunk_shift, page_shift), iova and
 * last encoded: one statement then stores a whole batch. Binding and stepping row by row costs twice the time
 * (README.md).
 */
struct rows {
        const struct ledger_mapping *mappings;  /* or NULL: ranges has only iova and length, the rest reads as NULL */
        const struct ledger_range *ranges;
        size_t n;
};

/* *rows must outlive the connection; its content may change between statements. */
int rows_register(sqlite3 *handle, struct rows *rows);  /* an SQLite result code */
