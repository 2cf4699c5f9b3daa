/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/holder_start.h"
#include "core/session_start.h"
#include "holder/discard.h"
#include "util/cleanup.h"
#include "util/fdmsg.h"
#include "util/log.h"
#include "util/text.h"

/*
 * The broker's end of the disposable process that closes refused connections (iommud-holder --discard). When it is stuck
 * in a close its queue fills; then it is killed and another one takes its place. A connection that cannot be handed over
 * even then is leaked on purpose, a bounded number of times, rather than closed by us.
 */
struct discarder {
        pthread_mutex_t lock;           /* protects what follows; leaf */
        const char *program;
        int fd, pidfd;
        unsigned leaked;
};

#define LEAKED_MAX 64U

struct discarder *discarder_new(const char *holder_program) {
        struct discarder *d = calloc(1, sizeof *d);

        if (!d)
                return NULL;
        pthread_mutex_init(&d->lock, NULL);
        d->program = holder_program;
        d->fd = d->pidfd = -1;
        return d;
}

static void stop(struct discarder *d) {
        d->fd = fd_close(d->fd);
        holder_kill(d->pidfd);
        holder_wait(d->pidfd, 100);
        d->pidfd = fd_close(d->pidfd);
}

static bool start(struct discarder *d) {
        static const char *const arguments[HOLDER_ARGUMENTS] = { "--discard" };
        uint64_t start_time;
        uint32_t pid;

        d->fd = holder_spawn(d->program, arguments, &pid);
        if (d->fd < 0) {
                log_error("cannot start %s --discard: %s", d->program, strerror(-d->fd));
                d->fd = -1;
                return false;
        }
        d->pidfd = holder_identify(pid, UINT32_MAX, &start_time);
        return true;
}

static int hand_over(struct discarder *d, int connection, const struct discard_message *request) {
        int r;

        if (d->fd < 0 && !start(d))
                return -1;
        r = fdmsg_send(d->fd, request, sizeof *request, &connection, 1, MSG_DONTWAIT);
        if (r < 0) {
                stop(d);
                if (!start(d))
                        return -1;
                r = fdmsg_send(d->fd, request, sizeof *request, &connection, 1, MSG_DONTWAIT);
        }
        return r;
}

void discarder_refuse(struct discarder *d, int connection, enum refusal_reason reason, const char *text) {
        static const char gone[] = DISCARD_GONE;
        struct discard_message request = { .reason = (uint32_t)reason };
        LOCK_SCOPE(&d->lock);

        if (connection < 0)
                return;
        text_copy(request.text, sizeof request.text, text);
        if (hand_over(d, connection, &request) < 0) {
                if (d->leaked++ < LEAKED_MAX) {
                        log_error("a refused connection stays open: no process could be found to close it");
                        return;
                }
                shutdown(connection, SHUT_RDWR);
        }
        fd_close(connection);
        fdmsg_send(d->fd, gone, DISCARD_GONE_SIZE, NULL, 0, MSG_DONTWAIT);
}

struct discarder *discarder_free(struct discarder *d) {
        if (!d)
                return NULL;
        d->fd = fd_close(d->fd);        /* it ends with its link, after what is queued */
        if (d->pidfd >= 0 && !holder_wait(d->pidfd, 200))
                stop(d);
        d->pidfd = fd_close(d->pidfd);
        pthread_mutex_destroy(&d->lock);
        free(d);
        return NULL;
}
