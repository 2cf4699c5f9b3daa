/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "util/refusal.h"

struct db;

/* What kind of failure sqlite's last answer is. */
enum db_fault {
        FAULT_OF_REQUEST,       /* a constraint, a statement: others are not concerned */
        FAULT_PASSING,          /* disk full, I/O, read-only, locked: nothing can be written until somebody helps */
        FAULT_LASTING,          /* the file is not what was written: nothing may be written any more */
};

enum db_fault db_fault_of(int sqlite_code);

/* Refuses with what is wrong in an operator's words, what to do, and sqlite's own. errnum: the system's, EUCLEAN for one that
 * lasts. */
int db_fault_refuse(const struct db *d, struct refusal *r);

/* A fault that lasts, once found: whoever wants to write asks first. */
struct damage {
        atomic_bool found;
        pthread_mutex_t lock;
        char text[REFUSAL_TEXT_MAX];
};

void damage_init(struct damage *d);
void damage_destroy(struct damage *d);
/* The first one counts, and is logged. */
void damage_note(struct damage *d, const char *text);
/* 0, or -1 with the refusal. */
int damage_check(struct damage *d, struct refusal *r);
