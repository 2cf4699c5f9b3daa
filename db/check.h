/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

#include "ledger.h"
#include "rows.h"
#include "stmt.h"

/*
 * The invariants that SQL can state. Each query names violations: its first column is a sentence for a person, no rows
 * mean that the invariant holds. main is state.db, config is config.db; address(x) prints a stored address.
 */
struct check_query {
        const char *invariant;          /* "I2", DESIGN section 3 */
        const char *name;
        const char *sql;
};

const struct check_query *check_queries(size_t *ret_n);

/* What is C because SQL would take too long over it, or cannot read it: */
struct check {
        struct db db;                   /* one snapshot of both files, only read */
        struct rows rows;
        void (*each)(const struct ledger_violation *v, void *arg);
        void *arg;
};

#define VIOLATIONS_MAX 1000U    /* per query: a broken ledger is told apart from a sound one long before */

__attribute__((format(printf, 3, 4))) void check_report(const struct check *c, const char *invariant,
                                                        const char *format, ...);

/* check_intents.c: I6, the ranges that unsettled operations recorded are there. */
int check_intents(struct check *c, struct refusal *r);
/* check_pages.c: I4, mappings that share an IOMMU page agree on what is in it. */
int check_pages(struct check *c, struct refusal *r);
