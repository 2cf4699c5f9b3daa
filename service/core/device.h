/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "core/session.h"

/* The group of a device that may be attached: it exists, the tenant may lease it, its group is viable. UNKNOWN_DEVICE (also
 * for a device that the tenant may not lease; tenant NULL: an operator asks) or GROUP_NOT_VIABLE. No lock held: reads sysfs. */
int device_find_usable(struct broker *b, struct tenant *tenant, const char *name, uint32_t *ret_group,
                       struct refusal *r);

/* After a restart: devices that nobody of ours holds and the kernel does not give out are in use by somebody whom we cannot
 * reach: they are orphans from now on (I12). No lock held: opens groups. */
void device_find_orphans(struct broker *b);

/* Session's lock held. */
struct attachment *attachment_add(struct session *s, struct domain *d, uint64_t id, const char *device, uint32_t group,
                                  enum ledger_object_state state);
void attachment_remove(struct session *s, struct attachment *a);
