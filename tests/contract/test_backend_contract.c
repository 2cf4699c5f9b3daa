/* SPDX-License-Identifier: Apache-2.0 */
/* link: backend util */
/*
 * One suite over every backend: what backend.h promises, from both sides of each edge, proven with DMA where it is
 * about what a device can reach. rig.h says over which backends it runs. QEMU's edu device reaches addresses below 256 MiB
 * only unless told otherwise, so every DMA here stays there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rig.h"

/* --- what a container says about itself ---------------------------------------------------------------------------*/

static void info_names_page_sizes_and_sorted_disjoint_ranges(void **state) {
        struct rig *rig = *state;

        assert_true(rig->page >= 4096);
        assert_in_range(rig->info.n_ranges, 1, IOVA_RANGES_MAX);
        assert_true(rig->info.max_mappings > 0);
        for (uint32_t i = 0; i < rig->info.n_ranges; i++) {
                assert_true(rig->info.ranges[i].first <= rig->info.ranges[i].last);
                assert_int_equal(rig->info.ranges[i].first % rig->page, 0);
                if (i > 0)
                        assert_true(rig->info.ranges[i - 1].last < rig->info.ranges[i].first - 1);
        }
}

static void opening_takes_both_fds_also_when_it_fails(void **state) {
        struct backend_open o = { .kind = (enum backend_kind)99, .container_fd = dup(0), .group_fd = dup(0) };
        int fds[2] = { o.container_fd, o.group_fd };
        struct container *c = (struct container *)state;
        struct refusal r;

        for (int i = 0; i < 2; i++) {
                assert_int_equal(container_open(&o, &c, &r), -1);
                assert_ptr_equal(c, (struct container *)state);
                assert_int_equal(o.container_fd, -1);
                assert_int_equal(o.group_fd, -1);
                assert_int_equal(fcntl(fds[0], F_GETFD), -1);
                assert_int_equal(fcntl(fds[1], F_GETFD), -1);
                /* once more with a kind that exists and fds that are no VFIO */
                assert_int_equal(r.reason, i == 0 ? REFUSAL_UNSUPPORTED : r.reason);
                o = (struct backend_open){ .kind = BACKEND_VFIO_TYPE1, .container_fd = dup(0), .group_fd = dup(0) };
                fds[0] = o.container_fd;
                fds[1] = o.group_fd;
        }
        fd_close(fds[0]);
        fd_close(fds[1]);
}

static void closing_nothing_is_fine(void **state) {
        (void)state;
        assert_null(container_close(NULL));
        assert_null(device_close(NULL));
}

/* --- what a device reaches ----------------------------------------------------------------------------------------*/

static void a_mapped_page_is_read_and_written_by_the_device(void **state) {
        struct rig *rig = *state;

        assert_int_equal(map_at(rig, BASE, rig->page, rig->page), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, rig->page));
        assert_true(device_writes(rig, BASE + rig->page - MARK, 2 * rig->page - MARK));
        assert_true(device_reads(rig, BASE, rig->page));
}

static void pages_beside_a_mapping_are_not_reached(void **state) {
        struct rig *rig = *state;

        assert_int_equal(map_at(rig, BASE, rig->page, rig->page), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_false(device_writes(rig, BASE - rig->page, 0));
        assert_false(device_writes(rig, BASE + rig->page, 2 * rig->page));
        assert_false(device_reads(rig, BASE + rig->page, 2 * rig->page));
}

static void a_device_read_mapping_is_not_written(void **state) {
        struct rig *rig = *state;
        struct backend_mapping m = mapping(rig, BASE, rig->page, 0);
        struct refusal r;

        m.access = BACKEND_ACCESS_READ;
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_false(device_writes(rig, BASE, 0));
        assert_true(device_reads(rig, BASE, 0));
}

/* Whether it can be read too is the IOMMU's own affair; the software one says no. */
static void a_device_write_mapping_is_written(void **state) {
        struct rig *rig = *state;
        struct backend_mapping m = mapping(rig, BASE, rig->page, 0);
        struct refusal r;

        m.access = BACKEND_ACCESS_WRITE;
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, 0));
        if (is_soft(rig))
                assert_false(device_reads(rig, BASE, 0));
}

/* Read-only memory of the holder serves a device-read mapping. */
static void memory_mapped_read_only_serves_device_reads(void **state) {
        struct rig *rig = *state;
        struct backend_mapping m = mapping(rig, BASE, rig->page, 0);
        struct refusal r;

        m.access = BACKEND_ACCESS_READ;
        m.vaddr = m.object_vaddr = map_aligned(rig->memfd, rig->page, PROT_READ);
        m.object_length = rig->page;
        rig->memory[0] = 1;     /* a page that was never written would be the zero page's business */
        if (is_spapr(rig)) {    /* registering is pinning for writing */
                assert_int_equal(try_map(rig, &m, &r), REFUSAL_BACKEND_REFUSED);
                assert_int_equal(r.errnum, EFAULT);
                munmap(m.vaddr, rig->page);
                return;
        }
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_NONE);
        assert_true(device_reads(rig, BASE, 0));
        assert_int_equal(unmap_at(rig, BASE, rig->page, &r), REFUSAL_NONE);
        munmap(m.vaddr, rig->page);
}

static void a_large_mapping_leads_to_the_right_byte_everywhere(void **state) {
        struct rig *rig = *state;
        const uint64_t length = MEMORY_SIZE - 4 * rig->page, last = length - MARK;
        struct refusal r;

        /* once so that superpages fit, once so that they do not */
        for (unsigned i = 0; i < 2; i++) {
                uint64_t iova = BASE + i * rig->page;

                assert_int_equal(map_at(rig, iova, length, 0), REFUSAL_NONE);
                device_load(rig, 0x33);
                assert_true(device_writes(rig, iova, 0));
                assert_true(device_writes(rig, iova + (length / 2 & ~(rig->page - 1)), length / 2 & ~(rig->page - 1)));
                assert_true(device_writes(rig, iova + last, last));
                assert_false(device_writes(rig, iova + length, length));
                assert_int_equal(unmap_at(rig, iova, length, &r), REFUSAL_NONE);
                assert_false(device_writes(rig, iova, 0));
                assert_false(device_writes(rig, iova + last, last));
        }
}

static void the_same_memory_is_reached_through_two_addresses(void **state) {
        struct rig *rig = *state;
        const uint64_t second = BASE + 4 * rig->page;
        struct refusal r;

        assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
        assert_int_equal(map_at(rig, second, rig->page, 0), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, 0));
        assert_true(device_writes(rig, second, 0));
        assert_int_equal(unmap_at(rig, BASE, rig->page, &r), REFUSAL_NONE);
        assert_false(device_writes(rig, BASE, 0));
        assert_true(device_writes(rig, second, 0));
}

/* --- what a map refuses -------------------------------------------------------------------------------------------*/

/* What a range gets that lies where there is nothing. */
static enum refusal_reason outside(const struct rig *rig) {
        return has_windows(rig) ? REFUSAL_NO_WINDOW : REFUSAL_OUTSIDE_APERTURE;
}

static void a_length_of_zero_is_refused(void **state) {
        struct rig *rig = *state;
        struct refusal r;

        assert_int_equal(map_at(rig, BASE, 0, 0), REFUSAL_ZERO_LENGTH);
        assert_int_equal(unmap_at(rig, BASE, 0, &r), REFUSAL_ZERO_LENGTH);
}

static void what_is_not_whole_pages_is_refused_with_the_nearest_that_are(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct { uint64_t iova, length, offset, wrong; } cases[] = {
                { BASE + 1, p, 0, BASE + 1 },
                { BASE + p - 1, p, 0, BASE + p - 1 },
                { BASE + p / 2, p, 0, BASE + p / 2 },
                { BASE, 1, 0, 1 },
                { BASE, p - 1, 0, p - 1 },
                { BASE, p + 1, 0, p + 1 },
                { BASE, p, p / 2, p / 2 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct backend_mapping m = mapping(rig, cases[i].iova, cases[i].length, cases[i].offset);
                struct refusal r;

                assert_int_equal(try_map(rig, &m, &r), REFUSAL_UNALIGNED);
                assert_int_equal(r.limit, p);
                assert_int_equal(r.asked, cases[i].wrong);
                assert_int_equal(r.nearest_below, cases[i].wrong / p * p);
                assert_int_equal(r.nearest_above, cases[i].wrong / p * p + p);
                if (cases[i].offset == 0)
                        assert_int_equal(unmap_at(rig, cases[i].iova, cases[i].length, &r), REFUSAL_UNALIGNED);
        }
        assert_int_equal(map_at(rig, BASE, p, 0), REFUSAL_NONE);
        assert_int_equal(map_at(rig, BASE + p, p, p), REFUSAL_NONE);
}

static void a_range_that_passes_the_end_of_the_address_space_is_refused(void **state) {
        struct rig *rig = *state;
        const uint64_t top = UINT64_MAX - rig->page + 1;
        struct backend_mapping m = mapping(rig, BASE, 2 * rig->page, 0);
        enum refusal_reason at_end = map_at(rig, top, rig->page, 0);
        struct refusal r;

        /* ends exactly at 2^64: no wrap, mapped or outside the aperture as the ranges say */
        assert_int_equal(at_end, rig->info.ranges[rig->info.n_ranges - 1].last == UINT64_MAX ? REFUSAL_NONE : outside(rig));
        assert_int_equal(unmap_at(rig, top, rig->page, &r), at_end ? REFUSAL_NOT_MAPPED : REFUSAL_NONE);
        assert_int_equal(map_at(rig, top, 2 * rig->page, 0), REFUSAL_RANGE_WRAPS);
        assert_int_equal(unmap_at(rig, top, 2 * rig->page, &r), REFUSAL_RANGE_WRAPS);
        assert_int_equal(map_at(rig, rig->page, top, 0), is_soft(rig) && at_end == 0 ? REFUSAL_RESERVED_REGION : outside(rig));
        assert_int_equal(map_at(rig, 2 * rig->page, top, 0), REFUSAL_RANGE_WRAPS);
        m.offset = top;
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_RANGE_WRAPS);
}

static void access_is_read_write_or_both(void **state) {
        static const uint32_t bad[] = { 0, 4, 5, 7, 0x80000000 };
        struct rig *rig = *state;
        struct backend_mapping m = mapping(rig, BASE, rig->page, 0);
        struct refusal r;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                m.access = bad[i];
                assert_int_equal(try_map(rig, &m, &r), REFUSAL_BAD_ACCESS);
        }
        for (m.access = 1; m.access <= 3; m.access++) {
                assert_int_equal(try_map(rig, &m, &r), REFUSAL_NONE);
                assert_int_equal(unmap_at(rig, BASE, rig->page, &r), REFUSAL_NONE);
        }
}

static void memory_that_is_not_at_a_page_boundary_is_refused(void **state) {
        struct rig *rig = *state;
        struct backend_mapping m = mapping(rig, BASE, rig->page, 0);
        struct refusal r;

        m.vaddr = rig->memory + 8;
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_UNALIGNED);
}

static void both_ends_of_every_range_can_be_mapped_and_the_next_page_cannot(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        const uint32_t n = rig->info.n_ranges;

        for (uint32_t i = 0; i < n; i++) {
                const struct iova_range *range = &rig->info.ranges[i];
                uint64_t last = ((range->last + 1) & ~(p - 1)) - p;
                struct backend_mapping m;
                struct refusal r;

                assert_int_equal(map_at(rig, range->first, p, 0), REFUSAL_NONE);
                assert_int_equal(map_at(rig, last, p, p), REFUSAL_NONE);
                if (range->first >= p) {
                        m = mapping(rig, range->first - p, p, 0);
                        assert_int_equal(try_map(rig, &m, &r),
                                         i == 0 ? outside(rig) : REFUSAL_RESERVED_REGION);
                }
                if (last + p == 0)
                        continue;
                m = mapping(rig, last + p, p, 0);
                assert_int_equal(try_map(rig, &m, &r), i + 1 == n ? outside(rig) : REFUSAL_RESERVED_REGION);
                if (has_windows(rig)) {
                        assert_int_equal(r.nearest_below, last);
                } else if (i + 1 < n) {
                        assert_int_equal(r.conflict_first, range->last + 1);
                        assert_int_equal(r.conflict_last, rig->info.ranges[i + 1].first - 1);
                        assert_int_equal(r.nearest_below, last);
                        assert_int_equal(r.nearest_above, rig->info.ranges[i + 1].first);
                } else {
                        assert_int_equal(r.nearest_below, rig->info.ranges[0].first);
                        assert_int_equal(r.nearest_above, range->last);
                }
        }
}

static void a_range_across_a_border_is_refused(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;

        for (uint32_t i = 0; i < rig->info.n_ranges; i++) {
                uint64_t last = ((rig->info.ranges[i].last + 1) & ~(p - 1)) - p;
                bool top = i + 1 == rig->info.n_ranges;

                if (last + p == 0)
                        continue;
                assert_int_equal(map_at(rig, last, 2 * p, 0), top ? outside(rig) : REFUSAL_RESERVED_REGION);
                if (!top)       /* all of the reserved region and a page on both sides */
                        assert_int_equal(map_at(rig, last, rig->info.ranges[i + 1].first + p - last, 0),
                                         REFUSAL_RESERVED_REGION);
                assert_int_equal(map_at(rig, last, p, 0), REFUSAL_NONE);
        }
}

static void an_overlap_is_refused_and_names_what_is_in_the_way(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page, first = BASE + 2 * p;
        struct { uint64_t iova, length; } cases[] = {
                { first, 4 * p },               /* the same */
                { first, p },                   /* parts */
                { first + p, p },
                { first + 3 * p, p },
                { first - p, 2 * p },           /* across its borders */
                { first + 3 * p, 2 * p },
                { first - p, 6 * p },           /* around it */
        };
        struct refusal r;

        assert_int_equal(map_at(rig, first, 4 * p, 0), REFUSAL_NONE);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct backend_mapping m = mapping(rig, cases[i].iova, cases[i].length, 0);

                assert_int_equal(try_map(rig, &m, &r), REFUSAL_OVERLAP);
                assert_int_equal(r.conflict_first, first);
                assert_int_equal(r.conflict_last, first + 4 * p - 1);
        }
        assert_int_equal(map_at(rig, first - p, p, 4 * p), REFUSAL_NONE);       /* neighbours are no overlap */
        assert_int_equal(map_at(rig, first + 4 * p, p, 5 * p), REFUSAL_NONE);
}

static void a_refused_map_changes_nothing(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct refusal r;

        assert_int_equal(map_at(rig, BASE + 3 * p, p, 3 * p), REFUSAL_NONE);
        assert_int_equal(map_at(rig, BASE, 4 * p, 4 * p), REFUSAL_OVERLAP);
        device_load(rig, 0x33);
        assert_false(device_writes(rig, BASE, 4 * p));
        assert_false(device_writes(rig, BASE + 2 * p, 6 * p));
        assert_true(device_writes(rig, BASE + 3 * p, 3 * p));
        assert_int_equal(unmap_at(rig, BASE, 4 * p, &r), REFUSAL_NOT_MAPPED);
        assert_int_equal(map_at(rig, BASE, 3 * p, 0), REFUSAL_NONE);
}

/* A map that the kernel itself refuses half way: its last page cannot be pinned. The software IOMMU pins nothing. */
static void a_map_that_fails_half_way_leaves_nothing_behind(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page, half = MEMORY_SIZE / 2;
        struct backend_mapping m = mapping(rig, BASE, MEMORY_SIZE, 0);
        struct refusal r;
        uint8_t *vaddr;

        if (is_soft(rig))
                skip();
        vaddr = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->memfd, 0);
        assert_ptr_not_equal(vaddr, MAP_FAILED);
        munmap(vaddr + half, half);
        m.vaddr = m.object_vaddr = vaddr;
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_BACKEND_REFUSED);
        assert_int_equal(r.errnum, EFAULT);
        device_load(rig, 0x33);
        assert_false(device_writes(rig, BASE, 0));
        assert_int_equal(map_at(rig, BASE, p, 0), REFUSAL_NONE);
        munmap(vaddr, half);
}

static void the_mapping_limit_holds_exactly_and_is_named(void **state) {
        struct rig *rig = *state;
        const uint32_t limit = rig->info.max_mappings;
        struct backend_mapping m = mapping(rig, BASE, rig->page, 0);
        struct refusal r;

        if (limit > 100000)
                skip();
        for (uint32_t i = 0; i < limit; i++, m.iova += rig->page)
                assert_int_equal(try_map(rig, &m, &r), REFUSAL_NONE);
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_LIMIT_EXCEEDED);
        assert_int_equal(r.resource, RESOURCE_MAPPINGS);
        assert_int_equal(r.limit, limit);
        assert_int_equal(r.used, limit);
        assert_int_equal(r.asked, 1);
        assert_int_equal(unmap_at(rig, BASE, rig->page, &r), REFUSAL_NONE);
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_NONE);
        m.iova = BASE;
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_LIMIT_EXCEEDED);
        assert_int_equal(container_unmap_all(rig->container, &r), 0);
        assert_int_equal(try_map(rig, &m, &r), REFUSAL_NONE);
}

static void the_lowest_of_several_mappings_in_the_way_is_named(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct backend_mapping all = mapping(rig, BASE, 7 * p, 0);
        struct refusal r;

        for (uint64_t i = 1; i < 7; i++)
                assert_int_equal(map_at(rig, BASE + i * p, p, 0), REFUSAL_NONE);
        assert_int_equal(try_map(rig, &all, &r), REFUSAL_OVERLAP);
        assert_int_equal(r.conflict_first, BASE + p);
        assert_int_equal(r.conflict_last, BASE + 2 * p - 1);
        assert_int_equal(unmap_at(rig, BASE, 7 * p, &r), REFUSAL_NOT_MAPPED);
        assert_int_equal(r.conflict_first, BASE + p);
        assert_int_equal(r.conflict_last, BASE + 2 * p - 1);
}

/* --- what an unmap removes ----------------------------------------------------------------------------------------*/

static void an_unmap_ends_what_the_device_reaches(void **state) {
        struct rig *rig = *state;
        struct refusal r;

        assert_int_equal(map_at(rig, BASE, 2 * rig->page, 0), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, 0));
        assert_int_equal(unmap_at(rig, BASE, 2 * rig->page, &r), REFUSAL_NONE);
        assert_false(device_writes(rig, BASE, 0));
        assert_false(device_writes(rig, BASE + rig->page, rig->page));
        assert_false(device_reads(rig, BASE, 0));
        assert_int_equal(unmap_at(rig, BASE, 2 * rig->page, &r), REFUSAL_NOT_MAPPED);
}

static void a_part_of_a_mapping_is_not_unmapped_and_the_borders_are_named(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct { uint64_t first, n; } parts[] = { { 0, 1 }, { 1, 2 }, { 3, 1 }, { 0, 3 }, { 1, 3 } };
        struct refusal r;

        assert_int_equal(map_at(rig, BASE, 4 * p, 0), REFUSAL_NONE);
        for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
                assert_int_equal(unmap_at(rig, BASE + parts[i].first * p, parts[i].n * p, &r), REFUSAL_PARTIAL_UNMAP);
                assert_int_equal(r.nearest_below, BASE);
                assert_int_equal(r.nearest_above, BASE + 4 * p);
                assert_int_equal(r.conflict_first, BASE);
                assert_int_equal(r.conflict_last, BASE + 4 * p - 1);
        }
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, 0));
        assert_true(device_writes(rig, BASE + p, p));
        assert_true(device_writes(rig, BASE + 3 * p, 3 * p));
        assert_int_equal(unmap_at(rig, BASE, 4 * p, &r), REFUSAL_NONE);
}

static void an_unmap_of_more_than_one_mapping_removes_none(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct { uint64_t iova, length; } cases[] = {
                { BASE, 4 * p },                /* both exactly */
                { BASE - p, 6 * p },            /* both and holes */
                { BASE + p, 2 * p },            /* a half of each */
                { BASE, 3 * p },
                { BASE - p, 3 * p },            /* one and a hole */
        };
        struct refusal r;

        assert_int_equal(map_at(rig, BASE, 2 * p, 0), REFUSAL_NONE);
        assert_int_equal(map_at(rig, BASE + 2 * p, 2 * p, 2 * p), REFUSAL_NONE);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                assert_int_equal(unmap_at(rig, cases[i].iova, cases[i].length, &r), REFUSAL_NOT_MAPPED);
                assert_int_equal(r.conflict_first, BASE);
                assert_int_equal(r.conflict_last, BASE + 2 * p - 1);
        }
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, 0));
        assert_true(device_writes(rig, BASE + 3 * p, 3 * p));
        assert_int_equal(unmap_at(rig, BASE, 2 * p, &r), REFUSAL_NONE);
        assert_int_equal(unmap_at(rig, BASE + 2 * p, 2 * p, &r), REFUSAL_NONE);
}

static void an_unmap_of_nothing_says_so_and_names_no_conflict(void **state) {
        struct rig *rig = *state;
        struct refusal r;

        assert_int_equal(unmap_at(rig, BASE, rig->page, &r), REFUSAL_NOT_MAPPED);
        assert_true(r.conflict_first > r.conflict_last);
        assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
        assert_int_equal(unmap_at(rig, BASE + rig->page, rig->page, &r), REFUSAL_NOT_MAPPED);
        assert_true(r.conflict_first > r.conflict_last);
}

static void unmap_all_leaves_nothing_reachable_and_everything_mappable(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct refusal r;

        assert_int_equal(container_unmap_all(rig->container, &r), 0);
        assert_int_equal(map_at(rig, BASE, p, 0), REFUSAL_NONE);
        assert_int_equal(map_at(rig, BASE + 2 * p, 2 * p, 2 * p), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_int_equal(container_unmap_all(rig->container, &r), 0);
        assert_false(device_writes(rig, BASE, 0));
        assert_false(device_writes(rig, BASE + 3 * p, 3 * p));
        assert_int_equal(unmap_at(rig, BASE, p, &r), REFUSAL_NOT_MAPPED);
        assert_int_equal(map_at(rig, BASE, 4 * p, 0), REFUSAL_NONE);
        assert_true(device_writes(rig, BASE + p, p));
}

/* Starts transfers and takes the memory away while they run: whatever the device did, it did before unmap returned. */
static void no_transfer_outlives_an_unmap(void **state) {
        struct rig *rig = *state;
        const unsigned rounds = is_soft(rig) ? 200 : 5;
        const uint64_t offset = rig->page - 1024, length = 2048;        /* across two pages */
        struct refusal r;

        device_load(rig, 0x33);
        for (unsigned i = 0; i < rounds; i++) {
                assert_int_equal(map_at(rig, BASE, 2 * rig->page, 0), REFUSAL_NONE);
                edu_start(&rig->edu, true, BASE + offset, 0, length);
                usleep(i * 7 % 300 + (is_soft(rig) ? 0 : 99000));
                assert_int_equal(unmap_at(rig, BASE, 2 * rig->page, &r), REFUSAL_NONE);
                memset(rig->memory + offset, 0x5a, length);
                assert_true(edu_wait(&rig->edu));
                for (uint64_t n = 0; n < length; n++)
                        assert_int_equal(rig->memory[offset + n], 0x5a);
        }
}

/* Every third of many pages goes, and the others stay. */
static void unmapping_one_mapping_leaves_its_neighbours(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct refusal r;

        for (uint64_t i = 0; i < 6; i++)
                assert_int_equal(map_at(rig, BASE + i * p, p, i * p), REFUSAL_NONE);
        assert_int_equal(unmap_at(rig, BASE + 1 * p, p, &r), REFUSAL_NONE);
        assert_int_equal(unmap_at(rig, BASE + 4 * p, p, &r), REFUSAL_NONE);
        device_load(rig, 0x33);
        for (uint64_t i = 0; i < 6; i++)
                assert_int_equal(device_writes(rig, BASE + i * p, i * p), i % 3 != 1);
}

/* --- devices ------------------------------------------------------------------------------------------------------*/

static void an_unknown_device_is_refused(void **state) {
        static const char *const names[] = { "", "no-such-device", "edu100", "edu00", "edu", "0000:7f:1f.7",
                "a-name-that-is-longer-than-any-device-of-the-kernel-could-ever-have-been-called" };
        struct rig *rig = *state;
        struct device *d = NULL;
        struct refusal r;

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                assert_int_equal(device_open(rig->container, names[i], &d, &r), -1);
                assert_int_equal(r.reason, REFUSAL_UNKNOWN_DEVICE);
                assert_null(d);
        }
}

static void a_device_is_opened_once_at_a_time(void **state) {
        struct rig *rig = *state;
        struct device *d = NULL;
        struct refusal r;

        assert_int_equal(device_open(rig->container, rig->kind->device, &d, &r), -1);
        assert_int_equal(r.reason, REFUSAL_DEVICE_BUSY);
        edu_detach(&rig->edu);
        rig->device = device_close(rig->device);
        assert_int_equal(device_open(rig->container, rig->kind->device, &rig->device, &r), 0);
        assert_true(edu_attach(&rig->edu, rig->device));
        assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, 0));
}

static void each_client_fd_is_a_new_one_that_works_by_itself(void **state) {
        struct rig *rig = *state;
        struct edu second;

        assert_true(edu_attach(&second, rig->device));
        assert_int_not_equal(second.fd, rig->edu.fd);
        assert_true(fcntl(second.fd, F_GETFD) & FD_CLOEXEC);
        assert_int_equal(edu_read(&second, 0, 4), 0x010000ed);
        edu_detach(&second);
        assert_int_equal(edu_read(&rig->edu, 0, 4), 0x010000ed);
}

static void a_keeper_fd_is_a_device_fd_where_the_translation_outlives_the_process(void **state) {
        struct rig *rig = *state;
        struct refusal r;
        int fd = -2;

        assert_int_equal(device_keeper_fd(rig->device, &fd, &r), 0);
        if (is_soft(rig)) {
                assert_int_equal(fd, -1);
                return;
        }
        assert_true(revoke_is_device_fd(fd));
        assert_false(revoke_is_container_fd(fd));
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        fd_close(fd);
}

/* With a mapping and the device open; the client still has its fd. */
static void closing_a_container_cuts_the_client_off(void **state) {
        struct rig *rig = *state;
        uint64_t id = 0;

        assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, 0));
        rig->container = container_close(rig->container);
        if (is_soft(rig))
                assert_int_equal(edu_access_soft(&rig->edu, SOFT_READ, 0, 0, 4, &id), -EPIPE);
        else
                assert_false(device_writes(rig, BASE, 0));
}

static void two_containers_do_not_see_each_other(void **state) {
        struct rig *rig = *state, *other;
        void *other_state;

        if (!is_soft(rig))
                skip();         /* one group, one container */
        rig_setup(&other_state);
        other = other_state;
        assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
        assert_int_equal(map_at(other, BASE, rig->page, rig->page), REFUSAL_NONE);
        device_load(rig, 0x33);
        device_load(other, 0x44);
        assert_true(device_writes(rig, BASE, 0));
        assert_true(device_writes(other, BASE, rig->page));
        assert_int_equal(rig->memory[0], 0x33);
        assert_int_equal(other->memory[rig->page], 0x44);
        assert_int_equal(other->memory[0], 0);
        container_close(other->container);
        other->container = NULL;
        assert_true(device_writes(rig, BASE, 0));
        rig_teardown(&other_state);
}

/* --- revoking with nothing but fds --------------------------------------------------------------------------------*/

static void the_container_fd_alone_revokes(void **state) {
        struct rig *rig = *state;

        if (!is_type1(rig))
                skip();         /* soft: the holder's death is the revocation; sPAPR: test_killed_holder.c */
        assert_true(revoke_is_container_fd(rig->container_copy));
        assert_false(revoke_is_device_fd(rig->container_copy));
        assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, 0));
        assert_int_equal(revoke_container_fd(rig->container_copy), 0);
        assert_false(device_writes(rig, BASE, 0));
        assert_int_equal(revoke_container_fd(rig->container_copy), 0);
}

/* The kernel's side of an exact unmap: when it removed other than what was asked, that is reported. */
static void an_unmap_that_the_kernel_did_not_do_is_reported(void **state) {
        struct rig *rig = *state;
        struct refusal r;

        if (!is_type1(rig))
                skip();
        assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
        assert_int_equal(revoke_container_fd(rig->container_copy), 0);
        assert_int_equal(unmap_at(rig, BASE, rig->page, &r), REFUSAL_BACKEND_REFUSED);
}

/* They look like the real ones, but are no open files. */
static void path_only_fds_are_taken_neither_for_a_device_nor_for_a_container(void **state) {
        struct rig *rig = *state;
        char path[64];
        int fd;

        if (is_soft(rig))
                skip();
        fd = open("/dev/vfio/vfio", O_PATH | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_false(revoke_is_container_fd(fd));
        fd_close(fd);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", rig->edu.fd);
        assert_true(revoke_is_device_fd(rig->edu.fd));
        fd = open(path, O_PATH | O_CLOEXEC);
        assert_true(fd >= 0);
        assert_false(revoke_is_device_fd(fd));
        fd_close(fd);
}

static void a_container_without_an_iommu_has_nothing_to_revoke(void **state) {
        struct rig *rig = *state;
        _cleanup_close_ int fd = -1;

        if (is_soft(rig))
                skip();
        assert_int_equal(vfio_open_container("/dev/vfio", &fd), 0);
        assert_int_equal(revoke_container_fd(fd), 0);
}

static void a_group_is_free_only_when_everybody_let_go(void **state) {
        struct rig *rig = *state;

        if (is_soft(rig))
                skip();
        assert_false(revoke_group_is_free("/dev/vfio", rig->kind->group));
        rig->container = container_close(rig->container);
        assert_false(revoke_group_is_free("/dev/vfio", rig->kind->group));      /* the client's fd and BAR */
        fd_close(rig->edu.fd);
        rig->edu.fd = -1;
        assert_false(revoke_group_is_free("/dev/vfio", rig->kind->group));      /* the BAR */
        edu_detach(&rig->edu);
        assert_true(revoke_group_is_free("/dev/vfio", rig->kind->group));
}

/* --- */

#define PROMISE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

static const struct CMUnitTest promises[] = {
        PROMISE(info_names_page_sizes_and_sorted_disjoint_ranges),
        PROMISE(opening_takes_both_fds_also_when_it_fails),
        PROMISE(closing_nothing_is_fine),
        PROMISE(a_mapped_page_is_read_and_written_by_the_device),
        PROMISE(pages_beside_a_mapping_are_not_reached),
        PROMISE(a_device_read_mapping_is_not_written),
        PROMISE(a_device_write_mapping_is_written),
        PROMISE(memory_mapped_read_only_serves_device_reads),
        PROMISE(a_large_mapping_leads_to_the_right_byte_everywhere),
        PROMISE(the_same_memory_is_reached_through_two_addresses),
        PROMISE(a_length_of_zero_is_refused),
        PROMISE(what_is_not_whole_pages_is_refused_with_the_nearest_that_are),
        PROMISE(a_range_that_passes_the_end_of_the_address_space_is_refused),
        PROMISE(access_is_read_write_or_both),
        PROMISE(memory_that_is_not_at_a_page_boundary_is_refused),
        PROMISE(both_ends_of_every_range_can_be_mapped_and_the_next_page_cannot),
        PROMISE(a_range_across_a_border_is_refused),
        PROMISE(an_overlap_is_refused_and_names_what_is_in_the_way),
        PROMISE(the_lowest_of_several_mappings_in_the_way_is_named),
        PROMISE(a_refused_map_changes_nothing),
        PROMISE(a_map_that_fails_half_way_leaves_nothing_behind),
        PROMISE(the_mapping_limit_holds_exactly_and_is_named),
        PROMISE(an_unmap_ends_what_the_device_reaches),
        PROMISE(a_part_of_a_mapping_is_not_unmapped_and_the_borders_are_named),
        PROMISE(an_unmap_of_more_than_one_mapping_removes_none),
        PROMISE(an_unmap_of_nothing_says_so_and_names_no_conflict),
        PROMISE(unmap_all_leaves_nothing_reachable_and_everything_mappable),
        PROMISE(no_transfer_outlives_an_unmap),
        PROMISE(unmapping_one_mapping_leaves_its_neighbours),
        PROMISE(an_unknown_device_is_refused),
        PROMISE(a_device_is_opened_once_at_a_time),
        PROMISE(each_client_fd_is_a_new_one_that_works_by_itself),
        PROMISE(a_keeper_fd_is_a_device_fd_where_the_translation_outlives_the_process),
        PROMISE(closing_a_container_cuts_the_client_off),
        PROMISE(two_containers_do_not_see_each_other),
        PROMISE(the_container_fd_alone_revokes),
        PROMISE(an_unmap_that_the_kernel_did_not_do_is_reported),
        PROMISE(path_only_fds_are_taken_neither_for_a_device_nor_for_a_container),
        PROMISE(a_container_without_an_iommu_has_nothing_to_revoke),
        PROMISE(a_group_is_free_only_when_everybody_let_go),
};

int main(void) {
        return run_over_every_backend(promises, ARRAY_SIZE(promises), false);
}
