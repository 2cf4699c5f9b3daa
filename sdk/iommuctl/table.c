/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libsmartcols/libsmartcols.h>

#include "util/cleanup.h"
#include "util/size.h"

#define CELL_MAX 512U

static void out_of_memory(void) {
        fputs("iommuctl: out of memory\n", stderr);
        exit(1);
}

struct libscols_table *table_new(const char *const *titles, size_t n) {
        struct libscols_table *t = scols_new_table();

        if (!t)
                out_of_memory();
        for (size_t i = 0; i < n; i++) {
                const char *title = titles ? titles[i] : "";
                int right = title[0] == '>', flags = right ? SCOLS_FL_RIGHT : i + 1 == n ? SCOLS_FL_WRAP : 0;

                if (!scols_table_new_column(t, title + right, 0, flags))
                        out_of_memory();
        }
        if (!titles)
                scols_table_enable_noheadings(t, 1);
        return t;
}

void table_row(struct libscols_table *t, const char *const *cells) {
        struct libscols_line *line = scols_table_new_line(t, NULL);

        if (!line)
                out_of_memory();
        for (size_t i = 0; i < scols_table_get_ncols(t); i++)
                if (cells[i] && scols_line_set_data(line, i, cells[i][0] != '\0' ? cells[i] : "-") < 0)
                        out_of_memory();
}

void table_pair(struct libscols_table *t, const char *name, const char *format, ...) {
        char value[CELL_MAX];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(value, sizeof value, format, args);
        va_end(args);
        table_row(t, (const char *const[]){ name, value });
}

void table_print(struct libscols_table *t, const char *empty) {
        if (!scols_table_is_empty(t)) {
                scols_print_table(t);
        } else if (empty)
                fprintf(stderr, "%s\n", empty);
        scols_unref_table(t);
}

static char *next_cell(void) {
        static char cells[TABLE_CELLS][CELL_MAX];
        static unsigned turn;

        return cells[turn++ % TABLE_CELLS];
}

const char *cell_number(uint64_t n) {
        char *cell = next_cell();

        (void)snprintf(cell, CELL_MAX, "%" PRIu64, n);
        return cell;
}

const char *cell_size(uint64_t bytes) {
        return size_format(bytes, next_cell());
}

const char *cell_address(uint64_t address) {
        char *cell = next_cell();

        (void)snprintf(cell, CELL_MAX, "0x%" PRIx64, address);
        return cell;
}

const char *cell_used(uint64_t used, uint64_t limit) {
        char *cell = next_cell();

        if (limit == SIZE_UNLIMITED)
                (void)snprintf(cell, CELL_MAX, "%" PRIu64 "/unlimited", used);
        else
                (void)snprintf(cell, CELL_MAX, "%" PRIu64 "/%" PRIu64, used, limit);
        return cell;
}

const char *cell_used_size(uint64_t used, uint64_t limit) {
        char *cell = next_cell(), a[SIZE_TEXT_MAX], b[SIZE_TEXT_MAX];

        (void)snprintf(cell, CELL_MAX, "%s/%s", size_format(used, a), size_format(limit, b));
        return cell;
}

const char *cell_page_sizes(uint64_t mask) {
        char *cell = next_cell(), text[SIZE_TEXT_MAX];
        size_t used = 0;

        cell[0] = '\0';
        for (unsigned bit = 0; bit < 64; bit++)
                if (mask >> bit & 1 && used < CELL_MAX)
                        used += (size_t)snprintf(cell + used, CELL_MAX - used, "%s%s", used > 0 ? " " : "",
                                                 size_format(1ULL << bit, text));
        return cell;
}

const char *cell_words(char *const *words, size_t n) {
        char *cell = next_cell();
        size_t used = 0;

        cell[0] = '\0';
        for (size_t i = 0; i < n && used < CELL_MAX; i++)
                used += (size_t)snprintf(cell + used, CELL_MAX - used, "%s%s", i > 0 ? " " : "", words[i]);
        return cell;
}
