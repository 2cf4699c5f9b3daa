/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/requests.h"
#include "dispatch/arena.h"

/*
 * From bytes to a request of the core and back: one table row and one handler per RPC. Knows protobuf, not gRPC.
 *
 * A call belongs to whoever made it (transport/call.c) and goes: dispatch_find -> dispatch_call -> exactly one
 * ops->finish or ops->fail, on any thread, before or after dispatch_call returns -> dispatch_release.
 */
enum permission {
        PERMISSION_ANYONE = 1,          /* on every socket */
        PERMISSION_CLIENT = 2,          /* client and tenants' sockets, peers that are a tenant */
        PERMISSION_OPERATOR = 3,        /* the operator socket */
};

struct rpc;
struct rpc_response;
struct ProtobufCMessageDescriptor;

struct method {
        const char *path;               /* "/iommud.v1.Client/Map" */
        enum permission permission;
        bool session;                   /* needs the token of an open session */
        bool streams;                   /* the server answers with a stream */
        bool blocks;                    /* may wait for a disk or for a helper: not on a thread that serves others */
        /* request is the unpacked message; it and the arena are valid only during the call */
        void (*handle)(struct rpc *rpc, const void *request, struct arena *arena);
        /* of methods that the core answers through struct reply: fills *out, returns the message in it */
        const void *(*answer)(const struct answer *a, struct rpc_response *out);
        const struct ProtobufCMessageDescriptor *input; /* filled by dispatch_start() from the service descriptors */
};

/* What transport does for a call. Both end it; message lives only during finish. */
struct rpc_ops {
        void (*finish)(struct rpc *rpc, const struct refusal *refusal, const void *message, size_t size);
        /* where the refusal's reasons do not fit (the health service): a status of grpc/status.h and a text */
        void (*fail)(struct rpc *rpc, int status, const char *text);
        /* streams only: queues one message. False when it was not taken: the client is gone or does not read; the
         * stream still wants its finish. */
        bool (*send)(struct rpc *rpc, const void *message, size_t size);
};

struct rpc {
        struct reply reply;             /* given to the core */
        const struct rpc_ops *ops;
        struct broker *broker;
        const struct peer *peer;        /* of the connection; lives longer than the call */
        const struct method *method;
        struct session *session;        /* reference; NULL where the method needs none */
        /* streams: called once, without a lock, when the client is gone. The handler sets it before it returns. */
        void (*cancelled)(struct rpc *rpc);
        struct rpc *next, *previous;    /* handler's: list of open streams */
        int last_sent;                  /* handler's */
};

/* Builds the lookup table. -ENOSYS if table and service descriptors do not fit together (a programming error). Harmless
 * twice, from one thread. */
int dispatch_start(void);

/* NULL: no such method. path need not be terminated. No allocation, no lock. */
const struct method *dispatch_find(const char *path, size_t size);

/* Authenticates the session (token: "" for none), unpacks, and calls the handler. Every outcome goes through
 * rpc->ops. Uses bytes and arena only until it returns. */
void dispatch_call(struct rpc *rpc, const char *token, const void *bytes, size_t size, struct arena *arena);

/* After the end of the call: gives the session back. */
void dispatch_release(struct rpc *rpc);

/* Health: what Check and Watch answer. Starts as false. Thread-safe. */
void dispatch_set_serving(bool serving);

/* Ends every open stream, and those that come later at once, until dispatch_start(). */
void dispatch_end_streams(void);

/* The bytes of a StatusDetails with one Refusal (proto/iommud.proto) for the trailer grpc-status-details-bin;
 * returns their number, 0 if there was no room. message: the printable form of the refusal's text, for the status
 * itself. */
#define REFUSAL_PACKED_MAX 1536U
size_t refusal_pack(const struct refusal *r, char message[REFUSAL_TEXT_MAX], unsigned char packed[REFUSAL_PACKED_MAX]);

/* For tests. */
const struct method *dispatch_methods(size_t *ret_n);
