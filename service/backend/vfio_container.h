/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "backend/backend_ops.h"

/*
 * What the backends on VFIO's container and group interface share: one group in one container, its devices, and words
 * for the kernel's answers.
 */
struct vfio_container {
        struct container base;
        int fd;                 /* /dev/vfio/vfio */
        int group_fd;           /* /dev/vfio/GROUP */
};

static inline struct vfio_container *vfio_container_of(struct container *c) {
        return (struct vfio_container *)c;      /* base is the first member */
}

/* ioctl: what it answers, or -errno. */
int vfio_ioctl(int fd, unsigned long request, void *argument);

/* BACKEND_REFUSED with errnum: "what: the kernel's words". */
int vfio_refuse(struct refusal *r, int errnum, const char *what);

/* Allocates *ret, takes both fds out of *o, puts the group into the container and sets the IOMMU type. base is zero.
 * size: of the backend's own struct, which begins with a struct vfio_container; the rest of it is zero as well.
 * Undone by vfio_container_free(). */
int vfio_container_new(struct backend_open *o, size_t size, unsigned iommu_type, struct vfio_container **ret,
                       struct refusal *r);

/* Entries of a backend's table. */
void vfio_container_free(struct container *c);
int vfio_device_open(struct container *c, const char *name, struct device **ret, struct refusal *r);
void vfio_device_close(struct device *d);
int vfio_device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r);
int vfio_device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r);
