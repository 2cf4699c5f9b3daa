/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "model_private.h"

/*
 * Everything that is made and ended: sessions, domains, memory objects, attachments; deaths.
 */

/* ---- does it make sense? ---- */

static bool domain_is_there(const struct model *m, const struct op *op) {
        return m->clients[op->client].connected && m->clients[op->client].domains[op->domain].there;
}

static bool memories_are_there(const struct model *m, const struct op *op) {
        for (uint32_t i = 0; i < op->n; i++)
                if (!m->clients[op->client].memories[op->e[i].memory].there)
                        return false;
        return op->n > 0;
}

static bool file_is_used(const struct model *m, uint32_t file) {
        for (uint32_t c = 0; c < CLIENTS; c++)
                for (uint32_t i = 0; i < MEMORIES; i++)
                        if (m->clients[c].memories[i].there && m->clients[c].memories[i].file == file)
                                return true;
        return false;
}

bool model_allows(const struct model *m, const struct op *op) {
        const struct model_client *c = &m->clients[op->client];

        switch (op->kind) {
        case OP_CONNECT:
                return !c->connected;
        case OP_CLOSE:
        case OP_KILL_CLIENT:
        case OP_KILL_HOLDER:
        case OP_KILL_BOTH:
                return c->connected;
        case OP_DOMAIN:
                return c->connected && !c->domains[op->domain].there;
        case OP_REGISTER:
                return c->connected && !c->memories[op->memory].there;
        case OP_UNREGISTER:
                return c->connected && c->memories[op->memory].there;
        case OP_DETACH:
                return domain_is_there(m, op) && m->devices[op->device].client == op->client &&
                       m->devices[op->device].domain == op->domain;
        case OP_MAP:
                return domain_is_there(m, op) && memories_are_there(m, op);
        case OP_UNMAP:
                return domain_is_there(m, op) && op->n > 0;
        case OP_UNWINDOW:
                return domain_is_there(m, op) && c->domains[op->domain].second.there;
        case OP_DESTROY:
        case OP_ATTACH:
        case OP_UNMAP_ALL:
        case OP_SYNC:
        case OP_WINDOW:
                return domain_is_there(m, op);
        case OP_RENEW:
                return !file_is_used(m, op->file);
        case OP_QUOTA:
        case OP_KILL_BROKER:
                return true;
        default:
                return false;
        }
}

/* ---- ends ---- */

static void end_domain(struct model *m, uint32_t client, uint32_t domain) {
        struct model_domain *d = &m->clients[client].domains[domain];

        memset(d, 0, sizeof *d);
        for (uint32_t i = 0; i < CELLS; i++)
                d->cell[i] = -1;
        for (uint32_t i = 0; i < m->world.n_devices; i++)
                if (m->devices[i].client == client && m->devices[i].domain == domain)
                        m->devices[i].client = m->devices[i].domain = NOBODY;
}

/* A session ends, however it does: all that it had goes with it. */
static void end_session(struct model *m, uint32_t client) {
        for (uint32_t d = 0; d < DOMAINS; d++)
                end_domain(m, client, d);
        memset(m->clients[client].memories, 0, sizeof m->clients[client].memories);
        m->clients[client].connected = false;
}

/* The service comes back without knowing what IOMMU a device had that is gone. Its windows are the domain's, and are known. */
static void forget_constraints(struct model *m) {
        for (uint32_t c = 0; c < CLIENTS; c++)
                for (uint32_t k = 0; k < DOMAINS; k++) {
                        struct model_domain *d = &m->clients[c].domains[k];

                        d->forgotten = d->met && d->n_devices == 0;
                }
}

static void touch_needed(const struct model *of, uint32_t client, uint32_t domain, struct model_domain *d) {
        const struct model_domain *from = &of->clients[client].domains[domain];

        for (int i = 0; from->there && i < MAPPINGS; i++)
                if (from->mappings[i].there)
                        touch_tables(of, d, &from->mappings[i]);
}

void model_learn_tables(struct model *m, uint32_t client, uint32_t domain, const struct model *at_death,
                        const struct model *before_last, uint64_t bytes) {
        struct model_domain *d = &m->clients[client].domains[domain], touched = *d;
        struct model_counts counts;

        if (m->world.windows)
                return;         /* what was touched it knows: of each level one table, of some places none */
        memset(d->tables, 0, sizeof d->tables);
        touch_needed(at_death, client, domain, d);
        model_count(m, client, domain, &counts);
        if (counts.table_bytes != bytes) {
                touch_needed(before_last, client, domain, d);
                model_count(m, client, domain, &counts);
        }
        if (counts.table_bytes != bytes)
                memcpy(d->tables, touched.tables, sizeof d->tables);
}

/* ---- sessions and what they have ---- */

static void play_connect(struct model *m, const struct op *op, struct verdict *v) {
        struct model before = *m;

        m->clients[op->client].connected = true;
        complain_of_limits(&before, m, op->client, NOBODY, v);
        if (v->n > 0)
                *m = before;
}

static void play_domain(struct model *m, const struct op *op, struct verdict *v) {
        struct model_domain *d = &m->clients[op->client].domains[op->domain];
        struct model before = *m;

        d->there = true;
        d->lazy = op->flags & 1;
        complain_of_limits(&before, m, op->client, NOBODY, v);
        if (v->n > 0)
                *m = before;
}

/* The holder's view of a file: one for all objects of a session that it suits, kept while one of them uses it. A file that is
 * sealed gets no new writable one. */
static bool find_view(struct model *m, const struct op *op, bool writable, struct model_memory *ret) {
        const struct model_client *c = &m->clients[op->client];

        ret->view = 0;
        for (uint32_t i = 0; i < MEMORIES; i++) {
                const struct model_memory *o = &c->memories[i];

                if (o->there && o->file == op->file && (o->view_writable || !writable) && o->view > ret->view) {
                        ret->view = o->view;
                        ret->view_writable = o->view_writable;
                }
        }
        if (ret->view != 0)
                return true;
        ret->view = ++m->views;
        ret->view_writable = writable;
        return !writable || !m->files[op->file].sealed;
}

static void play_register(struct model *m, const struct op *op, struct verdict *v) {
        struct model_memory *o = &m->clients[op->client].memories[op->memory];
        bool unsealed = op->flags & OP_REGISTER_UNSEALED, read_only = op->flags & OP_REGISTER_READ_ONLY;
        uint64_t file_size = m->world.file_pages * m->world.page;
        struct model before = *m;

        if (op->length == 0) {
                complain(v, IOMMUD_REASON_ZERO_LENGTH);
                return;
        }
        if (unsealed && !m->tenants[model_tenant_of(op->client)].allows_unsealed)
                complain(v, IOMMUD_REASON_MEMORY_UNSEALED);
        if (op->length > file_size) {
                struct complaint *c = complain(v, IOMMUD_REASON_MEMORY_TRUNCATED);

                c->amounts = true;
                c->limit = c->used = file_size;
                c->asked = op->length;
        }
        *o = (struct model_memory){ .read_only = read_only, .file = op->file, .size = op->length };
        if (!find_view(m, op, !read_only, o))
                complain(v, IOMMUD_REASON_MEMORY_WRITE_SEALED);
        o->there = true;
        if (!unsealed)
                m->files[op->file].sealed = true;
        o->sealed = m->files[op->file].sealed;
        complain_of_limits(&before, m, op->client, NOBODY, v);
        if (v->n > 0)
                *m = before;
}

static void play_unregister(struct model *m, const struct op *op, struct verdict *v) {
        struct model_client *c = &m->clients[op->client];
        uint64_t used = 0;

        for (uint32_t k = 0; k < DOMAINS; k++)
                for (int i = 0; i < MAPPINGS; i++)
                        used += c->domains[k].mappings[i].there && c->domains[k].mappings[i].memory == op->memory;
        if (used > 0) {
                struct complaint *k = complain(v, IOMMUD_REASON_IN_USE);

                k->amounts = true;
                k->used = used;
                return;
        }
        c->memories[op->memory] = (struct model_memory){ 0 };
}

/* One more device in the domain is one more container, with all its tables, also if it turns out that somebody has the device. */
static void complain_of_tables(const struct model *m, const struct op *op, struct verdict *v) {
        static struct model after;

        after = *m;
        after.clients[op->client].domains[op->domain].n_devices++;
        complain_of_limits(m, &after, op->client, NOBODY, v);
}

/* More is mapped than the IOMMU takes, which nobody knew. How much it had taken when it refused is its own affair. */
static void complain_of_budget(const struct model *m, const struct op *op, struct verdict *v) {
        const struct model_domain *d = &m->clients[op->client].domains[op->domain];
        struct model_counts counts;

        model_count(m, op->client, op->domain, &counts);
        if (m->world.max_mappings > 0 && counts.pieces > m->world.max_mappings && !model_knows_constraints(m, d))
                complain(v, IOMMUD_REASON_LIMIT_EXCEEDED)->resource = IOMMUD_RESOURCE_MAPPINGS;
}

/* What is mapped is registered with the first device: all of it. */
static void complain_of_registration(const struct model *m, const struct op *op, struct verdict *v) {
        const struct model_domain *d = &m->clients[op->client].domains[op->domain];

        for (int i = 0; i < MAPPINGS; i++)
                if (d->mappings[i].there && !model_can_register(m, op->client, d->mappings[i].memory)) {
                        complain(v, IOMMUD_REASON_BACKEND_REFUSED);
                        return;
                }
}

/* A device that the tenant has already, in another domain, would be one more all the same. */
static void play_attach(struct model *m, const struct op *op, struct verdict *v) {
        uint32_t tenant = model_tenant_of(op->client);
        uint64_t used[RESOURCES], limit = m->tenants[tenant].limit[IOMMUD_RESOURCE_DEVICES];

        if (m->devices[op->device].client != NOBODY)
                complain(v, IOMMUD_REASON_DEVICE_BUSY);
        model_balance(m, tenant, used);
        if (used[IOMMUD_RESOURCE_DEVICES] + 1 > limit)
                *complain(v, IOMMUD_REASON_QUOTA_EXCEEDED) = (struct complaint){
                        .reason = IOMMUD_REASON_QUOTA_EXCEEDED, .resource = IOMMUD_RESOURCE_DEVICES, .amounts = true,
                        .limit = limit, .used = used[IOMMUD_RESOURCE_DEVICES], .asked = 1
                };
        complain_of_tables(m, op, v);
        complain_of_budget(m, op, v);
        complain_of_registration(m, op, v);
        if (v->n > 0)
                return;
        m->devices[op->device].client = op->client;
        m->devices[op->device].domain = op->domain;
        m->clients[op->client].domains[op->domain].n_devices++;
        m->clients[op->client].domains[op->domain].met = m->world.windows;
        m->clients[op->client].domains[op->domain].forgotten = false;
}

/* ---- one operation ---- */

void model_play(struct model *m, const struct op *op, struct verdict *v) {
        *v = (struct verdict){ .element = -1 };
        switch (op->kind) {
        case OP_CONNECT:
                play_connect(m, op, v);
                return;
        case OP_DOMAIN:
                play_domain(m, op, v);
                return;
        case OP_DESTROY:
                end_domain(m, op->client, op->domain);
                return;
        case OP_REGISTER:
                play_register(m, op, v);
                return;
        case OP_UNREGISTER:
                play_unregister(m, op, v);
                return;
        case OP_ATTACH:
                play_attach(m, op, v);
                return;
        case OP_DETACH:
                m->devices[op->device].client = m->devices[op->device].domain = NOBODY;
                m->clients[op->client].domains[op->domain].n_devices--;
                return;
        case OP_MAP:
                play_map(m, op, v);
                return;
        case OP_UNMAP:
                play_unmap(m, op, v);
                return;
        case OP_UNMAP_ALL:
                play_unmap_all(m, op, v);
                return;
        case OP_SYNC:
                play_sync(m, op, v);
                return;
        case OP_WINDOW:
                play_window(m, op, v);
                return;
        case OP_UNWINDOW:
                play_unwindow(m, op, v);
                return;
        case OP_QUOTA:
                m->tenants[op->tenant].limit[op->resource] = op->limit;
                return;
        case OP_RENEW:
                m->files[op->file].sealed = false;
                return;
        case OP_CLOSE:
        case OP_KILL_CLIENT:
        case OP_KILL_HOLDER:
                end_session(m, op->client);
                return;
        case OP_KILL_BOTH:
                end_session(m, op->client);
                forget_constraints(m);
                return;
        case OP_KILL_BROKER:    /* nothing else changes, what waits waits on; but see model_learn_tables() */
                forget_constraints(m);
                return;
        default:
                return;
        }
}
