/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "generate.h"
#include "lib/harness.h"
#include "run.h"

/* A lazy domain flushes by age after 60 s, which the model knows nothing of: we do it before. */
#define WAITS_AT_MOST_MS 20000U

static bool is_death(enum op_kind kind) {
        return kind == OP_KILL_CLIENT || kind == OP_KILL_HOLDER || kind == OP_KILL_BROKER || kind == OP_KILL_BOTH;
}

static unsigned sessions(const struct run *r) {
        unsigned n = 0;

        for (uint32_t i = 0; i < CLIENTS; i++)
                n += r->model.clients[i].connected;
        return n;
}

/* ---- requests ---- */

static void fill_order(const struct run *r, const struct op *op, struct order *o) {
        static const enum order_kind kinds[_OP_N] = {
                [OP_CONNECT] = ORDER_CONNECT,   [OP_CLOSE] = ORDER_CLOSE,           [OP_DOMAIN] = ORDER_DOMAIN,
                [OP_DESTROY] = ORDER_DESTROY,   [OP_REGISTER] = ORDER_REGISTER,     [OP_UNREGISTER] = ORDER_UNREGISTER,
                [OP_ATTACH] = ORDER_ATTACH,     [OP_DETACH] = ORDER_DETACH,         [OP_MAP] = ORDER_MAP,
                [OP_UNMAP] = ORDER_UNMAP,       [OP_UNMAP_ALL] = ORDER_UNMAP_ALL,   [OP_SYNC] = ORDER_SYNC,
                [OP_WINDOW] = ORDER_WINDOW,     [OP_UNWINDOW] = ORDER_UNWINDOW,
        };

        *o = (struct order){ .kind = kinds[op->kind], .domain = op->domain, .memory = op->memory, .device = op->device,
                             .flags = op->flags, .n = op->n, .chunk = op->chunk, .length = op->length, .limit = op->limit,
                             .window = r->clients[op->client].window_id[op->domain] };
        memcpy(o->e, op->e, sizeof op->e);
        if (op->kind == OP_CONNECT)
                memccpy(o->text, host_directory(r->host, model_tenant_of(op->client)), '\0', sizeof o->text);
        else if (op->kind == OP_ATTACH)
                memccpy(o->text, r->world.devices[op->device], '\0', sizeof o->text);
}

/* A device that somebody had is free when the kernel says so, which takes a moment. */
static bool is_coming_back(const struct run *r, const struct op *op, const struct report *p) {
        return op->kind == OP_ATTACH && p && p->result < 0 && p->error.reason == IOMMUD_REASON_DEVICE_ORPHANED &&
               r->model.devices[op->device].client == op->client;
}

static const struct report *ask(struct run *r, const struct op *op) {
        uint64_t until = harness_ms() + HARNESS_PATIENCE_MS;
        const struct report *p;
        struct order o;

        fill_order(r, op, &o);
        while (is_coming_back(r, op, p = crew_order(r, op->client, &o, op->kind == OP_REGISTER ? r->files[op->file].fd : -1)) &&
               harness_ms() < until)
                harness_pause();
        return p;
}

/* Until what waited is gone, which the service does after its answer. */
static bool await_flush(struct run *r, const struct op *op) {
        struct order o = { .kind = ORDER_DESCRIBE, .domain = op->domain };
        uint64_t until = harness_ms() + HARNESS_PATIENCE_MS;

        for (;;) {
                const struct report *p = crew_order(r, op->client, &o, -1);

                if (!p || p->result < 0)
                        return disagree(r, "client %u cannot describe domain %u", op->client, op->domain);
                if (p->info.deferred_mappings == 0)
                        return true;
                if (harness_ms() > until)
                        return disagree(r, "enough waits in domain %u of client %u, and is not flushed", op->domain, op->client);
                harness_pause();
        }
}

static bool play_request(struct run *r, const struct op *op) {
        struct verdict v;
        const struct report *p;

        model_play(&r->model, op, &v);
        p = ask(r, op);
        if (!p)
                return disagree(r, "client %u has ended", op->client);
        if (!compare_answer(r, op, &v, p))
                return false;
        r->refused += v.n > 0;
        if (v.n > 0)
                return true;
        if (op->kind == OP_DOMAIN)
                r->clients[op->client].domain_id[op->domain] = p->id;
        else if (op->kind == OP_REGISTER)
                r->clients[op->client].memory_id[op->memory] = p->id;
        else if (op->kind == OP_WINDOW)
                r->clients[op->client].window_id[op->domain] = p->id;
        else if (op->kind == OP_ATTACH)
                probe_forget(r, op->device);
        if (v.flush_follows)
                return await_flush(r, op);
        if (op->kind == OP_CLOSE)
                host_settle(r->host, sessions(r));
        return op->kind != OP_CONNECT || compare_capabilities(r, op->client, 0);
}

/* ---- fate ---- */

/* A session that has lost its holder says so as soon as anybody knows, and is closed then. */
static bool lose_session(struct run *r, uint32_t client) {
        struct order quotas = { .kind = ORDER_QUOTAS }, close = { .kind = ORDER_CLOSE };
        uint64_t until = harness_ms() + HARNESS_PATIENCE_MS;
        const struct report *p;

        while ((p = crew_order(r, client, &quotas, -1)) && p->result == 0 && harness_ms() < until)
                harness_pause();
        if (!p || p->result != -ECONNRESET)
                return disagree(r, "client %u has lost its holder and is told: %d", client, p ? p->result : 1);
        p = crew_order(r, client, &close, -1);
        return p != NULL || disagree(r, "client %u has ended", client);
}

static bool learn_tables(struct run *r, const struct model *at_death) {
        for (uint32_t c = 0; c < CLIENTS; c++)
                for (uint32_t d = 0; d < DOMAINS; d++) {
                        struct order o = { .kind = ORDER_DESCRIBE, .domain = d };
                        const struct report *p;

                        if (!r->model.clients[c].domains[d].there)
                                continue;
                        p = crew_order(r, c, &o, -1);
                        if (!p || p->result < 0)
                                return disagree(r, "client %u cannot describe domain %u after a restart: %s", c, d,
                                                p ? p->error.text : "it is gone");
                        model_learn_tables(&r->model, c, d, at_death, &r->before_last, p->info.table_bytes);
                }
        return true;
}

static bool play_fate(struct run *r, const struct op *op, const struct model *before) {
        struct verdict v;

        model_play(&r->model, op, &v);
        switch (op->kind) {
        case OP_QUOTA:
                host_set_limits(r->host, op->tenant, r->model.tenants[op->tenant].limit,
                                r->model.tenants[op->tenant].allows_unsealed);
                return true;
        case OP_RENEW:
                crew_renew(r, op->file);
                return true;
        case OP_KILL_CLIENT:
                crew_kill(r, op->client);
                break;
        case OP_KILL_HOLDER:
                host_kill_holder(r->host, r->clients[op->client].pid);
                if (!lose_session(r, op->client))
                        return false;
                break;
        case OP_KILL_BROKER:
                host_kill_broker(r->host);
                host_start_broker(r->host);
                break;
        default:
                host_kill_holder(r->host, r->clients[op->client].pid);
                host_kill_broker(r->host);
                host_start_broker(r->host);
                if (!lose_session(r, op->client))
                        return false;
                break;
        }
        host_settle(r->host, sessions(r));
        host_check(r->host);
        return (op->kind != OP_KILL_BROKER && op->kind != OP_KILL_BOTH) || learn_tables(r, before);
}

/* ---- looking ---- */

static bool look_at(struct run *r, uint32_t client, uint32_t domain, const struct model *before) {
        if (!r->model.clients[client].domains[domain].there)
                return true;
        return compare_domain(r, client, domain) && probe(r, client, domain, before);
}

/* What the operation touched; now and then, and after a death, all there is. */
static bool look(struct run *r, const struct op *op, const struct model *before) {
        bool all = is_death(op->kind) || (r->world.kind == WORLD_SOFT && r->played % 16 == 0);

        if (!compare_balances(r))
                return false;
        for (uint32_t c = 0; c < CLIENTS; c++)
                for (uint32_t d = 0; d < DOMAINS; d++)
                        if ((all || (op->kind != OP_QUOTA && op->kind != OP_RENEW && c == op->client && d == op->domain)) &&
                            !look_at(r, c, d, before))
                                return false;
        return true;
}

/* Nothing waits for so long that the service would flush it by itself. */
static bool sync_the_old(struct run *r) {
        for (uint32_t c = 0; c < CLIENTS; c++)
                for (uint32_t d = 0; d < DOMAINS; d++) {
                        struct model_counts counts = { 0 };
                        uint64_t *since = &r->waits_since[c][d];

                        if (r->model.clients[c].domains[d].there)
                                model_count(&r->model, c, d, &counts);
                        if (counts.waiting_mappings == 0)
                                *since = 0;
                        else if (*since == 0)
                                *since = harness_ms();
                        else if (harness_ms() - *since > WAITS_AT_MOST_MS) {
                                const struct op sync = { .kind = OP_SYNC, .client = c, .domain = d };

                                *since = 0;
                                if (!play_request(r, &sync))
                                        return false;
                        }
                }
        return true;
}

/* ---- the whole ---- */

void run_begin(struct run *r, const struct world *w) {
        memset(r, 0, sizeof *r);
        r->world = *w;
        r->random = w->seed + 99;
        begin_model(&r->model, w);
        r->host = host_begin(w);
        for (uint32_t t = 0; t < TENANTS; t++)
                host_set_limits(r->host, t, r->model.tenants[t].limit, r->model.tenants[t].allows_unsealed);
        crew_begin(r);
}

bool run_play(struct run *r, const struct op *op) {
        static struct model before;
        bool fate = op->kind == OP_QUOTA || op->kind == OP_RENEW || is_death(op->kind);

        if (!sync_the_old(r))
                return false;
        if (!worth_playing(&r->model, op)) {
                r->passed_over++;
                return true;
        }
        before = r->model;
        r->played++;
        if (!(fate ? play_fate(r, op, &before) : play_request(r, op)))
                return false;
        if (op->kind != OP_QUOTA && op->kind != OP_RENEW && memcmp(&before, &r->model, sizeof before) != 0)
                r->before_last = before;
        return look(r, op, &before);
}

bool run_end(struct run *r) {
        for (uint32_t c = 0; c < CLIENTS; c++) {
                const struct op close = { .kind = OP_CLOSE, .client = c };

                if (r->model.clients[c].connected && (!play_request(r, &close) || !compare_balances(r)))
                        return false;
        }
        crew_end(r);
        host_end(r->host);
        return true;
}
