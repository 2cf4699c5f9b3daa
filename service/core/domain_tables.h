/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/session.h"

/*
 * Kernel memory that a domain is charged as table_bytes (I5): tables that its mappings touched (core/table_pages.h) and a record
 * for each, and the tables of its windows; all of it once for each container, which is one for each IOMMU group with a device
 * in the domain. A domain without a device pays for the first that will come. Session's lock held.
 */

/* Does a mapping there need tables besides that of its window? */
bool domain_maps_need_tables(const struct domain *d, uint64_t iova);

uint64_t domain_record_bytes(const struct domain *d);   /* of one mapping in one container */

/* What costs so much in each container costs in all. UINT64_MAX when that cannot be said: refused by any limit, and by the sum
 * if there is none. */
uint64_t domain_in_containers(const struct domain *d, uint64_t bytes);

/* Windows or devices have come or gone: what is charged follows. Refused, and nothing has changed, when that is more than the
 * tenant may have. */
int domain_charge_tables(struct domain *d, struct refusal *r);
/* Recovery: takes over what there is; the account follows with everything else of the session. */
void domain_adopt_tables(struct domain *d);
/* ... and what was touched in a former life of the service. False: out of memory. */
bool domain_adopt_touched(struct domain *d, struct iova_range range);
