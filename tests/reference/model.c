/* SPDX-License-Identifier: Apache-2.0 */
#include "model_private.h"

#include <stdlib.h>
#include <string.h>

bool is_multiple(uint64_t value, uint64_t of) {
        return value % of == 0;
}

uint64_t round_down(uint64_t value, uint64_t to) {
        return value - value % to;
}

uint64_t round_up(uint64_t value, uint64_t to) {
        return round_down(value + to - 1, to);
}

struct complaint *complain(struct verdict *v, enum iommud_reason reason) {
        struct complaint *c;

        if (v->n == COMPLAINTS)
                abort();
        c = &v->of[v->n++];
        *c = (struct complaint){ .reason = reason };
        return c;
}

uint32_t model_tenant_of(uint32_t client) {
        return client < CLIENTS / 2 ? 0 : 1;
}

uint64_t model_cell_bytes(const struct model *m) {
        return m->world.page / CELLS_PER_PAGE;
}

uint32_t n_cells(const struct model *m) {
        return world_pages(&m->world) * CELLS_PER_PAGE;
}

uint64_t cell_iova(const struct model *m, uint32_t cell) {
        return world_page_iova(&m->world, cell / CELLS_PER_PAGE) + cell % CELLS_PER_PAGE * model_cell_bytes(m);
}

uint32_t cell_at(const struct model *m, uint64_t iova) {
        uint32_t page = world_page_at(&m->world, iova);

        return page * CELLS_PER_PAGE + (uint32_t)((iova - world_page_iova(&m->world, page)) / model_cell_bytes(m));
}

bool in_piece(const struct model *m, uint64_t iova, uint64_t length) {
        const struct world *w = &m->world;
        uint32_t first = world_page_at(w, iova), last = world_page_at(w, iova + length - 1);

        return first < world_pages(w) && last < world_pages(w) && (first < w->n_pages) == (last < w->n_pages);
}

/* ---- mappings ---- */

bool mapping_put(struct model *m, struct model_domain *d, const struct model_mapping *x) {
        uint32_t first = cell_at(m, x->iova), n = (uint32_t)(x->length / model_cell_bytes(m));
        int16_t free = 0;

        while (free < MAPPINGS && d->mappings[free].there)
                free++;
        if (free == MAPPINGS)
                return false;
        d->mappings[free] = *x;
        d->mappings[free].there = true;
        for (uint32_t i = first; i < first + n; i++)
                d->cell[i] = free;
        return true;
}

void mapping_drop(struct model *m, struct model_domain *d, struct model_mapping *x) {
        uint32_t first = cell_at(m, x->iova), n = (uint32_t)(x->length / model_cell_bytes(m));

        for (uint32_t i = first; i < first + n; i++)
                d->cell[i] = -1;
        x->there = false;
}

/* ---- pages ---- */

uint64_t model_smallest_page(const struct model *m, const struct model_domain *d) {
        return d->met && !d->forgotten ? m->world.page : m->world.host_page;
}

uint64_t seen_first(const struct model_mapping *x) {
        return x->page ? round_down(x->iova, x->page) : x->iova;
}

uint64_t seen_end(const struct model_mapping *x) {
        return x->page ? round_up(x->iova + x->length, x->page) : x->iova + x->length;
}

bool is_partial(const struct model_mapping *x) {
        return seen_first(x) != x->iova || seen_end(x) != x->iova + x->length;
}

/* The pages that a mapping has a part of: none, one or two, by where they begin. */
static unsigned edges_of(const struct model_mapping *x, uint64_t ret[2]) {
        unsigned n = 0;

        if (seen_first(x) != x->iova)
                ret[n++] = seen_first(x);
        if (seen_end(x) != x->iova + x->length && (n == 0 || seen_end(x) - x->page != ret[0]))
                ret[n++] = seen_end(x) - x->page;
        return n;
}

/* The page is translated as a whole: every mapping that exposes it wants the same memory there, and devices may do what any of
 * them asked for. What waits for a flush is translated as ever. */
struct translation model_translate(const struct model *m, uint32_t client, uint32_t domain, uint32_t page) {
        const struct model_domain *d = &m->clients[client].domains[domain];
        uint64_t iova = world_page_iova(&m->world, page);
        struct translation t = { 0 };

        for (int i = 0; i < MAPPINGS; i++) {
                const struct model_mapping *x = &d->mappings[i];

                if (!x->there || iova < seen_first(x) || iova >= seen_end(x))
                        continue;
                t.access |= x->access;
                t.file = m->clients[client].memories[x->memory].file;
                t.offset = x->offset + iova - x->iova;
        }
        return t;
}

void model_exposure(const struct model_domain *d, const struct model_mapping *x, bool *ret_partial, uint64_t *ret_first,
                    uint64_t *ret_last, uint32_t *ret_access) {
        uint64_t edges[2];
        unsigned n = edges_of(x, edges);

        *ret_first = seen_first(x);
        *ret_last = seen_end(x) - 1;
        *ret_partial = is_partial(x);
        *ret_access = 0;
        for (unsigned k = 0; k < n; k++)
                for (int i = 0; i < MAPPINGS; i++) {
                        const struct model_mapping *y = &d->mappings[i];

                        if (y->there && seen_first(y) < edges[k] + x->page && seen_end(y) > edges[k])
                                *ret_access |= y->access;
                }
}

/* ---- tables ---- */

/* A table of the lowest level is a page of entries of 8 bytes, each for a page; one of the next level has an entry for each table
 * of the one below. How many bytes of IOVA one covers, as a power of two; 0: there is no such level, as one would cover all. */
static unsigned table_shift(const struct model *m, unsigned level) {
        unsigned page_bits = (unsigned)__builtin_ctzll(m->world.host_page), shift = page_bits;

        for (unsigned i = 0; i <= level; i++)
                shift += page_bits - 3;
        return shift < 64 ? shift : 0;
}

void touch_tables(const struct model *m, struct model_domain *d, const struct model_mapping *x) {
        uint64_t first = seen_first(x), last = seen_end(x) - 1;
        bool is_far = world_is_far(&m->world, first);
        uint64_t base = is_far ? m->world.far_base : m->world.base;

        if (d->met && !(is_far && m->world.far_levels > 1))
                return;         /* the window has a table for all of it */
        for (unsigned level = 0; level < TABLE_LEVELS && table_shift(m, level); level++) {
                unsigned shift = table_shift(m, level);

                for (uint64_t table = first >> shift; table <= last >> shift; table++)
                        d->tables[is_far][level] |= UINT64_C(1) << (table - (base >> shift));
        }
}

/* ---- counting ---- */

/* What has pages of its own is one mapping of the IOMMU, or one for each chunk. */
static uint64_t pieces_of(const struct model_mapping *x) {
        uint64_t page = x->page ? x->page : 1, first = round_up(x->iova, page), end = round_down(x->iova + x->length, page);

        if (end <= first)
                return 0;
        return x->chunk ? (end - first + x->chunk - 1) / x->chunk : 1;
}

/* The pages that mapping i has a part of, and none before it. */
static unsigned new_edges_of(const struct model_domain *d, int i) {
        uint64_t edges[2], others[2];
        unsigned n = edges_of(&d->mappings[i], edges), fresh = n;

        for (unsigned k = 0; k < n; k++) {
                bool known = false;

                for (int j = 0; j < i; j++)
                        for (unsigned o = d->mappings[j].there ? edges_of(&d->mappings[j], others) : 0; o > 0; o--)
                                known |= others[o - 1] == edges[k];
                fresh -= known;
        }
        return fresh;
}

void model_count(const struct model *m, uint32_t client, uint32_t domain, struct model_counts *ret) {
        const struct model_domain *d = &m->clients[client].domains[domain];

        *ret = (struct model_counts){ 0 };
        for (int i = 0; i < MAPPINGS; i++) {
                const struct model_mapping *x = &d->mappings[i];

                if (!x->there)
                        continue;
                ret->mappings++;
                ret->bytes += x->length;
                ret->waiting_mappings += x->waits;
                ret->waiting_bytes += x->waits ? x->length : 0;
                ret->pieces += pieces_of(x);
                ret->shared_pages += new_edges_of(d, i);
        }
        /* each page that no mapping has alone is one more */
        ret->pieces += ret->shared_pages;
        ret->table_bytes = ret->pieces * m->world.record_bytes;
        for (unsigned level = 0; level < TABLE_LEVELS; level++)
                for (int piece = 0; piece < 2; piece++)
                        ret->table_bytes += (uint64_t)__builtin_popcountll(d->tables[piece][level]) * m->world.host_page;
        ret->table_bytes += window_tables(m, d);
        /* each container has all of it; without a device, as the first one will */
        if (d->n_devices > 1)
                ret->table_bytes *= d->n_devices;
}

/* Every page of a sealed file once, however many mappings of the tenant's domains reach it. Other memory for each mapping. */
static uint64_t locked_bytes(const struct model *m, uint32_t tenant) {
        static bool locked[FILES][CELLS / CELLS_PER_PAGE];      /* by pages of the host, or the IOMMU's if they are larger */
        uint64_t bytes = 0;

        memset(locked, 0, sizeof locked);
        for (uint32_t c = 0; c < CLIENTS; c++)
                for (uint32_t k = 0; model_tenant_of(c) == tenant && k < DOMAINS; k++)
                        for (int i = 0; i < MAPPINGS; i++) {
                                const struct model_domain *d = &m->clients[c].domains[k];
                                const struct model_mapping *x = &d->mappings[i];
                                const struct model_memory *o = &m->clients[c].memories[x->memory];
                                uint64_t page = m->world.host_page;

                                if (!d->there || !x->there)
                                        continue;
                                for (uint64_t at = round_down(x->offset, page); at < x->offset + x->length; at += page) {
                                        bool counted = o->sealed && locked[o->file][at / page];

                                        bytes += counted ? 0 : page;
                                        if (o->sealed)
                                                locked[o->file][at / page] = true;
                                }
                        }
        return bytes;
}

void model_balance(const struct model *m, uint32_t tenant, uint64_t ret[RESOURCES]) {
        memset(ret, 0, RESOURCES * sizeof *ret);
        ret[IOMMUD_RESOURCE_LOCKED_BYTES] = locked_bytes(m, tenant);
        for (uint32_t c = 0; c < CLIENTS; c++) {
                const struct model_client *client = &m->clients[c];

                if (model_tenant_of(c) != tenant || !client->connected)
                        continue;
                ret[IOMMUD_RESOURCE_SESSIONS]++;
                for (uint32_t i = 0; i < MEMORIES; i++)
                        if (client->memories[i].there) {
                                ret[IOMMUD_RESOURCE_MEMORY_OBJECTS]++;
                                ret[IOMMUD_RESOURCE_REGISTERED_BYTES] += client->memories[i].size;
                        }
                for (uint32_t i = 0; i < DOMAINS; i++) {
                        struct model_counts counts;

                        if (!client->domains[i].there)
                                continue;
                        model_count(m, c, i, &counts);
                        ret[IOMMUD_RESOURCE_DOMAINS]++;
                        ret[IOMMUD_RESOURCE_MAPPINGS] += counts.mappings;
                        ret[IOMMUD_RESOURCE_TABLE_BYTES] += counts.table_bytes;
                        ret[IOMMUD_RESOURCE_WINDOWS] += client->domains[i].second.there;
                }
                for (uint32_t i = 0; i < m->world.n_devices; i++)
                        ret[IOMMUD_RESOURCE_DEVICES] += m->devices[i].client == c;
        }
}

/* ---- limits ---- */

static void complain_of_host(const struct model *before, const struct model *after, enum iommud_resource what, uint64_t cap,
                             struct verdict *v) {
        uint64_t old[RESOURCES], new[RESOURCES], used = 0, wanted = 0;

        for (uint32_t tenant = 0; tenant < TENANTS; tenant++) {
                model_balance(before, tenant, old);
                model_balance(after, tenant, new);
                used += old[what];
                wanted += new[what];
        }
        if (wanted > used && wanted > cap) {
                struct complaint *c = complain(v, IOMMUD_REASON_LIMIT_EXCEEDED);

                c->resource = what;
                c->amounts = true;
                c->limit = cap;
                c->used = used;
                c->asked = wanted - used;
        }
}

bool model_knows_constraints(const struct model *m, const struct model_domain *d) {
        return d->n_devices > 0 || !m->world.at_attach || d->met;
}

/* A limit that was lowered below what is in use refuses only what would use more. */
void complain_of_limits(const struct model *before, const struct model *after, uint32_t client, uint32_t domain,
                        struct verdict *v) {
        uint32_t tenant = model_tenant_of(client);
        uint64_t old[RESOURCES], new[RESOURCES];
        struct model_counts then, now;

        model_balance(before, tenant, old);
        model_balance(after, tenant, new);
        for (unsigned i = 1; i < RESOURCES; i++)
                if (new[i] > old[i] && new[i] > before->tenants[tenant].limit[i]) {
                        struct complaint *c = complain(v, IOMMUD_REASON_QUOTA_EXCEEDED);

                        c->resource = (enum iommud_resource)i;
                        c->amounts = true;
                        c->limit = before->tenants[tenant].limit[i];
                        c->used = old[i];
                        c->asked = new[i] - old[i];
                }
        complain_of_host(before, after, IOMMUD_RESOURCE_LOCKED_BYTES, before->world.host_locked, v);
        complain_of_host(before, after, IOMMUD_RESOURCE_TABLE_BYTES, before->world.host_tables, v);
        if (domain == NOBODY || before->world.max_mappings == 0 ||
            !model_knows_constraints(before, &before->clients[client].domains[domain]))
                return;
        model_count(before, client, domain, &then);
        model_count(after, client, domain, &now);
        if (now.pieces > then.pieces && now.pieces > before->world.max_mappings) {
                struct complaint *c = complain(v, IOMMUD_REASON_LIMIT_EXCEEDED);

                c->resource = IOMMUD_RESOURCE_MAPPINGS;
                c->amounts = true;
                c->limit = before->world.max_mappings;
                c->used = then.pieces;
                c->asked = now.pieces - then.pieces;
        }
}

void model_begin(struct model *m, const struct world *w) {
        memset(m, 0, sizeof *m);
        m->world = *w;
        for (uint32_t c = 0; c < CLIENTS; c++)
                for (uint32_t d = 0; d < DOMAINS; d++)
                        for (uint32_t i = 0; i < n_cells(m); i++)
                                m->clients[c].domains[d].cell[i] = -1;
        for (uint32_t i = 0; i < WORLD_DEVICES; i++)
                m->devices[i].client = m->devices[i].domain = NOBODY;
}
