/* SPDX-License-Identifier: Apache-2.0 */
#include "generate.h"

#include <string.h>

#define MAPPINGS_LIMIT 60U      /* of a tenant, at most: the model's arrays have more */

struct generator {
        struct model model;
        uint64_t random;
};

static uint32_t below(struct generator *g, uint32_t n) {
        return random_below(&g->random, n);
}

static bool one_in(struct generator *g, uint32_t n) {
        return random_one_in(&g->random, n);
}

void begin_model(struct model *m, const struct world *w) {
        model_begin(m, w);
        for (uint32_t t = 0; t < TENANTS; t++) {
                for (uint32_t r = 0; r < RESOURCES; r++)
                        m->tenants[t].limit[r] = UINT64_MAX;
                m->tenants[t].limit[IOMMUD_RESOURCE_MAPPINGS] = MAPPINGS_LIMIT;
        }
        m->tenants[1].allows_unsealed = true;
}

/*
 * A call that meets what waits for a flush is IN_PROGRESS, and in a domain in which pages were shared the SDK repeats it until its
 * timeout. And where the IOMMU's ranges are not known without a device, we keep to those that there will be.
 */
bool worth_playing(const struct model *m, const struct op *op) {
        static struct model after;
        struct verdict v;

        if (!model_allows(m, op))
                return false;
        if (op->kind != OP_MAP)
                return true;
        after = *m;
        model_play(&after, op, &v);
        for (uint32_t i = 0; i < v.n; i++) {
                const struct model_domain *d = &after.clients[op->client].domains[op->domain];

                if ((v.of[i].reason == IOMMUD_REASON_IN_PROGRESS && d->shares_pages) ||
                    v.of[i].reason == IOMMUD_REASON_UNSPECIFIED)
                        return false;
                if ((v.of[i].reason == IOMMUD_REASON_OUTSIDE_APERTURE || v.of[i].reason == IOMMUD_REASON_RESERVED_REGION) &&
                    !model_knows_constraints(&after, d))
                        return false;
        }
        return true;
}

/* ---- choices ---- */

static bool pick_domain(struct generator *g, struct op *op) {
        for (uint32_t i = 0, from = below(g, DOMAINS); i < DOMAINS; i++) {
                op->domain = (from + i) % DOMAINS;
                if (g->model.clients[op->client].domains[op->domain].there)
                        return true;
        }
        return false;
}

static bool has_device(const struct generator *g, const struct op *op) {
        for (uint32_t i = 0; i < g->model.world.n_devices; i++)
                if (g->model.devices[i].client == op->client && g->model.devices[i].domain == op->domain)
                        return true;
        return false;
}

/* Mostly one in which it can be seen what happens. */
static bool pick_busy_domain(struct generator *g, struct op *op, bool (*is_busy)(const struct generator *, const struct op *)) {
        for (int i = 0; i < 4; i++)
                if (pick_domain(g, op) && is_busy(g, op))
                        return true;
        return pick_domain(g, op);
}

static bool pick_memory(struct generator *g, uint32_t client, uint32_t *ret) {
        for (uint32_t i = 0, from = below(g, MEMORIES); i < MEMORIES; i++) {
                *ret = (from + i) % MEMORIES;
                if (g->model.clients[client].memories[*ret].there)
                        return true;
        }
        return false;
}

/* A mapping of the domain that its client still has; NULL: none was found. */
static const struct model_mapping *pick_mapping(struct generator *g, const struct op *op) {
        const struct model_domain *d = &g->model.clients[op->client].domains[op->domain];

        for (uint32_t i = 0, from = below(g, MAPPINGS); i < MAPPINGS; i++) {
                const struct model_mapping *x = &d->mappings[(from + i) % MAPPINGS];

                if (x->there && !x->waits)
                        return x;
        }
        return NULL;
}

static bool has_mappings(const struct generator *g, const struct op *op) {
        const struct model_domain *d = &g->model.clients[op->client].domains[op->domain];

        for (int i = 0; i < MAPPINGS; i++)
                if (d->mappings[i].there && !d->mappings[i].waits)
                        return true;
        return false;
}

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
        uint64_t cell = model_cell_bytes(m), end = e->iova + e->length;
        bool in_range = false;

        for (uint32_t i = 0; i < m->world.n_ranges; i++)
                in_range |= e->iova >= m->world.ranges[i].first && end - 1 <= m->world.ranges[i].last;
        if (!in_range || e->offset + e->length > o->size)
                return false;
        for (uint64_t at = e->iova; at < e->iova + e->length; at += cell)
                if (at >= m->world.base + m->world.n_pages * m->world.page || d->cell[(at - m->world.base) / cell] >= 0)
                        return false;
        return true;
}

static void pick_pages(struct generator *g, const struct model_memory *o, struct op_element *e) {
        const struct world *w = &g->model.world;
        uint32_t n = 1 + below(g, one_in(g, 5) ? 8 : 4), pages = (uint32_t)(o->size / w->page), large = (2U << 20) / 4096;

        if (w->n_pages > 1000 && one_in(g, 2)) {        /* large pages, whole or not quite */
                uint32_t first = below(g, 2), count = 1 + below(g, 3 - first > 2 ? 2 : 1);

                e->iova = w->base + (uint64_t)first * large * w->page;
                e->length = (uint64_t)count * large * w->page;
                e->offset = below(g, 2) * (uint64_t)large * w->page;
                if (one_in(g, 3))
                        e->length -= w->page * (1 + below(g, 20));
                return;
        }
        e->iova = w->base + below(g, w->n_pages) * w->page;
        e->length = n * w->page;
        e->offset = below(g, pages > n ? pages - n + 1 : 1) * w->page;
}

/* Cells at random, or a part of a page that somebody has a part of already, seen alike or not. */
static void pick_cells(struct generator *g, const struct op *op, struct op_element *e) {
        const struct world *w = &g->model.world;
        uint64_t cell = model_cell_bytes(&g->model);
        const struct model_mapping *x = one_in(g, 3) ? NULL : pick_mapping(g, op);

        pick_pages(g, &g->model.clients[op->client].memories[e->memory], e);
        if (x && !one_in(g, 8)) {
                uint64_t at = one_in(g, 2) ? x->iova : x->iova + x->length - 1;

                e->iova = at - at % w->page;
                e->offset = x->offset + e->iova - x->iova;
                e->memory = x->memory;
        }
        e->iova += below(g, CELLS_PER_PAGE) * cell;
        e->offset += e->iova % w->page;
        e->length = (1 + below(g, one_in(g, 3) ? 2 * CELLS_PER_PAGE + 1 : CELLS_PER_PAGE)) * cell;
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
                        pick_pages(g, &g->model.clients[op->client].memories[e->memory], e);
                if (is_free(g, op, e) || one_in(g, 100))
                        break;
        }
        e->access = pick_access(g, &g->model.clients[op->client].memories[e->memory]);
        if (one_in(g, 20))
                spoil(g, op, e);
        return true;
}

static bool make_map(struct generator *g, struct op *op) {
        const struct world *w = &g->model.world;
        uint32_t n = one_in(g, 2) ? 1 : 1 + below(g, 5);

        if (!pick_busy_domain(g, op, has_device))
                return false;
        if (one_in(g, 2))
                op->flags |= IOMMUD_MAP_EXPOSE_PAGES;
        if (one_in(g, 4))
                op->flags |= IOMMUD_MAP_MERGE;
        if (one_in(g, 9))
                op->flags |= IOMMUD_MAP_DRY_RUN;
        if (one_in(g, op->flags & IOMMUD_MAP_EXPOSE_PAGES ? 16 : 2))
                op->chunk = one_in(g, 20) ? (one_in(g, 2) ? w->page / 2 : 3 * w->page) : w->page << below(g, 3);
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

static bool make_unmap(struct generator *g, struct op *op) {
        if (!pick_busy_domain(g, op, has_mappings) || (!has_mappings(g, op) && !one_in(g, 30)))
                return false;
        op->flags = one_in(g, 2) ? IOMMUD_SPLIT_AT_CHUNKS : one_in(g, 6) ? IOMMUD_SPLIT_HITLESS : IOMMUD_SPLIT_REMAP;
        op->n = !one_in(g, 4) ? 1 : 1 + below(g, 4);
        for (uint32_t i = 0; i < op->n; i++)
                make_range(g, op, &op->e[i]);
        return true;
}

/* ---- the rest ---- */

/* Mostly a file that is fresh, or one that the client has already: others have been sealed by somebody else. */
static uint32_t pick_file(struct generator *g, uint32_t client) {
        const struct model_client *c = &g->model.clients[client];
        uint32_t file = below(g, FILES), memory;

        if (one_in(g, 8))
                return file;
        if (one_in(g, 3) && pick_memory(g, client, &memory))
                return c->memories[memory].file;
        for (uint32_t i = 0; i < FILES; i++, file = (file + 1) % FILES)
                if (!g->model.files[file].sealed)
                        return file;
        return file;
}

static bool make_register(struct generator *g, struct op *op) {
        const struct world *w = &g->model.world;

        op->memory = below(g, MEMORIES);
        op->file = pick_file(g, op->client);
        op->flags = one_in(g, 6) ? OP_REGISTER_READ_ONLY : 0;
        if (one_in(g, g->model.tenants[model_tenant_of(op->client)].allows_unsealed ? 3 : 20))
                op->flags |= OP_REGISTER_UNSEALED;
        op->length = w->file_pages * w->page;
        if (one_in(g, 3))
                op->length -= below(g, w->file_pages) * w->page + below(g, 2) * model_cell_bytes(&g->model);
        else if (one_in(g, 25))
                op->length += model_cell_bytes(&g->model);
        return true;
}

/* A sealed file that nobody has: another one takes its place. */
static bool make_renew(struct generator *g, struct op *op) {
        for (op->file = 0; op->file < FILES; op->file++)
                if (g->model.files[op->file].sealed && model_allows(&g->model, op))
                        return true;
        return false;
}

/* Generous, or near to what is in use: a little above it, or below. */
static bool make_quota(struct generator *g, struct op *op) {
        uint64_t used[RESOURCES], unit = 1;

        op->tenant = below(g, TENANTS);
        op->resource = IOMMUD_RESOURCE_LOCKED_BYTES + below(g, IOMMUD_RESOURCE_TABLE_BYTES);
        op->limit = op->resource == IOMMUD_RESOURCE_MAPPINGS ? MAPPINGS_LIMIT : UINT64_MAX;
        if (one_in(g, 2))
                return true;
        model_balance(&g->model, op->tenant, used);
        if (op->resource == IOMMUD_RESOURCE_LOCKED_BYTES || op->resource == IOMMUD_RESOURCE_REGISTERED_BYTES)
                unit = g->model.world.page;
        else if (op->resource == IOMMUD_RESOURCE_TABLE_BYTES)
                unit = one_in(g, 2) ? 128 : g->model.world.page;
        op->limit = used[op->resource] + below(g, 12) * unit;
        if (one_in(g, 5))
                op->limit = used[op->resource] / 2;
        if (op->resource == IOMMUD_RESOURCE_MAPPINGS && op->limit > MAPPINGS_LIMIT)
                op->limit = MAPPINGS_LIMIT;
        return true;
}

static bool make_kind(struct generator *g, struct op *op) {
        switch (op->kind) {
        case OP_MAP:
                return make_map(g, op);
        case OP_UNMAP:
                return make_unmap(g, op);
        case OP_REGISTER:
                return make_register(g, op);
        case OP_RENEW:
                return make_renew(g, op);
        case OP_QUOTA:
                return make_quota(g, op);
        case OP_DOMAIN:
                op->flags = one_in(g, 3);
                op->domain = below(g, DOMAINS);
                return true;
        case OP_UNREGISTER:
                return pick_memory(g, op->client, &op->memory);
        case OP_ATTACH:
        case OP_DETACH:
                op->device = below(g, g->model.world.n_devices);
                return pick_domain(g, op);
        case OP_DESTROY:
        case OP_UNMAP_ALL:
        case OP_SYNC:
                return pick_domain(g, op);
        default:
                return true;
        }
}

static enum op_kind pick_kind(struct generator *g) {
        static const struct {
                enum op_kind kind;
                uint32_t weight;
        } of[] = {
                { OP_MAP, 380 },      { OP_UNMAP, 260 },     { OP_UNMAP_ALL, 8 },   { OP_SYNC, 30 },     { OP_REGISTER, 60 },
                { OP_UNREGISTER, 20 }, { OP_RENEW, 15 },     { OP_DOMAIN, 40 },     { OP_DESTROY, 8 },   { OP_ATTACH, 60 },
                { OP_DETACH, 15 },    { OP_QUOTA, 35 },      { OP_CLOSE, 4 },       { OP_KILL_CLIENT, 4 }, { OP_KILL_HOLDER, 4 },
                { OP_KILL_BROKER, 12 }, { OP_KILL_BOTH, 3 },
        };
        uint32_t sum = 0, roll;
        size_t i = 0;

        for (size_t k = 0; k < sizeof of / sizeof of[0]; k++)
                sum += of[k].weight;
        for (roll = below(g, sum); roll >= of[i].weight; i++)
                roll -= of[i].weight;
        return of[i].kind;
}

/* Mostly one that has a device: what happens to others is not seen. */
static uint32_t pick_client(struct generator *g) {
        const struct model *m = &g->model;
        uint32_t device = below(g, m->world.n_devices), client = one_in(g, 3) ? 0 : below(g, CLIENTS);

        if (m->devices[device].client != NOBODY && !one_in(g, 3))
                return m->devices[device].client;
        return client;
}

/* A kind, then one of that kind that makes sense; what cannot be is given up soon. */
static bool make(struct generator *g, struct op *op) {
        uint32_t client = pick_client(g);
        enum op_kind kind = g->model.clients[client].connected ? pick_kind(g) : OP_CONNECT;

        for (int i = 0; i < 6; i++) {
                *op = (struct op){ .kind = kind, .client = kind == OP_QUOTA || kind == OP_RENEW || kind == OP_KILL_BROKER
                                                                            ? 0 : client };
                if (make_kind(g, op) && worth_playing(&g->model, op))
                        return true;
        }
        return false;
}

size_t generate(const struct world *w, struct op *ops, size_t n) {
        static struct generator g;
        struct verdict ignored;

        g.random = w->seed * 7919 + 1;
        begin_model(&g.model, w);
        for (size_t i = 0; i < n;) {
                if (!make(&g, &ops[i]))
                        continue;
                model_play(&g.model, &ops[i], &ignored);
                i++;
        }
        return n;
}
