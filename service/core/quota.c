/* SPDX-License-Identifier: Apache-2.0 */
#include "core/quota.h"

#include <inttypes.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/iova.h"
#include "util/log.h"
#include "util/size.h"

void quota_account_init(struct quota_account *a, const char *tenant) {
        memset(a, 0, sizeof *a);
        pthread_mutex_init(&a->lock, NULL);
        a->tenant = tenant;
}

void quota_account_clear(struct quota_account *a) {
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                if (a->used[i] != 0)
                        log_error("tenant %s ends with %" PRIu64 " %s still charged", a->tenant, a->used[i],
                                  resource_name((enum resource)i));
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

static int refuse_over(struct quota_account *a, enum resource what, uint64_t asked, struct refusal *r) {
        uint64_t limit = a->limit[what], used = a->used[what];
        char text[3][SIZE_TEXT_MAX];

        refuse(r, REFUSAL_QUOTA_EXCEEDED,
               "tenant '%s' may have %s %s; it has %s and %s more were asked for. Release some, or let the operator raise it: "
               "iommuctl tenant set %s --%s=N",
               a->tenant, size_format(limit, text[0]), resource_name(what), size_format(used, text[1]),
               size_format(asked, text[2]), a->tenant, resource_name(what));
        r->resource = what;
        r->limit = limit;
        r->used = used;
        r->asked = asked;
        return -1;
}

int quota_charge(struct quota_account *a, const struct quota_amounts *amounts, struct refusal *r) {
        uint64_t next[_RESOURCE_N];
        LOCK_SCOPE(&a->lock);

        for (unsigned i = 1; i < _RESOURCE_N; i++) {
                /* An unlimited resource is still counted, and the count must not wrap. What exceeds an already lowered
                 * limit is refused only if something of it is asked for. */
                if (ADD_OVERFLOW(a->used[i], amounts->of[i], &next[i]) ||
                    (amounts->of[i] != 0 && next[i] > a->limit[i]))
                        return refuse_over(a, (enum resource)i, amounts->of[i], r);
        }
        memcpy(a->used + 1, next + 1, sizeof a->used - sizeof a->used[0]);
        return 0;
}

bool quota_adopt(struct quota_account *a, const struct quota_amounts *amounts) {
        uint64_t next[_RESOURCE_N];
        LOCK_SCOPE(&a->lock);

        for (unsigned i = 1; i < _RESOURCE_N; i++)
                if (ADD_OVERFLOW(a->used[i], amounts->of[i], &next[i]))
                        return false;
        memcpy(a->used + 1, next + 1, sizeof a->used - sizeof a->used[0]);
        return true;
}

void quota_refund(struct quota_account *a, const struct quota_amounts *amounts) {
        LOCK_SCOPE(&a->lock);

        for (unsigned i = 1; i < _RESOURCE_N; i++) {
                if (amounts->of[i] > a->used[i]) {
                        log_error("tenant %s: refund of %" PRIu64 " %s exceeds the %" PRIu64 " charged", a->tenant,
                                  amounts->of[i], resource_name((enum resource)i), a->used[i]);
                        a->used[i] = 0;
                } else
                        a->used[i] -= amounts->of[i];
        }
}
