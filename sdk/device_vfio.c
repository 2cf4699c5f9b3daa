/* SPDX-License-Identifier: Apache-2.0 */
#include <endian.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "device.h"
#include "error.h"

static int vfio_describe(struct iommud_attachment *a, uint32_t region, int64_t deadline, struct device_region *ret) {
        struct vfio_region_info info = { .argsz = sizeof info, .index = region };

        (void)deadline;         /* the kernel answers at once */
        if (ioctl(a->fd, VFIO_DEVICE_GET_REGION_INFO, &info) < 0) {
                /* A device need not have all regions of its kind (VGA). */
                if (errno != EINVAL)
                        return sdk_fail(-errno, 0, "the kernel does not describe region %u: %s", region,
                                        strerror(errno));
                info.size = 0;
        }
        ret->size = info.size;
        ret->offset = info.offset;
        return 0;
}

/* The device's bytes are little-endian, as PCI wants it, whatever the host is. */
static int vfio_access(struct iommud_attachment *a, struct device_access *access, int64_t deadline) {
        off_t at = (off_t)(a->regions[access->region].offset + access->offset);
        uint64_t bytes = htole64(access->value);
        ssize_t n;

        (void)deadline;
        do {
                if (access->write)
                        n = pwrite(a->fd, &bytes, access->width, at);
                else {
                        bytes = 0;
                        n = pread(a->fd, &bytes, access->width, at);
                }
        } while (n < 0 && errno == EINTR);
        if (n != (ssize_t)access->width) {
                int error = n < 0 ? errno : EIO;

                return sdk_fail(-error, 0, "%s %u bytes at %#llx of region %u failed: %s%s",
                                access->write ? "writing" : "reading", access->width,
                                (unsigned long long)access->offset, access->region, strerror(error),
                                error == EIO ? " (is memory space enabled in the device's command register?)" : "");
        }
        access->value = le64toh(bytes);
        return 0;
}

const struct device_ops device_vfio_ops = {
        .describe = vfio_describe,
        .access = vfio_access,
};
