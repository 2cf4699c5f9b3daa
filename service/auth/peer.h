/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/refusal.h"

/*
 * Who is at the other end of one connection, as the kernel says it at accept (I8). Never from a request, never changed
 * afterwards.
 */
enum peer_socket {
        PEER_SOCKET_CLIENT = 1,         /* the common client sockets: rules decide the tenant */
        PEER_SOCKET_TENANT = 2,         /* a tenant's own sockets: whoever can reach them is the tenant */
        PEER_SOCKET_OPERATOR = 3,       /* the operator socket: its file mode decides */
};

#define PEER_TENANT_MAX 64U
#define PEER_CGROUP_MAX 256U

struct peer {
        uid_t uid;
        gid_t gid;
        pid_t pid;
        uint64_t start_time;            /* of pid: field 22 of /proc/PID/stat, clock ticks since boot */
        int pidfd;                      /* owned; -1 where the kernel has none for us */
        bool pidfd_from_socket;         /* SO_PEERPIDFD (Linux >= 6.5): cannot be another process. Otherwise pid and
                                         * start_time were read after accept, and cgroup rules are refused */
        char cgroup[PEER_CGROUP_MAX];   /* cgroup v2 path "/..." at accept; "" if unknown */
        enum peer_socket socket;
        char tenant[PEER_TENANT_MAX];   /* of a tenant's own socket; filled by policy otherwise; "" : nobody */
};

/* Asks the kernel about a freshly accepted connection. own_tenant: the tenant whose socket it was, or NULL.
 * 0, or -errno: -ESRCH if the peer is gone already. *ret is the caller's: peer_clear(). */
int peer_from_socket(int fd, enum peer_socket socket, const char *own_tenant, struct peer *ret);
void peer_clear(struct peer *p);

/* A copy with its own pidfd. */
int peer_copy(const struct peer *p, struct peer *ret);

/* Same process: uid, pid and start time (and the pidfds' inode where the kernel has pidfs). */
bool peer_same_process(const struct peer *a, const struct peer *b);

/* Has the process of p ended. */
bool peer_is_gone(const struct peer *p);
