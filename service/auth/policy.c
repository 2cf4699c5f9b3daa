/* SPDX-License-Identifier: Apache-2.0 */
#include "auth/policy.h"

#include "core/broker.h"

int policy_identify(struct broker *b, struct peer *peer, struct refusal *r) {
        int failed = 0;

        switch (peer->socket) {
        case PEER_SOCKET_CLIENT:
                peer->tenant[0] = '\0';
                failed = tenant_of_peer(b, peer, r);
                break;
        case PEER_SOCKET_TENANT:
                if (!peer->tenant[0])
                        failed = refuse(r, REFUSAL_INTERNAL, "a tenant's own socket without its tenant");
                break;
        case PEER_SOCKET_OPERATOR:
                peer->tenant[0] = '\0';
                break;
        default:
                failed = refuse(r, REFUSAL_INTERNAL, "a connection of socket kind %d", (int)peer->socket);
        }
        if (failed < 0)
                peer->tenant[0] = '\0';         /* whatever a half-done lookup left */
        return failed;
}

void policy_peer_refused(struct broker *b, const struct peer *peer, const struct refusal *r) {
        broker_audit(b, "peer.refused", peer, r->text);
}
