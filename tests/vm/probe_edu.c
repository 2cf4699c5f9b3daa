// SPDX-License-Identifier: Apache-2.0
// probe_edu BDF: proves with QEMU's edu device that the lab's IOMMU translates and that it blocks.
//
// The independent check of the lab itself: it shares no code with the service and speaks to VFIO type1 directly.
// The device must be bound to vfio-pci. Prints one line per check, "ok: what" or "FAIL: what", and exits non-zero
// after the first failure.

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

// The device, see docs/specs/edu.txt in QEMU's source. It acts about 100 ms after a command.
enum {
    EDU_ID = 0x00,
    EDU_DMA_SOURCE = 0x80,
    EDU_DMA_DESTINATION = 0x88,
    EDU_DMA_COUNT = 0x90,
    EDU_DMA_COMMAND = 0x98,
};
enum { EDU_COMMAND_START = 1, EDU_COMMAND_TO_RAM = 2 };
static const uint64_t edu_buffer = 0x40000; // its own 4096 bytes, as the DMA engine sees them
static const uint32_t edu_id = 0x010000ed;

static const size_t page = 4096;

struct edu {
    int container;
    int group;
    int device;
    volatile uint8_t *registers;
};

static void ok(const char *what) {
    printf("ok: %s\n", what);
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list args;

    printf("FAIL: ");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    exit(1);
}

static void check(bool condition, const char *what) {
    if (!condition)
        fail("%s", what);
    ok(what);
}

// Opens /dev/vfio/N for the group that the device is in.
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

static void open_device(struct edu *edu, const char *bdf) {
    struct vfio_group_status status = {.argsz = sizeof status};

    edu->container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
    check(edu->container >= 0, "the VFIO container opens");
    edu->group = open_group(bdf);
    check(edu->group >= 0, "the device's group opens");
    check(ioctl(edu->group, VFIO_GROUP_GET_STATUS, &status) == 0 && (status.flags & VFIO_GROUP_FLAGS_VIABLE),
          "the group is viable");
    check(ioctl(edu->group, VFIO_GROUP_SET_CONTAINER, &edu->container) == 0, "the container takes the group");
    check(ioctl(edu->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0, "the container is type1v2");
    edu->device = ioctl(edu->group, VFIO_GROUP_GET_DEVICE_FD, bdf);
    check(edu->device >= 0, "the group gives the device");
}

// Without bus mastering the device's DMA goes nowhere, and "blocked" would prove nothing.
static bool enable_bus_master(int device) {
    struct vfio_region_info config = {.argsz = sizeof config, .index = VFIO_PCI_CONFIG_REGION_INDEX};
    uint16_t command;
    off_t at;

    if (ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &config) < 0)
        return false;
    at = (off_t)config.offset + PCI_COMMAND;
    if (pread(device, &command, sizeof command, at) != sizeof command)
        return false;
    command |= PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
    return pwrite(device, &command, sizeof command, at) == sizeof command;
}

static void map_registers(struct edu *edu) {
    struct vfio_region_info bar = {.argsz = sizeof bar, .index = VFIO_PCI_BAR0_REGION_INDEX};
    void *address;

    check(enable_bus_master(edu->device), "the device is a bus master");
    check(ioctl(edu->device, VFIO_DEVICE_GET_REGION_INFO, &bar) == 0, "BAR 0 is described");
    address = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, edu->device, (off_t)bar.offset);
    check(address != MAP_FAILED, "BAR 0 maps");
    edu->registers = address;
    check(*(volatile uint32_t *)(edu->registers + EDU_ID) == edu_id, "the device is edu");
}

static void write_register(struct edu *edu, size_t offset, uint64_t value) {
    *(volatile uint64_t *)(edu->registers + offset) = value;
}

static uint64_t read_register(struct edu *edu, size_t offset) {
    return *(volatile uint64_t *)(edu->registers + offset);
}

// One transfer of length bytes. Returning says that the device has finished, not that the bytes arrived: a
// blocked transfer ends like any other.
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

static void device_reads(struct edu *edu, uint64_t iova, size_t length) {
    transfer(edu, iova, edu_buffer, length, 0);
}

static void device_writes(struct edu *edu, uint64_t iova, size_t length) {
    transfer(edu, edu_buffer, iova, length, EDU_COMMAND_TO_RAM);
}

static bool map(struct edu *edu, void *memory, uint64_t iova, size_t length) {
    struct vfio_iommu_type1_dma_map request = {
        .argsz = sizeof request,
        .flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        .vaddr = (uintptr_t)memory,
        .iova = iova,
        .size = length,
    };

    return ioctl(edu->container, VFIO_IOMMU_MAP_DMA, &request) == 0;
}

static bool unmap(struct edu *edu, uint64_t iova, size_t length) {
    struct vfio_iommu_type1_dma_unmap request = {.argsz = sizeof request, .iova = iova, .size = length};

    return ioctl(edu->container, VFIO_IOMMU_UNMAP_DMA, &request) == 0 && request.size == length;
}

// A text goes from the first page through the device to the second. Then, after unmap, the same write by the
// device must leave the second page as it is.
static void probe_at(struct edu *edu, uint8_t *memory, uint64_t iova) {
    char text[64];
    uint8_t *from = memory, *to = memory + page;

    printf("at IOVA 0x%" PRIx64 ":\n", iova);
    memset(text, 0, sizeof text);
    snprintf(text, sizeof text, "through the IOMMU at 0x%" PRIx64, iova);
    memset(memory, 0, 2 * page);
    memcpy(from, text, sizeof text);

    check(map(edu, memory, iova, 2 * page), "two pages map");
    device_reads(edu, iova, sizeof text);
    device_writes(edu, iova + page, sizeof text);
    check(memcmp(to, text, sizeof text) == 0, "the device moved the text from one page to the other");

    memset(to, 0, page);
    check(unmap(edu, iova, 2 * page), "the pages unmap");
    device_writes(edu, iova + page, sizeof text);
    check(to[0] == 0 && memcmp(to, to + 1, page - 1) == 0, "after unmap the device's write is blocked");
}

int main(int argc, char **argv) {
    // One IOVA that any device can reach, one that needs the wide DMA mask, and one that needs more than the
    // 39 bits of a three-level table.
    static const uint64_t iovas[] = {UINT64_C(1) << 20, UINT64_C(1) << 33, UINT64_C(1) << 46};
    struct edu edu;
    uint8_t *memory;

    if (argc != 2) {
        fprintf(stderr, "usage: probe_edu BDF\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    open_device(&edu, argv[1]);
    map_registers(&edu);
    memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(memory != MAP_FAILED, "memory for the transfers");
    for (size_t i = 0; i < sizeof iovas / sizeof iovas[0]; i++)
        probe_at(&edu, memory, iovas[i]);
    return 0;
}
