/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/call.h"

#include <grpc/byte_buffer.h>
#include <grpc/slice_buffer.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "auth/authorize.h"
#include "session_channel.h"
#include "transport/status.h"
#include "transport/transport_private.h"
#include "util/cleanup.h"
#include "util/log.h"

#define POOL_KEPT 256U                  /* calls kept for reuse */
#define TOKEN_SIZE (2U * SESSION_TOKEN_BYTES)
#define STREAM_QUEUE_MAX 8U             /* messages that wait for a client that does not read */

/* What only streams have. */
struct call_stream {
        pthread_mutex_t lock;
        grpc_byte_buffer *queue[STREAM_QUEUE_MAX];
        unsigned n;
        bool sending;                   /* queue[0] is with gRPC */
        bool greeted;                   /* initial metadata were sent */
        bool broken;                    /* a message could not be sent: no more go out */
        bool finished;                  /* status is set; it follows the last message */
};

struct call {
        struct rpc rpc;
        struct connection *connection;
        /* one until the outcome has been sent, one while dispatch runs, one of a stream until its client is gone */
        atomic_uint references;
        struct grpc_loop_tag on_new, on_message, on_finished, on_sent, on_closed;
        struct grpc_loop_job job;
        grpc_call *call;
        grpc_call_details details;
        grpc_metadata_array metadata;
        grpc_byte_buffer *request, *response;
        struct status status;
        int cancelled;                  /* gRPC writes it; that it ended says enough */
        char token[TOKEN_SIZE + 1];
        struct call_stream *stream;
        struct call *pool_next;
};

struct call_pool {
        pthread_mutex_t lock;
        struct call *free;
        unsigned n;
};

/* ---- memory ---- */

struct call_pool *call_pool_new(void) {
        struct call_pool *p = calloc(1, sizeof *p);

        if (p)
                pthread_mutex_init(&p->lock, NULL);
        return p;
}

struct call_pool *call_pool_free(struct call_pool *p) {
        if (!p)
                return NULL;
        for (struct call *c = p->free, *next; c; c = next) {
                next = c->pool_next;
                free(c);
        }
        pthread_mutex_destroy(&p->lock);
        free(p);
        return NULL;
}

static struct call *pool_take(struct call_pool *p) {
        struct call *c;
        LOCK_SCOPE(&p->lock);

        c = p->free;
        if (c) {
                p->free = c->pool_next;
                p->n--;
        }
        return c;
}

static bool pool_put(struct call_pool *p, struct call *c) {
        LOCK_SCOPE(&p->lock);

        if (p->n >= POOL_KEPT)
                return false;
        c->pool_next = p->free;
        p->free = c;
        p->n++;
        return true;
}

static void stream_free(struct call_stream *s) {
        if (!s)
                return;
        for (unsigned i = 0; i < s->n; i++)
                grpc_byte_buffer_destroy(s->queue[i]);
        pthread_mutex_destroy(&s->lock);
        free(s);
}

static struct call *call_ref(struct call *c) {
        atomic_fetch_add_explicit(&c->references, 1, memory_order_relaxed);
        return c;
}

static void call_unref(struct call *c) {
        struct connection *connection = c->connection;

        if (atomic_fetch_sub_explicit(&c->references, 1, memory_order_acq_rel) != 1)
                return;
        dispatch_release(&c->rpc);
        stream_free(c->stream);
        if (c->request)
                grpc_byte_buffer_destroy(c->request);
        if (c->response)
                grpc_byte_buffer_destroy(c->response);
        if (c->call) {
                status_clear(&c->status);
                grpc_call_unref(c->call);
        }
        grpc_call_details_destroy(&c->details);
        grpc_metadata_array_destroy(&c->metadata);
        if (!pool_put(connection->transport->calls, c))
                free(c);
        (void)connection_unref(connection);
}

/* ---- the outcome ---- */

/* Gives ops to gRPC; tag comes back in every case. gRPC refuses only what we did wrong. */
static void call_batch(struct call *c, const grpc_op *ops, size_t n, struct grpc_loop_tag *tag) {
        grpc_call_error e = grpc_call_start_batch(c->call, ops, n, grpc_loop_give(tag), NULL);

        if (e != GRPC_CALL_OK) {
                log_error("transport: %s: gRPC refuses a batch: %s",
                          c->rpc.method ? c->rpc.method->path : "unknown method", grpc_call_error_to_string(e));
                grpc_call_cancel(c->call, NULL);
                call_unref(c);
        }
}

/* Sends the response, if there is one, and the status of a call that is no stream. That the client is gone is known
 * when this completes, which is early enough: nothing waits for it. */
static void unary_send(struct call *c) {
        grpc_op ops[4] = { { .op = GRPC_OP_SEND_INITIAL_METADATA } };
        size_t n = 1;

        if (c->response) {
                ops[n].op = GRPC_OP_SEND_MESSAGE;
                ops[n++].data.send_message.send_message = c->response;
        }
        status_to_op(&c->status, &ops[n++]);
        ops[n].op = GRPC_OP_RECV_CLOSE_ON_SERVER;
        ops[n++].data.recv_close_on_server.cancelled = &c->cancelled;
        call_batch(c, ops, n, &c->on_finished);
}

static void on_finished(struct grpc_loop_tag *tag, bool ok, struct arena *arena) {
        (void)ok;
        (void)arena;
        call_unref((struct call *)((char *)tag - offsetof(struct call, on_finished)));
}

/* ---- streams: one message at a time is with gRPC, a few wait ---- */

/* Under the stream's lock: gives gRPC what is next. */
static void stream_push(struct call *c) {
        struct call_stream *s = c->stream;
        grpc_op ops[2] = { { .op = GRPC_OP_SEND_INITIAL_METADATA } };
        size_t n = s->greeted ? 0 : 1;

        if (s->sending)
                return;
        if (s->n > 0 && !s->broken) {
                ops[n] = (grpc_op){ .op = GRPC_OP_SEND_MESSAGE };
                ops[n++].data.send_message.send_message = s->queue[0];
                s->greeted = s->sending = true;
                call_batch(c, ops, n, &c->on_sent);
        } else if (s->finished) {
                status_to_op(&c->status, &ops[n++]);
                s->greeted = s->sending = true; /* for ever: nothing comes after the status */
                call_batch(c, ops, n, &c->on_finished);
        }
}

static void on_sent(struct grpc_loop_tag *tag, bool ok, struct arena *arena) {
        struct call *c = (struct call *)((char *)tag - offsetof(struct call, on_sent));
        struct call_stream *s = c->stream;

        (void)arena;
        call_ref(c);            /* the end may follow, and free the lock before it is given back */
        pthread_mutex_lock(&s->lock);
        grpc_byte_buffer_destroy(s->queue[0]);
        memmove(&s->queue[0], &s->queue[1], --s->n * sizeof s->queue[0]);
        s->sending = false;
        s->broken = s->broken || !ok;
        stream_push(c);
        pthread_mutex_unlock(&s->lock);
        call_unref(c);
}

static grpc_byte_buffer *buffer_of(const void *bytes, size_t size) {
        grpc_slice slice = grpc_slice_from_copied_buffer(bytes, size);
        grpc_byte_buffer *b = grpc_raw_byte_buffer_create(&slice, 1);

        grpc_slice_unref(slice);
        return b;
}

static bool stream_send(struct rpc *rpc, const void *message, size_t size) {
        struct call *c = (struct call *)rpc;
        struct call_stream *s = c->stream;
        LOCK_SCOPE(&s->lock);

        if (s->broken || s->finished || s->n == STREAM_QUEUE_MAX)
                return false;
        s->queue[s->n++] = buffer_of(message, size);
        stream_push(c);
        return true;
}

static void call_end(struct call *c) {
        struct call_stream *s = c->stream;

        if (!s) {
                unary_send(c);
                return;
        }
        call_ref(c);            /* as in on_sent */
        pthread_mutex_lock(&s->lock);
        s->finished = true;
        stream_push(c);
        pthread_mutex_unlock(&s->lock);
        call_unref(c);
}

static void call_finish(struct rpc *rpc, const struct refusal *refusal, const void *message, size_t size) {
        struct call *c = (struct call *)rpc;

        status_refusal(&c->status, refusal);
        if (!refusal && message && !c->stream)
                c->response = buffer_of(message, size);
        call_end(c);
}

static void call_fail(struct rpc *rpc, int status, const char *text) {
        struct call *c = (struct call *)rpc;

        status_plain(&c->status, status, text);
        call_end(c);
}

static const struct rpc_ops call_ops = { .finish = call_finish, .fail = call_fail, .send = stream_send };

/* The client of a stream is gone, or has seen its end. */
static void on_closed(struct grpc_loop_tag *tag, bool ok, struct arena *arena) {
        struct call *c = (struct call *)((char *)tag - offsetof(struct call, on_closed));

        (void)ok;
        (void)arena;
        if (c->rpc.cancelled)
                c->rpc.cancelled(&c->rpc);
        call_unref(c);
}

/* ---- the way in ---- */

/* The message as one piece: in place if it came as one, else copied into the arena. False: no room. */
static bool request_bytes(const grpc_byte_buffer *b, struct arena *arena, const uint8_t **ret, size_t *ret_size) {
        const grpc_slice_buffer *slices = &b->data.raw.slice_buffer;
        uint8_t *copy;

        *ret_size = slices->length;
        if (slices->count <= 1) {
                *ret = slices->count == 0 ? NULL : GRPC_SLICE_START_PTR(slices->slices[0]);
                return true;
        }
        copy = arena_alloc(arena, slices->length);
        *ret = copy;
        if (!copy)
                return false;
        for (size_t i = 0; i < slices->count; i++) {
                memcpy(copy, GRPC_SLICE_START_PTR(slices->slices[i]), GRPC_SLICE_LENGTH(slices->slices[i]));
                copy += GRPC_SLICE_LENGTH(slices->slices[i]);
        }
        return true;
}

static void call_refuse(struct call *c, enum refusal_reason reason, const char *text) {
        struct refusal r;

        (void)refuse(&r, reason, "%s", text);
        call_finish(&c->rpc, &r, NULL, 0);
}

/* Streams hear of their client's end only after their handler has returned: it may still be setting rpc.cancelled. */
static void stream_listen(struct call *c) {
        grpc_op op = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER };

        op.data.recv_close_on_server.cancelled = &c->cancelled;
        call_ref(c);
        call_batch(c, &op, 1, &c->on_closed);
}

static void call_dispatch(struct call *c, struct arena *arena) {
        const uint8_t *bytes;
        size_t size;

        call_ref(c);    /* the outcome may be sent, and all of this over, before dispatch returns */
        if (c->request->data.raw.compression != GRPC_COMPRESS_NONE)
                call_refuse(c, REFUSAL_UNSUPPORTED, "compressed messages are not accepted");
        else if (!request_bytes(c->request, arena, &bytes, &size))
                call_refuse(c, REFUSAL_LIMIT_EXCEEDED, "the message is too large");
        else
                dispatch_call(&c->rpc, c->token, bytes, size, arena);
        grpc_byte_buffer_destroy(c->request);
        c->request = NULL;
        if (c->stream)
                stream_listen(c);
        call_unref(c);
}

static void call_dispatch_slow(struct grpc_loop_job *job, struct arena *arena) {
        call_dispatch((struct call *)((char *)job - offsetof(struct call, job)), arena);
}

static void on_message(struct grpc_loop_tag *tag, bool ok, struct arena *arena) {
        struct call *c = (struct call *)((char *)tag - offsetof(struct call, on_message));

        if (!ok || !c->request) {
                /* cancelled, too large (gRPC has answered that already), or closed by a client that sent nothing */
                call_refuse(c, REFUSAL_BAD_MESSAGE, "the call came without its message");
        } else if (c->rpc.method->blocks)
                grpc_loop_defer(c->connection->transport->loop, &c->job);
        else
                call_dispatch(c, arena);
}

static bool slice_is(grpc_slice s, const char *text, size_t size) {
        return GRPC_SLICE_LENGTH(s) == size && memcmp(GRPC_SLICE_START_PTR(s), text, size) == 0;
}

/* The session token; "" if there is none, or one that cannot be ours. */
static void token_find(struct call *c) {
        static const char key[] = IOMMUD_SESSION_METADATA;

        c->token[0] = '\0';
        for (size_t i = 0; i < c->metadata.count; i++) {
                const grpc_metadata *m = &c->metadata.metadata[i];

                if (!slice_is(m->key, key, sizeof key - 1))
                        continue;
                if (GRPC_SLICE_LENGTH(m->value) != TOKEN_SIZE || memchr(GRPC_SLICE_START_PTR(m->value), 0, TOKEN_SIZE))
                        return;
                memcpy(c->token, GRPC_SLICE_START_PTR(m->value), TOKEN_SIZE);
                c->token[TOKEN_SIZE] = '\0';
                return;
        }
}

/* Who may call what is decided before a byte of the message is taken. */
static int call_admit(struct call *c, struct refusal *r) {
        grpc_slice path = c->details.method;
        const struct method *m = dispatch_find((const char *)GRPC_SLICE_START_PTR(path), GRPC_SLICE_LENGTH(path));

        if (!m)
                return refuse(r, REFUSAL_UNSUPPORTED, "no method %.*s", GRPC_SLICE_LENGTH(path) < 128 ?
                              (int)GRPC_SLICE_LENGTH(path) : 128, (const char *)GRPC_SLICE_START_PTR(path));
        c->rpc.method = m;
        if (authorize_call(&c->connection->peer, c->connection->refused, m, r) < 0)
                return -1;
        if (m->streams) {
                c->stream = calloc(1, sizeof *c->stream);
                if (!c->stream)
                        return refuse(r, REFUSAL_INTERNAL, "out of memory");
                pthread_mutex_init(&c->stream->lock, NULL);
        }
        return 0;
}

static void call_start(struct call *c) {
        grpc_op op = { .op = GRPC_OP_RECV_MESSAGE };
        struct refusal r;

        if (call_admit(c, &r) < 0) {
                call_finish(&c->rpc, &r, NULL, 0);
                return;
        }
        token_find(c);
        op.data.recv_message.recv_message = &c->request;
        call_batch(c, &op, 1, &c->on_message);
}

static void on_new(struct grpc_loop_tag *tag, bool ok, struct arena *arena) {
        struct call *c = (struct call *)((char *)tag - offsetof(struct call, on_new));

        (void)arena;
        if (!ok) {                      /* the connection has ended */
                call_unref(c);
                return;
        }
        atomic_store_explicit(&c->connection->called, true, memory_order_relaxed);
        if (!atomic_load_explicit(&c->connection->ending, memory_order_relaxed))
                call_request(c->connection);
        call_start(c);
}

static void call_init(struct call *c, struct connection *connection) {
        memset(c, 0, sizeof *c);
        c->connection = connection_ref(connection);
        atomic_init(&c->references, 1);
        c->on_new.complete = on_new;
        c->on_message.complete = on_message;
        c->on_finished.complete = on_finished;
        c->on_sent.complete = on_sent;
        c->on_closed.complete = on_closed;
        c->job.run = call_dispatch_slow;
        c->rpc.ops = &call_ops;
        c->rpc.broker = connection->transport->broker;
        c->rpc.peer = &connection->peer;
        grpc_call_details_init(&c->details);
        grpc_metadata_array_init(&c->metadata);
}

void call_request(struct connection *connection) {
        struct call *c = pool_take(connection->transport->calls);

        if (!c)
                c = malloc(sizeof *c);
        if (!c) {
                connection_end(connection, true);
                return;
        }
        call_init(c, connection);
        if (grpc_server_request_call(connection->server, &c->call, &c->details, &c->metadata, connection->queue,
                                     connection->queue, grpc_loop_give(&c->on_new)) != GRPC_CALL_OK)
                call_unref(c);
}
