/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "auth/peer.h"

struct broker;

/* Which tenant is a fresh peer: by the rules on the common client sockets; a tenant's own socket has said it
 * already; on the operator socket nobody is a tenant. 0, or -1 with *r: the peer is nobody, and peer->tenant is
 * empty. Asked once per connection, and nothing is remembered beyond it. */
int policy_identify(struct broker *b, struct peer *peer, struct refusal *r);

/* The one audit line about a connection that is refused. */
void policy_peer_refused(struct broker *b, const struct peer *peer, const struct refusal *r);
