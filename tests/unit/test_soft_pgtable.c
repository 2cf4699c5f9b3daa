/* SPDX-License-Identifier: Apache-2.0 */
/* link: backend util testlib */
/*
 * The page tables of the software IOMMU: their format, which pages they choose, what they keep, and, against an oracle,
 * that a long random life never leads an address astray. IOMMUD_TEST_SEED replays one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <time.h>

#include "../lib/soft_oracle.h"
#include "backend/backend.h"
#include "backend/mapping_set.h"
#include "backend/soft.h"
#include "backend/soft_pgtable.h"
#include "backend/soft_phys.h"
#include "util/cleanup.h"

#define K UINT64_C(1024)
#define M (K * K)
#define G (K * M)
#define T (K * G)
#define RW (SOFT_PTE_READ | SOFT_PTE_WRITE)
#define X86_PAGES (4 * K | 2 * M | 1 * G)

static struct soft_pgtable *make(uint64_t page_sizes) {
        static struct soft_pgtable t;

        assert_true(soft_pgtable_expresses(page_sizes));
        assert_int_equal(soft_pgtable_init(&t, page_sizes), 0);
        return &t;
}

static unsigned level_at(const struct soft_pgtable *t, uint64_t iova, uint64_t phys) {
        struct soft_leaf leaf;

        if (!soft_pgtable_walk(t, iova, &leaf))
                return 0;
        assert_int_equal(leaf.phys, phys);
        return leaf.level;
}

/* --- format -------------------------------------------------------------------------------------------------------*/

static void only_page_sizes_of_the_format_are_expressible(void **state) {
        static const uint64_t good[] = { 4 * K, 4 * K | 2 * M, X86_PAGES, 4 * K | G, 8 * K, 16 * K, 16 * K | 32 * M,
                16 * K | 32 * M | 64 * G, 32 * K, 64 * K, 64 * K | 512 * M, 64 * K | 4 * T };
        static const uint64_t bad[] = { 0, 1, 2 * K, 128 * K, 2 * M, 4 * K | 8 * K, 4 * K | 4 * M, 4 * K | 512 * G,
                16 * K | 2 * M, 64 * K | G, UINT64_MAX, 4 * K | UINT64_C(1) << 63 };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(good); i++)
                assert_true(soft_pgtable_expresses(good[i]));
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                assert_false(soft_pgtable_expresses(bad[i]));
}

static void the_granule_gives_the_address_width(void **state) {
        (void)state;
        assert_int_equal(soft_pgtable_bits(X86_PAGES), 48);
        assert_int_equal(soft_pgtable_bits(8 * K), 53);
        assert_int_equal(soft_pgtable_bits(16 * K), 58);
        assert_int_equal(soft_pgtable_bits(32 * K), 63);
        assert_int_equal(soft_pgtable_bits(64 * K), 64);
}

static const uint64_t *next_table(uint64_t entry) {
        assert_int_equal(entry & ~SOFT_PTE_ADDRESS, RW);
        return (const uint64_t *)(uintptr_t)(entry & SOFT_PTE_ADDRESS);
}

/* By hand, as hardware would: 9 bits for each level, from bit 39 down. */
static void entries_are_those_of_x86_second_level_tables(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);
        const uint64_t iova = UINT64_C(3) << 39 | UINT64_C(5) << 30 | UINT64_C(7) << 21 | UINT64_C(11) << 12;
        const uint64_t *table;

        (void)state;
        assert_int_equal(soft_pgtable_insert(t, iova, 0x123456789000, 4 * K, SOFT_PTE_WRITE), 0);
        table = next_table(next_table(next_table(t->root[3])[5])[7]);
        assert_int_equal(table[11], 0x123456789000 | 2);
        assert_int_equal(table[10], 0);
        assert_int_equal(table[12], 0);
        assert_int_equal(soft_pgtable_insert(t, 4 * T, 6 * M, 2 * M, SOFT_PTE_READ), 0);
        assert_int_equal(next_table(next_table(t->root[8])[0])[0], 6 * M | 0x81);
        assert_int_equal(soft_pgtable_insert(t, 4 * T + G, 9 * G, G, RW), 0);
        assert_int_equal(next_table(t->root[8])[1], 9 * G | 0x83);
        soft_pgtable_free(t);
}

static void a_walk_gives_address_access_and_what_is_left_of_the_page(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);
        struct soft_leaf leaf;

        (void)state;
        assert_int_equal(soft_pgtable_insert(t, 2 * M, 8 * M, 2 * M, SOFT_PTE_READ), 0);
        assert_true(soft_pgtable_walk(t, 3 * M + 5, &leaf));
        assert_int_equal(leaf.phys, 9 * M + 5);
        assert_int_equal(leaf.left, M - 5);
        assert_int_equal(leaf.access, SOFT_PTE_READ);
        assert_int_equal(leaf.level, 2);
        assert_false(soft_pgtable_walk(t, 2 * M - 1, &leaf));
        assert_false(soft_pgtable_walk(t, 4 * M, &leaf));
        soft_pgtable_free(t);
}

static void an_address_wider_than_the_format_leads_nowhere(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);
        struct soft_leaf leaf;

        (void)state;
        assert_int_equal(soft_pgtable_insert(t, 0, 0, 4 * K, RW), 0);
        assert_int_equal(soft_pgtable_insert(t, (UINT64_C(1) << 48) - 4 * K, 4 * K, 4 * K, RW), 0);
        assert_true(soft_pgtable_walk(t, 0, &leaf));
        assert_true(soft_pgtable_walk(t, (UINT64_C(1) << 48) - 1, &leaf));
        assert_false(soft_pgtable_walk(t, UINT64_C(1) << 48, &leaf));
        assert_false(soft_pgtable_walk(t, UINT64_MAX, &leaf));
        soft_pgtable_free(t);
}

static void the_last_page_below_2_to_the_64_is_like_any_other(void **state) {
        struct soft_pgtable *t = make(64 * K | 512 * M);
        const uint64_t last = UINT64_MAX - 64 * K + 1, super = UINT64_MAX - 512 * M + 1;

        (void)state;
        assert_int_equal(soft_pgtable_insert(t, last, 64 * K, 64 * K, RW), 0);
        assert_int_equal(level_at(t, UINT64_MAX, 128 * K - 1), 1);
        soft_pgtable_remove(t, last, 64 * K);
        assert_int_equal(level_at(t, last, 0), 0);
        assert_int_equal(soft_pgtable_insert(t, super - 64 * K, 512 * M - 64 * K, 512 * M + 64 * K, RW), 0);
        assert_int_equal(level_at(t, super - 1, 512 * M - 1), 1);
        assert_int_equal(level_at(t, UINT64_MAX, G - 1), 2);
        soft_pgtable_remove(t, 64 * K, 0 - 64 * K);     /* nearly everything, to the end: holes and leaves */
        assert_int_equal(level_at(t, super - 1, 0), 0);
        assert_int_equal(level_at(t, UINT64_MAX, 0), 0);
        soft_pgtable_remove(t, 0, last);                /* a hole from the first byte to beyond the range's end */
        soft_pgtable_free(t);
}

/* --- which pages --------------------------------------------------------------------------------------------------*/

static void the_largest_page_that_fits_is_taken(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);

        (void)state;
        /* 4K up to 2M, 2M up to 1G, one 1G, and down again */
        assert_int_equal(soft_pgtable_insert(t, G - 2 * M - 4 * K, 5 * G - 2 * M - 4 * K, G + 2 * (2 * M + 4 * K), RW),
                         0);
        assert_int_equal(level_at(t, G - 2 * M - 1, 5 * G - 2 * M - 1), 1);
        assert_int_equal(level_at(t, G - 2 * M, 5 * G - 2 * M), 2);
        assert_int_equal(level_at(t, G - 1, 5 * G - 1), 2);
        assert_int_equal(level_at(t, G, 5 * G), 3);
        assert_int_equal(level_at(t, 2 * G - 1, 6 * G - 1), 3);
        assert_int_equal(level_at(t, 2 * G, 6 * G), 2);
        assert_int_equal(level_at(t, 2 * G + 2 * M, 6 * G + 2 * M), 1);
        assert_int_equal(level_at(t, 2 * G + 2 * M + 4 * K, 0), 0);
        assert_int_equal(level_at(t, G - 2 * M - 4 * K - 1, 0), 0);
        soft_pgtable_free(t);
}

static void no_superpage_where_addresses_or_length_do_not_permit(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);

        (void)state;
        assert_int_equal(soft_pgtable_insert(t, 0, 4 * K, 2 * M, RW), 0);               /* physical address */
        assert_int_equal(level_at(t, 0, 4 * K), 1);
        assert_int_equal(soft_pgtable_insert(t, 4 * M + 4 * K, 2 * M, 2 * M, RW), 0);   /* IOVA */
        assert_int_equal(level_at(t, 4 * M + 4 * K, 2 * M), 1);
        assert_int_equal(soft_pgtable_insert(t, 8 * M, 8 * M, 2 * M - 4 * K, RW), 0);   /* length */
        assert_int_equal(level_at(t, 8 * M, 8 * M), 1);
        assert_int_equal(soft_pgtable_insert(t, 10 * M, 10 * M, 2 * M, RW), 0);
        assert_int_equal(level_at(t, 10 * M, 10 * M), 2);
        soft_pgtable_free(t);
}

static void no_superpage_that_the_mask_lacks(void **state) {
        struct soft_pgtable *t = make(4 * K);

        (void)state;
        assert_int_equal(soft_pgtable_insert(t, 0, 0, 4 * M, RW), 0);
        assert_int_equal(level_at(t, 0, 0), 1);
        soft_pgtable_free(t);
        t = make(4 * K | G);
        assert_int_equal(soft_pgtable_insert(t, G - 2 * M, G - 2 * M, G + 2 * M, RW), 0);
        assert_int_equal(level_at(t, G - 2 * M, G - 2 * M), 1);
        assert_int_equal(level_at(t, G, G), 3);
        soft_pgtable_free(t);
}

static void every_granule_has_its_own_superpages(void **state) {
        static const struct { uint64_t granule, two, three; } cases[] = {
                { 4 * K, 2 * M, G }, { 16 * K, 32 * M, 64 * G }, { 64 * K, 512 * M, 4 * T },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct soft_pgtable *t = make(cases[i].granule | cases[i].two | cases[i].three);
                const uint64_t three = cases[i].three, two = cases[i].two, one = cases[i].granule;

                assert_int_equal(soft_pgtable_insert(t, three, 2 * three, three + two + one, RW), 0);
                assert_int_equal(level_at(t, three + one, 2 * three + one), 3);
                assert_int_equal(level_at(t, 2 * three, 3 * three), 2);
                assert_int_equal(level_at(t, 2 * three + two, 3 * three + two), 1);
                assert_int_equal(level_at(t, 2 * three + two + one, 0), 0);
                soft_pgtable_remove(t, three, three + two + one);
                assert_int_equal(level_at(t, three, 0), 0);
                soft_pgtable_free(t);
        }
}

/* --- all or nothing -----------------------------------------------------------------------------------------------*/

static void an_insertion_that_meets_a_leaf_undoes_itself(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);

        (void)state;
        assert_int_equal(soft_pgtable_insert(t, 4 * M - 4 * K, 0, 4 * K, RW), 0);
        assert_int_equal(soft_pgtable_insert(t, 4 * K, G, 4 * M - 4 * K, RW), -EEXIST);         /* at the very end */
        assert_int_equal(level_at(t, 4 * K, 0), 0);
        assert_int_equal(level_at(t, 2 * M, 0), 0);
        assert_int_equal(level_at(t, 4 * M - 8 * K, 0), 0);
        assert_int_equal(level_at(t, 4 * M - 4 * K, 0), 1);
        assert_int_equal(soft_pgtable_insert(t, 2 * M, 2 * M, 2 * M, RW), -EEXIST);     /* superpage over it */
        assert_int_equal(level_at(t, 4 * M - 4 * K, 0), 1);
        assert_int_equal(soft_pgtable_insert(t, 8 * M, 8 * M, 2 * M, RW), 0);
        assert_int_equal(soft_pgtable_insert(t, 9 * M, 0, 4 * K, RW), -EEXIST);         /* page under a superpage */
        assert_int_equal(soft_pgtable_insert(t, 8 * M, 0, 2 * M, RW), -EEXIST);         /* superpage over superpage */
        assert_int_equal(level_at(t, 9 * M, 9 * M), 2);
        soft_pgtable_free(t);
}

static void an_insertion_without_memory_for_tables_undoes_itself(void **state) {
        struct soft_pgtable *t = make(4 * K);

        (void)state;
        for (t->max_tables = 1; t->max_tables < 5; t->max_tables++) {
                assert_int_equal(soft_pgtable_insert(t, 2 * M - 4 * K, 0, 8 * K, RW), -ENOMEM);
                assert_int_equal(level_at(t, 2 * M - 4 * K, 0), 0);
                assert_int_equal(level_at(t, 2 * M, 0), 0);
        }
        assert_int_equal(soft_pgtable_insert(t, 2 * M - 4 * K, 0, 8 * K, RW), 0);       /* root, 1, 1 and two tables */
        assert_int_equal(t->n_tables, 5);
        soft_pgtable_free(t);
}

/* --- what stays ---------------------------------------------------------------------------------------------------*/

static void a_removal_leaves_the_neighbours(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);

        (void)state;
        for (uint64_t i = 0; i < 3; i++) {
                assert_int_equal(soft_pgtable_insert(t, i * 2 * M, i * 2 * M, 2 * M, RW), 0);
                assert_int_equal(soft_pgtable_insert(t, G + i * 4 * K, i * 4 * K, 4 * K, RW), 0);
        }
        soft_pgtable_remove(t, 2 * M, 2 * M);
        soft_pgtable_remove(t, G + 4 * K, 4 * K);
        assert_int_equal(level_at(t, 2 * M - 1, 2 * M - 1), 2);
        assert_int_equal(level_at(t, 2 * M, 0), 0);
        assert_int_equal(level_at(t, 4 * M, 4 * M), 2);
        assert_int_equal(level_at(t, G, 0), 1);
        assert_int_equal(level_at(t, G + 4 * K, 0), 0);
        assert_int_equal(level_at(t, G + 8 * K, 8 * K), 1);
        soft_pgtable_free(t);
}

/* Like the kernel's (DESIGN, section 6): a page here and there costs a table for each 2 MiB until the end. */
static void empty_tables_stay_and_are_used_again(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);
        size_t grown;

        (void)state;
        for (uint64_t i = 0; i < 1000; i++) {
                assert_int_equal(soft_pgtable_insert(t, i * 2 * M, 0, 4 * K, RW), 0);
                soft_pgtable_remove(t, i * 2 * M, 4 * K);
        }
        grown = t->n_tables;
        assert_int_equal(grown, 1000 + 2 + 1 + 1);
        t->max_tables = grown;
        for (uint64_t i = 0; i < 1000; i++)
                assert_int_equal(soft_pgtable_insert(t, i * 2 * M + 8 * K, 0, 4 * K, RW), 0);
        assert_int_equal(t->n_tables, grown);
        soft_pgtable_free(t);
}

static void a_superpage_takes_the_place_of_empty_tables(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);

        (void)state;
        for (uint64_t i = 0; i < 512; i++)
                assert_int_equal(soft_pgtable_insert(t, i * 2 * M, 0, 4 * K, RW), 0);
        soft_pgtable_remove(t, 0, G);
        assert_int_equal(t->n_tables, 512 + 3);
        assert_int_equal(soft_pgtable_insert(t, 0, 0, 2 * M, RW), 0);
        assert_int_equal(level_at(t, 0, 0), 2);
        assert_int_equal(t->n_tables, 511 + 3);
        soft_pgtable_remove(t, 0, 2 * M);
        assert_int_equal(soft_pgtable_insert(t, 0, 7 * G, G, RW), 0);
        assert_int_equal(level_at(t, 3 * M, 7 * G + 3 * M), 3);
        assert_int_equal(t->n_tables, 2);
        /* and the tables that were given back are clean */
        soft_pgtable_remove(t, 0, G);
        for (uint64_t i = 0; i < 512; i++) {
                assert_int_equal(soft_pgtable_insert(t, i * 2 * M + 4 * K, 0, 4 * K, RW), 0);
                assert_int_equal(level_at(t, i * 2 * M, 0), 0);
                assert_int_equal(level_at(t, i * 2 * M + 8 * K, 0), 0);
        }
        soft_pgtable_free(t);
}

static void clearing_leaves_the_root_only(void **state) {
        struct soft_pgtable *t = make(X86_PAGES);

        (void)state;
        assert_int_equal(soft_pgtable_insert(t, 4 * K, 4 * K, 3 * G, RW), 0);
        soft_pgtable_clear(t);
        assert_int_equal(t->n_tables, 1);
        for (uint64_t i = 0; i < 4 * G; i += M)
                assert_int_equal(level_at(t, i, 0), 0);
        assert_int_equal(soft_pgtable_insert(t, 4 * K, 4 * K, 4 * K, RW), 0);
        assert_int_equal(level_at(t, 8 * K, 0), 0);
        soft_pgtable_free(t);
}

/* --- physical space -----------------------------------------------------------------------------------------------*/

static void physical_addresses_are_as_aligned_as_file_offsets(void **state) {
        struct soft_phys p;
        uint64_t phys;

        (void)state;
        soft_phys_init(&p, 30);
        assert_int_equal(soft_phys_hold(&p, 0x7f0000001000, 5 * G + 2 * M, &phys), 0);
        assert_int_equal(phys % G, 2 * M);
        assert_int_equal(soft_phys_host(&p, phys), 0x7f0000001000);
        assert_int_equal(soft_phys_host(&p, phys + 12345), 0x7f0000001000 + 12345);
        assert_int_equal(soft_phys_left(&p, phys), G - 2 * M);
        assert_int_equal(soft_phys_left(&p, G - 1), 1);
        assert_int_equal(soft_phys_left(&p, G), G);
        soft_phys_free(&p);
}

/* A mapping of a high offset at a low address: where offset 0 would be is below 0, and never looked at. */
static void an_offset_beyond_the_address_is_no_trouble(void **state) {
        struct soft_phys p;
        uint64_t phys;

        (void)state;
        soft_phys_init(&p, 30);
        assert_int_equal(soft_phys_hold(&p, 0x10000, G - 4 * K, &phys), 0);
        assert_int_equal(soft_phys_host(&p, phys), 0x10000);
        soft_phys_free(&p);
}

static void one_window_of_one_mmap_is_one_frame_until_the_last_hold_goes(void **state) {
        struct soft_phys p;
        uint64_t a, b, c;

        (void)state;
        soft_phys_init(&p, 30);
        assert_int_equal(soft_phys_hold(&p, 0x40000000, 0, &a), 0);
        assert_int_equal(soft_phys_hold(&p, 0x40005000, 0x5000, &b), 0);
        assert_int_equal(b, a + 0x5000);
        assert_int_equal(soft_phys_hold(&p, 0x40000000, 0x5000, &c), 0);        /* another mmap */
        assert_int_not_equal(c >> 30, a >> 30);
        soft_phys_drop(&p, a);
        assert_int_equal(soft_phys_host(&p, b), 0x40005000);
        soft_phys_drop(&p, b);
        assert_int_equal(soft_phys_hold(&p, 0x90000000, 0, &b), 0);             /* takes the free frame */
        assert_int_equal(b >> 30, a >> 30);
        assert_int_equal(p.frames.n_made, 2);
        soft_phys_free(&p);
}

static void the_physical_space_ends_at_52_bits(void **state) {
        struct soft_phys p;
        uint64_t phys, first = 0;

        (void)state;
        soft_phys_init(&p, 42);
        for (uint64_t i = 0; i < 1024; i++) {
                assert_int_equal(soft_phys_hold(&p, (uintptr_t)(i * 64 * K), 0, &phys), 0);
                assert_true(phys < UINT64_C(1) << 52);
                if (i == 0)
                        first = phys;
        }
        assert_int_equal(soft_phys_hold(&p, (uintptr_t)(1024 * 64 * K), 0, &phys), -ENOMEM);
        soft_phys_drop(&p, first);
        assert_int_equal(soft_phys_hold(&p, (uintptr_t)(1024 * 64 * K), 0, &phys), 0);
        soft_phys_free(&p);
}

/* --- records ------------------------------------------------------------------------------------------------------*/

static void a_record_is_used_again_and_memory_goes_with_the_set(void **state) {
        struct mapping_set s;

        (void)state;
        mapping_set_init(&s);
        for (uint64_t i = 0; i < 10000; i++)
                mapping_set_remove(&s, mapping_set_add(&s, (struct iova_range){ i, i }));
        assert_int_equal(s.pool.n_made, 1);
        for (uint64_t i = 0; i < 1000; i++)
                assert_non_null(mapping_set_add(&s, (struct iova_range){ i, i }));
        assert_int_equal(s.count, 1000);
        assert_int_equal(s.pool.n_made, 1000);
        mapping_set_clear(&s);
        assert_int_equal(s.count, 0);
        assert_null(mapping_set_find(&s, (struct iova_range){ 0, UINT64_MAX }));
        assert_non_null(mapping_set_add(&s, (struct iova_range){ 0, UINT64_MAX }));
        assert_non_null(mapping_set_find(&s, (struct iova_range){ UINT64_MAX, UINT64_MAX }));
        mapping_set_clear(&s);
}

/* --- through the container ----------------------------------------------------------------------------------------*/

static struct container *container(struct soft_personality p) {
        struct backend_open o = { .kind = BACKEND_SOFT, .container_fd = -1, .group_fd = -1, .soft = p };
        struct container *c;
        struct refusal r;

        if (container_open(&o, &c, &r) < 0)
                fail_msg("%s", r.text);
        return c;
}

static void zero_personality_is_the_documented_default(void **state) {
        struct container *c = container((struct soft_personality){ 0 });
        struct container_info i;

        (void)state;
        container_info(c, &i);
        assert_int_equal(i.page_sizes, X86_PAGES);
        assert_int_equal(i.max_mappings, UINT32_MAX);
        assert_int_equal(i.n_ranges, 2);
        assert_int_equal(i.ranges[0].first, 0);
        assert_int_equal(i.ranges[0].last, 0xfedfffff);
        assert_int_equal(i.ranges[1].first, 0xfef00000);
        assert_int_equal(i.ranges[1].last, 0xffffffffffff);
        container_close(c);
}

static void ranges_are_whole_pages_of_what_the_personality_leaves(void **state) {
        static const struct {
                struct soft_personality p;
                uint32_t n;
                struct iova_range r[2];
        } cases[] = {
                /* reserved at either end, outside, none (first > last), and not of whole pages */
                { { .aperture_last = 0xffffff, .reserved_last = 0xfff }, 1, { { 0x1000, 0xffffff } } },
                { { .aperture_last = 0xffffff, .reserved_first = 0xfff000, .reserved_last = 0xffffff },
                  1,
                  { { 0, 0xffefff } } },
                { { .aperture_last = 0xffffff }, 1, { { 0, 0xffffff } } },
                { { .aperture_last = 0xffffffff, .reserved_first = 1 }, 1, { { 0, 0xffffffff } } },
                { { .aperture_first = 1,
                    .aperture_last = 0xfffffe,
                    .reserved_first = 0x10800,
                    .reserved_last = 0x10900 },
                  2,
                  { { 0x1000, 0xffff }, { 0x11000, 0xffefff } } },
                { { .page_sizes = 64 * K, .aperture_first = 0xfffffffffff00000, .aperture_last = UINT64_MAX },
                  1,
                  { { 0xfffffffffff00000, UINT64_MAX } } },
                { { .page_sizes = 64 * K,
                    .aperture_last = UINT64_MAX,
                    .reserved_first = 0xfffffffffff00000,
                    .reserved_last = UINT64_MAX },
                  1,
                  { { 0, 0xffffffffffefffff } } },
        };

        (void)state;
        for (size_t n = 0; n < ARRAY_SIZE(cases); n++) {
                struct container *c = container(cases[n].p);
                struct container_info i;

                container_info(c, &i);
                assert_int_equal(i.n_ranges, cases[n].n);
                assert_memory_equal(i.ranges, cases[n].r, cases[n].n * sizeof i.ranges[0]);
                container_close(c);
        }
}

static void an_impossible_personality_is_refused(void **state) {
        static const struct soft_personality bad[] = {
                { .page_sizes = 2 * K },
                { .page_sizes = 4 * K | 4 * M },
                { .aperture_last = UINT64_C(1) << 48 },
                { .page_sizes = 16 * K, .aperture_last = UINT64_C(1) << 58 },
                { .aperture_first = 0x2000, .aperture_last = 0x1fff },
                { .aperture_last = 0xffe },
                { .aperture_last = 0xffff, .reserved_last = 0xffff },
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct backend_open o = { .kind = BACKEND_SOFT, .container_fd = -1, .group_fd = -1, .soft = bad[i] };
                struct container *c;
                struct refusal r;

                assert_int_equal(container_open(&o, &c, &r), -1);
                assert_int_equal(r.reason, REFUSAL_UNSUPPORTED);
        }
}

/* 1025 windows of 4 TiB do not fit 52 bits: the map fails near its end, and nothing of it is left. */
static void a_map_that_exhausts_the_physical_space_leaves_nothing(void **state) {
        struct container *c = container((struct soft_personality){
                .page_sizes = 64 * K | 4 * T, .aperture_last = UINT64_MAX, .reserved_first = 1 });
        struct backend_mapping m = {
                .iova = 0, .length = 1025 * 4 * T, .vaddr = (void *)0x10000, .fd = -1, .access = 3
        };
        uint32_t access;
        uintptr_t host;
        struct refusal r;

        (void)state;
        for (unsigned i = 0; i < 3; i++) {
                assert_int_equal(container_map(c, &m, &r), -1);
                assert_int_equal(r.reason, REFUSAL_BACKEND_REFUSED);
                assert_int_equal(r.errnum, ENOMEM);
                assert_false(soft_lookup(c, 0, &host, &access));
                assert_false(soft_lookup(c, 1023 * 4 * T, &host, &access));
        }
        m.length -= 4 * T;
        assert_int_equal(container_map(c, &m, &r), 0);
        assert_true(soft_lookup(c, 1023 * 4 * T + 5, &host, &access));
        assert_int_equal(host, 0x10000 + 1023 * 4 * T + 5);
        assert_int_equal(container_unmap(c, 0, m.length, &r), 0);
        assert_int_equal(container_map(c, &m, &r), 0);
        container_close(c);
}

/* There are 1024 frames: whoever forgot to give one back would run out. */
static void unmapping_gives_the_physical_space_back(void **state) {
        struct container *c = container((struct soft_personality){ .page_sizes = 64 * K | 4 * T });
        struct refusal r;

        (void)state;
        for (uint64_t i = 1; i < 5000; i++) {
                struct backend_mapping m = { .iova = i * 64 * K,
                                             .length = 64 * K,
                                             .vaddr = (void *)(uintptr_t)(i * 64 * K),
                                             .fd = -1,
                                             .access = 3 };

                assert_int_equal(container_map(c, &m, &r), 0);
                if (i < 2500)
                        assert_int_equal(container_unmap(c, m.iova, m.length, &r), 0);
                else
                        assert_int_equal(container_unmap_all(c, &r), 0);
        }
        container_close(c);
}

/* --- random -------------------------------------------------------------------------------------------------------*/

static uint64_t random_state;

/* splitmix64: the same numbers everywhere */
static uint64_t random_number(uint64_t below) {
        uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return (z ^ z >> 31) % below;
}

struct random_case {
        uint64_t page_sizes, base, pages;
        uint64_t super;         /* pages of one superpage: what lengths and addresses are often multiples of */
        uint64_t super2;
};

static void check_page(struct container *c, const struct oracle *o, size_t i) {
        const struct oracle_page *p = &o->pages[i];
        uint64_t in_page = random_number(o->page_size);
        uint32_t access = 0;
        uintptr_t host = 0;
        bool mapped = soft_lookup(c, o->base + i * o->page_size + in_page, &host, &access);

        if (mapped != p->mapped || (mapped && (host != p->host + in_page || access != p->access)))
                fail_msg("page %zu: mapped %d, should be %d; host %#" PRIxPTR ", should be %#" PRIx64
                         "; access %u, should be %u",
                         i, mapped, p->mapped, host, p->host + in_page, access, p->access);
}

static void check_around(struct container *c, const struct oracle *o, size_t first, size_t n) {
        check_page(c, o, first);
        check_page(c, o, first + n - 1);
        if (first > 0)
                check_page(c, o, first - 1);
        if (first + n < o->n_pages)
                check_page(c, o, first + n);
        for (unsigned i = 0; i < 8; i++) {
                check_page(c, o, first + random_number(n));
                check_page(c, o, random_number(o->n_pages));
        }
}

static void random_range(const struct random_case *k, size_t *ret_first, size_t *ret_n) {
        uint64_t unit = random_number(4) ? 1 : random_number(4) ? k->super : k->super2, first, n;

        n = (1 + random_number(4)) * unit;
        if (random_number(8) == 0)
                n += random_number(3);
        first = random_number(k->pages / unit) * unit;
        if (unit == 1 && random_number(2))      /* gather small ones, so that they meet */
                first %= 64;
        if (first + n > k->pages)
                n = k->pages - first;
        *ret_first = first;
        *ret_n = n;
}

static void random_map(struct container *c, struct oracle *o, const struct random_case *k) {
        struct backend_mapping m = { .fd = -1, .access = 1 + (uint32_t)random_number(3) };
        enum oracle_answer expected;
        struct refusal r;
        size_t first, n;
        int k2;

        random_range(k, &first, &n);
        m.iova = o->base + first * o->page_size;
        m.length = n * o->page_size;
        /* five memory objects at unfriendly addresses, of which mmap would give no worse; offsets often aligned like the IOVA */
        m.offset = (random_number(2)   ? first
                    : random_number(2) ? random_number(k->pages)
                                       : first % k->super) *
                   o->page_size;
        m.vaddr = (void *)(uintptr_t)(UINT64_C(0x100000000000) * (1 + random_number(5)) +
                                     3 * (uint64_t)sysconf(_SC_PAGESIZE) + m.offset);
        expected = oracle_map(o, first, n, (uintptr_t)m.vaddr, m.access);
        k2 = container_map(c, &m, &r);
        assert_int_equal(k2 == 0 ? ORACLE_DONE : r.reason == REFUSAL_OVERLAP ? ORACLE_OVERLAP : 99, expected);
        check_around(c, o, first, n);
}

static void random_unmap(struct container *c, struct oracle *o, const struct random_case *k) {
        size_t at = random_number(k->pages), first, n;
        enum oracle_answer expected;
        struct refusal r;
        int k2;

        for (unsigned i = 0; i < 256 && !o->pages[at].mapped; i++)
                at = random_number(random_number(2) ? 64 : k->pages);
        random_range(k, &first, &n);
        if (o->pages[at].mapped && random_number(8)) {          /* mostly a mapping, sometimes not quite */
                first = o->pages[at].first;
                n = o->pages[at].n;
                if (random_number(8) == 0 && n > 1)
                        n--;
                else if (random_number(8) == 0 && first + n < k->pages)
                        n++;
        }
        expected = oracle_unmap(o, first, n);
        k2 = container_unmap(c, o->base + first * o->page_size, n * o->page_size, &r);
        assert_int_equal(k2 == 0                               ? ORACLE_DONE
                         : r.reason == REFUSAL_NOT_MAPPED      ? ORACLE_NOT_MAPPED
                         : r.reason == REFUSAL_PARTIAL_UNMAP   ? ORACLE_PARTIAL
                                                               : 99,
                         expected);
        check_around(c, o, first, n);
}

static void random_life(const struct random_case *k, unsigned n_ops) {
        struct container *c = container((struct soft_personality){
                .page_sizes = k->page_sizes,
                .aperture_last = k->base + (k->pages * page_mask_smallest(k->page_sizes) - 1),
                .reserved_first = 1 });
        struct oracle o;
        struct refusal r;

        assert_true(oracle_make(&o, k->base, page_mask_smallest(k->page_sizes), k->pages));
        for (unsigned i = 0; i < n_ops; i++) {
                if (random_number(500) == 0) {
                        assert_int_equal(container_unmap_all(c, &r), 0);
                        oracle_unmap_all(&o);
                } else if (random_number(5) < 3)
                        random_map(c, &o, k);
                else
                        random_unmap(c, &o, k);
        }
        for (size_t i = 0; i < k->pages; i++)
                check_page(c, &o, i);
        container_close(c);
        oracle_free(&o);
}

static void a_random_life_agrees_with_the_oracle(void **state) {
        static const struct random_case cases[] = {
                { X86_PAGES, 0, 3 * G / (4 * K), 512, 512 * 512 },
                { X86_PAGES, (UINT64_C(1) << 48) - 3 * G, 3 * G / (4 * K), 512, 512 * 512 },
                { 4 * K, 510 * G, 4096, 512, 1024 },
                { 4 * K | G, G - 2 * M, (2 * G + 4 * M) / (4 * K), 512, 512 * 512 },
                { 16 * K | 32 * M, 64 * G - 64 * M, 16384, 2048, 4096 },
                { 64 * K | 512 * M, 0 - 2 * G, 32768, 8192, 8192 },
        };
        const char *given = getenv("IOMMUD_TEST_SEED");
        struct timespec now;
        uint64_t seed;

        (void)state;
        clock_gettime(CLOCK_REALTIME, &now);
        seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
        print_message("IOMMUD_TEST_SEED=%" PRIu64 "\n", seed);
        random_state = seed;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                random_life(&cases[i], 10000);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(only_page_sizes_of_the_format_are_expressible),
                cmocka_unit_test(the_granule_gives_the_address_width),
                cmocka_unit_test(entries_are_those_of_x86_second_level_tables),
                cmocka_unit_test(a_walk_gives_address_access_and_what_is_left_of_the_page),
                cmocka_unit_test(an_address_wider_than_the_format_leads_nowhere),
                cmocka_unit_test(the_last_page_below_2_to_the_64_is_like_any_other),
                cmocka_unit_test(the_largest_page_that_fits_is_taken),
                cmocka_unit_test(no_superpage_where_addresses_or_length_do_not_permit),
                cmocka_unit_test(no_superpage_that_the_mask_lacks),
                cmocka_unit_test(every_granule_has_its_own_superpages),
                cmocka_unit_test(an_insertion_that_meets_a_leaf_undoes_itself),
                cmocka_unit_test(an_insertion_without_memory_for_tables_undoes_itself),
                cmocka_unit_test(a_removal_leaves_the_neighbours),
                cmocka_unit_test(empty_tables_stay_and_are_used_again),
                cmocka_unit_test(a_superpage_takes_the_place_of_empty_tables),
                cmocka_unit_test(clearing_leaves_the_root_only),
                cmocka_unit_test(physical_addresses_are_as_aligned_as_file_offsets),
                cmocka_unit_test(an_offset_beyond_the_address_is_no_trouble),
                cmocka_unit_test(one_window_of_one_mmap_is_one_frame_until_the_last_hold_goes),
                cmocka_unit_test(the_physical_space_ends_at_52_bits),
                cmocka_unit_test(zero_personality_is_the_documented_default),
                cmocka_unit_test(ranges_are_whole_pages_of_what_the_personality_leaves),
                cmocka_unit_test(an_impossible_personality_is_refused),
                cmocka_unit_test(a_map_that_exhausts_the_physical_space_leaves_nothing),
                cmocka_unit_test(a_record_is_used_again_and_memory_goes_with_the_set),
                cmocka_unit_test(unmapping_gives_the_physical_space_back),
                cmocka_unit_test(a_random_life_agrees_with_the_oracle),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
