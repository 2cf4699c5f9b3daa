/* SPDX-License-Identifier: Apache-2.0 */
#include "degraded.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/broker.h"
#include "transport/transport.h"
#include "util/cleanup.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77         /* Linux 6.5; Debian 12's headers are older */
#endif
#ifndef SYS_cachestat
#define SYS_cachestat 451       /* Linux 6.5, the same number on every architecture */
#endif

static bool has_peer_pidfd(void) {
        _cleanup_close_ int pidfd = -1;
        socklen_t size = sizeof pidfd;
        int pair[2];
        bool has;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
                return false;
        has = getsockopt(pair[0], SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) == 0;
        if (!has)
                pidfd = -1;
        close(pair[0]);
        close(pair[1]);
        return has;
}

static bool has_cachestat(void) {
        return syscall(SYS_cachestat, -1, NULL, NULL, 0) < 0 && errno != ENOSYS;
}

void degraded_note(struct broker *b, const struct config *config) {
        if (!has_peer_pidfd())
                broker_note_degraded(b, "no SO_PEERPIDFD (Linux 6.5): a client's process is identified by pid and start time read "
                                        "after accept, and rules by cgroup are refused");
        if (!has_cachestat())
                broker_note_degraded(b, "no cachestat (Linux 6.5): whether memory is populated is judged for the whole object");
        broker_note_degraded(b, transport_degraded());
        if (config->holder_uid_first > config->holder_uid_last)
                broker_note_degraded(b, "holders run with the service's own uid and in its cgroup (holder_uids is not set): they "
                                        "are not fenced from each other by the kernel, and what they pin is charged to the "
                                        "service");
        else if (config->holder_gid == CONFIG_GID_NONE)
                broker_note_degraded(b, "holders have uids of their own but no group (holder_group is not set, and there is no "
                                        "group iommud-holder): they cannot come back to a restarted service, which ends their "
                                        "sessions");
}
