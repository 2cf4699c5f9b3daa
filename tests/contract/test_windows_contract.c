/* SPDX-License-Identifier: Apache-2.0 */
/* link: backend util */
/*
 * What backend.h promises about DMA windows, over every backend that has some of its own (rig.h): the software IOMMU that
 * looks like POWER's, and sPAPR itself where it exists. What a device reaches is proven with DMA at both ends of a window.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <linux/memfd.h>

#include "rig.h"

#define K UINT64_C(1024)
#define M (K * K)
#define G (K * M)

/* --- memory whose pages are large enough --------------------------------------------------------------------------*/

struct memory {
        int fd;
        uint8_t *at;
        uint64_t size, page;
};

/* Two pages of that size at least. The software IOMMU believes what it is told; the kernel wants to see huge pages. */
static bool memory_make(const struct rig *rig, uint64_t page, struct memory *ret) {
        uint64_t host_page = (uint64_t)sysconf(_SC_PAGESIZE);
        bool huge = page > host_page;
        unsigned shift = (unsigned)__builtin_ctzll(page), flags = 0;

        if (huge && !is_soft(rig))
                flags = MFD_HUGETLB | shift << MFD_HUGE_SHIFT;
        *ret = (struct memory){ .size = 2 * page < 128 * K ? 128 * K : 2 * page, .page = huge ? page : host_page };
        ret->fd = memfd_create("window", MFD_CLOEXEC | flags);
        if (ret->fd < 0 || ftruncate(ret->fd, (off_t)ret->size) < 0)
                return false;
        ret->at = flags ? mmap(NULL, ret->size, PROT_READ | PROT_WRITE, MAP_SHARED, ret->fd, 0)
                        : map_aligned(ret->fd, ret->size, PROT_READ | PROT_WRITE);
        return ret->at != MAP_FAILED;
}

static void memory_free(struct memory *m) {
        munmap(m->at, m->size);
        fd_close(m->fd);
}

static struct backend_mapping mapping_of(const struct memory *m, uint64_t iova, uint64_t length, uint64_t offset) {
        return (struct backend_mapping){ .iova = iova, .length = length, .vaddr = m->at + offset, .fd = m->fd, .offset = offset,
                                         .access = RW, .memory_page = m->page, .object_vaddr = m->at,
                                         .object_length = m->size };
}

static enum refusal_reason map_memory(struct rig *rig, const struct memory *m, uint64_t iova, uint64_t length, uint64_t offset) {
        struct backend_mapping b = mapping_of(m, iova, length, offset);
        struct refusal r;

        return try_map(rig, &b, &r);
}

/* The device puts what its buffer holds (device_load() has filled it) where iova leads. */
static bool reaches(struct rig *rig, uint64_t iova, const uint8_t *at) {
        uint8_t before[MARK];

        memset((uint8_t *)at, 0x5a, MARK);
        memcpy(before, at, MARK);
        assert_true(edu_push(&rig->edu, iova, MARK));
        return memcmp(before, at, MARK) != 0;
}

/* --- windows ------------------------------------------------------------------------------------------------------*/

static enum refusal_reason try_create(struct rig *rig, struct backend_window want, struct backend_window *ret,
                                      struct refusal *r) {
        struct backend_window before[BACKEND_WINDOWS_MAX], after[BACKEND_WINDOWS_MAX];
        size_t n = container_windows(rig->container, before);

        if (container_window_create(rig->container, &want, ret, r) == 0) {
                assert_int_equal(container_windows(rig->container, after), n + 1);
                return REFUSAL_NONE;
        }
        assert_int_not_equal(r->reason, REFUSAL_NONE);
        assert_true(strlen(r->text) > 10);
        assert_int_equal(container_windows(rig->container, after), n);
        assert_memory_equal(before, after, n * sizeof before[0]);
        return r->reason;
}

static struct backend_window create(struct rig *rig, uint64_t start, uint64_t size, uint32_t page_shift) {
        struct backend_window want = { .start = start, .size = size, .page_shift = page_shift }, ret;
        struct refusal r;

        if (try_create(rig, want, &ret, &r) != REFUSAL_NONE)
                fail_msg("a window of 0x%" PRIx64 " bytes, pages of 2^%" PRIu32 ": %s", size, page_shift, r.text);
        assert_int_equal(ret.size, size);
        assert_int_equal(ret.page_shift, page_shift);
        assert_in_range(ret.levels, 1, rig->info.windows.levels_max);
        return ret;
}

static enum refusal_reason try_remove(struct rig *rig, uint64_t start, struct refusal *r) {
        return container_window_remove(rig->container, start, r) == 0 ? REFUSAL_NONE : r->reason;
}

static uint32_t smallest_shift(const struct rig *rig) {
        return (uint32_t)__builtin_ctzll(rig->info.windows.page_sizes);
}

static void assert_only_initial(struct rig *rig) {
        struct backend_window w[BACKEND_WINDOWS_MAX];

        assert_int_equal(container_windows(rig->container, w), 1);
        assert_int_equal(w[0].start, rig->info.windows.initial.start);
        assert_int_equal(w[0].size, rig->info.windows.initial.size);
        assert_int_equal(w[0].page_shift, rig->info.windows.initial.page_shift);
}

/* --- promises -----------------------------------------------------------------------------------------------------*/

static void what_can_be_created_is_said_and_the_initial_window_exists(void **state) {
        struct rig *rig = *state;
        const struct window_caps *w = &rig->info.windows;

        assert_int_not_equal(w->page_sizes, 0);
        assert_int_equal(w->largest & (w->largest - 1), 0);
        assert_int_equal(w->largest, 0x80000000 * UINT64_C(4096));      /* whatever memory this machine has */
        assert_in_range(w->max_windows, 1, BACKEND_WINDOWS_MAX);
        assert_in_range(w->levels_default, 1, w->levels_max);
        assert_int_not_equal(w->initial.size, 0);
        assert_only_initial(rig);
}

static void both_ends_of_a_window_of_every_page_size_are_reached_and_nothing_beside(void **state) {
        struct rig *rig = *state;
        unsigned proven = 0;

        device_load(rig, 0x33);
        for (uint32_t shift = 12; shift < 32; shift++) {
                uint64_t page = UINT64_C(1) << shift, size = 2 * G > 4 * page ? 2 * G : 4 * page;
                struct memory m = { .fd = -1 };
                struct backend_window w;
                struct refusal r;

                if (!(rig->info.windows.page_sizes & page))
                        continue;
                if (!memory_make(rig, page, &m)) {
                        print_message("no memory of pages of 2^%" PRIu32 " bytes: that size is not proven\n", shift);
                        fd_close(m.fd);
                        continue;
                }
                w = create(rig, WINDOW_ANYWHERE, size, shift);
                assert_int_equal(map_memory(rig, &m, w.start, page, 0), REFUSAL_NONE);
                assert_int_equal(map_memory(rig, &m, w.start + size - page, page, page), REFUSAL_NONE);
                assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
                assert_true(reaches(rig, w.start, m.at));
                assert_true(reaches(rig, w.start + page - MARK, m.at + page - MARK));
                assert_true(reaches(rig, w.start + size - page, m.at + page));
                assert_true(reaches(rig, w.start + size - MARK, m.at + 2 * page - MARK));
                assert_false(reaches(rig, w.start + page, m.at));
                assert_true(device_writes(rig, BASE, 0));               /* the initial window as before */
                assert_int_equal(unmap_at(rig, w.start, page, &r), REFUSAL_NONE);
                assert_false(reaches(rig, w.start, m.at));
                assert_true(reaches(rig, w.start + size - page, m.at + page));
                assert_int_equal(unmap_at(rig, w.start + size - page, page, &r), REFUSAL_NONE);
                assert_int_equal(try_remove(rig, w.start, &r), REFUSAL_NONE);
                assert_false(reaches(rig, w.start + size - page, m.at + page));
                assert_true(device_writes(rig, BASE, 0));
                assert_int_equal(unmap_at(rig, BASE, rig->page, &r), REFUSAL_NONE);
                memory_free(&m);
                proven++;
        }
        assert_true(proven >= 1);
}

static void a_size_is_a_power_of_two_between_a_page_and_the_largest(void **state) {
        struct rig *rig = *state;
        const uint64_t largest = rig->info.windows.largest, p = rig->info.windows.page_sizes & -rig->info.windows.page_sizes;
        const struct { uint64_t size, below, above; } cases[] = {
                { 0, 0, p },
                { 1, 0, p },
                { p - 1, 0, p },
                { p + 1, p, 2 * p },
                { 3 * p, 2 * p, 4 * p },
                { 4 * p - 1, 2 * p, 4 * p },
                { 3 * G, 2 * G, 4 * G },
                { largest - 1, largest / 2, largest },
                { largest + 1, largest, 0 },
                { 2 * largest, largest, 0 },
                { UINT64_C(1) << 63, largest, 0 },
                { UINT64_MAX, largest, 0 },
                { 0xffffffff * UINT64_C(4096), largest, 0 },             /* what was advertised once */
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct backend_window want = { WINDOW_ANYWHERE, cases[i].size, smallest_shift(rig), 0 }, ret;
                struct refusal r;

                assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_WINDOW_SIZE);
                assert_int_equal(r.asked, cases[i].size);
                assert_int_equal(r.nearest_below, cases[i].below);
                assert_int_equal(r.nearest_above, cases[i].above);
        }
        if (is_soft(rig)) {             /* a real table of that size takes real memory */
                struct refusal r;

                assert_int_equal(try_remove(rig, create(rig, WINDOW_ANYWHERE, largest, smallest_shift(rig)).start, &r), 0);
        }
        (void)create(rig, WINDOW_ANYWHERE, p, smallest_shift(rig));
}

static void a_window_has_at_least_one_of_its_pages(void **state) {
        struct rig *rig = *state;

        for (uint32_t shift = smallest_shift(rig); shift < 64; shift++) {
                uint64_t page = UINT64_C(1) << shift;
                struct backend_window want = { WINDOW_ANYWHERE, page / 2, shift, 0 }, ret;
                struct refusal r;

                if (!(rig->info.windows.page_sizes & page))
                        continue;
                assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_WINDOW_SIZE);
                assert_int_equal(r.nearest_below, 0);
                assert_int_equal(r.nearest_above, page);
                assert_int_equal(r.limit, page);
        }
}

static void a_page_size_is_one_of_the_mask(void **state) {
        struct rig *rig = *state;
        const uint64_t mask = rig->info.windows.page_sizes;

        for (uint32_t shift = 0; shift < 70; shift++) {
                struct backend_window want = { WINDOW_ANYWHERE, 2 * G, shift, 0 }, ret;
                struct refusal r;

                if (shift < 64 && mask >> shift & 1)
                        continue;
                assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_WINDOW_PAGE);
                assert_int_equal(r.limit, mask);
                if (r.nearest_below) {
                        assert_true(mask & r.nearest_below);
                        assert_true(shift >= 64 || r.nearest_below < UINT64_C(1) << shift);
                } else
                        assert_true(shift < smallest_shift(rig));
                if (r.nearest_above) {
                        assert_true(mask & r.nearest_above);
                        assert_true(shift < 64 && r.nearest_above > UINT64_C(1) << shift);
                }
        }
        struct backend_window want = { WINDOW_ANYWHERE, 2 * G, UINT32_MAX, 0 }, ret;
        struct refusal r;

        assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_WINDOW_PAGE);
}

static void levels_are_between_one_and_what_was_said(void **state) {
        struct rig *rig = *state;
        const uint32_t most = rig->info.windows.levels_max, bad[] = { most + 1, most + 100, UINT32_MAX };
        struct backend_window want = { WINDOW_ANYWHERE, 2 * G, smallest_shift(rig), 0 }, ret;
        struct refusal r;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                want.levels = bad[i];
                assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_WINDOW_LEVELS);
                assert_int_equal(r.limit, most);
                assert_int_equal(r.asked, bad[i]);
        }
        for (want.levels = 0; want.levels <= most; want.levels++) {
                enum refusal_reason answer = try_create(rig, want, &ret, &r);

                /* the kernel may find many levels too many for this size, and there is no telling before */
                if (is_spapr(rig) && want.levels > 1 && answer == REFUSAL_BACKEND_REFUSED) {
                        assert_int_equal(r.errnum, EINVAL);
                        continue;
                }
                assert_int_equal(answer, REFUSAL_NONE);
                if (want.levels)
                        assert_int_equal(ret.levels, want.levels);
                assert_int_equal(try_remove(rig, ret.start, &r), REFUSAL_NONE);
        }
}

static void one_window_more_than_there_can_be_is_refused_with_the_number(void **state) {
        struct rig *rig = *state;
        const uint32_t most = rig->info.windows.max_windows;
        struct backend_window want = { WINDOW_ANYWHERE, 2 * G, smallest_shift(rig), 0 }, ret, last = { 0 };
        struct refusal r;

        for (uint32_t n = 1; n < most; n++)
                last = create(rig, WINDOW_ANYWHERE, 2 * G, smallest_shift(rig));
        assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_WINDOW_LIMIT);
        assert_int_equal(r.limit, most);
        assert_int_equal(r.used, most);
        assert_int_equal(r.asked, 1);
        assert_int_equal(try_remove(rig, last.start, &r), REFUSAL_NONE);
        assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_NONE);
}

static void a_window_that_is_not_there_is_not_removed(void **state) {
        struct rig *rig = *state;
        struct backend_window w = create(rig, WINDOW_ANYWHERE, 2 * G, smallest_shift(rig));
        const uint64_t bad[] = { w.start + rig->page, w.start - 1, w.start + w.size, 0x123450000, UINT64_MAX,
                                 rig->info.windows.initial.start + rig->page };
        struct refusal r;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                assert_int_equal(try_remove(rig, bad[i], &r), REFUSAL_UNKNOWN_WINDOW);
        assert_int_equal(try_remove(rig, w.start, &r), REFUSAL_NONE);
        assert_int_equal(try_remove(rig, w.start, &r), REFUSAL_UNKNOWN_WINDOW);
        assert_only_initial(rig);
}

static void a_window_with_mappings_is_not_removed_and_one_is_named(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct backend_window w = create(rig, WINDOW_ANYWHERE, 2 * G, rig->info.windows.initial.page_shift);
        struct refusal r;

        assert_int_equal(map_at(rig, w.start + 7 * p, p, 0), REFUSAL_NONE);
        assert_int_equal(map_at(rig, w.start + w.size - p, p, p), REFUSAL_NONE);
        assert_int_equal(map_at(rig, BASE, p, 2 * p), REFUSAL_NONE);
        assert_int_equal(try_remove(rig, w.start, &r), REFUSAL_IN_USE);
        assert_int_equal(r.conflict_first, w.start + 7 * p);
        assert_int_equal(r.conflict_last, w.start + 8 * p - 1);
        assert_int_equal(container_windows_reset(rig->container, &r), -1);
        assert_int_equal(r.reason, REFUSAL_IN_USE);
        device_load(rig, 0x33);
        assert_true(device_writes(rig, w.start + 7 * p, 0));
        assert_int_equal(unmap_at(rig, w.start + 7 * p, p, &r), REFUSAL_NONE);
        assert_int_equal(try_remove(rig, w.start, &r), REFUSAL_IN_USE);
        assert_int_equal(unmap_at(rig, w.start + w.size - p, p, &r), REFUSAL_NONE);
        assert_int_equal(try_remove(rig, w.start, &r), REFUSAL_NONE);
        assert_false(device_writes(rig, w.start + 7 * p, 0));
        assert_true(device_writes(rig, BASE, 2 * p));
}

static void a_mapping_lies_in_one_window(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct backend_window w = create(rig, WINDOW_ANYWHERE, 2 * G, rig->info.windows.initial.page_shift);
        const struct backend_window *initial = &rig->info.windows.initial;
        const uint64_t end = initial->start + initial->size, top = w.start + w.size;
        const struct { uint64_t iova, length, below, above; } cases[] = {
                { end, p, end - p, w.start },                                   /* in none */
                { end - p, 2 * p, end - 2 * p, w.start },                       /* ends in none */
                { top, p, top - p, 0 },
                { top - p, 2 * p, top - 2 * p, 0 },
                { w.start - p, 2 * p, end - 2 * p, w.start },                   /* begins in none */
                { w.start - p, p, end - p, w.start },
                { end - p, w.start + p - (end - p), 0, 0 },                     /* begins in one and ends in another */
        };
        struct refusal r;

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct backend_mapping m = mapping(rig, cases[i].iova, cases[i].length, 0);

                assert_int_equal(try_map(rig, &m, &r), REFUSAL_NO_WINDOW);
                assert_int_equal(r.nearest_below, cases[i].below);
                assert_int_equal(r.nearest_above, cases[i].above);
                assert_int_equal(unmap_at(rig, cases[i].iova, cases[i].length, &r), REFUSAL_NOT_MAPPED);
        }
        assert_int_equal(map_at(rig, end - p, p, 0), REFUSAL_NONE);
        assert_int_equal(map_at(rig, top - p, p, 0), REFUSAL_NONE);
        assert_int_equal(map_at(rig, w.start, p, 0), REFUSAL_NONE);
}

/* The mask's second page is the one that two windows of different pages differ in. */
static void a_mapping_is_made_of_the_pages_of_its_window(void **state) {
        struct rig *rig = *state;
        const uint64_t mask = rig->info.windows.page_sizes, small = page_mask_smallest(mask), p = page_mask_smallest(mask & ~small);
        struct backend_window w = create(rig, WINDOW_ANYWHERE, 2 * G, (uint32_t)__builtin_ctzll(p));
        const struct { uint64_t iova, length, offset, wrong; } cases[] = {
                { w.start + small, p, 0, w.start + small },
                { w.start + p - small, p, 0, w.start + p - small },
                { w.start, small, 0, small },
                { w.start, p + small, 0, p + small },
                { w.start, p, small, small },
        };
        struct memory m;
        struct refusal r;

        if (!memory_make(rig, p, &m)) {
                print_message("skipped: no memory of pages of 0x%" PRIx64 " bytes\n", p);
                skip();
        }
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct backend_mapping b = mapping_of(&m, cases[i].iova, cases[i].length, cases[i].offset);

                assert_int_equal(try_map(rig, &b, &r), REFUSAL_UNALIGNED);
                assert_int_equal(r.limit, p);
                assert_int_equal(r.asked, cases[i].wrong);
                assert_int_equal(r.nearest_below, cases[i].wrong / p * p);
        }
        assert_int_equal(map_memory(rig, &m, w.start, p, 0), REFUSAL_NONE);
        assert_int_equal(unmap_at(rig, w.start, small, &r), REFUSAL_UNALIGNED);
        assert_int_equal(map_memory(rig, &m, BASE + small, small, small), REFUSAL_NONE);       /* the initial one's are smaller */
        assert_int_equal(unmap_at(rig, w.start, p, &r), REFUSAL_NONE);
        assert_int_equal(unmap_at(rig, BASE + small, small, &r), REFUSAL_NONE);
        memory_free(&m);
}

static void memory_of_smaller_pages_than_the_windows_is_refused_and_both_are_named(void **state) {
        struct rig *rig = *state;
        const uint64_t mask = rig->info.windows.page_sizes, host_page = (uint64_t)sysconf(_SC_PAGESIZE);

        for (uint32_t shift = 12; shift < 32; shift++) {
                const uint64_t page = UINT64_C(1) << shift;
                struct backend_mapping b = mapping(rig, 0, page, 0);
                struct backend_window w;
                struct refusal r;

                if (!(mask & page) || page <= host_page)
                        continue;
                w = create(rig, WINDOW_ANYWHERE, 2 * G, shift);
                b.iova = w.start;
                for (b.memory_page = page / 2; b.memory_page >= host_page; b.memory_page /= 2) {
                        assert_int_equal(try_map(rig, &b, &r), REFUSAL_MEMORY_PAGE_SIZE);
                        assert_int_equal(r.limit, page);
                        assert_int_equal(r.asked, b.memory_page);
                }
                b.memory_page = 0;      /* pages as the host's */
                assert_int_equal(try_map(rig, &b, &r), REFUSAL_MEMORY_PAGE_SIZE);
                assert_int_equal(r.asked, host_page);
                assert_int_equal(try_remove(rig, w.start, &r), REFUSAL_NONE);
        }
}

static void the_initial_window_is_removed_and_restored(void **state) {
        struct rig *rig = *state;
        const struct backend_window initial = rig->info.windows.initial;
        struct backend_window w[BACKEND_WINDOWS_MAX];
        struct refusal r;

        device_load(rig, 0x33);
        for (unsigned how = 0; how < 2; how++) {
                assert_int_equal(try_remove(rig, initial.start, &r), REFUSAL_NONE);
                assert_int_equal(container_windows(rig->container, w), 0);
                assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NO_WINDOW);
                assert_false(device_writes(rig, BASE, 0));
                assert_int_equal(try_remove(rig, initial.start, &r), REFUSAL_UNKNOWN_WINDOW);
                if (how == 0)
                        assert_int_equal(create(rig, initial.start, initial.size, initial.page_shift).start, initial.start);
                else
                        assert_int_equal(container_windows_reset(rig->container, &r), 0);
                assert_only_initial(rig);
                assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
                assert_true(device_writes(rig, BASE, 0));
                assert_int_equal(unmap_at(rig, BASE, rig->page, &r), REFUSAL_NONE);
        }
}

/* The guest reboots: whatever it made of the windows. */
static void a_reset_brings_the_initial_window_back_and_no_other(void **state) {
        struct rig *rig = *state;
        const struct backend_window initial = rig->info.windows.initial;
        struct refusal r;

        assert_int_equal(container_windows_reset(rig->container, &r), 0);
        assert_only_initial(rig);
        (void)create(rig, WINDOW_ANYWHERE, 2 * G, smallest_shift(rig));
        assert_int_equal(container_windows_reset(rig->container, &r), 0);
        assert_only_initial(rig);
        (void)create(rig, WINDOW_ANYWHERE, 2 * G, smallest_shift(rig));
        assert_int_equal(try_remove(rig, initial.start, &r), REFUSAL_NONE);
        assert_int_equal(container_windows_reset(rig->container, &r), 0);
        assert_only_initial(rig);
        assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_true(device_writes(rig, BASE, 0));
}

static void a_window_is_where_it_was_asked_for_or_it_is_not(void **state) {
        struct rig *rig = *state;
        const uint32_t shift = smallest_shift(rig);
        const uint64_t size = 2 * G, place = create(rig, WINDOW_ANYWHERE, size, shift).start;
        struct backend_window want = { .size = size, .page_shift = shift }, ret;
        struct refusal r;

        assert_int_equal(try_remove(rig, place, &r), REFUSAL_NONE);
        assert_int_equal(create(rig, place, size, shift).start, place);
        assert_int_equal(try_remove(rig, place, &r), REFUSAL_NONE);
        want.start = place + size;
        assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_OUTSIDE_APERTURE);
        assert_int_equal(r.nearest_below, place);
        want.start = place - size;
        assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_OUTSIDE_APERTURE);
        assert_int_equal(r.nearest_above, place);
        want.start = place + 1;
        assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_UNALIGNED);
        want.start = UINT64_MAX - (UINT64_C(1) << shift) + 1;
        assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_RANGE_WRAPS);
        want.start = rig->info.windows.initial.start;
        assert_int_equal(try_create(rig, want, &ret, &r), REFUSAL_OVERLAP);
        assert_int_equal(r.conflict_last, want.start + rig->info.windows.initial.size - 1);
        assert_int_equal(create(rig, place, size, shift).start, place); /* nothing was left of all that */
}

/* Another set of windows as the manual says: elsewhere first, then the initial one goes. */
static void the_other_window_can_be_the_only_one(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page;
        struct backend_window w = create(rig, WINDOW_ANYWHERE, 2 * G, rig->info.windows.initial.page_shift);
        struct refusal r;

        device_load(rig, 0x33);
        assert_int_equal(map_at(rig, w.start, p, 0), REFUSAL_NONE);
        assert_int_equal(try_remove(rig, rig->info.windows.initial.start, &r), REFUSAL_NONE);
        assert_true(device_writes(rig, w.start, 0));
        assert_int_equal(map_at(rig, BASE, p, 0), REFUSAL_NO_WINDOW);
}

static uint64_t resident(void) {
        unsigned long long size, pages;
        FILE *f = fopen("/proc/self/statm", "re");

        assert_non_null(f);
        assert_int_equal(fscanf(f, "%llu %llu", &size, &pages), 2);
        fclose(f);
        return (uint64_t)pages * (uint64_t)getpagesize();
}

/* A huge window costs what is mapped in it, and one page may be mapped in it over and over. */
static void a_huge_window_used_sparsely_costs_what_is_mapped(void **state) {
        struct rig *rig = *state;
        const uint64_t p = rig->page, size = is_soft(rig) ? rig->info.windows.largest : 8 * G;
        struct backend_window w = create(rig, WINDOW_ANYWHERE, size, rig->info.windows.initial.page_shift);
        const uint64_t before = resident(), n = 256;

        for (uint64_t i = 0; i < n; i++)
                assert_int_equal(map_at(rig, w.start + i * (size / n), p, 0), REFUSAL_NONE);
        device_load(rig, 0x33);
        for (uint64_t i = 0; i < n; i += 51)
                assert_true(device_writes(rig, w.start + i * (size / n), 0));
        /* three tables of 4K and a record for each at most; spanned is a table of 16 GB */
        assert_true(resident() - before < n * 64 * K || resident() < before);
}

/* Memory that appears after the window was made, as a GPU's does, is mapped like any other. */
static void memory_that_appears_later_is_mapped_into_a_window_that_exists(void **state) {
        struct rig *rig = *state;
        struct backend_window w = create(rig, WINDOW_ANYWHERE, 2 * G, rig->info.windows.initial.page_shift);
        struct memory m;
        struct refusal r;

        assert_int_equal(map_at(rig, w.start, rig->page, 0), REFUSAL_NONE);
        assert_true(memory_make(rig, rig->page, &m));
        assert_int_equal(map_memory(rig, &m, w.start + G, m.page, 0), REFUSAL_NONE);
        device_load(rig, 0x33);
        assert_true(reaches(rig, w.start + G, m.at));
        assert_true(device_writes(rig, w.start, 0));
        assert_int_equal(unmap_at(rig, w.start + G, m.page, &r), REFUSAL_NONE);
        memory_free(&m);
}

static void unmap_all_empties_every_window_and_removes_none(void **state) {
        struct rig *rig = *state;
        struct backend_window w = create(rig, WINDOW_ANYWHERE, 2 * G, rig->info.windows.initial.page_shift);
        struct backend_window all[BACKEND_WINDOWS_MAX];
        struct refusal r;

        device_load(rig, 0x33);
        assert_int_equal(map_at(rig, BASE, rig->page, 0), REFUSAL_NONE);
        assert_int_equal(map_at(rig, w.start, rig->page, rig->page), REFUSAL_NONE);
        assert_int_equal(container_unmap_all(rig->container, &r), 0);
        assert_false(device_writes(rig, BASE, 0));
        assert_false(device_writes(rig, w.start, rig->page));
        assert_int_equal(container_windows(rig->container, all), 2);
        assert_int_equal(try_remove(rig, w.start, &r), REFUSAL_NONE);
}

/* --- where there are none -----------------------------------------------------------------------------------------*/

static void a_backend_without_windows_of_its_own_says_so(void **state) {
        struct rig *rig = *state;
        struct backend_window want = { WINDOW_ANYWHERE, G, 12, 0 }, w[BACKEND_WINDOWS_MAX];
        struct refusal r;

        if (has_windows(rig))
                return;
        assert_int_equal(container_window_create(rig->container, &want, &want, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNSUPPORTED);
        assert_int_equal(container_window_remove(rig->container, 0, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNSUPPORTED);
        assert_int_equal(container_windows_reset(rig->container, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNSUPPORTED);
        assert_int_equal(container_windows(rig->container, w), 0);
}

/* --- */

#define PROMISE(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void) {
        const struct CMUnitTest promises[] = {
                PROMISE(what_can_be_created_is_said_and_the_initial_window_exists),
                PROMISE(both_ends_of_a_window_of_every_page_size_are_reached_and_nothing_beside),
                PROMISE(a_size_is_a_power_of_two_between_a_page_and_the_largest),
                PROMISE(a_window_has_at_least_one_of_its_pages),
                PROMISE(a_page_size_is_one_of_the_mask),
                PROMISE(levels_are_between_one_and_what_was_said),
                PROMISE(one_window_more_than_there_can_be_is_refused_with_the_number),
                PROMISE(a_window_that_is_not_there_is_not_removed),
                PROMISE(a_window_with_mappings_is_not_removed_and_one_is_named),
                PROMISE(a_mapping_lies_in_one_window),
                PROMISE(a_mapping_is_made_of_the_pages_of_its_window),
                PROMISE(memory_of_smaller_pages_than_the_windows_is_refused_and_both_are_named),
                PROMISE(the_initial_window_is_removed_and_restored),
                PROMISE(a_reset_brings_the_initial_window_back_and_no_other),
                PROMISE(a_window_is_where_it_was_asked_for_or_it_is_not),
                PROMISE(the_other_window_can_be_the_only_one),
                PROMISE(a_huge_window_used_sparsely_costs_what_is_mapped),
                PROMISE(memory_that_appears_later_is_mapped_into_a_window_that_exists),
                PROMISE(unmap_all_empties_every_window_and_removes_none),
        };
        const struct CMUnitTest without[] = { PROMISE(a_backend_without_windows_of_its_own_says_so) };

        return run_over_every_backend(promises, ARRAY_SIZE(promises), true) +
               run_over_every_backend(without, ARRAY_SIZE(without), false);
}
