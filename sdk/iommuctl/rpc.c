/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_posix.h>
#include <grpc/grpc_security.h>

#include "util/cleanup.h"

#define MESSAGE_MAX (64 << 20)

struct rpc {
        grpc_channel *channel;
        grpc_completion_queue *queue;
};

struct unary {
        grpc_byte_buffer *request, *answer;
        grpc_metadata_array initial, trailing;
        grpc_status_code status;
        grpc_slice message;
};

/* We connect, not gRPC: what the kernel says about a socket is worth more to the user than gRPC's words for it. */
static int connect_socket(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_close_ int fd = -1;
        int flags;

        if (strlen(path) >= sizeof address.sun_path)
                return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
                return -errno;
        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return -errno;
        return fd_steal(&fd);
}

int rpc_open(const char *socket_path, struct rpc **ret) {
        grpc_arg args[] = {
                { .type = GRPC_ARG_INTEGER, .key = (char *)GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH,
                  .value.integer = MESSAGE_MAX },
                { .type = GRPC_ARG_STRING, .key = (char *)GRPC_ARG_DEFAULT_AUTHORITY,
                  .value.string = (char *)"localhost" },
        };
        const grpc_channel_args list = { .num_args = ARRAY_SIZE(args), .args = args };
        int fd = connect_socket(socket_path);
        grpc_channel_credentials *credentials;
        struct rpc *r;

        if (fd < 0)
                return fd;
        r = calloc(1, sizeof *r);
        if (!r) {
                fd_close(fd);
                return -ENOMEM;
        }
        grpc_init();
        credentials = grpc_insecure_credentials_create();
        r->channel = grpc_channel_create_from_fd("iommud", fd, credentials, &list);     /* takes the fd */
        grpc_channel_credentials_release(credentials);
        r->queue = grpc_completion_queue_create_for_pluck(NULL);
        *ret = r;
        return 0;
}

void rpc_close(struct rpc *r) {
        if (!r)
                return;
        grpc_channel_destroy(r->channel);
        grpc_completion_queue_shutdown(r->queue);
        grpc_completion_queue_destroy(r->queue);
        grpc_shutdown();
        free(r);
}

static void *copy_of(grpc_slice s, size_t *ret_n) {
        size_t n = GRPC_SLICE_LENGTH(s);
        void *p = malloc(n > 0 ? n : 1);

        if (!p)
                return NULL;
        memcpy(p, GRPC_SLICE_START_PTR(s), n);
        *ret_n = n;
        return p;
}

static void fetch_answer(struct unary *u, struct rpc_outcome *ret) {
        grpc_byte_buffer_reader reader;
        grpc_slice all;

        if (!u->answer || !grpc_byte_buffer_reader_init(&reader, u->answer))
                return;
        all = grpc_byte_buffer_reader_readall(&reader);
        ret->answer = copy_of(all, &ret->n_answer);
        grpc_slice_unref(all);
        grpc_byte_buffer_reader_destroy(&reader);
}

static void fetch_outcome(struct unary *u, struct rpc_outcome *ret) {
        *ret = (struct rpc_outcome){ .status = (int)u->status };
        if (u->status == GRPC_STATUS_OK)
                fetch_answer(u, ret);
        (void)snprintf(ret->message, sizeof ret->message, "%.*s", (int)GRPC_SLICE_LENGTH(u->message),
                       (const char *)GRPC_SLICE_START_PTR(u->message));
        for (size_t i = 0; i < u->trailing.count && !ret->details; i++)
                if (grpc_slice_str_cmp(u->trailing.metadata[i].key, "grpc-status-details-bin") == 0)
                        ret->details = copy_of(u->trailing.metadata[i].value, &ret->n_details);
}

static void unary_clear(struct unary *u) {
        grpc_byte_buffer_destroy(u->request);
        grpc_byte_buffer_destroy(u->answer);
        grpc_metadata_array_destroy(&u->initial);
        grpc_metadata_array_destroy(&u->trailing);
        grpc_slice_unref(u->message);
}

void rpc_call(struct rpc *r, const char *method, const void *request, size_t n, unsigned timeout_seconds,
              struct rpc_outcome *ret) {
        struct unary u = { .status = GRPC_STATUS_UNKNOWN, .message = grpc_empty_slice() };
        grpc_slice bytes = grpc_slice_from_copied_buffer(request, n), name = grpc_slice_from_copied_string(method);
        gpr_timespec deadline = gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC),
                                             gpr_time_from_seconds(timeout_seconds, GPR_TIMESPAN));
        grpc_op ops[] = {
                { .op = GRPC_OP_SEND_INITIAL_METADATA },
                { .op = GRPC_OP_SEND_MESSAGE },
                { .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT },
                { .op = GRPC_OP_RECV_INITIAL_METADATA, .data.recv_initial_metadata.recv_initial_metadata = &u.initial },
                { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &u.answer },
                { .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                  .data.recv_status_on_client = { .trailing_metadata = &u.trailing, .status = &u.status,
                                                  .status_details = &u.message } },
        };
        grpc_call *call;

        u.request = grpc_raw_byte_buffer_create(&bytes, 1);
        ops[1].data.send_message.send_message = u.request;
        grpc_slice_unref(bytes);
        grpc_metadata_array_init(&u.initial);
        grpc_metadata_array_init(&u.trailing);
        call = grpc_channel_create_call(r->channel, NULL, GRPC_PROPAGATE_DEFAULTS, r->queue, name, NULL, deadline,
                                        NULL);
        /* the call has a deadline, so that this ends */
        if (grpc_call_start_batch(call, ops, ARRAY_SIZE(ops), &u, NULL) == GRPC_CALL_OK)
                grpc_completion_queue_pluck(r->queue, &u, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        fetch_outcome(&u, ret);
        grpc_call_unref(call);
        grpc_slice_unref(name);
        unary_clear(&u);
}

void rpc_outcome_clear(struct rpc_outcome *o) {
        free(o->answer);
        free(o->details);
        *o = (struct rpc_outcome){ 0 };
}
