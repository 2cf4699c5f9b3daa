/* SPDX-License-Identifier: Apache-2.0 */
#include "auth/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "util/cleanup.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef PID_FS_MAGIC
#define PID_FS_MAGIC 0x50494446         /* linux/magic.h, since 6.9: pidfds have inodes of their own */
#endif

/* Reads a whole file of /proc/PID; the number of bytes, or -errno. *to is terminated. */
static ssize_t proc_read(pid_t pid, const char *name, char *to, size_t size) {
        char path[64];
        size_t used = 0;
        _cleanup_close_ int fd = -1;

        (void)snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        while (used < size - 1) {
                ssize_t n = read(fd, to + used, size - 1 - used);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                used += (size_t)n;
        }
        to[used] = '\0';
        return (ssize_t)used;
}

/* Field 22 of /proc/PID/stat. Field 2 is the command in parentheses, and may itself hold spaces and parentheses: the
 * fields that can be counted begin after the last ')'. */
static int start_time_parse(const char *stat, uint64_t *ret) {
        const char *p = strrchr(stat, ')');
        char *end;

        if (!p)
                return -EPROTO;
        p++;
        for (int field = 3; field < 22; field++) {
                p = strchr(p + 1, ' ');
                if (!p)
                        return -EPROTO;
        }
        errno = 0;
        *ret = strtoull(p + 1, &end, 10);
        return errno || end == p + 1 ? -EPROTO : 0;
}

static int start_time_read(pid_t pid, uint64_t *ret) {
        char stat[1024];
        ssize_t n = proc_read(pid, "stat", stat, sizeof stat);

        return n < 0 ? (int)n : start_time_parse(stat, ret);
}

/* The cgroup v2 path ("0::" line); "" if there is none, or one too long for a rule to be checked against. */
static int cgroup_read(pid_t pid, char ret[PEER_CGROUP_MAX]) {
        char text[4096], *line, *save = NULL;
        ssize_t n = proc_read(pid, "cgroup", text, sizeof text);

        ret[0] = '\0';
        if (n < 0)
                return (int)n;
        if ((size_t)n == sizeof text - 1)
                return 0;
        for (line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
                if (strncmp(line, "0::", 3) == 0 && strlen(line + 3) < PEER_CGROUP_MAX) {
                        (void)strcpy(ret, line + 3);
                        return 0;
                }
        }
        return 0;
}

static bool pidfd_has_ended(int pidfd) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };

        return poll(&p, 1, 0) == 1 && (p.revents & (POLLIN | POLLERR | POLLNVAL));
}

/* The pidfd of the process that connected, from the socket where the kernel offers it. Otherwise by number: that
 * number may belong to another process by now, which pidfd_from_socket says. */
static int pidfd_get(int fd, struct peer *p) {
        socklen_t size = sizeof p->pidfd;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &p->pidfd, &size) == 0) {
                p->pidfd_from_socket = true;
                return 0;
        }
        p->pidfd = -1;
        /* ESRCH: the kernel knows the option and the process is gone (EINVAL likewise before 6.16: reaped) */
        if (errno == ESRCH || errno == EINVAL)
                return -ESRCH;
        if (errno != ENOPROTOOPT)
                return -errno;
        p->pidfd = (int)syscall(SYS_pidfd_open, p->pid, 0);
        return p->pidfd < 0 ? -errno : 0;
}

/* What /proc says about the pid, valid because the pidfd still lives afterwards: /proc/PID then was that process. */
static int proc_facts(struct peer *p) {
        uint64_t again;
        int r = start_time_read(p->pid, &p->start_time);

        if (r < 0)
                return r;
        r = cgroup_read(p->pid, p->cgroup);
        if (r < 0)
                return r;
        if (!p->pidfd_from_socket) {
                /* The number was opened after accept: at least all readings must be of one process. The cgroup is then
                 * good enough to charge to (the session is bound to that very process), but no rule's proof
                 * (core/tenant.c). */
                r = start_time_read(p->pid, &again);
                if (r < 0)
                        return r;
                if (again != p->start_time)
                        return -ESRCH;
        }
        return pidfd_has_ended(p->pidfd) ? -ESRCH : 0;
}

int peer_from_socket(int fd, enum peer_socket socket, const char *own_tenant, struct peer *ret) {
        struct peer p = { .pidfd = -1, .socket = socket };
        socklen_t size;
        struct ucred credentials;
        int r;

        if (own_tenant && strlen(own_tenant) >= sizeof p.tenant)
                return -EINVAL;
        size = sizeof credentials;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
                return -errno;
        if (credentials.pid <= 0)               /* of a pid namespace that we cannot see, or no peer */
                return -ESRCH;
        p.uid = credentials.uid;
        p.gid = credentials.gid;
        p.pid = credentials.pid;
        if (own_tenant)
                (void)strcpy(p.tenant, own_tenant);
        r = pidfd_get(fd, &p);
        if (r == 0)
                r = proc_facts(&p);
        if (r < 0) {
                peer_clear(&p);
                return r;
        }
        *ret = p;
        return 0;
}

void peer_clear(struct peer *p) {
        p->pidfd = fd_close(p->pidfd);
}

int peer_copy(const struct peer *p, struct peer *ret) {
        int pidfd = -1;

        if (p->pidfd >= 0) {
                pidfd = fcntl(p->pidfd, F_DUPFD_CLOEXEC, 3);
                if (pidfd < 0)
                        return -errno;
        }
        *ret = *p;
        ret->pidfd = pidfd;
        return 0;
}

/* On pidfs every process has an inode number of its own, for ever; before, all pidfds shared one anonymous inode. */
static bool pidfd_inode(int pidfd, ino_t *ret) {
        struct statfs fs;
        struct stat st;

        if (pidfd < 0 || fstatfs(pidfd, &fs) < 0 || fs.f_type != PID_FS_MAGIC || fstat(pidfd, &st) < 0)
                return false;
        *ret = st.st_ino;
        return true;
}

bool peer_same_process(const struct peer *a, const struct peer *b) {
        ino_t inode_a, inode_b;

        if (a->uid != b->uid || a->pid != b->pid || a->start_time != b->start_time)
                return false;
        if (pidfd_inode(a->pidfd, &inode_a) && pidfd_inode(b->pidfd, &inode_b))
                return inode_a == inode_b;
        return true;
}

bool peer_is_gone(const struct peer *p) {
        uint64_t start_time;

        if (p->pidfd >= 0)
                return pidfd_has_ended(p->pidfd);
        return start_time_read(p->pid, &start_time) < 0 || start_time != p->start_time;
}
