/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>

#include "core/adopt.h"
#include "core/broker_private.h"
#include "core/change_private.h"
#include "core/op.h"
#include "core/reconcile_private.h"
#include "util/log.h"

/*
 * Mappings of the ledger against those of the holder, which knows bodies and shared pages, and not who asked for what
 * (core/change.h).
 */

/* ---- open changes ---- */

static struct link_map_entry entry_of(const struct ledger_node *n) {
        return (struct link_map_entry){ .iova = n->iova, .length = n->length, .memory = n->memory, .offset = n->offset,
                                        .access = n->access, .chunk_shift = n->chunk_shift };
}

/* A change happens wholly or not at all, so one range tells: the first that goes, or else the first that comes. When the
 * holder was to hear nothing, the intent was all there was to do, and may have been acknowledged. */
static bool effect_is_there(const struct recovery *rec, uint64_t domain, const struct ledger_effect *effect) {
        const struct link_map_entry gone = entry_of(&effect->gone), made = entry_of(&effect->made);

        if (gone.length != 0)
                return recovery_find_exact(rec, domain, &gone) == NULL;
        return made.length == 0 || recovery_find_exact(rec, domain, &made) != NULL;
}

static bool change_happened(const struct recovery *rec, const struct noted_op *op) {
        const struct dumped_mapping *there;

        if (op->row.kind == LEDGER_OP_UNMAP_LAZY)
                return op->n_ranges == 0 || !recovery_find_mapping(rec, op->row.object, op->ranges[0].iova);
        if (op->row.has_effect)
                return effect_is_there(rec, op->row.object, &op->row.effect);
        if (op->row.kind != LEDGER_OP_UNMAP)
                return false;           /* a plain map: its rows will tell */
        there = op->n_ranges ? recovery_find_mapping(rec, op->row.object, op->ranges[0].iova) : NULL;
        return !there || there->m.length != op->ranges[0].length;
}

static void add_rest(struct session *s, struct domain *d, const struct ledger_mapping *row) {
        struct iova_range range;
        struct memory *memory;
        struct mapping *m;

        HASH_FIND(hh, s->memories, &row->memory, sizeof row->memory, memory);
        if (!memory || !iova_range_make(row->iova, row->length, &range) || mapping_set_find(&d->mappings, range) ||
            !(m = mapping_set_insert(&d->mappings, range))) {
                log_error("session %" PRIu64 ": what stays of a mapping, at 0x%" PRIx64 ", cannot be taken over", s->id, row->iova);
                return;
        }
        m->memory = memory;
        m->offset = row->offset;
        m->access = row->access;
        m->chunk_shift = (uint8_t)row->chunk_shift;
        m->page_shift = (uint8_t)row->page_shift;
        m->state = MAPPING_LIVE;
        memory->mappings++;
        if (!mapping_adopt(d, m))
                log_error("session %" PRIu64 ": out of memory for what it is charged", s->id);
}

/* What an unmap that happened has left. */
static void follow_unmap(struct session *s, struct domain *d, const struct noted_op *op) {
        for (size_t i = 0; i < op->n_ranges; i++) {
                struct iova_range range;
                struct mapping *m;

                if (!iova_range_make(op->ranges[i].iova, op->ranges[i].length, &range))
                        continue;
                m = mapping_set_find(&d->mappings, range);
                if (m && m->range.first == range.first && m->range.last == range.last)
                        mapping_release(d, m);
        }
        for (size_t i = 0; i < op->n_rests; i++)
                add_rest(s, d, &op->rests[i]);
}

/* Half of something is there: the records stay as they are until the domain goes. */
static bool is_quarantined(const struct recovery *rec, const struct domain *d) {
        const struct dumped_domain *there = recovery_find_domain(rec, d->id);

        return there && there->d.quarantined;
}

static bool is_window_op(const struct noted_op *op) {
        return op->row.kind == LEDGER_OP_CREATE_WINDOW || op->row.kind == LEDGER_OP_REMOVE_WINDOW ||
               op->row.kind == LEDGER_OP_RESET_WINDOWS;
}

static bool is_within(const struct noted_op *many, uint64_t iova, uint64_t length) {
        for (size_t i = 0; i < many->n_ranges; i++)
                if (iova >= many->ranges[i].iova && iova - many->ranges[i].iova < many->ranges[i].length &&
                    length <= many->ranges[i].length - (iova - many->ranges[i].iova))
                        return true;
        return many->n_ranges == 0;             /* all of the domain */
}

/* A large unmap was begun, and what was there before it is on its way out, whichever of its parts were done. */
static void finish_many(struct domain *d, struct recovery *rec, struct noted_op *many) {
        many->applied = true;
        for (size_t i = 0; d && i < rec->n_rows; i++) {
                const struct noted_mapping *row = &rec->rows[i];
                struct mapping *m;

                if (row->domain != d->id || row->op >= many->row.id)
                        continue;
                m = mapping_set_find(&d->mappings, (struct iova_range){ row->iova, row->iova });
                if (!m || m->range.first != row->iova || !is_within(many, row->iova, iova_range_length(m->range)) ||
                    m->state == MAPPING_DEFERRED)       /* was unmapped before, and waits for its own flush */
                        continue;
                recovery_note_lost(rec, LOST_MAPPING, d->id, row->iova);
                mapping_release(d, m);
        }
}

static void finish_open_many(struct session *s, struct recovery *rec) {
        for (size_t i = 0; i < rec->n_ops; i++) {
                struct domain *d;

                if (rec->ops[i].row.kind != LEDGER_OP_UNMAP_MANY)
                        continue;
                HASH_FIND(hh, s->domains, &rec->ops[i].row.object, sizeof rec->ops[i].row.object, d);
                finish_many(d, rec, &rec->ops[i]);
        }
}

void reconcile_open_changes(struct session *s, struct recovery *rec) {
        for (size_t i = 0; i < rec->n_ops; i++) {
                struct noted_op *op = &rec->ops[i];
                struct domain *d;

                HASH_FIND(hh, s->domains, &op->row.object, sizeof op->row.object, d);
                if (is_window_op(op))
                        op->applied = d && window_op_happened(d, rec, op);
                else if (op->row.kind == LEDGER_OP_MAP || op->row.kind == LEDGER_OP_UNMAP ||
                         op->row.kind == LEDGER_OP_UNMAP_LAZY)
                        op->applied = change_happened(rec, op);
                else
                        continue;
                if (!d)
                        continue;
                if (is_quarantined(rec, d))
                        op->open = true;
                else if (op->row.kind == LEDGER_OP_UNMAP_LAZY && !op->applied)
                        op->applied = op->open = lazy_resume(d, op);    /* acknowledged: it waits again */
                else if (op->row.kind != LEDGER_OP_MAP && op->applied)
                        follow_unmap(s, d, op);
        }
        finish_open_many(s, rec);
}

/* ---- each mapping ---- */

/* The holder has its body, and shows the pages that it shares; what explains a range of the holder is marked. */
static bool is_there(struct domain *d, const struct recovery *rec, const struct mapping *m) {
        struct dumped_mapping *body_there = NULL;
        struct link_map_entry body;
        uint64_t edges[2];
        unsigned n = mapping_edges(m, edges);
        bool has_body = mapping_body_entry(m, &body);

        if (has_body && !(body_there = recovery_find_exact(rec, d->id, &body)))
                return false;
        for (unsigned i = 0; i < n; i++) {
                const struct shared_page *p = shared_page_find(&d->pages, edges[i]);
                struct link_map_entry page = p ? shared_page_entry(p, p->access) : (struct link_map_entry){ 0 };
                struct dumped_mapping *there = p ? recovery_find_mapping(rec, d->id, p->iova) : NULL;

                if (!there || there->m.length != page.length || there->m.memory != page.memory ||
                    there->m.offset != page.offset || (there->m.access & m->access) != m->access)
                        return false;
        }
        if (has_body)
                body_there->explained = true;
        return true;
}

/* A page that the holder shows with other access than its sharers ask for is undone and not explained: that cannot be. */
static void explain_pages(struct domain *d, const struct recovery *rec) {
        for (struct shared_page *p = shared_page_from(&d->pages, 0); p; p = shared_page_next(&d->pages, p)) {
                struct link_map_entry page = shared_page_entry(p, p->access);
                struct dumped_mapping *there = recovery_find_exact(rec, d->id, &page);

                if (there)
                        there->explained = true;
        }
}

void reconcile_mappings(struct domain *d, struct recovery *rec, unsigned *differs) {
        static const struct iova_range all = { 0, UINT64_MAX };
        struct mapping *next;

        /* Rows of maps that did not happen go first: they must not count on pages. */
        for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = next) {
                struct noted_op *op = recovery_op_of_row(rec, d->id, m->range.first);

                next = mapping_set_next(&d->mappings, m);
                if (op && op->row.kind == LEDGER_OP_MAP && op->row.has_effect && !op->applied && !op->open)
                        mapping_release(d, m);
        }
        for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = next) {
                struct noted_op *op = recovery_op_of_row(rec, d->id, m->range.first);

                next = mapping_set_next(&d->mappings, m);
                if (m->state != MAPPING_DEFERRED)
                        m->state = MAPPING_LIVE;
                if (is_there(d, rec, m) || d->state == LEDGER_QUARANTINED) {
                        if (op && op->row.kind == LEDGER_OP_MAP)
                                op->applied = true;
                        continue;
                }
                if (!op || op->row.kind != LEDGER_OP_MAP || op->applied) {
                        *differs += 1;
                        recovery_note_lost(rec, LOST_MAPPING, d->id, m->range.first);
                }
                mapping_release(d, m);
        }
        explain_pages(d, rec);
}

/* ---- what is left over ---- */

bool was_to_go(const struct recovery *rec, const struct dumped_mapping *m) {
        for (size_t i = 0; i < rec->n_ops; i++)
                if (rec->ops[i].row.kind == LEDGER_OP_UNMAP_MANY && rec->ops[i].row.object == m->domain &&
                    is_within(&rec->ops[i], m->m.iova, m->m.length))
                        return true;
        return false;
}
