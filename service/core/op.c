/* SPDX-License-Identifier: Apache-2.0 */
#include "core/op.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "core/broker_private.h"
#include "core/holder_link.h"
#include "core/quota_explain.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"

#define KEYS_KEPT 1024U

/* The answer as a repeated key gets it; also what the ledger keeps (ledger_op.answer). */
struct stored_answer {
        uint64_t id, size, page_size, unmapped_bytes, unmapped_mappings;
        uint64_t iova, mappings, locked_bytes, table_bytes;
        struct window_view window;
        uint32_t sealed, refused;
        union {                                 /* most were done and say no more: then it is not stored */
                struct refusal refusal;
                struct container_info info;     /* AttachDevice */
        } more;
};

_Static_assert(sizeof(struct stored_answer) <= LEDGER_ANSWER_MAX, "the ledger must hold an answer");

struct key_memory {
        UT_hash_handle hh;
        struct key_memory *prev, *next;         /* session->keys_first, oldest first (utlist) */
        uint8_t key[LEDGER_KEY_BYTES];
        uint64_t request_hash;
        bool in_flight;
        struct answer answer;
        struct refusal *refusal;                /* NULL: it was done */
};

struct op *op_new(struct session *s, enum ledger_op_kind kind, enum link_type type, size_t payload) {
        struct op *op = calloc(1, sizeof *op + sizeof(struct link_header) + payload);

        if (!op)
                return NULL;
        atomic_init(&op->refs, 1);
        op->session = session_ref(s);
        op->row.session = s->id;
        op->row.kind = kind;
        op->row.id = ledger_next_id(s->broker->ledger);
        op->message_size = sizeof(struct link_header) + payload;
        op->message[0] = (struct link_header){ .version = LINK_VERSION, .type = (uint16_t)type, .seq = op->row.id };
        op->fds[0] = op->fds[1] = -1;
        return op;
}

void op_unref(struct op *op) {
        if (atomic_fetch_sub(&op->refs, 1) != 1)
                return;
        fd_close(op->fds[0]);
        fd_close(op->fds[1]);
        if (op->many)
                op_unref(op->many);
        session_unref(op->session);
        free(op);
}

uint64_t request_hash(uint64_t hash, const void *data, size_t size) {
        const uint8_t *p = data;

        for (size_t i = 0; i < size; i++)
                hash = (hash ^ p[i]) * 0x100000001b3ULL;
        return hash;
}

/* ---- request keys ---- */

static void key_forget(struct session *s, struct key_memory *k) {
        HASH_DEL(s->keys, k);
        DL_DELETE(s->keys_first, k);
        s->n_keys--;
        free(k->refusal);
        free(k);
}

void op_keys_clear(struct session *s) {
        while (s->keys_first)
                key_forget(s, s->keys_first);
}

static struct key_memory *key_remember(struct session *s, const uint8_t *key, uint64_t hash) {
        struct key_memory *k = calloc(1, sizeof *k), *oldest, *next;

        if (!k)
                return NULL;
        for (oldest = s->keys_first; oldest && s->n_keys >= KEYS_KEPT; oldest = next) {
                next = oldest->next;
                if (!oldest->in_flight)
                        key_forget(s, oldest);
        }
        memcpy(k->key, key, sizeof k->key);
        k->request_hash = hash;
        HASH_ADD(hh, s->keys, key, sizeof k->key, k);
        DL_APPEND(s->keys_first, k);
        s->n_keys++;
        return k;
}

/* A key that was seen: what to say. */
static void key_answer(const struct key_memory *k, uint64_t hash, struct answer *ret_answer, struct refusal *ret_refusal) {
        ret_refusal->reason = REFUSAL_NONE;
        if (k->request_hash != hash)
                refuse(ret_refusal, REFUSAL_KEY_REUSED,
                       "this request key was used before for another request; every new request needs a new key");
        else if (k->in_flight)
                refuse(ret_refusal, REFUSAL_IN_PROGRESS,
                       "a request with this key is still under way; repeat it to learn how it ended");
        else if (k->refusal)
                *ret_refusal = *k->refusal;
        else
                *ret_answer = k->answer;
}

/* What admission knew of the answer; the id of a new object is in the op already. */
static void answer_add(struct answer *to, const struct answer *admitted) {
        to->iova = admitted->iova;
        to->mappings = admitted->mappings;
        to->locked_bytes = admitted->locked_bytes;
        to->table_bytes = admitted->table_bytes;
        if (admitted->window.id != 0)
                to->window = admitted->window;
}

/* With the session's lock held. NULL without a refusal: the answer is in *ret_answer; the key was seen, or there is nothing
 * to do. */
static struct op *begin(struct session *s, const struct request_key *key, uint64_t hash,
                        struct op *(*admit)(struct session *s, const void *request, struct answer *ret, struct refusal *r),
                        const void *request, struct answer *ret_answer, struct refusal *r) {
        struct key_memory *k = NULL;
        struct op *op;

        if (key->present) {
                HASH_FIND(hh, s->keys, key->bytes, sizeof key->bytes, k);
                if (k) {
                        key_answer(k, hash, ret_answer, r);
                        return NULL;
                }
                k = key_remember(s, key->bytes, hash);
                if (!k) {
                        refuse(r, REFUSAL_INTERNAL, "out of memory");
                        return NULL;
                }
        }
        op = session_is_live(s, r) < 0 || ledger_ids_ready(s->broker->ledger, r) < 0 ? NULL : admit(s, request, ret_answer, r);
        /* Nothing to do and nothing refused is an answer too. */
        if (!op && k && r->reason != REFUSAL_NONE)
                key_forget(s, k);
        else if (!op && k)
                k->answer = *ret_answer;
        if (op) {
                answer_add(&op->answer, ret_answer);
                atomic_fetch_add(&s->in_flight, 1);
                s->mutations++;
        }
        if (!op || !k)
                return op;
        k->in_flight = true;
        op->row.has_key = true;
        memcpy(op->row.key, key->bytes, sizeof op->row.key);
        op->row.request_hash = hash;
        return op;
}

void request_start(struct session *s, const struct request_key *key, uint64_t hash, struct reply *reply,
                   struct op *(*admit)(struct session *s, const void *request, struct answer *ret, struct refusal *r),
                   const void *request) {
        struct answer answer = { 0 };
        struct refusal r = { 0 };
        struct op *op;

        pthread_mutex_lock(&s->lock);
        op = begin(s, key, hash, admit, request, &answer, &r);
        pthread_mutex_unlock(&s->lock);
        if (op) {
                FAILPOINT(admitted);
                op->reply = reply;
                op_submit(op);
        } else if (r.reason == REFUSAL_NONE)
                reply->done(reply, NULL, &answer);
        else {
                quota_explain(s, &r);
                reply_refused(reply, &r);
        }
}

void op_answer_store(struct ledger_op *row, const struct answer *answer, const struct refusal *refusal) {
        struct stored_answer stored = {
                .id = answer->id, .size = answer->size, .page_size = answer->page_size,
                .unmapped_bytes = answer->unmapped_bytes, .unmapped_mappings = answer->unmapped_mappings,
                .iova = answer->iova, .mappings = answer->mappings, .locked_bytes = answer->locked_bytes,
                .table_bytes = answer->table_bytes, .window = answer->window, .sealed = answer->sealed,
                .refused = refusal != NULL,
        };

        if (refusal)
                stored.more.refusal = *refusal;
        else if (answer->info.page_sizes != 0)
                stored.more.info = answer->info;
        row->answer_size = refusal || answer->info.page_sizes != 0 ? sizeof stored : offsetof(struct stored_answer, more);
        memcpy(row->answer, &stored, row->answer_size);
}

/* The outcome belongs to the key from now on. An operation that never reached the ledger is forgotten: repeating it does it
 * anew, as nothing of it happened. Session's lock held. */
static void key_settle(struct op *op, const struct refusal *refusal, bool forget) {
        struct session *s = op->session;
        struct key_memory *k;

        if (!op->row.has_key)
                return;
        HASH_FIND(hh, s->keys, op->row.key, sizeof op->row.key, k);
        if (!k)
                return;
        if (forget) {
                key_forget(s, k);
                return;
        }
        k->in_flight = false;
        k->answer = op->answer;
        if (refusal && (k->refusal = malloc(sizeof *k->refusal)))
                *k->refusal = *refusal;
        op_answer_store(&op->row, &op->answer, refusal);
}

int op_key_restore(struct session *s, const struct ledger_op *row) {
        struct stored_answer stored = { 0 };
        struct key_memory *k;

        if (!row->has_key || row->answer_size < offsetof(struct stored_answer, more) || row->answer_size > sizeof stored)
                return 0;
        memcpy(&stored, row->answer, row->answer_size);
        k = key_remember(s, row->key, row->request_hash);
        if (!k)
                return -1;
        k->answer = (struct answer){ .id = stored.id, .size = stored.size, .page_size = stored.page_size,
                                     .sealed = stored.sealed != 0, .unmapped_bytes = stored.unmapped_bytes,
                                     .unmapped_mappings = stored.unmapped_mappings, .iova = stored.iova,
                                     .mappings = stored.mappings, .locked_bytes = stored.locked_bytes,
                                     .table_bytes = stored.table_bytes, .window = stored.window };
        if (!stored.refused)
                k->answer.info = stored.more.info;
        else if ((k->refusal = malloc(sizeof *k->refusal)))
                *k->refusal = stored.more.refusal;
        return 0;
}

/* ---- the way of an operation ---- */

static struct op *op_of(struct journal_entry *entry) {
        return (struct op *)((char *)entry - offsetof(struct op, entry));
}

static int apply_intent(struct journal_entry *entry, struct ledger *ledger, struct refusal *r) {
        struct op *op = op_of(entry);
        int written = op->write_intent ? op->write_intent(op, ledger, r) : ledger_op_intend(ledger, &op->row, r);

        FAILPOINT(intent_written);
        return written;
}

static int apply_settle(struct journal_entry *entry, struct ledger *ledger, struct refusal *r) {
        struct op *op = op_of(entry);

        if ((op->write_settle && op->write_settle(op, ledger, r) < 0) || ledger_op_settle(ledger, &op->row, op->applied, r) < 0)
                return -1;
        FAILPOINT(settle_written);
        return 0;
}

static void settled(struct journal_entry *entry) {
        FAILPOINT(settle_committed);
        op_unref(op_of(entry));
}

bool op_outcome_unknown(const struct link_result *result) {
        /* RECOVERING: we are stopping; the next broker hears from the holder how it ended */
        return result->refusal.reason == REFUSAL_HOLDER_LOST || result->refusal.reason == REFUSAL_MEMORY_STALLED ||
               result->refusal.reason == REFUSAL_RECOVERING ||
               (result->flags & LINK_RESULT_UNDO_FAILED) != 0;
}

/* The end of every operation, when its last state is in memory: drops the caller's reference. */
static void conclude(struct op *op, const struct refusal *refusal) {
        struct reply *reply = op->reply;

        if (op->after)
                op->after(op);
        atomic_fetch_sub(&op->session->in_flight, 1);
        op->reply = NULL;
        if (reply) {
                FAILPOINT(replying);
                reply->done(reply, refusal, refusal ? NULL : &op->answer);
                FAILPOINT(replied);
        }
        if (op->next) {
                FAILPOINT(next_part);
                op_submit(op->next);
        }
        op_unref(op);
}

/* The intent could not be recorded: nothing was done, nothing will be. */
static void op_never_happened(struct op *op, const struct refusal *r) {
        struct link_result result = { .refusal = *r };
        int fd = -1;

        pthread_mutex_lock(&op->session->lock);
        op->finish(op, &result, &fd);
        key_settle(op, NULL, true);
        pthread_mutex_unlock(&op->session->lock);
        conclude(op, &result.refusal);
}

/* A lazy unmap is answered when it is intended (core/lazy.h). */
static void defer(struct op *op) {
        pthread_mutex_lock(&op->session->lock);
        atomic_fetch_add(&op->refs, 1);
        lazy_take(op);
        key_settle(op, NULL, false);
        pthread_mutex_unlock(&op->session->lock);
        conclude(op, NULL);
}

void op_submit(struct op *op) {
        struct session *s = op->session;
        struct holder_link *link;
        struct refusal r;

        op->entry.apply = apply_intent;
        if ((op->prepare && op->prepare(op, &r) < 0) ||
            (!op->covered && journal_commit(s->broker->journal, &op->entry, &r) < 0)) {
                op_never_happened(op, &r);
                return;
        }
        FAILPOINT(intent_committed);
        if (op->row.kind == LEDGER_OP_UNMAP_LAZY) {
                defer(op);
                return;
        }
        if (op->ledger_only) {
                struct link_result done = { 0 };
                int fd = -1;

                op_complete(op, &done, &fd);
                return;
        }
        pthread_mutex_lock(&s->lock);
        link = s->link ? holder_link_ref(s->link) : NULL;
        pthread_mutex_unlock(&s->lock);
        if (!link) {
                struct link_result result = { 0 };
                int fd = -1;

                refuse(&result.refusal, REFUSAL_HOLDER_LOST,
                       "the session's holder process is gone; the session ends. Connect anew");
                op_complete(op, &result, &fd);
                return;
        }
        holder_link_exchange(link, op); /* from here on the op is not ours */
        holder_link_unref(link);
}

/* Session's lock held: from here on the ledger will follow. */
static void queue_settle(struct op *op, const struct refusal *refusal) {
        key_settle(op, refusal, false);
        op_settle_later(op);
}

void op_settle_later(struct op *op) {
        op->row.settled = true;
        op->entry.apply = apply_settle;
        op->entry.done = settled;
        atomic_fetch_add(&op->refs, 1);
        journal_defer(op->session->broker->journal, &op->entry);
}

void op_complete(struct op *op, struct link_result *result, int *fd) {
        /* Unknown: what happened is not known, or half of it did. The intent stays in the ledger and explains whatever there
         * is (I2) until the revocation takes it all away. */
        bool unknown = op_outcome_unknown(result);
        const struct refusal *refusal;

        op->applied = result->refusal.reason == REFUSAL_NONE;
        pthread_mutex_lock(&op->session->lock);
        op->finish(op, result, fd);
        FAILPOINT(finished);
        refusal = result->refusal.reason != REFUSAL_NONE ? &result->refusal : NULL;
        if (!unknown && !(result->flags & LINK_RESULT_UNDO_FAILED))     /* finish() may have found out that half was done */
                queue_settle(op, refusal);
        else if (result->flags & LINK_RESULT_UNDO_FAILED)
                key_settle(op, refusal, false); /* the session goes on, its domain in quarantine: who repeats hears why */
        FAILPOINT(settle_queued);
        pthread_mutex_unlock(&op->session->lock);
        conclude(op, refusal);
}
