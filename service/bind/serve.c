/* SPDX-License-Identifier: Apache-2.0 */
#include "bind/serve.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "bind/allow.h"
#include "util/cleanup.h"
#include "util/fdmsg.h"
#include "util/log.h"
#include "util/pci.h"

#define REQUEST_SECONDS 5               /* for the request to come */

static int check(const struct serve_options *o, const struct bind_request *q, struct driver_device *d,
                 struct refusal *r) {
        if (!pci_address_is_valid(q->device))
                return refuse(r, REFUSAL_UNKNOWN_DEVICE, "that is not a PCI address like 0000:00:05.0");
        if (q->driver[0] != '\0' && !driver_name_is_valid(q->driver))
                return refuse(r, REFUSAL_BAD_NAME, "that is not the name of a driver");
        if (driver_describe(&o->tree, q->device, d, r) < 0 ||
            allow_check(o->allow_file, q->device, d->vendor_device, r) < 0)
                return -1;
        if (d->bridge)
                return refuse(r, REFUSAL_NOT_PERMITTED, "%s is a bridge; what is behind it would be cut off",
                              q->device);
        if (!d->has_group)
                return refuse(r, REFUSAL_GROUP_NOT_VIABLE, "%s is not behind an IOMMU (intel_iommu=on, amd_iommu=on?)",
                              q->device);
        return 0;
}

static int act(const struct serve_options *o, const struct bind_request *q, struct bind_answer *ret,
               struct refusal *r) {
        struct driver_device d;

        if (q->version != 1)
                return refuse(r, REFUSAL_BAD_MESSAGE, "the request has version %u, not 1", q->version);
        if (memchr(q->device, '\0', sizeof q->device) == NULL || memchr(q->driver, '\0', sizeof q->driver) == NULL)
                return refuse(r, REFUSAL_BAD_MESSAGE, "a name in the request does not end");
        if (check(o, q, &d, r) < 0)
                return -1;
        if (q->action == BIND_TO_VFIO) {
                strcpy(ret->original_driver, d.driver);
                return driver_to_vfio(&o->tree, q->device, &d, r);
        }
        if (q->action == BIND_RESTORE)
                return driver_restore(&o->tree, q->device, &d, q->driver, r);
        return refuse(r, REFUSAL_BAD_MESSAGE, "there is no action %u", q->action);
}

static void answer_refusal(const struct refusal *r, struct bind_answer *ret) {
        ret->reason = (uint32_t)r->reason;
        ret->errnum = r->errnum;
        (void)snprintf(ret->text, sizeof ret->text, "%s", r->text);
}

void serve_request(const struct serve_options *o, const struct bind_request *q, struct bind_answer *ret) {
        struct refusal r = { 0 };

        *ret = (struct bind_answer){ .version = 1 };
        if (act(o, q, ret, &r) < 0) {
                memset(ret->original_driver, 0, sizeof ret->original_driver);
                answer_refusal(&r, ret);
                log_notice("refused: %s", r.text);
                return;
        }
        if (q->action == BIND_TO_VFIO)
                log_notice("%s: from driver '%s' to " DRIVER_VFIO, q->device, ret->original_driver);
        else
                log_notice("%s: from " DRIVER_VFIO " to driver '%s'", q->device, q->driver);
}

/* In a process of its own: a device that somebody still has open makes vfio-pci's unbind wait in a way that no signal
 * ends. We answer and leave; the child does the rest when the device comes free. */
static void serve_in_child(const struct serve_options *o, const struct bind_request *q, int connection,
                           struct bind_answer *ret) {
        struct refusal r;
        int ends[2];
        pid_t pid;

        *ret = (struct bind_answer){ .version = 1 };
        if (pipe(ends) < 0 || (pid = fork()) < 0) {
                refuse(&r, REFUSAL_INTERNAL, "cannot start the work: %s", strerror(errno));
                answer_refusal(&r, ret);
                return;
        }
        if (pid == 0) {
                close(connection);
                close(ends[0]);
                serve_request(o, q, ret);
                /* nobody may be there to read it any more: SIGPIPE is fine */
                _exit(write(ends[1], ret, sizeof *ret) == sizeof *ret ? 0 : 1);
        }
        close(ends[1]);
        if (poll(&(struct pollfd){ .fd = ends[0], .events = POLLIN }, 1, (int)o->deadline_seconds * 1000) == 0) {
                refuse(&r, REFUSAL_DEVICE_BUSY,
                       "%.12s: the kernel still waits after %u s: somebody has the device open; it "
                       "changes hands when that ends",
                       q->device, o->deadline_seconds);
                answer_refusal(&r, ret);
        } else if (read(ends[0], ret, sizeof *ret) != sizeof *ret) {
                refuse(&r, REFUSAL_INTERNAL, "the work ended without a result");
                *ret = (struct bind_answer){ .version = 1 };
                answer_refusal(&r, ret);
        }
        close(ends[0]);
}

static int receive_request(int fd, struct bind_request *ret) {
        const struct timeval limit = { .tv_sec = REQUEST_SECONDS };
        int fds[FDMSG_MAX_FDS];
        ssize_t n;

        if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) < 0 ||
            setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0)
                return -errno;
        n = fdmsg_receive(fd, ret, sizeof *ret, fds, 0);
        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                fd_close(fds[i]);
        return n < 0 ? (int)n : (size_t)n == sizeof *ret ? 0 : -EBADMSG;
}

int serve_connection(const struct serve_options *o, int fd) {
        struct bind_request q;
        struct bind_answer answer;
        struct ucred peer;
        socklen_t size = sizeof peer;
        int error;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return -errno;
        if (peer.uid != o->broker_uid) {
                log_warning("pid %d of uid %u asked; only uid %u may", (int)peer.pid, (unsigned)peer.uid,
                            (unsigned)o->broker_uid);
                return -EPERM;
        }
        error = receive_request(fd, &q);
        if (error < 0)
                return error;
        serve_in_child(o, &q, fd, &answer);
        return fdmsg_send(fd, &answer, sizeof answer, NULL, 0, 0);
}
