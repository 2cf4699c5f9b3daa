/* SPDX-License-Identifier: Apache-2.0 */
#include "core/inventory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/pci.h"

#define CLASS_BRIDGE 0x06U              /* PCI base class */

static void cleanup_closedir_p(DIR **d) {
        if (*d)
                closedir(*d);
}
#define _cleanup_closedir_ _cleanup_(cleanup_closedir_p)

bool inventory_is_pci_address(const char *name) {
        return pci_address_is_valid(name);
}

static int refuse_errno(struct refusal *r, int error, const char *what) {
        refuse(r, REFUSAL_INTERNAL, "%s: %s", what, strerror(error));
        r->errnum = error;
        return -1;
}

/* A hexadecimal attribute ("0x8086\n") of a device. False when it is absent or something else. */
static bool read_hex(int device, const char *attribute, unsigned long *ret) {
        _cleanup_close_ int fd = openat(device, attribute, O_RDONLY | O_CLOEXEC);
        char text[32], *end;
        ssize_t n;

        if (fd < 0)
                return false;
        n = read(fd, text, sizeof text - 1);
        if (n <= 0)
                return false;
        text[n] = '\0';
        *ret = strtoul(text, &end, 16);
        return end != text && (*end == '\n' || *end == '\0');
}

/* The driver is the last component of where the link goes. */
static void read_driver(int device, char ret[INVENTORY_NAME_MAX]) {
        char target[PATH_MAX];
        ssize_t n = readlinkat(device, "driver", target, sizeof target - 1);
        const char *name;

        ret[0] = '\0';
        if (n <= 0)
                return;
        target[n] = '\0';
        name = strrchr(target, '/');
        (void)snprintf(ret, INVENTORY_NAME_MAX, "%.*s", (int)INVENTORY_NAME_MAX - 1, name ? name + 1 : target);
}

/* One member of a group: an entry of iommu_groups/N/devices. */
static int read_device(struct inventory *i, int devices, const char *name, uint32_t group, struct refusal *r) {
        _cleanup_close_ int dir = openat(devices, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        unsigned long vendor = 0, device = 0, class = 0;
        struct inventory_device *more, *d;

        if (dir < 0)            /* went away meanwhile */
                return errno == ENOENT ? 0 : refuse_errno(r, errno, name);
        more = reallocarray(i->devices, i->n + 1, sizeof *more);
        if (!more)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        i->devices = more;
        d = &more[i->n++];
        *d = (struct inventory_device){ .group = group };
        strcpy(d->name, name);  /* read_group() has looked at the length */
        read_driver(dir, d->driver);
        if (read_hex(dir, "vendor", &vendor) && read_hex(dir, "device", &device))
                (void)snprintf(d->vendor_device, sizeof d->vendor_device, "%04lx:%04lx", vendor & 0xffff,
                               device & 0xffff);
        d->bridge = read_hex(dir, "class", &class) && (class >> 16 & 0xff) == CLASS_BRIDGE;
        return 0;
}

/* Groups hold platform devices too; they are listed, because they decide whether a group can be used. */
static int read_group(struct inventory *i, int groups, const char *number, struct refusal *r) {
        char path[INVENTORY_NAME_MAX];
        _cleanup_closedir_ DIR *dir = NULL;
        unsigned long group;
        struct dirent *e;
        char *end;
        int fd;

        group = strtoul(number, &end, 10);
        if (*end != '\0' || group > UINT32_MAX || strlen(number) > 10)
                return 0;
        (void)snprintf(path, sizeof path, "%.10s/devices", number);
        fd = openat(groups, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : refuse_errno(r, errno, path);
        dir = fdopendir(fd);
        if (!dir) {
                fd_close(fd);
                return refuse_errno(r, errno, path);
        }
        while ((e = readdir(dir)))
                if (e->d_name[0] != '.' && strlen(e->d_name) < INVENTORY_NAME_MAX &&
                    read_device(i, dirfd(dir), e->d_name, (uint32_t)group, r) < 0)
                        return -1;
        return 0;
}

static int compare(const void *a, const void *b) {
        const struct inventory_device *x = a, *y = b;

        if (x->group != y->group)
                return x->group < y->group ? -1 : 1;
        return strcmp(x->name, y->name);
}

static int read_groups(struct inventory *i, const char *sysfs, struct refusal *r) {
        _cleanup_closedir_ DIR *dir = NULL;
        char path[PATH_MAX];
        struct dirent *e;

        if ((size_t)snprintf(path, sizeof path, "%s/kernel/iommu_groups", sysfs) >= sizeof path)
                return refuse(r, REFUSAL_INTERNAL, "the path of sysfs is too long");
        dir = opendir(path);
        if (!dir)               /* a kernel or a machine without an IOMMU */
                return errno == ENOENT ? 0 : refuse_errno(r, errno, path);
        while ((e = readdir(dir)))
                if (e->d_name[0] != '.' && read_group(i, dirfd(dir), e->d_name, r) < 0)
                        return -1;
        if (i->n > 1)
                qsort(i->devices, i->n, sizeof *i->devices, compare);
        return 0;
}

int inventory_read(const char *sysfs, struct inventory *ret, struct refusal *r) {
        struct inventory i = { 0 };

        if (read_groups(&i, sysfs, r) < 0) {
                inventory_clear(&i);
                return -1;
        }
        *ret = i;
        return 0;
}

void inventory_clear(struct inventory *i) {
        if (!i)
                return;
        free(i->devices);
        *i = (struct inventory){ 0 };
}

const struct inventory_device *inventory_find(const struct inventory *i, const char *name) {
        for (size_t n = 0; n < i->n; n++)
                if (strcmp(i->devices[n].name, name) == 0)
                        return &i->devices[n];
        return NULL;
}

/* What drivers/vfio/vfio_main.c (vfio_dev_driver_allowed) lets live in a group beside a device that is in use: VFIO's
 * own drivers, pci-stub, and bridges under pcieport, which does no DMA of its own. */
static bool is_in_the_way(const struct inventory_device *d) {
        static const char *const fine[] = { "vfio-pci", "pci-stub", "vfio-platform" };

        if (d->driver[0] == '\0' || (d->bridge && strcmp(d->driver, "pcieport") == 0))
                return false;
        for (size_t i = 0; i < ARRAY_SIZE(fine); i++)
                if (strcmp(d->driver, fine[i]) == 0)
                        return false;
        /* vendors' variant drivers: mlx5_vfio_pci, nvgrace_gpu_vfio_pci, ... */
        return !strstr(d->driver, "vfio_pci") && !strstr(d->driver, "vfio-pci");
}

bool inventory_group_is_viable(const struct inventory *i, uint32_t group, struct refusal *r) {
        bool found = false;

        for (size_t n = 0; n < i->n; n++) {
                const struct inventory_device *d = &i->devices[n];

                if (d->group != group)
                        continue;
                found = true;
                if (!is_in_the_way(d))
                        continue;
                refuse(r, REFUSAL_GROUP_NOT_VIABLE,
                       "IOMMU group %u cannot be used: its member %s belongs to the driver %s; all functions of a "
                       "group go together: iommuctl device bind %s",
                       group, d->name, d->driver, d->name);
                return false;
        }
        if (!found)
                refuse(r, REFUSAL_GROUP_NOT_VIABLE, "there is no IOMMU group %u", group);
        return found;
}

void inventory_group_members(const struct inventory *i, uint32_t group, char *text, size_t size) {
        size_t used = 0;

        text[0] = '\0';
        for (size_t n = 0; n < i->n; n++) {
                const struct inventory_device *d = &i->devices[n];
                int length;

                if (d->group != group)
                        continue;
                length = snprintf(text + used, size - used, "%s%s", used > 0 ? " " : "", d->name);
                if ((size_t)length >= size - used) {
                        if (size >= sizeof "...")
                                strcpy(text + (used + sizeof "..." > size ? size - sizeof "..." : used), "...");
                        return;
                }
                used += (size_t)length;
        }
}
