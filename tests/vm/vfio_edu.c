/* SPDX-License-Identifier: Apache-2.0 */
#include "vfio_edu.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "../lib/edu_order.h"

/* The device, see docs/specs/edu.txt in QEMU's source. It acts about 100 ms after a command. */
enum {
        EDU_DMA_SOURCE = 0x80,
        EDU_DMA_DESTINATION = 0x88,
        EDU_DMA_COUNT = 0x90,
        EDU_DMA_COMMAND = 0x98,
};
enum { EDU_COMMAND_START = 1, EDU_COMMAND_TO_RAM = 2 };
static const uint64_t edu_buffer = 0x40000;     /* its own 4096 bytes, as the DMA engine sees them */

/* ---- telling ---- */

void ok(const char *what) {
        printf("ok: %s\n", what);
}

void fail(const char *format, ...) {
        va_list args;

        printf("FAIL: ");
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        printf("\n");
        exit(1);
}

void check(bool condition, const char *what) {
        if (!condition)
                fail("%s (errno: %s)", what, strerror(errno));
        ok(what);
}

/* ---- opening ---- */

/* Opens /dev/vfio/N for the group that the device is in. */
static int open_group(const char *bdf) {
        char link[PATH_MAX], target[PATH_MAX], node[64];
        ssize_t length;

        snprintf(link, sizeof link, "/sys/bus/pci/devices/%s/iommu_group", bdf);
        length = readlink(link, target, sizeof target - 1);
        if (length < 0)
                fail("%s is in an IOMMU group: %s", bdf, strerror(errno));
        target[length] = '\0';
        snprintf(node, sizeof node, "/dev/vfio/%d", atoi(strrchr(target, '/') + 1));
        return open(node, O_RDWR | O_CLOEXEC);
}

/* Without bus mastering the device's DMA goes nowhere, and "blocked" would prove nothing. */
static bool enable_bus_master(int device) {
        struct vfio_region_info config = { .argsz = sizeof config, .index = VFIO_PCI_CONFIG_REGION_INDEX };
        uint16_t command;
        off_t at;

        if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) < 0)
                return false;
        at = (off_t)config.offset + PCI_COMMAND;
        if (pread(device, &command, sizeof command, at) != sizeof command)
                return false;
        command = (uint16_t)(command | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
        return pwrite(device, &command, sizeof command, at) == sizeof command;
}

static void map_registers(struct edu *edu) {
        struct vfio_region_info bar = { .argsz = sizeof bar, .index = VFIO_PCI_BAR0_REGION_INDEX };
        uint32_t id;
        void *address;

        check(enable_bus_master(edu->device), "the device is a bus master");
        check(ioctl(edu->device, VFIO_DEVICE_GET_REGION_INFO, &bar) == 0, "BAR 0 is described");
        address = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, edu->device, (off_t)bar.offset);
        check(address != MAP_FAILED, "BAR 0 maps");
        edu->registers = address;
        id = *(volatile uint32_t *)(edu->registers + EDU_IDENTIFICATION_REGISTER);
        edu->swapped = edu_is_swapped(id);
        check(edu_in_order(edu->swapped, 4, id) == EDU_IDENTIFICATION, "the device is edu");
}

void edu_open(struct edu *edu, const char *bdf, int iommu_type, const char *iommu_name) {
        struct vfio_group_status status = { .argsz = sizeof status };
        char what[64];

        setvbuf(stdout, NULL, _IOLBF, 0);
        edu->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
        check(edu->container >= 0, "the VFIO container opens");
        edu->group = open_group(bdf);
        check(edu->group >= 0, "the device's group opens");
        check(ioctl(edu->group, VFIO_GROUP_GET_STATUS, &status) == 0 && (status.flags & VFIO_GROUP_FLAGS_VIABLE),
              "the group is viable");
        check(ioctl(edu->group, VFIO_GROUP_SET_CONTAINER, &edu->container) == 0, "the container takes the group");
        snprintf(what, sizeof what, "the container is %s", iommu_name);
        check(ioctl(edu->container, VFIO_SET_IOMMU, iommu_type) == 0, what);
        edu->device = ioctl(edu->group, VFIO_GROUP_GET_DEVICE_FD, bdf);
        check(edu->device >= 0, "the group gives the device");
        map_registers(edu);
}

/* ---- transfers ---- */

static void write_register(struct edu *edu, size_t offset, uint64_t value) {
        *(volatile uint64_t *)(edu->registers + offset) = edu_in_order(edu->swapped, 8, value);
        __sync_synchronize();
}

static uint64_t read_register(struct edu *edu, size_t offset) {
        uint64_t value = *(volatile uint64_t *)(edu->registers + offset);

        __sync_synchronize();
        return edu_in_order(edu->swapped, 8, value);
}

static void transfer(struct edu *edu, uint64_t source, uint64_t destination, size_t length, uint64_t direction) {
        write_register(edu, EDU_DMA_SOURCE, source);
        write_register(edu, EDU_DMA_DESTINATION, destination);
        write_register(edu, EDU_DMA_COUNT, length);
        write_register(edu, EDU_DMA_COMMAND, EDU_COMMAND_START | direction);
        for (int i = 0; i < 10000; i++) {
                if (!(read_register(edu, EDU_DMA_COMMAND) & EDU_COMMAND_START))
                        return;
                usleep(1000);
        }
        fail("the device finishes a transfer within 10 s");
}

void edu_reads(struct edu *edu, uint64_t iova, size_t length) {
        transfer(edu, iova, edu_buffer, length, 0);
}

void edu_writes(struct edu *edu, uint64_t iova, size_t length) {
        transfer(edu, edu_buffer, iova, length, EDU_COMMAND_TO_RAM);
}

/* ---- mappings ---- */

int edu_map(struct edu *edu, void *memory, uint64_t iova, uint64_t length) {
        struct vfio_iommu_type1_dma_map request = {
                .argsz = sizeof request,
                .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
                .vaddr = (uintptr_t)memory,
                .iova = iova,
                .size = length,
        };

        return ioctl(edu->container, VFIO_IOMMU_MAP_DMA, &request);
}

int edu_unmap(struct edu *edu, uint64_t iova, uint64_t length) {
        struct vfio_iommu_type1_dma_unmap request = { .argsz = sizeof request, .iova = iova, .size = length };

        return ioctl(edu->container, VFIO_IOMMU_UNMAP_DMA, &request);
}
