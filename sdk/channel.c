/* SPDX-License-Identifier: Apache-2.0 */
#include "channel.h"

#include <ctype.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>

#include "clock.h"
#include "session_channel.h"
#include "tsan.h"
#include "util/cleanup.h"

#define MESSAGE_MAX (1 << 20)
#define RECONNECT_MS 100        /* the least that gRPC accepts */
#define SPARE_QUEUES_MAX 16U    /* completion queues kept for the next call; more exist while more threads call */

/* A call under way, in the list of its channel. */
struct attempt {
        grpc_call *call;
        struct attempt *previous, *next;
};

struct sdk_channel {
        grpc_channel *grpc;
        void *methods[_METHOD_N];
        grpc_slice token;

        pthread_mutex_t lock;           /* what follows */
        bool cancelled;
        struct attempt *attempts;
        grpc_completion_queue *spare[SPARE_QUEUES_MAX];
        size_t n_spare;
};

/* What a unary call sends and receives. gRPC's threads write to it between hand-over and taking back. */
struct unary {
        grpc_metadata metadata[1];
        grpc_byte_buffer *request, *answer;
        grpc_metadata_array initial, trailing;
        grpc_status_code status;
        grpc_slice message;
};

static const char *const method_paths[_METHOD_N] = {
#define X(name, answer) [METHOD_##name] = "/iommud.v1.Client/" #name,
        SDK_METHODS(X)
#undef X
};

void sdk_outcome_clear(struct sdk_outcome *o) {
        free(o->answer);
        free(o->details);
        *o = (struct sdk_outcome){ .status = GRPC_STATUS_UNKNOWN };
}

static grpc_arg integer_arg(const char *key, int value) {
        return (grpc_arg){ .type = GRPC_ARG_INTEGER, .key = (char *)key, .value.integer = value };
}

/* "unix:" and the path; it is a URI to gRPC, so that a "%" or "#" in a directory's name would mean something else. The
 * string is the caller's; NULL when out of memory. */
static char *target_of(const char *socket_path) {
        char *target = malloc(sizeof "unix:" + 3 * strlen(socket_path)), *end;

        if (!target)
                return NULL;
        end = stpcpy(target, "unix:");
        for (const char *c = socket_path; *c; c++)
                if (strchr("/._-", *c) || isalnum((unsigned char)*c))
                        *end++ = *c;
                else
                        end += sprintf(end, "%%%02X", (unsigned char)*c);
        *end = '\0';
        return target;
}

static grpc_channel *open_grpc_channel(const char *socket_path) {
        /* A pool of its own: a connection is identified when it is made, and gRPC would otherwise share one made
         * by this process earlier, perhaps under another uid. Retries are ours (call.c): gRPC's do not know the
         * reasons. */
        grpc_arg args[] = {
                integer_arg(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1),
                integer_arg(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, RECONNECT_MS),
                integer_arg(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, RECONNECT_MS),
                integer_arg(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, RECONNECT_MS),
                integer_arg(GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, MESSAGE_MAX),
                integer_arg(GRPC_ARG_MAX_SEND_MESSAGE_LENGTH, MESSAGE_MAX),
                integer_arg(GRPC_ARG_ENABLE_RETRIES, 0),
                integer_arg(GRPC_ARG_ENABLE_HTTP_PROXY, 0),
                integer_arg(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1),
        };
        grpc_channel_args list = { .num_args = ARRAY_SIZE(args), .args = args };
        grpc_channel_credentials *credentials;
        _cleanup_free_ char *target = target_of(socket_path);
        grpc_channel *channel;

        if (!target)
                return NULL;
        credentials = grpc_insecure_credentials_create();
        channel = grpc_channel_create(target, credentials, &list);
        grpc_channel_credentials_release(credentials);
        return channel;
}

struct sdk_channel *sdk_channel_open(const char *socket_path, const char *token) {
        struct sdk_channel *c = calloc(1, sizeof *c);

        if (!c)
                return NULL;
        grpc_init();
        c->grpc = open_grpc_channel(socket_path);
        if (c->grpc) {
                for (size_t i = 0; i < _METHOD_N; i++)
                        c->methods[i] = grpc_channel_register_call(c->grpc, method_paths[i], NULL, NULL);
                /* Counted, not static: gRPC may still refer to it when the channel is gone. */
                c->token = grpc_slice_from_copied_string(token);
        }
        if (!c->grpc) {
                grpc_shutdown();
                free(c);
                return NULL;
        }
        pthread_mutex_init(&c->lock, NULL);
        return c;
}

void sdk_channel_close(struct sdk_channel *c) {
        if (!c)
                return;
        for (size_t i = 0; i < c->n_spare; i++) {
                grpc_completion_queue_shutdown(c->spare[i]);
                grpc_completion_queue_destroy(c->spare[i]);
        }
        grpc_slice_unref(c->token);
        grpc_channel_destroy(c->grpc);
        grpc_shutdown();
        pthread_mutex_destroy(&c->lock);
        free(c);
}

void sdk_channel_cancel(struct sdk_channel *c) {
        LOCK_SCOPE(&c->lock);

        c->cancelled = true;
        for (struct attempt *a = c->attempts; a; a = a->next)
                grpc_call_cancel(a->call, NULL);
}

/* Each call under way has a completion queue of its own, so that a thread is woken by its own answer only; they are
 * kept, because making one costs an epoll set. */
static grpc_completion_queue *take_queue(struct sdk_channel *c) {
        {
                LOCK_SCOPE(&c->lock);

                if (c->n_spare > 0)
                        return c->spare[--c->n_spare];
        }
        return grpc_completion_queue_create_for_pluck(NULL);
}

static void give_queue(struct sdk_channel *c, grpc_completion_queue *queue) {
        {
                LOCK_SCOPE(&c->lock);

                if (c->n_spare < SPARE_QUEUES_MAX) {
                        c->spare[c->n_spare++] = queue;
                        return;
                }
        }
        grpc_completion_queue_shutdown(queue);
        grpc_completion_queue_destroy(queue);
}

/* False when the channel has been cancelled. */
static bool enter_attempt(struct sdk_channel *c, struct attempt *a) {
        LOCK_SCOPE(&c->lock);

        if (c->cancelled)
                return false;
        a->previous = NULL;
        a->next = c->attempts;
        if (a->next)
                a->next->previous = a;
        c->attempts = a;
        return true;
}

static void leave_attempt(struct sdk_channel *c, struct attempt *a) {
        LOCK_SCOPE(&c->lock);

        if (a->previous)
                a->previous->next = a->next;
        else
                c->attempts = a->next;
        if (a->next)
                a->next->previous = a->previous;
}

static void unary_init(struct unary *u, struct sdk_channel *c, const void *request, size_t n) {
        grpc_slice bytes = grpc_slice_from_copied_buffer(request, n);

        *u = (struct unary){ .status = GRPC_STATUS_UNKNOWN, .message = grpc_empty_slice() };
        u->metadata[0].key = grpc_slice_from_static_string(IOMMUD_SESSION_METADATA);
        u->metadata[0].value = grpc_slice_ref(c->token);
        u->request = grpc_raw_byte_buffer_create(&bytes, 1);
        grpc_slice_unref(bytes);
        grpc_metadata_array_init(&u->initial);
        grpc_metadata_array_init(&u->trailing);
}

static void unary_clear(struct unary *u) {
        grpc_slice_unref(u->metadata[0].value);
        grpc_byte_buffer_destroy(u->request);
        grpc_byte_buffer_destroy(u->answer);
        grpc_metadata_array_destroy(&u->initial);
        grpc_metadata_array_destroy(&u->trailing);
        grpc_slice_unref(u->message);
}

/* Sends and waits until the call has ended, one way or another: the call itself has a deadline. */
static bool unary_run(struct unary *u, grpc_call *call, grpc_completion_queue *queue) {
        grpc_op ops[6] = {
                { .op = GRPC_OP_SEND_INITIAL_METADATA, .flags = GRPC_INITIAL_METADATA_WAIT_FOR_READY,
                  .data.send_initial_metadata = { .count = 1, .metadata = u->metadata } },
                { .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = u->request },
                { .op = GRPC_OP_SEND_CLOSE_FROM_CLIENT },
                { .op = GRPC_OP_RECV_INITIAL_METADATA,
                  .data.recv_initial_metadata.recv_initial_metadata = &u->initial },
                { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &u->answer },
                { .op = GRPC_OP_RECV_STATUS_ON_CLIENT,
                  .data.recv_status_on_client = { .trailing_metadata = &u->trailing, .status = &u->status,
                                                  .status_details = &u->message } },
        };

        TSAN_HAND_OVER(u);
        if (grpc_call_start_batch(call, ops, ARRAY_SIZE(ops), u, NULL) != GRPC_CALL_OK)
                return false;
        grpc_completion_queue_pluck(queue, u, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        TSAN_TAKE_BACK(u);
        return true;
}

static void *copy_of(grpc_slice s, size_t *ret_n) {
        size_t n = GRPC_SLICE_LENGTH(s);
        void *p = malloc(n ? n : 1);

        if (!p)
                return NULL;
        memcpy(p, GRPC_SLICE_START_PTR(s), n);
        *ret_n = n;
        return p;
}

static void fetch_answer(struct unary *u, struct sdk_outcome *ret) {
        grpc_byte_buffer_reader reader;
        grpc_slice all;

        if (!u->answer || !grpc_byte_buffer_reader_init(&reader, u->answer))
                return;
        all = grpc_byte_buffer_reader_readall(&reader);
        ret->answer = copy_of(all, &ret->n_answer);
        grpc_slice_unref(all);
        grpc_byte_buffer_reader_destroy(&reader);
}

static void fetch_outcome(struct unary *u, struct sdk_outcome *ret) {
        ret->status = (int)u->status;
        if (u->status == GRPC_STATUS_OK) {
                fetch_answer(u, ret);
                return;
        }
        snprintf(ret->message, sizeof ret->message, "%.*s", (int)GRPC_SLICE_LENGTH(u->message),
                 (const char *)GRPC_SLICE_START_PTR(u->message));
        for (size_t i = 0; i < u->trailing.count && !ret->details; i++)
                if (grpc_slice_str_cmp(u->trailing.metadata[i].key, "grpc-status-details-bin") == 0)
                        ret->details = copy_of(u->trailing.metadata[i].value, &ret->n_details);
}

static gpr_timespec grpc_deadline(int64_t deadline) {
        return gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(clock_left(deadline), GPR_TIMESPAN));
}

void sdk_channel_attempt(struct sdk_channel *c, enum sdk_method method, const void *request, size_t n,
                         int64_t deadline, struct sdk_outcome *ret) {
        struct attempt a;
        struct unary u;
        grpc_completion_queue *queue;

        sdk_outcome_clear(ret);
        queue = take_queue(c);
        a.call = grpc_channel_create_registered_call(c->grpc, NULL, GRPC_PROPAGATE_DEFAULTS, queue, c->methods[method],
                                                     grpc_deadline(deadline), NULL);
        unary_init(&u, c, request, n);
        if (!enter_attempt(c, &a))
                ret->status = GRPC_STATUS_CANCELLED;
        else {
                if (unary_run(&u, a.call, queue))
                        fetch_outcome(&u, ret);
                leave_attempt(c, &a);
        }
        unary_clear(&u);
        grpc_call_unref(a.call);
        give_queue(c, queue);
}
