/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "core/quota_private.h"
#include "util/cleanup.h"
#include "util/iova.h"
#include "util/log.h"
#include "util/size.h"

void quota_account_init(struct quota_account *a, const char *tenant) {
        memset(a, 0, sizeof *a);
        pthread_mutex_init(&a->lock, NULL);
        a->tenant = tenant;
        locked_set_init(&a->locked);
}

static const char *owner(const struct quota_account *a) {
        return a->tenant ? a->tenant : "(the host)";
}

void quota_account_clear(struct quota_account *a) {
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                if (a->used[i] != 0)
                        log_error("tenant %s ends with %" PRIu64 " %s still charged", owner(a), a->used[i],
                                  resource_name((enum resource)i));
        locked_set_clear(&a->locked);
        pthread_mutex_destroy(&a->lock);
}

void quota_account_set_limits(struct quota_account *a, const uint64_t limit[_RESOURCE_N]) {
        LOCK_SCOPE(&a->lock);

        for (unsigned i = 0; i < _RESOURCE_N; i++)      /* gcc 12 with -fsanitize=undefined takes a memcpy() for one to NULL */
                a->limit[i] = limit[i];
}

void quota_account_read(struct quota_account *a, uint64_t limit[_RESOURCE_N], uint64_t used[_RESOURCE_N]) {
        LOCK_SCOPE(&a->lock);
        memcpy(limit, a->limit, sizeof a->limit);
        memcpy(used, a->used, sizeof a->used);
}

/* ---- charging, with the lock held ---- */

static void say_tenant(const struct quota_account *a, enum resource what, char text[3][SIZE_TEXT_MAX], struct refusal *r) {
        refuse(r, REFUSAL_QUOTA_EXCEEDED,
               "tenant '%s' may have %s %s; it has %s and %s more were asked for. Release some, or let the operator raise it: "
               "iommuctl tenant set %s --%s=N", a->tenant, text[0], resource_name(what), text[1], text[2], a->tenant,
               resource_name(what));
}

/* Of other tenants no more than the sum is told. */
static void say_host(enum resource what, char text[3][SIZE_TEXT_MAX], struct refusal *r) {
        refuse(r, REFUSAL_LIMIT_EXCEEDED,
               "this host allows %s %s to all tenants together; %s are in use and %s more were asked for. Release some, try again "
               "later, or let the operator raise it: [host] %s in iommud.conf", text[0], resource_name(what), text[1], text[2],
               what == RESOURCE_TABLE_BYTES ? "table_bytes" : "locked_bytes");
}

int quota_refuse_over(const struct quota_account *a, enum resource what, uint64_t asked, struct refusal *r) {
        uint64_t limit = a->limit[what], used = a->used[what];
        char text[3][SIZE_TEXT_MAX];

        size_format(limit, text[0]);
        size_format(used, text[1]);
        size_format(asked, text[2]);
        if (a->tenant)
                say_tenant(a, what, text, r);
        else
                say_host(what, text, r);
        r->resource = what;
        r->limit = limit;
        r->used = used;
        r->asked = asked;
        return -1;
}

static int balance_after(const struct quota_account *a, const struct quota_amounts *amounts, uint64_t next[_RESOURCE_N],
                         struct refusal *r) {
        for (unsigned i = 1; i < _RESOURCE_N; i++) {
                /* An unlimited resource is still counted, and the count must not wrap. What exceeds an already lowered
                 * limit is refused only if something of it is asked for. */
                if (ADD_OVERFLOW(a->used[i], amounts->of[i], &next[i]) ||
                    (amounts->of[i] != 0 && next[i] > a->limit[i]))
                        return quota_refuse_over(a, (enum resource)i, amounts->of[i], r);
        }
        return 0;
}

static void set_balance(struct quota_account *a, const uint64_t next[_RESOURCE_N]) {
        memcpy(a->used + 1, next + 1, sizeof a->used - sizeof a->used[0]);
}

/* The part of it that the host has a cap on. False: nothing, and the host's lock, which everybody shares, is not needed. */
static bool part_of_host(const struct quota_account *a, const struct quota_amounts *amounts, struct quota_amounts *ret) {
        *ret = (struct quota_amounts){ .of[RESOURCE_LOCKED_BYTES] = amounts->of[RESOURCE_LOCKED_BYTES],
                                       .of[RESOURCE_TABLE_BYTES] = amounts->of[RESOURCE_TABLE_BYTES] };
        return a->host && (ret->of[RESOURCE_LOCKED_BYTES] | ret->of[RESOURCE_TABLE_BYTES]) != 0;
}

int quota_probe_locked(struct quota_account *a, const struct quota_amounts *amounts, struct refusal *r) {
        uint64_t next[_RESOURCE_N];
        struct quota_amounts part;

        if (balance_after(a, amounts, next, r) < 0)
                return -1;
        if (!part_of_host(a, amounts, &part))
                return 0;
        LOCK_SCOPE(&a->host->lock);
        return balance_after(a->host, &part, next, r);
}

int quota_charge_locked(struct quota_account *a, const struct quota_amounts *amounts, struct refusal *r) {
        uint64_t next[_RESOURCE_N];
        struct quota_amounts part;

        if (balance_after(a, amounts, next, r) < 0)
                return -1;
        if (part_of_host(a, amounts, &part) && quota_charge(a->host, &part, r) < 0)
                return -1;
        set_balance(a, next);
        return 0;
}

bool quota_adopt_locked(struct quota_account *a, const struct quota_amounts *amounts) {
        uint64_t next[_RESOURCE_N];
        struct quota_amounts part;

        for (unsigned i = 1; i < _RESOURCE_N; i++)
                if (ADD_OVERFLOW(a->used[i], amounts->of[i], &next[i]))
                        return false;
        if (part_of_host(a, amounts, &part) && !quota_adopt(a->host, &part))
                return false;
        set_balance(a, next);
        return true;
}

void quota_refund_locked(struct quota_account *a, const struct quota_amounts *amounts) {
        struct quota_amounts back = *amounts, part;

        for (unsigned i = 1; i < _RESOURCE_N; i++) {
                if (back.of[i] > a->used[i]) {
                        log_error("tenant %s: refund of %" PRIu64 " %s exceeds the %" PRIu64 " charged", owner(a),
                                  back.of[i], resource_name((enum resource)i), a->used[i]);
                        back.of[i] = a->used[i];        /* the host's share is not others' */
                }
                a->used[i] -= back.of[i];
        }
        if (part_of_host(a, &back, &part))
                quota_refund(a->host, &part);
}

/* ---- and without ---- */

int quota_charge(struct quota_account *a, const struct quota_amounts *amounts, struct refusal *r) {
        LOCK_SCOPE(&a->lock);

        return quota_charge_locked(a, amounts, r);
}

bool quota_adopt(struct quota_account *a, const struct quota_amounts *amounts) {
        LOCK_SCOPE(&a->lock);

        return quota_adopt_locked(a, amounts);
}

void quota_refund(struct quota_account *a, const struct quota_amounts *amounts) {
        LOCK_SCOPE(&a->lock);

        quota_refund_locked(a, amounts);
}
