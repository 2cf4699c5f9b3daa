/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/journal.h"
#include "core/requests.h"
#include "core/session.h"
#include "holder/protocol.h"

/*
 * One mutation on its way (DESIGN, section 4):
 *
 *   admit   (by the request's own file, under the session's lock: validate, charge, reserve)
 *   intend  the ledger knows what is about to happen                              op_submit()
 *   apply   the holder does it                                                    holder_link_exchange()
 *   finish  final state in memory, with the session's lock held                   op->finish()
 *   settle  is queued before that lock is dropped; rides on a later commit        journal_defer()
 *   reply   the client hears of it
 *
 * An op owns a reference on its session. It is allocated once, with its message behind it, and freed after the settle
 * and its answer.
 */
struct op {
        struct ledger_op row;                   /* row.id is the seq on the link */
        struct journal_entry entry;             /* first the intent, then the settle */
        struct session *session;
        struct reply *reply;                    /* NULL once answered, or when nobody asked */
        struct answer answer;
        UT_hash_handle hh;                      /* holder_link's table of operations in flight, by row.id */
        uint64_t deadline_ms;                   /* CLOCK_MONOTONIC; 0: none. Watched by housekeeping */

        /* Optional: what must be ready before the intent, without a lock (opening nodes). Refused: nothing happened. */
        int (*prepare)(struct op *op, struct refusal *r);
        /* write_intent writes the op's row and what goes with it (NULL: the row alone); write_settle what goes before the op's
         * own settling (NULL: nothing). */
        int (*write_intent)(struct op *op, struct ledger *ledger, struct refusal *r);
        int (*write_settle)(struct op *op, struct ledger *ledger, struct refusal *r);
        /* The holder answered (or will not: op_outcome_unknown()). Brings memory to its final state, WITH the session's lock held:
         * the settle is queued before the lock is dropped, so that nobody is admitted where the ledger still has a row. May change
         * the refusal in *result for the client; takes *fd by setting it to -1, else the caller closes it. */
        void (*finish)(struct op *op, struct link_result *result, int *fd);
        /* Optional, after the lock was dropped: what may take its time (giving up leases). */
        void (*after)(struct op *op);
        struct op *next;                        /* set by finish(): goes on with it; it has the reply and the key */
        struct op *waiting_next;                /* core/lazy.c's lists */
        struct op *many;                        /* of a part of a large unmap: has row, key and answer of all (unmap_many.h) */
        bool covered;                           /* another op's row has its intent */
        bool ledger_only;                       /* the holder has nothing to hear: an intent is all there is to do */

        atomic_uint refs;                       /* the caller's, and the journal's */
        bool applied;                           /* how it ended, for the settle */
        union {                                 /* the request's own state */
                struct {
                        struct change *change;
                        size_t n_old;           /* of change->old, what is in this message */
                        size_t n_rows;          /* of change->gone, likewise */
                } change;
                struct {                        /* core/window_op.c */
                        struct domain *domain;
                        struct window *window;  /* that is made or removed; reset: the default one to be, NULL: it is there */
                        struct change *change;  /* what is unmapped with it */
                        bool revoke;
                } window;
                struct {
                        struct domain *domain;
                        struct op *batch;       /* the unmaps that it flushes */
                } flush;
                struct {
                        struct domain *domain;
                        bool lazy;
                        uint32_t groups[VIEW_ATTACHMENTS_MAX];  /* leases to give up */
                        size_t n_groups;
                } domain;
                struct {
                        struct attachment *attachment;
                        uint32_t group;
                        bool leased, drop_lease, revoke;
                } attach;
                struct {
                        struct memory *memory;
                } memory;
        } of;

        int fds[2];                             /* to send along; closed after sending */
        size_t n_fds;
        size_t message_size;
        struct link_header message[];           /* header and what follows it */
};

/* An op for a change that has been admitted: message and effect. NULL: refused (no memory). core/change_op.c. */
struct op *op_new_change(struct change *c, enum ledger_op_kind kind, struct refusal *r);
struct ledger_mapping mapping_row(const struct domain *d, const struct mapping *m, uint64_t op);

/* payload: bytes after the header, zeroed. Takes a reference on the session. NULL: out of memory. */
struct op *op_new(struct session *s, enum ledger_op_kind kind, enum link_type type, size_t payload);
static inline void *op_payload(struct op *op) {
        return op->message + 1;
}

/* Forgets it; the reply is not touched. */
void op_unref(struct op *op);

/* The beginning of every mutation: a key that was seen before gets its first answer; otherwise admit() validates, charges and
 * reserves with the session's lock held, and what it returns is submitted. NULL from admit(): refused, in *r, or (reason NONE)
 * answered by *ret with nothing to do. What is in *ret is op->answer otherwise. hash: of all that makes two requests with one
 * key the same request. */
void request_start(struct session *s, const struct request_key *key, uint64_t hash, struct reply *reply,
                   struct op *(*admit)(struct session *s, const void *request, struct answer *ret, struct refusal *r),
                   const void *request);

/* Journals the intent and sends. The caller holds no lock, and does not touch the op afterwards. When the intent cannot be
 * recorded, finish() is called with that refusal. */
void op_submit(struct op *op);

/* The holder is gone or half of it was done: nothing may be refunded or forgotten before the revocation (for finish()). */
bool op_outcome_unknown(const struct link_result *result);

/* Called by the link: the result is there. Takes *fd if finish() wanted it. */
void op_complete(struct op *op, struct link_result *result, int *fd);

/* Session's lock held: queues the settle, with op->applied, of an op that was answered before. */
void op_settle_later(struct op *op);

/* Packs an answer into the row, as op_key_restore() reads it. */
void op_answer_store(struct ledger_op *row, const struct answer *answer, const struct refusal *refusal);

/* Recovery: the op ended in a former life. Remembers the answer for its key. */
int op_key_restore(struct session *s, const struct ledger_op *row);

/* Helpers of requests: FNV-1a over what makes two requests with one key the same request. */
#define REQUEST_HASH_INIT 0xcbf29ce484222325ULL
uint64_t request_hash(uint64_t hash, const void *data, size_t size);
static inline uint64_t request_hash_u64(uint64_t hash, uint64_t value) {
        return request_hash(hash, &value, sizeof value);
}

static inline void reply_refused(struct reply *reply, const struct refusal *r) {
        reply->done(reply, r, NULL);
}
