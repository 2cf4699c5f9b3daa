/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/*
 * One SOCK_SEQPACKET message with file descriptors. Thread-safe as far as the socket is.
 */
#define FDMSG_MAX_FDS 4U

/* Sends one whole message. The fds stay the caller's. flags: MSG_DONTWAIT or 0; MSG_NOSIGNAL is always added.
 * 0, or -errno (-EAGAIN when the queue is full and MSG_DONTWAIT was given). */
int fdmsg_send(int socket, const void *data, size_t size, const int *fds, size_t n_fds, int flags);

/* Receives one message. fds: room for FDMSG_MAX_FDS, all set to -1 first; received ones are the caller's and have
 * O_CLOEXEC. Returns the size of the message (0 at end of file), or -errno: -EMSGSIZE if it did not fit in size (the
 * rest is lost), -EPROTO if it carried more fds than FDMSG_MAX_FDS or was cut; in both cases every received fd has
 * been closed. */
ssize_t fdmsg_receive(int socket, void *data, size_t size, int fds[FDMSG_MAX_FDS], int flags);
