/* SPDX-License-Identifier: Apache-2.0 */
#include "grpc_client.h"

#include <errno.h>
#include <fcntl.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "session_channel.h"
#include "transport/tsan.h"
#include "util/cleanup.h"

struct grpc_client {
        grpc_channel *channel;
        grpc_completion_queue *queue;
};

struct grpc_client_call {
        struct grpc_client *client;
        grpc_call *call;
        bool stream;
        grpc_metadata token;
        grpc_byte_buffer *request, *response;
        grpc_metadata_array initial, trailing;
        grpc_status_code status;
        grpc_slice message;
        char tag_start, tag_read, tag_end;
};

struct grpc_client *grpc_client_from_fd(int fd) {
        struct grpc_client *c = calloc(1, sizeof *c);
        grpc_channel_credentials *insecure;

        if (!c) {
                fd_close(fd);
                return NULL;
        }
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
        grpc_init();
        insecure = grpc_insecure_credentials_create();
        c->channel = grpc_channel_create_from_fd("iommud", fd, insecure, NULL);
        grpc_channel_credentials_release(insecure);
        c->queue = grpc_completion_queue_create_for_pluck(NULL);
        return c;
}

struct grpc_client *grpc_client_connect(const char *path) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void)snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
        if (fd < 0 || connect(fd, (const struct sockaddr *)&a, sizeof a) < 0) {
                fd_close(fd);
                return NULL;
        }
        return grpc_client_from_fd(fd);
}

struct grpc_client *grpc_client_free(struct grpc_client *c) {
        if (!c)
                return NULL;
        grpc_channel_destroy(c->channel);
        grpc_completion_queue_shutdown(c->queue);
        grpc_completion_queue_destroy(c->queue);
        grpc_shutdown();
        free(c);
        return NULL;
}

static void batch(struct grpc_client_call *call, const grpc_op *ops, size_t n, char *tag) {
        grpc_call_error e;

        tsan_give(tag);
        e = grpc_call_start_batch(call->call, ops, n, tag, NULL);
        if (e != GRPC_CALL_OK) {
                (void)fprintf(stderr, "grpc_client: %s\n", grpc_call_error_to_string(e));
                abort();
        }
}

static bool pluck(struct grpc_client_call *call, char *tag) {
        grpc_event e = grpc_completion_queue_pluck(call->client->queue, tag, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

        tsan_take(tag);
        return e.type == GRPC_OP_COMPLETE && e.success;
}

static size_t op_status(struct grpc_client_call *call, grpc_op *op) {
        *op = (grpc_op){ .op = GRPC_OP_RECV_STATUS_ON_CLIENT };
        op->data.recv_status_on_client.trailing_metadata = &call->trailing;
        op->data.recv_status_on_client.status = &call->status;
        op->data.recv_status_on_client.status_details = &call->message;
        return 1;
}

static size_t op_read(struct grpc_client_call *call, grpc_op *op) {
        *op = (grpc_op){ .op = GRPC_OP_RECV_MESSAGE };
        op->data.recv_message.recv_message = &call->response;
        return 1;
}

/* Unary: everything in one batch. Stream: the status in a batch of its own, messages one by one. */
static void start_batches(struct grpc_client_call *call, bool has_token) {
        grpc_op ops[6] = { { .op = GRPC_OP_SEND_INITIAL_METADATA }, { .op = GRPC_OP_SEND_MESSAGE },
                           { .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT }, { .op = GRPC_OP_RECV_INITIAL_METADATA } };
        size_t n = 4;

        ops[0].data.send_initial_metadata.metadata = &call->token;
        ops[0].data.send_initial_metadata.count = has_token ? 1 : 0;
        ops[1].data.send_message.send_message = call->request;
        ops[3].data.recv_initial_metadata.recv_initial_metadata = &call->initial;
        if (call->stream) {
                grpc_op status;

                batch(call, ops, n, &call->tag_start);
                batch(call, &status, op_status(call, &status), &call->tag_end);
                return;
        }
        n += op_read(call, &ops[n]);
        n += op_status(call, &ops[n]);
        batch(call, ops, n, &call->tag_end);
}

struct grpc_client_call *grpc_client_start(struct grpc_client *c, const char *method, const char *token,
                                           const void *request, size_t size, unsigned timeout_ms, bool stream) {
        struct grpc_client_call *call = calloc(1, sizeof *call);
        gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                             gpr_time_from_millis((int64_t)timeout_ms, GPR_TIMESPAN));
        grpc_slice body = grpc_slice_from_copied_buffer(request, size);
        /* copied: gRPC remembers paths that it has sent by their address, and the caller's may be a buffer on its
         * stack */
        grpc_slice path = grpc_slice_from_copied_string(method);

        if (!call)
                abort();
        call->client = c;
        call->stream = stream;
        call->request = grpc_raw_byte_buffer_create(&body, 1);
        grpc_slice_unref(body);
        grpc_metadata_array_init(&call->initial);
        grpc_metadata_array_init(&call->trailing);
        call->call = grpc_channel_create_call(c->channel, NULL, GRPC_PROPAGATE_DEFAULTS, c->queue, path, NULL,
                                              deadline, NULL);
        grpc_slice_unref(path);
        if (token) {
                call->token.key = grpc_slice_from_static_string(IOMMUD_SESSION_METADATA);
                call->token.value = grpc_slice_from_copied_string(token);
        }
        start_batches(call, token != NULL);
        return call;
}

/* Takes the response out of the call. */
static uint8_t *response_take(struct grpc_client_call *call, size_t *ret_size) {
        grpc_byte_buffer_reader reader;
        uint8_t *copy = NULL;
        grpc_slice all;

        *ret_size = 0;
        if (!call->response)
                return NULL;
        if (grpc_byte_buffer_reader_init(&reader, call->response)) {
                all = grpc_byte_buffer_reader_readall(&reader);
                *ret_size = GRPC_SLICE_LENGTH(all);
                copy = malloc(*ret_size + 1);
                if (copy)
                        memcpy(copy, GRPC_SLICE_START_PTR(all), *ret_size);
                grpc_slice_unref(all);
                grpc_byte_buffer_reader_destroy(&reader);
        }
        grpc_byte_buffer_destroy(call->response);
        call->response = NULL;
        return copy;
}

bool grpc_client_read(struct grpc_client_call *call, void *message, size_t *size) {
        uint8_t *body;
        size_t n;
        grpc_op op;

        batch(call, &op, op_read(call, &op), &call->tag_read);
        if (!pluck(call, &call->tag_read) || !call->response)
                return false;
        body = response_take(call, &n);
        if (!body || n > *size)
                abort();
        memcpy(message, body, n);
        *size = n;
        free(body);
        return true;
}

void grpc_client_cancel(struct grpc_client_call *call) {
        grpc_call_cancel(call->call, NULL);
}

static void copy_slice(grpc_slice s, void *to, size_t room, size_t *ret_size) {
        *ret_size = GRPC_SLICE_LENGTH(s) < room ? GRPC_SLICE_LENGTH(s) : room;
        memcpy(to, GRPC_SLICE_START_PTR(s), *ret_size);
}

static void answer_fill(struct grpc_client_call *call, struct grpc_client_answer *ret) {
        size_t n;

        *ret = (struct grpc_client_answer){ .status = (int)call->status };
        copy_slice(call->message, ret->message, sizeof ret->message - 1, &n);
        ret->message[n] = '\0';
        for (size_t i = 0; i < call->trailing.count; i++)
                if (grpc_slice_str_cmp(call->trailing.metadata[i].key, "grpc-status-details-bin") == 0)
                        copy_slice(call->trailing.metadata[i].value, ret->details, sizeof ret->details,
                                   &ret->details_size);
        ret->body = response_take(call, &ret->body_size);
}

void grpc_client_wait(struct grpc_client_call *call, struct grpc_client_answer *ret) {
        if (call->stream)
                (void)pluck(call, &call->tag_start);
        (void)pluck(call, &call->tag_end);
        answer_fill(call, ret);
        grpc_byte_buffer_destroy(call->request);
        grpc_slice_unref(call->message);
        if (call->token.value.refcount || GRPC_SLICE_LENGTH(call->token.value) > 0)
                grpc_slice_unref(call->token.value);
        grpc_metadata_array_destroy(&call->initial);
        grpc_metadata_array_destroy(&call->trailing);
        grpc_call_unref(call->call);
        free(call);
}

void grpc_client_unary(struct grpc_client *c, const char *method, const char *token, const void *request, size_t size,
                       unsigned timeout_ms, struct grpc_client_answer *ret) {
        grpc_client_wait(grpc_client_start(c, method, token, request, size, timeout_ms, false), ret);
}

void grpc_client_answer_clear(struct grpc_client_answer *a) {
        free(a->body);
        a->body = NULL;
}
