/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <grpc/grpc.h>

#include "util/refusal.h"

/*
 * The only place where an outcome becomes a gRPC status and its details. A status lives until gRPC has sent it.
 */
struct status {
        grpc_status_code code;
        grpc_slice message;             /* empty for OK */
        grpc_metadata trailer;          /* grpc-status-details-bin */
        size_t n_trailers;              /* 0 or 1 */
};

void status_ok(struct status *s);
/* With the refusal as details. NULL: OK. */
void status_refusal(struct status *s, const struct refusal *r);
/* code as in grpc/status.h, without details. */
void status_plain(struct status *s, int code, const char *text);
void status_clear(struct status *s);    /* harmless on zeroes */

/* The op that sends it; s must live until the op has completed. */
void status_to_op(struct status *s, grpc_op *op);
