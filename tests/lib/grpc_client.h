/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A gRPC client without protobuf and without the SDK: bytes out, bytes in. For tests of the service's transport, and
 * the floor that benchmarks compare with. One connection over a Unix socket; thread-safe for up to six callers at a
 * time.
 */
struct grpc_client;
struct grpc_client_call;

struct grpc_client_answer {
        int status;                     /* grpc/status.h */
        char message[512];
        uint8_t details[4096];          /* grpc-status-details-bin */
        size_t details_size;
        uint8_t *body;                  /* malloc'd; NULL without a message */
        size_t body_size;
};

/* NULL: errno says why. */
struct grpc_client *grpc_client_connect(const char *path);
/* Likewise over a connected stream socket, which it takes. */
struct grpc_client *grpc_client_from_fd(int fd);
struct grpc_client *grpc_client_free(struct grpc_client *c);    /* all calls are over; NULL is fine */

/* One unary call, waited for. token NULL: without. *ret: grpc_client_answer_clear(). Never fails: status tells. */
void grpc_client_unary(struct grpc_client *c, const char *method, const char *token, const void *request, size_t size,
                       unsigned timeout_ms, struct grpc_client_answer *ret);
void grpc_client_answer_clear(struct grpc_client_answer *a);

/* The same in two steps, and streams: start, read until false (streams only), wait. */
struct grpc_client_call *grpc_client_start(struct grpc_client *c, const char *method, const char *token,
                                           const void *request, size_t size, unsigned timeout_ms, bool stream);
/* The next message of a stream, copied; false at its end. *size: room, then what came. */
bool grpc_client_read(struct grpc_client_call *call, void *message, size_t *size);
void grpc_client_cancel(struct grpc_client_call *call);
/* Frees the call. */
void grpc_client_wait(struct grpc_client_call *call, struct grpc_client_answer *ret);
