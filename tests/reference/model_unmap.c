/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model_private.h"

/*
 * Unmap: the cells that are asked for must all be mapped, and each mapping may be cut only where it can be.
 */

/* Where a mapping can be cut. With consent to a remap: at IOMMU pages; else at chunks, which are counted from its beginning. Memory
 * that is not sealed is paid for by each mapping in the host's pages, so none of those is cut. */
static bool can_cut(const struct model *m, const struct model_domain *d, const struct model_mapping *x, uint64_t at,
                    uint32_t policy) {
        uint64_t least = x->sealed ? model_page_at(m, d, x->iova) : m->world.host_page;

        if (at == x->iova || at == x->iova + x->length)
                return true;
        if (policy == IOMMUD_SPLIT_REMAP)
                return is_multiple(x->offset + (at - x->iova), least);
        if (x->chunk == 0 || !is_multiple(at - x->iova, x->chunk))
                return false;
        return least == model_page_at(m, d, x->iova) || (x->chunk >= least && is_multiple(x->offset, least));
}

static void judge_cut(const struct model *m, const struct model_domain *d, const struct model_mapping *x, uint64_t at,
                      uint32_t policy, struct verdict *v) {
        uint64_t step = model_cell_bytes(m);
        struct complaint *c;

        if (can_cut(m, d, x, at, policy))
                return;
        c = complain(v, policy == IOMMUD_SPLIT_HITLESS ? IOMMUD_REASON_UNSUPPORTED : IOMMUD_REASON_PARTIAL_UNMAP);
        c->conflict = c->nearest = true;
        c->conflict_first = x->iova;
        c->conflict_last = x->iova + x->length - 1;
        for (c->below = at; !can_cut(m, d, x, c->below, policy); c->below -= step)
                ;
        for (c->above = at; !can_cut(m, d, x, c->above, policy); c->above += step)
                ;
}

static void complain_of_twice(const struct model_mapping *x, struct verdict *v) {
        struct complaint *c = complain(v, IOMMUD_REASON_OVERLAP);

        c->conflict = true;
        c->conflict_first = x->iova;
        c->conflict_last = x->iova + x->length - 1;
}

/* The cells [first, end); `taken` has those of the ranges before. */
static void judge_cells(const struct model *m, const struct model_domain *d, uint32_t first, uint32_t end, uint32_t policy,
                        const bool taken[CELLS], struct verdict *v) {
        uint64_t from = cell_iova(m, first), to = cell_iova(m, end - 1) + model_cell_bytes(m);
        int16_t judged = -1, named = -1;
        bool hole = false;

        for (uint32_t i = first; i < end; i++) {
                const struct model_mapping *x = d->cell[i] < 0 ? NULL : &d->mappings[d->cell[i]];

                if (!x || x->waits) {
                        if (!hole)
                                complain(v, IOMMUD_REASON_NOT_MAPPED)->hole = true;
                        hole = true;
                        continue;
                }
                if (taken[i] && d->cell[i] != named) {
                        complain_of_twice(x, v);
                        named = d->cell[i];
                }
                if (d->cell[i] == judged)
                        continue;
                judged = d->cell[i];
                judge_cut(m, d, x, from > x->iova ? from : x->iova, policy, v);
                judge_cut(m, d, x, to < x->iova + x->length ? to : x->iova + x->length, policy, v);
        }
}

static void judge_range(const struct model *m, const struct model_domain *d, const struct op_element *e, uint32_t policy,
                        const bool taken[CELLS], struct verdict *v) {
        const struct world *w = &m->world;
        bool is_far = world_is_far(w, e->iova);
        uint64_t first = is_far ? w->far_base : w->base, last = first + (is_far ? w->far_pages : w->n_pages) * w->page - 1;

        if (e->length == 0)
                complain(v, IOMMUD_REASON_ZERO_LENGTH);
        else if (e->iova + (e->length - 1) < e->iova)
                complain(v, IOMMUD_REASON_RANGE_WRAPS);
        if (v->n > 0)
                return;
        /* nothing is ever mapped beside the pieces, which lie far apart */
        if (e->iova < first || e->iova + e->length - 1 > last)
                complain(v, IOMMUD_REASON_NOT_MAPPED)->hole = true;
        if (e->iova > last || e->iova + e->length - 1 < first)
                return;
        first = e->iova > first ? e->iova : first;
        last = e->iova + e->length - 1 < last ? e->iova + e->length - 1 : last;
        judge_cells(m, d, cell_at(m, first), cell_at(m, last) + 1, policy, taken, v);
}

/* Takes the cells of one mapping away that are taken; what is left of it are mappings of their own, each with its chunks counted
 * from its own beginning. */
static void cut(struct model *m, struct model_domain *d, struct model_mapping *x, const bool taken[CELLS]) {
        uint32_t first = cell_at(m, x->iova), n = (uint32_t)(x->length / model_cell_bytes(m));
        struct model_mapping whole = *x;

        mapping_drop(m, d, x);
        for (uint32_t i = first, end; i < first + n; i = end) {
                struct model_mapping rest = whole;

                for (end = i; end < first + n && taken[end] == taken[i]; end++)
                        ;
                if (taken[i])
                        continue;
                rest.iova = whole.iova + (i - first) * model_cell_bytes(m);
                rest.offset = whole.offset + (i - first) * model_cell_bytes(m);
                rest.length = (end - i) * model_cell_bytes(m);
                if (!mapping_put(m, d, &rest))
                        __builtin_trap();       /* quotas keep mappings far below the arrays */
        }
}

/* What one request does to a mapping. */
enum touch { UNTOUCHED, CUT, WHOLE };

static enum touch touched(const struct model *m, const struct model_mapping *x, const bool taken[CELLS]) {
        uint32_t first = cell_at(m, x->iova), n = (uint32_t)(x->length / model_cell_bytes(m)), count = 0;

        for (uint32_t i = first; i < first + n; i++)
                count += taken[i];
        return count == 0 ? UNTOUCHED : count < n ? CUT : WHOLE;
}

/* In a lazy domain whole mappings with pages of their own wait; a request with anything else in it is done at once, all of it. */
static bool can_wait(const struct model *m, const struct model_domain *d, const bool taken[CELLS]) {
        bool can = d->lazy;

        for (int i = 0; i < MAPPINGS; i++) {
                const struct model_mapping *x = &d->mappings[i];

                if (!x->there || x->waits || touched(m, x, taken) == UNTOUCHED)
                        continue;
                can = can && touched(m, x, taken) == WHOLE && !is_partial(x);
        }
        return can;
}

static void take(struct model *m, struct model_domain *d, const bool taken[CELLS]) {
        struct model_domain before = *d;
        bool wait = can_wait(m, d, taken);

        for (int i = 0; i < MAPPINGS; i++) {
                struct model_mapping *x = &d->mappings[i];

                if (!before.mappings[i].there || before.mappings[i].waits || touched(m, &before.mappings[i], taken) == UNTOUCHED)
                        continue;
                if (wait)
                        x->waits = true;
                else
                        cut(m, d, x, taken);
        }
}

/* Enough waits: the service flushes by itself. */
static void flush_if_many(struct model *m, const struct op *op, struct verdict *v) {
        struct model_domain *d = &m->clients[op->client].domains[op->domain];
        struct model_counts counts;

        model_count(m, op->client, op->domain, &counts);
        if (counts.waiting_mappings < m->world.lazy_mappings)
                return;
        flush(m, d);
        v->flush_follows = true;
}

void play_unmap(struct model *m, const struct op *op, struct verdict *v) {
        static struct model after;
        static bool taken[CELLS];
        struct model_domain *d;

        memset(taken, 0, sizeof taken);
        after = *m;
        d = &after.clients[op->client].domains[op->domain];
        for (uint32_t i = 0; i < op->n; i++) {
                judge_range(&after, d, &op->e[i], op->flags, taken, v);
                if (v->n > 0) {
                        v->element = i;
                        return;
                }
                for (uint64_t at = 0; at < op->e[i].length; at += model_cell_bytes(m))
                        taken[cell_at(m, op->e[i].iova + at)] = true;
                v->bytes += op->e[i].length;
        }
        take(&after, d, taken);
        complain_of_limits(m, &after, op->client, op->domain, v);
        if (v->n > 0)
                return;
        *m = after;
        flush_if_many(m, op, v);
}

void play_unmap_all(struct model *m, const struct op *op, struct verdict *v) {
        static bool taken[CELLS];
        struct model_domain *d = &m->clients[op->client].domains[op->domain];

        for (uint32_t i = 0; i < CELLS; i++) {
                taken[i] = d->cell[i] >= 0 && i < n_cells(m) && !d->mappings[d->cell[i]].waits;
                v->bytes += taken[i] ? model_cell_bytes(m) : 0;
        }
        take(m, d, taken);
        flush_if_many(m, op, v);
}

uint64_t flush(struct model *m, struct model_domain *d) {
        uint64_t bytes = 0;

        for (int i = 0; i < MAPPINGS; i++)
                if (d->mappings[i].there && d->mappings[i].waits) {
                        bytes += d->mappings[i].length;
                        mapping_drop(m, d, &d->mappings[i]);
                }
        return bytes;
}

void play_sync(struct model *m, const struct op *op, struct verdict *v) {
        v->bytes = flush(m, &m->clients[op->client].domains[op->domain]);
}
