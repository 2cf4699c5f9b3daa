/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker util */
/* What a mapping must fulfil before it is admitted: every edge from both sides, and what the refusal names. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "core/map_check.h"

#define PAGE 0x1000ULL
#define TOP UINT64_MAX

/* 4K and 2M pages; [1M, 3G) and [4G, 48 bits), with a reserved region between them. */
static const struct container_info two_ranges = {
        .page_sizes = 1ULL << 12 | 1ULL << 21,
        .max_mappings = 10,
        .n_ranges = 2,
        .ranges = { { 0x100000, 0xbfffffff }, { 0x100000000, 0xffffffffffff } },
};

static const struct container_info whole_space = {
        .page_sizes = 1ULL << 12, .max_mappings = UINT32_MAX, .n_ranges = 1, .ranges = { { 0, TOP } },
};

static enum refusal_reason check_range(const struct container_info *info, uint64_t iova, uint64_t length, struct refusal *r) {
        const struct map_element e = { .iova = iova, .length = length, .access = BACKEND_ACCESS_READ };
        struct iova_range range = { 7, 9 };
        uint8_t page_shift;

        if (map_check_range(info, NULL, &e, &range, &page_shift, r) < 0)
                return r->reason;
        assert_int_equal(range.first, iova);
        assert_int_equal(iova_range_length(range), length);
        return REFUSAL_NONE;
}

static enum refusal_reason range_reason(uint64_t iova, uint64_t length) {
        struct refusal r;

        return check_range(&two_ranges, iova, length, &r);
}

/* ---- ranges ---- */

static void what_lies_inside_a_usable_range_is_taken_to_its_last_byte(void **state) {
        (void)state;
        assert_int_equal(range_reason(0x100000, PAGE), REFUSAL_NONE);
        assert_int_equal(range_reason(0xbfffffff - (PAGE - 1), PAGE), REFUSAL_NONE);
        assert_int_equal(range_reason(0x100000, 0xbff00000), REFUSAL_NONE);
        assert_int_equal(range_reason(0x100000000, PAGE), REFUSAL_NONE);
        assert_int_equal(range_reason(0xfffffffff000, PAGE), REFUSAL_NONE);
}

static void outside_the_aperture_is_refused_below_and_above(void **state) {
        struct refusal r;

        (void)state;
        assert_int_equal(range_reason(0x100000 - PAGE, PAGE), REFUSAL_OUTSIDE_APERTURE);
        assert_int_equal(range_reason(0x100000 - PAGE, 2 * PAGE), REFUSAL_OUTSIDE_APERTURE);
        assert_int_equal(range_reason(0, PAGE), REFUSAL_OUTSIDE_APERTURE);
        assert_int_equal(range_reason(0x1000000000000, PAGE), REFUSAL_OUTSIDE_APERTURE);
        assert_int_equal(check_range(&two_ranges, 0xfffffffff000, 2 * PAGE, &r), REFUSAL_OUTSIDE_APERTURE);
        assert_int_equal(r.limit, 0xffffffffffff);
        assert_int_equal(r.asked, 0x1000000000fff);
        assert_int_equal(r.nearest_below, 0x100000);
        assert_int_equal(r.nearest_above, 0xffffffffffff);
}

static void one_page_of_a_reserved_region_is_too_much(void **state) {
        struct refusal r;

        (void)state;
        assert_int_equal(check_range(&two_ranges, 0xc0000000 - PAGE, 2 * PAGE, &r), REFUSAL_RESERVED_REGION);
        assert_int_equal(r.conflict_first, 0xc0000000);
        assert_int_equal(r.conflict_last, 0xffffffff);
        assert_int_equal(r.nearest_above, 0x100000000);
        assert_int_equal(range_reason(0x100000000 - PAGE, 2 * PAGE), REFUSAL_RESERVED_REGION);
        assert_int_equal(range_reason(0xd0000000, PAGE), REFUSAL_RESERVED_REGION);
        assert_int_equal(range_reason(0xc0000000 - PAGE, 0x40000000 + 2 * PAGE), REFUSAL_RESERVED_REGION);
}

static void the_last_page_of_the_space_can_be_asked_for_and_not_passed(void **state) {
        struct refusal r;

        (void)state;
        assert_int_equal(check_range(&whole_space, TOP - (PAGE - 1), PAGE, &r), REFUSAL_NONE);
        assert_int_equal(check_range(&whole_space, PAGE, 0 - PAGE, &r), REFUSAL_NONE);
        assert_int_equal(check_range(&whole_space, TOP - (PAGE - 1), 2 * PAGE, &r), REFUSAL_RANGE_WRAPS);
        assert_int_equal(r.asked, 2 * PAGE);
        assert_int_equal(r.limit, PAGE);
        assert_int_equal(check_range(&whole_space, 2 * PAGE, 0 - PAGE, &r), REFUSAL_RANGE_WRAPS);
}

static void nothing_is_no_mapping(void **state) {
        (void)state;
        assert_int_equal(range_reason(0x100000, 0), REFUSAL_ZERO_LENGTH);
        assert_int_equal(range_reason(0x100001, 0), REFUSAL_ZERO_LENGTH);
}

static void iova_length_and_offset_are_multiples_of_the_smallest_page(void **state) {
        struct map_element e = { .iova = 0x200000, .length = PAGE, .offset = PAGE, .access = BACKEND_ACCESS_READ };
        struct iova_range range;
        uint8_t page_shift;
        struct refusal r;
        uint64_t *const fields[] = { &e.iova, &e.length, &e.offset };

        (void)state;
        assert_int_equal(map_check_range(&two_ranges, NULL, &e, &range, &page_shift, &r), 0);
        for (size_t i = 0; i < 3; i++) {
                const uint64_t good = *fields[i], bad[] = { good + 1, good + PAGE - 1, good + PAGE / 2 };

                for (size_t k = 0; k < 3; k++) {
                        *fields[i] = bad[k];
                        assert_int_equal(map_check_range(&two_ranges, NULL, &e, &range, &page_shift, &r), -1);
                        assert_int_equal(r.reason, REFUSAL_UNALIGNED);
                        assert_int_equal(r.asked, bad[k]);
                        assert_int_equal(r.limit, PAGE);
                        assert_int_equal(r.nearest_below, good);
                        assert_int_equal(r.nearest_above, good + PAGE);
                }
                *fields[i] = good;
        }
}

static void no_page_above_the_last_one_is_offered(void **state) {
        struct refusal r;

        (void)state;
        assert_int_equal(check_range(&whole_space, TOP, PAGE, &r), REFUSAL_UNALIGNED);
        assert_int_equal(r.nearest_below, TOP - (PAGE - 1));
        assert_int_equal(r.nearest_above, TOP - (PAGE - 1));
}

static void access_is_read_write_or_both(void **state) {
        struct map_element e = { .iova = 0x200000, .length = PAGE };
        struct iova_range range;
        uint8_t page_shift;
        struct refusal r;

        (void)state;
        for (e.access = 1; e.access <= 3; e.access++)
                assert_int_equal(map_check_range(&two_ranges, NULL, &e, &range, &page_shift, &r), 0);
        for (size_t i = 0; i < 4; i++) {
                e.access = (const uint32_t[]){ 0, 4, 7, UINT32_MAX }[i];
                assert_int_equal(map_check_range(&two_ranges, NULL, &e, &range, &page_shift, &r), -1);
                assert_int_equal(r.reason, REFUSAL_BAD_ACCESS);
                assert_int_equal(r.asked, e.access);
        }
}

static void a_domain_without_pages_or_ranges_takes_nothing(void **state) {
        const struct container_info no_pages = { .n_ranges = 1, .ranges = { { 0, TOP } } };
        const struct container_info no_ranges = { .page_sizes = PAGE };
        struct refusal r;

        (void)state;
        assert_int_equal(check_range(&no_pages, PAGE, PAGE, &r), REFUSAL_INTERNAL);
        assert_int_equal(check_range(&no_ranges, PAGE, PAGE, &r), REFUSAL_OUTSIDE_APERTURE);
}

/* ---- memory ---- */

static enum refusal_reason memory_reason(const struct memory *m, uint64_t offset, uint64_t length, uint32_t access) {
        const struct map_element e = { .offset = offset, .length = length, .access = access };
        struct refusal r;

        return map_check_memory(m, &e, 0, &r) < 0 ? r.reason : REFUSAL_NONE;
}

static void a_mapping_ends_where_its_memory_object_ends(void **state) {
        const struct memory m = { .id = 5, .size = 4 * PAGE, .writable = true };
        const struct map_element e = { .offset = 3 * PAGE, .length = 2 * PAGE, .access = BACKEND_ACCESS_READ };
        struct refusal r;

        (void)state;
        assert_int_equal(memory_reason(&m, 0, 4 * PAGE, 1), REFUSAL_NONE);
        assert_int_equal(memory_reason(&m, 3 * PAGE, PAGE, 1), REFUSAL_NONE);
        assert_int_equal(memory_reason(&m, 0, 4 * PAGE + 1, 1), REFUSAL_BEYOND_OBJECT);
        assert_int_equal(memory_reason(&m, 4 * PAGE, PAGE, 1), REFUSAL_BEYOND_OBJECT);
        assert_int_equal(memory_reason(&m, 3 * PAGE + 1, PAGE, 1), REFUSAL_BEYOND_OBJECT);
        assert_int_equal(map_check_memory(&m, &e, 0, &r), -1);
        assert_int_equal(r.limit, 4 * PAGE);
        assert_int_equal(r.asked, 5 * PAGE);
}

/* A mapping that exposes its IOMMU pages needs the object to have all of the last one. */
static void a_page_that_is_exposed_is_wholly_in_its_object(void **state) {
        const struct memory m = { .id = 5, .size = 20 * PAGE, .writable = true };       /* one IOMMU page of 64K, and a part */
        struct map_element e = { .offset = PAGE, .length = 15 * PAGE, .access = BACKEND_ACCESS_READ, .expose = true };
        struct refusal r;

        (void)state;
        assert_int_equal(map_check_memory(&m, &e, 16, &r), 0);
        e.length = 15 * PAGE + 1;
        assert_int_equal(map_check_memory(&m, &e, 16, &r), -1);
        assert_int_equal(r.reason, REFUSAL_BEYOND_OBJECT);
        assert_int_equal(r.limit, 20 * PAGE);
        assert_int_equal(r.asked, 32 * PAGE);
        assert_int_equal(map_check_memory(&m, &e, 12, &r), 0);
}

static void an_end_that_wraps_is_beyond_the_object(void **state) {
        const struct memory m = { .id = 5, .size = 4 * PAGE, .writable = true };

        (void)state;
        assert_int_equal(memory_reason(&m, 0 - PAGE, 2 * PAGE, 1), REFUSAL_BEYOND_OBJECT);
        assert_int_equal(memory_reason(&m, 0 - PAGE, PAGE, 1), REFUSAL_BEYOND_OBJECT);
        assert_int_equal(memory_reason(&m, PAGE, 0 - PAGE, 1), REFUSAL_BEYOND_OBJECT);
}

static void a_device_writes_only_what_was_registered_for_writing(void **state) {
        const struct memory m = { .id = 5, .size = PAGE, .writable = false };

        (void)state;
        assert_int_equal(memory_reason(&m, 0, PAGE, BACKEND_ACCESS_READ), REFUSAL_NONE);
        assert_int_equal(memory_reason(&m, 0, PAGE, BACKEND_ACCESS_WRITE), REFUSAL_MEMORY_READ_ONLY);
        assert_int_equal(memory_reason(&m, 0, PAGE, BACKEND_ACCESS_READ | BACKEND_ACCESS_WRITE), REFUSAL_MEMORY_READ_ONLY);
}

/* ---- what is there already ---- */

static void an_overlap_of_one_byte_is_refused_and_named(void **state) {
        struct memory memory = { .id = 5 };
        struct domain d = { .id = 1 };
        struct mapping *m;
        struct refusal r;

        (void)state;
        mapping_set_init(&d.mappings);
        m = mapping_set_insert(&d.mappings, (struct iova_range){ 0x4000, 0x5fff });
        m->memory = &memory;
        assert_int_equal(map_check_free(&d, (struct iova_range){ 0x3000, 0x3fff }, &r), 0);
        assert_int_equal(map_check_free(&d, (struct iova_range){ 0x6000, 0x6fff }, &r), 0);
        assert_int_equal(map_check_free(&d, (struct iova_range){ 0x3000, 0x4000 }, &r), -1);
        assert_int_equal(map_check_free(&d, (struct iova_range){ 0x5fff, 0x6fff }, &r), -1);
        assert_int_equal(map_check_free(&d, (struct iova_range){ 0x4000, 0x4fff }, &r), -1);
        assert_int_equal(r.reason, REFUSAL_OVERLAP);
        assert_int_equal(r.conflict_first, 0x4000);
        assert_int_equal(r.conflict_last, 0x5fff);
        mapping_set_clear(&d.mappings);
}

/* Whatever its state is: also what is only intended, and what is on its way out, keeps others away. */
static void a_range_is_taken_in_every_state_of_its_mapping(void **state) {
        struct memory memory = { .id = 5 };
        struct domain d = { .id = 1 };
        struct mapping *m;
        struct refusal r;

        (void)state;
        mapping_set_init(&d.mappings);
        m = mapping_set_insert(&d.mappings, (struct iova_range){ 0x4000, 0x4fff });
        m->memory = &memory;
        for (m->state = MAPPING_INTENDED; m->state <= MAPPING_UNMAPPING; m->state++)
                assert_int_equal(map_check_free(&d, m->range, &r), -1);
        mapping_set_clear(&d.mappings);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_lies_inside_a_usable_range_is_taken_to_its_last_byte),
                cmocka_unit_test(outside_the_aperture_is_refused_below_and_above),
                cmocka_unit_test(one_page_of_a_reserved_region_is_too_much),
                cmocka_unit_test(the_last_page_of_the_space_can_be_asked_for_and_not_passed),
                cmocka_unit_test(nothing_is_no_mapping),
                cmocka_unit_test(iova_length_and_offset_are_multiples_of_the_smallest_page),
                cmocka_unit_test(no_page_above_the_last_one_is_offered),
                cmocka_unit_test(access_is_read_write_or_both),
                cmocka_unit_test(a_domain_without_pages_or_ranges_takes_nothing),
                cmocka_unit_test(a_mapping_ends_where_its_memory_object_ends),
                cmocka_unit_test(a_page_that_is_exposed_is_wholly_in_its_object),
                cmocka_unit_test(an_end_that_wraps_is_beyond_the_object),
                cmocka_unit_test(a_device_writes_only_what_was_registered_for_writing),
                cmocka_unit_test(an_overlap_of_one_byte_is_refused_and_named),
                cmocka_unit_test(a_range_is_taken_in_every_state_of_its_mapping),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
