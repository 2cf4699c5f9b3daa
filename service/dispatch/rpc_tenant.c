/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "dispatch/page.h"
#include "dispatch/rpc.h"

/* Operator.{UpsertTenant,DeleteTenant,ListTenants}: tenants on the wire and in the ledger's words. */

/* [a-z0-9][a-z0-9_.-]{0,62}: the name becomes a directory */
static int tenant_name(const char *name, struct refusal *r) {
        if (rpc_name_needed(name, "tenant name", r) < 0)
                return -1;
        for (const char *p = name; *p; p++) {
                bool alnum = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9');

                if (!alnum && (p == name || !strchr("_.-", *p)))
                        return refuse(r, REFUSAL_BAD_NAME,
                                      "tenant name \"%s\": allowed are a-z, 0-9, and after the first also _ . -", name);
        }
        return 0;
}

static int quotas_from_message(const Iommud__V1__Tenant *t, struct ledger_tenant *to, struct refusal *r) {
        for (size_t i = 0; i < _RESOURCE_N; i++)
                to->quota[i] = TENANT_QUOTA_KEEP;
        for (size_t i = 0; i < t->n_quotas; i++) {
                int resource = (int)t->quotas[i]->resource;

                if (resource <= RESOURCE_NONE || resource >= _RESOURCE_N)
                        return refuse(r, REFUSAL_BAD_MESSAGE,
                                      "quota %zu is for resource %d, which this version does not know", i, resource);
                if (to->quota[resource] != TENANT_QUOTA_KEEP)
                        return refuse(r, REFUSAL_BAD_MESSAGE, "quota for %s is there twice",
                                      resource_name((enum resource)resource));
                to->quota[resource] = t->quotas[i]->limit;
                /* as good as unlimited, but has another meaning inside */
                if (to->quota[resource] == TENANT_QUOTA_KEEP)
                        to->quota[resource] = TENANT_QUOTA_KEEP - 1;
        }
        return 0;
}

static int too_many(size_t n, size_t limit, const char *what, struct refusal *r) {
        (void)refuse(r, REFUSAL_LIMIT_EXCEEDED, "%zu %s; a tenant can have %zu", n, what, limit);
        r->asked = n;
        r->limit = limit;
        return -1;
}

static int rule_from_message(const Iommud__V1__Rule *rule, struct ledger_rule *to, struct refusal *r) {
        if (rpc_text(rule->cgroup_prefix, sizeof to->cgroup_prefix, "cgroup_prefix", r) < 0)
                return -1;
        if (rule->cgroup_prefix[0] && rule->cgroup_prefix[0] != '/')
                return refuse(r, REFUSAL_BAD_NAME, "cgroup_prefix \"%.64s\" does not begin with /",
                              rule->cgroup_prefix);
        to->has_uid = rule->uid_set_case == IOMMUD__V1__RULE__UID_SET_UID;
        to->uid = to->has_uid ? rule->uid : 0;
        to->has_gid = rule->gid_set_case == IOMMUD__V1__RULE__GID_SET_GID;
        to->gid = to->has_gid ? rule->gid : 0;
        if (!to->has_uid && !to->has_gid && !rule->cgroup_prefix[0])
                return refuse(r, REFUSAL_BAD_MESSAGE, "a rule without uid, gid and cgroup_prefix would fit everybody");
        (void)stpncpy(to->cgroup_prefix, rule->cgroup_prefix, sizeof to->cgroup_prefix - 1);
        return 0;
}

static int tenant_from_message(const Iommud__V1__Tenant *t, struct ledger_tenant *to, struct refusal *r) {
        if (tenant_name(t->name, r) < 0 || quotas_from_message(t, to, r) < 0)
                return -1;
        if (t->n_rules > LEDGER_RULES_MAX)
                return too_many(t->n_rules, LEDGER_RULES_MAX, "rules", r);
        if (t->n_devices > LEDGER_DEVICES_MAX)
                return too_many(t->n_devices, LEDGER_DEVICES_MAX, "devices", r);
        (void)stpncpy(to->name, t->name, sizeof to->name - 1);
        to->own_socket = t->own_socket;
        to->allow_unsealed = t->allow_unsealed;
        to->n_rules = (uint32_t)t->n_rules;
        to->n_devices = (uint32_t)t->n_devices;
        for (size_t i = 0; i < t->n_rules; i++) {
                if (rule_from_message(t->rules[i], &to->rules[i], r) < 0) {
                        r->element = (int32_t)i;
                        return -1;
                }
        }
        for (size_t i = 0; i < t->n_devices; i++) {
                if (rpc_name_needed(t->devices[i], "device", r) < 0) {
                        r->element = (int32_t)i;
                        return -1;
                }
                (void)stpncpy(to->devices[i], t->devices[i], LEDGER_NAME_MAX - 1);
        }
        return 0;
}

static bool quotas_to_message(const struct tenant_view *v, Iommud__V1__Tenant *t, struct arena *arena) {
        Iommud__V1__Quota *quotas = arena_alloc(arena, _RESOURCE_N * sizeof *quotas);

        t->quotas = arena_alloc(arena, _RESOURCE_N * sizeof *t->quotas);
        if (!quotas || !t->quotas)
                return false;
        for (size_t i = RESOURCE_NONE + 1; i < _RESOURCE_N; i++) {
                Iommud__V1__Quota *q = &quotas[t->n_quotas];

                iommud__v1__quota__init(q);
                q->resource = (Iommud__V1__Resource)i;
                q->limit = v->config.quota[i];
                q->used = v->used[i];
                q->over = rpc_over(q->limit, q->used);
                t->quotas[t->n_quotas++] = q;
        }
        return true;
}

static bool rules_to_message(const struct ledger_tenant *config, Iommud__V1__Tenant *t, struct arena *arena) {
        Iommud__V1__Rule *rules = arena_alloc(arena, config->n_rules * sizeof *rules);

        t->rules = arena_alloc(arena, config->n_rules * sizeof *t->rules);
        if (!rules || !t->rules)
                return false;
        for (size_t i = 0; i < config->n_rules; i++) {
                const struct ledger_rule *from = &config->rules[i];

                iommud__v1__rule__init(&rules[i]);
                if (from->has_uid) {
                        rules[i].uid_set_case = IOMMUD__V1__RULE__UID_SET_UID;
                        rules[i].uid = from->uid;
                }
                if (from->has_gid) {
                        rules[i].gid_set_case = IOMMUD__V1__RULE__GID_SET_GID;
                        rules[i].gid = from->gid;
                }
                rules[i].cgroup_prefix = rpc_borrow(from->cgroup_prefix);
                t->rules[t->n_rules++] = &rules[i];
        }
        return true;
}

/* Borrows v; NULL without room. */
static Iommud__V1__Tenant *tenant_to_message(const struct tenant_view *v, struct arena *arena) {
        Iommud__V1__Tenant *t = arena_alloc(arena, sizeof *t);

        if (!t)
                return NULL;
        iommud__v1__tenant__init(t);
        t->name = rpc_borrow(v->config.name);
        t->own_socket = v->config.own_socket;
        t->socket_directory = rpc_borrow(v->socket_directory);
        t->allow_unsealed = v->config.allow_unsealed;
        t->origin = rpc_borrow(v->origin);
        t->devices = arena_alloc(arena, v->config.n_devices * sizeof *t->devices);
        if (!t->devices || !quotas_to_message(v, t, arena) || !rules_to_message(&v->config, t, arena))
                return NULL;
        for (size_t i = 0; i < v->config.n_devices; i++)
                t->devices[t->n_devices++] = rpc_borrow(v->config.devices[i]);
        return t;
}

void rpc_upsert_tenant(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__UpsertTenantRequest *req = request;
        Iommud__V1__UpsertTenantResponse answer = IOMMUD__V1__UPSERT_TENANT_RESPONSE__INIT;
        struct tenant_upsert *core = arena_zalloc(arena, 1, sizeof *core);
        struct tenant_view *v = arena_zalloc(arena, 1, sizeof *v);
        const uint32_t known = TENANT_FIELD_QUOTAS | TENANT_FIELD_RULES | TENANT_FIELD_OWN_SOCKET |
                               TENANT_FIELD_ALLOW_UNSEALED | TENANT_FIELD_DEVICES;
        struct refusal r;
        int failed = 0;

        if (!core || !v) {
                rpc_answer_too_large(rpc);
                return;
        }
        if (!req->tenant)
                failed = refuse(&r, REFUSAL_BAD_MESSAGE, "the request has no tenant");
        else if (req->fields & ~known)
                failed = refuse(&r, REFUSAL_BAD_MESSAGE, "fields 0x%x has bits that this version does not know",
                                req->fields);
        else if (req->create_only && req->must_exist)
                failed = refuse(&r, REFUSAL_BAD_MESSAGE, "create_only and must_exist exclude each other");
        else
                failed = tenant_from_message(req->tenant, &core->config, &r);
        if (failed == 0) {
                core->create_only = req->create_only;
                core->must_exist = req->must_exist;
                core->fields = req->fields;
                failed = tenant_upsert(rpc->broker, core, v, &r);
        }
        if (failed < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        answer.tenant = tenant_to_message(v, arena);
        if (!answer.tenant)
                rpc_answer_too_large(rpc);
        else
                rpc_answer(rpc, &answer, arena);
}

void rpc_delete_tenant(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__DeleteTenantRequest *req = request;
        Iommud__V1__DeleteTenantResponse answer = IOMMUD__V1__DELETE_TENANT_RESPONSE__INIT;
        struct refusal r;

        if (tenant_name(req->name, &r) < 0 || tenant_delete(rpc->broker, req->name, &r) < 0)
                rpc_refuse(rpc, &r);
        else
                rpc_answer(rpc, &answer, arena);
}

static void offer_tenant(const struct tenant_view *v, void *arg) {
        page_list_offer(arg, v);
}

void rpc_list_tenants(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__ListTenantsRequest *req = request;
        Iommud__V1__ListTenantsResponse answer = IOMMUD__V1__LIST_TENANTS_RESPONSE__INIT;
        char after[LEDGER_NAME_MAX];
        struct page_list page;
        struct refusal r;

        if (page_name(req->page_token, after, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        page_list_init(&page, after, page_size(req->page_size, PAGE_TENANTS_MAX), sizeof(struct tenant_view),
                       offsetof(struct tenant_view, config.name), arena);
        tenant_list(rpc->broker, offer_tenant, &page);
        answer.tenants = arena_alloc(arena, page.n * sizeof *answer.tenants);
        answer.next_page_token = page_list_token(&page);
        if (page.full || !answer.tenants || !answer.next_page_token) {
                rpc_answer_too_large(rpc);
                return;
        }
        for (size_t i = 0; i < page.n; i++) {
                answer.tenants[i] = tenant_to_message((const struct tenant_view *)(const void *)page.items[i], arena);
                if (!answer.tenants[i]) {
                        rpc_answer_too_large(rpc);
                        return;
                }
        }
        answer.n_tenants = page.n;
        rpc_answer(rpc, &answer, arena);
}
