/* SPDX-License-Identifier: Apache-2.0 */
/*
 * probe_edu BDF: proves with QEMU's edu device that the lab's IOMMU translates and that it blocks, through VFIO type1. The
 * device must be bound to vfio-pci.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/vfio.h>

#include "vfio_edu.h"

static const size_t page = 4096;

/* A text goes from the first page through the device to the second. Then, after unmap, the same write by the device must
 * leave the second page as it is. */
static void probe_at(struct edu *edu, uint8_t *memory, uint64_t iova) {
        uint8_t *from = memory, *to = memory + page;
        char text[64] = "";

        printf("at IOVA 0x%" PRIx64 ":\n", iova);
        snprintf(text, sizeof text, "through the IOMMU at 0x%" PRIx64, iova);
        memset(memory, 0, 2 * page);
        memcpy(from, text, sizeof text);

        check(edu_map(edu, memory, iova, 2 * page) == 0, "two pages map");
        edu_reads(edu, iova, sizeof text);
        edu_writes(edu, iova + page, sizeof text);
        check(memcmp(to, text, sizeof text) == 0, "the device moved the text from one page to the other");

        memset(to, 0, page);
        check(edu_unmap(edu, iova, 2 * page) == 0, "the pages unmap");
        edu_writes(edu, iova + page, sizeof text);
        check(to[0] == 0 && memcmp(to, to + 1, page - 1) == 0, "after unmap the device's write is blocked");
}

int main(int argc, char **argv) {
        /* One IOVA that any device can reach, one that needs the wide DMA mask, and one that needs more than the 39 bits of a
         * three-level table. */
        static const uint64_t iovas[] = { UINT64_C(1) << 20, UINT64_C(1) << 33, UINT64_C(1) << 46 };
        uint8_t *memory;
        struct edu edu;

        if (argc != 2) {
                fprintf(stderr, "usage: probe_edu BDF\n");
                return 2;
        }
        edu_open(&edu, argv[1], VFIO_TYPE1v2_IOMMU, "type1v2");
        memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        check(memory != MAP_FAILED, "memory for the transfers");
        for (size_t i = 0; i < sizeof iovas / sizeof iovas[0]; i++)
                probe_at(&edu, memory, iovas[i]);
        return 0;
}
