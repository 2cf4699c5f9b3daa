/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * One message of a SOCK_SEQPACKET socket, with at most one fd, before a deadline. The service has its own
 * (util/fdmsg.h); the library shares no object code with it, so that a static link cannot mix the two.
 */

/* A connected socket, the caller's; or a negative errno value. A full queue of the listener is waited for. */
int fd_message_connect(const char *path, int64_t deadline);

/* fd: -1 for none; it stays the caller's. 0, or a negative errno value: -ETIMEDOUT, -EPIPE, -ECONNRESET. */
int fd_message_send(int socket, const void *data, size_t size, int fd, int64_t deadline);

/* ret_fd: the fd that came (the caller's, close-on-exec), or -1; more than one are closed. Returns the size, 0 at
 * the end of the connection, or a negative errno value. deadline: INT64_MAX waits for ever. */
ssize_t fd_message_receive(int socket, void *data, size_t size, int *ret_fd, int64_t deadline);
