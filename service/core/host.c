/* SPDX-License-Identifier: Apache-2.0 */
#include "core/host.h"

#include "core/broker_private.h"
#include "util/cleanup.h"
#include "util/iova.h"

void host_init(struct broker *b, const uint64_t *limit) {
        uint64_t none[_RESOURCE_N];

        for (unsigned i = 0; i < _RESOURCE_N; i++)
                none[i] = UINT64_MAX;
        quota_account_init(&b->host, NULL);
        quota_account_set_limits(&b->host, limit ? limit : none);
}

void broker_set_host_limits(struct broker *b, const uint64_t limit[_RESOURCE_N]) {
        quota_account_set_limits(&b->host, limit);
}

/* What tenants may have of it, added up. A tenant without sessions that takes no new ones is promised nothing. */
static uint64_t promised(struct broker *b, enum resource what) {
        struct tenant *t, *next;
        uint64_t sum = 0;
        LOCK_SCOPE(&b->lock);

        HASH_ITER(hh, b->tenants, t, next) {
                uint64_t limit[_RESOURCE_N], used[_RESOURCE_N];

                if (t->retired && t->sessions == 0)
                        continue;
                quota_account_read(&t->account, limit, used);
                if (limit[what] == UINT64_MAX || ADD_OVERFLOW(sum, limit[what], &sum))
                        return UINT64_MAX;
        }
        return sum;
}

size_t host_use_list(struct broker *b, struct host_use_view *ret) {
        static const enum resource capped[HOST_USE_MAX] = { RESOURCE_LOCKED_BYTES, RESOURCE_TABLE_BYTES };
        uint64_t limit[_RESOURCE_N], used[_RESOURCE_N];

        quota_account_read(&b->host, limit, used);
        for (size_t i = 0; i < HOST_USE_MAX; i++)
                ret[i] = (struct host_use_view){ .resource = capped[i], .limit = limit[capped[i]], .used = used[capped[i]],
                                                 .promised = promised(b, capped[i]) };
        return HOST_USE_MAX;
}
