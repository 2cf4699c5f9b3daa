/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "device.h"
#include "error.h"
#include "fd_message.h"
#include "soft_device.h"
#include "util/cleanup.h"

static int hung_up(void) {
        return sdk_fail(-EIO, 0, "the software device is gone; was it detached or taken back?");
}

/* Waits for the answer with the request's cookie. Answers to requests that were given up are skipped. */
static int soft_answer(struct iommud_attachment *a, uint64_t cookie, int64_t deadline, struct soft_access *ret) {
        for (;;) {
                _cleanup_close_ int fd = -1;
                ssize_t n = fd_message_receive(a->fd, ret, sizeof *ret, &fd, deadline);

                if (n == -ETIMEDOUT)
                        return sdk_fail(-ETIMEDOUT, 0, "the software device did not answer in time");
                if (n <= 0)
                        return hung_up();
                if (n == sizeof *ret && ret->cookie == cookie)
                        return 0;
        }
}

static int soft_ask(struct iommud_attachment *a, struct soft_access *m, int64_t deadline) {
        int r;

        m->cookie = ++a->last_cookie;
        r = fd_message_send(a->fd, m, sizeof *m, -1, deadline);
        if (r == -ETIMEDOUT)
                return sdk_fail(-ETIMEDOUT, 0, "the software device does not take requests");
        if (r < 0)
                return hung_up();
        r = soft_answer(a, m->cookie, deadline, m);
        if (r < 0)
                return r;
        if (m->error != 0) {
                int error = m->error < 0 ? m->error : -EIO;

                return sdk_fail(error, 0, "the software device refused the access: %s", strerror(-error));
        }
        return 0;
}

static int soft_describe(struct iommud_attachment *a, uint32_t region, int64_t deadline, struct device_region *ret) {
        struct soft_access m = { .op = SOFT_INFO, .region = region };
        int r = soft_ask(a, &m, deadline);

        if (r < 0)
                return r;
        ret->size = m.value;
        return 0;
}

static int soft_access_region(struct iommud_attachment *a, struct device_access *access, int64_t deadline) {
        struct soft_access m = { .op = access->write ? SOFT_WRITE : SOFT_READ, .region = access->region,
                                 .size = access->width, .offset = access->offset, .value = access->value };
        int r = soft_ask(a, &m, deadline);

        if (r < 0)
                return r;
        access->value = m.value;
        return 0;
}

const struct device_ops device_soft_ops = {
        .describe = soft_describe,
        .access = soft_access_region,
};
