/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/domain.h"
#include "core/op.h"
#include "util/cleanup.h"

/*
 * Unmap: every range must be filled by whole live mappings. They are marked first, all of them, which keeps others away;
 * then the holder is told, LINK_BATCH_MAX at a time; the charge is given back when the holder has unmapped.
 */

/* Whole mappings that an unmap has marked, shared by the operations that it needs. */
struct marked {
        struct mapping **nodes;
        size_t n, room;
};

static bool mark(struct marked *k, struct mapping *m) {
        if (k->n == k->room) {
                size_t room = k->room ? k->room * 2 : 16;
                struct mapping **nodes = reallocarray(k->nodes, room, sizeof(struct mapping *));

                if (!nodes)
                        return false;
                k->nodes = nodes;
                k->room = room;
        }
        m->state = MAPPING_UNMAPPING;
        k->nodes[k->n++] = m;
        return true;
}

static void unmark(struct marked *k) {
        for (size_t i = 0; i < k->n; i++)
                k->nodes[i]->state = MAPPING_LIVE;
        free(k->nodes);
}

static int refuse_partial(struct iova_range range, const struct mapping *m, struct refusal *r) {
        refuse(r, REFUSAL_PARTIAL_UNMAP,
               "unmapping 0x%" PRIx64 "-0x%" PRIx64 " would split the mapping 0x%" PRIx64 "-0x%" PRIx64
               ", which the IOMMU cannot do; the nearest borders are its two ends", range.first, range.last, m->range.first,
               m->range.last);
        r->conflict_first = m->range.first;
        r->conflict_last = m->range.last;
        r->nearest_below = m->range.first;
        r->nearest_above = m->range.last + 1;
        return -1;
}

static int refuse_hole(uint64_t first, uint64_t last, struct refusal *r) {
        refuse(r, REFUSAL_NOT_MAPPED, "nothing is mapped at 0x%" PRIx64 "-0x%" PRIx64, first, last);
        r->conflict_first = first;
        r->conflict_last = last;
        return -1;
}

static int mark_one(struct marked *k, struct mapping *m, struct refusal *r) {
        if (m->state != MAPPING_LIVE)
                return refuse(r, REFUSAL_IN_PROGRESS,
                              "the mapping 0x%" PRIx64 "-0x%" PRIx64 " is being %s; repeat when that is done", m->range.first,
                              m->range.last, m->state == MAPPING_INTENDED ? "made" : "unmapped");
        return mark(k, m) ? 0 : refuse(r, REFUSAL_INTERNAL, "out of memory");
}

/* Marks the whole mappings that fill range. */
static int mark_range(struct domain *d, struct iova_range range, struct marked *k, struct refusal *r) {
        struct mapping *m = mapping_set_find(&d->mappings, range);
        uint64_t next = range.first;

        for (;; m = mapping_set_next(&d->mappings, m)) {
                if (!m || m->range.first > next)
                        return refuse_hole(next, m && m->range.first <= range.last ? m->range.first - 1 : range.last, r);
                if (!iova_range_contains(range, m->range))
                        return refuse_partial(range, m, r);
                if (mark_one(k, m, r) < 0)
                        return -1;
                if (m->range.last == range.last)
                        return 0;
                next = m->range.last + 1;
        }
}

static int mark_all(struct domain *d, struct marked *k, struct refusal *r) {
        static const struct iova_range all = { 0, UINT64_MAX };

        for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = mapping_set_next(&d->mappings, m))
                if (mark_one(k, m, r) < 0)
                        return -1;
        return 0;
}

static int mark_request(struct domain *d, const struct unmap_request *req, struct marked *k, struct refusal *r) {
        if (req->n == 0)
                return mark_all(d, k, r);
        for (size_t i = 0; i < req->n; i++) {
                struct iova_range range;
                int e;

                if (req->length[i] == 0)
                        e = refuse(r, REFUSAL_ZERO_LENGTH, "unmapping 0 bytes at IOVA 0x%" PRIx64 " was asked for", req->iova[i]);
                else if (!iova_range_make(req->iova[i], req->length[i], &range))
                        e = refuse(r, REFUSAL_RANGE_WRAPS, "IOVA 0x%" PRIx64 " plus length 0x%" PRIx64 " passes 2^64",
                                   req->iova[i], req->length[i]);
                else
                        e = mark_range(d, range, k, r);
                if (e < 0) {
                        r->element = (int32_t)i;
                        return -1;
                }
        }
        return 0;
}

/* ---- the operation ---- */

static int write_unmap_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        /* one layout: struct link_unmap_entry and struct ledger_range are two 64-bit numbers each */
        _Static_assert(sizeof(struct link_unmap_entry) == sizeof(struct ledger_range), "same layout");

        return ledger_unmap_intend(ledger, &op->row, op_payload(op), op->message[0].count, r);
}

static void finish_unmap(struct op *op, struct link_result *result, int *fd);

/* An op for the first LINK_BATCH_MAX of the n nodes. */
static struct op *op_for(struct session *s, struct domain *d, struct mapping **nodes, size_t n) {
        size_t now = n < LINK_BATCH_MAX ? n : LINK_BATCH_MAX;
        struct op *op = op_new(s, LEDGER_OP_UNMAP, LINK_UNMAP, now * sizeof(struct link_unmap_entry));
        struct link_unmap_entry *entries;

        if (!op)
                return NULL;
        entries = op_payload(op);
        for (size_t i = 0; i < now; i++)
                entries[i] = (struct link_unmap_entry){ nodes[i]->range.first, iova_range_length(nodes[i]->range) };
        op->of.map.domain = d;
        op->of.map.nodes = nodes;
        op->of.map.n = n;
        op->row.object = op->message[0].domain = d->id;
        op->message[0].count = (uint32_t)now;
        op->deadline_ms = monotonic_ms() + s->broker->options.operation_deadline_ms;
        op->write_intent = write_unmap_intent;
        op->finish = finish_unmap;
        return op;
}

/* Nodes that the holder has unmapped leave the set; with the session's lock held. */
static void remove_unmapped(struct op *op, size_t n) {
        struct quota_amounts freed = { 0 };
        struct domain *d = op->of.map.domain;

        for (size_t i = 0; i < n; i++) {
                struct mapping *m = op->of.map.nodes[i];

                freed.of[RESOURCE_MAPPINGS]++;
                freed.of[RESOURCE_LOCKED_BYTES] += iova_range_length(m->range);
                m->memory->mappings--;
                mapping_set_remove(&d->mappings, m);
        }
        op->answer.unmapped_mappings += freed.of[RESOURCE_MAPPINGS];
        op->answer.unmapped_bytes += freed.of[RESOURCE_LOCKED_BYTES];
        quota_refund(&op->session->tenant->account, &freed);
}

/* One batch is done, more are left: an op for them takes over nodes, reply, key and what was counted. False: no memory. */
static bool hand_on(struct op *done, size_t rest) {
        struct op *op;

        memmove(done->of.map.nodes, done->of.map.nodes + done->message[0].count, rest * sizeof(struct mapping *));
        op = op_for(done->session, done->of.map.domain, done->of.map.nodes, rest);
        if (!op)
                return false;
        op->reply = done->reply;
        op->answer = done->answer;
        op->row.has_key = done->row.has_key;
        memcpy(op->row.key, done->row.key, sizeof op->row.key);
        op->row.request_hash = done->row.request_hash;
        done->reply = NULL;
        done->row.has_key = false;
        done->next = op;
        atomic_fetch_add(&op->session->in_flight, 1);
        return true;
}

static void finish_unmap(struct op *op, struct link_result *result, int *fd) {
        size_t count = op->message[0].count, rest = op->of.map.n - count;
        struct domain *d = op->of.map.domain;
        struct marked k = { .nodes = op->of.map.nodes, .n = op->of.map.n };

        (void)fd;
        if (result->flags & LINK_RESULT_UNDO_FAILED)
                d->state = LEDGER_QUARANTINED;
        if (op_outcome_unknown(result)) {
                d->busy--;
                free(op->of.map.nodes);
                return;
        }
        if (result->refusal.reason == REFUSAL_NONE) {
                remove_unmapped(op, count);
                if (rest > 0 && hand_on(op, rest))
                        return;
                k.n = rest;
                if (rest > 0)
                        refuse(&result->refusal, REFUSAL_INTERNAL,
                               "out of memory: %" PRIu64 " mappings were unmapped, the rest were not",
                               op->answer.unmapped_mappings);
        }
        d->busy--;
        unmark(&k);
}

static struct op *admit_unmap(struct session *s, const void *request, struct refusal *r) {
        const struct unmap_request *req = request;
        struct domain *d = session_find_domain(s, req->domain, r);
        struct marked k = { 0 };
        struct op *op;

        if (!d)
                return NULL;
        if (mark_request(d, req, &k, r) < 0) {
                unmark(&k);
                return NULL;
        }
        if (k.n == 0)
                return NULL;            /* all of an empty domain: done, the holder has nothing to hear */
        op = op_for(s, d, k.nodes, k.n);
        if (!op) {
                unmark(&k);
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        d->busy++;
        return op;
}

void unmap_request_start(struct session *s, const struct unmap_request *req, struct reply *reply) {
        uint64_t hash = request_hash_u64(request_hash_u64(REQUEST_HASH_INIT, LEDGER_OP_UNMAP), req->domain);

        if (req->key.present && req->n > 0) {
                hash = request_hash(hash, req->iova, req->n * sizeof *req->iova);
                hash = request_hash(hash, req->length, req->n * sizeof *req->length);
        }
        request_start(s, &req->key, hash, reply, admit_unmap, req);
}
