/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * Unary calls on one connection to a Unix socket. Not thread-safe.
 */
struct rpc;

struct rpc_outcome {
        int status;                     /* grpc_status_code; 0: answer is there */
        void *answer, *details;         /* details: grpc-status-details-bin, decoded; both NULL where there is none */
        size_t n_answer, n_details;
        char message[512];              /* of a status that is not 0 */
};

/* Connects. 0 or -errno. *ret is the caller's: rpc_close(). */
int rpc_open(const char *socket_path, struct rpc **ret);
void rpc_close(struct rpc *r);          /* NULL is fine */

/* method: "/iommud.v1.Operator/GetStatus". *ret is the caller's: rpc_outcome_clear(). */
void rpc_call(struct rpc *r, const char *method, const void *request, size_t n, unsigned timeout_seconds,
              struct rpc_outcome *ret);
void rpc_outcome_clear(struct rpc_outcome *o);
