/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/domain.h"
#include "core/map_check.h"
#include "core/op.h"
#include "util/cleanup.h"

/*
 * Map: admit (every element checked and its range reserved, then charged) -> intend -> the holder applies -> live, or
 * everything given back. The reservation is a node of the domain's mapping set in state INTENDED: nobody else can be
 * admitted there meanwhile, so no lock is needed while the disk and the holder work.
 */

/* ---- undo and finish ---- */

/* Takes nodes[0..n) back out, with the session's lock held. */
static void withdraw(struct domain *d, struct mapping **nodes, size_t n, struct quota_amounts *ret_freed) {
        memset(ret_freed, 0, sizeof *ret_freed);
        for (size_t i = 0; i < n; i++) {
                ret_freed->of[RESOURCE_MAPPINGS]++;
                ret_freed->of[RESOURCE_LOCKED_BYTES] += iova_range_length(nodes[i]->range);
                nodes[i]->memory->mappings--;
                mapping_set_remove(&d->mappings, nodes[i]);
        }
}

static void finish_map(struct op *op, struct link_result *result, int *fd) {
        struct session *s = op->session;
        struct domain *d = op->of.map.domain;
        struct quota_amounts freed;

        (void)fd;
        d->busy--;
        if (result->flags & LINK_RESULT_UNDO_FAILED)
                d->state = LEDGER_QUARANTINED;
        if (op_outcome_unknown(result)) {
                free(op->of.map.nodes);         /* the nodes stay as they are, and charged, until the revocation */
                return;
        }
        if (result->refusal.reason == REFUSAL_NONE)
                for (size_t i = 0; i < op->of.map.n; i++)
                        op->of.map.nodes[i]->state = MAPPING_LIVE;
        else {
                withdraw(d, op->of.map.nodes, op->of.map.n, &freed);
                quota_refund(&s->tenant->account, &freed);
        }
        free(op->of.map.nodes);
}

/* The rows are made from the message, which is what the holder is told. */
static int write_map_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct link_map_entry *entries = op_payload(op);
        struct ledger_mapping rows[REQUEST_BATCH_MAX];

        for (size_t i = 0; i < op->of.map.n; i++)
                rows[i] = (struct ledger_mapping){ .domain = op->row.object, .iova = entries[i].iova,
                                                   .length = entries[i].length, .memory = entries[i].memory,
                                                   .offset = entries[i].offset, .op = op->row.id,
                                                   .access = entries[i].access };
        return ledger_map_intend(ledger, &op->row, rows, op->of.map.n, r);
}

/* ---- admit ---- */

/* Element i, reserved. NULL: refused, in *r, with the element named. */
static struct mapping *admit_element(struct session *s, struct domain *d, const struct map_request *req, size_t i,
                                     struct refusal *r) {
        const struct map_element e = {
                .iova = req->iova[i], .length = req->length[i], .offset = req->offset[i],
                .access = req->access[req->n_access == 1 ? 0 : i],
        };
        struct memory *memory = NULL;
        struct iova_range range;
        struct mapping *m = NULL;

        if (map_check_range(domain_constraints(d), &e, &range, r) == 0 &&
            (memory = session_find_memory(s, req->memory[req->n_memory == 1 ? 0 : i], r)) &&
            map_check_memory(memory, &e, r) == 0 && map_check_free(d, range, r) == 0) {
                m = mapping_set_insert(&d->mappings, range);
                if (!m)
                        refuse(r, REFUSAL_INTERNAL, "out of memory");
        }
        if (!m) {
                r->element = (int32_t)i;
                return NULL;
        }
        m->memory = memory;
        m->offset = e.offset;
        m->access = e.access;
        m->state = MAPPING_INTENDED;
        memory->mappings++;
        return m;
}

static void fill_entry(struct link_map_entry *entry, const struct mapping *m) {
        *entry = (struct link_map_entry){ .iova = m->range.first, .length = iova_range_length(m->range),
                                          .memory = m->memory->id, .offset = m->offset, .access = m->access };
}

/* All elements reserved and charged, or none. */
static int reserve(struct session *s, struct domain *d, const struct map_request *req, struct op *op, struct refusal *r) {
        struct link_map_entry *entries = op_payload(op);
        struct mapping **nodes = op->of.map.nodes;
        struct quota_amounts amounts = { 0 }, freed;
        size_t i;

        for (i = 0; i < req->n; i++) {
                nodes[i] = admit_element(s, d, req, i, r);
                if (!nodes[i])
                        goto undo;
                fill_entry(&entries[i], nodes[i]);
                amounts.of[RESOURCE_MAPPINGS]++;
                /* Disjoint ranges of one domain: their sum fits 64 bits unless it is the whole space. */
                if (ADD_OVERFLOW(amounts.of[RESOURCE_LOCKED_BYTES], entries[i].length, &amounts.of[RESOURCE_LOCKED_BYTES]))
                        amounts.of[RESOURCE_LOCKED_BYTES] = UINT64_MAX;
        }
        if (quota_charge(&s->tenant->account, &amounts, r) == 0)
                return 0;
undo:
        withdraw(d, nodes, i, &freed);          /* never charged: nothing to refund */
        return -1;
}

static struct op *admit_map(struct session *s, const void *request, struct refusal *r) {
        const struct map_request *req = request;
        struct domain *d = session_find_domain(s, req->domain, r);
        struct op *op;

        if (!d || domain_is_usable(d, r) < 0 || map_check_budget(d, req->n, r) < 0)
                return NULL;
        op = op_new(s, LEDGER_OP_MAP, LINK_MAP, req->n * sizeof(struct link_map_entry));
        if (op)
                op->of.map.nodes = malloc(req->n * sizeof(struct mapping *));
        if (!op || !op->of.map.nodes) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                if (op)
                        op_unref(op);
                return NULL;
        }
        if (reserve(s, d, req, op, r) < 0) {
                free(op->of.map.nodes);
                op_unref(op);
                return NULL;
        }
        d->busy++;
        op->of.map.domain = d;
        op->of.map.n = req->n;
        op->row.object = op->message[0].domain = d->id;
        op->message[0].count = (uint32_t)req->n;
        op->deadline_ms = monotonic_ms() + s->broker->options.operation_deadline_ms;
        op->write_intent = write_map_intent;
        op->finish = finish_map;
        return op;
}

void map_request_start(struct session *s, const struct map_request *req, struct reply *reply) {
        uint64_t hash = request_hash_u64(request_hash_u64(REQUEST_HASH_INIT, LEDGER_OP_MAP), req->domain);

        if (req->key.present) {
                hash = request_hash(hash, req->iova, req->n * sizeof *req->iova);
                hash = request_hash(hash, req->length, req->n * sizeof *req->length);
                hash = request_hash(hash, req->offset, req->n * sizeof *req->offset);
                hash = request_hash(hash, req->memory, req->n_memory * sizeof *req->memory);
                hash = request_hash(hash, req->access, req->n_access * sizeof *req->access);
        }
        request_start(s, &req->key, hash, reply, admit_map, req);
}
