/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/broker_private.h"
#include "core/check_balance.h"
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

/* Nothing is under way: the mappings of an operation that cuts some are counted before they are there. Lock held. */
static bool is_quiet(struct session *s) {
        for (struct domain *d = s->domains; d; d = d->hh.next)
                if (d->busy > 0)
                        return false;
        return true;
}

/* Those that are quiet; the others stay in the list. Returns how many. */
static size_t check_quiet(struct session **list, size_t n, struct check *c) {
        size_t left = 0;

        for (size_t i = 0; i < n; i++) {
                bool quiet;

                pthread_mutex_lock(&list[i]->lock);
                quiet = is_quiet(list[i]);
                if (quiet)
                        check_references(list[i], c);
                pthread_mutex_unlock(&list[i]->lock);
                if (quiet)
                        session_unref(list[i]);
                else
                        list[left++] = list[i];
        }
        return left;
}

#define TRIES 20
static const struct timespec MOMENT = { .tv_nsec = 5000000 };

/* A session that is busy all the time is left out. */
static void check_all_references(struct broker *b, struct check *c) {
        size_t n, left;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);

        left = list ? n : 0;
        for (int i = 0; i < TRIES && left > 0; i++) {
                if (i > 0)
                        nanosleep(&MOMENT, NULL);
                left = check_quiet(list, left, c);
        }
        for (size_t i = 0; i < left; i++)
                session_unref(list[i]);
}

int ledger_check_request(struct broker *b, void (*each)(const struct check_view *v, void *arg), void *arg,
                         uint64_t *ret_rows, uint64_t *ret_holders, struct refusal *r) {
        struct check c = { each, arg };

        *ret_holders = 0;
        if (journal_flush(b->journal, r) < 0 || ledger_check(b->ledger, from_ledger, &c, ret_rows, r) < 0)
                return -1;
        for (int i = 1; i <= TRIES && !balances_fit(b, i < TRIES ? NULL : each, arg); i++)
                nanosleep(&MOMENT, NULL);
        check_all_references(b, &c);
        return holders_check(b, each, arg, ret_holders, r);
}
