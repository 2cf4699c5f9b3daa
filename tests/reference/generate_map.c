/* SPDX-License-Identifier: Apache-2.0 */
#include "generate_private.h"

/*
 * What is mapped and unmapped.
 */
static uint32_t pick_access(struct generator *g, const struct model_memory *o) {
        if (o->read_only && !one_in(g, 15))
                return IOMMUD_READ;
        return one_in(g, 3) ? 1 + below(g, 3) : IOMMUD_READ_WRITE;
}

/* ---- map ---- */

/* Nothing is there, and it is a place where something can be. */
static bool is_free(const struct generator *g, const struct op *op, const struct op_element *e) {
        const struct model *m = &g->model;
        const struct model_domain *d = &m->clients[op->client].domains[op->domain];
        const struct model_memory *o = &m->clients[op->client].memories[e->memory];
        uint64_t end = e->iova + e->length;
        bool in_range;

        in_range = model_is_in_second(m, d, e->iova) && model_is_in_second(m, d, end - 1);
        for (uint32_t i = 0; i < m->world.n_ranges; i++)
                in_range |= e->iova >= m->world.ranges[i].first && end - 1 <= m->world.ranges[i].last;
        if (!in_range || e->offset + e->length > o->size)
                return false;
        for (int i = 0; i < MAPPINGS; i++)
                if (d->mappings[i].there && d->mappings[i].iova < end && d->mappings[i].iova + d->mappings[i].length > e->iova)
                        return false;
        return world_page_at(&m->world, end - 1) < world_pages(&m->world);
}

static uint64_t page_of(const struct generator *g, const struct op *op, uint64_t iova) {
        return model_page_at(&g->model, &g->model.clients[op->client].domains[op->domain], iova);
}

/* Where mappings go: the second window, if there is one, as often as not. Returns how many pages there are, and some behind. */
static uint32_t pick_place(struct generator *g, const struct op *op, uint64_t *ret_base, uint64_t *ret_page) {
        const struct world *w = &g->model.world;
        const struct model_domain *d = &g->model.clients[op->client].domains[op->domain];
        bool is_far = d->second.there && one_in(g, 2);

        *ret_base = is_far ? w->far_base : w->base;
        *ret_page = is_far ? d->second.page : model_smallest_page(&g->model, d);
        return (uint32_t)((is_far ? w->far_pages : w->n_pages) * w->page / *ret_page);
}

static void pick_pages(struct generator *g, const struct op *op, struct op_element *e) {
        const struct world *w = &g->model.world;
        const struct model_memory *o = &g->model.clients[op->client].memories[e->memory];
        uint32_t n = 1 + below(g, one_in(g, 5) ? 8 : 4), large = (2U << 20) / 4096, places, pages;
        uint64_t base, page;

        if (w->n_pages > 1000 && one_in(g, 2)) {        /* large pages, whole or not quite */
                uint32_t first = below(g, 2), count = 1 + below(g, 3 - first > 2 ? 2 : 1);

                e->iova = w->base + (uint64_t)first * large * w->page;
                e->length = (uint64_t)count * large * w->page;
                e->offset = below(g, 2) * (uint64_t)large * w->page;
                if (one_in(g, 3))
                        e->length -= w->page * (1 + below(g, 20));
                return;
        }
        places = pick_place(g, op, &base, &page);
        pages = (uint32_t)(o->size / page);
        e->iova = base + below(g, places) * page;
        e->length = n * page;
        e->offset = below(g, pages > n ? pages - n + 1 : 1) * page;
}

/* Cells at random, or a part of a page that somebody has a part of already, seen alike or not. */
static void pick_cells(struct generator *g, const struct op *op, struct op_element *e) {
        uint64_t cell = model_cell_bytes(&g->model), page;
        const struct model_mapping *x = one_in(g, 3) ? NULL : pick_mapping(g, op);
        uint32_t cells;

        pick_pages(g, op, e);
        page = page_of(g, op, e->iova);
        if (x && !one_in(g, 8)) {
                uint64_t at = one_in(g, 2) ? x->iova : x->iova + x->length - 1;

                page = page_of(g, op, at);
                e->iova = at - at % page;
                e->offset = x->offset + e->iova - x->iova;
                e->memory = x->memory;
        }
        cells = (uint32_t)(page / cell);
        e->iova += below(g, cells) * cell;
        e->offset += e->iova % page;
        e->length = (1 + below(g, one_in(g, 3) ? 2 * cells + 1 : cells)) * cell;
}

static void spoil(struct generator *g, const struct op *op, struct op_element *e) {
        const struct world *w = &g->model.world;
        const struct model_memory *o = &g->model.clients[op->client].memories[e->memory];
        uint64_t cell = model_cell_bytes(&g->model);

        switch (below(g, 9)) {
        case 0:
                e->length = 0;
                break;
        case 1:         /* beyond 2^64 */
                e->iova = UINT64_MAX - w->page + 1;
                e->length = 2 * w->page;
                break;
        case 2:
                e->access = one_in(g, 2) ? 0 : 4;
                break;
        case 3:
                e->offset = o->size - o->size % w->page - (one_in(g, 2) ? 0 : w->page) + e->iova % w->page;
                break;
        case 4:
                e->iova += cell;
                break;
        case 5:
                e->length += cell;
                break;
        case 6:
                e->offset += cell;
                break;
        case 7:         /* into the reserved region, or out of the aperture */
                e->iova = w->ranges[below(g, w->n_ranges)].last + 1 - w->page + e->iova % w->page;
                break;
        default:
                e->iova = w->base + (w->n_pages - 1 - below(g, 3)) * w->page + e->iova % w->page;
        }
}

static bool make_element(struct generator *g, struct op *op, struct op_element *e) {
        if (!pick_memory(g, op->client, &e->memory))
                return false;
        for (int i = 0; i < 20; i++) {
                if (op->flags & IOMMUD_MAP_EXPOSE_PAGES)
                        pick_cells(g, op, e);
                else
                        pick_pages(g, op, e);
                if (is_free(g, op, e) || one_in(g, 100))
                        break;
        }
        e->access = pick_access(g, &g->model.clients[op->client].memories[e->memory]);
        if (one_in(g, 20))
                spoil(g, op, e);
        return true;
}

bool make_map(struct generator *g, struct op *op) {
        uint32_t n = one_in(g, 2) ? 1 : 1 + below(g, 5);
        uint64_t page;

        if (!pick_busy_domain(g, op, has_device))
                return false;
        page = page_of(g, op, g->model.world.base);
        if (one_in(g, 2))
                op->flags |= IOMMUD_MAP_EXPOSE_PAGES;
        if (one_in(g, 4))
                op->flags |= IOMMUD_MAP_MERGE;
        if (one_in(g, 9))
                op->flags |= IOMMUD_MAP_DRY_RUN;
        if (one_in(g, op->flags & IOMMUD_MAP_EXPOSE_PAGES ? 16 : 2))
                op->chunk = one_in(g, 20) ? (one_in(g, 2) ? page / 2 : 3 * page) : page << below(g, 3);
        for (op->n = 0; op->n < n; op->n++) {
                struct op_element *e = &op->e[op->n];

                if (!make_element(g, op, e))
                        return false;
                if (op->n > 0 && one_in(g, 3)) {        /* goes on where the last one ended */
                        struct op_element before = e[-1];

                        e->iova = before.iova + before.length;
                        e->offset = before.offset + before.length;
                        e->memory = before.memory;
                        if (!one_in(g, 4))
                                e->access = before.access;
                }
        }
        return true;
}

/* ---- unmap ---- */

static void make_range(struct generator *g, const struct op *op, struct op_element *e) {
        const struct world *w = &g->model.world;
        const struct model_mapping *x = pick_mapping(g, op);
        uint64_t step = one_in(g, 4) ? model_cell_bytes(&g->model) : w->page, end;
        uint32_t steps;

        if (w->host_page > w->page && one_in(g, 3))
                step = w->host_page;
        if (!x || one_in(g, 20)) {
                e->iova = w->base + below(g, w->n_pages) * w->page;
                e->length = (1 + below(g, 4)) * w->page;
                return;
        }
        e->iova = x->iova;
        e->length = x->length;
        steps = (uint32_t)(x->length / step);
        if (x->chunk && one_in(g, 2)) {
                uint32_t chunks = (uint32_t)((x->length + x->chunk - 1) / x->chunk), first = below(g, chunks);

                e->iova = x->iova + first * x->chunk;
                end = e->iova + (1 + below(g, chunks - first)) * x->chunk;
                e->length = (end < x->iova + x->length ? end : x->iova + x->length) - e->iova;
        } else if (steps > 1 && one_in(g, 2)) {
                uint32_t first = below(g, steps);

                e->iova = x->iova - x->iova % step + first * step;
                e->iova = e->iova < x->iova ? x->iova : e->iova;
                end = e->iova - e->iova % step + (1 + below(g, steps - first)) * step;
                e->length = end > e->iova ? end - e->iova : step;
        } else if (one_in(g, 5))        /* what follows, too */
                e->length += (1 + below(g, 3)) * w->page;
        if (one_in(g, 30))
                e->length = 0;
}

bool make_unmap(struct generator *g, struct op *op) {
        if (!pick_busy_domain(g, op, has_mappings) || (!has_mappings(g, op) && !one_in(g, 30)))
                return false;
        op->flags = one_in(g, 2) ? IOMMUD_SPLIT_AT_CHUNKS : one_in(g, 6) ? IOMMUD_SPLIT_HITLESS : IOMMUD_SPLIT_REMAP;
        op->n = !one_in(g, 4) ? 1 : 1 + below(g, 4);
        for (uint32_t i = 0; i < op->n; i++)
                make_range(g, op, &op->e[i]);
        return true;
}
