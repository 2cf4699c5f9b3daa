/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

/*
 * The invariants that SQL can state. Each query names violations: its first column is a sentence for a person, no rows
 * mean that the invariant holds. main is state.db, config is config.db; address(x) prints a stored address.
 */
struct check_query {
        const char *invariant;          /* "I2", DESIGN section 3 */
        const char *name;
        const char *sql;
};

/* Two more, about the ranges that unsettled operations recorded, are C in check.c: "intent-without-mapping". */
const struct check_query *check_queries(size_t *ret_n);
