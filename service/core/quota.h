/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/locked.h"
#include "util/refusal.h"

/*
 * A tenant's balances (I1): what it may have, what it has. Charge first, then act; refund when the thing is certainly
 * gone. Several resources are charged together or not at all.
 *
 * The host has an account too: a cap on the sum of what tenants lock. What tenants were promised may be more than that.
 *
 * account->lock protects everything in it. A tenant's, then the host's; nothing else is locked while one is held.
 */
struct quota_amounts {
        uint64_t of[_RESOURCE_N];
};

struct quota_account {
        pthread_mutex_t lock;
        const char *tenant;             /* for texts; lives as long as the account. NULL: the host's account */
        struct quota_account *host;     /* charged with this one for what the whole host has a cap on; NULL: none */
        uint64_t limit[_RESOURCE_N];    /* UINT64_MAX: unlimited */
        uint64_t used[_RESOURCE_N];
        struct locked_set locked;       /* pages of sealed files */
};

void quota_account_init(struct quota_account *a, const char *tenant);
void quota_account_clear(struct quota_account *a);      /* logs a balance that did not return to zero */

/* Lowering a limit below what is in use is accepted: nothing is torn down, new work is refused. */
void quota_account_set_limits(struct quota_account *a, const uint64_t limit[_RESOURCE_N]);
void quota_account_read(struct quota_account *a, uint64_t limit[_RESOURCE_N], uint64_t used[_RESOURCE_N]);

/* QUOTA_EXCEEDED with resource, limit, used and asked of the first one that does not fit (LIMIT_EXCEEDED: it is the host that
 * has no more); nothing is charged then. */
int quota_charge(struct quota_account *a, const struct quota_amounts *amounts, struct refusal *r);

/* Charges without asking the limit: recovery takes over what exists. False if 64 bits do not hold it. */
bool quota_adopt(struct quota_account *a, const struct quota_amounts *amounts);

/* Gives back. A refund that exceeds the balance is a bug of ours: logged, and the balance becomes zero. */
void quota_refund(struct quota_account *a, const struct quota_amounts *amounts);

/* ---- locked bytes: pages of sealed files once, other memory each time (I5). core/quota_runs.c ---- */

/* The file behind a sealed memory object, for as long as the object is registered. NULL: out of memory. */
struct locked_file *locked_file_ref(struct quota_account *a, uint64_t dev, uint64_t ino, uint64_t page_size);
void locked_file_unref(struct quota_account *a, struct locked_file *file);     /* NULL is fine */

/* The locked bytes that these runs add, and others (NULL: nothing), all together or nothing. *ret_charged (NULL: not wanted):
 * how much that was. */
int quota_charge_runs(struct quota_account *a, const struct locked_run *runs, size_t n, const struct quota_amounts *others,
                      struct quota_amounts *ret_charged, struct refusal *r);

/* The same answer, and nothing is charged: for a dry run. */
int quota_probe_runs(struct quota_account *a, const struct locked_run *runs, size_t n, const struct quota_amounts *others,
                     struct quota_amounts *ret_charged, struct refusal *r);

/* The same as charging without asking the limit. False if memory or 64 bits do not hold it; nothing is charged then. */
bool quota_adopt_runs(struct quota_account *a, const struct locked_run *runs, size_t n, const struct quota_amounts *others);

/* Gives back, and needs no memory. Each run is one that was charged, or a piece of one: a run is cut into p pieces (those that
 * stay among them) after quota_reserve_runs(p - 1), at borders of the file's pages, and each piece is given back by itself. */
void quota_refund_runs(struct quota_account *a, const struct locked_run *runs, size_t n, const struct quota_amounts *others);

/* Room for extra more pieces. What comes of them is refunded, or else quota_unreserve_runs(). */
int quota_reserve_runs(struct quota_account *a, size_t extra, struct refusal *r);
void quota_unreserve_runs(struct quota_account *a, size_t extra);

/* Runs that were charged become others that cover no more, cut anywhere: for borders inside a page of the file (a huge page of
 * which a part stays mapped stays charged). Needs no memory after quota_reserve_runs(n), and does not ask the limit. The
 * reservation is consumed. */
void quota_replace_runs(struct quota_account *a, const struct locked_run *old, size_t n_old, const struct locked_run *runs,
                        size_t n);
