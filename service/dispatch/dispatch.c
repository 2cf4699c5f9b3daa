/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/dispatch.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dispatch/rpc.h"
#include "dispatch/text.h"
#include "util/cleanup.h"
#include "util/log.h"

/* ---- lookup: open addressing, less than half full, built once ---- */

#define LOOKUP_SIZE 128U

static struct {
        const struct method *method;
        size_t path_size;
} lookup[LOOKUP_SIZE];

static size_t path_hash(const char *path, size_t size) {
        uint32_t h = 2166136261U;       /* FNV-1a */

        for (size_t i = 0; i < size; i++)
                h = (h ^ (unsigned char)path[i]) * 16777619U;
        return (h ^ h >> 15) % LOOKUP_SIZE;
}

const struct method *dispatch_find(const char *path, size_t size) {
        for (size_t i = path_hash(path, size); lookup[i].method; i = (i + 1) % LOOKUP_SIZE)
                if (lookup[i].path_size == size && memcmp(lookup[i].method->path, path, size) == 0)
                        return lookup[i].method;
        return NULL;
}

static void lookup_add(const struct method *m) {
        size_t size = strlen(m->path), i = path_hash(m->path, size);

        while (lookup[i].method)
                i = (i + 1) % LOOKUP_SIZE;
        lookup[i].method = m;
        lookup[i].path_size = size;
}

static struct method *row_of(const char *path) {
        for (size_t i = 0; i < method_table_size; i++)
                if (strcmp(method_table[i].path, path) == 0)
                        return &method_table[i];
        return NULL;
}

/* Gives the rows of one service their message types; returns how many, or -1 if a method has no row. */
static int service_add(const ProtobufCServiceDescriptor *service) {
        char path[128];

        for (unsigned i = 0; i < service->n_methods; i++) {
                struct method *m;

                (void)snprintf(path, sizeof path, "/%s/%s", service->name, service->methods[i].name);
                m = row_of(path);
                if (!m) {
                        log_error("dispatch: %s has no row in the method table", path);
                        return -1;
                }
                m->input = service->methods[i].input;
        }
        return (int)service->n_methods;
}

int dispatch_start(void) {
        static const ProtobufCServiceDescriptor *const services[] = {
                &iommud__v1__client__descriptor,
                &iommud__v1__operator__descriptor,
                &grpc__health__v1__health__descriptor,
        };
        size_t methods = 0;

        _Static_assert(LOOKUP_SIZE > 64, "grow it with the table");
        rpc_health_reset();
        for (size_t i = 0; i < ARRAY_SIZE(services); i++) {
                int n = service_add(services[i]);

                if (n < 0)
                        return -ENOSYS;
                methods += (size_t)n;
        }
        if (methods != method_table_size || methods > LOOKUP_SIZE / 2)
                return -ENOSYS;
        memset(lookup, 0, sizeof lookup);
        for (size_t i = 0; i < method_table_size; i++)
                lookup_add(&method_table[i]);
        return 0;
}

const struct method *dispatch_methods(size_t *ret_n) {
        *ret_n = method_table_size;
        return method_table;
}

/* ---- unpack and call ---- */

static void *unpack_alloc(void *arena, size_t size) {
        return arena_alloc(arena, size);
}

static void unpack_free(void *arena, void *pointer) {
        (void)arena;
        (void)pointer;
}

static void rpc_done(struct reply *reply, const struct refusal *refusal, const struct answer *answer);

static int authenticate(struct rpc *rpc, const char *token, struct refusal *r) {
        if (!rpc->method->session)
                return 0;
        return session_authenticate(rpc->broker, token, rpc->peer, &rpc->session, r);
}

void dispatch_call(struct rpc *rpc, const char *token, const void *bytes, size_t size, struct arena *arena) {
        ProtobufCAllocator allocator = { .alloc = unpack_alloc, .free = unpack_free, .allocator_data = arena };
        ProtobufCMessage *request;
        struct refusal r;

        rpc->reply.done = rpc_done;
        if (authenticate(rpc, token, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        request = protobuf_c_message_unpack(rpc->method->input, &allocator, size, bytes);
        if (!request) {
                (void)refuse(&r, REFUSAL_BAD_MESSAGE,
                             "%s: the %zu bytes of the request are no %s, or one with too many parts",
                             rpc->method->path, size, rpc->method->input->short_name);
                rpc_refuse(rpc, &r);
                return;
        }
        rpc->method->handle(rpc, request, arena);
}

void dispatch_release(struct rpc *rpc) {
        rpc->session = session_unref(rpc->session);
}

/* ---- the ends of a call ---- */

void rpc_refuse(struct rpc *rpc, const struct refusal *r) {
        rpc->ops->finish(rpc, r, NULL, 0);
}

void rpc_answer_too_large(struct rpc *rpc) {
        struct refusal r;

        (void)refuse(&r, REFUSAL_LIMIT_EXCEEDED, "%s: the answer is too large; ask for a smaller page",
                     rpc->method->path);
        rpc_refuse(rpc, &r);
}

void rpc_answer(struct rpc *rpc, const void *message, struct arena *arena) {
        size_t size = protobuf_c_message_get_packed_size(message);
        uint8_t *packed = arena_alloc(arena, size);

        if (!packed) {
                rpc_answer_too_large(rpc);
                return;
        }
        (void)protobuf_c_message_pack(message, packed);
        rpc->ops->finish(rpc, NULL, packed, size);
}

/* The largest answer of a mutation is AttachDevice's: IOVA_RANGES_MAX ranges of at most 24 bytes. */
#define ANSWER_PACKED_MAX 1024U

/* The core answers a mutation: any thread, before or after the handler has returned. */
static void rpc_done(struct reply *reply, const struct refusal *refusal, const struct answer *answer) {
        struct rpc *rpc = (struct rpc *)((char *)reply - offsetof(struct rpc, reply));
        uint8_t packed[ANSWER_PACKED_MAX];
        struct rpc_response out;
        const ProtobufCMessage *message;
        size_t size;

        if (refusal) {
                rpc_refuse(rpc, refusal);
                return;
        }
        message = rpc->method->answer(answer, &out);
        size = protobuf_c_message_get_packed_size(message);
        if (size > sizeof packed) {
                rpc_answer_too_large(rpc);
                return;
        }
        (void)protobuf_c_message_pack(message, packed);
        rpc->ops->finish(rpc, NULL, packed, size);
}

/* ---- fields ---- */

int rpc_key(const ProtobufCBinaryData *key, struct request_key *ret, struct refusal *r) {
        *ret = (struct request_key){ .present = key->len > 0 };
        if (key->len == 0)
                return 0;
        if (key->len != sizeof ret->bytes) {
                (void)refuse(r, REFUSAL_BAD_MESSAGE, "request_key has %zu bytes; it must have %zu, or none", key->len,
                             sizeof ret->bytes);
                r->asked = key->len;
                r->limit = sizeof ret->bytes;
                return -1;
        }
        memcpy(ret->bytes, key->data, sizeof ret->bytes);
        return 0;
}

int rpc_text(const char *s, size_t size, const char *what, struct refusal *r) {
        size_t n = strlen(s);

        if (n >= size) {
                (void)refuse(r, REFUSAL_BAD_NAME, "%s has %zu bytes; at most %zu are allowed", what, n, size - 1);
                r->asked = n;
                r->limit = size - 1;
                return -1;
        }
        /* protobuf strings carry a length, C strings end at the first NUL: what lies behind it must not pass unseen */
        if (s != (const char *)protobuf_c_empty_string && arena_size_of(s) != n + 1)
                return refuse(r, REFUSAL_BAD_NAME, "%s has a NUL byte inside", what);
        if (!text_is_printable(s))
                return refuse(r, REFUSAL_BAD_NAME, "%s is not printable UTF-8", what);
        return 0;
}

int rpc_name(const char *s, const char *what, struct refusal *r) {
        return rpc_text(s, LEDGER_NAME_MAX, what, r);
}

int rpc_name_needed(const char *s, const char *what, struct refusal *r) {
        if (rpc_name(s, what, r) < 0)
                return -1;
        return s[0] ? 0 : refuse(r, REFUSAL_BAD_NAME, "%s is empty", what);
}

Iommud__V1__Constraints *rpc_constraints(const struct container_info *info, struct rpc_constraints *to) {
        size_t n = info->n_ranges < IOVA_RANGES_MAX ? info->n_ranges : IOVA_RANGES_MAX;

        iommud__v1__constraints__init(&to->message);
        to->message.page_sizes = info->page_sizes;
        to->message.max_mappings = info->max_mappings == UINT32_MAX ? 0 : info->max_mappings;
        to->message.n_ranges = n;
        to->message.ranges = to->pointers;
        for (size_t i = 0; i < n; i++) {
                iommud__v1__range__init(&to->ranges[i]);
                to->ranges[i].first = info->ranges[i].first;
                to->ranges[i].last = info->ranges[i].last;
                to->pointers[i] = &to->ranges[i];
        }
        return &to->message;
}
