/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker util */
/* Finding a free place: always the lowest one, as a plain bitmap says, and as quickly among a million holes as among few.
 * IOMMUD_TEST_SEED replays a random life. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/iova_space.h"

#define TOP UINT64_MAX
#define K UINT64_C(1024)
#define M (K * K)
#define G (K * M)
#define PAGE (4 * K)

static const struct iova_range whole = { 0, TOP };

static uint64_t random_state;

static unsigned any(unsigned n) {
        random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
        return (unsigned)(random_state >> 33) % n;
}

static struct iova_range at(uint64_t first, uint64_t length) {
        return (struct iova_range){ first, first + (length - 1) };
}

/* reserved, and taken */
static bool take(struct iova_space *s, struct iova_range range) {
        assert_true(iova_space_reserve(s));
        if (iova_space_take(s, range))
                return true;
        iova_space_unreserve(s);
        return false;
}

static uint64_t found(struct iova_space *s, uint64_t length, uint64_t align, struct iova_range within) {
        uint64_t ret = 77;

        assert_true(iova_space_find(s, length, align, within, &ret));
        return ret;
}

static bool nothing(struct iova_space *s, uint64_t length, uint64_t align, struct iova_range within) {
        uint64_t ret = 77;
        bool none = !iova_space_find(s, length, align, within, &ret);

        assert_true(!none || ret == 77);
        return none;
}

/* ---- the plain bitmap: slot i is `unit` bytes at base + i * unit ---- */

#define SLOTS 1024U

struct model {
        uint64_t base, unit;
        unsigned per_page;              /* slots of the smallest page that is searched for */
        bool usable[SLOTS], used[SLOTS];
        struct { unsigned first, n; } taken[SLOTS];
        unsigned n_taken;
};

static bool model_free(const struct model *m, unsigned first, unsigned n) {
        for (unsigned i = first; i < first + n; i++)
                if (i >= SLOTS || !m->usable[i] || m->used[i])
                        return false;
        return true;
}

/* The lowest aligned slot in [low, high) for n slots; SLOTS: none. */
static unsigned model_find(const struct model *m, unsigned n, uint64_t align, unsigned low, unsigned high) {
        for (unsigned i = low; i + n <= high; i++)
                if ((m->base + i * m->unit) % align == 0 && model_free(m, i, n))
                        return i;
        return SLOTS;
}

static struct iova_range model_range(const struct model *m, unsigned first, unsigned n) {
        return at(m->base + first * m->unit, n * m->unit);
}

static void life_find(struct iova_space *s, const struct model *m, const uint64_t *aligns, unsigned n_aligns) {
        unsigned low = any(SLOTS), high = low + 1 + any(SLOTS - low), expected;
        unsigned n = (1 + any(any(4) ? 8 : 80)) * m->per_page;
        uint64_t align = aligns[any(n_aligns)], ret = 77;

        if (!any(3)) {
                low = 0;
                high = SLOTS;
        }
        expected = model_find(m, n, align, low, high);
        if (iova_space_find(s, n * m->unit, align, model_range(m, low, high - low), &ret))
                assert_int_equal(ret, m->base + expected * m->unit);
        else
                assert_int_equal(expected, SLOTS);
}

static void life_take(struct iova_space *s, struct model *m) {
        unsigned first = any(SLOTS), n = 1 + any(12);
        bool is_free;

        if (first + n > SLOTS)
                n = SLOTS - first;
        is_free = model_free(m, first, n);
        assert_int_equal(iova_space_is_free(s, model_range(m, first, n)), is_free);
        if (!is_free)
                return;
        assert_true(take(s, model_range(m, first, n)));
        memset(m->used + first, 1, n);
        m->taken[m->n_taken].first = first;
        m->taken[m->n_taken++].n = n;
}

/* Whole, or cut in three pieces of which the middle one goes first. */
static void life_give(struct iova_space *s, struct model *m) {
        unsigned i = any(m->n_taken), first = m->taken[i].first, n = m->taken[i].n;

        if (n > 2 && any(2)) {
                assert_true(iova_space_reserve(s));
                assert_true(iova_space_reserve(s));
                iova_space_give(s, model_range(m, first + 1, n - 2));
                iova_space_give(s, model_range(m, first, 1));
                iova_space_give(s, model_range(m, first + n - 1, 1));
        } else
                iova_space_give(s, model_range(m, first, n));
        memset(m->used + first, 0, n);
        m->taken[i] = m->taken[--m->n_taken];
}

/* Ranges with reserved slots between them. */
static void life_begin(struct iova_space *s, struct model *m, uint64_t base, uint64_t unit) {
        struct iova_range ranges[IOVA_RANGES_MAX];
        size_t n = 0;

        *m = (struct model){ .base = base, .unit = unit, .per_page = unit < PAGE ? (unsigned)(PAGE / unit) : 1 };
        for (unsigned i = 0; i < SLOTS && n < IOVA_RANGES_MAX; i += 1 + any(40)) {
                unsigned length = 1 + any(300);

                if (i + length > SLOTS)
                        length = SLOTS - i;
                ranges[n++] = model_range(m, i, length);
                memset(m->usable + i, 1, length);
                i += length;
        }
        assert_true(iova_space_init_ranges(s, ranges, n));
}

static void random_life(uint64_t base, uint64_t unit, const uint64_t *aligns, unsigned n_aligns) {
        static struct model m;
        struct iova_space s;

        life_begin(&s, &m, base, unit);
        for (unsigned step = 0; step < 20000; step++) {
                unsigned full = step / 2000 % 2 ? 30 : 4;       /* fills, then empties, again and again */

                if (any(3) == 0)
                        life_find(&s, &m, aligns, n_aligns);
                else if (any(34) < full || m.n_taken == 0)
                        life_take(&s, &m);
                else
                        life_give(&s, &m);
        }
        while (m.n_taken > 0)
                life_give(&s, &m);
        for (unsigned n = m.per_page; n < 300; n += m.per_page)
                assert_int_equal(nothing(&s, n * unit, aligns[0], whole), model_find(&m, n, aligns[0], 0, SLOTS) == SLOTS);
        iova_space_clear(&s);
}

static void a_long_random_life_agrees_with_a_bitmap(void **state) {
        static const uint64_t small[] = { PAGE, 64 * K, 2 * M, 1 * G };
        static const uint64_t large[] = { 2 * M, 1 * G };
        const char *given = getenv("IOMMUD_TEST_SEED");
        struct timespec now;
        uint64_t seed;

        (void)state;
        clock_gettime(CLOCK_REALTIME, &now);
        seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
        print_message("IOMMUD_TEST_SEED=%" PRIu64 "\n", seed);
        random_state = seed;
        random_life(0, PAGE, small, 4);
        random_life(0 - SLOTS * PAGE, PAGE, small, 4);
        random_life(1 * G - 100 * 64 * K, 64 * K, small + 1, 3);
        random_life(0 - SLOTS * 2 * M, 2 * M, large, 2);
        random_life(12345 * PAGE, 512, small, 2);       /* whole pages between parts of pages */
}

/* ---- edges ---- */

static void both_ends_of_the_space_are_handed_out(void **state) {
        struct iova_space s;

        (void)state;
        iova_space_init(&s);
        assert_int_equal(found(&s, 1, 1, whole), 0);
        assert_int_equal(found(&s, TOP, 1, whole), 0);
        assert_int_equal(found(&s, PAGE, PAGE, at(TOP - (PAGE - 1), PAGE)), TOP - (PAGE - 1));
        assert_true(nothing(&s, PAGE, PAGE, at(TOP - (PAGE - 2), PAGE - 1)));
        assert_true(take(&s, at(TOP - (PAGE - 1), PAGE)));
        assert_true(take(&s, at(0, PAGE)));
        assert_false(take(&s, at(TOP, 1)));
        assert_int_equal(found(&s, TOP - 2 * PAGE + 1, PAGE, whole), PAGE);
        assert_true(nothing(&s, TOP - 2 * PAGE + 2, PAGE, whole));
        iova_space_give(&s, at(0, PAGE));
        iova_space_give(&s, at(TOP - (PAGE - 1), PAGE));
        assert_int_equal(s.extents, 1);
        assert_true(iova_space_is_free(&s, whole));
        assert_true(take(&s, whole));
        assert_true(nothing(&s, 1, 1, whole));
        iova_space_give(&s, whole);
        assert_int_equal(found(&s, TOP, 1, whole), 0);
        iova_space_clear(&s);
}

static void nothing_is_never_found(void **state) {
        struct iova_space s;

        (void)state;
        iova_space_init(&s);
        assert_true(nothing(&s, 0, 1, whole));
        iova_space_clear(&s);
        assert_true(iova_space_init_ranges(&s, NULL, 0));
        assert_true(nothing(&s, 1, 1, whole));
        assert_false(take(&s, at(0, 1)));
        iova_space_clear(&s);
}

static void a_hole_that_just_fits_is_found_and_one_byte_more_is_not(void **state) {
        const struct iova_range only = at(3 * M, 2 * M);        /* aligned for 2M only from 4M on */
        struct iova_space s;

        (void)state;
        iova_space_init(&s);
        assert_true(iova_space_init_ranges(&s, &only, 1));
        assert_int_equal(found(&s, 2 * M, 1 * M, whole), 3 * M);
        assert_int_equal(found(&s, 1 * M, 2 * M, whole), 4 * M);
        assert_true(nothing(&s, 1 * M + 1, 2 * M, whole));
        assert_true(nothing(&s, 2 * M + 1, 1, whole));
        assert_int_equal(found(&s, 1 * M, 1, at(4 * M, 1 * M)), 4 * M);
        assert_true(nothing(&s, 1 * M, 1, at(4 * M + 1, 4 * M)));
        assert_true(nothing(&s, 1 * M, 1, at(4 * M, 1 * M - 1)));
        iova_space_clear(&s);
}

static void touching_ranges_are_one(void **state) {
        const struct iova_range two[] = { { PAGE, 2 * PAGE - 1 }, { 2 * PAGE, 3 * PAGE - 1 }, { 4 * PAGE, 5 * PAGE - 1 } };
        struct iova_space s;

        (void)state;
        iova_space_init(&s);
        assert_true(iova_space_init_ranges(&s, two, 3));
        assert_int_equal(found(&s, 2 * PAGE, PAGE, whole), PAGE);
        assert_true(nothing(&s, 3 * PAGE, PAGE, whole));
        iova_space_clear(&s);
}

static void giving_what_is_free_changes_nothing(void **state) {
        struct iova_space s;

        (void)state;
        iova_space_init(&s);
        assert_true(take(&s, at(4 * PAGE, 2 * PAGE)));
        iova_space_give(&s, at(3 * PAGE, 2 * PAGE));
        iova_space_give(&s, at(5 * PAGE, 2 * PAGE));
        iova_space_give(&s, at(0, PAGE));
        assert_false(take(&s, at(4 * PAGE, 1)));
        assert_false(take(&s, at(6 * PAGE - 1, 1)));
        iova_space_give(&s, at(4 * PAGE, 2 * PAGE));
        assert_true(iova_space_is_free(&s, whole));
        iova_space_clear(&s);
}

/* Everything that was promised by take and cut can be given in the worst order with the memory that is there. */
static void giving_needs_no_memory(void **state) {
        const unsigned n = 5 * IOVA_EXTENTS_PER_SLAB;
        struct iova_space s;
        uint64_t room;

        (void)state;
        iova_space_init(&s);
        assert_true(take(&s, at(0, 2 * n * PAGE)));
        for (unsigned i = 1; i < 2 * n; i++)
                assert_true(iova_space_reserve(&s));
        room = s.room;
        for (unsigned i = 0; i < n; i++)
                iova_space_give(&s, at(2 * i * PAGE, PAGE));
        assert_int_equal(s.extents, n + 1);
        for (unsigned i = 0; i < n; i++)
                iova_space_give(&s, at((2 * i + 1) * PAGE, PAGE));
        assert_int_equal(s.room, room);
        assert_int_equal(s.extents, 1);
        assert_int_equal(s.pieces, 1);
        iova_space_clear(&s);
}

/* ---- a million holes ---- */

#define HOLES 1000000U

/* Holes of `hole` bytes at base + i * stride. */
static void holes(struct iova_space *s, uint64_t base, uint64_t hole, uint64_t stride) {
        const uint64_t end = base + HOLES * stride;

        iova_space_init(s);
        if (base > 0)
                assert_true(take(s, at(0, base)));
        for (uint64_t i = 0; i < HOLES; i++)
                assert_true(take(s, at(base + i * stride + hole, stride - hole)));
        assert_true(take(s, (struct iova_range){ end, TOP }));
        assert_int_equal(s->extents, HOLES);
}

/* A red-black tree of a million is at most 2 * log2(1000001) = 40 high. Down and up again, twice. */
#define FEW 160U

static uint64_t visits(struct iova_space *s, uint64_t length, uint64_t align, struct iova_range within, bool there) {
        uint64_t before = s->visited, ret;

        assert_int_equal(iova_space_find(s, length, align, within, &ret), there);
        return s->visited - before;
}

static void among_a_million_holes_few_are_looked_at(void **state) {
        struct iova_space s;
        uint64_t before;

        (void)state;
        holes(&s, PAGE, PAGE, 2 * PAGE);
        assert_true(visits(&s, PAGE, PAGE, whole, true) < FEW);
        assert_true(visits(&s, 2 * PAGE, PAGE, whole, false) < FEW);
        assert_true(visits(&s, PAGE, 2 * M, whole, false) < FEW);       /* holes begin at odd pages */
        /* the last but two of them becomes larger: the only place for two pages */
        before = s.visited;
        iova_space_give(&s, at(PAGE + (HOLES - 3) * 2 * PAGE + PAGE, PAGE));
        assert_true(s.visited - before < FEW);
        assert_true(visits(&s, 2 * PAGE, PAGE, whole, true) < FEW);
        assert_int_equal(found(&s, 3 * PAGE, PAGE, whole), PAGE + (HOLES - 3) * 2 * PAGE);
        assert_true(visits(&s, 3 * PAGE, PAGE, at(0, HOLES * PAGE), false) < FEW);
        assert_true(visits(&s, PAGE, PAGE, at(HOLES * PAGE, 2 * PAGE), true) < FEW);
        before = s.visited;
        assert_true(take(&s, at(PAGE + HOLES / 2 * 2 * PAGE, PAGE)));
        assert_true(s.visited - before < FEW);
        iova_space_clear(&s);
}

static void a_million_crooked_holes_do_not_hide_a_straight_one(void **state) {
        /* each long enough for 2M, none at a multiple of 2M for 2M */
        struct iova_space s;

        (void)state;
        holes(&s, M, 2 * M, 4 * M);
        assert_true(visits(&s, 2 * M, 2 * M, whole, false) < FEW);
        iova_space_give(&s, at(M + (HOLES - 5) * 4 * M + 2 * M, 2 * M));
        assert_true(visits(&s, 2 * M, 2 * M, whole, true) < FEW);
        assert_int_equal(found(&s, 2 * M, 2 * M, whole), (HOLES - 5) * 4 * M + 2 * M);
        iova_space_clear(&s);
}

static void an_alignment_without_a_class_is_bounded_too(void **state) {
        /* long enough for 32M, each 2M past a multiple of it; the last ones are joined */
        struct iova_space s;

        (void)state;
        holes(&s, 2 * M, 32 * M, 64 * M);
        assert_true(visits(&s, 32 * M, 32 * M, whole, false) < (IOVA_SPACE_TRIES + 2) * FEW);
        iova_space_give(&s, at(2 * M + (HOLES - 2) * 64 * M + 32 * M, 32 * M));
        assert_true(visits(&s, 32 * M, 32 * M, whole, true) < (IOVA_SPACE_TRIES + 2) * FEW);
        assert_int_equal(found(&s, 32 * M, 32 * M, whole), (HOLES - 2) * 64 * M + 32 * M);
        iova_space_clear(&s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_long_random_life_agrees_with_a_bitmap),
                cmocka_unit_test(both_ends_of_the_space_are_handed_out),
                cmocka_unit_test(nothing_is_never_found),
                cmocka_unit_test(a_hole_that_just_fits_is_found_and_one_byte_more_is_not),
                cmocka_unit_test(touching_ranges_are_one),
                cmocka_unit_test(giving_what_is_free_changes_nothing),
                cmocka_unit_test(giving_needs_no_memory),
                cmocka_unit_test(among_a_million_holes_few_are_looked_at),
                cmocka_unit_test(a_million_crooked_holes_do_not_hide_a_straight_one),
                cmocka_unit_test(an_alignment_without_a_class_is_bounded_too),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
