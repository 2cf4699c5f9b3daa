/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/backend.h"
#include "backend/revoke.h"
#include "edu_client.h"

/*
 * What the contract tests run on, a container with a device and some memory, and over what: the software IOMMU with
 * several personalities, and VFIO (type1 or sPAPR, whichever this kernel has) when IOMMUD_TEST_VFIO_GROUP (number) and
 * IOMMUD_TEST_VFIO_DEVICE (name) say which edu device to use, and VFIO alone with IOMMUD_TEST_VFIO_ONLY (a guest without
 * KVM is slow). Include after cmocka.h.
 */

#define MEMORY_SIZE (UINT64_C(8) << 20)
#define BASE (UINT64_C(64) << 20)       /* where most mappings go: aligned to every superpage below 64 MiB */
#define RW (BACKEND_ACCESS_READ | BACKEND_ACCESS_WRITE)

/* --- rigs: a container with a device and some memory --------------------------------------------------------------*/

struct rig_kind {
        const char *name;
        struct backend_open open;
        unsigned group;                 /* vfio */
        const char *device;
        long host_page;                 /* a host that is played; 0: this one */
};

struct rig {
        const struct rig_kind *kind;
        struct container *container;
        struct device *device;
        struct edu edu;
        struct container_info info;
        uint64_t page;
        int memfd;
        uint8_t *memory;
        int container_copy;             /* vfio: what the broker would keep; -1 for soft */
};

static const struct rig_kind *current;

/* The software IOMMU does not care whose pages these are: so a host with larger ones than this can be played, on which the
 * IOMMU's page is a part of a page of memory. */
long __sysconf(int name);

/* Sanitizers ask as well, before they can follow anybody. */
__attribute__((no_sanitize("thread"))) long sysconf(int name) {
        return name == _SC_PAGESIZE && current && current->host_page ? current->host_page : __sysconf(name);
}

static inline bool is_soft(const struct rig *rig) {
        return rig->kind->open.kind == BACKEND_SOFT;
}

static inline bool is_type1(const struct rig *rig) {
        return rig->kind->open.kind == BACKEND_VFIO_TYPE1;
}

static inline bool is_spapr(const struct rig *rig) {
        return rig->kind->open.kind == BACKEND_VFIO_SPAPR;
}

static inline bool has_windows(const struct rig *rig) {
        return rig->info.windows.max_windows > 0;
}

/* Where there are windows, what can be mapped is what they are: for tests that know of ranges alone. */
static inline void rig_info(struct rig *rig) {
        struct backend_window windows[BACKEND_WINDOWS_MAX];
        size_t n = container_windows(rig->container, windows);

        container_info(rig->container, &rig->info);
        rig->page = page_mask_smallest(rig->info.page_sizes);
        if (!has_windows(rig))
                return;
        rig->info.n_ranges = 0;
        for (size_t i = 0; i < n; i++)
                rig->info.ranges[rig->info.n_ranges++] =
                        (struct iova_range){ windows[i].start, windows[i].start + windows[i].size - 1 };
        rig->page = UINT64_C(1) << windows[0].page_shift;
}

/* mmap, at an address that suits every page size below 16M: played hosts have larger pages than this one. */
static inline void *map_aligned(int fd, size_t length, int prot) {
        const size_t align = 16U << 20;
        uint8_t *all = mmap(NULL, length + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0), *at;

        assert_ptr_not_equal(all, MAP_FAILED);
        at = (uint8_t *)(((uintptr_t)all + align - 1) & ~(uintptr_t)(align - 1));
        if (at > all)
                munmap(all, (size_t)(at - all));
        munmap(at + length, (size_t)(all + align - at));
        at = mmap(at, length, prot, MAP_SHARED | MAP_FIXED, fd, 0);
        assert_ptr_not_equal(at, MAP_FAILED);
        return at;
}

static inline struct backend_open rig_open(const struct rig_kind *kind) {
        struct backend_open o = kind->open;

        if (o.kind != BACKEND_SOFT) {
                assert_int_equal(vfio_open_container("/dev/vfio", &o.container_fd), 0);
                assert_int_equal(vfio_open_group("/dev/vfio", kind->group, &o.group_fd), 0);
        }
        return o;
}

static inline int rig_setup(void **state) {
        struct rig *rig = calloc(1, sizeof *rig);
        struct backend_open o;
        struct refusal r;

        assert_non_null(rig);
        rig->kind = current;
        o = rig_open(rig->kind);
        rig->container_copy = o.container_fd < 0 ? -1 : dup(o.container_fd);
        if (container_open(&o, &rig->container, &r) < 0)
                fail_msg("container_open: %s", r.text);
        assert_int_equal(o.container_fd, -1);
        assert_int_equal(o.group_fd, -1);
        if (device_open(rig->container, rig->kind->device, &rig->device, &r) < 0)
                fail_msg("device_open: %s", r.text);
        assert_true(edu_attach(&rig->edu, rig->device));
        rig_info(rig);
        rig->memfd = memfd_create("contract", MFD_CLOEXEC);
        assert_int_equal(ftruncate(rig->memfd, (off_t)MEMORY_SIZE), 0);
        rig->memory = map_aligned(rig->memfd, MEMORY_SIZE, PROT_READ | PROT_WRITE);
        *state = rig;
        return 0;
}

static inline int rig_teardown(void **state) {
        struct rig *rig = *state;

        edu_detach(&rig->edu);
        container_close(rig->container);
        fd_close(rig->container_copy);
        munmap(rig->memory, MEMORY_SIZE);
        fd_close(rig->memfd);
        free(rig);
        return 0;
}

static inline struct backend_mapping mapping(const struct rig *rig, uint64_t iova, uint64_t length, uint64_t offset) {
        return (struct backend_mapping){
                .iova = iova,
                .length = length,
                .vaddr = rig->memory + offset,
                .fd = rig->memfd,
                .offset = offset,
                .access = RW,
                .object_vaddr = rig->memory,
                .object_length = MEMORY_SIZE,
        };
}

static inline enum refusal_reason try_map(struct rig *rig, const struct backend_mapping *m, struct refusal *r) {
        int k = container_map(rig->container, m, r);

        if (k == 0)
                return REFUSAL_NONE;
        assert_int_equal(k, -1);
        assert_int_not_equal(r->reason, REFUSAL_NONE);
        assert_true(strlen(r->text) > 10);
        return r->reason;
}

static inline enum refusal_reason map_at(struct rig *rig, uint64_t iova, uint64_t length, uint64_t offset) {
        struct backend_mapping m = mapping(rig, iova, length, offset);
        struct refusal r;

        return try_map(rig, &m, &r);
}

static inline enum refusal_reason unmap_at(struct rig *rig, uint64_t iova, uint64_t length, struct refusal *r) {
        int k = container_unmap(rig->container, iova, length, r);

        if (k == 0)
                return REFUSAL_NONE;
        assert_int_not_equal(r->reason, REFUSAL_NONE);
        return r->reason;
}

#define MARK 64U        /* bytes of one proof */

/* Can the device write to iova, which should lead to this offset of the memory. The scratch mapping is not needed: the
 * buffer's content does not matter, as long as it differs from the memory's. */
static inline bool device_writes(struct rig *rig, uint64_t iova, uint64_t offset) {
        uint8_t before[MARK], expected[MARK];

        memset(expected, 0x5a, MARK);
        memset(rig->memory + offset, 0x5a, MARK);
        assert_true(edu_push(&rig->edu, iova, MARK));
        memcpy(before, rig->memory + offset, MARK);
        return memcmp(before, expected, MARK) != 0;
}

/* Makes the device's buffer hold a pattern other than 0x5a: device_writes() is then a proof. */
static inline void device_load(struct rig *rig, uint8_t pattern) {
        const uint64_t iova = BASE - (UINT64_C(16) << 20), offset = MEMORY_SIZE - rig->page;
        struct refusal r;

        assert_int_equal(map_at(rig, iova, rig->page, offset), REFUSAL_NONE);
        memset(rig->memory + offset, pattern, MARK);
        assert_true(edu_pull(&rig->edu, iova, MARK));
        memset(rig->memory + offset, 0, MARK);
        assert_true(edu_push(&rig->edu, iova, MARK));
        for (unsigned i = 0; i < MARK; i++)
                assert_int_equal(rig->memory[offset + i], pattern);
        assert_int_equal(unmap_at(rig, iova, rig->page, &r), REFUSAL_NONE);
}

/* Can the device read at iova, where the memory has this offset. */
static inline bool device_reads(struct rig *rig, uint64_t iova, uint64_t offset) {
        const uint64_t check_iova = BASE - (UINT64_C(8) << 20), check = MEMORY_SIZE - rig->page;
        struct refusal r;
        bool seen = true;

        device_load(rig, 0x11);
        memset(rig->memory + offset, 0x77, MARK);
        assert_true(edu_pull(&rig->edu, iova, MARK));
        assert_int_equal(map_at(rig, check_iova, rig->page, check), REFUSAL_NONE);
        assert_true(edu_push(&rig->edu, check_iova, MARK));
        for (unsigned i = 0; i < MARK; i++)
                seen = seen && rig->memory[check + i] == 0x77;
        assert_int_equal(unmap_at(rig, check_iova, rig->page, &r), REFUSAL_NONE);
        return seen;
}

/* --- over what ----------------------------------------------------------------------------------------------------*/

#define SOFT(...) { .kind = BACKEND_SOFT, .container_fd = -1, .group_fd = -1, .soft = { __VA_ARGS__ } }

static const struct rig_kind soft_kinds[] = {
        { .name = "soft, 4K+2M+1G", .open = SOFT(.dma_delay_us = 0 /* the default */), .device = "edu0" },
        { .name = "soft, 4K only", .open = SOFT(.dma_delay_us = 100, .page_sizes = 0x1000), .device = "edu7" },
        { .name = "soft, 16K+32M", .open = SOFT(.dma_delay_us = 100, .page_sizes = 0x2004000), .device = "edu10" },
        { .name = "soft, 64K+512M, all 64 bits",
          .open = SOFT(.dma_delay_us = 100, .page_sizes = 0x20010000, .aperture_last = UINT64_MAX), .device = "edu99" },
        { .name = "soft, aperture from 1M to 1G, eight mappings",
          .open = SOFT(.dma_delay_us = 100, .aperture_first = 0x100000, .aperture_last = 0x3fffffff,
                       .reserved_first = 0x10000000, .reserved_last = 0x10ffffff, .max_mappings = 8),
          .device = "edu42" },
        { .name = "soft, 4K+2M+1G on a host with pages of 64K", .open = SOFT(.dma_delay_us = 100), .device = "edu1",
          .host_page = 65536 },
        { .name = "soft, 16K on a host with pages of 64K", .open = SOFT(.dma_delay_us = 100, .page_sizes = 0x4000),
          .device = "edu2", .host_page = 65536 },
        { .name = "soft, 64K on a host with pages of 64K", .open = SOFT(.dma_delay_us = 100, .page_sizes = 0x10000),
          .device = "edu2", .host_page = 65536 },
        { .name = "soft, windows as on sPAPR", .open = SOFT(.dma_delay_us = 100, .windows = SOFT_WINDOWS_SPAPR),
          .device = "edu3" },
        { .name = "soft, windows as on sPAPR, on a host with pages of 64K",
          .open = SOFT(.dma_delay_us = 100, .windows = SOFT_WINDOWS_SPAPR), .device = "edu4", .host_page = 65536 },
};

/* Runs the tests over every backend, or over those with windows alone; returns how many failed. */
static inline int run_over_every_backend(const struct CMUnitTest *tests, size_t n, bool with_windows) {
        const char *group = getenv("IOMMUD_TEST_VFIO_GROUP"), *device = getenv("IOMMUD_TEST_VFIO_DEVICE");
        int failed = 0;

        for (size_t i = 0; i < ARRAY_SIZE(soft_kinds) && !getenv("IOMMUD_TEST_VFIO_ONLY"); i++) {
                current = &soft_kinds[i];
                if (!with_windows || current->open.soft.windows != SOFT_WINDOWS_NONE)
                        failed += _cmocka_run_group_tests(current->name, tests, n, NULL, NULL);
        }
        if (group && device) {
                enum backend_kind kind = vfio_kind("/dev/vfio");
                struct rig_kind vfio = {
                        .name = kind == BACKEND_VFIO_SPAPR ? "vfio-spapr" : "vfio-type1",
                        .open = { .kind = kind, .container_fd = -1, .group_fd = -1 },
                        .group = (unsigned)strtoul(group, NULL, 10),
                        .device = device,
                };

                current = &vfio;
                if (!with_windows || kind == BACKEND_VFIO_SPAPR)
                        failed += _cmocka_run_group_tests(current->name, tests, n, NULL, NULL);
                else
                        print_message("vfio-spapr is not tested: this kernel's VFIO has type1\n");
        } else
                print_message("VFIO is not tested: IOMMUD_TEST_VFIO_GROUP and IOMMUD_TEST_VFIO_DEVICE are not set\n");
        current = NULL;         /* sysconf() asks it to the end of the program */
        return failed;
}
