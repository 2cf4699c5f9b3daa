/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "backend/backend.h"
#include "holder/protocol.h"

/*
 * The session connection (proto/session_channel.h) and the life of the client behind it.
 *
 * Two threads: the reader takes messages and closes fds that nobody wants, which a hostile fd can make last for ever;
 * the watcher waits for nothing but the hang-up and the client's pidfd, so that death is noticed all the same.
 * Nothing that comes from the client is fatal, and nothing waits for it: who does not read its answers loses its
 * session. Functions below are thread-safe.
 */
struct client_channel;

struct client_events {
        /* The client asks for a device fd; answer with client_channel_send_device(). On the reader's thread. */
        void (*device_fd)(void *userdata, uint64_t attachment, uint64_t cookie);
        /* It hung up or died. Once, on the watcher's thread; not after client_channel_end(). */
        void (*gone)(void *userdata);
        void *userdata;
};

/* Takes both fds; *pidfd may be -1. Nothing is read before client_channel_start(). 0 or -errno. */
int client_channel_new(int *connection, int *pidfd, uint32_t max_tickets, struct client_channel **ret);
int client_channel_start(struct client_channel *c, const struct client_events *events);

/* Stops the threads and closes. NULL is fine. Returns NULL, or c itself when the reader hangs and has to be left to the
 * end of the process, with all that it may look at. */
struct client_channel *client_channel_free(struct client_channel *c);

void client_channel_send_token(struct client_channel *c, const char *token);
/* fd stays the caller's; refusal NULL: here it is. */
void client_channel_send_device(struct client_channel *c, uint64_t cookie, uint64_t attachment, int fd,
                                enum device_fd_kind kind, const struct refusal *refusal);
/* SESSION_ENDED, without waiting, then no more of this connection; it stays open until client_channel_free(). */
void client_channel_end(struct client_channel *c, enum refusal_reason reason, const char *text);

/* Takes the fd behind a ticket, which is then used up. UNKNOWN_TICKET. */
int client_channel_claim(struct client_channel *c, uint64_t ticket, int *ret_fd, struct refusal *r);
