/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * The circumstances of a run, which service and model are both told before the first operation: all of it follows from the seed
 * and the kind of world. What a service says of itself (iommud_capabilities) is compared with it.
 */
#define WORLD_RANGES 3
#define WORLD_DEVICES 4

enum world_kind {
        WORLD_SOFT,             /* a service of the test's own on the software IOMMU */
        WORLD_TYPE1,            /* the installed service on VFIO type1, in the lab's machine (tests/vm/lanes/reference.sh) */
        WORLD_SPAPR             /* a service of the test's own on the windows of POWER (tests/vm/lanes/power_reference.sh) */
};

struct world_range {
        uint64_t first, last;   /* inclusive */
};

struct world {
        enum world_kind kind;
        uint64_t seed;
        uint64_t page;          /* the smallest page of the IOMMU */
        uint64_t host_page;     /* that of the host, if it is larger: what is locked, what a table takes, and all that is known
                                 * of an IOMMU before there is a device */
        char page_sizes[32];    /* all of them, as the configuration has it */
        uint64_t base;          /* the piece of the IOVA space that is looked at */
        uint32_t n_pages;
        uint64_t far_base;      /* where a second window lies, which is that large */
        uint32_t far_window;    /* in pages; behind them are some that are in no window: */
        uint32_t far_pages;
        uint32_t file_pages;    /* size of a file, in pages */
        uint32_t n_ranges;
        struct world_range ranges[WORLD_RANGES];        /* where mappings can be */
        uint32_t max_mappings;  /* of the IOMMU, in one domain; 0: no limit */
        bool at_attach;         /* ranges and max_mappings are known only while a device is attached */
        bool windows;           /* ranges are windows of the IOMMU's own, with a table each: known from the first device on */
        uint32_t far_levels;    /* its table has: several on a bare machine, whose kernel keeps another table beside it */
        uint32_t record_bytes;  /* what the kernel keeps for one of them */
        uint32_t lazy_mappings; /* that many waiting make a flush */
        uint64_t host_locked, host_tables;      /* what all tenants together may have */
        uint32_t n_devices;
        char devices[WORLD_DEVICES][16];
        uint32_t probes;        /* pages that are looked at after each operation */
};

void world_make(enum world_kind kind, uint64_t seed, struct world *ret);

/* All pages that are looked at have a number, those of the second window the last ones. */
uint32_t world_pages(const struct world *w);
uint64_t world_page_iova(const struct world *w, uint32_t page);
/* The number of the page that has that address; world_pages(): none has. */
uint32_t world_page_at(const struct world *w, uint64_t iova);
/* Where the second window is, or would be. */
bool world_is_far(const struct world *w, uint64_t iova);

/* splitmix64 */
uint64_t random_next(uint64_t *state);
/* 0 to n - 1 */
uint32_t random_below(uint64_t *state, uint32_t n);
/* True in one of n cases. */
bool random_one_in(uint64_t *state, uint32_t n);
