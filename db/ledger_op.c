/* SPDX-License-Identifier: Apache-2.0 */
/* Operations: what was intended, and how it ended. Every function here undoes its own part when it fails, so that one
 * refused intent does not cost the others of the transaction theirs. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ledger_private.h"
#include "util/iova.h"

#define OPS_KEPT 1024           /* settled ops with a key, per session */
#define OPS_PRUNE_EVERY 256     /* settled ops, on average */

static int refuse_key(struct ledger *l, const struct ledger_op *op, struct refusal *r) {
        if (sqlite3_extended_errcode(l->state.handle) == SQLITE_CONSTRAINT_UNIQUE)
                return refuse(r, REFUSAL_KEY_REUSED, "Session %" PRIu64 " has used this request key before.",
                              op->session);
        return -1;
}

static int insert_op(struct ledger *l, const struct ledger_op *op, const struct ledger_range *ranges, size_t n,
                     struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_OP_INSERT);

        stmt_bits(&s, 1, op->id);
        stmt_bits(&s, 2, op->session);
        stmt_bits(&s, 3, op->object);
        stmt_int64(&s, 4, op->kind);
        op->has_key ? stmt_blob(&s, 5, op->key, sizeof op->key) : stmt_null(&s, 5);
        stmt_bits(&s, 6, op->request_hash);
        n > 0 ? stmt_blob(&s, 7, ranges, n * sizeof *ranges) : stmt_null(&s, 7);
        return stmt_run(&s, NULL, r) == 0 ? 0 : refuse_key(l, op, r);
}

static int delete_op(struct ledger *l, uint64_t id, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_OP_DELETE);

        stmt_bits(&s, 1, id);
        return stmt_run(&s, NULL, r);
}

int ledger_op_intend(struct ledger *l, const struct ledger_op *op, struct refusal *r) {
        if (state_in_transaction(l, r) < 0)
                return -1;
        return insert_op(l, op, NULL, 0, r);
}

/* Room for n ranges that stays for the next call. */
static struct ledger_range *scratch_ranges(struct ledger *l, size_t n, struct refusal *r) {
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

static int compare_ranges(const void *a, const void *b) {
        const struct ledger_range *x = a, *y = b;

        return x->iova < y->iova ? -1 : x->iova > y->iova;
}

/* Rows that do not ascend are sorted (in the scratch ranges) to find overlaps among themselves. */
static int check_unsorted(struct ledger_range *ranges, size_t n, struct refusal *r) {
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

/* Counts rows into their memory objects, or out again (sign -1), one update for each run of the same object. An object
 * that is not there, or of another session than the domain's, is refused. */
static int count_memory(struct ledger *l, const struct ledger_mapping *rows, size_t n, int sign, size_t *ret_done,
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

static int insert_mappings(struct ledger *l, const struct ledger_op *op, const struct ledger_mapping *rows, size_t n,
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
                return insert_op(l, op, NULL, 0, r);
        ranges = scratch_ranges(l, n, r);
        if (!ranges || survey(op, rows, n, ranges, &span, &ascends, r) < 0 ||
            (!ascends && check_unsorted(ranges, n, r) < 0) || check_overlaps(l, op->object, rows, n, span, r) < 0 ||
            insert_op(l, op, ranges, n, r) < 0)
                return -1;
        if (count_memory(l, rows, n, 1, &counted, r) == 0 && insert_mappings(l, op, rows, n, r) == 0)
                return 0;
        (void)count_memory(l, rows, counted, -1, &uncounted, &ignored);
        (void)delete_op(l, op->id, &ignored);
        return -1;
}

int ledger_unmap_intend(struct ledger *l, const struct ledger_op *op, const struct ledger_range *rows, size_t n,
                        struct refusal *r) {
        if (state_in_transaction(l, r) < 0)
                return -1;
        return insert_op(l, op, rows, n, r);
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

/* Deletes the mappings at the ranges that the op recorded; a MAP that did not happen only those that it made itself. */
static int delete_recorded(struct ledger *l, const struct ledger_op *op, struct refusal *r) {
        uint64_t only_of_op = op->kind == LEDGER_OP_MAP ? op->id : 0;
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_OP_RANGES);
        const void *blob;
        int k;

        stmt_bits(&s, 1, op->id);
        k = stmt_next(&s, r);
        if (k <= 0)
                return k;               /* settled before, or gone with its session */
        blob = sqlite3_column_blob(s.handle, 0);
        l->rows = (struct rows){ .n = (size_t)sqlite3_column_bytes(s.handle, 0) / sizeof(struct ledger_range) };
        if (l->rows.n == 0)
                return 0;
        /* The bytes are sqlite's until the statement ends, and not aligned for us. */
        l->rows.ranges = scratch_ranges(l, l->rows.n, r);
        if (!l->rows.ranges)
                return -1;
        memcpy(l->scratch, blob, l->rows.n * sizeof(struct ledger_range));
        if (uncount_rows(l, op->object, only_of_op, r) < 0)
                return -1;
        return delete_rows(l, op->object, only_of_op, r);
}

/* At random, so that no pattern of sessions escapes it: a session is pruned once in OPS_PRUNE_EVERY of its own settled
 * ops on average. Not every time: it looks at all ops of the session. */
static int prune_sometimes(struct ledger *l, uint64_t session, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_OP_PRUNE);

        l->prune_random = l->prune_random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        if ((l->prune_random >> 33) % OPS_PRUNE_EVERY != 0)
                return 0;
        stmt_bits(&s, 1, session);
        stmt_int64(&s, 2, OPS_KEPT);
        return stmt_run(&s, NULL, r);
}

static int remember_answer(struct ledger *l, const struct ledger_op *op, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_OP_SETTLE);

        if (op->answer_size > LEDGER_ANSWER_MAX)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "An answer of %u bytes is more than the ledger keeps (%u).", op->answer_size,
                              LEDGER_ANSWER_MAX);
        stmt_bits(&s, 1, op->id);
        stmt_blob(&s, 2, op->answer, op->answer_size);
        return stmt_run(&s, NULL, r);
}

int ledger_op_settle(struct ledger *l, const struct ledger_op *op, bool applied, struct refusal *r) {
        bool drops_rows = op->kind == LEDGER_OP_MAP ? !applied : op->kind == LEDGER_OP_UNMAP && applied;

        if (state_in_transaction(l, r) < 0 || (drops_rows && delete_recorded(l, op, r) < 0))
                return -1;
        if (!op->has_key)
                return delete_op(l, op->id, r);
        if (remember_answer(l, op, r) < 0)
                return -1;
        return prune_sometimes(l, op->session, r);
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
