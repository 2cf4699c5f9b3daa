/* SPDX-License-Identifier: Apache-2.0 */
#include "generate.h"
#include "generate_private.h"

#include <string.h>

#define MAPPINGS_LIMIT 60U      /* of a tenant, at most: the model's arrays have more */

uint32_t below(struct generator *g, uint32_t n) {
        return random_below(&g->random, n);
}

bool one_in(struct generator *g, uint32_t n) {
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
                if ((v.of[i].reason == IOMMUD_REASON_OUTSIDE_APERTURE || v.of[i].reason == IOMMUD_REASON_RESERVED_REGION ||
                     v.of[i].reason == IOMMUD_REASON_NO_WINDOW) &&
                    !model_knows_constraints(&after, d))
                        return false;
        }
        return true;
}

/* ---- choices ---- */

bool pick_domain(struct generator *g, struct op *op) {
        for (uint32_t i = 0, from = below(g, DOMAINS); i < DOMAINS; i++) {
                op->domain = (from + i) % DOMAINS;
                if (g->model.clients[op->client].domains[op->domain].there)
                        return true;
        }
        return false;
}

bool has_device(const struct generator *g, const struct op *op) {
        for (uint32_t i = 0; i < g->model.world.n_devices; i++)
                if (g->model.devices[i].client == op->client && g->model.devices[i].domain == op->domain)
                        return true;
        return false;
}

bool pick_busy_domain(struct generator *g, struct op *op, bool (*is_busy)(const struct generator *, const struct op *)) {
        for (int i = 0; i < 4; i++)
                if (pick_domain(g, op) && is_busy(g, op))
                        return true;
        return pick_domain(g, op);
}

bool pick_memory(struct generator *g, uint32_t client, uint32_t *ret) {
        for (uint32_t i = 0, from = below(g, MEMORIES); i < MEMORIES; i++) {
                *ret = (from + i) % MEMORIES;
                if (g->model.clients[client].memories[*ret].there)
                        return true;
        }
        return false;
}

const struct model_mapping *pick_mapping(struct generator *g, const struct op *op) {
        const struct model_domain *d = &g->model.clients[op->client].domains[op->domain];

        for (uint32_t i = 0, from = below(g, MAPPINGS); i < MAPPINGS; i++) {
                const struct model_mapping *x = &d->mappings[(from + i) % MAPPINGS];

                if (x->there && !x->waits)
                        return x;
        }
        return NULL;
}

bool has_mappings(const struct generator *g, const struct op *op) {
        const struct model_domain *d = &g->model.clients[op->client].domains[op->domain];

        for (int i = 0; i < MAPPINGS; i++)
                if (d->mappings[i].there && !d->mappings[i].waits)
                        return true;
        return false;
}

/* ---- one of each kind ---- */

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
        if (g->model.world.windows && one_in(g, 8))
                op->resource = IOMMUD_RESOURCE_WINDOWS;
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

/* A window of as many pages as we look at, now and then one that cannot be. Larger pages are of use where memory has them. */
static bool make_window(struct generator *g, struct op *op) {
        const struct world *w = &g->model.world;
        bool large = !one_in(g, 4) == (w->host_page > w->page);

        if (!pick_busy_domain(g, op, has_device))
                return false;
        op->flags = large ? 16 : 12;
        op->length = w->far_window * w->page;
        if (one_in(g, 4))
                op->limit = (2 + below(g, 6)) << op->flags;
        switch (below(g, 12)) {
        case 0:
                op->length = one_in(g, 2) ? 0 : op->length * 3;
                break;
        case 1:
                op->flags = 13;
                break;
        default:
                break;
        }
        return true;
}

static bool has_second_window(const struct generator *g, const struct op *op) {
        return g->model.clients[op->client].domains[op->domain].second.there;
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
        case OP_WINDOW:
                return make_window(g, op);
        case OP_UNWINDOW:
                op->flags = one_in(g, 2);
                return pick_busy_domain(g, op, has_second_window);
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

        if (g->model.world.windows && one_in(g, 16))
                return one_in(g, 3) ? OP_WINDOW : OP_UNWINDOW;
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

/* ---- the whole ---- */

struct list_so_far {
        struct op *ops;
        size_t n, room;
};

static void add(struct generator *g, struct list_so_far *l, const struct op *op) {
        struct verdict ignored;

        if (l->n == l->room || !worth_playing(&g->model, op))
                return;
        model_play(&g->model, op, &ignored);
        l->ops[l->n++] = *op;
}

/* Where each operation takes its time it is not left to chance whether there is a device at all: one for each tenant, or both in
 * one domain. Some come to a domain with mappings. */
static void begin_with_devices(struct generator *g, struct list_so_far *l) {
        bool together = one_in(g, 4);

        for (uint32_t i = 0; i < g->model.world.n_devices; i++) {
                uint32_t client = together ? 0 : i * CLIENTS / 2;
                const struct op first[] = {
                        { .kind = OP_CONNECT, .client = client },
                        { .kind = OP_REGISTER, .client = client, .file = i,
                          .flags = i > 0 && one_in(g, 3) ? OP_REGISTER_UNSEALED : 0,
                          .length = g->model.world.file_pages * g->model.world.page },
                        { .kind = OP_DOMAIN, .client = client, .flags = one_in(g, 3) },
                };
                const struct op attach = { .kind = OP_ATTACH, .client = client, .device = i };
                struct op window = { .kind = OP_WINDOW, .client = client };

                for (size_t k = 0; k < sizeof first / sizeof first[0]; k++)
                        add(g, l, &first[k]);
                for (uint32_t maps = one_in(g, 2) ? 0 : 1 + below(g, 3); maps > 0; maps--) {
                        struct op map = { .kind = OP_MAP, .client = client };

                        if (make_map(g, &map))
                                add(g, l, &map);
                }
                add(g, l, &attach);
                if (!one_in(g, 3) && make_window(g, &window))
                        add(g, l, &window);
        }
}

size_t generate(const struct world *w, struct op *ops, size_t n) {
        static struct generator g;
        struct list_so_far l = { .ops = ops, .room = n };

        g.random = w->seed * 7919 + 1;
        begin_model(&g.model, w);
        if (w->windows)
                begin_with_devices(&g, &l);
        while (l.n < n) {
                struct op op;

                if (make(&g, &op))
                        add(&g, &l, &op);
        }
        return n;
}
