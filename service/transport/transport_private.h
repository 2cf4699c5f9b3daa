/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>

#include "transport/call.h"
#include "transport/connection.h"
#include "transport/grpc_loop.h"
#include "transport/listener.h"
#include "transport/transport.h"

/*
 * Lock order: transport->lock and the locks inside admission, the listener and the call pool are leaves, except that
 * connection_end() may be called under transport->lock (gRPC never calls back).
 */
struct transport {
        struct broker *broker;
        struct transport_options options;
        struct grpc_loop *loop;
        struct listener *listener;
        struct admission *admission;
        struct call_pool *calls;
        bool started;
        pthread_mutex_t lock;
        bool stopped;
        pthread_cond_t gone;            /* n_connections became 0; monotonic clock */
        struct connection *connections;
        unsigned n_connections;
};

/* For connection.c: a connection is in the list from its start until its server is destroyed, and counted until the
 * very end. _new says false when we are stopping: the connection is to end at once. */
bool transport_connection_new(struct transport *t, struct connection *c);
void transport_connection_gone(struct transport *t, struct connection *c);
void transport_count_down(struct transport *t);
/* The server is down: the watcher is to let go. */
void transport_watch_end(struct transport *t, struct connection *c);
