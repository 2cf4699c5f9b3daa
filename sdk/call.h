/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "channel.h"
#include "client.h"
#include "wire.h"

/*
 * One call of the service as a caller sees it: waits at most the client's timeout, outlives a restart of the service,
 * and leaves the thread's error behind when it fails.
 */

/* ret_answer: the unpacked answer (free with call_answer_free), NULL when it is of no interest.
 * 0, or a negative errno value with the error recorded. */
int sdk_call(struct iommud_client *client, enum sdk_method method, const ProtobufCMessage *request,
             ProtobufCMessage **ret_answer);

/* Likewise, and a refusal that lasts only as long as another call of this client's (IN_PROGRESS) is waited out. */
int sdk_call_patient(struct iommud_client *client, enum sdk_method method, const ProtobufCMessage *request,
                     ProtobufCMessage **ret_answer);

/* Likewise for giving an object back: one that the service does not know any more (reason gone) has been given back. */
int sdk_call_release(struct iommud_client *client, enum sdk_method method, const ProtobufCMessage *request,
                     enum iommud_reason gone);

/* Likewise with a deadline of the caller's, and no second attempt: for good-byes. */
int sdk_call_once(struct iommud_client *client, enum sdk_method method, const ProtobufCMessage *request,
                  int64_t deadline);

/* For _cleanup_(): frees the answer if there is one. */
static inline void call_answer_free(ProtobufCMessage **answer) {
        if (*answer)
                protobuf_c_message_free_unpacked(*answer, NULL);
}

#define REQUEST_KEY_BYTES 16U

/* A request key: one for each mutation as its caller sees it, so that repeating it has no second effect. */
struct request_key {
        uint8_t bytes[REQUEST_KEY_BYTES];
};

/* 0, or a negative errno value with the error recorded. */
int request_key_make(struct request_key *ret);

static inline ProtobufCBinaryData request_key_data(struct request_key *key) {
        return (ProtobufCBinaryData){ .len = sizeof key->bytes, .data = key->bytes };
}
