/* SPDX-License-Identifier: Apache-2.0 */
#include "call.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <grpc/status.h>

#include "clock.h"
#include "error.h"
#include "fd_channel.h"
#include "util/cleanup.h"

#define SLEEP_FIRST_MS 2
#define SLEEP_MAX_MS 50

static const ProtobufCMessageDescriptor *const answers[_METHOD_N] = {
#define X(name, answer) [METHOD_##name] = &iommud__v1__##answer##__descriptor,
        SDK_METHODS(X)
#undef X
};

/* Unique within a session, which is all that a key must be: random bytes for this process, then a counter. Keys that rise lie
 * side by side in the ledger's index, which random ones would scatter over its pages. */
static uint8_t key_prefix[8];
static int key_prefix_error;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static atomic_uint_fast64_t key_counter;

static void key_prefix_make(void) {
        key_prefix_error = getrandom(key_prefix, sizeof key_prefix, 0) == sizeof key_prefix ? 0 : -EIO;
}

int request_key_make(struct request_key *ret) {
        uint64_t count = atomic_fetch_add(&key_counter, 1);

        pthread_once(&key_once, key_prefix_make);
        if (key_prefix_error < 0)
                return sdk_fail(key_prefix_error, 0, "the kernel gave no random bytes for a request key");
        memcpy(ret->bytes, key_prefix, sizeof key_prefix);
        for (size_t i = sizeof key_prefix; i < sizeof ret->bytes; i++)
                ret->bytes[i] = (uint8_t)(count >> 8 * (sizeof ret->bytes - 1 - i));
        return 0;
}

/* When a caller wants a request sent again. */
enum repeat {
        REPEAT_NEVER,
        REPEAT_UNKNOWN,         /* when it is not known whether it was done */
        REPEAT_BUSY,            /* also when it was not done because another call is at the same thing */
};

/*
 * Is the same request worth sending again? Yes when the connection broke (no reason came with it: whether the request
 * was done is unknown, and its key protects it), while the service recovers, and while an earlier copy of this very
 * request is being worked on. Everything else is the service's answer. (A request that is refused as IN_PROGRESS was not
 * begun, so its key is not spent.)
 */
static bool worth_repeating(int status, unsigned reason, enum repeat repeat, bool repeated) {
        if (repeat == REPEAT_NEVER)
                return false;
        if (reason == IOMMUD_REASON_RECOVERING)
                return true;
        if (reason == IOMMUD_REASON_IN_PROGRESS)
                return repeated || repeat == REPEAT_BUSY;
        return reason == 0 && (status == GRPC_STATUS_UNAVAILABLE || status == GRPC_STATUS_CANCELLED);
}

static int unpack_answer(enum sdk_method method, const struct sdk_outcome *o, ProtobufCMessage **ret_answer) {
        ProtobufCMessage *m = NULL;

        if (o->answer)
                m = protobuf_c_message_unpack(answers[method], NULL, o->n_answer, o->answer);
        if (!m)
                return sdk_fail(-EIO, IOMMUD_REASON_INTERNAL, "the service's answer could not be read");
        if (ret_answer)
                *ret_answer = m;
        else
                protobuf_c_message_free_unpacked(m, NULL);
        return 0;
}

static int call_failed(const struct iommud_client *client, const struct sdk_outcome *o,
                       const struct iommud_error *refusal) {
        struct iommud_error e = *refusal;

        if (e.text[0] == '\0' && o->status == GRPC_STATUS_DEADLINE_EXCEEDED)
                return sdk_fail(-ETIMEDOUT, e.reason, "the service did not answer within %u ms", client->timeout_ms);
        if (e.text[0] == '\0')
                wire_text(e.text, sizeof e.text, o->message);
        return sdk_fail_with(sdk_errno(o->status, e.reason), &e);
}

static int call_packed(struct iommud_client *client, enum sdk_method method, const void *request, size_t n,
                       int64_t deadline, enum repeat repeat, ProtobufCMessage **ret_answer) {
        _cleanup_(sdk_outcome_clear) struct sdk_outcome o = { .status = GRPC_STATUS_UNKNOWN };
        int64_t sleep = SLEEP_FIRST_MS;

        for (bool repeated = false;; repeated = true) {
                struct iommud_error refusal = { .element = -1, .conflict_first = 1 };
                struct sdk_session_end end;

                if (sdk_session_ended(client->session, &end))
                        return sdk_session_fail(&end);
                sdk_channel_attempt(client->channel, method, request, n, deadline, &o);
                if (o.status == GRPC_STATUS_OK)
                        return unpack_answer(method, &o, ret_answer);
                wire_refusal(o.details, o.n_details, &refusal);
                if (!worth_repeating(o.status, refusal.reason, repeat, repeated) || clock_left(deadline) <= sleep) {
                        if (sdk_session_ended(client->session, &end))
                                return sdk_session_fail(&end);
                        return call_failed(client, &o, &refusal);
                }
                clock_sleep(sleep);
                sleep = sleep * 2 > SLEEP_MAX_MS ? SLEEP_MAX_MS : sleep * 2;
        }
}

static int pack_and_call(struct iommud_client *client, enum sdk_method method, const ProtobufCMessage *request,
                         int64_t deadline, enum repeat repeat, ProtobufCMessage **ret_answer) {
        size_t n = protobuf_c_message_get_packed_size(request);
        _cleanup_free_ uint8_t *packed = malloc(n ? n : 1);

        if (!packed)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        protobuf_c_message_pack(request, packed);
        return call_packed(client, method, packed, n, deadline, repeat, ret_answer);
}

int sdk_call(struct iommud_client *client, enum sdk_method method, const ProtobufCMessage *request,
             ProtobufCMessage **ret_answer) {
        return pack_and_call(client, method, request, client_deadline(client), REPEAT_UNKNOWN, ret_answer);
}

int sdk_call_patient(struct iommud_client *client, enum sdk_method method, const ProtobufCMessage *request,
                     ProtobufCMessage **ret_answer) {
        return pack_and_call(client, method, request, client_deadline(client), REPEAT_BUSY, ret_answer);
}

int sdk_call_release(struct iommud_client *client, enum sdk_method method, const ProtobufCMessage *request,
                     enum iommud_reason gone) {
        struct iommud_error kept = sdk_error_keep();
        int r = sdk_call(client, method, request, NULL);

        if (r < 0 && sdk_error_reason() == (unsigned)gone) {
                sdk_error_restore(&kept);
                return 0;
        }
        return r;
}

int sdk_call_once(struct iommud_client *client, enum sdk_method method, const ProtobufCMessage *request,
                  int64_t deadline) {
        return pack_and_call(client, method, request, deadline, REPEAT_NEVER, NULL);
}
