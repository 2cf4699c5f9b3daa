/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <fcntl.h>
#include <linux/vfio.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../lib/edu_order.h"
#include "backend/backend.h"
#include "soft_device.h"
#include "util/cleanup.h"

/*
 * Drives an `edu` device through the fd that a client gets, whichever kind that is: so one test proves with DMA what a
 * backend promises, for the software device and for QEMU's behind a real IOMMU.
 */
#define EDU_BUFFER UINT64_C(0x40000)
#define EDU_BUFFER_SIZE UINT64_C(4096)  /* QEMU 7.2 aborts when a transfer uses all of it: stay below */

struct edu {
        enum device_fd_kind kind;
        int fd;
        volatile uint8_t *bar;          /* VFIO: the mapped BAR0 */
        uint64_t bar_size;
        bool swapped;                   /* VFIO: its registers have the other byte order than this program */
        uint64_t config;                /* VFIO: where the configuration space is in the fd */
        uint64_t cookie;
};

/* 0 or the device's -errno; -EPIPE when the device is gone. */
static inline int edu_access_soft(struct edu *e, uint32_t op, uint32_t region, uint64_t offset, uint32_t size,
                                  uint64_t *value) {
        struct soft_access a = { .op = op, .region = region, .size = size, .offset = offset, .value = *value };

        a.cookie = ++e->cookie;
        if (send(e->fd, &a, sizeof a, MSG_NOSIGNAL) != sizeof a || recv(e->fd, &a, sizeof a, 0) != sizeof a)
                return -EPIPE;
        if (a.cookie != e->cookie)
                return -EPROTO;
        *value = a.value;
        return a.error;
}

static inline uint64_t edu_read(struct edu *e, uint64_t offset, uint32_t size) {
        uint64_t value = 0;

        if (e->kind == DEVICE_FD_SOFT)
                return edu_access_soft(e, SOFT_READ, VFIO_PCI_BAR0_REGION_INDEX, offset, size, &value) == 0 ? value : 0;
        value = size == 8 ? *(volatile uint64_t *)(e->bar + offset) : *(volatile uint32_t *)(e->bar + offset);
        return edu_in_order(e->swapped, size, value);
}

static inline void edu_write(struct edu *e, uint64_t offset, uint32_t size, uint64_t value) {
        if (e->kind == DEVICE_FD_SOFT)
                (void)edu_access_soft(e, SOFT_WRITE, VFIO_PCI_BAR0_REGION_INDEX, offset, size, &value);
        else if (size == 8)
                *(volatile uint64_t *)(e->bar + offset) = edu_in_order(e->swapped, size, value);
        else
                *(volatile uint32_t *)(e->bar + offset) = (uint32_t)edu_in_order(e->swapped, size, value);
}

static inline bool edu_bus_master(struct edu *e, bool on) {
        uint64_t command = on ? 0x6 : 0x2;
        uint16_t word = (uint16_t)command;

        if (e->kind == DEVICE_FD_SOFT)
                return edu_access_soft(e, SOFT_WRITE, VFIO_PCI_CONFIG_REGION_INDEX, 4, 2, &command) == 0;
        return pwrite(e->fd, &word, sizeof word, (off_t)(e->config + 4)) == sizeof word;
}

static inline bool edu_map_vfio(struct edu *e) {
        struct vfio_region_info bar = { .argsz = sizeof bar, .index = VFIO_PCI_BAR0_REGION_INDEX };
        struct vfio_region_info config = { .argsz = sizeof config, .index = VFIO_PCI_CONFIG_REGION_INDEX };
        void *p;

        if (ioctl(e->fd, VFIO_DEVICE_GET_REGION_INFO, &bar) < 0 ||
            ioctl(e->fd, VFIO_DEVICE_GET_REGION_INFO, &config) < 0)
                return false;
        p = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, e->fd, (off_t)bar.offset);
        if (p == MAP_FAILED)
                return false;
        e->bar = p;
        e->bar_size = bar.size;
        e->config = config.offset;
        e->swapped = edu_is_swapped(edu_read(e, EDU_IDENTIFICATION_REGISTER, 4));
        return true;
}

/* Takes the fd that a client has. */
static inline bool edu_use(struct edu *e, int fd, enum device_fd_kind kind) {
        *e = (struct edu){ .fd = fd, .kind = kind };
        return (e->kind == DEVICE_FD_SOFT || edu_map_vfio(e)) && edu_bus_master(e, true);
}

/* Takes a client's fd from the device. */
static inline bool edu_attach(struct edu *e, struct device *d) {
        enum device_fd_kind kind = 0;
        struct refusal r;
        int fd = -1;

        *e = (struct edu){ .fd = -1 };
        return device_client_fd(d, &fd, &kind, &r) == 0 && edu_use(e, fd, kind);
}

static inline void edu_detach(struct edu *e) {
        if (e->bar)
                munmap((void *)e->bar, e->bar_size);
        e->bar = NULL;
        e->fd = fd_close(e->fd);
}

static inline void edu_start(struct edu *e, bool to_memory, uint64_t iova, uint64_t in_buffer, uint64_t n) {
        edu_write(e, 0x80, 8, to_memory ? EDU_BUFFER + in_buffer : iova);
        edu_write(e, 0x88, 8, to_memory ? iova : EDU_BUFFER + in_buffer);
        edu_write(e, 0x90, 8, n);
        edu_write(e, 0x98, 8, to_memory ? 3 : 1);
}

/* False if the device did not finish within ten seconds. */
static inline bool edu_wait(struct edu *e) {
        for (unsigned i = 0; i < 100000; i++) {
                if (!(edu_read(e, 0x98, 8) & 1))
                        return true;
                usleep(100);
        }
        return false;
}

/* The device reads n bytes at iova into its buffer. */
static inline bool edu_pull(struct edu *e, uint64_t iova, uint64_t n) {
        edu_start(e, false, iova, 0, n);
        return edu_wait(e);
}

/* The device writes the first n bytes of its buffer to iova. */
static inline bool edu_push(struct edu *e, uint64_t iova, uint64_t n) {
        edu_start(e, true, iova, 0, n);
        return edu_wait(e);
}
