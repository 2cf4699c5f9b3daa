/* SPDX-License-Identifier: Apache-2.0 */
#include "util/fdmsg.h"

#include <errno.h>
#include <string.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "util/cleanup.h"

int fdmsg_send(int socket, const void *data, size_t size, const int *fds, size_t n_fds, int flags) {
        union {
                char bytes[CMSG_SPACE(sizeof(int) * FDMSG_MAX_FDS)];
                struct cmsghdr align;
        } control;
        struct iovec iov = { .iov_base = (void *)data, .iov_len = size };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t n;

        if (n_fds > FDMSG_MAX_FDS)
                return -EINVAL;
        if (n_fds > 0) {
                struct cmsghdr *c;

                memset(&control, 0, sizeof control);
                msg.msg_control = control.bytes;
                msg.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
                c = CMSG_FIRSTHDR(&msg);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
                memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
        }
        do
                n = sendmsg(socket, &msg, flags | MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        return (size_t)n == size ? 0 : -EMSGSIZE;
}

/* Takes the first FDMSG_MAX_FDS descriptors of a message; returns false if there were more, all of which it closed. */
static bool take_fds(struct msghdr *msg, int fds[FDMSG_MAX_FDS]) {
        size_t taken = 0;
        bool fits = true;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
                size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < n; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
                        if (taken < FDMSG_MAX_FDS)
                                fds[taken++] = fd;
                        else {
                                fd_close(fd);
                                fits = false;
                        }
                }
        }
        return fits;
}

ssize_t fdmsg_receive(int socket, void *data, size_t size, int fds[FDMSG_MAX_FDS], int flags) {
        union {
                /* room for one more than we take: a sender of too many is recognised, not silently cut */
                char bytes[CMSG_SPACE(sizeof(int) * (FDMSG_MAX_FDS + 1))];
                struct cmsghdr align;
        } control;
        struct iovec iov = { .iov_base = data, .iov_len = size };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                              .msg_controllen = sizeof control.bytes };
        bool fits;
        ssize_t n;

        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                fds[i] = -1;
        do
                n = recvmsg(socket, &msg, flags | MSG_CMSG_CLOEXEC);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        fits = take_fds(&msg, fds);
        if (!fits || (msg.msg_flags & (MSG_CTRUNC | MSG_TRUNC))) {
                for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                        fds[i] = fd_close(fds[i]);
                return fits && !(msg.msg_flags & MSG_CTRUNC) ? -EMSGSIZE : -EPROTO;
        }
        return n;
}
