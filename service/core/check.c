/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/broker_private.h"
#include "core/check_holders.h"
#include "core/holder_link.h"
#include "util/cleanup.h"

/*
 * iommuctl ledger check, on a running service: the ledger's own invariants (db/check.c), then I1 (the balance is the sum of
 * what is there) and I3 (reference counts) on what the broker has in memory.
 */
struct check {
        void (*each)(const struct check_view *v, void *arg);
        void *arg;
};

static void report(struct check *c, const char *invariant, const char *text) {
        const struct check_view v = { invariant, text };

        c->each(&v, c->arg);
}

static void from_ledger(const struct ledger_violation *v, void *arg) {
        report(arg, v->invariant, v->text);
}

/* I3: the count of a memory object is the number of mappings that refer to it. Session's lock held. */
static void check_references(struct session *s, struct check *c) {
        static const struct iova_range all = { 0, UINT64_MAX };

        for (struct memory *m = s->memories; m; m = m->hh.next) {
                uint64_t n = 0;
                char text[256];

                for (struct domain *d = s->domains; d; d = d->hh.next)
                        for (struct mapping *p = mapping_set_find(&d->mappings, all); p; p = mapping_set_next(&d->mappings, p))
                                n += p->memory == m;
                if (n == m->mappings)
                        continue;
                (void)snprintf(text, sizeof text, "memory object %" PRIu64 " counts %" PRIu64 " mappings, %" PRIu64 " refer to it",
                               m->id, m->mappings, n);
                report(c, "I3", text);
        }
}

static int by_id(const void *a, const void *b) {
        const struct session *x = *(struct session *const *)a, *y = *(struct session *const *)b;

        return x->id < y->id ? -1 : x->id > y->id;
}

/* What the sessions of a tenant are charged, and what its account says, at one moment: all their locks are held, taken in the
 * order of ids (nobody else holds two sessions' locks). */
static void read_balance(struct tenant *t, struct session **list, size_t n, struct quota_amounts *ret_sum,
                         uint64_t ret_used[_RESOURCE_N]) {
        uint64_t limit[_RESOURCE_N];

        memset(ret_sum, 0, sizeof *ret_sum);
        for (size_t i = 0; i < n; i++) {
                struct quota_amounts charges;

                if (list[i]->tenant != t)
                        continue;
                pthread_mutex_lock(&list[i]->lock);
                session_charges(list[i], &charges);
                for (unsigned k = 1; k < _RESOURCE_N; k++)
                        ret_sum->of[k] += charges.of[k];
        }
        quota_account_read(&t->account, limit, ret_used);
        for (size_t i = 0; i < n; i++)
                if (list[i]->tenant == t)
                        pthread_mutex_unlock(&list[i]->lock);
}

static bool balance_fits(struct tenant *t, struct session **list, size_t n, struct check *c) {
        struct quota_amounts sum;
        uint64_t used[_RESOURCE_N];
        bool fits = true;

        read_balance(t, list, n, &sum, used);
        for (unsigned k = 1; k < _RESOURCE_N; k++) {
                char text[256];

                if (used[k] == sum.of[k])
                        continue;
                fits = false;
                (void)snprintf(text, sizeof text, "tenant '%s' is charged %" PRIu64 " %s, and has %" PRIu64, t->name, used[k],
                               resource_name((enum resource)k), sum.of[k]);
                if (c)
                        report(c, "I1", text);
        }
        return fits;
}

/* I1, tenant by tenant. A session that begins or ends meanwhile is charged a moment before it is there, or still when it is
 * not: a difference is looked at again before it is called one. c NULL: says nothing. */
static bool balances_fit(struct broker *b, struct check *c) {
        size_t n_tenants = 0, n;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);
        _cleanup_free_ struct tenant **tenants = NULL;
        struct tenant *t, *next;
        bool fit = true;

        pthread_mutex_lock(&b->lock);
        tenants = calloc(HASH_COUNT(b->tenants) + 1, sizeof(struct tenant *));
        HASH_ITER(hh, b->tenants, t, next)
                if (tenants)
                        tenants[n_tenants++] = t;       /* they live as long as the broker */
        pthread_mutex_unlock(&b->lock);
        if (!list)
                return true;
        qsort(list, n, sizeof(struct session *), by_id);
        for (size_t i = 0; i < n_tenants; i++)
                fit &= balance_fits(tenants[i], list, n, c);
        for (size_t i = 0; i < n; i++)
                session_unref(list[i]);
        return fit;
}

static void references_fit(struct broker *b, struct check *c) {
        size_t n;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);

        for (size_t i = 0; list && i < n; i++) {
                pthread_mutex_lock(&list[i]->lock);
                check_references(list[i], c);
                pthread_mutex_unlock(&list[i]->lock);
                session_unref(list[i]);
        }
}

#define TRIES 20

int ledger_check_request(struct broker *b, void (*each)(const struct check_view *v, void *arg), void *arg,
                         uint64_t *ret_rows, uint64_t *ret_holders, struct refusal *r) {
        static const struct timespec moment = { .tv_nsec = 5000000 };
        struct check c = { each, arg };

        *ret_holders = 0;
        if (journal_flush(b->journal, r) < 0 || ledger_check(b->ledger, from_ledger, &c, ret_rows, r) < 0)
                return -1;
        for (int i = 1; i <= TRIES && !balances_fit(b, i < TRIES ? NULL : &c); i++)
                nanosleep(&moment, NULL);
        references_fit(b, &c);
        return holders_check(b, each, arg, ret_holders, r);
}
