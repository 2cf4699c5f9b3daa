/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

#include "session_channel.h"

/*
 * `iommud-holder --discard`: closes connections that the broker refuses, since closing them can block for as long as
 * their hostile peer likes (DESIGN, section 4). On fd 3, a SOCK_SEQPACKET link, the broker sends for each of them
 *
 *   1. a struct discard_message with the connection as its one fd,
 *   2. once its own copy is closed, the four bytes DISCARD_GONE.
 *
 * Then, and not before, this process is the last that has the connection: it says why (SESSION_REFUSED, without
 * waiting) and closes. Several connections may be announced before they are "gone", up to DISCARD_PENDING_MAX; they are
 * gone in the order in which they were announced. The process ends with its link. It may hang; the broker replaces it.
 */
#define DISCARD_GONE "gone"
#define DISCARD_GONE_SIZE 4U
#define DISCARD_PENDING_MAX 64U

struct discard_message {
        uint32_t reason;                /* enum refusal_reason */
        char text[SESSION_TEXT_MAX];    /* NUL-terminated */
};

/* Serves the link until it ends. The exit code of the process. */
int discard_run(int link_fd);
