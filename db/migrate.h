/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/refusal.h"

/*
 * Brings a database file to the newest schema. The version is PRAGMA user_version: the number of steps applied. All of
 * it happens on a copy that replaces the original when every step succeeded, so that a failed migration, or a crash in
 * the middle of one, leaves the old file. The caller has the ledger's lock.
 */
struct migration_step {
        const char *name;               /* "state_0001_initial" */
        const char *sql;                /* without BEGIN and COMMIT: each step runs in one transaction */
};

struct migration_set {
        const char *file;               /* "state.db" */
        uint32_t application_id;        /* tells our files from others, and our two from each other */
        uint32_t page_size;             /* of a new file */
        size_t n_steps;
        const struct migration_step *steps;
};

extern const struct migration_set migrations_config, migrations_state;

/* Looks at set->file in the directory. Missing: *ret_version is -1. Otherwise its version, if it is ours, readable and
 * not newer than the set; else a refusal that says what it is, or which numbers were found and known. */
int migrate_inspect(const char *directory, const struct migration_set *set, int64_t *ret_version, struct refusal *r);

/* Creates or upgrades the file if it needs it. *ret_created: there was none before. */
int migrate_file(const char *directory, const struct migration_set *set, bool *ret_created, struct refusal *r);
