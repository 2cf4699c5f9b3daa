/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "core/requests.h"

/* I1: every tenant's balance is the sum of what its sessions have, counted again from the mappings up; the host's is the sum of
 * the tenants'. each NULL: says nothing. A session that begins or ends meanwhile is charged a moment before it is there, or
 * still when it is not: look again before calling a difference one. */
bool balances_fit(struct broker *b, void (*each)(const struct check_view *v, void *arg), void *arg);
