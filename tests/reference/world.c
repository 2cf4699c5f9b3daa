/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB (UINT64_C(1) << 20)

uint64_t random_next(uint64_t *state) {
        uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
        return z ^ z >> 31;
}

uint32_t random_below(uint64_t *state, uint32_t n) {
        return (uint32_t)(random_next(state) % n);
}

bool random_one_in(uint64_t *state, uint32_t n) {
        return random_below(state, n) == 0;
}

/* The piece ends where the aperture does, has a reserved region in it, and a border of the page tables of every level. */
static void make_soft(struct world *w, uint64_t *random) {
        static const struct {
                const char *sizes;
                uint64_t page;
                uint32_t n_pages, file_pages;
        } masks[] = {
                { "4K", 4096, 40, 16 },      { "16K", 16384, 40, 12 }, { "64K", 65536, 32, 8 },
                { "4K 2M 1G", 4096, 1280, 1024 }, { "64K 512M", 65536, 32, 8 }, { "4K 2M 1G", 4096, 40, 16 },
        };
        uint32_t mask = random_below(random, sizeof masks / sizeof masks[0]);
        uint64_t border = UINT64_C(1) << 39, reserved;

        (void)snprintf(w->page_sizes, sizeof w->page_sizes, "%s", masks[mask].sizes);
        w->page = masks[mask].page;
        w->n_pages = masks[mask].n_pages;
        w->file_pages = masks[mask].file_pages;
        if (w->page == 65536)
                border = UINT64_C(1) << 42;
        else if (w->page == 16384)
                border = UINT64_C(1) << 36;
        /* with large pages: 2 MiB before the border and 3 MiB behind */
        w->base = border - (w->n_pages > 1000 ? 2 * MIB : w->n_pages / 2 * w->page);
        reserved = w->base + (w->n_pages - 10) * w->page;
        w->n_ranges = 2;
        w->ranges[0] = (struct world_range){ 0, reserved - 1 };
        w->ranges[1] = (struct world_range){ reserved + 2 * w->page, w->base + (w->n_pages - 3) * w->page - 1 };
        w->n_devices = 4;
        for (uint32_t i = 0; i < w->n_devices; i++)
                (void)snprintf(w->devices[i], sizeof w->devices[i], "edu%u", i);
        w->max_mappings = random_one_in(random, 3) ? 8 + random_below(random, 24) : 0;
        w->lazy_mappings = random_one_in(random, 2) ? 3 + random_below(random, 5) : 100000;
        w->probes = 10;
}

/* The reserved region of interrupts on x86, and what lies before it. */
static void make_type1(struct world *w, uint64_t *random) {
        (void)snprintf(w->page_sizes, sizeof w->page_sizes, "4K");
        w->page = 4096;
        w->n_pages = 40;
        w->file_pages = 16;
        w->base = UINT64_C(0xfee00000) - 32 * w->page;
        w->n_ranges = 2;
        w->ranges[0] = (struct world_range){ 0, 0xfedfffff };
        w->ranges[1] = (struct world_range){ 0xfef00000, (UINT64_C(1) << 48) - 1 };
        w->at_attach = true;
        w->max_mappings = random_one_in(random, 2) ? 8 + random_below(random, 24) : 0;
        w->n_devices = 2;
        (void)snprintf(w->devices[0], sizeof w->devices[0], "0000:00:05.0");
        (void)snprintf(w->devices[1], sizeof w->devices[1], "0000:00:06.0");
        w->lazy_mappings = 5;           /* as the lane configures it */
        w->probes = 3;                  /* a transfer takes a tenth of a second there */
}

uint32_t world_pages(const struct world *w) {
        return w->n_pages + w->far_pages;
}

uint64_t world_page_iova(const struct world *w, uint32_t page) {
        return page < w->n_pages ? w->base + page * w->page : w->far_base + (page - w->n_pages) * w->page;
}

bool world_is_far(const struct world *w, uint64_t iova) {
        return w->far_pages > 0 && iova >= w->far_base;
}

uint32_t world_page_at(const struct world *w, uint64_t iova) {
        if (iova >= w->base && (iova - w->base) / w->page < w->n_pages)
                return (uint32_t)((iova - w->base) / w->page);
        if (iova >= w->far_base && (iova - w->far_base) / w->page < w->far_pages)
                return w->n_pages + (uint32_t)((iova - w->far_base) / w->page);
        return world_pages(w);
}

static uint64_t given_number(const char *name, uint64_t otherwise) {
        const char *given = getenv(name);

        return given ? strtoull(given, NULL, 0) : otherwise;
}

/* The end of the default window, and what lies behind it, where there is none. What the machine is like the lane knows; if nobody
 * says, as pseries is. */
static void make_spapr(struct world *w, uint64_t *random) {
        const char *devices = getenv("IOMMUD_TEST_DEVICES");
        uint64_t end = given_number("IOMMUD_TEST_WINDOW", 0x40000000);

        (void)snprintf(w->page_sizes, sizeof w->page_sizes, "4K");
        w->page = 4096;
        w->host_page = given_number("IOMMUD_TEST_HOST_PAGE", (uint64_t)sysconf(_SC_PAGESIZE));
        w->n_pages = 72;                /* of the host's largest pages: four and a half */
        w->file_pages = 48;
        w->base = end - 64 * w->page;
        w->far_base = UINT64_C(1) << 59;
        w->far_window = 64;
        w->far_pages = 72;
        w->far_levels = (uint32_t)given_number("IOMMUD_TEST_WINDOW_LEVELS", 1);
        w->n_ranges = 1;
        w->ranges[0] = (struct world_range){ 0, end - 1 };
        w->at_attach = w->windows = true;
        w->record_bytes = 512;
        w->n_devices = 2;
        if (sscanf(devices ? devices : "0001:00:01.0,0002:00:01.0", "%15[^,],%15s", w->devices[0], w->devices[1]) != 2)
                w->n_devices = 0;
        w->lazy_mappings = random_one_in(random, 2) ? 3 + random_below(random, 3) : 100000;
        w->probes = 3;
}

void world_make(enum world_kind kind, uint64_t seed, struct world *ret) {
        uint64_t random = seed;

        *ret = (struct world){ .kind = kind, .seed = seed, .record_bytes = 128, .host_locked = UINT64_MAX,
                               .host_tables = UINT64_MAX };
        if (kind == WORLD_SOFT)
                make_soft(ret, &random);
        else if (kind == WORLD_TYPE1)
                make_type1(ret, &random);
        else
                make_spapr(ret, &random);
        if (ret->host_page < ret->page)
                ret->host_page = ret->page;
        if (kind != WORLD_TYPE1 && random_one_in(&random, 3))
                ret->host_locked = (10 + random_below(&random, 20)) * ret->host_page;
        if (kind != WORLD_TYPE1 && random_one_in(&random, 4))
                ret->host_tables = (8 + random_below(&random, 16)) * ret->host_page;
}
