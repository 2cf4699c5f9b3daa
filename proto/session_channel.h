/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/*
 * The session channel: what a client (SDK) and its holder say to each other on the SOCK_SEQPACKET session connection.
 * It carries what gRPC cannot: file descriptors. One message per struct session_msg, host byte order (the socket never
 * leaves the host), optionally with one fd. Wire contract: append, never renumber; unknown types are answered with
 * SESSION_ERROR by the holder and ignored by the client.
 *
 * Way of a session: connect -> the broker identifies the peer and hands the connection to a holder -> SESSION_TOKEN
 * comes -> the client presents the token, as lower-case hex, in the gRPC metadata IOMMUD_SESSION_METADATA of every
 * call. A connection that is refused gets SESSION_REFUSED with the reason and is closed.
 * The connection is the session: when it closes, or the client dies, all that the session owns is released.
 */
#define IOMMUD_SESSION_METADATA "iommud-session"
#define SESSION_CHANNEL_VERSION 1U
#define SESSION_TOKEN_BYTES 16U
#define SESSION_TEXT_MAX 400U

enum session_msg_type {
        /* holder -> client */
        SESSION_TOKEN = 1,      /* text: token, 32 hex digits, NUL-terminated */
        SESSION_REFUSED = 2,    /* reason, text; then the connection closes */
        SESSION_TICKET = 3,     /* answer to MEMORY: id = ticket for RegisterMemory, or reason and text */
        SESSION_DEVICE = 4,     /* answer to DEVICE_FD: fd attached and kind = enum device_fd_kind, or reason and text */
        SESSION_ERROR = 5,      /* the message was not understood; the connection stays */
        SESSION_ENDED = 6,      /* the session was ended from our side (revoked); reason, text */
        /* client -> holder */
        SESSION_MEMORY = 32,    /* fd attached; cookie chosen by the client comes back in the answer */
        SESSION_DEVICE_FD = 33, /* id = attachment */
        SESSION_DROP_TICKET = 34, /* id = ticket that will not be registered; no answer */
};

struct session_msg {
        uint32_t version;       /* SESSION_CHANNEL_VERSION */
        uint32_t type;          /* enum session_msg_type */
        uint64_t cookie;        /* of the request, repeated in the answer */
        uint64_t id;            /* ticket or attachment */
        uint32_t kind;          /* SESSION_DEVICE: what the fd is */
        uint32_t reason;        /* enum Reason, 0 = done */
        char text[SESSION_TEXT_MAX];    /* NUL-terminated */
};

_Static_assert(sizeof(struct session_msg) == 432, "wire contract");
