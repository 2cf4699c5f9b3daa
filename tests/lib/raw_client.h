/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iommud.pb-c.h"
#include "session_channel.h"

/*
 * A client that speaks the two protocols itself: for what the SDK would not send (forged ids, foreign tokens, repeated
 * request keys, garbage) and for what it hides. Asserts on its own errors; what the service answers is returned.
 */
struct raw_client {
        char directory[128];
        int session;                    /* the session connection; -1: none */
        char token[2 * SESSION_TOKEN_BYTES + 1];
        struct grpc_client *grpc;
        uint64_t next_cookie;
};

/* What a call gave: the gRPC status and, if it was refused, why. */
struct raw_refusal {
        int status;
        unsigned reason;
        char text[512];
};

/* A SOCK_SEQPACKET connection to DIR/session.sock, or SOCK_STREAM to DIR/grpc.sock. */
int raw_connect(const char *directory, bool session);

/* A whole session, claimed with OpenSession. */
void raw_open(struct raw_client *c, const char *directory);
/* Only the connection and its token. */
void raw_open_session(struct raw_client *c, const char *directory);
/* A new gRPC connection with this token; the service may have been restarted meanwhile. */
void raw_reconnect(struct raw_client *c);
void raw_close(struct raw_client *c);

/* One call; *ret_answer (may be NULL) is the caller's: protobuf_c_message_free_unpacked(). */
int raw_call(struct raw_client *c, const char *method, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *answer, ProtobufCMessage **ret_answer, struct raw_refusal *ret);

/* The text of the last refusal. */
const char *raw_text(void);
/* Demands that a call below works. */
#define raw_must(call)                                                                                                 \
        do {                                                                                                           \
                if ((call) != 0)                                                                                       \
                        fail_msg("%s: %s", #call, raw_text());                                                         \
        } while (0)

/* The common ones; 0 or the reason. key: 16 bytes or NULL. */
unsigned raw_create_domain(struct raw_client *c, const uint8_t *key, uint64_t *ret_domain);
unsigned raw_register(struct raw_client *c, const uint8_t *key, int fd, uint64_t size, uint64_t *ret_memory);
unsigned raw_register_ticket(struct raw_client *c, const uint8_t *key, uint64_t ticket, uint64_t size,
                             uint64_t *ret_memory);
unsigned raw_unregister(struct raw_client *c, const uint8_t *key, uint64_t memory);
unsigned raw_map(struct raw_client *c, const uint8_t *key, uint64_t domain, uint64_t iova, uint64_t memory,
                 uint64_t length);
unsigned raw_unmap(struct raw_client *c, const uint8_t *key, uint64_t domain, uint64_t iova, uint64_t length);
unsigned raw_unmap_all(struct raw_client *c, const uint8_t *key, uint64_t domain);
unsigned raw_attach(struct raw_client *c, const uint8_t *key, uint64_t domain, const char *device,
                    uint64_t *ret_attachment);
unsigned raw_detach(struct raw_client *c, const uint8_t *key, uint64_t attachment);
unsigned raw_destroy_domain(struct raw_client *c, const uint8_t *key, uint64_t domain);
unsigned raw_list_mappings(struct raw_client *c, uint64_t domain, size_t *ret_n);
unsigned raw_describe_domain(struct raw_client *c, uint64_t domain);
/* Sends the fd; the ticket. */
uint64_t raw_send_memory(struct raw_client *c, int fd);
/* Asks for the device fd of an attachment; the reason, or 0 and the fd. */
unsigned raw_device_fd(struct raw_client *c, uint64_t attachment, int *ret_fd);
/* The next message on the session connection within 20 s; false: it was closed. fd -1: none came. */
bool raw_receive(int session, struct session_msg *m, int *ret_fd);
/* A message as it is, any size. */
void raw_send(int session, const void *data, size_t size, int fd);

/* size bytes of shared memory with content; sealable. */
int raw_memfd(size_t size);
