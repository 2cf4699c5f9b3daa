/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker util */
/*
 * Pages of a sealed file are locked once however many ranges reach them: the set of runs, and the account on top of it, against
 * a plain array of counters. IOMMUD_TEST_SEED replays a run.
 */
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

#include "core/quota.h"
#include "util/cleanup.h"

#define PAGES 96U
#define FILES 3U
#define RANGES 48U
#define STEPS 30000U

static const uint64_t page_sizes[FILES] = { 4096, 4096, 2U << 20 };

static uint64_t seed;

static uint64_t below(uint64_t n) {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        return seed % n;
}

static void begin_seed(void) {
        const char *given = getenv("IOMMUD_TEST_SEED");
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_nsec << 20 ^ (uint64_t)now.tv_sec;
        seed |= 1;
        print_message("IOMMUD_TEST_SEED=%" PRIu64 "\n", seed);
}

static void account(struct quota_account *a, uint64_t locked) {
        uint64_t limits[_RESOURCE_N];

        for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
                limits[i] = UINT64_MAX;
        limits[RESOURCE_LOCKED_BYTES] = locked;
        quota_account_init(a, "alpha");
        quota_account_set_limits(a, limits);
}

static uint64_t used(struct quota_account *a, enum resource what) {
        uint64_t limit[_RESOURCE_N], have[_RESOURCE_N];

        quota_account_read(a, limit, have);
        return have[what];
}

static uint64_t locked(struct quota_account *a) {
        return used(a, RESOURCE_LOCKED_BYTES);
}

/* ---- by hand ---- */

static void a_page_is_charged_once_whatever_reaches_it(void **state) {
        struct quota_amounts charged, mapping = { .of[RESOURCE_MAPPINGS] = 1 };
        struct quota_account a;
        struct refusal r;

        (void)state;
        account(&a, 4 * 4096);
        struct locked_file *f = locked_file_ref(&a, 1, 2, 4096), *same = locked_file_ref(&a, 1, 2, 4096);
        struct locked_file *other = locked_file_ref(&a, 1, 3, 4096), *elsewhere = locked_file_ref(&a, 2, 2, 4096);
        const struct locked_run first = { f, 0, 2 * 4096 }, again = { same, 0, 2 * 4096 }, half = { f, 4096, 2 * 4096 };
        const struct locked_run two[] = { { other, 0, 1 }, { elsewhere, 0, 1 } };

        assert_ptr_equal(f, same);
        assert_ptr_not_equal(f, other);
        assert_ptr_not_equal(f, elsewhere);
        assert_int_equal(quota_charge_runs(&a, &first, 1, &mapping, &charged, &r), 0);
        assert_int_equal(charged.of[RESOURCE_LOCKED_BYTES], 2 * 4096);
        assert_int_equal(charged.of[RESOURCE_MAPPINGS], 1);
        assert_int_equal(quota_charge_runs(&a, &again, 1, &mapping, &charged, &r), 0);
        assert_int_equal(charged.of[RESOURCE_LOCKED_BYTES], 0);
        assert_int_equal(quota_charge_runs(&a, &half, 1, &mapping, NULL, &r), 0);
        assert_int_equal(locked(&a), 3 * 4096);
        assert_int_equal(used(&a, RESOURCE_MAPPINGS), 3);
        /* two pages more are one too many: neither of the two, nor the mapping, is charged */
        assert_int_equal(quota_charge_runs(&a, two, 2, &mapping, &charged, &r), -1);
        assert_int_equal(r.reason, REFUSAL_QUOTA_EXCEEDED);
        assert_int_equal(r.resource, RESOURCE_LOCKED_BYTES);
        assert_int_equal(r.asked, 2 * 4096);
        assert_int_equal(r.used, 3 * 4096);
        assert_int_equal(locked(&a), 3 * 4096);
        assert_int_equal(used(&a, RESOURCE_MAPPINGS), 3);
        quota_refund_runs(&a, &first, 1, &mapping);
        assert_int_equal(locked(&a), 3 * 4096);         /* the second mapping holds both of its pages */
        quota_refund_runs(&a, &again, 1, &mapping);
        assert_int_equal(locked(&a), 2 * 4096);
        quota_refund_runs(&a, &half, 1, &mapping);
        assert_int_equal(locked(&a), 0);
        assert_int_equal(used(&a, RESOURCE_MAPPINGS), 0);
        assert_int_equal(a.locked.in_use, 0);
        assert_int_equal(a.locked.nodes, 0);            /* nothing is kept for later */
        locked_file_unref(&a, f);
        locked_file_unref(&a, same);
        locked_file_unref(&a, other);
        locked_file_unref(&a, elsewhere);
        assert_null(a.locked.files);
        quota_account_clear(&a);
}

static void a_refusal_by_another_resource_takes_the_pages_back(void **state) {
        struct quota_amounts mapping = { .of[RESOURCE_MAPPINGS] = 1 };
        uint64_t limits[_RESOURCE_N] = { [RESOURCE_LOCKED_BYTES] = UINT64_MAX };
        struct quota_account a;
        struct refusal r;

        (void)state;
        account(&a, UINT64_MAX);
        quota_account_set_limits(&a, limits);
        const struct locked_run run = { locked_file_ref(&a, 1, 2, 4096), 0, 4096 };
        assert_int_equal(quota_charge_runs(&a, &run, 1, &mapping, NULL, &r), -1);
        assert_int_equal(r.resource, RESOURCE_MAPPINGS);
        assert_int_equal(locked(&a), 0);
        assert_int_equal(a.locked.bytes, 0);
        assert_int_equal(a.locked.in_use, 0);
        assert_int_equal(a.locked.ranges, 0);
        quota_account_clear(&a);
}

static void huge_pages_are_charged_whole(void **state) {
        const uint64_t huge = 2U << 20;
        struct quota_account a;
        struct refusal r;

        (void)state;
        account(&a, 2 * huge);
        struct locked_file *f = locked_file_ref(&a, 1, 2, huge);
        const struct locked_run byte = { f, huge + 5, 1 }, border = { f, huge - 1, 2 }, third = { f, 2 * huge, 1 };

        assert_int_equal(quota_charge_runs(&a, &byte, 1, NULL, NULL, &r), 0);
        assert_int_equal(locked(&a), huge);
        assert_int_equal(quota_charge_runs(&a, &border, 1, NULL, NULL, &r), 0);
        assert_int_equal(locked(&a), 2 * huge);
        assert_int_equal(quota_charge_runs(&a, &third, 1, NULL, NULL, &r), -1);
        assert_int_equal(r.asked, huge);
        quota_refund_runs(&a, &byte, 1, NULL);
        assert_int_equal(locked(&a), 2 * huge);
        quota_refund_runs(&a, &border, 1, NULL);
        assert_int_equal(locked(&a), 0);
        quota_account_clear(&a);
}

static void unsealed_memory_is_charged_each_time(void **state) {
        const struct locked_run run = { NULL, 4096, 8192 };
        struct quota_account a;
        struct refusal r;

        (void)state;
        account(&a, 2 * 8192);
        assert_int_equal(quota_charge_runs(&a, &run, 1, NULL, NULL, &r), 0);
        assert_int_equal(quota_charge_runs(&a, &run, 1, NULL, NULL, &r), 0);
        assert_int_equal(locked(&a), 16384);
        assert_int_equal(quota_charge_runs(&a, &run, 1, NULL, NULL, &r), -1);
        quota_refund_runs(&a, &run, 1, NULL);
        quota_refund_runs(&a, &run, 1, NULL);
        assert_int_equal(locked(&a), 0);
        quota_account_clear(&a);
}

static void sums_that_do_not_fit_64_bits_are_refused(void **state) {
        struct quota_account a;
        struct refusal r;

        (void)state;
        account(&a, UINT64_MAX);
        struct locked_file *f = locked_file_ref(&a, 1, 2, 4096);
        const struct locked_run bad[] = { { f, UINT64_MAX - 100, 101 }, { f, UINT64_MAX - 1, 1 }, { f, UINT64_MAX, 2 },
                                          { f, 4096, 0 }, { NULL, 8, UINT64_MAX } };
        const struct locked_run pair[] = { { f, 0, 4096 }, { f, 0, 0 } };
        const struct locked_run big = { NULL, 0, UINT64_MAX - 4096 }, page = { f, 0, 4096 }, more = { f, 4096, 1 };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                assert_int_equal(quota_charge_runs(&a, &bad[i], 1, NULL, NULL, &r), -1);
                assert_false(quota_adopt_runs(&a, &bad[i], 1, NULL));
        }
        assert_int_equal(quota_charge_runs(&a, pair, 2, NULL, NULL, &r), -1);
        assert_int_equal(a.locked.bytes, 0);
        assert_int_equal(a.locked.ranges, 0);
        assert_int_equal(quota_charge_runs(&a, &big, 1, NULL, NULL, &r), 0);
        assert_int_equal(quota_charge_runs(&a, &page, 1, NULL, NULL, &r), 0);
        assert_int_equal(quota_charge_runs(&a, &more, 1, NULL, NULL, &r), -1);
        assert_int_equal(locked(&a), UINT64_MAX);
        quota_refund_runs(&a, &page, 1, NULL);
        quota_refund_runs(&a, &big, 1, NULL);
        assert_int_equal(locked(&a), 0);
        quota_account_clear(&a);
}

static void recovery_takes_over_pages_whatever_the_limit(void **state) {
        struct quota_amounts mapping = { .of[RESOURCE_MAPPINGS] = 1 };
        struct quota_account a;
        struct refusal r;

        (void)state;
        account(&a, 4096);
        const struct locked_run run = { locked_file_ref(&a, 1, 2, 4096), 0, 3 * 4096 }, part = { run.file, 0, 4096 };
        assert_true(quota_adopt_runs(&a, &run, 1, &mapping));
        assert_int_equal(locked(&a), 3 * 4096);
        /* what is locked already costs nothing, also above the limit */
        assert_int_equal(quota_charge_runs(&a, &part, 1, NULL, NULL, &r), 0);
        quota_refund_runs(&a, &part, 1, NULL);
        quota_refund_runs(&a, &run, 1, &mapping);
        assert_int_equal(locked(&a), 0);
        quota_account_clear(&a);
}

static void a_file_stays_while_pages_of_it_are_locked(void **state) {
        struct quota_account a;
        struct refusal r;

        (void)state;
        account(&a, UINT64_MAX);
        const struct locked_run run = { locked_file_ref(&a, 1, 2, 4096), 0, 4096 };
        assert_int_equal(quota_charge_runs(&a, &run, 1, NULL, NULL, &r), 0);
        locked_file_unref(&a, run.file);
        assert_ptr_equal(locked_file_ref(&a, 1, 2, 4096), run.file);
        assert_int_equal(a.locked.unreferenced, 0);
        locked_file_unref(&a, run.file);
        quota_refund_runs(&a, &run, 1, NULL);
        assert_null(a.locked.files);
        assert_int_equal(a.locked.unreferenced, 0);
        quota_account_clear(&a);
}

static void a_dry_run_answers_the_same_and_charges_nothing(void **state) {
        struct quota_account a, host;
        struct quota_amounts would;
        struct refusal r;

        (void)state;
        account(&a, 8 * 4096);
        account(&host, 4 * 4096);
        host.tenant = NULL;
        a.host = &host;
        const struct locked_run run = { locked_file_ref(&a, 1, 2, 4096), 0, 4 * 4096 }, more = { run.file, 4096, 4 * 4096 };
        assert_int_equal(quota_probe_runs(&a, &run, 1, NULL, &would, &r), 0);
        assert_int_equal(would.of[RESOURCE_LOCKED_BYTES], 4 * 4096);
        assert_int_equal(locked(&a) + locked(&host) + a.locked.bytes + a.locked.ranges, 0);
        assert_int_equal(quota_charge_runs(&a, &run, 1, NULL, NULL, &r), 0);
        assert_int_equal(quota_probe_runs(&a, &more, 1, NULL, &would, &r), -1);
        assert_int_equal(r.reason, REFUSAL_LIMIT_EXCEEDED);
        assert_int_equal(r.asked, 4096);
        assert_int_equal(quota_probe_runs(&a, &run, 1, NULL, &would, &r), 0);
        assert_int_equal(would.of[RESOURCE_LOCKED_BYTES], 0);
        quota_refund_runs(&a, &run, 1, NULL);
        assert_int_equal(locked(&a) + locked(&host) + a.locked.ranges, 0);
        quota_account_clear(&a);
        quota_account_clear(&host);
}

/* Runs that lie beside each other are one; taking every other one out of them again makes as many as there were ranges. */
static void refunds_need_no_more_room_than_was_reserved(void **state) {
        enum { N = 2000 };
        static struct locked_run runs[N];
        struct quota_account a;
        struct refusal r;
        size_t nodes;

        (void)state;
        account(&a, UINT64_MAX);
        for (uint64_t i = 0; i < N; i++)
                runs[i] = (struct locked_run){ .offset = i * 4096, .length = 4096 };
        runs[0].file = locked_file_ref(&a, 1, 2, 4096);
        for (size_t i = 0; i < N; i++) {
                runs[i].file = runs[0].file;
                assert_int_equal(quota_charge_runs(&a, &runs[i], 1, NULL, NULL, &r), 0);
        }
        assert_int_equal(a.locked.in_use, 1);
        nodes = a.locked.nodes;
        assert_true(nodes >= 2 * N);
        for (size_t i = 1; i < N; i += 2)
                quota_refund_runs(&a, &runs[i], 1, NULL);
        assert_int_equal(a.locked.in_use, N / 2);
        for (size_t i = 0; i < N; i += 2)
                quota_refund_runs(&a, &runs[i], 1, NULL);
        assert_int_equal(a.locked.nodes, 0);
        /* one whole range cut into single pages: what is reserved for the pieces is enough */
        runs[1].length = (N - 1) * 4096;
        assert_int_equal(quota_charge_runs(&a, &runs[1], 1, NULL, NULL, &r), 0);
        assert_int_equal(quota_reserve_runs(&a, N - 2, &r), 0);
        nodes = a.locked.nodes;
        runs[1].length = 4096;
        for (size_t i = 2; i < N; i += 2)
                quota_refund_runs(&a, &runs[i], 1, NULL);
        assert_int_equal(a.locked.in_use, N / 2);
        assert_int_equal(a.locked.nodes, nodes);
        for (size_t i = 1; i < N; i += 2)
                quota_refund_runs(&a, &runs[i], 1, NULL);
        assert_int_equal(locked(&a), 0);
        assert_int_equal(a.locked.ranges, 0);
        quota_account_clear(&a);
}

/* A mapping that begins and ends inside huge pages, cut inside another: the page at the cut stays with what stays. */
static void a_cut_inside_a_page_leaves_the_page_to_the_rest(void **state) {
        const uint64_t huge = 2U << 20, step = 4096;
        struct quota_account a;
        struct refusal r;

        (void)state;
        account(&a, UINT64_MAX);
        struct locked_file *f = locked_file_ref(&a, 1, 2, huge);
        const struct locked_run whole = { f, step, 3 * huge }, left = { f, step, huge }, right = { f, 2 * huge + step, huge };
        const struct locked_run both[] = { left, right };

        assert_int_equal(quota_charge_runs(&a, &whole, 1, NULL, NULL, &r), 0);
        assert_int_equal(locked(&a), 4 * huge);
        assert_int_equal(quota_reserve_runs(&a, 2, &r), 0);
        quota_replace_runs(&a, &whole, 1, both, 2);
        assert_int_equal(locked(&a), 4 * huge);
        quota_refund_runs(&a, &left, 1, NULL);
        assert_int_equal(locked(&a), 2 * huge);
        quota_refund_runs(&a, &right, 1, NULL);
        assert_int_equal(locked(&a), 0);
        assert_int_equal(a.locked.ranges, 0);
        quota_account_clear(&a);
}

/* ---- at random, against counters ---- */

struct model {
        uint64_t count[FILES][PAGES];
        uint64_t unsealed;
};

struct range {
        unsigned file;                  /* FILES: unsealed */
        uint64_t first, pages;          /* 0 pages: free */
};

static uint64_t model_bytes(const struct model *m) {
        uint64_t sum = m->unsealed;

        for (unsigned f = 0; f < FILES; f++)
                for (unsigned p = 0; p < PAGES; p++)
                        sum += m->count[f][p] ? page_sizes[f] : 0;
        return sum;
}

static void model_change(struct model *m, const struct range *r, bool add) {
        if (r->file == FILES)
                m->unsealed += (add ? r->pages : -r->pages) * 4096;
        else
                for (uint64_t p = r->first; p < r->first + r->pages; p++)
                        m->count[r->file][p] += add ? 1 : -1ULL;
}

/* Sealed: bytes somewhere within the outer pages, as sub-page mappings have them, unless it is to be exact. */
static struct locked_run run_of(const struct range *r, struct locked_file *const *files, bool ragged) {
        uint64_t size = r->file < FILES ? page_sizes[r->file] : 4096;
        struct locked_run run = { r->file < FILES ? files[r->file] : NULL, r->first * size, r->pages * size };

        if (ragged && run.file) {
                uint64_t cut = size / 2 - 1;

                run.offset += cut;
                run.length -= r->pages > 1 ? 2 * cut : cut;
        }
        return run;
}

static struct range random_range(void) {
        uint64_t first = below(PAGES);

        return (struct range){ .file = (unsigned)below(FILES + 1), .first = first, .pages = 1 + below(PAGES - first) };
}

struct life {
        struct quota_account a;
        struct model m;
        struct locked_file *files[FILES];
        struct range ranges[RANGES];
        bool ragged[RANGES];
        uint64_t live;
};

static unsigned free_slot(const struct life *l) {
        for (unsigned i = 0; i < RANGES; i++)
                if (l->ranges[i].pages == 0)
                        return i;
        return RANGES;
}

/* A batch of one to four; the limit decides over all of it. */
static void step_charge(struct life *l) {
        unsigned n = 1 + (unsigned)below(4), slots[4];
        const uint64_t limit = l->a.limit[RESOURCE_LOCKED_BYTES];
        uint64_t before = model_bytes(&l->m), after;
        struct quota_amounts one = { .of[RESOURCE_MAPPINGS] = 1 }, charged;
        struct locked_run runs[4];
        struct refusal r;

        for (unsigned i = 0; i < n; i++) {
                slots[i] = free_slot(l);
                if (slots[i] == RANGES) {
                        n = i;
                        break;
                }
                l->ranges[slots[i]] = random_range();
                l->ragged[slots[i]] = below(3) == 0;
                runs[i] = run_of(&l->ranges[slots[i]], l->files, l->ragged[slots[i]]);
                model_change(&l->m, &l->ranges[slots[i]], true);
        }
        after = model_bytes(&l->m);
        if (quota_charge_runs(&l->a, runs, n, &one, &charged, &r) == 0) {
                assert_true(after == before || after <= limit);
                assert_int_equal(charged.of[RESOURCE_LOCKED_BYTES], after - before);
                quota_refund(&l->a, &one);
                l->live += n;
                return;
        }
        assert_true(after > limit);
        assert_int_equal(r.reason, REFUSAL_QUOTA_EXCEEDED);
        assert_int_equal(r.used, before);
        assert_int_equal(r.asked, after - before);
        for (unsigned i = 0; i < n; i++) {
                model_change(&l->m, &l->ranges[slots[i]], false);
                l->ranges[slots[i]].pages = 0;
        }
}

static void step_refund(struct life *l) {
        unsigned i = (unsigned)below(RANGES);
        struct range *range = &l->ranges[i];
        struct locked_run run = run_of(range, l->files, l->ragged[i]);

        if (range->pages == 0)
                return;
        quota_refund_runs(&l->a, &run, 1, NULL);
        model_change(&l->m, range, false);
        range->pages = 0;
        l->live--;
}

/* Takes a piece out of a range: what is left of it is one or two ranges. */
static void step_cut(struct life *l) {
        unsigned i = (unsigned)below(RANGES), spare;
        struct range *range = &l->ranges[i], piece, right;
        struct locked_run run;
        struct refusal r;
        size_t pieces;

        if (range->pages < 2 || (spare = free_slot(l)) == RANGES)
                return;
        piece = *range;
        piece.first += below(range->pages);
        piece.pages = 1 + below(range->first + range->pages - piece.first);
        right = (struct range){ range->file, piece.first + piece.pages, range->first + range->pages - piece.first - piece.pages };
        pieces = 1U + (piece.first > range->first) + (right.pages > 0);
        assert_int_equal(quota_reserve_runs(&l->a, pieces - 1, &r), 0);
        run = run_of(&piece, l->files, false);
        quota_refund_runs(&l->a, &run, 1, NULL);
        model_change(&l->m, &piece, false);
        range->pages = piece.first - range->first;
        l->ranges[spare] = right;
        l->ragged[i] = l->ragged[spare] = false;
        l->live += pieces - 2;
}

static void check_life(struct life *l) {
        struct locked_set again;

        assert_int_equal(locked(&l->a), model_bytes(&l->m));
        assert_int_equal(l->a.locked.bytes, model_bytes(&l->m));
        assert_int_equal(l->a.locked.ranges, l->live);
        assert_true(l->a.locked.nodes >= 2 * l->a.locked.ranges);
        assert_true(l->live == 0 || l->a.locked.in_use <= 2 * l->live - 1);
        locked_set_init(&again);
        for (unsigned i = 0; i < RANGES; i++) {
                struct locked_run run = run_of(&l->ranges[i], l->files, l->ragged[i]);

                assert_true(l->ranges[i].pages == 0 || locked_set_recount(&again, &run));
        }
        assert_int_equal(again.bytes, l->a.locked.bytes);
        locked_set_clear(&again);
}

static void random_lives_agree_with_an_array_of_counters(void **state) {
        static struct life l;

        (void)state;
        begin_seed();
        account(&l.a, 120U << 20);
        for (unsigned f = 0; f < FILES; f++)
                assert_non_null(l.files[f] = locked_file_ref(&l.a, 7, f, page_sizes[f]));
        for (unsigned i = 0; i < STEPS; i++) {
                uint64_t what = below(10);

                what < 5 ? step_charge(&l) : what < 8 ? step_refund(&l) : step_cut(&l);
                check_life(&l);
        }
        for (unsigned i = 0; i < RANGES; i++) {
                struct locked_run run = run_of(&l.ranges[i], l.files, l.ragged[i]);

                if (l.ranges[i].pages > 0)
                        quota_refund_runs(&l.a, &run, 1, NULL);
        }
        assert_int_equal(locked(&l.a), 0);
        assert_int_equal(l.a.locked.nodes, 0);
        for (unsigned f = 0; f < FILES; f++)
                locked_file_unref(&l.a, l.files[f]);
        assert_null(l.a.locked.files);
        quota_account_clear(&l.a);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_page_is_charged_once_whatever_reaches_it),
                cmocka_unit_test(a_refusal_by_another_resource_takes_the_pages_back),
                cmocka_unit_test(huge_pages_are_charged_whole),
                cmocka_unit_test(unsealed_memory_is_charged_each_time),
                cmocka_unit_test(sums_that_do_not_fit_64_bits_are_refused),
                cmocka_unit_test(recovery_takes_over_pages_whatever_the_limit),
                cmocka_unit_test(a_file_stays_while_pages_of_it_are_locked),
                cmocka_unit_test(a_cut_inside_a_page_leaves_the_page_to_the_rest),
                cmocka_unit_test(a_dry_run_answers_the_same_and_charges_nothing),
                cmocka_unit_test(refunds_need_no_more_room_than_was_reserved),
                cmocka_unit_test(random_lives_agree_with_an_array_of_counters),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
