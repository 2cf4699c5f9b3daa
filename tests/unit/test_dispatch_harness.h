/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One call at a time through dispatch to the fake core, without gRPC: what came out of it is in `one`. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../lib/fakes/fake_core.c"
#include "dispatch/dispatch.h"
#include "iommud.pb-c.h"

/* One call, and how it ended. */
static struct {
        struct rpc rpc;
        struct arena arena;
        struct peer peer;
        char token[2 * SESSION_TOKEN_BYTES + 1];
        int ends;
        struct refusal refusal;         /* reason NONE: done */
        uint8_t body[1U << 20];
        size_t body_size;
} one;

static void on_finish(struct rpc *rpc, const struct refusal *refusal, const void *message, size_t size) {
        (void)rpc;
        one.ends++;
        if (refusal) {
                one.refusal = *refusal;
                return;
        }
        assert_true(size <= sizeof one.body);
        memcpy(one.body, message, size);
        one.body_size = size;
}

static void on_fail(struct rpc *rpc, int status, const char *text) {
        (void)rpc;
        fail_msg("%d %s", status, text);
}

static const struct rpc_ops ops = { .finish = on_finish, .fail = on_fail };

static int start(void **state) {
        (void)state;
        one.peer = (struct peer){ .uid = 0, .pid = 4711, .pidfd = -1, .socket = PEER_SOCKET_CLIENT, .tenant = "blue" };
        fake_token(one.peer.pid, one.token);
        return arena_init(&one.arena, 96U * 1024, 8U << 20) < 0 ? -1 : dispatch_start();
}

static int stop(void **state) {
        (void)state;
        arena_clear(&one.arena);
        return fake.sessions_live == 0 ? 0 : -1;
}

static int fresh(void **state) {
        (void)state;
        fake_set(FAKE_NOW, 0);
        fake.n_devices = fake.n_mappings = fake.n_domains = fake.n_tenants = fake.n_windows = fake.n_free = 0;
        return 0;
}

/* The reason of the refusal, 0 if it was done. */
static int call_bytes(const char *path, const void *bytes, size_t size) {
        memset(&one.rpc, 0, sizeof one.rpc);
        memset(&one.refusal, 0, sizeof one.refusal);
        one.rpc.ops = &ops;
        one.rpc.broker = fake_broker;
        one.rpc.peer = &one.peer;
        one.rpc.method = dispatch_find(path, strlen(path));
        assert_non_null(one.rpc.method);
        one.ends = 0;
        dispatch_call(&one.rpc, one.token, bytes, size, &one.arena);
        assert_int_equal(one.ends, 1);
        dispatch_release(&one.rpc);
        assert_int_equal(fake.sessions_live, 0);
        return (int)one.refusal.reason;
}

static int call(const char *path, const void *message) {
        static uint8_t packed[1U << 20];
        size_t size = protobuf_c_message_get_packed_size(message);
        int reason;

        assert_true(size <= sizeof packed);
        (void)protobuf_c_message_pack(message, packed);
        reason = call_bytes(path, packed, size);
        arena_reset(&one.arena);
        return reason;
}

#define CLIENT "/iommud.v1.Client/"
#define OPERATOR "/iommud.v1.Operator/"

__attribute__((unused)) static char *text(const char *s) {
        return (char *)(uintptr_t)s;
}
