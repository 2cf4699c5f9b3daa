/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>

#include "check.h"
#include "ledger_private.h"

/*
 * An unsettled map has made its rows, and what an unsettled unmap takes away is there: as a row, or as a rest that an
 * earlier unsettled unmap is going to leave (a lazy domain's client goes on with what is left of a mapping before it is
 * cut in the kernel).
 */
#define INTENTS_SQL "SELECT id, object, kind, ranges FROM op WHERE settled = 0 AND ranges IS NOT NULL AND kind <> 13 ORDER BY id"
#define RESTS_SQL "SELECT id, object, rests FROM op WHERE settled = 0 AND rests IS NOT NULL"
#define MISSING_SQL                                                                                                    \
        "SELECT r.iova, r.last FROM ledger_rows r LEFT JOIN mapping m ON m.domain = ?1 AND m.iova = r.iova "           \
        "AND m.last = r.last AND (?2 = 0 OR m.op = ?2) WHERE m.domain IS NULL"

struct rest {
        uint64_t domain, first, last, op;
};

struct rests {
        size_t n;
        struct rest *at;                /* sorted */
};

static void rests_free(struct rests *rests) {
        free(rests->at);
}

static int compare_rests(const void *a, const void *b) {
        const struct rest *x = a, *y = b;

        if (x->domain != y->domain)
                return x->domain < y->domain ? -1 : 1;
        if (x->first != y->first)
                return x->first < y->first ? -1 : 1;
        if (x->last != y->last)
                return x->last < y->last ? -1 : 1;
        return x->op < y->op ? -1 : x->op > y->op;
}

/* The bytes of a blob, aligned; the caller's to free. */
static void *copy_blob(const struct stmt *s, int column, size_t *ret_size, struct refusal *r) {
        size_t size = (size_t)sqlite3_column_bytes(s->handle, column);
        void *copy = malloc(size + 1);

        if (!copy) {
                (void)refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory for the parts of an operation.");
                return NULL;
        }
        *ret_size = stmt_get_blob(s, column, copy, size);
        return copy;
}

static int add_rests(struct rests *rests, const struct stmt *s, struct refusal *r) {
        size_t size = 0, n;
        _cleanup_free_ struct ledger_mapping *rows = copy_blob(s, 2, &size, r);
        struct rest *at;

        if (!rows)
                return -1;
        n = size / sizeof *rows;
        at = reallocarray(rests->at, rests->n + n, sizeof *at);
        if (!at)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory for %zu rests of mappings.", rests->n + n);
        rests->at = at;
        for (size_t i = 0; i < n; i++)
                at[rests->n++] = (struct rest){ stmt_get_bits(s, 1), rows[i].iova, rows[i].iova + rows[i].length - 1,
                                                stmt_get_bits(s, 0) };
        return 0;
}

static int read_rests(struct check *c, struct rests *ret, struct refusal *r) {
        _cleanup_once_ struct stmt s = { 0 };
        int k;

        if (db_prepare_one(&c->db, RESTS_SQL, &s, r) < 0)
                return -1;
        while ((k = stmt_next(&s, r)) > 0)
                if (add_rests(ret, &s, r) < 0)
                        return -1;
        if (ret->n > 0)
                qsort(ret->at, ret->n, sizeof *ret->at, compare_rests);
        return k;
}

/* Whether an earlier operation leaves exactly this. */
static bool is_rest(const struct rests *rests, const struct rest *wanted) {
        size_t low = 0, high = rests->n;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (compare_rests(&rests->at[middle], wanted) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low > 0 && rests->at[low - 1].domain == wanted->domain && rests->at[low - 1].first == wanted->first &&
               rests->at[low - 1].last == wanted->last;
}

/* One intent's ranges, which are c->rows, against the mappings. */
static int check_intent(struct check *c, struct stmt *missing, const struct rests *rests, uint64_t op, uint64_t domain,
                        bool is_map, struct refusal *r) {
        unsigned n = 0;
        int k;

        stmt_bits(missing, 1, domain);
        stmt_bits(missing, 2, is_map ? op : 0);
        while ((k = stmt_next(missing, r)) > 0 && n < VIOLATIONS_MAX) {
                struct rest range = { domain, address_decode(stmt_get_int64(missing, 0)),
                                      address_decode(stmt_get_int64(missing, 1)), op };

                if (!is_map && is_rest(rests, &range))
                        continue;
                check_report(c, "I6",
                             "Operation %" PRIu64 " is to %s 0x%" PRIx64 "-0x%" PRIx64 " in domain %" PRIu64
                             ", but there is no such mapping.",
                             op, is_map ? "map" : "unmap", range.first, range.last, domain);
                n++;
        }
        stmt_end(missing);
        return k < 0 ? -1 : 0;
}

int check_intents(struct check *c, struct refusal *r) {
        _cleanup_(rests_free) struct rests rests = { 0 };
        _cleanup_once_ struct stmt s = { 0 }, missing = { 0 };
        int k;

        if (read_rests(c, &rests, r) < 0 || db_prepare_one(&c->db, INTENTS_SQL, &s, r) < 0 ||
            db_prepare_one(&c->db, MISSING_SQL, &missing, r) < 0)
                return -1;
        while ((k = stmt_next(&s, r)) > 0) {
                size_t size = 0;
                _cleanup_free_ struct ledger_range *ranges = copy_blob(&s, 3, &size, r);

                if (!ranges)
                        return -1;
                c->rows = (struct rows){ .ranges = ranges, .n = size / sizeof *ranges };
                k = check_intent(c, &missing, &rests, stmt_get_bits(&s, 0), stmt_get_bits(&s, 1),
                                 stmt_get_int64(&s, 2) == LEDGER_OP_MAP, r);
                c->rows = (struct rows){ 0 };
                if (k < 0)
                        return -1;
        }
        return k;
}
