/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "auth/peer.h"
#include "util/cleanup.h"

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83                /* Linux 6.16 */
#endif

enum peer_socket socket_peer_kind(enum listener_role role) {
        switch (role) {
        case LISTENER_OPERATOR:
                return PEER_SOCKET_OPERATOR;
        case LISTENER_TENANT:
        case LISTENER_TENANT_SESSION:
                return PEER_SOCKET_TENANT;
        case LISTENER_CLIENT:
        case LISTENER_CLIENT_SESSION:
        case _LISTENER_ROLE_N:
        default:
                return PEER_SOCKET_CLIENT;
        }
}

static int socket_option(int fd, int option) {
        int value = -1;
        socklen_t size = sizeof value;

        return getsockopt(fd, SOL_SOCKET, option, &value, &size) < 0 ? -errno : value;
}

int socket_check_listening(int fd, enum listener_role role) {
        int type = listener_role_is_session(role) ? SOCK_SEQPACKET : SOCK_STREAM, flags;

        if (socket_option(fd, SO_DOMAIN) != AF_UNIX || socket_option(fd, SO_TYPE) != type ||
            socket_option(fd, SO_ACCEPTCONN) != 1)
                return -EPROTOTYPE;
        flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return -errno;
        return 0;
}

void socket_refuse_descriptors(int fd) {
        int off = 0;

        (void)setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off);
}

static bool kernel_can_refuse_descriptors;

static void probe(void) {
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        int off = 0;

        kernel_can_refuse_descriptors = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off) == 0;
}

const char *transport_degraded(void) {
        static pthread_once_t once = PTHREAD_ONCE_INIT;

        pthread_once(&once, probe);
        if (kernel_can_refuse_descriptors)
                return NULL;
        return "This kernel has no SO_PASSRIGHTS (Linux 6.16): a client can queue file descriptors on a gRPC "
               "connection, and closing them can delay the service.";
}

/* Removes a socket file that nobody listens on. */
static int stale_remove(const struct sockaddr_un *a, int type) {
        _cleanup_close_ int probe_fd = -1;
        struct stat st;

        if (lstat(a->sun_path, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (!S_ISSOCK(st.st_mode))
                return -EEXIST;
        probe_fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (probe_fd < 0)
                return -errno;
        if (connect(probe_fd, (const struct sockaddr *)a, sizeof *a) == 0 || errno != ECONNREFUSED)
                return -EADDRINUSE;
        return unlink(a->sun_path) < 0 ? -errno : 0;
}

int listener_create(const char *path, int type, mode_t mode, gid_t gid) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        _cleanup_close_ int fd = -1;
        int r;

        if (strlen(path) >= sizeof a.sun_path)
                return -ENAMETOOLONG;
        (void)strcpy(a.sun_path, path);
        r = stale_remove(&a, type);
        if (r < 0)
                return r;
        fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || bind(fd, (const struct sockaddr *)&a, sizeof a) < 0)
                return -errno;
        /* before listen(), connect() is refused whatever the mode: there is no moment with the wrong one, and no
         * need for a umask that other threads share */
        if ((gid != (gid_t)-1 && lchown(path, (uid_t)-1, gid) < 0) || chmod(path, mode) < 0 || listen(fd, 128) < 0) {
                r = -errno;
                (void)unlink(path);
                return r;
        }
        return fd_steal(&fd);
}
