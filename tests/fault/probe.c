/* SPDX-License-Identifier: Apache-2.0 */
#include "fault/probe.h"

#include <linux/vfio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "soft_device.h"

enum { BAR0 = 0, CONFIG = 7 };
enum { CONFIG_COMMAND = 4, MEMORY_AND_MASTER = 6 };
enum { SOURCE = 0x80, DESTINATION = 0x88, COUNT = 0x90, COMMAND = 0x98 };
enum { START = 1, TO_MEMORY = 2 };

#define BUFFER 0x40000U         /* the device's own */

/* ---- its registers ---- */

bool probe_is_slow(int fd) {
        struct stat st;

        return fstat(fd, &st) == 0 && !S_ISSOCK(st.st_mode);
}

static bool soft_access(int fd, bool write, uint32_t region, uint64_t offset, uint32_t size, uint64_t *value) {
        struct soft_access a = { .op = write ? SOFT_WRITE : SOFT_READ, .region = region, .size = size, .offset = offset,
                                 .value = *value };

        if (send(fd, &a, sizeof a, MSG_NOSIGNAL) != sizeof a || recv(fd, &a, sizeof a, 0) != sizeof a)
                return false;
        *value = a.value;
        return a.error == 0;
}

static bool vfio_access(int fd, bool write, uint32_t region, uint64_t offset, uint32_t size, uint64_t *value) {
        struct vfio_region_info info = { .argsz = sizeof info, .index = region };
        ssize_t n;

        if (ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &info) < 0)
                return false;
        n = write ? pwrite(fd, value, size, (off_t)(info.offset + offset)) : pread(fd, value, size, (off_t)(info.offset + offset));
        return n == (ssize_t)size;
}

static bool access_register(int fd, bool write, uint32_t region, uint64_t offset, uint32_t size, uint64_t *value) {
        return probe_is_slow(fd) ? vfio_access(fd, write, region, offset, size, value)
                                 : soft_access(fd, write, region, offset, size, value);
}

/* ---- what it does ---- */

bool probe_enable(int fd) {
        uint64_t command = MEMORY_AND_MASTER;

        return access_register(fd, true, CONFIG, CONFIG_COMMAND, 2, &command);
}

static bool transfer(int fd, uint64_t from, uint64_t to, uint64_t n, uint64_t command) {
        static const struct timespec moment = { .tv_nsec = 20000 };
        const uint64_t registers[][2] = { { SOURCE, from }, { DESTINATION, to }, { COUNT, n }, { COMMAND, command } };
        uint64_t value;

        for (unsigned i = 0; i < 4; i++) {
                value = registers[i][1];
                if (!access_register(fd, true, BAR0, registers[i][0], 8, &value))
                        return false;
        }
        for (unsigned i = 0; i < 100000; i++) {
                value = 0;
                if (!access_register(fd, false, BAR0, COMMAND, 8, &value))
                        return false;
                if (!(value & START))
                        return true;
                nanosleep(&moment, NULL);
        }
        return false;
}

bool probe_pull(int fd, uint64_t iova, uint64_t n) {
        return transfer(fd, iova, BUFFER, n, START);
}

bool probe_push(int fd, uint64_t iova, uint64_t n) {
        return transfer(fd, BUFFER, iova, n, START | TO_MEMORY);
}
