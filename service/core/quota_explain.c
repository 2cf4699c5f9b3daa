/* SPDX-License-Identifier: Apache-2.0 */
#include "core/quota_explain.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "util/cleanup.h"
#include "util/size.h"
#include "util/text.h"

/*
 * Looking at all sessions takes longer than refusing. A tenant that asks for too much again and again gets this so many times a
 * second, and the plain refusal otherwise: nobody else waits for its curiosity (I10).
 */
#define EXPLAINED_PER_SECOND 20U
#define HOLDERS_TOLD 3U

struct holding {
        uint64_t domain, amount;
        char label[LEDGER_NAME_MAX];
};

/* The current second and how often it was done in it, in one word: 48 and 16 bits. */
static bool may_explain(struct tenant *t) {
        uint64_t second = monotonic_ms() / 1000, old = atomic_load(&t->explained), new;

        do {
                uint64_t times = old >> 16 == second ? old & 0xffff : 0;

                if (times >= EXPLAINED_PER_SECOND)
                        return false;
                new = second << 16 | (times + 1);
        } while (!atomic_compare_exchange_weak(&t->explained, &old, new));
        return true;
}

static uint64_t amount_of(const struct domain *d, enum resource what) {
        switch (what) {
        case RESOURCE_LOCKED_BYTES:
                return d->mappings.bytes;
        case RESOURCE_MAPPINGS:
                return d->mappings.count;
        case RESOURCE_TABLE_BYTES:
                return d->charged.of[RESOURCE_TABLE_BYTES];
        default:
                return 0;
        }
}

/* Keeps the largest ones, descending; of equal ones the older domain first, so that the same question has the same answer. */
static void consider(struct holding top[HOLDERS_TOLD], const struct domain *d, uint64_t amount) {
        struct holding h = { .domain = d->id, .amount = amount };

        if (amount == 0)
                return;
        text_copy(h.label, sizeof h.label, d->label);
        for (size_t i = 0; i < HOLDERS_TOLD; i++) {
                bool before = h.amount > top[i].amount || (h.amount == top[i].amount && h.domain < top[i].domain);

                if (before) {
                        struct holding moved = top[i];

                        top[i] = h;
                        h = moved;
                }
        }
}

static void find_largest(struct session *s, enum resource what, struct holding top[HOLDERS_TOLD]) {
        size_t n;
        struct session **list = broker_sessions(s->broker, &n);

        for (size_t i = 0; list && i < n; i++) {
                if (list[i]->tenant == s->tenant) {
                        pthread_mutex_lock(&list[i]->lock);
                        for (struct domain *d = list[i]->domains; d; d = d->hh.next)
                                consider(top, d, amount_of(d, what));
                        pthread_mutex_unlock(&list[i]->lock);
                }
                session_unref(list[i]);
        }
        free(list);
}

/* ". Of the tenant's domains, domain 12 'label' holds 40M, domain 7 holds 8M": whole pieces, what does not fit is left out. */
static void append(struct refusal *r, const struct holding *h, bool first) {
        char amount[SIZE_TEXT_MAX], piece[2 * LEDGER_NAME_MAX + 64];
        size_t used = strlen(r->text), length;

        if (r->resource == RESOURCE_MAPPINGS)
                (void)snprintf(amount, sizeof amount, "%" PRIu64, h->amount);
        else
                size_format(h->amount, amount);
        length = (size_t)snprintf(piece, sizeof piece, "%s domain %" PRIu64 "%s%s%s holds %s",
                                  first ? ". Of the tenant's domains," : ",", h->domain, h->label[0] ? " '" : "", h->label,
                                  h->label[0] ? "'" : "", amount);
        if (used + length < sizeof r->text)
                memcpy(r->text + used, piece, length + 1);
}

void quota_explain(struct session *s, struct refusal *r) {
        struct holding top[HOLDERS_TOLD] = { { 0 } };

        bool of_domains = r->resource == RESOURCE_LOCKED_BYTES || r->resource == RESOURCE_MAPPINGS ||
                          r->resource == RESOURCE_TABLE_BYTES;

        if (r->reason != REFUSAL_QUOTA_EXCEEDED || !of_domains || !may_explain(s->tenant))
                return;
        find_largest(s, r->resource, top);
        for (size_t i = 0; i < HOLDERS_TOLD && top[i].amount > 0; i++)
                append(r, &top[i], i == 0);
}
