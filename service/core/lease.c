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
#include "core/lease_private.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

struct lease *lease_find(struct broker *b, uint32_t group) {
        struct lease *l;

        HASH_FIND(hh, b->leases, &group, sizeof group, l);
        return l;
}

struct lease *lease_add(struct broker *b, uint32_t group, const char *tenant, uint64_t session, uint64_t domain,
                         const char *device) {
        struct lease *l = calloc(1, sizeof *l);

        if (!l)
                return NULL;
        l->group = group;
        l->state = LEASE_HELD;
        l->session = session;
        l->domain = domain;
        l->keepers = KEEPERS_NONE;
        text_copy(l->tenant, sizeof l->tenant, tenant);
        text_copy(l->device, sizeof l->device, device);
        HASH_ADD(hh, b->leases, group, sizeof l->group, l);
        return l;
}

void lease_forget(struct broker *b, struct lease *l) {
        HASH_DEL(b->leases, l);
        free(l);
}

static void replace(int *kept, int *fresh) {
        int old = *kept;

        if (*fresh < 0)
                return;
        *kept = *fresh;
        *fresh = old;
}

/* Takes the fds that there are. False: it is not the session's group, and they are closed. */
static bool keep(struct broker *b, uint64_t session, uint32_t group, struct keepers fresh) {
        struct lease *l;
        bool held;

        pthread_mutex_lock(&b->lease_lock);
        l = lease_find(b, group);
        held = l && l->state == LEASE_HELD && l->session == session;
        if (held) {
                replace(&l->keepers.container_fd, &fresh.container_fd);
                replace(&l->keepers.group_fd, &fresh.group_fd);
                replace(&l->keepers.device_fd, &fresh.device_fd);
                replace(&l->keepers.revoker_fd, &fresh.revoker_fd);
        }
        pthread_mutex_unlock(&b->lease_lock);
        keepers_close(&fresh);
        return held;
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
        l = lease_find(b, group);
        if (check_free(l, s, domain, device, r) < 0) {
                pthread_mutex_unlock(&b->lease_lock);
                return -1;
        }
        *ret_new = !l;
        if (!l)
                l = lease_add(b, group, s->tenant->name, s->id, domain, device);
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
                l = lease_find(b, group);
                if (l && l->session == s->id && l->state == LEASE_HELD)
                        lease_forget(b, l);
                pthread_mutex_unlock(&b->lease_lock);
                return -1;
        }
        *ret_container = fcntl(container, F_DUPFD_CLOEXEC, 0);
        *ret_group = fcntl(group_fd, F_DUPFD_CLOEXEC, 0);
        if (keep(b, s->id, group, (struct keepers){ container, group_fd, -1, -1 }))
                return 0;
        *ret_container = fd_close(*ret_container);
        *ret_group = fd_close(*ret_group);
        return refuse(r, REFUSAL_HOLDER_LOST, "the session ends; its devices are taken back");
}

bool lease_keep_device(struct broker *b, uint64_t session, uint32_t group, int device_fd) {
        return keep(b, session, group, (struct keepers){ -1, -1, device_fd, -1 });
}

bool lease_keep_revoker(struct broker *b, uint64_t session, uint32_t group, int revoker_fd) {
        return keep(b, session, group, (struct keepers){ -1, -1, -1, revoker_fd });
}

int lease_adopt(struct broker *b, struct session *s, uint64_t domain, uint32_t group, const char *device, int container_fd,
                int device_fd) {
        struct lease *l;

        pthread_mutex_lock(&b->lease_lock);
        l = lease_find(b, group);
        if (!l)
                l = lease_add(b, group, s->tenant->name, s->id, domain, device);
        if (l && l->session == s->id)
                l->attachments++;
        pthread_mutex_unlock(&b->lease_lock);
        return keep(b, s->id, group, (struct keepers){ container_fd, -1, device_fd, -1 }) ? 0 : -1;
}

bool lease_describe(struct broker *b, uint32_t group, struct lease *ret) {
        struct lease *l;
        LOCK_SCOPE(&b->lease_lock);

        l = lease_find(b, group);
        if (l)
                *ret = *l;
        return l != NULL;
}

void lease_free_all(struct broker *b) {
        struct lease *l, *next;

        HASH_ITER(hh, b->leases, l, next) {
                keepers_close(&l->keepers);
                lease_forget(b, l);
        }
}
