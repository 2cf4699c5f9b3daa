/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker util */
/* The set of mappings of a domain, against a plain array that is searched from end to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/mapping.h"

#define SLOTS 64U
#define STEPS 20000U
#define UNIT 0x1000ULL

/* ---- the plain array: slot i is the page at i * UNIT; owner[i] is the mapping there ---- */

struct model {
        struct mapping *owner[SLOTS];
        uint64_t count, bytes;
};

static struct mapping *model_find(const struct model *m, struct iova_range r) {
        for (uint64_t i = r.first / UNIT; i <= r.last / UNIT && i < SLOTS; i++)
                if (m->owner[i])
                        return m->owner[i];
        return NULL;
}

static void model_set(struct model *m, struct iova_range r, struct mapping *owner) {
        for (uint64_t i = r.first / UNIT; i <= r.last / UNIT; i++)
                m->owner[i] = owner;
        m->count += owner ? 1 : -1ULL;
        m->bytes += owner ? iova_range_length(r) : -iova_range_length(r);
}

static uint64_t seed = 1;

static unsigned any(unsigned n) {       /* the same on every run */
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        return (unsigned)(seed >> 33) % n;
}

static struct iova_range any_range(void) {
        unsigned first = any(SLOTS), n = 1 + any(SLOTS - first > 6 ? 6 : SLOTS - first);

        return (struct iova_range){ first * UNIT, (first + n) * UNIT - 1 };
}

static void compare_walk(struct mapping_set *s, const struct model *m) {
        struct mapping *there = mapping_set_find(s, (struct iova_range){ 0, UINT64_MAX }), *last = NULL;
        uint64_t n = 0;

        for (unsigned i = 0; i < SLOTS; i++) {
                if (!m->owner[i] || m->owner[i] == last)
                        continue;
                assert_ptr_equal(there, m->owner[i]);
                last = there;
                there = mapping_set_next(s, there);
                n++;
        }
        assert_null(there);
        assert_int_equal(s->count, n);
        assert_int_equal(s->count, m->count);
        assert_int_equal(s->bytes, m->bytes);
}

static void a_long_random_life_agrees_with_a_plain_array(void **state) {
        struct model m = { 0 };
        struct mapping_set s;

        (void)state;
        mapping_set_init(&s);
        for (unsigned step = 0; step < STEPS; step++) {
                struct iova_range r = any_range();
                struct mapping *there = mapping_set_find(&s, r);

                assert_ptr_equal(there, model_find(&m, r));
                if (!there) {
                        there = mapping_set_insert(&s, r);
                        assert_non_null(there);
                        assert_int_equal(there->range.first, r.first);
                        assert_int_equal(there->range.last, r.last);
                        model_set(&m, r, there);
                } else if (any(2)) {
                        model_set(&m, there->range, NULL);
                        mapping_set_remove(&s, there);
                }
                if (step % 64 == 0)
                        compare_walk(&s, &m);
        }
        mapping_set_clear(&s);
        assert_int_equal(s.count, 0);
        assert_int_equal(s.bytes, 0);
        assert_null(mapping_set_find(&s, (struct iova_range){ 0, UINT64_MAX }));
}

static void one_byte_shared_is_found_and_one_byte_beside_is_not(void **state) {
        struct mapping_set s;
        struct mapping *m;

        (void)state;
        mapping_set_init(&s);
        m = mapping_set_insert(&s, (struct iova_range){ 0x4000, 0x5fff });
        assert_ptr_equal(mapping_set_find(&s, (struct iova_range){ 0x3000, 0x4000 }), m);
        assert_null(mapping_set_find(&s, (struct iova_range){ 0x3000, 0x3fff }));
        assert_ptr_equal(mapping_set_find(&s, (struct iova_range){ 0x5fff, 0x6fff }), m);
        assert_null(mapping_set_find(&s, (struct iova_range){ 0x6000, 0x6fff }));
        assert_ptr_equal(mapping_set_find(&s, (struct iova_range){ 0x4fff, 0x5000 }), m);
        mapping_set_clear(&s);
}

static void the_first_overlap_is_the_lowest(void **state) {
        struct mapping_set s;
        struct mapping *low;

        (void)state;
        mapping_set_init(&s);
        assert_non_null(mapping_set_insert(&s, (struct iova_range){ 0x9000, 0x9fff }));
        assert_non_null(mapping_set_insert(&s, (struct iova_range){ 0x1000, 0x1fff }));
        low = mapping_set_insert(&s, (struct iova_range){ 0x5000, 0x5fff });
        assert_ptr_equal(mapping_set_find(&s, (struct iova_range){ 0x2000, UINT64_MAX }), low);
        mapping_set_clear(&s);
}

static void both_ends_of_the_space_can_be_mapped(void **state) {
        const struct iova_range low = { 0, UNIT - 1 }, high = { UINT64_MAX - (UNIT - 1), UINT64_MAX };
        struct mapping_set s;
        struct mapping *a, *b;

        (void)state;
        mapping_set_init(&s);
        a = mapping_set_insert(&s, low);
        b = mapping_set_insert(&s, high);
        assert_ptr_equal(mapping_set_find(&s, low), a);
        assert_ptr_equal(mapping_set_find(&s, high), b);
        assert_ptr_equal(mapping_set_next(&s, a), b);
        assert_null(mapping_set_next(&s, b));
        assert_int_equal(s.bytes, 2 * UNIT);
        mapping_set_clear(&s);
}

/* A node that comes back from the free list must not keep what its former life left in it. */
static void a_reused_node_is_blank(void **state) {
        struct mapping_set s;
        struct mapping *m;

        (void)state;
        mapping_set_init(&s);
        for (unsigned i = 0; i < 2 * MAPPINGS_PER_SLAB; i++) {
                m = mapping_set_insert(&s, (struct iova_range){ 0x1000, 0x1fff });
                assert_non_null(m);
                assert_int_equal(m->offset, 0);
                assert_int_equal(m->access, 0);
                assert_int_equal(m->state, 0);
                assert_null(m->memory);
                m->offset = 7;
                m->access = 3;
                m->state = MAPPING_UNMAPPING;
                m->memory = (struct memory *)&s;
                mapping_set_remove(&s, m);
                assert_null(mapping_set_find(&s, (struct iova_range){ 0, UINT64_MAX }));
        }
        mapping_set_clear(&s);
}

static void more_than_one_slab_of_nodes_is_sorted_too(void **state) {
        const uint64_t n = 3 * MAPPINGS_PER_SLAB + 1;
        struct mapping_set s;
        struct mapping *m;
        uint64_t i = 0;

        (void)state;
        mapping_set_init(&s);
        for (uint64_t k = 0; k < n; k++) {
                uint64_t at = k * 7 % n * UNIT;         /* 7 and n have no common factor: every place once */

                assert_non_null(mapping_set_insert(&s, (struct iova_range){ at, at + UNIT - 1 }));
        }
        for (m = mapping_set_find(&s, (struct iova_range){ 0, UINT64_MAX }); m; m = mapping_set_next(&s, m))
                assert_int_equal(m->range.first, i++ * UNIT);
        assert_int_equal(i, n);
        assert_int_equal(s.bytes, n * UNIT);
        mapping_set_clear(&s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_long_random_life_agrees_with_a_plain_array),
                cmocka_unit_test(one_byte_shared_is_found_and_one_byte_beside_is_not),
                cmocka_unit_test(the_first_overlap_is_the_lowest),
                cmocka_unit_test(both_ends_of_the_space_can_be_mapped),
                cmocka_unit_test(a_reused_node_is_blank),
                cmocka_unit_test(more_than_one_slab_of_nodes_is_sorted_too),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
