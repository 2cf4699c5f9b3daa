/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/session.h"
#include "core/window_plan.h"

/*
 * The windows of a domain, as its requests need them. Session's lock held.
 */

/* What its IOMMU permits now. */
void domain_window_rules(const struct domain *d, struct window_rules *ret);

/* A new domain begins with the default window, if its IOMMU has one. False: out of memory. */
bool domain_add_default_window(struct domain *d, uint64_t id);
struct window *domain_default_window(const struct domain *d);  /* NULL: it was removed */

/* The page size at an address: of the window there, or else the smallest of the domain. */
uint64_t domain_page_at(const struct domain *d, uint64_t iova);

/* How many created windows it is charged for: all but the default one. */
void domain_refund_windows(struct domain *d, uint64_t n);
int domain_charge_window(struct domain *d, struct refusal *r);
void domain_adopt_windows(struct domain *d);    /* recovery: the account follows with everything else of the session */

/* A device has come or gone, and with it other constraints: the default window follows. */
void domain_windows_follow(struct domain *d);
