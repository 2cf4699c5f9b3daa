/* SPDX-License-Identifier: Apache-2.0 */
/* Tenants and device bindings: config.db. */
#include <string.h>

#include "ledger_private.h"

int config_begin(struct ledger *l, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_CONFIG_BEGIN);

        return damage_check(&l->damage, r) < 0 ? -1 : stmt_run(&s, NULL, r);
}

void config_rollback(struct ledger *l) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_CONFIG_ROLLBACK);
        struct refusal ignored;

        if (!sqlite3_get_autocommit(l->config.handle))          /* sqlite rolls back by itself after some errors */
                (void)stmt_run(&s, NULL, &ignored);
}

int config_commit(struct ledger *l, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_CONFIG_COMMIT);

        if (stmt_run(&s, NULL, r) == 0)
                return 0;
        stmt_end(&s);
        config_rollback(l);
        return -1;
}

static int put_quotas(struct ledger *l, const struct ledger_tenant *t, struct refusal *r) {
        for (int i = RESOURCE_NONE + 1; i < _RESOURCE_N; i++) {
                _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_TENANT_QUOTA_PUT);

                stmt_text(&s, 1, t->name);
                stmt_int64(&s, 2, i);
                stmt_bits(&s, 3, t->quota[i]);
                if (stmt_run(&s, NULL, r) < 0)
                        return -1;
        }
        return 0;
}

static int put_rules(struct ledger *l, const struct ledger_tenant *t, struct refusal *r) {
        for (uint32_t i = 0; i < t->n_rules; i++) {
                _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_TENANT_RULE_PUT);
                const struct ledger_rule *rule = &t->rules[i];

                stmt_text(&s, 1, t->name);
                stmt_int64(&s, 2, i);
                rule->has_uid ? stmt_int64(&s, 3, rule->uid) : stmt_null(&s, 3);
                rule->has_gid ? stmt_int64(&s, 4, rule->gid) : stmt_null(&s, 4);
                stmt_text(&s, 5, rule->cgroup_prefix);
                if (stmt_run(&s, NULL, r) < 0)
                        return -1;
        }
        return 0;
}

static int put_devices(struct ledger *l, const struct ledger_tenant *t, struct refusal *r) {
        for (uint32_t i = 0; i < t->n_devices; i++) {
                _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_TENANT_DEVICE_PUT);

                stmt_text(&s, 1, t->name);
                stmt_int64(&s, 2, i);
                stmt_text(&s, 3, t->devices[i]);
                if (stmt_run(&s, NULL, r) < 0)
                        return -1;
        }
        return 0;
}

static int delete_tenant(struct ledger *l, const char *name, int64_t *ret_deleted, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_TENANT_DELETE);

        stmt_text(&s, 1, name);
        return stmt_run(&s, ret_deleted, r);
}

/* Deleting first takes the old quotas, rules and devices along. */
static int put_tenant(struct ledger *l, const struct ledger_tenant *t, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_TENANT_PUT);

        if (delete_tenant(l, t->name, NULL, r) < 0)
                return -1;
        stmt_text(&s, 1, t->name);
        stmt_int64(&s, 2, t->own_socket);
        stmt_int64(&s, 3, t->allow_unsealed);
        if (stmt_run(&s, NULL, r) < 0 || put_quotas(l, t, r) < 0 || put_rules(l, t, r) < 0)
                return -1;
        return put_devices(l, t, r);
}

int ledger_tenant_put(struct ledger *l, const struct ledger_tenant *t, struct refusal *r) {
        LOCK_SCOPE(&l->config_lock);

        if (t->n_rules > LEDGER_RULES_MAX || t->n_devices > LEDGER_DEVICES_MAX)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "Tenant %s has %u rules and %u devices, the ledger keeps %u and %u.", t->name, t->n_rules,
                              t->n_devices, LEDGER_RULES_MAX, LEDGER_DEVICES_MAX);
        if (config_begin(l, r) < 0)
                return -1;
        if (put_tenant(l, t, r) < 0) {
                config_rollback(l);
                return -1;
        }
        return config_commit(l, r);
}

int ledger_tenant_delete(struct ledger *l, const char *name, struct refusal *r) {
        LOCK_SCOPE(&l->config_lock);
        int64_t deleted = 0;

        if (delete_tenant(l, name, &deleted, r) < 0)
                return -1;
        return deleted ? 0 : refuse(r, REFUSAL_UNKNOWN_TENANT, "There is no tenant \"%.63s\".", name);
}

static int get_quotas(struct ledger *l, struct ledger_tenant *t, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_TENANT_QUOTAS);
        int k;

        stmt_text(&s, 1, t->name);
        while ((k = stmt_next(&s, r)) > 0) {
                int64_t resource = stmt_get_int64(&s, 0);

                if (resource < _RESOURCE_N)
                        t->quota[resource] = stmt_get_bits(&s, 1);
        }
        return k;
}

static int get_rules(struct ledger *l, struct ledger_tenant *t, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_TENANT_RULES);
        int k;

        stmt_text(&s, 1, t->name);
        while ((k = stmt_next(&s, r)) > 0 && t->n_rules < LEDGER_RULES_MAX) {
                struct ledger_rule *rule = &t->rules[t->n_rules++];

                rule->has_uid = sqlite3_column_type(s.handle, 0) != SQLITE_NULL;
                rule->has_gid = sqlite3_column_type(s.handle, 1) != SQLITE_NULL;
                rule->uid = stmt_get_u32(&s, 0);
                rule->gid = stmt_get_u32(&s, 1);
                stmt_get_text(&s, 2, rule->cgroup_prefix, sizeof rule->cgroup_prefix);
        }
        return k < 0 ? -1 : 0;
}

static int get_devices(struct ledger *l, struct ledger_tenant *t, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_TENANT_DEVICES);
        int k;

        stmt_text(&s, 1, t->name);
        while ((k = stmt_next(&s, r)) > 0 && t->n_devices < LEDGER_DEVICES_MAX)
                stmt_get_text(&s, 0, t->devices[t->n_devices++], LEDGER_NAME_MAX);
        return k < 0 ? -1 : 0;
}

/* The first tenant after a name. 1: *t is filled, 0: there is none, -1. */
static int next_tenant(struct ledger *l, const char *after, struct ledger_tenant *t, struct refusal *r) {
        LOCK_SCOPE(&l->config_lock);
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_TENANT_NEXT);
        int k;

        memset(t, 0, sizeof *t);
        stmt_text(&s, 1, after);
        k = stmt_next(&s, r);
        if (k <= 0)
                return k;
        stmt_get_text(&s, 0, t->name, sizeof t->name);
        t->own_socket = stmt_get_int64(&s, 1) != 0;
        t->allow_unsealed = stmt_get_int64(&s, 2) != 0;
        if (get_quotas(l, t, r) < 0 || get_rules(l, t, r) < 0 || get_devices(l, t, r) < 0)
                return -1;
        return 1;
}

/* One tenant at a time and the lock free in between, so that each() may call the ledger. */
int ledger_tenants(struct ledger *l, int (*each)(const struct ledger_tenant *t, void *arg), void *arg,
                   struct refusal *r) {
        char after[LEDGER_NAME_MAX] = "";
        struct ledger_tenant t;
        int k;

        while ((k = next_tenant(l, after, &t, r)) > 0) {
                memcpy(after, t.name, sizeof after);
                k = each(&t, arg);
                if (k != 0)
                        break;
        }
        return k;
}

int ledger_binding_put(struct ledger *l, const char *device, const char *original_driver, struct refusal *r) {
        LOCK_SCOPE(&l->config_lock);
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_BINDING_PUT);

        stmt_text(&s, 1, device);
        stmt_text(&s, 2, original_driver);
        return stmt_run(&s, NULL, r);
}

int ledger_binding_get(struct ledger *l, const char *device, char driver[LEDGER_NAME_MAX], bool *ret_found,
                       struct refusal *r) {
        LOCK_SCOPE(&l->config_lock);
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_BINDING_GET);
        int k;

        stmt_text(&s, 1, device);
        k = stmt_next(&s, r);
        if (k < 0)
                return -1;
        if (k > 0)
                stmt_get_text(&s, 0, driver, LEDGER_NAME_MAX);
        *ret_found = k > 0;
        return 0;
}

int ledger_binding_delete(struct ledger *l, const char *device, struct refusal *r) {
        LOCK_SCOPE(&l->config_lock);
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_BINDING_DELETE);

        stmt_text(&s, 1, device);
        return stmt_run(&s, NULL, r);
}
