/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker util */
/* The page tables that mappings touch, against the same counted table by table. IOMMUD_TEST_SEED replays a run. */
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

#include "core/table_pages.h"
#include "util/cleanup.h"

#define PAGE 4096ULL
#define MIB (1ULL << 20)

static uint64_t touch(struct table_pages *t, uint64_t first, uint64_t last) {
        uint64_t bytes = 12345;

        assert_true(table_pages_add(t, (struct iova_range){ first, last }, &bytes));
        return bytes;
}

static uint64_t touch_now(struct table_pages *t, uint64_t first, uint64_t last) {
        uint64_t bytes = touch(t, first, last);

        table_pages_commit(t);
        return bytes;
}

/* Levels of 4K tables: 2M, 1G, 512G, 256T, 128P; the next one would be the root of 64 bits. */
static void the_first_page_touches_a_table_of_each_level(void **state) {
        static const struct { uint64_t granule, levels; } kinds[] = { { 4096, 5 }, { 16384, 4 }, { 65536, 3 } };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
                struct table_pages t;
                uint64_t span = kinds[i].granule * kinds[i].granule / 8;

                table_pages_init(&t, kinds[i].granule);
                assert_int_equal(touch_now(&t, 0, 0), kinds[i].levels * kinds[i].granule);
                assert_int_equal(touch_now(&t, span - 1, span - 1), 0);
                assert_int_equal(touch_now(&t, span, span), kinds[i].granule);
                assert_int_equal(touch_now(&t, UINT64_MAX, UINT64_MAX), kinds[i].levels * kinds[i].granule);
                assert_int_equal(t.bytes, (2 * kinds[i].levels + 1) * kinds[i].granule);
                table_pages_clear(&t);
        }
}

/* What was seen of the kernel: 32768 pages at a stride of 2 MiB keep 128 MiB of tables. */
static void a_storm_at_a_stride_of_2_mib_is_charged_a_page_each(void **state) {
        struct table_pages t;
        uint64_t sum = 0;

        (void)state;
        table_pages_init(&t, PAGE);
        for (uint64_t i = 0; i < 32768; i++)
                sum += touch_now(&t, i * 2 * MIB, i * 2 * MIB + PAGE - 1);
        assert_int_equal(sum, t.bytes);
        assert_int_equal(sum, (32768 + 64 + 3) * PAGE);
        for (uint64_t i = 0; i < 32768; i++)
                assert_int_equal(touch_now(&t, i * 2 * MIB + MIB, i * 2 * MIB + MIB), 0);
        table_pages_clear(&t);
        assert_int_equal(t.bytes, 0);
}

static void the_whole_space_is_one_step(void **state) {
        struct table_pages t;

        (void)state;
        table_pages_init(&t, PAGE);
        assert_int_equal(touch_now(&t, 0, UINT64_MAX),
                         ((1ULL << 43) + (1ULL << 34) + (1ULL << 25) + (1ULL << 16) + (1ULL << 7)) * PAGE);
        assert_int_equal(touch_now(&t, 0, UINT64_MAX), 0);
        table_pages_clear(&t);
}

static void a_refused_batch_gives_back_what_it_added_and_no_more(void **state) {
        struct table_pages t;
        uint64_t before;

        (void)state;
        table_pages_init(&t, PAGE);
        touch_now(&t, 2 * MIB, 4 * MIB - 1);
        touch_now(&t, 8 * MIB, 10 * MIB - 1);
        before = t.bytes;
        assert_int_equal(touch(&t, 0, 12 * MIB - 1), 4 * PAGE);
        assert_int_equal(touch(&t, 0, 14 * MIB - 1), PAGE);
        table_pages_rollback(&t);
        assert_int_equal(t.bytes, before);
        /* and those that were there are there */
        assert_int_equal(touch_now(&t, 2 * MIB, 4 * MIB - 1), 0);
        assert_int_equal(touch_now(&t, 8 * MIB, 10 * MIB - 1), 0);
        assert_int_equal(touch_now(&t, 4 * MIB, 8 * MIB - 1), 2 * PAGE);
        table_pages_rollback(&t);               /* nothing is pending */
        assert_int_equal(t.bytes, before + 2 * PAGE);
        table_pages_clear(&t);
}

/* ---- at random: 4K tables, the lowest three levels in full, the rest is one table each ---- */

#define BLOCKS 2048U                    /* of 2 MiB: 4 GiB */
#define STEPS 4000U

static uint64_t seed;

static uint64_t below(uint64_t n) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return seed % n;
}

struct model {
        bool low[BLOCKS], gib[BLOCKS / 512];
        bool any;
};

static uint64_t model_bytes(const struct model *m) {
        uint64_t n = m->any ? 3 : 0;

        for (unsigned i = 0; i < BLOCKS; i++)
                n += m->low[i];
        for (unsigned i = 0; i < BLOCKS / 512; i++)
                n += m->gib[i];
        return n * PAGE;
}

static void model_touch(struct model *m, uint64_t first, uint64_t last) {
        for (uint64_t i = first / (2 * MIB); i <= last / (2 * MIB); i++)
                m->low[i] = m->gib[i / 512] = true;
        m->any = true;
}

static unsigned nodes(const struct model *m) {
        unsigned n = 0;

        for (unsigned i = 0; i < BLOCKS; i++)
                n += m->low[i] && (i == 0 || !m->low[i - 1]);
        return n;
}

/* How many runs the set has beyond one for each stretch: committed neighbours are joined. */
static unsigned surplus(const struct table_pages *t, const struct model *m) {
        unsigned gib = 0;

        for (unsigned i = 0; i < BLOCKS / 512; i++)
                gib += m->gib[i] && (i == 0 || !m->gib[i - 1]);
        return (unsigned)t->runs - nodes(m) - gib - (m->any ? 3 : 0);
}

static void random_batches_agree_with_tables_one_by_one(void **state) {
        const char *given = getenv("IOMMUD_TEST_SEED");
        struct model m = { .any = false }, tried;
        struct table_pages t;
        struct timespec now;

        (void)state;
        clock_gettime(CLOCK_REALTIME, &now);
        seed = (given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec << 20 ^ (uint64_t)now.tv_sec) | 1;
        print_message("IOMMUD_TEST_SEED=%" PRIu64 "\n", seed);
        table_pages_init(&t, PAGE);
        for (unsigned i = 0; i < STEPS; i++) {
                uint64_t n = 1 + below(5), base = i / 500 * (BLOCKS / 8);

                if (i % 500 == 0)       /* another life, in which much is not touched yet */
                        table_pages_clear(&t), memset(&m, 0, sizeof m);
                tried = m;
                for (uint64_t k = 0; k < n; k++) {
                        uint64_t first = (base + below(BLOCKS / 8)) * 2 * MIB + below(2 * MIB), before = model_bytes(&tried);
                        uint64_t last = first + below(below(3) ? 3 * MIB : 40 * MIB), end = BLOCKS * 2 * MIB - 1;

                        last = last < end ? last : end;
                        model_touch(&tried, first, last);
                        assert_int_equal(touch(&t, first, last), model_bytes(&tried) - before);
                }
                assert_int_equal(t.bytes, model_bytes(&tried));
                if (below(3) == 0)
                        table_pages_rollback(&t);
                else {
                        table_pages_commit(&t);
                        m = tried;
                }
                assert_int_equal(t.bytes, model_bytes(&m));
                assert_int_equal(surplus(&t, &m), 0);
        }
        table_pages_clear(&t);
}

static void records_cost_what_the_kernel_keeps(void **state) {
        (void)state;
        assert_int_equal(mapping_record_bytes(BACKEND_VFIO_TYPE1), 128);
        assert_int_equal(mapping_record_bytes(BACKEND_SOFT), 128);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_first_page_touches_a_table_of_each_level),
                cmocka_unit_test(a_storm_at_a_stride_of_2_mib_is_charged_a_page_each),
                cmocka_unit_test(the_whole_space_is_one_step),
                cmocka_unit_test(a_refused_batch_gives_back_what_it_added_and_no_more),
                cmocka_unit_test(random_batches_agree_with_tables_one_by_one),
                cmocka_unit_test(records_cost_what_the_kernel_keeps),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
