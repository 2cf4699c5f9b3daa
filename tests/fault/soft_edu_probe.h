/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <time.h>

#include "soft_device.h"

/* Drives the software device over its socket: bytes of memory go to its buffer and back. */
static inline bool probe_access(int fd, uint32_t op, uint32_t region, uint64_t offset, uint32_t size, uint64_t *value) {
        struct soft_access a = { .op = op, .region = region, .size = size, .offset = offset, .value = *value };

        if (send(fd, &a, sizeof a, MSG_NOSIGNAL) != sizeof a || recv(fd, &a, sizeof a, 0) != sizeof a)
                return false;
        *value = a.value;
        return a.error == 0;
}

static inline bool probe_enable(int fd) {
        uint64_t memory_and_master = 6;

        return probe_access(fd, SOFT_WRITE, 7, 4, 2, &memory_and_master);
}

static inline bool probe_move(int fd, uint64_t from, uint64_t to, uint64_t n, uint64_t command) {
        static const struct timespec moment = { .tv_nsec = 20000 };
        const uint64_t registers[][2] = { { 0x80, from }, { 0x88, to }, { 0x90, n }, { 0x98, command } };
        uint64_t value;

        for (unsigned i = 0; i < 4; i++) {
                value = registers[i][1];
                if (!probe_access(fd, SOFT_WRITE, 0, registers[i][0], 8, &value))
                        return false;
        }
        for (unsigned i = 0; i < 100000; i++) {
                value = 0;
                if (!probe_access(fd, SOFT_READ, 0, 0x98, 8, &value))
                        return false;
                if (!(value & 1))
                        return true;
                nanosleep(&moment, NULL);
        }
        return false;
}

/* The device reads n bytes at iova. */
static inline bool probe_pull(int fd, uint64_t iova, uint64_t n) {
        return probe_move(fd, iova, 0x40000, n, 1);
}

/* The device writes what it has read last to iova. */
static inline bool probe_push(int fd, uint64_t iova, uint64_t n) {
        return probe_move(fd, 0x40000, iova, n, 3);
}
