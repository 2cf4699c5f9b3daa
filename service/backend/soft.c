/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/soft.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/soft_edu.h"
#include "backend/soft_private.h"
#include "util/cleanup.h"

/*
 * The software IOMMU: the default where there is none in hardware. It keeps page tables like a real one
 * (soft_pgtable.h) and translates for software devices (soft_edu.h), which run in threads of this process. What it looks
 * like is a personality (soft_personality.c); one of them has windows, each with tables of its own (soft_windows.c).
 *
 * Lock order: container's lock last. The device's lock is never held around it.
 */
struct soft_device {
        struct device base;
        struct soft_edu *edu;
};

/* --- container ----------------------------------------------------------------------------------------------------*/

static void soft_close(struct container *c) {
        struct soft_container *s = soft_of(c);

        soft_spaces_free(s);
        soft_phys_free(&s->phys);
        fd_close(s->copy_read);
        fd_close(s->copy_write);
        pthread_mutex_destroy(&s->lock);
        free(s);
}

static int soft_open(struct backend_open *o, struct container **ret, struct refusal *r) {
        struct soft_personality p = soft_personality_complete(o->soft);
        struct container_info info;
        struct soft_container *s;
        int pipe_fds[2];

        if (soft_personality_info(&p, &info, r) < 0)
                return -1;
        s = calloc(1, sizeof *s);
        if (!s)
                return refuse(r, REFUSAL_INTERNAL, "no memory for a software IOMMU");
        *s = (struct soft_container){ .base.info = info, .personality = p, .copy_read = -1, .copy_write = -1 };
        s->host_page = (uint64_t)sysconf(_SC_PAGESIZE);
        pthread_mutex_init(&s->lock, NULL);
        soft_phys_init(&s->phys, 63U - (unsigned)__builtin_clzll(info.page_sizes));
        if (soft_spaces_init(s) < 0) {
                soft_close(&s->base);
                return refuse(r, REFUSAL_INTERNAL, "no memory for the page tables of a software IOMMU");
        }
        if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) < 0) {
                int saved = errno;

                soft_close(&s->base);
                return refuse(r, REFUSAL_INTERNAL, "no pipe for a software IOMMU: %s", strerrordesc_np(saved));
        }
        s->copy_read = pipe_fds[0];
        s->copy_write = pipe_fds[1];
        *ret = &s->base;
        return 0;
}

/* --- mappings -----------------------------------------------------------------------------------------------------*/

/* What an address is translated to, as hardware would find it. */
static bool translate(struct soft_container *s, uint64_t iova, struct soft_leaf *ret) {
        const struct soft_space *space = soft_space_at(s, iova);

        return space && soft_pgtable_walk(&space->tables, iova - space->range.first, ret);
}

/* Drops the holds of a range that is translated wholly, then its translation. */
static void range_drop(struct soft_container *s, uint64_t iova, uint64_t length) {
        struct soft_space *space = soft_space_at(s, iova);
        uint64_t done = 0;

        while (done < length) {
                struct soft_leaf leaf = { 0 };
                uint64_t left;

                if (!translate(s, iova + done, &leaf))
                        break;          /* cannot be: the range is translated */
                left = soft_phys_left(&s->phys, leaf.phys);
                soft_phys_drop(&s->phys, leaf.phys);
                done += left < length - done ? left : length - done;
        }
        if (space)
                soft_pgtable_remove(&space->tables, iova - space->range.first, length);
}

/* Maps what of a mapping lies in one window of its file. */
static int map_piece(struct soft_container *s, struct soft_space *space, const struct backend_mapping *m, uint64_t done,
                     uint64_t length) {
        uint64_t phys, access = (m->access & BACKEND_ACCESS_READ ? SOFT_PTE_READ : 0) |
                                (m->access & BACKEND_ACCESS_WRITE ? SOFT_PTE_WRITE : 0);
        int k;

        k = soft_phys_hold(&s->phys, (uintptr_t)m->vaddr + (uintptr_t)done, m->offset + done, &phys);
        if (k < 0)
                return k;
        k = soft_pgtable_insert(&space->tables, m->iova - space->range.first + done, phys, length, access);
        if (k < 0)
                soft_phys_drop(&s->phys, phys);
        return k;
}

static int soft_map(struct container *c, const struct backend_mapping *m, struct refusal *r) {
        struct soft_container *s = soft_of(c);
        struct soft_space *space;
        uint64_t done = 0;

        LOCK_SCOPE(&s->lock);
        space = soft_space_at(s, m->iova);
        if (!space)
                return refuse(r, REFUSAL_INTERNAL, "the software IOMMU has no tables for IOVA 0x%" PRIx64, m->iova);
        while (done < m->length) {
                uint64_t left = soft_phys_left(&s->phys, m->offset + done);
                uint64_t piece = left < m->length - done ? left : m->length - done;
                int k = map_piece(s, space, m, done, piece);

                if (k < 0) {
                        range_drop(s, m->iova, done);
                        refuse(r, REFUSAL_BACKEND_REFUSED,
                               "the software IOMMU cannot map 0x%" PRIx64 " bytes at 0x%" PRIx64 ": %s", m->length,
                               m->iova, strerrordesc_np(-k));
                        r->errnum = -k;
                        return -1;
                }
                done += piece;
        }
        return 0;
}

static int soft_unmap(struct container *c, struct iova_range range, struct refusal *r) {
        struct soft_container *s = soft_of(c);

        (void)r;
        LOCK_SCOPE(&s->lock);
        range_drop(s, range.first, iova_range_length(range));
        return 0;
}

static int soft_unmap_all(struct container *c, struct refusal *r) {
        struct soft_container *s = soft_of(c);

        (void)r;
        LOCK_SCOPE(&s->lock);
        for (unsigned i = 0; i < s->n_spaces; i++)
                soft_pgtable_clear(&s->spaces[i].tables);
        soft_phys_free(&s->phys);
        return 0;
}

/* --- what devices do ----------------------------------------------------------------------------------------------*/

static void fault_record(struct soft_container *s, uint64_t iova, uint32_t access, enum soft_fault_reason reason) {
        s->faults[s->n_faults++ % SOFT_FAULTS_KEPT] = (struct soft_fault){ iova, access, reason };
}

/* Copies at most one host page, of which the host side may have no memory any more because its file was truncated: a
 * plain copy would be a SIGBUS. Through a pipe it is EFAULT instead. (A signal handler is one for the whole process
 * and a trap for whoever comes next; process_vm_readv() on oneself is a call that the holder's sandbox has better
 * reasons to forbid than to allow.) The host side lies within one page, so it is moved wholly or not at all. */
static bool copy_guarded(struct soft_container *s, void *to, const void *from, size_t n) {
        uint8_t rest[4096];

        if (write(s->copy_write, from, n) == (ssize_t)n && read(s->copy_read, to, n) == (ssize_t)n)
                return true;
        while (read(s->copy_read, rest, sizeof rest) > 0)
                ;
        return false;
}

/* Moves the first bytes of a transfer: 1 to n of them, or none and a fault. */
static size_t dma_slice(struct soft_container *s, uint64_t iova, void *buffer, size_t n, uint32_t access) {
        bool writes = access == BACKEND_ACCESS_WRITE;
        enum soft_fault_reason fault = 0;
        struct soft_leaf leaf;
        uint64_t left;

        LOCK_SCOPE(&s->lock);
        if (!translate(s, iova, &leaf))
                fault = SOFT_FAULT_NOT_MAPPED;
        else if (!(leaf.access & (writes ? SOFT_PTE_WRITE : SOFT_PTE_READ)))
                fault = writes ? SOFT_FAULT_NO_WRITE : SOFT_FAULT_NO_READ;
        else {
                void *host = (void *)soft_phys_host(&s->phys, leaf.phys);

                left = s->host_page - ((uintptr_t)host & (s->host_page - 1));
                if (left < n)
                        n = left;
                if (leaf.left < n)
                        n = leaf.left;
                if (!copy_guarded(s, writes ? host : buffer, writes ? buffer : host, n))
                        fault = SOFT_FAULT_MEMORY;
        }
        if (fault) {
                fault_record(s, iova, access, fault);
                return 0;
        }
        return n;
}

size_t soft_dma(struct soft_container *s, uint64_t iova, void *buffer, size_t n, uint32_t access) {
        size_t done = 0, moved;

        for (; done < n; done += moved) {
                uint64_t at;

                if (ADD_OVERFLOW(iova, done, &at)) {
                        LOCK_SCOPE(&s->lock);
                        fault_record(s, at, access, SOFT_FAULT_NOT_MAPPED);
                        break;
                }
                moved = dma_slice(s, at, (uint8_t *)buffer + done, n - done, access);
                if (moved == 0)
                        break;
        }
        return done;
}

bool soft_lookup(struct container *c, uint64_t iova, uintptr_t *ret_host, uint32_t *ret_access) {
        struct soft_container *s = soft_of(c);
        struct soft_leaf leaf;

        LOCK_SCOPE(&s->lock);
        if (!translate(s, iova, &leaf))
                return false;
        *ret_host = soft_phys_host(&s->phys, leaf.phys);
        *ret_access = (leaf.access & SOFT_PTE_READ ? BACKEND_ACCESS_READ : 0) |
                      (leaf.access & SOFT_PTE_WRITE ? BACKEND_ACCESS_WRITE : 0);
        return true;
}

size_t soft_faults(struct container *c, struct soft_fault ret[SOFT_FAULTS_KEPT], uint64_t *ret_total) {
        struct soft_container *s = soft_of(c);
        size_t n;

        LOCK_SCOPE(&s->lock);
        n = s->n_faults < SOFT_FAULTS_KEPT ? (size_t)s->n_faults : SOFT_FAULTS_KEPT;
        for (size_t i = 0; i < n; i++)
                ret[i] = s->faults[(s->n_faults - n + i) % SOFT_FAULTS_KEPT];
        *ret_total = s->n_faults;
        return n;
}

/* --- devices ------------------------------------------------------------------------------------------------------*/

/* "edu0" to "edu99", one spelling each */
static bool name_is_edu(const char *name) {
        if (strncmp(name, "edu", 3) != 0 || name[3] < '0' || name[3] > '9')
                return false;
        if (name[4] == '\0')
                return true;
        return name[3] != '0' && name[4] >= '0' && name[4] <= '9' && name[5] == '\0';
}

static int soft_device_open(struct container *c, const char *name, struct device **ret, struct refusal *r) {
        struct soft_container *s = soft_of(c);
        struct soft_device *d;

        if (!name_is_edu(name))
                return refuse(r, REFUSAL_UNKNOWN_DEVICE, "the software IOMMU has the devices edu0 to edu99, not '%s'",
                              name);
        d = calloc(1, sizeof *d);
        if (!d)
                return refuse(r, REFUSAL_INTERNAL, "no memory for device '%s'", name);
        if (soft_edu_start(s, s->personality.dma_delay_us, &d->edu, r) < 0) {
                free(d);
                return -1;
        }
        *ret = &d->base;
        return 0;
}

static void soft_device_close(struct device *d) {
        struct soft_device *sd = (struct soft_device *)d;       /* base is the first member */

        sd->edu = soft_edu_stop(sd->edu);
        free(sd);
}

/* The translation dies with this process: there is nothing that a keeper could revoke. */
static int soft_device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r) {
        (void)d;
        (void)r;
        *ret_fd = -1;
        return 0;
}

static int soft_device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r) {
        if (soft_edu_connect(((struct soft_device *)d)->edu, ret_fd, r) < 0)
                return -1;
        *ret_kind = DEVICE_FD_SOFT;
        return 0;
}

const struct backend_ops soft_ops = {
        .name = "soft",
        .open = soft_open,
        .close = soft_close,
        .map = soft_map,
        .unmap = soft_unmap,
        .unmap_all = soft_unmap_all,
        .window_create = soft_window_create,
        .window_remove = soft_window_remove,
        .device_open = soft_device_open,
        .device_close = soft_device_close,
        .device_keeper_fd = soft_device_keeper_fd,
        .device_client_fd = soft_device_client_fd,
};
