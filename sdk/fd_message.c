/* SPDX-License-Identifier: Apache-2.0 */
#include "fd_message.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "clock.h"
#include "util/cleanup.h"

#define FDS_MAX 4U      /* received and closed when there are more than the one that is expected */

/* 0 when the socket is ready (or broken: the next call says so), -ETIMEDOUT. */
static int wait_for(int socket, short events, int64_t deadline) {
        struct pollfd p = { .fd = socket, .events = events };
        int r;

        do {
                r = poll(&p, 1, deadline == INT64_MAX ? -1 : clock_left(deadline));
        } while (r < 0 && errno == EINTR);
        if (r < 0)
                return -errno;
        return r == 0 ? -ETIMEDOUT : 0;
}

int fd_message_connect(const char *path, int64_t deadline) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_close_ int fd = -1;

        if (strlen(path) >= sizeof address.sun_path)
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, strlen(path) + 1);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
                return -errno;
        while (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
                /* A Unix socket answers EAGAIN while the listener's queue is full, and no poll says when it is not. */
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                if (clock_left(deadline) == 0)
                        return -ETIMEDOUT;
                clock_sleep(2);
        }
        return fd_steal(&fd);
}

int fd_message_send(int socket, const void *data, size_t size, int fd, int64_t deadline) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control;
        struct iovec iov = { .iov_base = (void *)data, .iov_len = size };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (fd >= 0) {
                memset(&control, 0, sizeof control);
                control.align.cmsg_level = SOL_SOCKET;
                control.align.cmsg_type = SCM_RIGHTS;
                control.align.cmsg_len = CMSG_LEN(sizeof(int));
                memcpy(CMSG_DATA(&control.align), &fd, sizeof fd);
                msg.msg_control = control.bytes;
                msg.msg_controllen = sizeof control.bytes;
        }
        for (;;) {
                int r;

                if (sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
                        return 0;
                if (errno == EINTR)
                        continue;
                /* ETOOMANYREFS: too many descriptors of this user are under way */
                if (errno != EAGAIN && errno != ETOOMANYREFS)
                        return -errno;
                if (errno == ETOOMANYREFS)
                        clock_sleep(1);
                r = wait_for(socket, POLLOUT, deadline);
                if (r < 0)
                        return r;
                if (clock_left(deadline) == 0)
                        return -ETIMEDOUT;
        }
}

/* Keeps the first fd of a message and closes all when there are several. */
static int take_fd(struct msghdr *msg) {
        int kept = -1, n_fds = 0;

        for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
                        continue;
                for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof fd);
                        if (n_fds++ == 0)
                                kept = fd;
                        else
                                fd_close(fd);
                }
        }
        return n_fds > 1 ? fd_close(kept) : kept;
}

ssize_t fd_message_receive(int socket, void *data, size_t size, int *ret_fd, int64_t deadline) {
        union {
                char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
                struct cmsghdr align;
        } control;
        struct iovec iov = { .iov_base = data, .iov_len = size };
        ssize_t n;

        *ret_fd = -1;
        for (;;) {
                struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                                      .msg_controllen = sizeof control.bytes };
                int r;

                n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
                if (n >= 0) {
                        *ret_fd = take_fd(&msg);
                        return n;
                }
                if (errno == EINTR)
                        continue;
                if (errno != EAGAIN)
                        return -errno;
                r = wait_for(socket, POLLIN, deadline);
                if (r < 0)
                        return r;
        }
}
