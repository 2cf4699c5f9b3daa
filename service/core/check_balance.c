/* SPDX-License-Identifier: Apache-2.0 */
#include "core/check_balance.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/change.h"
#include "core/domain_tables.h"
#include "util/cleanup.h"

struct check {
        void (*each)(const struct check_view *v, void *arg);
        void *arg;
        bool fits;
};

static void differs(struct check *c, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void differs(struct check *c, const char *format, ...) {
        char text[256];
        va_list args;

        c->fits = false;
        if (!c->each)
                return;
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        c->each(&(struct check_view){ "I1", text }, c->arg);
}

static int by_id(const void *a, const void *b) {
        const struct session *x = *(struct session *const *)a, *y = *(struct session *const *)b;

        return x->id < y->id ? -1 : x->id > y->id;
}

/* ---- one domain ---- */

static void check_windows(struct domain *d, struct check *c) {
        static const struct iova_range all = { 0, UINT64_MAX };
        uint64_t created = 0, mappings = 0, outside = 0;

        for (size_t i = 0; i < d->windows.n; i++) {
                created += !d->windows.of[i]->is_default;
                mappings += d->windows.of[i]->mappings;
        }
        for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = mapping_set_next(&d->mappings, m))
                outside += !window_set_at(&d->windows, m->range.first);
        if (d->charged.of[RESOURCE_WINDOWS] != created)
                differs(c, "domain %" PRIu64 " is charged %" PRIu64 " windows, and has %" PRIu64, d->id,
                        d->charged.of[RESOURCE_WINDOWS], created);
        if (mappings + outside != d->mappings.count || outside > 0)
                differs(c, "the windows of domain %" PRIu64 " count %" PRIu64 " mappings; the domain has %" PRIu64 ", %" PRIu64
                        " of them in no window", d->id, mappings, d->mappings.count, outside);
}

/* What a domain says that it was charged is what is in it. While an operation is under way it is charged for both what goes and
 * what comes; a quarantined one is never settled. */
static void check_domain(struct domain *d, struct check *c) {
        static const struct iova_range all = { 0, UINT64_MAX };
        uint64_t pieces = d->pages.count, records;

        if (d->busy > 0 || d->state != LEDGER_LIVE)
                return;
        for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = mapping_set_next(&d->mappings, m))
                pieces += mapping_pieces(m);
        records = pieces * domain_record_bytes(d);
        if (d->charged.of[RESOURCE_MAPPINGS] != d->mappings.count)
                differs(c, "domain %" PRIu64 " is charged %" PRIu64 " mappings, and has %" PRIu64, d->id,
                        d->charged.of[RESOURCE_MAPPINGS], d->mappings.count);
        if (d->kernel_mappings != pieces)
                differs(c, "domain %" PRIu64 " counts %" PRIu64 " mappings of the IOMMU, and has %" PRIu64, d->id,
                        d->kernel_mappings, pieces);
        if (d->charged.of[RESOURCE_TABLE_BYTES] != domain_in_containers(d, d->tables.bytes + records) + d->window_tables)
                differs(c, "domain %" PRIu64 " is charged %" PRIu64 " table-bytes; its tables have %" PRIu64 " and its records %"
                        PRIu64 " in each of %" PRIu64 " containers, those of its windows %" PRIu64, d->id,
                        d->charged.of[RESOURCE_TABLE_BYTES], d->tables.bytes, records, d->containers, d->window_tables);
        check_windows(d, c);
}

/* ---- one tenant ---- */

struct balance {
        struct quota_amounts sum;       /* of the sessions */
        uint64_t used[_RESOURCE_N];     /* of the account */
        struct locked_set locked;       /* counted by itself: a page once for the tenant */
        bool counted;                   /* false: no memory for that */
};

/* Session's lock held. */
static void add_session(struct balance *b, struct session *s, struct check *c) {
        static const struct iova_range all = { 0, UINT64_MAX };
        struct quota_amounts charges;

        session_charges(s, &charges);
        for (unsigned k = 1; k < _RESOURCE_N; k++)
                b->sum.of[k] += charges.of[k];
        for (struct domain *d = s->domains; d; d = d->hh.next) {
                check_domain(d, c);
                for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = mapping_set_next(&d->mappings, m)) {
                        struct locked_run run = mapping_run(m);

                        b->counted = b->counted && locked_set_recount(&b->locked, &run);
                }
        }
}

/* At one moment: the locks of all its sessions are held, taken in the order of ids (nobody else holds two). */
static void read_balance(struct tenant *t, struct session **list, size_t n, struct balance *ret, struct check *c) {
        uint64_t limit[_RESOURCE_N];

        memset(ret, 0, sizeof *ret);
        locked_set_init(&ret->locked);
        ret->counted = true;
        for (size_t i = 0; i < n; i++)
                if (list[i]->tenant == t) {
                        pthread_mutex_lock(&list[i]->lock);
                        add_session(ret, list[i], c);
                }
        quota_account_read(&t->account, limit, ret->used);
        for (size_t i = 0; i < n; i++)
                if (list[i]->tenant == t)
                        pthread_mutex_unlock(&list[i]->lock);
        ret->sum.of[RESOURCE_LOCKED_BYTES] = ret->counted ? ret->locked.bytes : ret->used[RESOURCE_LOCKED_BYTES];
        locked_set_clear(&ret->locked);
}

static void check_tenant(struct tenant *t, struct session **list, size_t n, struct quota_amounts *all, struct check *c) {
        struct balance b;

        read_balance(t, list, n, &b, c);
        for (unsigned k = 1; k < _RESOURCE_N; k++) {
                all->of[k] += b.used[k];
                if (b.used[k] != b.sum.of[k])
                        differs(c, "tenant '%s' is charged %" PRIu64 " %s, and has %" PRIu64, t->name, b.used[k],
                                resource_name((enum resource)k), b.sum.of[k]);
        }
}

/* ---- all of them ---- */

static void check_host(struct broker *b, const struct quota_amounts *all, struct check *c) {
        struct host_use_view uses[HOST_USE_MAX];
        size_t n = host_use_list(b, uses);

        for (size_t i = 0; i < n; i++)
                if (uses[i].used != all->of[uses[i].resource])
                        differs(c, "the host counts %" PRIu64 " %s, its tenants are charged %" PRIu64, uses[i].used,
                                resource_name(uses[i].resource), all->of[uses[i].resource]);
}

static struct tenant **list_tenants(struct broker *b, size_t *ret_n) {
        struct tenant **list, *t, *next;
        LOCK_SCOPE(&b->lock);

        *ret_n = 0;
        list = calloc(HASH_COUNT(b->tenants) + 1, sizeof(struct tenant *));
        HASH_ITER(hh, b->tenants, t, next)
                if (list)
                        list[(*ret_n)++] = t;   /* they live as long as the broker */
        return list;
}

bool balances_fit(struct broker *b, void (*each)(const struct check_view *v, void *arg), void *arg) {
        struct check c = { each, arg, true };
        struct quota_amounts all = { 0 };
        size_t n_tenants, n;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);
        _cleanup_free_ struct tenant **tenants = list_tenants(b, &n_tenants);

        if (!list)
                return true;
        qsort(list, n, sizeof(struct session *), by_id);
        for (size_t i = 0; i < n_tenants; i++)
                check_tenant(tenants[i], list, n, &all, &c);
        if (tenants)
                check_host(b, &all, &c);
        for (size_t i = 0; i < n; i++)
                session_unref(list[i]);
        return c.fits;
}
