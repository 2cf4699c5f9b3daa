/* SPDX-License-Identifier: Apache-2.0 */
#include "core/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/revoke.h"
#include "core/broker_private.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"
#include "util/text.h"

static struct lease *find(struct broker *b, uint32_t group) {
        struct lease *l;

        HASH_FIND(hh, b->leases, &group, sizeof group, l);
        return l;
}

static struct lease *add(struct broker *b, uint32_t group, const char *tenant, uint64_t session, uint64_t domain,
                         const char *device) {
        struct lease *l = calloc(1, sizeof *l);

        if (!l)
                return NULL;
        l->group = group;
        l->state = LEASE_HELD;
        l->session = session;
        l->domain = domain;
        l->container_fd = l->group_fd = l->device_fd = -1;
        text_copy(l->tenant, sizeof l->tenant, tenant);
        text_copy(l->device, sizeof l->device, device);
        HASH_ADD(hh, b->leases, group, sizeof l->group, l);
        return l;
}

static void forget(struct broker *b, struct lease *l) {
        HASH_DEL(b->leases, l);
        free(l);
}

/* lease_lock held. What stands in the way of lending the group to that domain, if anything. */
static int check_free(const struct lease *l, struct session *s, uint64_t domain, const char *device, struct refusal *r) {
        if (!l || (l->state == LEASE_HELD && l->session == s->id && l->domain == domain))
                return 0;
        if (l->state == LEASE_ORPHANED)
                return refuse(r, REFUSAL_DEVICE_ORPHANED,
                              "device %s (IOMMU group %u) was given back, but a process still has it open; it is lent again when "
                              "that process closes it", device, l->group);
        if (l->session == s->id)
                return refuse(r, REFUSAL_DEVICE_BUSY, "device %s (IOMMU group %u) is attached to domain %" PRIu64 " of this "
                              "session; detach it there first", device, l->group, l->domain);
        return refuse(r, REFUSAL_DEVICE_BUSY, "device %s (IOMMU group %u) is lent to another session", device, l->group);
}

static int refuse_node(struct broker *b, const char *node, uint32_t group, int error, const char *device, struct refusal *r) {
        const char *directory = b->options.vfio_directory;

        if (error == -ENOENT || error == -ENODEV || error == -ENXIO)
                refuse(r, REFUSAL_DEVICE_NODE_MISSING,
                       "%s/%s does not exist: %s", directory, node,
                       strcmp(node, "vfio") == 0 ? "load the module vfio_iommu_type1 (modprobe vfio_iommu_type1 vfio-pci) and "
                                                   "boot with an IOMMU enabled"
                                                 : "bind the device to vfio-pci (iommuctl device bind)");
        else if (error == -EACCES || error == -EPERM)
                refuse(r, REFUSAL_DEVICE_NODE_FORBIDDEN,
                       "the service (uid %u, gid %u) may not open %s/%s for reading and writing: give group iommud rw on it "
                       "(udev rule 70-iommud.rules, then: udevadm trigger --subsystem-match=vfio --subsystem-match=misc)",
                       geteuid(), getegid(), directory, node);
        else if (error == -EBUSY)
                refuse(r, REFUSAL_DEVICE_ORPHANED,
                       "device %s (IOMMU group %u) is open in a process that this service does not know; it is lent when that "
                       "process closes it", device, group);
        else
                refuse(r, REFUSAL_BACKEND_REFUSED, "cannot open %s/%s: %s", directory, node, strerror(-error));
        r->errnum = -error;
        return -1;
}

/* No lock held: opening may take its time. */
static int open_nodes(struct broker *b, uint32_t group, const char *device, int *ret_container, int *ret_group,
                      struct refusal *r) {
        char node[16];
        int e = vfio_open_container(b->options.vfio_directory, ret_container);

        if (e < 0)
                return refuse_node(b, "vfio", group, e, device, r);
        e = vfio_open_group(b->options.vfio_directory, group, ret_group);
        if (e < 0) {
                *ret_container = fd_close(*ret_container);
                (void)snprintf(node, sizeof node, "%u", group);
                return refuse_node(b, node, group, e, device, r);
        }
        return 0;
}

int lease_take(struct broker *b, struct session *s, uint64_t domain, uint32_t group, const char *device, bool *ret_new,
               int *ret_container, int *ret_group, struct refusal *r) {
        int container = -1, group_fd = -1;
        struct lease *l;

        *ret_container = *ret_group = -1;
        pthread_mutex_lock(&b->lease_lock);
        l = find(b, group);
        if (check_free(l, s, domain, device, r) < 0) {
                pthread_mutex_unlock(&b->lease_lock);
                return -1;
        }
        *ret_new = !l;
        if (!l)
                l = add(b, group, s->tenant->name, s->id, domain, device);
        if (l)
                l->attachments++;
        pthread_mutex_unlock(&b->lease_lock);
        if (!l)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        if (!*ret_new || b->options.backend == BACKEND_SOFT)
                return 0;
        /* The entry keeps everybody else out while we open. */
        if (open_nodes(b, group, device, &container, &group_fd, r) < 0) {
                pthread_mutex_lock(&b->lease_lock);
                forget(b, l);
                pthread_mutex_unlock(&b->lease_lock);
                return -1;
        }
        *ret_container = fcntl(container, F_DUPFD_CLOEXEC, 0);
        *ret_group = fcntl(group_fd, F_DUPFD_CLOEXEC, 0);
        pthread_mutex_lock(&b->lease_lock);
        l->container_fd = container;
        l->group_fd = group_fd;
        pthread_mutex_unlock(&b->lease_lock);
        return 0;
}

int lease_adopt(struct broker *b, struct session *s, uint64_t domain, uint32_t group, const char *device, int container_fd,
                int device_fd) {
        struct lease *l;
        LOCK_SCOPE(&b->lease_lock);

        l = find(b, group);
        if (!l)
                l = add(b, group, s->tenant->name, s->id, domain, device);
        if (!l || l->session != s->id) {
                fd_close(container_fd);
                fd_close(device_fd);
                return -1;
        }
        l->attachments++;
        if (container_fd >= 0) {
                fd_close(l->container_fd);
                l->container_fd = container_fd;
        }
        if (device_fd >= 0) {
                fd_close(l->device_fd);
                l->device_fd = device_fd;
        }
        return 0;
}

void lease_adopt_orphan(struct broker *b, const char *tenant, uint32_t group, const char *device) {
        struct lease *l;
        LOCK_SCOPE(&b->lease_lock);

        l = find(b, group);
        if (!l)
                l = add(b, group, tenant, 0, 0, device);
        if (l)
                l->state = LEASE_ORPHANED;
}

void lease_keep_device(struct broker *b, uint32_t group, int device_fd) {
        int old = -1;

        pthread_mutex_lock(&b->lease_lock);
        struct lease *l = find(b, group);
        if (l) {
                old = l->device_fd;
                l->device_fd = device_fd;
        } else
                old = device_fd;
        pthread_mutex_unlock(&b->lease_lock);
        fd_close(old);
}

struct keepers {
        int container_fd, group_fd, device_fd;
};

/* Closing the last fd of a device resets it, which may take seconds: no lock. The device fd goes first; the container last,
 * so that there is always one of our fds that can revoke. */
static void close_keepers(struct keepers *k) {
        fd_close(k->device_fd);
        fd_close(k->group_fd);
        fd_close(k->container_fd);
}

/* The lease is nobody's any more. It stays in the table, lent to nobody, until the device proves to be free. */
static void retire(struct broker *b, struct lease *l, struct keepers *ret) {
        (void)b;
        *ret = (struct keepers){ l->container_fd, l->group_fd, l->device_fd };
        l->container_fd = l->group_fd = l->device_fd = -1;
        l->state = LEASE_ORPHANED;
        l->attachments = 0;
}

void lease_drop(struct broker *b, uint32_t group) {
        struct keepers k = { -1, -1, -1 };
        struct lease *l;
        bool last;

        pthread_mutex_lock(&b->lease_lock);
        l = find(b, group);
        last = l && l->state == LEASE_HELD && --l->attachments == 0;
        if (last)
                retire(b, l, &k);
        pthread_mutex_unlock(&b->lease_lock);
        if (!last)
                return;
        FAILPOINT(lease_retired);
        close_keepers(&k);
        lease_check_orphans(b);
}

int lease_revoke_session(struct broker *b, uint64_t session) {
        int fds[64], result = 0;
        size_t n = 0;
        struct lease *l, *next;

        pthread_mutex_lock(&b->lease_lock);
        HASH_ITER(hh, b->leases, l, next)
                if (l->session == session && l->container_fd >= 0 && n < ARRAY_SIZE(fds))
                        fds[n++] = fcntl(l->container_fd, F_DUPFD_CLOEXEC, 0);
        pthread_mutex_unlock(&b->lease_lock);
        for (size_t i = 0; i < n; i++) {
                int e = fds[i] < 0 ? -EMFILE : revoke_container_fd(fds[i]);

                if (e < 0) {
                        log_error("session %" PRIu64 ": a container could not be unmapped: %s", session, strerror(-e));
                        result = -1;
                }
                fd_close(fds[i]);
        }
        return result;
}

void lease_end_session(struct broker *b, uint64_t session) {
        struct lease *l, *next;
        struct keepers k[64];
        size_t n = 0;

        pthread_mutex_lock(&b->lease_lock);
        HASH_ITER(hh, b->leases, l, next)
                if (l->session == session && l->state == LEASE_HELD && n < ARRAY_SIZE(k))
                        retire(b, l, &k[n++]);
        pthread_mutex_unlock(&b->lease_lock);
        for (size_t i = 0; i < n; i++)
                close_keepers(&k[i]);
        lease_check_orphans(b);
}

void lease_check_orphans(struct broker *b) {
        uint32_t groups[64];
        size_t n = 0;
        struct lease *l, *next;

        pthread_mutex_lock(&b->lease_lock);
        HASH_ITER(hh, b->leases, l, next)
                if (l->state == LEASE_ORPHANED && n < ARRAY_SIZE(groups))
                        groups[n++] = l->group;
        pthread_mutex_unlock(&b->lease_lock);
        for (size_t i = 0; i < n; i++) {
                /* A soft device ends with its holder, which is gone before its lease is. */
                if (groups[i] < BROKER_SOFT_GROUP_BASE && !revoke_group_is_free(b->options.vfio_directory, groups[i]))
                        continue;
                pthread_mutex_lock(&b->lease_lock);
                l = find(b, groups[i]);
                if (l && l->state == LEASE_ORPHANED)
                        forget(b, l);
                pthread_mutex_unlock(&b->lease_lock);
        }
}

unsigned lease_count_orphans(struct broker *b) {
        struct lease *l, *next;
        unsigned n = 0;
        LOCK_SCOPE(&b->lease_lock);

        HASH_ITER(hh, b->leases, l, next)
                n += l->state == LEASE_ORPHANED;
        return n;
}

bool lease_describe(struct broker *b, uint32_t group, struct lease *ret) {
        struct lease *l;
        LOCK_SCOPE(&b->lease_lock);

        l = find(b, group);
        if (l)
                *ret = *l;
        return l != NULL;
}

void lease_free_all(struct broker *b) {
        struct lease *l, *next;

        HASH_ITER(hh, b->leases, l, next) {
                struct keepers k = { l->container_fd, l->group_fd, l->device_fd };

                HASH_DEL(b->leases, l);
                close_keepers(&k);
                free(l);
        }
}
