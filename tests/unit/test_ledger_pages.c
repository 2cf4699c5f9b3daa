/* SPDX-License-Identifier: Apache-2.0 */
/* I4: `ledger check` finds mappings that share an IOMMU page and do not agree on it, whatever their number, their order
 * and the sizes of their pages, and no others. */
/* link: db util */
#include "test_ledger_fixture.h"

#include <time.h>

static struct objects o;

static int make_sound(void **state) {
        struct ledger *l;

        if (make_directory(state) < 0)
                return -1;
        l = open_ledger();
        o = put_objects(l);
        ledger_close(l);
        return 0;
}

#define DOMAINS 400
#define FIRST_DOMAIN 1000

struct found {
        size_t n;
        bool domains[DOMAINS];
        char text[256];                 /* of the last one */
};

/* Of I4; the rows here are put in by hand, without regard to what memory counts. */
static void collect(const struct ledger_violation *v, void *arg) {
        struct found *f = arg;
        unsigned domain;

        if (strcmp(v->invariant, "I4") != 0)
                return;
        f->n++;
        (void)snprintf(f->text, sizeof f->text, "%s", v->text);
        if (sscanf(v->text, "In domain %u", &domain) == 1 && domain >= FIRST_DOMAIN && domain < FIRST_DOMAIN + DOMAINS)
                f->domains[domain - FIRST_DOMAIN] = true;
}

static struct found check(void) {
        struct found f = { 0 };
        uint64_t rows;

        OK(ledger_check_offline(dir, collect, &f, &rows, &r));
        return f;
}

struct row {
        uint64_t domain, first, last, memory, offset;
        unsigned page_shift;
};

static void insert(const struct row *rows, size_t n) {
        sqlite3 *db = NULL;
        sqlite3_stmt *s = NULL;

        assert_int_equal(sqlite3_open(in_dir("state.db"), &db), SQLITE_OK);
        assert_int_equal(sqlite3_exec(db, "BEGIN", NULL, NULL, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_prepare_v2(db, "INSERT INTO mapping VALUES (?1, ?2, ?3, ?4, ?5, 3, 9, 0, ?6)", -1, &s,
                                            NULL), SQLITE_OK);
        for (size_t i = 0; i < n; i++) {
                sqlite3_bind_int64(s, 1, (int64_t)rows[i].domain);
                sqlite3_bind_int64(s, 2, (int64_t)(rows[i].first ^ UINT64_C(1) << 63));
                sqlite3_bind_int64(s, 3, (int64_t)(rows[i].last ^ UINT64_C(1) << 63));
                sqlite3_bind_int64(s, 4, (int64_t)rows[i].memory);
                sqlite3_bind_int64(s, 5, (int64_t)rows[i].offset);
                sqlite3_bind_int64(s, 6, rows[i].page_shift);
                assert_int_equal(sqlite3_step(s), SQLITE_DONE);
                sqlite3_reset(s);
        }
        sqlite3_finalize(s);
        assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
        sqlite3_close(db);
}

static void expect(size_t n, const char *words) {
        struct found f = check();

        if (f.n != n || !strstr(f.text, words))
                fail_msg("expected %zu: %s, found %zu: %s", n, words, f.n, f.text);
}

static void test_both_ranges_are_named(void **state) {
        const struct row rows[] = { { 2, 0x10200, 0x103ff, 3, 0x200, 12 }, { 2, 0x10400, 0x10fff, 3, 0x2400, 12 } };

        (void)state;
        insert(rows, 2);
        expect(1, "In domain 2 the mappings 0x10200-0x103ff and 0x10400-0x10fff share an IOMMU page, but one shows "
                  "memory 3 at 0x200, the other memory 3 at 0x2400.");
}

static void test_other_memory(void **state) {
        const struct row rows[] = { { 2, 0x10200, 0x103ff, 3, 0x200, 12 }, { 2, 0x10400, 0x10fff, 7, 0x400, 12 } };

        (void)state;
        insert(rows, 2);
        expect(1, "one shows memory 3 at 0x200, the other memory 7 at 0x400");
}

static void test_what_agrees_or_shares_nothing(void **state) {
        const struct row rows[] = {
                { 2, 0x10200, 0x103ff, 3, 0x5200, 12 }, { 2, 0x10400, 0x113ff, 3, 0x5400, 12 },
                { 2, 0x12000, 0x12fff, 7, 0, 12 },      { 2, 0x13000, 0x13fff, 7, 0, 0 },       /* meet */
                { 2, UINT64_MAX - 0xff, UINT64_MAX, 3, 0xf00, 12 },     { 2, 0, 0xff, 7, 0, 12 },
                { 2, (UINT64_C(1) << 63) - 1, (UINT64_C(1) << 63) - 1, 3, 0xfff, 12 },
                { 2, UINT64_C(1) << 63, UINT64_C(1) << 63, 7, 0, 12 },
                { 5, 0x10200, 0x103ff, 7, 0x200, 12 },                  /* the same page of another domain */
        };

        (void)state;
        insert(rows, ARRAY_SIZE(rows));
        expect(0, "");
}

static void test_at_the_ends_of_addresses(void **state) {
        const struct row rows[] = {
                { 2, 0, 0xff, 3, 0, 12 },
                { 2, 0x100, 0x1ff, 3, 0x1100, 12 },
                { 2, UINT64_MAX - 0xff, UINT64_MAX - 0x80, 3, 0xf00, 12 },
                { 2, UINT64_MAX - 0xf, UINT64_MAX, 3, 0x1ff0, 12 },
        };

        (void)state;
        insert(rows, ARRAY_SIZE(rows));
        expect(2, "0xffffffffffffff00-0xffffffffffffff7f and 0xfffffffffffffff0-0xffffffffffffffff");
}

/* A page of 64 KiB reaches over neighbours with smaller pages, or that expose nothing: upwards and downwards. */
static void test_larger_page_beyond_a_neighbour(void **state) {
        const struct row up[] = { { 2, 0x10000, 0x100ff, 3, 0, 16 }, { 2, 0x11000, 0x110ff, 3, 0x1000, 12 },
                                  { 2, 0x12000, 0x12fff, 7, 0, 0 } };
        const struct row down[] = { { 5, 0x10000, 0x10fff, 7, 0, 0 }, { 5, 0x11000, 0x110ff, 3, 0x1000, 12 },
                                    { 5, 0x1ff00, 0x1ffff, 3, 0xff00, 16 } };

        (void)state;
        insert(up, 3);
        expect(1, "0x10000-0x100ff and 0x12000-0x12fff");
        insert(down, 3);
        expect(2, "0x10000-0x10fff and 0x1ff00-0x1ffff");
}

/* One byte of the page is enough. */
static void test_last_and_first_byte_of_a_page(void **state) {
        const struct row up[] = { { 2, 0x10000, 0x100ff, 3, 0, 12 }, { 2, 0x10fff, 0x11fff, 7, 0, 0 } };
        const struct row down[] = { { 5, 0x10000, 0x10000, 7, 0, 0 }, { 5, 0x10f00, 0x10fff, 3, 0xf00, 12 } };

        (void)state;
        insert(up, 2);
        expect(1, "0x10000-0x100ff and 0x10fff-0x11fff");
        insert(down, 2);
        expect(2, "0x10000-0x10000 and 0x10f00-0x10fff");
}

static void test_begins_at_another_place_of_its_page(void **state) {
        const struct row rows[] = {
                { 2, 0x10200, 0x103ff, 3, 0x5200, 12 },
                { 2, 0x20200, 0x203ff, 3, 0x5201, 12 },
                { 2, 0x31000, 0x310ff, 3, 0x2000, 16 },
                { 2, 0x40200, 0x403ff, 3, 0x5201, 0 },          /* exposes nothing */
                { 2, UINT64_MAX, UINT64_MAX, 3, INT64_MAX, 62 },
        };

        (void)state;
        insert(rows, ARRAY_SIZE(rows));
        expect(2, "in domain 2 exposes IOMMU pages of 2^16 bytes, but begins at another place of one than its offset "
                  "0x2000 does");
}

static uint64_t seed;

static uint64_t next_random(uint64_t below) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (seed >> 33) % below;
}

/* Up to six mappings of one domain that overlap nowhere, mostly of one memory at one distance. */
static size_t random_rows(uint64_t domain, struct row *rows) {
        static const unsigned shifts[] = { 0, 12, 12, 12, 13, 14 };
        size_t n = 0;

        for (uint64_t at = next_random(0x2000); at < 0xf000 && n < 6; n++) {
                uint64_t length = next_random(8) ? 1 + next_random(0x1800) : 0x1000;

                rows[n] = (struct row){ .domain = domain, .first = at, .last = at + length - 1, .memory = 3,
                                        .offset = at, .page_shift = shifts[next_random(ARRAY_SIZE(shifts))] };
                if (next_random(10) == 0)
                        rows[n].memory = 7;
                if (next_random(10) == 0)
                        rows[n].offset += 0x4000;
                at += length + (next_random(3) ? next_random(0x1000) : next_random(0x4000));
        }
        return n;
}

static bool share(const struct row *a, const struct row *b) {
        uint64_t page = UINT64_C(1) << a->page_shift;

        return b->last / page >= a->first / page && b->first / page <= a->last / page;
}

static bool disagree(const struct row *rows, size_t n) {
        for (size_t i = 0; i < n; i++)
                for (size_t k = 0; k < n; k++)
                        if (i != k && share(&rows[i], &rows[k]) &&
                            (rows[i].memory != rows[k].memory ||
                             rows[i].offset - rows[i].first != rows[k].offset - rows[k].first))
                                return true;
        return false;
}

/* Each pair compared with each other says the same. */
static void test_random(void **state) {
        static struct row rows[DOMAINS * 6];
        static bool expected[DOMAINS];
        size_t n = 0, bad = 0;
        struct found f;

        (void)state;
        for (size_t d = 0; d < DOMAINS; d++) {
                size_t k = random_rows(FIRST_DOMAIN + d, &rows[n]);

                expected[d] = disagree(&rows[n], k);
                bad += expected[d];
                n += k;
        }
        insert(rows, n);
        f = check();
        for (size_t d = 0; d < DOMAINS; d++)
                if (f.domains[d] != expected[d])
                        fail_msg("domain %zu: found %d, expected %d", FIRST_DOMAIN + d, f.domains[d], expected[d]);
        print_message("%zu mappings in %d domains, %zu of them disagree\n", n, DOMAINS, bad);
        assert_true(bad > DOMAINS / 10 && bad < DOMAINS * 9 / 10);      /* else it tested nothing */
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_sound, remove_directory)
        const char *given = getenv("IOMMUD_TEST_SEED");
        const struct CMUnitTest tests[] = {
                TEST(test_both_ranges_are_named),
                TEST(test_other_memory),
                TEST(test_what_agrees_or_shares_nothing),
                TEST(test_at_the_ends_of_addresses),
                TEST(test_larger_page_beyond_a_neighbour),
                TEST(test_last_and_first_byte_of_a_page),
                TEST(test_begins_at_another_place_of_its_page),
                TEST(test_random),
        };

        seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);
        print_message("IOMMUD_TEST_SEED=%llu\n", (unsigned long long)seed);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
