/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/connection.h"

#include <errno.h>
#include <fcntl.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <limits.h>
#include <stdlib.h>

#include "transport/call.h"
#include "transport/transport_private.h"
#include "util/cleanup.h"

/* Calls that gRPC may deliver while earlier ones are on their way through a worker. */
#define CONNECTION_REQUESTED_CALLS 2U

static grpc_arg integer_arg(const char *key, int value) {
        return (grpc_arg){ .type = GRPC_ARG_INTEGER, .key = (char *)(uintptr_t)key, .value.integer = value };
}

/* gRPC applies these to a channel that is made from a descriptor too, except the handshake timeout: the deadline for
 * the first call stands in for it. */
static grpc_server *server_new(const struct transport_options *o) {
        grpc_arg args[] = {
                integer_arg(GRPC_ARG_MAX_CONCURRENT_STREAMS, (int)o->max_streams),
                integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int)o->max_message),
                integer_arg(GRPC_ARG_MAX_METADATA_SIZE, (int)o->max_metadata),
                /* a small compressed message can be a large one; ours need no compression */
                integer_arg(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0),
                integer_arg(GRPC_ARG_ENABLE_PER_MESSAGE_COMPRESSION, 0),
                /* a Unix socket does not fail silently, and a stopped client must not lose its connection */
                integer_arg(GRPC_ARG_KEEPALIVE_TIME_MS, INT_MAX),
                integer_arg(GRPC_ARG_HTTP2_BDP_PROBE, 0),
                integer_arg(GRPC_ARG_ENABLE_CHANNELZ, 0),
                integer_arg(GRPC_ARG_MAX_CHANNEL_TRACE_EVENT_MEMORY_PER_NODE, 0),
        };
        grpc_channel_args all = { .num_args = ARRAY_SIZE(args), .args = args };

        return grpc_server_create(&all, NULL);
}

static void connection_free(struct connection *c) {
        struct transport *t = c->transport;

        transport_connection_gone(t, c);        /* nobody finds it any more */
        grpc_server_destroy(c->server);
        c->watch_fd = fd_close(c->watch_fd);
        admission_leave(t->admission, c->role, &c->peer);
        peer_clear(&c->peer);
        free(c->refused);
        free(c);
        transport_count_down(t);        /* last: whoever waits for zero frees the rest */
}

struct connection *connection_ref(struct connection *c) {
        atomic_fetch_add_explicit(&c->references, 1, memory_order_relaxed);
        return c;
}

struct connection *connection_unref(struct connection *c) {
        if (c && atomic_fetch_sub_explicit(&c->references, 1, memory_order_acq_rel) == 1)
                connection_free(c);
        return NULL;
}

static void on_shutdown(struct grpc_loop_tag *tag, bool ok, struct arena *arena) {
        struct connection *c = (struct connection *)((char *)tag - offsetof(struct connection, on_shutdown));

        (void)ok;
        (void)arena;
        transport_watch_end(c->transport, c);
        (void)connection_unref(c);
}

void connection_end(struct connection *c, bool at_once) {
        if (!atomic_exchange(&c->ending, true))
                grpc_server_shutdown_and_notify(c->server, c->queue, grpc_loop_give(&c->on_shutdown));
        if (at_once && !atomic_exchange(&c->cancelled, true))
                grpc_server_cancel_all_calls(c->server);
}

static struct connection *connection_alloc(struct transport *t, enum listener_role role,
                                           const struct refusal *refused) {
        struct connection *c = calloc(1, sizeof *c);

        if (!c)
                return NULL;
        if (refused) {
                c->refused = malloc(sizeof *c->refused);
                if (!c->refused) {
                        free(c);
                        return NULL;
                }
                *c->refused = *refused;
        }
        c->transport = t;
        c->role = role;
        c->watch_fd = -1;
        c->on_shutdown.complete = on_shutdown;
        atomic_init(&c->references, 2);         /* shutdown, watcher */
        return c;
}

/* From here the connection ends only through connection_end(). fd is gRPC's. */
static void connection_serve(struct connection *c, int fd) {
        struct transport *t = c->transport;
        grpc_server_credentials *insecure;
        bool wanted;

        c->queue = grpc_loop_queue(t->loop);
        c->server = server_new(&t->options);
        grpc_server_register_completion_queue(c->server, c->queue, NULL);
        grpc_server_start(c->server);
        wanted = transport_connection_new(t, c);
        for (unsigned i = 0; i < CONNECTION_REQUESTED_CALLS; i++)
                call_request(c);
        /* identity is what the kernel said at accept; nothing that gRPC could add would change it */
        insecure = grpc_insecure_server_credentials_create();
        grpc_server_add_channel_from_fd(c->server, fd, insecure);
        grpc_server_credentials_release(insecure);
        if (!wanted)
                connection_end(c, true);
}

int connection_new(struct transport *t, int fd, enum listener_role role, struct peer *peer,
                   const struct refusal *refused, struct connection **ret) {
        _cleanup_close_ int watch_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        struct connection *c = watch_fd < 0 ? NULL : connection_alloc(t, role, refused);

        if (!c) {
                int r = watch_fd < 0 ? -errno : -ENOMEM;

                fd_close(fd);
                admission_leave(t->admission, role, peer);
                peer_clear(peer);
                return r;
        }
        c->peer = *peer;
        peer->pidfd = -1;
        c->watch_fd = fd_steal(&watch_fd);
        connection_serve(c, fd);
        *ret = c;
        return 0;
}
