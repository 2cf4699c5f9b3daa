/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>

#include "check.h"
#include "ledger_private.h"

/*
 * A mapping with page_shift shows whole IOMMU pages, so whatever else lies in those shows the same: the same memory, at
 * the same distance of offset and IOVA. In the order of addresses it is enough to compare each mapping with the one
 * before it whose pages reach farthest: if it is within the reach of another one, that one is within the reach of the
 * farthest too, and has been compared with it. Then once more from above, for pages that reach downwards over mappings
 * whose own pages are smaller. SQL says the same with window functions, in seven times the time.
 */
#define ROWS_SQL(order)                                                                                                \
        "SELECT domain, iova, last, memory, offset, page_shift FROM mapping WHERE domain IN "                          \
        "(SELECT domain FROM mapping WHERE page_shift > 0) ORDER BY domain " order ", iova " order

struct exposed {
        uint64_t domain, first, last, memory, offset;
        uint64_t low, high;             /* with its pages */
};

static struct exposed read_row(const struct stmt *s) {
        struct exposed e = {
                .domain = stmt_get_bits(s, 0),
                .first = address_decode(stmt_get_int64(s, 1)),
                .last = address_decode(stmt_get_int64(s, 2)),
                .memory = stmt_get_bits(s, 3),
                .offset = stmt_get_bits(s, 4),
        };
        uint64_t in_page = (UINT64_C(1) << (stmt_get_u32(s, 5) & 63)) - 1;

        e.low = e.first & ~in_page;
        e.high = e.last | in_page;
        return e;
}

static bool agree(const struct exposed *a, const struct exposed *b) {
        return a->memory == b->memory && a->offset - a->first == b->offset - b->first;
}

static void report(const struct check *c, const struct exposed *a, const struct exposed *b) {
        check_report(c, "I4",
                     "In domain %" PRIu64 " the mappings 0x%" PRIx64 "-0x%" PRIx64 " and 0x%" PRIx64 "-0x%" PRIx64
                     " share an IOMMU page, but one shows memory %" PRIu64 " at 0x%" PRIx64
                     ", the other memory %" PRIu64 " at 0x%" PRIx64 ".",
                     a->domain, a->first, a->last, b->first, b->last, a->memory, a->offset, b->memory, b->offset);
}

static int walk_up(struct check *c, unsigned *n, struct refusal *r) {
        _cleanup_once_ struct stmt s = { 0 };
        struct exposed farthest = { 0 };        /* of no domain */
        int k;

        if (db_prepare_one(&c->db, ROWS_SQL("ASC"), &s, r) < 0)
                return -1;
        while ((k = stmt_next(&s, r)) > 0 && *n < VIOLATIONS_MAX) {
                struct exposed e = read_row(&s);

                if (e.domain == farthest.domain && e.first <= farthest.high && !agree(&e, &farthest)) {
                        report(c, &farthest, &e);
                        ++*n;
                }
                if (e.domain != farthest.domain || e.high > farthest.high)
                        farthest = e;
        }
        return k < 0 ? -1 : 0;
}

/* What the lower one of two reaches was found on the way up. */
static int walk_down(struct check *c, unsigned *n, struct refusal *r) {
        _cleanup_once_ struct stmt s = { 0 };
        struct exposed deepest = { 0 };
        int k;

        if (db_prepare_one(&c->db, ROWS_SQL("DESC"), &s, r) < 0)
                return -1;
        while ((k = stmt_next(&s, r)) > 0 && *n < VIOLATIONS_MAX) {
                struct exposed e = read_row(&s);

                if (e.domain == deepest.domain && e.last >= deepest.low && e.high < deepest.first &&
                    !agree(&e, &deepest)) {
                        report(c, &e, &deepest);
                        ++*n;
                }
                if (e.domain != deepest.domain || e.low < deepest.low)
                        deepest = e;
        }
        return k < 0 ? -1 : 0;
}

int check_pages(struct check *c, struct refusal *r) {
        unsigned n = 0;

        return walk_up(c, &n, r) < 0 || walk_down(c, &n, r) < 0 ? -1 : 0;
}
