/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "backend/backend.h"
#include "backend/mapping_set.h"

/*
 * What a backend implements, private to backend/. The wrappers in backend.c have checked the contract of backend.h
 * before any of this is called: lengths, alignment, aperture and access are right, a map overlaps nothing and fits the
 * mapping limit, an unmap names exactly one earlier mapping. An entry that a backend leaves NULL answers UNSUPPORTED.
 */
struct backend_ops {
        const char *name;

        /* Makes a container: allocates it with the backend's own struct around `struct container`, fills base.info.
         * Takes the fds it wants out of *o by setting them to -1; the wrapper closes the rest. */
        int (*open)(struct backend_open *o, struct container **ret, struct refusal *r);
        /* Frees the container. Nothing is mapped any more and no device is open. */
        void (*close)(struct container *c);

        int (*map)(struct container *c, const struct backend_mapping *m, struct refusal *r);
        int (*unmap)(struct container *c, struct iova_range range, struct refusal *r);
        int (*unmap_all)(struct container *c, struct refusal *r);

        /* Where windows are the backend's own. create: size, page, levels and number are checked, levels is what was
         * asked for (0: choose); *ret may begin elsewhere than want->start, then the wrapper undoes it. remove: *w exists
         * and is empty. */
        int (*window_create)(struct container *c, const struct backend_window *want, struct backend_window *ret,
                             struct refusal *r);
        int (*window_remove)(struct container *c, const struct backend_window *w, struct refusal *r);
        int (*revoker_fd)(struct container *c, int *ret_fd, struct refusal *r);

        int (*device_open)(struct container *c, const char *name, struct device **ret, struct refusal *r);
        void (*device_close)(struct device *d);
        int (*device_keeper_fd)(struct device *d, int *ret_fd, struct refusal *r);
        int (*device_client_fd)(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r);
};

struct container {
        struct backend_ops ops;                 /* complete: no entry is NULL */
        struct container_info info;             /* does not change while the container lives */
        struct mapping_set mappings;            /* exactly what the translation holds */
        struct device *devices;                 /* open ones, singly linked */
        struct backend_window windows[BACKEND_WINDOWS_MAX];     /* those that exist, by start */
        uint32_t n_windows;
};

struct device {
        struct container *container;
        struct device *next;
        char name[BACKEND_DEVICE_NAME_MAX];
};

extern const struct backend_ops soft_ops;
extern const struct backend_ops vfio_type1_ops;
extern const struct backend_ops vfio_spapr_ops;

/* The table of a kind, NULL if there is no such backend. */
const struct backend_ops *backend_select(enum backend_kind kind);

/* Copies a backend's table to *ret with every missing entry replaced by one that answers UNSUPPORTED. */
void backend_ops_complete(const struct backend_ops *ops, struct backend_ops *ret);
