/* SPDX-License-Identifier: Apache-2.0 */
#include "core/holder_start.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/broker.h"
#include "util/cleanup.h"
#include "util/log.h"

#define LINK_FD 3

static int connect_to(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_close_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -errno;
        if (strlen(path) >= sizeof address.sun_path)
                return -ENAMETOOLONG;
        strcpy(address.sun_path, path);
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
                return -errno;
        return fd_steal(&fd);
}

int holder_spawn(const char *program, const char *const arguments[HOLDER_ARGUMENTS], uint32_t *ret_pid) {
        char *argv[HOLDER_ARGUMENTS + 2] = { (char *)program };
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t none;
        pid_t pid;
        int pair[2], r;

        for (size_t i = 0; i < HOLDER_ARGUMENTS && arguments[i]; i++)
                argv[i + 1] = (char *)arguments[i];
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, pair[1], LINK_FD);   /* dup2 clears close-on-exec, also onto itself */
        posix_spawnattr_init(&attributes);
        sigemptyset(&none);
        posix_spawnattr_setsigmask(&attributes, &none);
        /* A process group of its own: a Ctrl-C at the terminal ends the broker, not the holders behind its back. */
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
        r = posix_spawn(&pid, program, &actions, &attributes, argv, environ);
        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
        close(pair[1]);
        if (r != 0) {
                close(pair[0]);
                return -r;
        }
        *ret_pid = (uint32_t)pid;
        return pair[0];
}

int holder_start(const struct broker_options *options, uint32_t *ret_pid) {
        const char *arguments[HOLDER_ARGUMENTS] = { NULL };
        char range[64], group[64];
        size_t n = 0;

        *ret_pid = 0;
        if (options->holder_socket)
                return connect_to(options->holder_socket);
        /* what the unit of a service manager says on its command line: the ids that a holder may be told to take */
        if (options->holder_uid_first <= options->holder_uid_last) {
                (void)snprintf(range, sizeof range, "--uid-range=%u-%u", options->holder_uid_first, options->holder_uid_last);
                arguments[n++] = range;
                (void)snprintf(group, sizeof group, "--reconnect-group=%u", options->holder_gid);
                if (options->holder_gid != UINT32_MAX)
                        arguments[n++] = group;
        }
        return holder_spawn(options->holder_program, arguments, ret_pid);
}

static int read_start_time(uint32_t pid, uint64_t *ret) {
        char path[64], text[1024], *after_name;
        _cleanup_close_ int fd = -1;
        unsigned long long start;
        ssize_t n;

        (void)snprintf(path, sizeof path, "/proc/%u/stat", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -ESRCH;
        n = read(fd, text, sizeof text - 1);
        if (n <= 0)
                return -ESRCH;
        text[n] = '\0';
        /* field 2 is the name in parentheses and may hold anything; 20 fields after its end comes the start time */
        after_name = strrchr(text, ')');
        if (!after_name || sscanf(after_name + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
                                                  "%*d %llu", &start) != 1)
                return -ESRCH;
        *ret = start;
        return 0;
}

int holder_identify(uint32_t pid, uint32_t uid, uint64_t *ret_start_time) {
        _cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
        char path[64];
        struct stat st;

        if (pidfd < 0)
                return -ESRCH;
        (void)snprintf(path, sizeof path, "/proc/%u", pid);
        if (stat(path, &st) < 0 || read_start_time(pid, ret_start_time) < 0)
                return -ESRCH;
        /* A process that is not dumpable has its /proc entries owned by root: its uid cannot be told from here, and the link
         * it spoke on is the proof. */
        if (st.st_uid != 0 && st.st_uid != (uid == UINT32_MAX ? geteuid() : uid))
                return -EPERM;
        return fd_steal(&pidfd);
}

void holder_kill(int pidfd) {
        if (pidfd >= 0 && syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
                log_error("cannot kill a holder: %m (the service needs CAP_KILL where holders have uids of their own)");
}

int holder_wait(int pidfd, int timeout_ms) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };
        siginfo_t info;
        int n;

        if (pidfd < 0)
                return 1;
        do
                n = poll(&p, 1, timeout_ms);
        while (n < 0 && errno == EINTR);
        if (n <= 0)
                return 0;
        waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG);       /* ECHILD: not our child, nothing to reap */
        return 1;
}
