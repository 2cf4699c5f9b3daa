/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/change.h"
#include "core/domain.h"
#include "core/op.h"
#include "core/split.h"
#include "core/unmap_many.h"
#include "util/cleanup.h"

/*
 * Unmap: every range must be filled by live mappings, whole or cut where they can be (core/split.h). They are marked first,
 * all of them, which keeps others away; then the holder is told, LINK_BATCH_MAX at a time (core/unmap_many.h); the charge is
 * given back when the holder has unmapped. In a lazy domain that is later (core/lazy.h).
 */

static int mark_all(struct change *c, struct refusal *r) {
        static const struct iova_range all = { 0, UINT64_MAX };
        struct mapping_set *set = &c->domain->mappings;

        for (struct mapping *m = mapping_set_find(set, all); m; m = mapping_set_next(set, m)) {
                if (m->state == MAPPING_DEFERRED)
                        continue;
                if (m->state != MAPPING_LIVE)
                        return refuse(r, REFUSAL_IN_PROGRESS,
                                      "the mapping 0x%" PRIx64 "-0x%" PRIx64 " is being %s; repeat when that is done",
                                      m->range.first, m->range.last, m->state == MAPPING_INTENDED ? "made" : "unmapped");
                if (change_remove(c, m, r) < 0)
                        return -1;
        }
        return 0;
}

static int mark_range(struct change *c, const struct unmap_request *req, size_t i, struct cuts *cuts, struct refusal *r) {
        struct iova_range range;

        if (req->length[i] == 0)
                return refuse(r, REFUSAL_ZERO_LENGTH, "unmapping 0 bytes at IOVA 0x%" PRIx64 " was asked for", req->iova[i]);
        if (!iova_range_make(req->iova[i], req->length[i], &range))
                return refuse(r, REFUSAL_RANGE_WRAPS, "IOVA 0x%" PRIx64 " plus length 0x%" PRIx64 " passes 2^64", req->iova[i],
                              req->length[i]);
        return split_range(c, range, i, cuts, r);
}

static int mark_request(struct change *c, const struct unmap_request *req, struct refusal *r) {
        struct cuts cuts = { .policy = req->split };
        size_t element = 0;
        int result = 0;

        if (req->n == 0)
                return mark_all(c, r);
        for (; element < req->n && result == 0; element += result == 0)
                result = mark_range(c, req, element, &cuts, r);
        if (result == 0)
                result = split_make_rests(c, &cuts, &element, r);
        free(cuts.cuts);
        if (result < 0)
                r->element = (int32_t)element;
        return result;
}

/* ---- the operation ---- */

/* The rows that go are what clients asked for, wherever the holder's ranges lie. */
static int write_unmap_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct change *c = op->of.change.change;
        size_t n = op->of.change.n_rows, n_rests = c->n_rests;
        struct mapping **first = c->made + (c->n_made - n_rests);
        struct ledger_mapping rests[LINK_BATCH_MAX];
        struct ledger_range rows[LINK_BATCH_MAX];
        struct ledger_op row = op->row;

        for (size_t i = 0; i < n; i++)
                rows[i] = (struct ledger_range){ c->gone[i]->range.first, iova_range_length(c->gone[i]->range) };
        for (size_t i = 0; i < n_rests; i++)
                rests[i] = mapping_row(c->domain, first[i], op->row.id);
        if (many_write_intent(op, ledger, r) < 0)
                return -1;
        /* Without such a row the key goes with the last part: whoever repeats it after a crash in between has the rest done. */
        row.has_key &= n == c->n_gone;
        return ledger_unmap_intend(ledger, &row, rows, n, rests, n_rests, r);
}

static void finish_unmap(struct op *op, struct link_result *result, int *fd);

/* An op for all of it, or for the first LINK_BATCH_MAX where whole mappings go and nothing else. NULL: no memory. */
struct op *change_unmap_op(struct change *c, struct refusal *r) {
        struct op *op;

        if (c->last && c->n_gone <= LINK_BATCH_MAX)
                return c->last(c, r);
        op = op_new_change(c, LEDGER_OP_UNMAP, r);
        if (!op)
                return NULL;
        op->of.change.n_rows = c->n_gone < LINK_BATCH_MAX ? c->n_gone : LINK_BATCH_MAX;
        op->deadline_ms = monotonic_ms() + c->session->broker->options.operation_deadline_ms;
        op->write_intent = write_unmap_intent;
        op->finish = finish_unmap;
        return op;
}

/* One batch is done, more are left: an op for them takes over change, reply and what was counted. False: no memory. */
static bool hand_on(struct op *done) {
        struct change *c = done->of.change.change;
        struct refusal ignored;
        struct op *op;

        c->n_old -= done->of.change.n_old;
        memmove(c->old, c->old + done->of.change.n_old, c->n_old * sizeof *c->old);
        op = change_unmap_op(c, &ignored);
        if (!op)
                return false;
        op->reply = done->reply;
        op->answer = done->answer;
        many_hand_on(done, op);
        done->reply = NULL;
        done->next = op;
        atomic_fetch_add(&op->session->in_flight, 1);
        return true;
}

void change_quarantine(struct op *op, struct change *c, struct link_result *result) {
        struct refusal why = result->refusal;

        refuse(&result->refusal, REFUSAL_DOMAIN_QUARANTINED,
               "%" PRIu64 " mappings were unmapped and the rest could not be, so the domain is quarantined; destroy it (%.200s)",
               op->answer.unmapped_mappings, why.text);
        result->flags |= LINK_RESULT_UNDO_FAILED;
        c->domain->state = LEDGER_QUARANTINED;
        change_abandon(c);
}

/* This part, and those after it. */
static void not_done(struct op *op, struct link_result *result) {
        struct change *c = op->of.change.change;

        many_end(op);                   /* its key: who repeats it hears the same */
        if (op->answer.unmapped_mappings > 0) {
                change_quarantine(op, c, result);
                return;
        }
        change_undo(c);
        if (c->undone)
                c->undone(c);
}

/* True: an op for the rest goes on. */
static bool unmapped(struct op *op, struct link_result *result) {
        struct change *c = op->of.change.change;

        if (op->of.change.n_rows == c->n_gone) {
                many_end(op);
                change_apply(c, &op->answer.unmapped_bytes, &op->answer.unmapped_mappings);
                return false;
        }
        change_apply_gone(c, op->of.change.n_rows, &op->answer.unmapped_bytes, &op->answer.unmapped_mappings);
        if (hand_on(op))
                return true;
        refuse(&result->refusal, REFUSAL_INTERNAL, "out of memory: %" PRIu64 " mappings were unmapped, the rest were not",
               op->answer.unmapped_mappings);
        not_done(op, result);
        return false;
}

static void finish_unmap(struct op *op, struct link_result *result, int *fd) {
        struct change *c = op->of.change.change;
        struct domain *d = c->domain;

        (void)fd;
        if (result->flags & LINK_RESULT_UNDO_FAILED)
                d->state = LEDGER_QUARANTINED;
        if (op_outcome_unknown(result))
                change_abandon(c);
        else if (result->refusal.reason != REFUSAL_NONE)
                not_done(op, result);
        else if (unmapped(op, result))
                return;
        d->busy--;
        change_free(c);
}

/* ---- admit ---- */

static struct op *admit_change(struct change *c, const struct unmap_request *req, struct refusal *r) {
        struct op *op;

        if (mark_request(c, req, r) < 0 || change_settle_pages(c, r) < 0 || c->n_gone == 0)
                return NULL;            /* nothing refused: all of an empty domain; the holder has nothing to hear */
        if (change_charge(c, r) < 0)
                return NULL;
        op = change_unmap_op(c, r);
        if (op && many_begin(op, req, r) < 0) {
                op_unref(op);
                op = NULL;
        }
        if (!op)
                return NULL;
        change_commit(c);
        if (lazy_accepts(c->domain, c))
                lazy_prepare(op);
        c->domain->busy++;
        return op;
}

static struct op *admit_unmap(struct session *s, const void *request, struct answer *ret, struct refusal *r) {
        const struct unmap_request *req = request;
        struct domain *d = session_find_domain(s, req->domain, r);
        struct change *c = d ? change_new(s, d) : NULL;
        struct op *op;

        (void)ret;
        if (!c) {
                if (d)
                        refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        op = admit_change(c, req, r);
        if (!op) {
                change_undo(c);
                change_free(c);
        }
        return op;
}

void unmap_request_start(struct session *s, const struct unmap_request *req, struct reply *reply) {
        uint64_t hash = request_hash_u64(request_hash_u64(REQUEST_HASH_INIT, LEDGER_OP_UNMAP), req->domain);

        if (req->key.present && req->n > 0) {
                hash = request_hash(hash, req->iova, req->n * sizeof *req->iova);
                hash = request_hash(hash, req->length, req->n * sizeof *req->length);
                hash = request_hash_u64(hash, req->split);
        }
        request_start(s, &req->key, hash, reply, admit_unmap, req);
}
