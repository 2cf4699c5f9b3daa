/* SPDX-License-Identifier: Apache-2.0 */
/* What an unmap takes away, and what it leaves of the mappings that it cuts. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_private.h"
#include "util/iova.h"

/* The range among n, sorted and disjoint, that has all of the other in it, or NULL. */
static const struct ledger_range *find_around(const struct ledger_range *ranges, size_t n, struct iova_range inner) {
        size_t low = 0, high = n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (ranges[middle].iova <= inner.first)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low > 0 && inner.last - ranges[low - 1].iova < ranges[low - 1].length ? &ranges[low - 1] : NULL;
}

/* What the table would refuse later, when the operation is settled and it is too late. */
static int check_rest(struct ledger *l, const struct ledger_mapping *rest, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_MEMORY_FITS_DOMAIN);
        int k;

        if (rest->access < 1 || rest->access > 3 || rest->offset > INT64_MAX || rest->chunk_shift > 63 ||
            rest->page_shift > 63 || (rest->chunk_shift > 0 && rest->chunk_shift < 12) ||
            (rest->page_shift > 0 && (rest->page_shift < 12 || rest->chunk_shift > 0)))
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "What stays at 0x%" PRIx64 " is no mapping: access %u, offset 0x%" PRIx64
                              ", chunks 2^%u, pages 2^%u.",
                              rest->iova, rest->access, rest->offset, rest->chunk_shift, rest->page_shift);
        stmt_bits(&s, 1, rest->memory);
        stmt_bits(&s, 2, rest->domain);
        k = stmt_next(&s, r);
        if (k == 0)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "Domain %" PRIu64 " has no session with memory %" PRIu64 ".", rest->domain, rest->memory);
        return k < 0 ? -1 : 0;
}

/* Each rest is inside one of the ranges that go and overlaps no other; their addresses go into ret, sorted. ranges is
 * sorted by this. */
static int check_rests(struct ledger *l, struct ledger_range *ranges, size_t n, const struct ledger_mapping *rests,
                       size_t n_rests, struct ledger_range *ret, struct refusal *r) {
        qsort(ranges, n, sizeof *ranges, compare_ranges);
        for (size_t i = 0; i < n_rests; i++) {
                struct iova_range range;

                if (!iova_range_make(rests[i].iova, rests[i].length, &range) || !find_around(ranges, n, range))
                        return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                                      "What stays at 0x%" PRIx64 " of length 0x%" PRIx64
                                      " is in none of the mappings that are unmapped.",
                                      rests[i].iova, rests[i].length);
                if (check_rest(l, &rests[i], r) < 0)
                        return -1;
                ret[i] = (struct ledger_range){ rests[i].iova, rests[i].length };
        }
        return check_unsorted(ret, n_rests, r);
}

/* Field by field: what is between them goes into the file too, and is anything in the caller's. */
static struct ledger_mapping *copy_rests(const struct ledger_op *op, const struct ledger_mapping *rests, size_t n) {
        struct ledger_mapping *copy = calloc(n, sizeof *copy);

        for (size_t i = 0; copy && i < n; i++) {
                copy[i].domain = op->object;
                copy[i].iova = rests[i].iova;
                copy[i].length = rests[i].length;
                copy[i].memory = rests[i].memory;
                copy[i].offset = rests[i].offset;
                copy[i].op = op->id;
                copy[i].access = rests[i].access;
                copy[i].chunk_shift = rests[i].chunk_shift;
                copy[i].page_shift = rests[i].page_shift;
        }
        return copy;
}

int ledger_unmap_intend(struct ledger *l, const struct ledger_op *op, const struct ledger_range *rows, size_t n,
                        const struct ledger_mapping *rests, size_t n_rests, struct refusal *r) {
        struct ledger_op_parts parts = { .ranges = rows, .n_ranges = n, .n_rests = n_rests };
        _cleanup_free_ struct ledger_mapping *copy = NULL;
        struct ledger_range *scratch;

        if (state_in_transaction(l, r) < 0)
                return -1;
        if (n_rests == 0)
                return op_insert(l, op, &parts, r);
        copy = copy_rests(op, rests, n_rests);
        if (!copy)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory for %zu rests of mappings.", n_rests);
        scratch = scratch_ranges(l, n + n_rests, r);
        if (!scratch)
                return -1;
        if (n > 0)
                memcpy(scratch, rows, n * sizeof *rows);
        if (check_rests(l, scratch, n, copy, n_rests, scratch + n, r) < 0)
                return -1;
        parts.rests = copy;
        return op_insert(l, op, &parts, r);
}

static int uncount(struct ledger *l, uint64_t memory, int64_t n, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_MEMORY_UNCOUNT);

        if (n == 0)
                return 0;
        stmt_bits(&s, 1, memory);
        stmt_int64(&s, 2, n);
        return stmt_run(&s, NULL, r);
}

/* Takes the mappings that l->rows describes out of their objects' counts, one update per run of the same object. */
static int uncount_rows(struct ledger *l, uint64_t domain, uint64_t only_of_op, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_MEMORY_OF_ROWS);
        uint64_t memory = 0;
        int64_t run = 0;
        int k;

        stmt_bits(&s, 1, domain);
        stmt_bits(&s, 2, only_of_op);
        while ((k = stmt_next(&s, r)) > 0) {
                if (stmt_get_bits(&s, 0) != memory) {
                        if (uncount(l, memory, run, r) < 0)
                                return -1;
                        memory = stmt_get_bits(&s, 0);
                        run = 0;
                }
                run++;
        }
        return k < 0 ? -1 : uncount(l, memory, run, r);
}

static int delete_rows(struct ledger *l, uint64_t domain, uint64_t only_of_op, struct refusal *r) {
        for (size_t i = 0; i < l->rows.n; i++) {
                _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_MAPPING_DELETE_RANGE);
                const struct ledger_range *range = &l->rows.ranges[i];

                stmt_bits(&s, 1, domain);
                stmt_int64(&s, 2, address_encode(range->iova));
                stmt_int64(&s, 3, address_encode(range->iova + range->length - 1));
                stmt_bits(&s, 4, only_of_op);
                if (stmt_run(&s, NULL, r) < 0)
                        return -1;
        }
        return 0;
}

/* What an unsettled op has recorded, copied: sqlite's bytes are gone with the statement, and not aligned for us. ranges
 * is the ledger's scratch, rests the caller's to free. */
struct recorded {
        size_t n, n_rests;
        struct ledger_range *ranges;
        struct ledger_mapping *rests;
};

static int read_recorded(struct ledger *l, uint64_t op, struct recorded *ret, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_OP_PARTS);
        int k;

        *ret = (struct recorded){ 0 };
        stmt_bits(&s, 1, op);
        k = stmt_next(&s, r);
        if (k <= 0)
                return k;               /* settled before, or gone with its session */
        ret->n = (size_t)sqlite3_column_bytes(s.handle, 0) / sizeof *ret->ranges;
        ret->n_rests = (size_t)sqlite3_column_bytes(s.handle, 1) / sizeof *ret->rests;
        if (ret->n == 0)
                return 0;
        ret->ranges = scratch_ranges(l, ret->n, r);
        if (!ret->ranges)
                return -1;
        (void)stmt_get_blob(&s, 0, ret->ranges, ret->n * sizeof *ret->ranges);
        if (ret->n_rests == 0)
                return 0;
        ret->rests = calloc(ret->n_rests, sizeof *ret->rests);
        if (!ret->rests)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory for %zu rests of mappings.", ret->n_rests);
        (void)stmt_get_blob(&s, 1, ret->rests, ret->n_rests * sizeof *ret->rests);
        return 0;
}

int mappings_replace_recorded(struct ledger *l, const struct ledger_op *op, struct refusal *r) {
        uint64_t only_of_op = op->kind == LEDGER_OP_MAP ? op->id : 0;
        _cleanup_free_ struct ledger_mapping *rests = NULL;
        struct recorded recorded;
        size_t counted;
        int k;

        k = read_recorded(l, op->id, &recorded, r);
        rests = recorded.rests;
        if (k < 0 || recorded.n == 0)
                return k;
        l->rows = (struct rows){ .ranges = recorded.ranges, .n = recorded.n };
        if (uncount_rows(l, op->object, only_of_op, r) < 0 || delete_rows(l, op->object, only_of_op, r) < 0)
                return -1;
        if (recorded.n_rests == 0)
                return 0;
        if (count_memory(l, rests, recorded.n_rests, 1, &counted, r) < 0)
                return -1;
        return insert_mappings(l, op, rests, recorded.n_rests, r);
}

int ledger_mapping_delete(struct ledger *l, uint64_t domain, uint64_t iova, struct refusal *r) {
        struct stmt s = db_stmt(&l->state, STMT_MAPPING_DELETE);
        struct ledger_mapping row = { .domain = domain, .iova = iova };
        size_t done;
        int k;

        if (state_in_transaction(l, r) < 0)
                return -1;
        stmt_bits(&s, 1, domain);
        stmt_int64(&s, 2, address_encode(iova));
        k = stmt_next(&s, r);
        if (k > 0)
                row.memory = stmt_get_bits(&s, 0);
        if (k > 0 && stmt_next(&s, r) < 0)      /* a statement with RETURNING is done after its last row */
                k = -1;
        stmt_end(&s);
        return k <= 0 ? k : count_memory(l, &row, 1, -1, &done, r);
}
