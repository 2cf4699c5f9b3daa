/* SPDX-License-Identifier: Apache-2.0 */
#include "core/bind_client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "util/cleanup.h"
#include "util/fdmsg.h"
#include "util/pci.h"

#define UNIT "iommud-bind.socket"

static int refuse_errno(struct refusal *r, enum refusal_reason reason, int error, const char *path,
                        const char *advice) {
        refuse(r, reason, "the helper that changes drivers does not answer at %s: %s%s", path, strerror(error), advice);
        r->errnum = error;
        return -1;
}

static int connect_helper(const char *path, uint32_t deadline_ms, int *ret_fd, struct refusal *r) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        struct timeval deadline = { .tv_sec = deadline_ms / 1000, .tv_usec = (suseconds_t)(deadline_ms % 1000) * 1000 };
        _cleanup_close_ int fd = -1;

        if (!path)
                return refuse(r, REFUSAL_UNSUPPORTED,
                              "this service has no helper that changes drivers (" UNIT "): bind the device to vfio-pci "
                              "yourself, for example with driverctl");
        if (strlen(path) >= sizeof address.sun_path)
                return refuse(r, REFUSAL_UNSUPPORTED, "the path of the helper's socket is too long: %s", path);
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &deadline, sizeof deadline) < 0 ||
            setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline) < 0)
                return refuse_errno(r, REFUSAL_INTERNAL, errno, path, "");
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
                return refuse_errno(r, REFUSAL_UNSUPPORTED, errno, path,
                                    "; start it with: systemctl enable --now " UNIT
                                    ", or bind the device to vfio-pci yourself");
        *ret_fd = fd_steal(&fd);
        return 0;
}

static int receive_answer(int fd, const char *path, struct bind_answer *ret, struct refusal *r) {
        int fds[FDMSG_MAX_FDS];
        ssize_t n = fdmsg_receive(fd, ret, sizeof *ret, fds, 0);

        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                fd_close(fds[i]);
        if (n == -EAGAIN)
                return refuse_errno(r, REFUSAL_DEVICE_BUSY, ETIMEDOUT, path,
                                    "; the device may still be changing hands, see: iommuctl device list");
        if (n < 0)
                return refuse_errno(r, REFUSAL_BACKEND_REFUSED, (int)-n, path, "");
        if (n == 0)
                return refuse(r, REFUSAL_BACKEND_REFUSED,
                              "the helper that changes drivers hung up; see: journalctl -u 'iommud-bind@*'");
        if ((size_t)n != sizeof *ret || ret->version != 1)
                return refuse(r, REFUSAL_BACKEND_REFUSED,
                              "the helper that changes drivers is of another version (answer of %zd bytes)", n);
        ret->original_driver[sizeof ret->original_driver - 1] = '\0';
        ret->text[sizeof ret->text - 1] = '\0';
        return 0;
}

int bind_client_call(const char *socket, enum bind_action action, const char *device, const char *driver,
                     uint32_t deadline_ms, char original_driver[64], struct refusal *r) {
        struct bind_request request = { .version = 1, .action = (uint32_t)action };
        struct bind_answer answer;
        _cleanup_close_ int fd = -1;
        int error;

        if (!pci_address_is_valid(device))
                return refuse(r, REFUSAL_UNKNOWN_DEVICE, "'%s' is not a PCI address like 0000:00:05.0", device);
        if (driver && strlen(driver) >= sizeof request.driver)
                return refuse(r, REFUSAL_BAD_NAME, "the name of the driver is too long: %s", driver);
        strcpy(request.device, device);
        strcpy(request.driver, driver ? driver : "");
        if (connect_helper(socket, deadline_ms, &fd, r) < 0)
                return -1;
        error = fdmsg_send(fd, &request, sizeof request, NULL, 0, 0);
        if (error < 0)
                return refuse_errno(r, REFUSAL_BACKEND_REFUSED, -error, socket, "");
        if (receive_answer(fd, socket, &answer, r) < 0)
                return -1;
        if (answer.reason != REFUSAL_NONE) {
                refuse(r, (enum refusal_reason)answer.reason, "%s", answer.text);
                r->errnum = answer.errnum;
                return -1;
        }
        if (original_driver)
                strcpy(original_driver, answer.original_driver);
        return 0;
}
