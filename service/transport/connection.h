/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <grpc/grpc.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "auth/peer.h"
#include "transport/admission.h"
#include "transport/grpc_loop.h"

/*
 * One accepted gRPC connection: a grpc_server of its own, so that whose a call is follows from which server it came to
 * (I8).
 *
 * Life: connection_new -> calls -> connection_end (the peer hung up, it said nothing for too long, or we stop) -> the
 * server's shutdown completes -> the last call is released -> gone. References: one until the shutdown completes, one
 * of the thread that watches the socket, one per call, requested calls included. The server is destroyed with the last.
 */
struct transport;

struct connection {
        struct transport *transport;
        struct peer peer;               /* never changes */
        struct refusal *refused;        /* NULL: the peer is welcome */
        enum listener_role role;
        grpc_server *server;
        grpc_completion_queue *queue;
        struct grpc_loop_tag on_shutdown;
        atomic_uint references;
        atomic_bool ending, cancelled;
        atomic_bool called;             /* at least one call came */
        struct connection *next, *previous;     /* transport->connections, under its lock */

        /* of the thread that watches (listener.c) */
        int watch_fd;                   /* the same socket: tells of its end; -1 when no longer watched */
        uint64_t deadline_ms;           /* for the first call; the connection ends if there was none. 0: no more */
        struct connection *watch_next, *watch_previous;
        struct connection *released_next;       /* under the listener's lock */
};

/* Takes fd, peer (its pidfd moves) and the admission in every case. refused: copied, may be NULL. *ret comes with a
 * reference for the watcher and watch_fd set. 0 or -errno. */
int connection_new(struct transport *t, int fd, enum listener_role role, struct peer *peer,
                   const struct refusal *refused, struct connection **ret);

struct connection *connection_ref(struct connection *c);
struct connection *connection_unref(struct connection *c);

/* No new calls. at_once: cancels those that run; otherwise they may finish. Any thread, any number of times. */
void connection_end(struct connection *c, bool at_once);
