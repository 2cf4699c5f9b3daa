/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "auth/peer.h"
#include "dispatch/dispatch.h"

/* May this peer call this method. refused: what policy said about the connection, NULL if nothing against it: a refused
 * peer may call nothing. 0, or -1 with *r (NOT_PERMITTED, or the connection's refusal). */
int authorize_call(const struct peer *peer, const struct refusal *refused, const struct method *method,
                   struct refusal *r);
