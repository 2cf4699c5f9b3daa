/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/status.h>

#include "rpc.h"
#include "util/cleanup.h"
#include "util/refusal.h"

#define REFUSAL_TYPE_URL "type.googleapis.com/iommud.v1.Refusal"

static const char *advice(int error) {
        switch (error) {
        case ENOENT:
        case ECONNREFUSED:
                return "is it running? (systemctl status iommud.service; another place: --socket)";
        case EACCES:
        case EPERM:
                return "operators are in the group of that socket (iommud-admin by default); or use sudo";
        default:
                return "is this the socket of an iommud?";
        }
}

static int connect_service(struct ctl *c) {
        int error = rpc_open(c->socket, &c->rpc);

        if (error == 0)
                return CTL_OK;
        ctl_error("cannot reach the service at %s: %s\n  %s", c->socket, strerror(-error), advice(-error));
        return CTL_UNREACHABLE;
}

/* The refusal in the status details, NULL if there is none. */
static Iommud__V1__Refusal *unpack_refusal(const struct rpc_outcome *o) {
        Iommud__V1__StatusDetails *status =
                o->details ? iommud__v1__status_details__unpack(NULL, o->n_details, o->details) : NULL;
        Iommud__V1__Refusal *refusal = NULL;

        if (!status)
                return NULL;
        for (size_t i = 0; i < status->n_details && !refusal; i++) {
                const Iommud__V1__StatusDetail *d = status->details[i];

                if (strcmp(d->type_url, REFUSAL_TYPE_URL) == 0)
                        refusal = iommud__v1__refusal__unpack(NULL, d->value.len, d->value.data);
        }
        iommud__v1__status_details__free_unpacked(status, NULL);
        return refusal;
}

static int tell_failure(const struct ctl *c, const struct rpc_outcome *o) {
        Iommud__V1__Refusal *refusal = unpack_refusal(o);

        if (refusal) {
                const char *name = refusal_reason_name((enum refusal_reason)refusal->reason);

                if (strcmp(name, "UNSPECIFIED") == 0 && refusal->reason != 0)
                        ctl_error("%s (reason %d)", refusal->text, (int)refusal->reason);
                else
                        ctl_error("%s (%s)", refusal->text, name);
                iommud__v1__refusal__free_unpacked(refusal, NULL);
                return CTL_FAILED;
        }
        switch (o->status) {
        case GRPC_STATUS_UNAVAILABLE:
                ctl_error("the service at %s hung up: %s\n  see: journalctl -u iommud", c->socket, o->message);
                return CTL_UNREACHABLE;
        case GRPC_STATUS_DEADLINE_EXCEEDED:
                ctl_error("the service at %s did not answer within %u s; what was asked may still happen", c->socket,
                          c->timeout_seconds);
                return CTL_UNREACHABLE;
        case GRPC_STATUS_UNIMPLEMENTED:
                ctl_error("the service at %s does not know this request: is it older than this iommuctl "
                          "(" IOMMUD_VERSION "), or is this not the operator socket?", c->socket);
                return CTL_FAILED;
        default:
                ctl_error("%s (gRPC status %d)", o->message, o->status);
                return CTL_FAILED;
        }
}

int ctl_call(struct ctl *c, const char *method, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *answer, ProtobufCMessage **ret) {
        size_t n = protobuf_c_message_get_packed_size(request);
        _cleanup_free_ uint8_t *bytes = malloc(n > 0 ? n : 1);
        struct rpc_outcome o;
        char path[128];
        int code = CTL_OK;

        if (!bytes) {
                ctl_error("out of memory");
                return CTL_FAILED;
        }
        if (!c->rpc && (code = connect_service(c)) != CTL_OK)
                return code;
        protobuf_c_message_pack(request, bytes);
        (void)snprintf(path, sizeof path, "/iommud.v1.Operator/%s", method);
        rpc_call(c->rpc, path, bytes, n, c->timeout_seconds, &o);
        if (o.status != GRPC_STATUS_OK)
                code = tell_failure(c, &o);
        else if (!o.answer || !(*ret = protobuf_c_message_unpack(answer, NULL, o.n_answer, o.answer))) {
                ctl_error("the service's answer to %s cannot be read", method);
                code = CTL_FAILED;
        }
        rpc_outcome_clear(&o);
        return code;
}

/* The string field of a message by its name; listings all have the same ones. */
static char **string_field(const ProtobufCMessage *m, const char *name) {
        const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(m->descriptor, name);

        return (char **)((char *)m + f->offset);
}

int ctl_list(struct ctl *c, const char *method, ProtobufCMessage *request, const ProtobufCMessageDescriptor *answer,
             void (*each)(const ProtobufCMessage *element, void *userdata), void *userdata) {
        const ProtobufCFieldDescriptor *elements = protobuf_c_message_descriptor_get_field(answer, 1);
        _cleanup_free_ char *token = NULL;

        for (;;) {
                _cleanup_message_ ProtobufCMessage *page = NULL;
                const char *next;
                size_t n;
                int code = ctl_call(c, method, request, answer, &page);

                if (code != CTL_OK)
                        return code;
                n = *(const size_t *)((const char *)page + elements->quantifier_offset);
                for (size_t i = 0; i < n; i++)
                        each((*(ProtobufCMessage ***)((char *)page + elements->offset))[i], userdata);
                next = *string_field(page, "next_page_token");
                if (next[0] == '\0')
                        return CTL_OK;
                if (token && strcmp(token, next) == 0) {
                        ctl_error("the service repeats a page of %s", method);
                        return CTL_FAILED;
                }
                free(token);
                token = strdup(next);
                *string_field(request, "page_token") = token;
        }
}
