/* SPDX-License-Identifier: Apache-2.0 */
/* What a map makes. A refused intent undoes its own part: it does not cost the others of the transaction theirs. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_private.h"
#include "util/iova.h"

struct ledger_range *scratch_ranges(struct ledger *l, size_t n, struct refusal *r) {
        if (n > l->n_scratch) {
                struct ledger_range *p = reallocarray(l->scratch, n, sizeof *p);

                if (!p) {
                        (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory for a batch of %zu ranges.", n);
                        return NULL;
                }
                l->scratch = p;
                l->n_scratch = n;
        }
        return l->scratch;
}

static int refuse_overlap(struct refusal *r, size_t at, struct iova_range asked, struct iova_range there) {
        (void)refuse(r, REFUSAL_OVERLAP,
                     "The ledger's mapping at 0x%" PRIx64 "-0x%" PRIx64 " overlaps 0x%" PRIx64 "-0x%" PRIx64 ".",
                     there.first, there.last, asked.first, asked.last);
        r->element = (int32_t)at;
        r->conflict_first = there.first;
        r->conflict_last = there.last;
        return -1;
}

/* Mappings of a domain do not overlap each other, so only the last one that starts at or before the range's end can
 * reach into the range. 1: *ret does. */
static int find_overlap(struct ledger *l, uint64_t domain, struct iova_range range, struct iova_range *ret,
                        struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_MAPPING_BEFORE);
        int k;

        stmt_bits(&s, 1, domain);
        stmt_int64(&s, 2, address_encode(range.last));
        k = stmt_next(&s, r);
        if (k <= 0)
                return k;
        ret->first = address_decode(stmt_get_int64(&s, 0));
        ret->last = address_decode(stmt_get_int64(&s, 1));
        return iova_range_overlaps(range, *ret);
}

static struct iova_range mapping_range(const struct ledger_mapping *m) {
        return (struct iova_range){ m->iova, m->iova + m->length - 1 };
}

int compare_ranges(const void *a, const void *b) {
        const struct ledger_range *x = a, *y = b;

        return x->iova < y->iova ? -1 : x->iova > y->iova;
}

int check_unsorted(struct ledger_range *ranges, size_t n, struct refusal *r) {
        qsort(ranges, n, sizeof *ranges, compare_ranges);
        for (size_t i = 1; i < n; i++) {
                struct iova_range before = { ranges[i - 1].iova, ranges[i - 1].iova + ranges[i - 1].length - 1 };
                struct iova_range this = { ranges[i].iova, ranges[i].iova + ranges[i].length - 1 };

                if (iova_range_overlaps(before, this)) {
                        (void)refuse_overlap(r, 0, this, before);
                        r->element = -1;        /* the order of the request is gone */
                        return -1;
                }
        }
        return 0;
}

/* Checks each row by itself, copies its range, learns what the batch spans and whether it ascends without overlap. */
static int survey(const struct ledger_op *op, const struct ledger_mapping *rows, size_t n, struct ledger_range *ranges,
                  struct iova_range *ret_span, bool *ret_ascends, struct refusal *r) {
        struct iova_range span = { UINT64_MAX, 0 };
        bool ascends = true;

        for (size_t i = 0; i < n; i++) {
                struct iova_range range;

                if (rows[i].domain != op->object)
                        return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                                      "Mapping %zu is of another domain than its operation.", i);
                if (!iova_range_make(rows[i].iova, rows[i].length, &range)) {
                        (void)refuse(r, rows[i].length ? REFUSAL_RANGE_WRAPS : REFUSAL_ZERO_LENGTH,
                                     "Mapping %zu at 0x%" PRIx64 " of length 0x%" PRIx64 " is no range of addresses.",
                                     i, rows[i].iova, rows[i].length);
                        r->element = (int32_t)i;
                        return -1;
                }
                ascends = ascends && (i == 0 || range.first > span.last);
                if (range.first < span.first)
                        span.first = range.first;
                if (range.last > span.last)
                        span.last = range.last;
                ranges[i] = (struct ledger_range){ rows[i].iova, rows[i].length };
        }
        *ret_span = span;
        *ret_ascends = ascends;
        return 0;
}

/* One look for the whole batch where it goes into an empty stretch, which it nearly always does; else one per row. */
static int check_overlaps(struct ledger *l, uint64_t domain, const struct ledger_mapping *rows, size_t n,
                          struct iova_range span, struct refusal *r) {
        struct iova_range there;
        int k = find_overlap(l, domain, span, &there, r);

        for (size_t i = 0; i < n && k > 0; i++) {
                struct iova_range range = mapping_range(&rows[i]);

                k = find_overlap(l, domain, range, &there, r);
                if (k > 0)
                        return refuse_overlap(r, i, range, there);
                if (k == 0)
                        k = 1;          /* the span was not empty: look at the next row */
        }
        return k < 0 ? -1 : 0;
}

int count_memory(struct ledger *l, const struct ledger_mapping *rows, size_t n, int sign, size_t *ret_done,
                        struct refusal *r) {
        *ret_done = 0;
        for (size_t i = 0, run; i < n; i += run) {
                _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_MEMORY_COUNT);
                int64_t changed = 0;

                for (run = 1; i + run < n && rows[i + run].memory == rows[i].memory; run++)
                        ;
                stmt_bits(&s, 1, rows[i].memory);
                stmt_int64(&s, 2, sign * (int64_t)run);
                stmt_bits(&s, 3, rows[i].domain);
                if (stmt_run(&s, &changed, r) < 0)
                        return -1;
                if (changed != 1) {
                        (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                                     "Domain %" PRIu64 " has no session with memory %" PRIu64 ".", rows[i].domain,
                                     rows[i].memory);
                        r->element = (int32_t)i;
                        return -1;
                }
                *ret_done = i + run;
        }
        return 0;
}

int insert_mappings(struct ledger *l, const struct ledger_op *op, const struct ledger_mapping *rows, size_t n,
                           struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_MAPPING_INSERT);

        l->rows = (struct rows){ .mappings = rows, .n = n };
        stmt_bits(&s, 1, op->object);
        stmt_bits(&s, 2, op->id);
        return stmt_run(&s, NULL, r);   /* wholly or not at all: it is one statement */
}

int ledger_map_intend(struct ledger *l, const struct ledger_op *op, const struct ledger_mapping *rows, size_t n,
                      struct refusal *r) {
        struct ledger_range *ranges;
        struct iova_range span = { 0 };
        struct refusal ignored;
        size_t counted = 0, uncounted;
        bool ascends = false;

        if (state_in_transaction(l, r) < 0)
                return -1;
        if (n == 0)
                return op_insert(l, op, NULL, r);
        ranges = scratch_ranges(l, n, r);
        if (!ranges || survey(op, rows, n, ranges, &span, &ascends, r) < 0 ||
            (!ascends && check_unsorted(ranges, n, r) < 0) || check_overlaps(l, op->object, rows, n, span, r) < 0 ||
            op_insert(l, op, &(struct ledger_op_parts){ .ranges = ranges, .n_ranges = n }, r) < 0)
                return -1;
        if (count_memory(l, rows, n, 1, &counted, r) == 0 && insert_mappings(l, op, rows, n, r) == 0)
                return 0;
        (void)count_memory(l, rows, counted, -1, &uncounted, &ignored);
        (void)op_delete(l, op->id, &ignored);
        return -1;
}
