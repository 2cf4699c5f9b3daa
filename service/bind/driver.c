/* SPDX-License-Identifier: Apache-2.0 */
#include "bind/driver.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/log.h"

#define DEVICE "%s/bus/pci/devices/%s/%s"
#define CLASS_BRIDGE 0x06UL
#define ROOM (PATH_MAX / 4)             /* for a path: sysfs, an address, a driver */

static int write_attribute(const char *path, const char *text) {
        _cleanup_close_ int fd = open(path, O_WRONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                return -errno;
        n = write(fd, text, strlen(text));
        return n < 0 ? -errno : (size_t)n == strlen(text) ? 0 : -EIO;
}

static int put(const struct driver_tree *t, const char *path, const char *text) {
        int error = (t->write ? t->write : write_attribute)(path, text);

        log_debug("%s <- %s: %s", path, text[0] == '\n' ? "(empty)" : text, error < 0 ? strerror(-error) : "ok");
        return error;
}

static int put_device(const struct driver_tree *t, const char *address, const char *attribute, const char *text) {
        char path[ROOM];

        (void)snprintf(path, sizeof path, DEVICE, t->sysfs, address, attribute);
        return put(t, path, text);
}

static int put_driver(const struct driver_tree *t, const char *driver, const char *attribute, const char *address) {
        char path[ROOM];

        (void)snprintf(path, sizeof path, "%s/bus/pci/drivers/%s/%s", t->sysfs, driver, attribute);
        return put(t, path, address);
}

static int put_probe(const struct driver_tree *t, const char *address) {
        char path[ROOM];

        (void)snprintf(path, sizeof path, "%s/bus/pci/drivers_probe", t->sysfs);
        return put(t, path, address);
}

static int refuse_errno(struct refusal *r, int error, const char *address, const char *what) {
        refuse(r, REFUSAL_BACKEND_REFUSED, "%s: %s: %s", address, what, strerror(-error));
        r->errnum = -error;
        return -1;
}

/* ---- reading ---- */

static bool read_text(const struct driver_tree *t, const char *address, const char *attribute, char *ret, size_t size) {
        char path[ROOM];
        _cleanup_close_ int fd = -1;
        ssize_t n;

        (void)snprintf(path, sizeof path, DEVICE, t->sysfs, address, attribute);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, ret, size - 1);
        ret[n > 0 ? n : 0] = '\0';
        ret[strcspn(ret, "\n")] = '\0';
        return n > 0;
}

/* The last component of where a link of the device goes; "" if there is none. */
static void read_link(const struct driver_tree *t, const char *address, const char *name, char ret[DRIVER_NAME_MAX]) {
        char path[ROOM], target[PATH_MAX];
        const char *slash;
        ssize_t n;

        (void)snprintf(path, sizeof path, DEVICE, t->sysfs, address, name);
        n = readlink(path, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        slash = strrchr(target, '/');
        (void)snprintf(ret, DRIVER_NAME_MAX, "%.*s", (int)DRIVER_NAME_MAX - 1, slash ? slash + 1 : target);
}

static bool is_bound_to(const struct driver_tree *t, const char *address, const char *driver) {
        char now[DRIVER_NAME_MAX];

        read_link(t, address, "driver", now);
        return strcmp(now, driver) == 0;
}

static bool driver_exists(const struct driver_tree *t, const char *driver) {
        char path[ROOM];

        (void)snprintf(path, sizeof path, "%s/bus/pci/drivers/%s", t->sysfs, driver);
        return access(path, F_OK) == 0;
}

bool driver_name_is_valid(const char *name) {
        size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.");

        return n > 0 && n < DRIVER_NAME_MAX && name[n] == '\0' && name[0] != '.';
}

int driver_describe(const struct driver_tree *t, const char *address, struct driver_device *ret, struct refusal *r) {
        char vendor[32], device[32], class[32], group[DRIVER_NAME_MAX];
        struct driver_device d = { 0 };

        if (!read_text(t, address, "vendor", vendor, sizeof vendor) ||
            !read_text(t, address, "device", device, sizeof device) ||
            !read_text(t, address, "class", class, sizeof class))
                return refuse(r, REFUSAL_UNKNOWN_DEVICE, "there is no PCI device %s", address);
        (void)snprintf(d.vendor_device, sizeof d.vendor_device, "%04lx:%04lx", strtoul(vendor, NULL, 16) & 0xffff,
                       strtoul(device, NULL, 16) & 0xffff);
        d.bridge = (strtoul(class, NULL, 16) >> 16 & 0xff) == CLASS_BRIDGE;
        read_link(t, address, "driver", d.driver);
        read_link(t, address, "iommu_group", group);
        d.has_group = group[0] != '\0';
        *ret = d;
        return 0;
}

/* ---- changing ---- */

/* Back to how it was: the override first, so that what is probed now is not caught by ours. */
static void undo(const struct driver_tree *t, const char *address, const struct driver_device *d, const char *override,
                 struct refusal *r) {
        size_t used;
        int error;

        (void)put_device(t, address, "driver_override", override);
        if (is_bound_to(t, address, d->driver))
                return;
        if (!is_bound_to(t, address, ""))
                (void)put_device(t, address, "driver/unbind", address);
        if (d->driver[0] == '\0')
                return;
        error = put_driver(t, d->driver, "bind", address);
        if (error == 0 && is_bound_to(t, address, d->driver))
                return;
        used = strlen(r->text);
        (void)snprintf(r->text + used, sizeof r->text - used, "; its driver %s did not take it back: %s", d->driver,
                       error < 0 ? strerror(-error) : "no reason given");
}

int driver_to_vfio(const struct driver_tree *t, const char *address, const struct driver_device *d, struct refusal *r) {
        char override[DRIVER_NAME_MAX];
        int error;

        if (strcmp(d->driver, DRIVER_VFIO) == 0)
                return 0;
        if (!driver_exists(t, DRIVER_VFIO))
                return refuse(r, REFUSAL_BACKEND_REFUSED, "the kernel has no driver " DRIVER_VFIO " loaded: modprobe "
                              DRIVER_VFIO);
        /* the kernel writes "(null)" for none, and takes "\n" for it */
        if (!read_text(t, address, "driver_override", override, sizeof override) || override[0] == '\0' ||
            strcmp(override, "(null)") == 0)
                strcpy(override, "\n");
        error = put_device(t, address, "driver_override", DRIVER_VFIO);
        if (error < 0)
                return refuse_errno(r, error, address, "cannot set driver_override");
        if (d->driver[0] != '\0') {
                error = put_device(t, address, "driver/unbind", address);
                if (error < 0) {
                        refuse_errno(r, error, address, "its driver does not let go of it");
                        undo(t, address, d, override, r);
                        return -1;
                }
        }
        error = put_probe(t, address);
        if (error < 0 || !is_bound_to(t, address, DRIVER_VFIO)) {
                refuse_errno(r, error < 0 ? error : -ENODEV, address, DRIVER_VFIO " did not take it (see dmesg)");
                undo(t, address, d, override, r);
                return -1;
        }
        return 0;
}

int driver_restore(const struct driver_tree *t, const char *address, const struct driver_device *d, const char *driver,
                   struct refusal *r) {
        int error;

        if (strcmp(driver, DRIVER_VFIO) == 0 && strcmp(d->driver, DRIVER_VFIO) == 0)
                return 0;               /* it was there before us */
        /* only what came to vfio-pci goes back: this is no way to take devices from other drivers */
        if (d->driver[0] != '\0' && strcmp(d->driver, DRIVER_VFIO) != 0)
                return refuse(r, REFUSAL_NOT_PERMITTED, "%s belongs to the driver %s, not to " DRIVER_VFIO, address,
                              d->driver);
        error = put_device(t, address, "driver_override", "\n");
        if (error < 0)
                return refuse_errno(r, error, address, "cannot clear driver_override");
        if (d->driver[0] != '\0') {
                error = put_device(t, address, "driver/unbind", address);
                if (error < 0)
                        return refuse_errno(r, error, address, DRIVER_VFIO " does not let go of it");
        }
        if (driver[0] != '\0' && driver_exists(t, driver) && put_driver(t, driver, "bind", address) == 0 &&
            is_bound_to(t, address, driver))
                return 0;
        /* the driver may be unloaded, or may know the device only by an id that was added at run time */
        error = put_probe(t, address);
        if (driver[0] == '\0' || is_bound_to(t, address, driver))
                return 0;
        return refuse_errno(r, error < 0 ? error : -ENODEV, address,
                            "it was released by " DRIVER_VFIO
                            ", but its former driver did not take it (is its module loaded?)");
}
