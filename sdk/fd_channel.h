/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "session_channel.h"

/*
 * The client's end of the session channel (proto/session_channel.h): file descriptors go and come here. A thread of its
 * own reads it, wakes whoever waits for an answer, and notices when the session ends. The connection is the session: it
 * stays open while the broker is away, because the holder has the other end.
 *
 * All functions are thread-safe except open and close.
 */
struct sdk_session;

/* What is known about the end of a session. */
struct sdk_session_end {
        uint32_t reason;
        char text[SESSION_TEXT_MAX];
};

/* Connects and waits for the token (32 hex digits and NUL). 0, or a negative errno value with the error recorded. */
int sdk_session_open(const char *path, int64_t deadline, struct sdk_session **ret,
                     char token[2 * SESSION_TOKEN_BYTES + 1]);

/* Starts the reader. on_end runs once, in the reader's thread, when the session ends before sdk_session_close(). */
int sdk_session_start(struct sdk_session *s, void (*on_end)(void *), void *arg);

/* Sends *request (version and cookie are filled in here) with an fd, -1 for none, which stays the caller's, and waits
 * for its answer. *ret_fd: the fd that came with it, -1 if none, the caller's. An answer with a reason is a failure.
 * 0, or a negative errno value with the error recorded. */
int sdk_session_ask(struct sdk_session *s, struct session_msg *request, int fd, int64_t deadline,
                    struct session_msg *ret_answer, int *ret_fd);

/* Gives a ticket back that was not used. Never blocks; a ticket that is lost here expires. */
void sdk_session_drop_ticket(struct sdk_session *s, uint64_t ticket);

/* True when the session has ended; *ret says why. */
bool sdk_session_ended(struct sdk_session *s, struct sdk_session_end *ret);

/* Records the error of a session that has ended, -ECONNRESET. */
int sdk_session_fail(const struct sdk_session_end *end);

/* Ends the session. NULL does nothing. */
void sdk_session_close(struct sdk_session *s);
