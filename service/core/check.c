/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

struct tenant_sum {
        struct tenant *tenant;
        struct quota_amounts sum;
};

static void add_charges(struct session *s, struct tenant_sum *sums, size_t n) {
        struct quota_amounts charges;

        session_charges(s, &charges);
        for (size_t i = 0; i < n; i++)
                for (unsigned k = 1; sums[i].tenant == s->tenant && k < _RESOURCE_N; k++)
                        sums[i].sum.of[k] += charges.of[k];
}

/* I1, over all tenants at once. Operations under way change both sides one after the other: a difference is looked at again
 * before it is called one. */
static bool balances_fit(struct broker *b, struct check *c, bool say) {
        size_t n = 0, n_sessions;
        _cleanup_free_ struct session **list = broker_sessions(b, &n_sessions);
        _cleanup_free_ struct tenant_sum *sums = NULL;
        struct tenant *t, *next;
        bool fit = true;

        pthread_mutex_lock(&b->lock);
        sums = calloc(HASH_COUNT(b->tenants) + 1, sizeof *sums);
        HASH_ITER(hh, b->tenants, t, next)
                if (sums)
                        sums[n++].tenant = t;
        pthread_mutex_unlock(&b->lock);
        for (size_t i = 0; list && i < n_sessions; i++) {
                pthread_mutex_lock(&list[i]->lock);
                add_charges(list[i], sums, n);
                if (say)
                        check_references(list[i], c);
                pthread_mutex_unlock(&list[i]->lock);
                session_unref(list[i]);
        }
        for (size_t i = 0; i < n; i++) {
                uint64_t limit[_RESOURCE_N], used[_RESOURCE_N];

                quota_account_read(&sums[i].tenant->account, limit, used);
                for (unsigned k = 1; k < _RESOURCE_N; k++) {
                        char text[256];

                        if (used[k] == sums[i].sum.of[k])
                                continue;
                        fit = false;
                        (void)snprintf(text, sizeof text, "tenant '%s' is charged %" PRIu64 " %s, and has %" PRIu64,
                                       sums[i].tenant->name, used[k], resource_name((enum resource)k), sums[i].sum.of[k]);
                        if (say)
                                report(c, "I1", text);
                }
        }
        return fit;
}

int ledger_check_request(struct broker *b, void (*each)(const struct check_view *v, void *arg), void *arg,
                         uint64_t *ret_rows, uint64_t *ret_holders, struct refusal *r) {
        struct check c = { each, arg };
        bool fit = false;

        *ret_holders = 0;
        if (journal_flush(b->journal, r) < 0 || ledger_check(b->ledger, from_ledger, &c, ret_rows, r) < 0)
                return -1;
        for (int i = 0; i < 5 && !fit; i++)
                fit = balances_fit(b, &c, false);
        balances_fit(b, &c, true);
        return holders_check(b, each, arg, ret_holders, r);
}
