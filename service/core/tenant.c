/* SPDX-License-Identifier: Apache-2.0 */
#include "core/tenant.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

struct tenant *tenant_find(struct broker *b, const char *name) {
        struct tenant *t;

        HASH_FIND_STR(b->tenants, name, t);
        return t;
}

bool tenant_name_is_valid(const char *name) {
        size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_.-");

        return n > 0 && n < LEDGER_NAME_MAX && name[n] == '\0' && strchr("_.-", name[0]) == NULL;
}

void tenant_fill_quotas(uint64_t quota[_RESOURCE_N], const uint64_t defaults[_RESOURCE_N]) {
        uint64_t *tables = &quota[RESOURCE_TABLE_BYTES], locked;

        for (unsigned i = 0; i < _RESOURCE_N; i++)
                if (quota[i] == TENANT_QUOTA_KEEP)
                        quota[i] = defaults[i];
        if (*tables != TENANT_QUOTA_KEEP)
                return;
        locked = quota[RESOURCE_LOCKED_BYTES];
        *tables = locked / TENANT_TABLE_SHARE > TENANT_TABLE_BYTES ? locked / TENANT_TABLE_SHARE : TENANT_TABLE_BYTES;
        if (locked == UINT64_MAX)
                *tables = UINT64_MAX;
}

bool tenant_may_lease(struct broker *b, struct tenant *t, const char *device, const char *vendor_device) {
        const struct ledger_tenant *c = &t->config;
        LOCK_SCOPE(&b->lock);

        for (uint32_t i = 0; i < c->n_devices; i++)
                if (strcmp(c->devices[i], device) == 0 || strcmp(c->devices[i], vendor_device) == 0)
                        return true;
        return c->n_devices == 0;
}

bool tenant_may_start(struct broker *b, struct tenant *t) {
        double rate = b->options.starts_per_second;
        uint64_t now = monotonic_ms();

        t->start_tokens += rate * (double)(now - t->start_refilled_ms) / 1000.0;
        t->start_refilled_ms = now;
        if (t->start_tokens > rate)
                t->start_tokens = rate;
        if (t->start_tokens < 1.0)
                return false;
        t->start_tokens -= 1.0;
        return true;
}

/* broker->lock held. */
static struct tenant *add(struct broker *b, const struct ledger_tenant *config, bool from_file) {
        struct tenant *t = tenant_find(b, config->name);

        if (!t) {
                t = calloc(1, sizeof *t);
                if (!t)
                        return NULL;
                text_copy(t->name, sizeof t->name, config->name);
                quota_account_init(&t->account, t->name);
                t->account.host = &b->host;
                t->start_tokens = b->options.starts_per_second;
                t->start_refilled_ms = monotonic_ms();
                HASH_ADD_STR(b->tenants, name, t);
        }
        t->config = *config;
        atomic_store(&t->allow_unsealed, config->allow_unsealed);
        t->from_file = from_file;
        t->retired = false;
        quota_account_set_limits(&t->account, config->quota);
        return t;
}

struct load {
        struct broker *broker;
        bool failed;
};

static int add_from_ledger(const struct ledger_tenant *config, void *arg) {
        struct load *load = arg;
        struct tenant *t = tenant_find(load->broker, config->name);

        if (t && t->from_file && !t->retired) {
                log_warning("tenant '%s' is in the configuration file and in the ledger: the file counts", config->name);
                return 0;
        }
        load->failed |= !add(load->broker, config, false);
        return 0;
}

int tenant_load_all(struct broker *b, const struct ledger_tenant *file, size_t n, struct refusal *r) {
        struct load load = { .broker = b };
        struct tenant *t, *next;
        LOCK_SCOPE(&b->lock);

        HASH_ITER(hh, b->tenants, t, next)
                t->retired = true;
        for (size_t i = 0; i < n; i++)
                load.failed |= !add(b, &file[i], true);
        if (ledger_tenants(b->ledger, add_from_ledger, &load, r) < 0)
                return -1;
        return load.failed ? refuse(r, REFUSAL_INTERNAL, "out of memory") : 0;
}

void tenant_free_all(struct broker *b) {
        struct tenant *t, *next;

        HASH_ITER(hh, b->tenants, t, next) {
                HASH_DEL(b->tenants, t);
                quota_account_clear(&t->account);
                free(t);
        }
}

/* ---- which tenant is a peer ---- */

static bool cgroup_below(const char *cgroup, const char *prefix) {
        size_t n = strlen(prefix);

        while (n > 1 && prefix[n - 1] == '/')
                n--;
        return strncmp(cgroup, prefix, n) == 0 && (cgroup[n] == '\0' || cgroup[n] == '/' || n == 1);
}

static bool rule_fits(const struct ledger_rule *rule, const struct peer *p, bool *ret_unprovable) {
        if (!rule->has_uid && !rule->has_gid && rule->cgroup_prefix[0] == '\0')
                return false;
        if ((rule->has_uid && rule->uid != p->uid) || (rule->has_gid && rule->gid != p->gid))
                return false;
        if (rule->cgroup_prefix[0] == '\0')
                return true;
        if (!p->pidfd_from_socket) {
                *ret_unprovable = true;
                return false;
        }
        return p->cgroup[0] && cgroup_below(p->cgroup, rule->cgroup_prefix);
}

/* The most specific rule wins, so that the order of tenants means nothing: a cgroup (the longer the better), then uid, then
 * gid. */
static size_t specificity(const struct ledger_rule *rule) {
        return strlen(rule->cgroup_prefix) * 4 + (rule->has_uid ? 2 : 0) + (rule->has_gid ? 1 : 0);
}

int tenant_of_peer(struct broker *b, struct peer *peer, struct refusal *r) {
        struct tenant *t, *next, *best = NULL;
        bool unprovable = false;
        size_t best_fit = 0;
        LOCK_SCOPE(&b->lock);

        if (peer->tenant[0]) {
                t = tenant_find(b, peer->tenant);
                if (t && !t->retired)
                        return 0;
        }
        HASH_ITER(hh, b->tenants, t, next)
                for (uint32_t i = 0; !t->retired && !peer->tenant[0] && i < t->config.n_rules; i++)
                        if (rule_fits(&t->config.rules[i], peer, &unprovable) &&
                            specificity(&t->config.rules[i]) > best_fit) {
                                best = t;
                                best_fit = specificity(&t->config.rules[i]);
                        }
        if (best) {
                text_copy(peer->tenant, sizeof peer->tenant, best->name);
                return 0;
        }
        if (unprovable)
                return refuse(r, REFUSAL_NOT_PERMITTED,
                              "only a rule by cgroup names uid %u, and this kernel cannot prove a peer's cgroup (Linux 6.5 and "
                              "later can): give the tenant a rule by uid or a socket of its own", peer->uid);
        return refuse(r, REFUSAL_UNKNOWN_PEER,
                      "no rule makes uid %u, gid %u, pid %d a tenant. Ask the operator: iommuctl tenant add NAME --uid=%u",
                      peer->uid, peer->gid, (int)peer->pid, peer->uid);
}

/* ---- operators' requests ---- */

static void view_of(struct broker *b, struct tenant *t, struct tenant_view *ret) {
        uint64_t limit[_RESOURCE_N];

        memset(ret, 0, sizeof *ret);
        ret->config = t->config;
        quota_account_read(&t->account, limit, ret->used);
        ret->origin = t->from_file ? "file" : "ledger";
        if (t->config.own_socket)
                (void)snprintf(ret->socket_directory, sizeof ret->socket_directory, "%s/%s", b->options.tenant_directory,
                               t->name);
}

static int check_upsert(struct broker *b, const struct tenant_upsert *u, struct tenant *old, struct refusal *r) {
        const char *name = u->config.name;

        if (!tenant_name_is_valid(name))
                return refuse(r, REFUSAL_BAD_NAME, "'%s' is no tenant's name: 1 to 63 of a-z 0-9 _ . -, the first a letter or "
                                                   "digit", name);
        if (old && !old->retired && u->create_only)
                return refuse(r, REFUSAL_OVERLAP, "tenant '%s' exists already; change it with: iommuctl tenant set %s", name,
                              name);
        if ((!old || old->retired) && u->must_exist)
                return refuse(r, REFUSAL_UNKNOWN_TENANT, "there is no tenant '%s'; make it with: iommuctl tenant add %s", name,
                              name);
        if (old && old->from_file && !old->retired)
                return refuse(r, REFUSAL_NOT_PERMITTED, "tenant '%s' comes from the configuration file: change it there and "
                                                        "reload the service", name);
        (void)b;
        return 0;
}

/* What the tenant will be: the old one, or the defaults, with the named parts replaced. */
static void merge(struct broker *b, const struct tenant_upsert *u, const struct tenant *old, struct ledger_tenant *ret) {
        const struct ledger_tenant *c = &u->config;
        uint32_t fields = u->fields ? u->fields : ~0U;

        memset(ret, 0, sizeof *ret);
        if (old)
                *ret = old->config;
        else {
                for (unsigned i = 0; i < _RESOURCE_N; i++)
                        ret->quota[i] = TENANT_QUOTA_KEEP;
                fields = ~0U;
        }
        text_copy(ret->name, sizeof ret->name, c->name);
        for (unsigned i = 1; (fields & TENANT_FIELD_QUOTAS) && i < _RESOURCE_N; i++)
                if (c->quota[i] != TENANT_QUOTA_KEEP)
                        ret->quota[i] = c->quota[i];
        tenant_fill_quotas(ret->quota, b->options.default_quota);       /* a new one; an old one has them all */
        if (fields & TENANT_FIELD_RULES) {
                ret->n_rules = c->n_rules;
                memcpy(ret->rules, c->rules, sizeof ret->rules);
        }
        if (fields & TENANT_FIELD_OWN_SOCKET)
                ret->own_socket = c->own_socket;
        if (fields & TENANT_FIELD_ALLOW_UNSEALED)
                ret->allow_unsealed = c->allow_unsealed;
        if (fields & TENANT_FIELD_DEVICES) {
                ret->n_devices = c->n_devices;
                memcpy(ret->devices, c->devices, sizeof ret->devices);
        }
}

static int set_sockets(struct broker *b, const char *name, bool present, struct refusal *r) {
        int error;

        if (!b->options.tenant_sockets)
                return 0;
        error = b->options.tenant_sockets(b->options.tenant_sockets_arg, name, present);
        return error < 0 ? refuse(r, REFUSAL_INTERNAL, "cannot %s the sockets of tenant '%s' in %s: %s",
                                  present ? "make" : "remove", name, b->options.tenant_directory, strerror(-error))
                         : 0;
}

/* One tenant whose sockets are not as its configuration says; false: all are. */
static bool next_changed(struct broker *b, char ret_name[LEDGER_NAME_MAX], bool *ret_present) {
        struct tenant *t, *next;
        LOCK_SCOPE(&b->lock);

        HASH_ITER(hh, b->tenants, t, next) {
                bool present = !t->retired && t->config.own_socket;

                if (present == t->had_sockets)
                        continue;
                t->had_sockets = present;
                text_copy(ret_name, LEDGER_NAME_MAX, t->config.name);
                *ret_present = present;
                return true;
        }
        return false;
}

int tenant_reload(struct broker *b, const struct ledger_tenant *file, size_t n, struct refusal *r) {
        char name[LEDGER_NAME_MAX];
        struct tenant *t, *next;
        bool present;
        int result;

        pthread_mutex_lock(&b->lock);
        HASH_ITER(hh, b->tenants, t, next)
                t->had_sockets = !t->retired && t->config.own_socket;
        pthread_mutex_unlock(&b->lock);
        result = tenant_load_all(b, file, n, r);
        while (next_changed(b, name, &present))
                if (set_sockets(b, name, present, r) < 0)
                        result = -1;
        return result;
}

int tenant_upsert(struct broker *b, const struct tenant_upsert *u, struct tenant_view *ret, struct refusal *r) {
        struct ledger_tenant config;
        struct tenant *t;
        bool had_sockets;

        pthread_mutex_lock(&b->lock);
        t = tenant_find(b, u->config.name);
        if (check_upsert(b, u, t, r) < 0) {
                pthread_mutex_unlock(&b->lock);
                return -1;
        }
        merge(b, u, t && !t->retired ? t : NULL, &config);
        had_sockets = t && !t->retired && t->config.own_socket;
        pthread_mutex_unlock(&b->lock);
        /* Two operators at once: the later one wins, as with any upsert. */
        if (ledger_tenant_put(b->ledger, &config, r) < 0)
                return -1;
        pthread_mutex_lock(&b->lock);
        t = add(b, &config, false);
        if (t)
                view_of(b, t, ret);
        pthread_mutex_unlock(&b->lock);
        if (!t)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        return config.own_socket != had_sockets ? set_sockets(b, config.name, config.own_socket, r) : 0;
}

int tenant_delete(struct broker *b, const char *name, struct refusal *r) {
        struct tenant *t;
        bool had_sockets;

        pthread_mutex_lock(&b->lock);
        t = tenant_find(b, name);
        if (!t || t->retired)
                refuse(r, REFUSAL_UNKNOWN_TENANT, "there is no tenant '%s'", name);
        else if (t->from_file)
                refuse(r, REFUSAL_NOT_PERMITTED, "tenant '%s' comes from the configuration file: remove it there and reload the "
                                                 "service", name);
        else if (t->sessions > 0) {
                refuse(r, REFUSAL_IN_USE, "tenant '%s' has %u open sessions; end them first (iommuctl status lists them)", name,
                       t->sessions);
                r->used = t->sessions;
        } else {
                t->retired = true;      /* before the ledger: no session may start in between */
                had_sockets = t->config.own_socket;
                pthread_mutex_unlock(&b->lock);
                if (ledger_tenant_delete(b->ledger, name, r) < 0) {
                        pthread_mutex_lock(&b->lock);
                        t->retired = false;
                        pthread_mutex_unlock(&b->lock);
                        return -1;
                }
                return had_sockets ? set_sockets(b, name, false, r) : 0;
        }
        pthread_mutex_unlock(&b->lock);
        return -1;
}

void tenant_list(struct broker *b, void (*each)(const struct tenant_view *v, void *arg), void *arg) {
        struct tenant *t, *next;
        LOCK_SCOPE(&b->lock);

        HASH_ITER(hh, b->tenants, t, next) {
                struct tenant_view v;

                if (t->retired && t->sessions == 0)
                        continue;
                view_of(b, t, &v);
                each(&v, arg);
        }
}
