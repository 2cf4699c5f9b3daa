/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "auth/peer.h"
#include "util/refusal.h"

/*
 * How many connections, and from whom: limits per kind of socket and per owner, so that no client can use up what
 * others need. The owner of a connection is the peer's tenant: in containers every client can be uid 0, and a uid would
 * make tenants pay for one another. Of a peer that is nobody, it is the uid, and all of those together have an eighth
 * of the room.
 *
 * gRPC connections are counted while they live. A session connection leaves for its holder, whose number the core
 * limits; here its rate is limited, per owner, because each costs the start of a process. Thread-safe.
 */
enum listener_role {
        LISTENER_CLIENT = 1,            /* gRPC of clients */
        LISTENER_CLIENT_SESSION = 2,
        LISTENER_TENANT = 3,            /* a tenant's own sockets */
        LISTENER_TENANT_SESSION = 4,
        LISTENER_OPERATOR = 5,
        _LISTENER_ROLE_N = 6,
};

static inline bool listener_role_is_session(enum listener_role role) {
        return role == LISTENER_CLIENT_SESSION || role == LISTENER_TENANT_SESSION;
}

struct admission_limits {
        unsigned per_role;              /* gRPC connections of one kind of socket */
        unsigned per_owner;             /* gRPC connections of one tenant, or of one uid that is none; not operators */
        unsigned sessions_burst, sessions_per_second;   /* of one owner */
};

struct admission;

int admission_new(const struct admission_limits *limits, struct admission **ret);
struct admission *admission_free(struct admission *a);

/* 0, and a gRPC connection is to be given back with admission_leave(); or -1 with *r (LIMIT_EXCEEDED). peer: as
 * policy left it; only uid and tenant matter. */
int admission_enter(struct admission *a, enum listener_role role, const struct peer *peer, struct refusal *r);
void admission_leave(struct admission *a, enum listener_role role, const struct peer *peer);

/* May a refusal of this peer go into the audit trail; otherwise a flood of them would push out everything else. */
bool admission_may_audit(struct admission *a, const struct peer *peer);
