/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/quota_private.h"
#include "util/cleanup.h"
#include "util/iova.h"

/*
 * Locked bytes of an account: what runs of memory cost beyond what is locked already (core/locked.h), charged in one step with
 * the rest.
 */

struct locked_file *locked_file_ref(struct quota_account *a, uint64_t dev, uint64_t ino, uint64_t page_size) {
        LOCK_SCOPE(&a->lock);

        return locked_set_ref(&a->locked, dev, ino, page_size);
}

void locked_file_unref(struct quota_account *a, struct locked_file *file) {
        LOCK_SCOPE(&a->lock);

        locked_set_unref(&a->locked, file);
}

/* Takes n runs out. *amounts gets what that frees; together no more than was charged, so the sum fits. */
static void take_out(struct quota_account *a, const struct locked_run *runs, size_t n, struct quota_amounts *amounts) {
        for (size_t i = 0; i < n; i++)
                amounts->of[RESOURCE_LOCKED_BYTES] += locked_set_remove(&a->locked, &runs[i]);
        locked_set_release(&a->locked, n);
        locked_set_sweep(&a->locked);
}

enum put { PUT_DONE, PUT_NO_MEMORY, PUT_TOO_MUCH };

/* Puts n runs in. *amounts gets what that adds; on failure everything is as before. */
static enum put put_in(struct quota_account *a, const struct locked_run *runs, size_t n, struct quota_amounts *amounts) {
        uint64_t *sum = &amounts->of[RESOURCE_LOCKED_BYTES], bytes;
        struct quota_amounts undone = { 0 };

        if (!locked_set_reserve(&a->locked, n))
                return PUT_NO_MEMORY;
        for (size_t i = 0; i < n; i++) {
                bool added = locked_set_add(&a->locked, &runs[i], &bytes);

                if (added && !ADD_OVERFLOW(*sum, bytes, sum))
                        continue;
                take_out(a, runs, added ? i + 1 : i, &undone);
                locked_set_release(&a->locked, added ? n - i - 1 : n - i);
                return PUT_TOO_MUCH;
        }
        return PUT_DONE;
}

static struct quota_amounts beginning(const struct quota_amounts *others) {
        return others ? *others : (struct quota_amounts){ 0 };
}

/* Charges, or only finds out whether it could. */
static int charge_runs(struct quota_account *a, const struct locked_run *runs, size_t n, const struct quota_amounts *others,
                       bool probe, struct quota_amounts *ret_charged, struct refusal *r) {
        struct quota_amounts amounts = beginning(others), undone = { 0 };
        enum put put;
        int result;
        LOCK_SCOPE(&a->lock);

        put = put_in(a, runs, n, &amounts);
        if (put == PUT_NO_MEMORY)
                return refuse(r, REFUSAL_INTERNAL, "out of memory for counting locked pages");
        if (put == PUT_TOO_MUCH)        /* for 64 bits: for every limit */
                return quota_refuse_over(a, RESOURCE_LOCKED_BYTES, UINT64_MAX, r);
        result = (probe ? quota_probe_locked : quota_charge_locked)(a, &amounts, r);
        if (result < 0 || probe)
                take_out(a, runs, n, &undone);
        if (result == 0 && ret_charged)
                *ret_charged = amounts;
        return result;
}

int quota_charge_runs(struct quota_account *a, const struct locked_run *runs, size_t n, const struct quota_amounts *others,
                      struct quota_amounts *ret_charged, struct refusal *r) {
        return charge_runs(a, runs, n, others, false, ret_charged, r);
}

int quota_probe_runs(struct quota_account *a, const struct locked_run *runs, size_t n, const struct quota_amounts *others,
                     struct quota_amounts *ret_charged, struct refusal *r) {
        return charge_runs(a, runs, n, others, true, ret_charged, r);
}

bool quota_adopt_runs(struct quota_account *a, const struct locked_run *runs, size_t n, const struct quota_amounts *others) {
        struct quota_amounts amounts = beginning(others), undone = { 0 };
        LOCK_SCOPE(&a->lock);

        if (put_in(a, runs, n, &amounts) != PUT_DONE)
                return false;
        if (quota_adopt_locked(a, &amounts))
                return true;
        take_out(a, runs, n, &undone);
        return false;
}

void quota_refund_runs(struct quota_account *a, const struct locked_run *runs, size_t n, const struct quota_amounts *others) {
        struct quota_amounts amounts = beginning(others);
        LOCK_SCOPE(&a->lock);

        take_out(a, runs, n, &amounts);
        quota_refund_locked(a, &amounts);
}

int quota_reserve_runs(struct quota_account *a, size_t extra, struct refusal *r) {
        LOCK_SCOPE(&a->lock);

        return locked_set_reserve(&a->locked, extra) ? 0 : refuse(r, REFUSAL_INTERNAL, "out of memory for counting locked pages");
}

void quota_unreserve_runs(struct quota_account *a, size_t extra) {
        LOCK_SCOPE(&a->lock);

        locked_set_release(&a->locked, extra);
}

void quota_replace_runs(struct quota_account *a, const struct locked_run *old, size_t n_old, const struct locked_run *runs,
                        size_t n) {
        struct quota_amounts less = { 0 }, more = { 0 };
        uint64_t *freed = &less.of[RESOURCE_LOCKED_BYTES], *added = &more.of[RESOURCE_LOCKED_BYTES], bytes;
        LOCK_SCOPE(&a->lock);

        for (size_t i = 0; i < n_old; i++)
                *freed += locked_set_remove(&a->locked, &old[i]);
        for (size_t i = 0; i < n; i++)
                if (locked_set_add(&a->locked, &runs[i], &bytes))
                        *added += bytes;
        locked_set_release(&a->locked, n_old);
        locked_set_sweep(&a->locked);
        /* Only the difference is told to the account: what stays locked is not free for a moment. */
        if (*freed >= *added) {
                *freed -= *added;
                quota_refund_locked(a, &less);
        } else {
                *added -= *freed;
                (void)quota_adopt_locked(a, &more);     /* fits: the set's sum does, and is no less */
        }
}
