/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/quota.h"

/* For quota.c and quota_runs.c: the same as without "_locked", with account->lock held. */
int quota_probe_locked(struct quota_account *a, const struct quota_amounts *amounts, struct refusal *r);
int quota_charge_locked(struct quota_account *a, const struct quota_amounts *amounts, struct refusal *r);
bool quota_adopt_locked(struct quota_account *a, const struct quota_amounts *amounts);
void quota_refund_locked(struct quota_account *a, const struct quota_amounts *amounts);

/* Says that so much more does not fit. Returns -1. */
int quota_refuse_over(const struct quota_account *a, enum resource what, uint64_t asked, struct refusal *r);
