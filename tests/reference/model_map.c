/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model_private.h"

/*
 * Map. Each element is judged by itself, after those before it: every reason that would be true is a right one.
 */

static void complain_of_alignment(struct verdict *v, uint64_t value, uint64_t page) {
        struct complaint *c;

        if (is_multiple(value, page))
                return;
        c = complain(v, IOMMUD_REASON_UNALIGNED);
        c->amounts = c->nearest = true;
        c->limit = page;
        c->asked = value;
        c->below = round_down(value, page);
        c->above = c->below + page;
}

/* Whole pages, or with consent any range; but a page has one translation, so IOVA and offset must then be alike in their pages. */
static void judge_alignment(uint64_t page, const struct op_element *e, const struct op *op, struct verdict *v) {
        bool exposes = op->flags & IOMMUD_MAP_EXPOSE_PAGES;
        bool whole = is_multiple(e->iova, page) && is_multiple(e->offset, page) && is_multiple(e->length, page);

        if (!exposes) {
                complain_of_alignment(v, e->iova, page);
                complain_of_alignment(v, e->offset, page);
                complain_of_alignment(v, e->length, page);
        } else if (e->iova % page != e->offset % page) {
                struct complaint *c = complain(v, IOMMUD_REASON_UNALIGNED);

                c->amounts = c->nearest = true;
                c->limit = page;
                c->asked = e->offset;
                c->below = round_down(e->offset, page) + e->iova % page;
                c->above = c->below + page;
        }
        if (op->chunk == 0)
                return;
        if (exposes && !whole)
                complain(v, IOMMUD_REASON_UNSUPPORTED);
        if (op->chunk < page || (op->chunk & (op->chunk - 1)) != 0) {
                struct complaint *c = complain(v, IOMMUD_REASON_UNALIGNED);

                c->amounts = true;
                c->limit = page;
                c->asked = op->chunk;
        }
}

/* The pages that devices would see lie in one usable range. */
static void judge_place(const struct model *m, const struct model_domain *d, const struct op_element *e, struct verdict *v) {
        uint64_t page = model_page_at(m, d, e->iova);
        uint64_t first = round_down(e->iova, page), last = e->iova + e->length - 1;
        const struct world_range *r = m->world.ranges;
        uint32_t n = m->world.n_ranges;
        bool inside = false;

        last = round_down(last, page) + page - 1;
        if (m->world.windows) {
                judge_window(m, d, first, last, v);
                return;
        }
        for (uint32_t i = 0; i < n; i++)
                inside |= first >= r[i].first && last <= r[i].last;
        if (inside)
                return;
        if (first < r[0].first || last > r[n - 1].last)
                complain(v, IOMMUD_REASON_OUTSIDE_APERTURE);
        for (uint32_t i = 0; i + 1 < n; i++)
                if (first < r[i + 1].first && last > r[i].last) {
                        struct complaint *c = complain(v, IOMMUD_REASON_RESERVED_REGION);

                        c->conflict = c->nearest = true;
                        c->conflict_first = c->below = r[i].last + 1;
                        c->conflict_last = r[i + 1].first - 1;
                        c->above = r[i + 1].first;
                }
}

static void judge_memory(uint64_t page, const struct model_memory *o, const struct op_element *e, struct verdict *v) {
        uint64_t end = e->offset + e->length, seen = round_up(end, page);

        if (end < e->offset || end > o->size || seen > o->size) {
                struct complaint *c = complain(v, IOMMUD_REASON_BEYOND_OBJECT);

                c->amounts = true;
                c->limit = o->size;
                c->asked = end > o->size ? end : seen;
        }
        if ((e->access & IOMMUD_WRITE) && o->read_only)
                complain(v, IOMMUD_REASON_MEMORY_READ_ONLY);
}

static void name(struct complaint *c, const struct model_mapping *x) {
        c->conflict = true;
        c->conflict_first = x->iova;
        c->conflict_last = x->iova + x->length - 1;
}

/* No cell of the range has a mapping. Those that have other cells of its pages see the same memory object behind them. */
static void judge_neighbours(const struct model *m, const struct model_domain *d, const struct op_element *e, struct verdict *v) {
        uint64_t page = model_page_at(m, d, e->iova);
        uint64_t first = round_down(e->iova, page), end = round_up(e->iova + e->length, page);
        int16_t named_there = -1, named_beside = -1;

        if (!in_piece(m, first, end - first))
                return;
        for (uint32_t i = cell_at(m, first); i < cell_at(m, first) + (end - first) / model_cell_bytes(m); i++) {
                uint64_t at = cell_iova(m, i);
                const struct model_mapping *x = d->cell[i] < 0 ? NULL : &d->mappings[d->cell[i]];
                bool mine = at >= e->iova && at < e->iova + e->length;

                if (!x || d->cell[i] == (mine ? named_there : named_beside))
                        continue;
                if (mine)
                        name(complain(v, x->waits ? IOMMUD_REASON_IN_PROGRESS : IOMMUD_REASON_OVERLAP), x);
                else if (x->memory != e->memory || x->offset - x->iova != e->offset - e->iova)
                        name(complain(v, IOMMUD_REASON_OVERLAP), x);
                *(mine ? &named_there : &named_beside) = d->cell[i];
        }
        /* what shares larger pages, from when they were the smallest known, exposes all of them */
        for (int i = 0; i < MAPPINGS; i++) {
                const struct model_mapping *x = &d->mappings[i];

                if (x->there && x->page > page && is_partial(x) && seen_first(x) < end && seen_end(x) > first)
                        name(complain(v, IOMMUD_REASON_OVERLAP), x);
        }
}

static void judge_element(const struct model *m, const struct op *op, const struct op_element *e, struct verdict *v) {
        const struct model_client *client = &m->clients[op->client];
        const struct model_domain *d = &client->domains[op->domain];
        uint64_t page = model_page_at(m, d, e->iova);

        if (e->access == 0 || e->access > 3) {
                struct complaint *c = complain(v, IOMMUD_REASON_BAD_ACCESS);

                c->amounts = true;
                c->asked = e->access;
        }
        judge_alignment(page, e, op, v);
        if (e->length == 0) {
                complain(v, IOMMUD_REASON_ZERO_LENGTH);
                return;
        }
        judge_memory(page, &client->memories[e->memory], e, v);
        if (e->iova + (e->length - 1) < e->iova) {
                complain(v, IOMMUD_REASON_RANGE_WRAPS);
                return;
        }
        judge_place(m, d, e, v);
        judge_in_window(m, d, e, v);
        judge_neighbours(m, d, e, v);
}

/* Does element i go on where `e` ends? Chunks are counted from the beginning of a mapping, so they must fit. */
static bool goes_on(const struct op *op, uint32_t i, const struct op_element *e) {
        const struct op_element *next = &op->e[i];

        return (op->flags & IOMMUD_MAP_MERGE) && i < op->n && e->length > 0 && next->length > 0 &&
               next->iova == e->iova + e->length && next->offset == e->offset + e->length && next->memory == e->memory &&
               next->access == e->access && (op->chunk == 0 || is_multiple(e->length, op->chunk));
}

bool model_can_register(const struct model *m, uint32_t client, uint32_t memory) {
        return !m->world.windows || m->clients[client].memories[memory].view_writable;
}

/* Nothing of that is known before it is tried. */
static void complain_of_registration(const struct model *m, const struct op *op, struct verdict *v) {
        if (m->clients[op->client].domains[op->domain].n_devices == 0 || (op->flags & IOMMUD_MAP_DRY_RUN))
                return;
        for (uint32_t i = 0; i < op->n; i++)
                if (!model_can_register(m, op->client, op->e[i].memory)) {
                        complain(v, IOMMUD_REASON_BACKEND_REFUSED);
                        return;
                }
}

/* All elements, or those before the first that is wrong. */
static void put_elements(struct model *m, const struct op *op, struct verdict *v) {
        struct model_domain *d = &m->clients[op->client].domains[op->domain];

        for (uint32_t i = 0, next; i < op->n; i = next) {
                struct op_element e = op->e[i];
                struct model_mapping x;

                for (next = i + 1; goes_on(op, next, &e); next++)
                        e.length += op->e[next].length;
                judge_element(m, op, &e, v);
                if (v->n > 0) {
                        v->element = i;
                        return;
                }
                x = (struct model_mapping){ .iova = e.iova, .length = e.length, .offset = e.offset, .memory = e.memory,
                                            .access = e.access, .chunk = op->chunk, .page = model_page_at(m, d, e.iova),
                                            .sealed = m->clients[op->client].memories[e.memory].sealed };
                if (!is_partial(&x))
                        x.page = 0;
                if (!mapping_put(m, d, &x)) {
                        complain(v, IOMMUD_REASON_UNSPECIFIED);
                        return;
                }
                touch_tables(m, d, &x);
                v->mappings++;
        }
}

void play_map(struct model *m, const struct op *op, struct verdict *v) {
        static struct model after;
        uint64_t old[RESOURCES], new[RESOURCES];
        uint32_t tenant = model_tenant_of(op->client);
        struct model_domain *d = &m->clients[op->client].domains[op->domain];

        if (op->flags & IOMMUD_MAP_EXPOSE_PAGES)
                d->shares_pages = true;
        after = *m;
        put_elements(&after, op, v);
        if (v->n == 0) {
                complain_of_limits(m, &after, op->client, op->domain, v);
                complain_of_registration(m, op, v);
        }
        if (v->n > 0) {
                if (v->of[0].reason == IOMMUD_REASON_BACKEND_REFUSED)   /* and nothing else: the kernel has been there */
                        memcpy(d->tables, after.clients[op->client].domains[op->domain].tables, sizeof d->tables);
                return;
        }
        model_balance(m, tenant, old);
        model_balance(&after, tenant, new);
        v->iova = op->e[0].iova;
        v->locked_bytes = new[IOMMUD_RESOURCE_LOCKED_BYTES] - old[IOMMUD_RESOURCE_LOCKED_BYTES];
        v->table_bytes = new[IOMMUD_RESOURCE_TABLE_BYTES] - old[IOMMUD_RESOURCE_TABLE_BYTES];
        if (!(op->flags & IOMMUD_MAP_DRY_RUN))
                *m = after;
}
