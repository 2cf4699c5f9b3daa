/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "transport/admission.h"

/*
 * The service's side of its sockets. Thread-safe after transport_start().
 *
 * Way: transport_new -> transport_add_listener ... -> transport_start -> ... -> transport_stop -> (the core stops, and
 * answers whatever it still owes) -> transport_free.
 */
struct broker;
struct transport;

struct transport_options {              /* zeroes stand for the defaults */
        unsigned threads;               /* workers; one per CPU, 2 to 4 */
        unsigned queues;                /* completion queues that they share; 1 */
        unsigned max_streams;           /* calls at a time on one connection; 64 */
        unsigned max_message;           /* bytes; 256 KiB: four times the largest request that can be accepted */
        unsigned max_metadata;          /* bytes; 4096 */
        unsigned first_call_ms;         /* a connection that makes no call, or is refused, ends after this; 60,000 */
        struct admission_limits limits; /* 2048 per kind, 128 per owner, sessions 64 at once and 32 a second */
};

/* 0 or -errno. The broker outlives the transport. */
int transport_new(struct broker *b, const struct transport_options *options, struct transport **ret);

/* Takes fd, a listening socket: SOCK_SEQPACKET for the session roles, SOCK_STREAM for the others (-EPROTOTYPE).
 * tenant: whose own socket it is, for the tenant roles; NULL otherwise. Any time until transport_stop(). 0 or
 * -errno. */
int transport_add_listener(struct transport *t, int fd, enum listener_role role, const char *tenant);

/* Closes a tenant's own listening sockets and ends its connections, also those that came over the common sockets:
 * they come back and are identified afresh. Also for a tenant whose rules have changed. */
void transport_remove_tenant(struct transport *t, const char *tenant);

/* 0 or -errno. Health says SERVING from here (dispatch_set_serving() changes it). */
int transport_start(struct transport *t);

/* Stops accepting, says NOT_SERVING, ends streams, lets running calls finish for drain_ms, then cancels them.
 * Returns how many connections still wait for the core's answer to a cancelled call: transport_free() waits for
 * them. */
unsigned transport_stop(struct transport *t, unsigned drain_ms);
struct transport *transport_free(struct transport *t);

/* What this kernel cannot do for the sockets, one sentence; NULL if nothing is missing. */
const char *transport_degraded(void);

/* Connections open now. */
unsigned transport_connections(struct transport *t);

/* A listening, non-blocking socket at path, with this mode and group (-1: as it is) before anybody can connect. A
 * stale socket file is replaced; -EADDRINUSE if somebody listens there, -EEXIST if it is no socket. Returns the fd
 * or -errno. */
int listener_create(const char *path, int type, mode_t mode, gid_t gid);
