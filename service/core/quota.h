/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/refusal.h"

/*
 * A tenant's balances (I1): what it may have, what it has. Charge first, then act; refund when the thing is certainly
 * gone. Several resources are charged together or not at all.
 *
 * account->lock protects limit and used. It is a leaf: nothing else is locked while it is held.
 */
struct quota_amounts {
        uint64_t of[_RESOURCE_N];
};

struct quota_account {
        pthread_mutex_t lock;
        const char *tenant;             /* for texts; lives as long as the account */
        uint64_t limit[_RESOURCE_N];    /* UINT64_MAX: unlimited */
        uint64_t used[_RESOURCE_N];
};

void quota_account_init(struct quota_account *a, const char *tenant);
void quota_account_clear(struct quota_account *a);      /* logs a balance that did not return to zero */

/* Lowering a limit below what is in use is accepted: nothing is torn down, new work is refused. */
void quota_account_set_limits(struct quota_account *a, const uint64_t limit[_RESOURCE_N]);
void quota_account_read(struct quota_account *a, uint64_t limit[_RESOURCE_N], uint64_t used[_RESOURCE_N]);

/* QUOTA_EXCEEDED with resource, limit, used and asked of the first one that does not fit; nothing is charged then. */
int quota_charge(struct quota_account *a, const struct quota_amounts *amounts, struct refusal *r);

/* Charges without asking the limit: recovery takes over what exists. False if 64 bits do not hold it. */
bool quota_adopt(struct quota_account *a, const struct quota_amounts *amounts);

/* Gives back. A refund that exceeds the balance is a bug of ours: logged, and the balance becomes zero. */
void quota_refund(struct quota_account *a, const struct quota_amounts *amounts);
