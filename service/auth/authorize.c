/* SPDX-License-Identifier: Apache-2.0 */
#include "auth/authorize.h"

static int authorize_client(const struct peer *peer, const struct method *method, struct refusal *r) {
        if (peer->socket != PEER_SOCKET_CLIENT && peer->socket != PEER_SOCKET_TENANT)
                return refuse(r, REFUSAL_NOT_PERMITTED, "%s is served on the client sockets, not on the operator's",
                              method->path);
        if (!peer->tenant[0])
                return refuse(r, REFUSAL_UNKNOWN_PEER, "uid %u, gid %u, pid %d is no tenant", peer->uid, peer->gid,
                              (int)peer->pid);
        return 0;
}

int authorize_call(const struct peer *peer, const struct refusal *refused, const struct method *method,
                   struct refusal *r) {
        if (refused) {
                *r = *refused;
                return -1;
        }
        switch (method->permission) {
        case PERMISSION_ANYONE:
                return 0;
        case PERMISSION_CLIENT:
                return authorize_client(peer, method, r);
        case PERMISSION_OPERATOR:
                if (peer->socket == PEER_SOCKET_OPERATOR)
                        return 0;
                return refuse(r, REFUSAL_NOT_PERMITTED, "%s is served on the operator socket only", method->path);
        default:
                return refuse(r, REFUSAL_INTERNAL, "%s has no permission set", method->path);
        }
}
