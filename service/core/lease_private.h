/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/lease.h"

/* What lease.c (how a group is lent and what is kept of it) and lease_end.c (how it comes back) share. */
#define KEEPERS_NONE ((struct keepers){ -1, -1, -1, -1 })

/* lease_lock held. */
struct lease *lease_find(struct broker *b, uint32_t group);     /* NULL: not lent */
struct lease *lease_add(struct broker *b, uint32_t group, const char *tenant, uint64_t session, uint64_t domain,
                        const char *device);                    /* NULL: out of memory */
void lease_forget(struct broker *b, struct lease *l);           /* keepers must be closed */

/* No lock held: closing the last fd of a device resets it, which may take seconds. */
void keepers_close(struct keepers *k);
