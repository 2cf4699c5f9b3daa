/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "client.h"

/*
 * An attachment and the device fd behind it. The fd is asked for on the session channel when it is first needed, and
 * closed before the device is given back. Two kinds of device differ in how a region is reached: device_vfio.c and
 * device_soft.c.
 */

/* SESSION_DEVICE, kind: enum device_fd_kind of the holder, repeated here because it is wire contract. */
enum device_kind {
        DEVICE_KIND_VFIO = 1,
        DEVICE_KIND_SOFT = 2,
};

#define DEVICE_REGIONS_MAX 9U   /* VFIO_PCI_NUM_REGIONS */

struct device_region {
        bool known;
        uint64_t size;                  /* 0: the device has no such region */
        uint64_t offset;                /* VFIO: where it begins in the device fd */
};

/* One access, checked: the width fits and the region is large enough. */
struct device_access {
        bool write;
        uint32_t region;
        uint32_t width;
        uint64_t offset;
        uint64_t value;
};

struct device_ops;

struct iommud_attachment {
        struct sdk_object object;
        uint64_t domain;

        pthread_mutex_t lock;           /* what follows; held during an access, so that answers cannot be mixed up */
        bool gone;                      /* detached together with its domain */
        int fd;                         /* -1: not asked for yet */
        const struct device_ops *ops;
        uint64_t last_cookie;           /* soft */
        struct device_region regions[DEVICE_REGIONS_MAX];
};

/* Called with the attachment's lock held and its fd open; 0, or a negative errno value with the error recorded. */
struct device_ops {
        int (*describe)(struct iommud_attachment *a, uint32_t region, int64_t deadline, struct device_region *ret);
        int (*access)(struct iommud_attachment *a, struct device_access *access, int64_t deadline);
};

extern const struct device_ops device_vfio_ops;
extern const struct device_ops device_soft_ops;

/* For every object of a client: closes the device fd if it is an attachment that has one. */
void device_object_close_fd(struct sdk_object *o);

/* For every object of a client: if it is an attachment of the domain, its device fd is closed (it can be asked for
 * again); or it is over, because the domain is. */
struct device_of_domain {
        uint64_t domain;
        bool gone;
};
void device_object_leave_domain(struct sdk_object *o, void *device_of_domain);
