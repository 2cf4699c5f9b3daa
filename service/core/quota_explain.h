/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "util/refusal.h"

struct session;

/* Which of the tenant's domains hold most of what its quota refused (QUOTA_EXCEEDED of what domains hold): appended to the
 * refusal's text, as much as fits. Takes locks: none of the core's may be held. Anything else is left as it is. */
void quota_explain(struct session *s, struct refusal *r);
