/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_spapr BDF LEVELS: proves with QEMU's edu device what the service relies on with the sPAPR TCE IOMMU of POWER: windows
 * that translate and that block, and what the kernel says to requests that are wrong. The device must be bound to
 * vfio-pci. LEVELS: how many levels the tables of a window of this platform may have.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "vfio_edu.h"

static const size_t memory_size = 4 << 20;
static const size_t block = 2048;

static struct edu edu;
static struct vfio_iommu_spapr_tce_info info;
static uint8_t *memory;

static int register_memory(unsigned long request, size_t size) {
        struct vfio_iommu_spapr_register_memory r = {
                .argsz = sizeof r,
                .vaddr = (uintptr_t)memory,
                .size = size,
        };

        return ioctl(edu.container, request, &r);
}

static int create_window(unsigned shift, uint64_t size, unsigned levels, uint64_t *ret_start) {
        struct vfio_iommu_spapr_tce_create r = {
                .argsz = sizeof r,
                .page_shift = shift,
                .window_size = size,
                .levels = levels,
        };
        int result = ioctl(edu.container, VFIO_IOMMU_SPAPR_TCE_CREATE, &r);

        if (result == 0)
                *ret_start = r.start_addr;
        return result;
}

static int remove_window(uint64_t start) {
        struct vfio_iommu_spapr_tce_remove r = { .argsz = sizeof r, .start_addr = start };

        return ioctl(edu.container, VFIO_IOMMU_SPAPR_TCE_REMOVE, &r);
}

/* A pattern goes from memory to the device and back to the same place: does it arrive? */
static bool arrives(uint64_t iova, uint8_t *at) {
        static uint8_t seed;
        uint8_t pattern[2048];

        seed++;
        for (size_t i = 0; i < block; i++)
                pattern[i] = (uint8_t)(seed + i * 7 + i / 256);
        memcpy(at, pattern, block);
        edu_reads(&edu, iova, block);
        memset(at, 0x5a, block);
        edu_writes(&edu, iova, block);
        return memcmp(at, pattern, block) == 0;
}

static bool blocked(uint64_t iova, uint8_t *at) {
        memset(at, 0x5a, block);
        edu_writes(&edu, iova, block);
        return at[0] == 0x5a && memcmp(at, at + 1, block - 1) == 0;
}

static void probe_info(void) {
        info.argsz = sizeof info;
        check(ioctl(edu.container, VFIO_IOMMU_SPAPR_TCE_GET_INFO, &info) == 0, "the container says what it can do");
        printf("default window 0x%" PRIx32 " + 0x%" PRIx32 ", page sizes 0x%" PRIx64 ", %" PRIu32 " windows, %" PRIu32
               " levels\n", info.dma32_window_start, info.dma32_window_size, (uint64_t)info.ddw.pgsizes,
               info.ddw.max_dynamic_windows_supported, info.ddw.levels);
        check(info.flags & VFIO_IOMMU_SPAPR_INFO_DDW, "it has dynamic windows");
        check((info.ddw.pgsizes & 0x11000) == 0x11000, "with pages of 4K and of 64K");
}

static void probe_default_window(void) {
        uint64_t start = info.dma32_window_start, last = start + info.dma32_window_size - 65536;

        errno = 0;
        check(edu_map(&edu, memory, start, 4096) < 0 && errno == EPERM, "nothing maps before memory is registered");
        check(register_memory(VFIO_IOMMU_SPAPR_REGISTER_MEMORY, memory_size) == 0, "memory registers");
        check(edu_map(&edu, memory, start, 65536) == 0, "64K map at the start of the default window");
        check(arrives(start, memory), "the device reads and writes at its start");
        check(arrives(start + 65536 - block, memory + 65536 - block), "and at the end of the mapping");
        check(edu_map(&edu, memory + 65536, last, 65536) == 0, "64K map at the end of the default window");
        check(arrives(last + 65536 - block, memory + 131072 - block), "the device reads and writes there");
        check(edu_unmap(&edu, start, 65536) == 0, "the first mapping unmaps");
        check(blocked(start, memory), "after unmap the device's write is blocked");
        check(arrives(last, memory + 65536), "and the other mapping is as it was");
        check(edu_unmap(&edu, last, 65536) == 0, "that unmaps too");
}

static void probe_second_window(unsigned levels) {
        const uint64_t size = UINT64_C(1) << 32;
        uint64_t start, other;

        check(create_window(16, size, levels, &start) == 0, "a window of 4G with pages of 64K is created");
        printf("it is at 0x%" PRIx64 "\n", start);
        check(create_window(16, size, levels, &other) < 0 && errno == ENOSPC, "a third one is refused with ENOSPC");
        check(edu_map(&edu, memory, start, 65536) == 0, "a page maps at its start");
        check(edu_map(&edu, memory + 65536, start + size - 65536, 65536) == 0, "and one at its end");
        check(arrives(start, memory), "the device reaches the first");
        check(arrives(start + size - block, memory + 131072 - block), "and the last bytes");
        check(edu_map(&edu, memory, info.dma32_window_start, 4096) == 0, "the default window still maps");
        check(remove_window(start) == 0, "the window is removed, mappings and all");
        check(blocked(start, memory), "after that the device's write is blocked at the start");
        check(blocked(start + size - 65536, memory + 65536), "and at the end");
        check(arrives(info.dma32_window_start, memory), "the default window still translates");
        check(edu_unmap(&edu, info.dma32_window_start, 4096) == 0, "and unmaps");
}

/* What the service must not let through, or must not take for success. */
static void probe_hazards(unsigned levels) {
        uint64_t start = info.dma32_window_start, unused;

        check(create_window(16, UINT64_C(3) << 30, levels, &unused) < 0 && errno == EINVAL,
              "a size that is no power of two is refused with EINVAL");
        check(create_window(13, UINT64_C(1) << 30, levels, &unused) < 0 && errno == EINVAL,
              "a page size that the mask does not have too");
        check(remove_window(UINT64_C(0x123450000)) < 0 && errno == EINVAL, "so is removing what is not there");
        check(edu_map(&edu, memory, start + 16, 4096) != 0, "a misaligned IOVA is not mapped, whatever the sign of the answer");
        check(edu_map(&edu, memory, start + info.dma32_window_size, 4096) < 0 && errno == ENXIO,
              "outside every window nothing maps: ENXIO");
        check(register_memory(VFIO_IOMMU_SPAPR_REGISTER_MEMORY, memory_size) < 0 && errno == EBUSY,
              "the same memory does not register twice: EBUSY");
        check(register_memory(VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY, memory_size) == 0, "memory unregisters");
        check(edu_map(&edu, memory, start, 4096) != 0, "and does not map any more");
}

/* Whatever backs a page of a window must be at least as large: where the host's pages are smaller, huge ones. */
static void allocate_memory(void) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | (sysconf(_SC_PAGESIZE) < 65536 ? MAP_HUGETLB : 0);

        memory = mmap(NULL, memory_size, PROT_READ | PROT_WRITE, flags, -1, 0);
        check(memory != MAP_FAILED, "memory for the transfers");
        memset(memory, 0, memory_size);
}

int main(int argc, char **argv) {
        unsigned levels;

        if (argc != 3) {
                fprintf(stderr, "usage: probe_spapr BDF LEVELS\n");
                return 2;
        }
        levels = (unsigned)strtoul(argv[2], NULL, 10);
        edu_open(&edu, argv[1], VFIO_SPAPR_TCE_v2_IOMMU, "sPAPR TCE v2");
        allocate_memory();
        probe_info();
        check(info.ddw.levels >= levels, "a window's tables may have that many levels");
        probe_default_window();
        probe_second_window(levels);
        probe_hazards(levels);
        return 0;
}
