/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * A table for people: columns as wide as they need, control characters of what tenants wrote made visible.
 */
struct libscols_table;

/* titles: a ">" in front of one puts its column to the right. A NULL title: two columns without headings, for names and
 * values. The caller ends it with table_print(). */
struct libscols_table *table_new(const char *const *titles, size_t n);
void table_row(struct libscols_table *t, const char *const *cells);
void table_pair(struct libscols_table *t, const char *name, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

/* To stdout, and frees it. empty: what to say on stderr when there is no row; may be NULL. */
void table_print(struct libscols_table *t, const char *empty);

/* ---- cells: text in static storage of TABLE_CELLS turns, enough for one row ---- */
#define TABLE_CELLS 16U

const char *cell_number(uint64_t n);
const char *cell_size(uint64_t bytes);          /* "64M" */
const char *cell_address(uint64_t address);     /* "0x1000" */
const char *cell_used_size(uint64_t used, uint64_t limit);      /* "12M/64M" */
const char *cell_used(uint64_t used, uint64_t limit);   /* "12/4096" */
const char *cell_page_sizes(uint64_t mask);     /* "4K 2M 1G" */
const char *cell_words(char *const *words, size_t n);   /* "a b c" */
