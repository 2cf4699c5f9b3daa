/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/change.h"
#include "core/domain.h"
#include "core/domain_tables.h"
#include "core/domain_window.h"
#include "core/map_check.h"
#include "core/op.h"
#include "core/window_place.h"
#include "util/cleanup.h"

/*
 * Map: admit (every element checked and its range reserved, then charged) -> intend -> the holder applies -> live, or
 * everything given back. The reservation is a node of the domain's mapping set in state INTENDED: nobody else can be
 * admitted there meanwhile, so no lock is needed while the disk and the holder work. core/change.h has the bookkeeping.
 */

/* ---- the operation ---- */

static void finish_map(struct op *op, struct link_result *result, int *fd) {
        struct change *c = op->of.change.change;
        struct domain *d = c->domain;
        uint64_t bytes = 0, mappings = 0;

        (void)fd;
        d->busy--;
        if (result->flags & LINK_RESULT_UNDO_FAILED)
                d->state = LEDGER_QUARANTINED;
        if (op_outcome_unknown(result))
                change_abandon(c);
        else if (result->refusal.reason == REFUSAL_NONE)
                change_apply(c, &bytes, &mappings);
        else {
                change_name_element(c, op->of.change.n_old, &result->refusal);
                change_undo(c);
        }
        change_free(c);
}

/* First, and not undone with the intent: a row too many costs a table after a restart, one too few would give away what the
 * kernel keeps. */
static int write_touched(const struct change *c, struct ledger *ledger, struct refusal *r) {
        for (size_t i = 0; c->tables > 0 && i < c->n_made - c->n_rests; i++)
                if (c->made[i]->touches && ledger_touched_put(ledger, c->domain->id, mapping_seen(c->made[i]), r) < 0)
                        return -1;
        return 0;
}

/* The rows are what the client asked for; the holder hears of whole pages. */
static int write_map_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct change *c = op->of.change.change;
        struct ledger_mapping rows[REQUEST_BATCH_MAX];

        for (size_t i = 0; i < c->n_made; i++)
                rows[i] = mapping_row(c->domain, c->made[i], op->row.id);
        /* All of the answer is known by now, and what it cost could not be told any more after a crash. */
        if (op->row.has_key)
                op_answer_store(&op->row, &op->answer, NULL);
        return write_touched(c, ledger, r) < 0 ? -1 : ledger_map_intend(ledger, &op->row, rows, c->n_made, r);
}

/* ---- elements ---- */

/* The elements of a request, one after another; neighbours that continue each other are one when the caller wants that. */
struct elements {
        const struct map_request *req;
        size_t next;                    /* index of the one to take next */
        uint64_t place;                 /* where it goes, when the service chooses */
};

static bool continues(const struct map_request *req, size_t i, const struct map_element *e, uint64_t memory) {
        uint64_t iova = e->iova + e->length, offset = e->offset + e->length;

        return i < req->n && (req->anywhere || req->iova[i] == iova) && iova != 0 && req->offset[i] == offset &&
               req->memory[req->n_memory == 1 ? 0 : i] == memory && req->access[req->n_access == 1 ? 0 : i] == e->access &&
               (req->n_chunk <= 1 || req->chunk[i] == e->chunk) && (e->chunk == 0 || e->length % e->chunk == 0) &&
               e->length != 0 && req->length[i] != 0;     /* nothing is no neighbour: it is refused */
}

static uint64_t next_element(struct elements *l, struct map_element *ret) {
        const struct map_request *req = l->req;
        size_t i = l->next++;
        uint64_t memory = req->memory[req->n_memory == 1 ? 0 : i], more;

        *ret = (struct map_element){ .iova = req->anywhere ? l->place : req->iova[i], .length = req->length[i],
                                     .offset = req->offset[i], .access = req->access[req->n_access == 1 ? 0 : i],
                                     .chunk = req->n_chunk == 0 ? 0 : req->chunk[req->n_chunk == 1 ? 0 : i],
                                     .expose = req->expose_pages };
        while (req->merge && continues(req, l->next, ret, memory) && !ADD_OVERFLOW(ret->length, req->length[l->next], &more)) {
                ret->length = more;
                l->next++;
        }
        l->place += ret->length;
        return memory;
}

/* One element, the i-th of the request, reserved. -1: refused. */
static int admit_element(struct change *c, const struct map_element *e, size_t i, uint64_t memory_id, struct refusal *r) {
        struct domain *d = c->domain;
        struct iova_range range;
        struct memory *memory;
        uint8_t page_shift;
        struct mapping *m;

        if (map_check_range(domain_constraints(d), &d->windows, e, &range, &page_shift, r) < 0 ||
            !(memory = session_find_memory(c->session, memory_id, r)) || map_check_memory(memory, e, page_shift, r) < 0 ||
            map_check_window(d, memory, e, r) < 0 || map_check_free(d, range, r) < 0)
                return -1;
        m = mapping_set_insert(&d->mappings, range);
        if (!m)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        m->memory = memory;
        m->offset = e->offset;
        m->access = e->access;
        m->chunk_shift = e->chunk ? (uint8_t)__builtin_ctzll(e->chunk) : 0;
        m->page_shift = page_shift;
        m->element = (uint32_t)i;
        m->state = MAPPING_INTENDED;
        memory->mappings++;
        return change_add(c, m, false, r);
}

/* All elements reserved and charged, or the change is to be undone. */
static int admit_elements(struct change *c, const struct map_request *req, uint64_t place, struct refusal *r) {
        struct elements l = { .req = req, .place = place };

        while (l.next < req->n) {
                struct map_element e;
                size_t i = l.next;
                uint64_t memory = next_element(&l, &e);

                if (admit_element(c, &e, i, memory, r) < 0) {
                        r->element = (int32_t)i;
                        return -1;
                }
        }
        return change_settle_pages(c, r) < 0 ? -1 : change_charge(c, r);
}

/* ---- admit ---- */

static struct op *op_for_map(struct change *c, struct refusal *r) {
        struct session *s = c->session;
        struct op *op = op_new_change(c, LEDGER_OP_MAP, r);

        if (!op)
                return NULL;
        op->deadline_ms = monotonic_ms() + s->broker->options.operation_deadline_ms;
        op->write_intent = write_map_intent;
        op->finish = finish_map;
        c->domain->busy++;
        return op;
}

/* What has to be placed as one piece, as it would be without parts of pages. */
static int sum_up(struct session *s, const struct map_request *req, struct place_want *want, struct refusal *r) {
        want->memory_page = UINT64_MAX;
        for (size_t i = 0; i < req->n; i++) {
                uint64_t id = req->memory[req->n_memory == 1 ? 0 : i];
                const struct memory *m = session_find_memory(s, id, r);
                int e = m ? 0 : -1;

                if (m && req->length[i] == 0)
                        e = refuse(r, REFUSAL_ZERO_LENGTH, "a mapping of 0 bytes was asked for");
                else if (m && ADD_OVERFLOW(want->length, req->length[i], &want->length))
                        e = refuse(r, REFUSAL_RANGE_WRAPS, "the entries together pass 2^64 bytes");
                if (e < 0) {
                        r->element = (int32_t)i;
                        return -1;
                }
                want->units |= req->offset[i] | req->length[i];
                if (m->page_size < want->memory_page) {
                        want->memory_page = m->page_size;
                        want->memory = m->id;
                }
        }
        return 0;
}

/* Where the first one goes. With consent to expose pages it may begin within one, as its memory does. */
static int choose_place(struct session *s, struct domain *d, const struct map_request *req, uint64_t *ret, struct refusal *r) {
        struct place_want want = { .window = req->window };
        const struct window *named = NULL;
        struct window_rules rules;
        struct window *chosen;
        uint64_t mask, head = 0, place;

        if (!req->anywhere) {
                *ret = req->iova[0];
                return 0;
        }
        if (sum_up(s, req, &want, r) < 0 || (req->window && !(named = window_set_find(&d->windows, req->window, r))))
                return -1;
        if (req->expose_pages) {
                mask = (named ? window_page(named) : page_mask_smallest(d->info.page_sizes)) - 1;
                head = req->offset[0] & mask;
                want.units &= ~mask;
                if (ADD_OVERFLOW(want.length, head, &want.length) || ADD_OVERFLOW(want.length, mask, &want.length))
                        return refuse(r, REFUSAL_RANGE_WRAPS, "the entries together pass 2^64 bytes");
                want.length &= ~mask;
        }
        domain_window_rules(d, &rules);
        if (window_place(&d->windows, &rules, &d->mappings.unmapped, &want, &chosen, &place, r) < 0)
                return -1;
        *ret = place + head;
        return 0;
}

static struct op *admit_map(struct session *s, const void *request, struct answer *ret, struct refusal *r) {
        const struct map_request *req = request;
        struct domain *d = session_find_domain(s, req->domain, r);
        struct change *c;
        struct op *op = NULL;

        if (!d || domain_is_usable(d, r) < 0 || choose_place(s, d, req, &ret->iova, r) < 0)
                return NULL;
        c = change_new(s, d);
        if (!c) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        if (admit_elements(c, req, ret->iova, r) == 0) {
                ret->mappings = c->n_made;
                ret->locked_bytes = c->locked_bytes;
                ret->table_bytes = domain_in_containers(c->domain, c->table_bytes);
                op = req->dry_run ? NULL : op_for_map(c, r);
        }
        if (!op) {
                change_undo(c);
                change_free(c);
                return NULL;
        }
        change_commit(c);
        return op;
}

void map_request_start(struct session *s, const struct map_request *req, struct reply *reply) {
        const uint64_t flags[] = { (uint64_t)req->expose_pages | (uint64_t)req->merge << 1 | (uint64_t)req->dry_run << 2 |
                                   (uint64_t)req->anywhere << 3, req->window };
        uint64_t hash = request_hash_u64(request_hash_u64(REQUEST_HASH_INIT, LEDGER_OP_MAP), req->domain);

        if (req->key.present) {
                if (!req->anywhere)
                        hash = request_hash(hash, req->iova, req->n * sizeof *req->iova);
                hash = request_hash(hash, req->length, req->n * sizeof *req->length);
                hash = request_hash(hash, req->offset, req->n * sizeof *req->offset);
                hash = request_hash(hash, req->memory, req->n_memory * sizeof *req->memory);
                hash = request_hash(hash, req->access, req->n_access * sizeof *req->access);
                hash = request_hash(hash, req->chunk, req->n_chunk * sizeof *req->chunk);
                hash = request_hash(hash, flags, sizeof flags);
        }
        request_start(s, &req->key, hash, reply, admit_map, req);
}
