/* SPDX-License-Identifier: Apache-2.0 */
#include "core/journal.h"

#include <pthread.h>
#include <stdlib.h>

#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"

struct journal {
        struct ledger *ledger;
        pthread_mutex_t lock;           /* protects what follows; leaf */
        pthread_cond_t changed;         /* leader stepped down, or entries finished */
        struct journal_entry *first, **end;
        bool leading;                   /* somebody is committing */
        unsigned failures;              /* deferred entries in a row that could not be written; for a sparse log */
};

struct journal *journal_new(struct ledger *ledger) {
        struct journal *j = calloc(1, sizeof *j);

        if (!j)
                return NULL;
        j->ledger = ledger;
        j->end = &j->first;
        pthread_mutex_init(&j->lock, NULL);
        pthread_cond_init(&j->changed, NULL);
        return j;
}

static void enqueue(struct journal *j, struct journal_entry *entry) {
        entry->next = NULL;
        entry->finished = entry->failed = false;
        *j->end = entry;
        j->end = &entry->next;
}

/* All of the group in one transaction. */
static int commit_group(struct journal *j, struct journal_entry *group, struct refusal *r) {
        if (ledger_begin(j->ledger, r) < 0)
                return -1;
        for (struct journal_entry *e = group; e; e = e->next)
                if (e->apply(e, j->ledger, r) < 0) {
                        ledger_rollback(j->ledger);
                        return -1;
                }
        FAILPOINT(commit_begins);
        if (ledger_commit(j->ledger, r) < 0) {
                ledger_rollback(j->ledger);
                return -1;
        }
        FAILPOINT(commit_done);
        return 0;
}

static void entry_failed(struct journal *j, struct journal_entry *e, const struct refusal *r) {
        e->failed = true;
        if (e->waited_for)
                *e->refusal = *r;
        else {
                j->failures++;          /* log the 1st, 2nd, 4th, 8th, ... */
                if ((j->failures & (j->failures - 1)) == 0)
                        log_error("ledger: a finished operation could not be recorded yet: %s", r->text);
        }
}

/* One entry's fault must not become its neighbours': when the group fails, each is tried alone; unless it is the ledger's fault,
 * which each would only wait for once more. */
static void commit_each(struct journal *j, struct journal_entry *group, const struct refusal *why) {
        bool unwell = ledger_is_unwell(j->ledger);
        struct refusal r = *why;
        struct journal_entry *next;

        for (struct journal_entry *e = group; e; e = next) {
                next = e->next;
                e->next = NULL;
                if (unwell || commit_group(j, e, &r) < 0) {
                        entry_failed(j, e, &r);
                        unwell = unwell || ledger_is_unwell(j->ledger);
                }
                e->next = next;
        }
}

/* With the lock held: takes the queue, commits it unlocked, marks what is done. Failed deferred entries go back to the
 * front of the queue, in order. *ret_done: deferred entries whose done() is to be called without the lock. */
static void lead_once(struct journal *j, struct journal_entry **ret_done) {
        struct journal_entry *group = j->first, *next, **done_end = ret_done, *retry = NULL, **retry_end = &retry;
        struct refusal r;

        *ret_done = NULL;
        if (!group)
                return;
        j->first = NULL;
        j->end = &j->first;
        j->leading = true;
        pthread_mutex_unlock(&j->lock);
        if (commit_group(j, group, &r) < 0)
                commit_each(j, group, &r);
        pthread_mutex_lock(&j->lock);
        j->leading = false;
        for (struct journal_entry *e = group; e; e = next) {
                next = e->next;
                if (e->waited_for) {
                        e->finished = true;     /* its owner may free it as soon as the lock is dropped */
                        continue;
                }
                if (e->failed) {
                        *retry_end = e;
                        retry_end = &e->next;
                        e->failed = false;
                } else {
                        *done_end = e;
                        done_end = &e->next;
                        j->failures = 0;
                }
        }
        *done_end = NULL;
        *retry_end = j->first;
        if (retry) {
                if (!j->first)
                        j->end = retry_end;
                j->first = retry;
        }
        pthread_cond_broadcast(&j->changed);
}

static void call_done(struct journal_entry *list) {
        struct journal_entry *next;

        for (struct journal_entry *e = list; e; e = next) {
                next = e->next;
                e->done(e);
        }
}

int journal_commit(struct journal *j, struct journal_entry *entry, struct refusal *r) {
        struct journal_entry *done = NULL;
        bool failed;

        entry->waited_for = true;
        entry->refusal = r;
        pthread_mutex_lock(&j->lock);
        enqueue(j, entry);
        while (!entry->finished) {
                if (j->leading) {
                        pthread_cond_wait(&j->changed, &j->lock);
                        continue;
                }
                lead_once(j, &done);    /* takes our entry too: it was queued before */
        }
        failed = entry->failed;
        pthread_mutex_unlock(&j->lock);
        call_done(done);
        return failed ? -1 : 0;
}

void journal_defer(struct journal *j, struct journal_entry *entry) {
        LOCK_SCOPE(&j->lock);
        entry->waited_for = false;
        entry->refusal = NULL;
        enqueue(j, entry);
}

static int commit_nothing(struct journal_entry *entry, struct ledger *ledger, struct refusal *r) {
        (void)entry;
        (void)ledger;
        (void)r;
        return 0;
}

int journal_flush(struct journal *j, struct refusal *r) {
        struct journal_entry marker = { .apply = commit_nothing };
        bool idle;

        pthread_mutex_lock(&j->lock);
        idle = !j->first && !j->leading;
        pthread_mutex_unlock(&j->lock);
        return idle ? 0 : journal_commit(j, &marker, r);
}

struct journal *journal_free(struct journal *j) {
        struct refusal r;

        if (!j)
                return NULL;
        if (journal_flush(j, &r) < 0)
                log_error("ledger: finished operations are not recorded at exit, holders will tell the next service: %s", r.text);
        call_done(j->first);
        pthread_cond_destroy(&j->changed);
        pthread_mutex_destroy(&j->lock);
        free(j);
        return NULL;
}
