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

static uint32_t n_cells(const struct model *m) {
        return m->world.n_pages * CELLS_PER_PAGE;
}

uint32_t cell_at(const struct model *m, uint64_t iova) {
        return (uint32_t)((iova - m->world.base) / model_cell_bytes(m));
}

bool in_piece(const struct model *m, uint64_t iova, uint64_t length) {
        uint64_t bytes = (uint64_t)m->world.n_pages * m->world.page;

        return iova >= m->world.base && iova - m->world.base <= bytes && length <= bytes - (iova - m->world.base);
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

/* How many cells of the page a mapping has. */
static unsigned cells_of(const struct model_domain *d, uint32_t page, int16_t mapping) {
        unsigned n = 0;

        for (uint32_t i = 0; i < CELLS_PER_PAGE; i++)
                n += d->cell[page * CELLS_PER_PAGE + i] == mapping;
        return n;
}

/* The page is translated as a whole: every mapping that has a cell of it wants the same memory there, and devices may do what any
 * of them asked for. What waits for a flush is translated as ever. */
struct translation model_translate(const struct model *m, uint32_t client, uint32_t domain, uint32_t page) {
        const struct model_domain *d = &m->clients[client].domains[domain];
        uint64_t iova = m->world.base + page * m->world.page;
        struct translation t = { 0 };

        for (uint32_t i = 0; i < CELLS_PER_PAGE; i++) {
                int16_t which = d->cell[page * CELLS_PER_PAGE + i];

                if (which < 0)
                        continue;
                t.access |= d->mappings[which].access;
                t.file = m->clients[client].memories[d->mappings[which].memory].file;
                t.offset = d->mappings[which].offset + iova - d->mappings[which].iova;
        }
        return t;
}

void model_exposure(const struct model *m, const struct model_domain *d, const struct model_mapping *x, bool *ret_partial,
                    uint64_t *ret_first, uint64_t *ret_last, uint32_t *ret_access) {
        uint64_t end = x->iova + x->length;
        int16_t mine = (int16_t)(x - d->mappings);

        *ret_first = round_down(x->iova, m->world.page);
        *ret_last = round_up(end, m->world.page) - 1;
        *ret_partial = *ret_first != x->iova || *ret_last != end - 1;
        *ret_access = 0;
        for (uint32_t page = cell_at(m, *ret_first) / CELLS_PER_PAGE; page <= cell_at(m, *ret_last) / CELLS_PER_PAGE; page++) {
                if (cells_of(d, page, mine) == CELLS_PER_PAGE)
                        continue;
                for (uint32_t i = 0; i < CELLS_PER_PAGE; i++) {
                        int16_t which = d->cell[page * CELLS_PER_PAGE + i];

                        *ret_access |= which >= 0 ? d->mappings[which].access : 0;
                }
        }
}

/* ---- tables ---- */

/* A table of the lowest level is a page of entries of 8 bytes, each for a page; one of the next level has an entry for each table
 * of the one below. How many bytes of IOVA one covers, as a power of two; 0: there is no such level, as one would cover all. */
static unsigned table_shift(const struct model *m, unsigned level) {
        unsigned page_bits = (unsigned)__builtin_ctzll(m->world.page), shift = page_bits;

        for (unsigned i = 0; i <= level; i++)
                shift += page_bits - 3;
        return shift < 64 ? shift : 0;
}

void touch_tables(const struct model *m, struct model_domain *d, const struct model_mapping *x) {
        uint64_t first = round_down(x->iova, m->world.page), last = round_up(x->iova + x->length, m->world.page) - 1;

        for (unsigned level = 0; level < TABLE_LEVELS && table_shift(m, level); level++) {
                unsigned shift = table_shift(m, level);

                for (uint64_t table = first >> shift; table <= last >> shift; table++)
                        d->tables[level] |= UINT64_C(1) << (table - (m->world.base >> shift));
        }
}

/* ---- counting ---- */

void model_count(const struct model *m, uint32_t client, uint32_t domain, struct model_counts *ret) {
        const struct model_domain *d = &m->clients[client].domains[domain];

        *ret = (struct model_counts){ 0 };
        for (int16_t i = 0; i < MAPPINGS; i++) {
                const struct model_mapping *x = &d->mappings[i];
                uint64_t whole_pages = 0;

                if (!x->there)
                        continue;
                ret->mappings++;
                ret->bytes += x->length;
                ret->waiting_mappings += x->waits;
                ret->waiting_bytes += x->waits ? x->length : 0;
                for (uint32_t page = 0; page < m->world.n_pages; page++)
                        whole_pages += cells_of(d, page, i) == CELLS_PER_PAGE;
                /* what has pages of its own is one mapping of the IOMMU, or one for each chunk */
                if (whole_pages > 0)
                        ret->pieces += x->chunk ? (whole_pages * m->world.page + x->chunk - 1) / x->chunk : 1;
        }
        /* each page that no mapping has alone is one more */
        for (uint32_t page = 0; page < m->world.n_pages; page++) {
                unsigned free = cells_of(d, page, -1);
                int16_t first = d->cell[page * CELLS_PER_PAGE];

                if (free < CELLS_PER_PAGE && (free > 0 || cells_of(d, page, first) < CELLS_PER_PAGE))
                        ret->shared_pages++;
        }
        ret->pieces += ret->shared_pages;
        ret->table_bytes = ret->pieces * m->world.record_bytes;
        for (unsigned level = 0; level < TABLE_LEVELS; level++)
                ret->table_bytes += (uint64_t)__builtin_popcountll(d->tables[level]) * m->world.page;
        /* each container has all of it; without a device, as the first one will */
        if (d->n_devices > 1)
                ret->table_bytes *= d->n_devices;
}

/* Every page of a sealed file once, however many mappings of the tenant's domains reach it. Other memory for each mapping. */
static uint64_t locked_bytes(const struct model *m, uint32_t tenant) {
        static bool locked[FILES][CELLS / CELLS_PER_PAGE];      /* by IOMMU pages: the host's are no larger here */
        uint64_t bytes = 0;

        memset(locked, 0, sizeof locked);
        for (uint32_t c = 0; c < CLIENTS; c++)
                for (uint32_t k = 0; model_tenant_of(c) == tenant && k < DOMAINS; k++)
                        for (int i = 0; i < MAPPINGS; i++) {
                                const struct model_domain *d = &m->clients[c].domains[k];
                                const struct model_mapping *x = &d->mappings[i];
                                const struct model_memory *o = &m->clients[c].memories[x->memory];
                                uint64_t page = m->world.page;

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
        return d->n_devices > 0 || !m->world.at_attach;
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
