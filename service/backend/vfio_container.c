/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/vfio_container.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "util/cleanup.h"

struct vfio_device {
        struct device base;
        int fd;
};

int vfio_ioctl(int fd, unsigned long request, void *argument) {
        int k = ioctl(fd, request, argument);

        return k < 0 ? -errno : k;
}

int vfio_refuse(struct refusal *r, int errnum, const char *what) {
        refuse(r, REFUSAL_BACKEND_REFUSED, "%s: %s", what, strerrordesc_np(errnum));
        r->errnum = errnum;
        return -1;
}

/* --- container ----------------------------------------------------------------------------------------------------*/

static int refuse_group(struct refusal *r, enum refusal_reason reason, int errnum, const char *text) {
        refuse(r, reason, "%s", text);
        r->errnum = errnum;
        return -1;
}

/* Group before container: the other way round the container's last close would still find a group in it. */
void vfio_container_free(struct container *c) {
        struct vfio_container *v = vfio_container_of(c);

        v->group_fd = fd_close(v->group_fd);
        v->fd = fd_close(v->fd);
        free(v);
}

static int group_check(int group_fd, struct refusal *r) {
        struct vfio_group_status status = { .argsz = sizeof status };
        int k = vfio_ioctl(group_fd, VFIO_GROUP_GET_STATUS, &status);

        if (k < 0)
                return vfio_refuse(r, -k, "the status of the IOMMU group cannot be read");
        if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
                return refuse_group(
                        r, REFUSAL_GROUP_NOT_VIABLE, 0,
                        "the IOMMU group has a device that is bound to a host driver; every device of the group "
                        "must be bound to vfio-pci or to no driver");
        if (status.flags & VFIO_GROUP_FLAGS_CONTAINER_SET)
                return refuse_group(r, REFUSAL_DEVICE_BUSY, 0, "the IOMMU group is in a container already");
        return 0;
}

static int iommu_set(int container_fd, unsigned iommu_type, struct refusal *r) {
        int k = vfio_ioctl(container_fd, VFIO_SET_IOMMU, (void *)(uintptr_t)iommu_type);

        if (k == 0)
                return 0;
        if (k == -EPERM)
                return refuse_group(
                        r, REFUSAL_BACKEND_REFUSED, EPERM,
                        "the kernel does not let this group through its IOMMU: without interrupt remapping a "
                        "device can forge interrupts (vfio_iommu_type1.allow_unsafe_interrupts accepts that)");
        if (k == -ENODEV)
                return refuse_group(r, REFUSAL_UNSUPPORTED, ENODEV,
                                    "the kernel has no driver for this type of VFIO container (module not loaded?)");
        return vfio_refuse(r, k < 0 ? -k : EIO, "the IOMMU of the container cannot be set");
}

static int container_join(struct vfio_container *v, unsigned iommu_type, struct refusal *r) {
        int k = vfio_ioctl(v->fd, VFIO_GET_API_VERSION, NULL);

        if (k != VFIO_API_VERSION)
                return refuse(r, REFUSAL_UNSUPPORTED, "this kernel's VFIO answers API version %d, not %d", k,
                              VFIO_API_VERSION);
        if (group_check(v->group_fd, r) < 0)
                return -1;
        k = vfio_ioctl(v->group_fd, VFIO_GROUP_SET_CONTAINER, &v->fd);
        if (k < 0)
                return vfio_refuse(r, -k, "the IOMMU group cannot be put into a container");
        return iommu_set(v->fd, iommu_type, r);
}

int vfio_container_new(struct backend_open *o, size_t size, unsigned iommu_type, struct vfio_container **ret,
                       struct refusal *r) {
        struct vfio_container *v;

        if (o->container_fd < 0 || o->group_fd < 0)
                return refuse(r, REFUSAL_INTERNAL, "a VFIO container needs the container's and the group's fd");
        v = calloc(1, size);
        if (!v)
                return refuse(r, REFUSAL_INTERNAL, "no memory for a VFIO container");
        v->fd = fd_steal(&o->container_fd);
        v->group_fd = fd_steal(&o->group_fd);
        if (container_join(v, iommu_type, r) < 0) {
                vfio_container_free(&v->base);
                return -1;
        }
        *ret = v;
        return 0;
}

/* --- devices ------------------------------------------------------------------------------------------------------*/

int vfio_device_open(struct container *c, const char *name, struct device **ret, struct refusal *r) {
        struct vfio_container *v = vfio_container_of(c);
        struct vfio_device *d = calloc(1, sizeof *d);

        if (!d)
                return refuse(r, REFUSAL_INTERNAL, "no memory for device '%s'", name);
        d->fd = vfio_ioctl(v->group_fd, VFIO_GROUP_GET_DEVICE_FD, (void *)name);
        if (d->fd < 0) {
                int errnum = -d->fd;

                free(d);
                if (errnum == ENODEV)
                        refuse(r, REFUSAL_UNKNOWN_DEVICE, "there is no device '%s' in the IOMMU group", name);
                else if (errnum == EBUSY)
                        refuse(r, REFUSAL_DEVICE_BUSY, "device '%s' is in use", name);
                else
                        refuse(r, REFUSAL_BACKEND_REFUSED, "device '%s' cannot be opened: %s", name,
                               strerrordesc_np(errnum));
                r->errnum = errnum;
                return -1;
        }
        *ret = &d->base;
        return 0;
}

void vfio_device_close(struct device *d) {
        struct vfio_device *v = (struct vfio_device *)d;        /* base is the first member */

        fd_close(v->fd);
        free(v);
}

/* A duplicate is the same open file: it keeps the container and every mapping alive, and can be cut off only through
 * the container (DESIGN, section 9). */
static int device_fd_duplicate(struct device *d, int *ret_fd, struct refusal *r) {
        int fd = fcntl(((struct vfio_device *)d)->fd, F_DUPFD_CLOEXEC, 3);

        if (fd < 0)
                return refuse(r, REFUSAL_INTERNAL, "the fd of device '%s' cannot be duplicated: %s", d->name,
                              strerrordesc_np(errno));
        *ret_fd = fd;
        return 0;
}

int vfio_device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r) {
        return device_fd_duplicate(d, ret_fd, r);
}

int vfio_device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r) {
        if (device_fd_duplicate(d, ret_fd, r) < 0)
                return -1;
        *ret_kind = DEVICE_FD_VFIO;
        return 0;
}
