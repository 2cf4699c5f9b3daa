/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/status.h"

#include <string.h>

#include "dispatch/dispatch.h"

void status_ok(struct status *s) {
        *s = (struct status){ .code = GRPC_STATUS_OK, .message = grpc_empty_slice() };
}

void status_plain(struct status *s, int code, const char *text) {
        *s = (struct status){ .code = (grpc_status_code)code, .message = grpc_slice_from_copied_string(text) };
}

void status_refusal(struct status *s, const struct refusal *r) {
        unsigned char packed[REFUSAL_PACKED_MAX];
        char message[REFUSAL_TEXT_MAX];
        size_t n;

        if (!r) {
                status_ok(s);
                return;
        }
        n = refusal_pack(r, message, packed);
        status_plain(s, refusal_grpc_status(r->reason), message);
        if (s->code == GRPC_STATUS_OK)          /* refused without a reason: never report it as done */
                s->code = GRPC_STATUS_INTERNAL;
        if (n == 0)
                return;
        s->trailer.key = grpc_slice_from_static_string("grpc-status-details-bin");
        s->trailer.value = grpc_slice_from_copied_buffer((const char *)packed, n);
        s->n_trailers = 1;
}

void status_clear(struct status *s) {
        grpc_slice_unref(s->message);
        if (s->n_trailers > 0)
                grpc_slice_unref(s->trailer.value);
        memset(s, 0, sizeof *s);
}

void status_to_op(struct status *s, grpc_op *op) {
        *op = (grpc_op){ .op = GRPC_OP_SEND_STATUS_FROM_SERVER };
        op->data.send_status_from_server.status = s->code;
        op->data.send_status_from_server.status_details = s->code == GRPC_STATUS_OK ? NULL : &s->message;
        op->data.send_status_from_server.trailing_metadata_count = s->n_trailers;
        op->data.send_status_from_server.trailing_metadata = &s->trailer;
}
