/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "ledger.h"
#include "util/refusal.h"

/*
 * Group commit (DESIGN, section 4): the caller commits when nobody else is committing, and for everybody who waits
 * when somebody is. One queue, first in first out: what was queued earlier is applied earlier, so that a deferred
 * settle is always in the ledger before a later intent for the same range.
 *
 * The journal's lock protects the queue. It is never held across I/O, and no lock of the core may be held by a caller of
 * journal_commit() (it waits for the disk). journal_defer() does not wait and may be called anywhere.
 */
struct journal;

struct journal_entry {
        /* Writes into the open transaction. May be called twice (when a neighbour in the group fails, each entry is tried
         * again alone), so it must not change what it reads. */
        int (*apply)(struct journal_entry *entry, struct ledger *ledger, struct refusal *r);
        /* Deferred entries: called once, after the commit, by whichever thread committed, with no lock held. */
        void (*done)(struct journal_entry *entry);
        /* private to journal.c */
        struct journal_entry *next;
        struct refusal *refusal;
        bool waited_for, finished, failed;
};

struct journal *journal_new(struct ledger *ledger);
struct journal *journal_free(struct journal *j);        /* commits what is deferred; NULL is fine */

/* Applies and commits; on return the entry is durable as far as its database is, or was refused. */
int journal_commit(struct journal *j, struct journal_entry *entry, struct refusal *r);

/* Queues for a later commit, at the latest the next journal_flush(). An entry whose commit fails stays queued and is tried
 * again with the next one. */
void journal_defer(struct journal *j, struct journal_entry *entry);

/* Commits what is deferred, if anything. */
int journal_flush(struct journal *j, struct refusal *r);
