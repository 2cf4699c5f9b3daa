/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/discard.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "util/cleanup.h"
#include "util/fdmsg.h"
#include "util/log.h"

struct pending {
        int fd;
        struct session_msg msg;
};

struct discard {
        struct pending pending[DISCARD_PENDING_MAX];    /* ring: first announced, first gone */
        size_t first, n;
};

/* Enough for what an honest client can have sent before it heard of the refusal; a flood gets a reset, and may. */
#define DRAIN_MESSAGES 64

/* A unix socket that is closed with unread messages in it resets its peer, who then reads ECONNRESET in place of the
 * reason. So they are read first, with the fds in them. */
static void drain(int fd) {
        for (int i = 0; i < DRAIN_MESSAGES; i++) {
                struct session_msg msg;
                int fds[FDMSG_MAX_FDS];
                ssize_t n = fdmsg_receive(fd, &msg, sizeof msg, fds, MSG_DONTWAIT);

                for (size_t k = 0; k < FDMSG_MAX_FDS; k++)
                        fd_close(fds[k]);
                if (n == 0 || (n < 0 && n != -EMSGSIZE && n != -EPROTO))
                        return;
        }
}

static void refuse_first(struct discard *d) {
        struct pending *p = &d->pending[d->first];

        (void)fdmsg_send(p->fd, &p->msg, sizeof p->msg, NULL, 0, MSG_DONTWAIT);
        (void)shutdown(p->fd, SHUT_RDWR);
        drain(p->fd);
        p->fd = fd_close(p->fd);
        d->first = (d->first + 1) % DISCARD_PENDING_MAX;
        d->n--;
}

static bool announce(struct discard *d, const struct discard_message *m, int *fd) {
        struct pending *p = &d->pending[(d->first + d->n) % DISCARD_PENDING_MAX];

        if (*fd < 0 || d->n == DISCARD_PENDING_MAX)
                return false;
        p->fd = fd_steal(fd);
        p->msg = (struct session_msg){ .version = SESSION_CHANNEL_VERSION, .type = SESSION_REFUSED,
                                       .reason = m->reason };
        memcpy(p->msg.text, m->text, sizeof p->msg.text);
        p->msg.text[sizeof p->msg.text - 1] = '\0';
        d->n++;
        return true;
}

/* One message of the broker. False: it does not fit, the link is over. */
static bool receive_one(struct discard *d, int link_fd, bool *ret_end) {
        struct discard_message m;
        int fds[FDMSG_MAX_FDS];
        ssize_t n = fdmsg_receive(link_fd, &m, sizeof m, fds, 0);
        bool ok = false;

        *ret_end = n == 0 || n == -ECONNRESET;
        if (n == (ssize_t)DISCARD_GONE_SIZE && fds[0] < 0 && memcmp(&m, DISCARD_GONE, DISCARD_GONE_SIZE) == 0) {
                ok = d->n > 0;
                if (ok)
                        refuse_first(d);
        } else if (n == (ssize_t)sizeof m && fds[1] < 0)
                ok = announce(d, &m, &fds[0]);
        for (size_t k = 0; k < FDMSG_MAX_FDS; k++)
                fd_close(fds[k]);
        return ok;
}

int discard_run(int link_fd) {
        struct discard d = { .n = 0 };
        bool end = false;

        while (receive_one(&d, link_fd, &end))
                ;
        if (!end)
                log_error("the link of the discard process brought something that does not fit");
        while (d.n > 0)
                refuse_first(&d);       /* the broker is gone, so are its copies */
        return end ? EXIT_SUCCESS : EXIT_FAILURE;
}
