/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "util/refusal.h"

/*
 * The host's account: a cap on what all tenants together lock and make the kernel keep. Quotas may promise more than that;
 * then whoever comes last is refused, with the host's numbers (core/quota.h).
 */
struct broker;

void host_init(struct broker *b, const uint64_t *limit);        /* NULL: no limits */
