/* SPDX-License-Identifier: Apache-2.0 */
/* Operations: what was intended, and how it ended. What they do to mappings is in ledger_map.c and ledger_unmap.c. */
#include <inttypes.h>

#include "ledger_private.h"

#define OPS_KEPT 1024           /* settled ops with a key, per session */
#define OPS_PRUNE_EVERY 256     /* settled ops, on average */

/* What is stored as it is in memory. The schema knows the sizes: a layout that changes needs a migration. */
_Static_assert(sizeof(struct ledger_range) == 16, "op_ranges_whole");
_Static_assert(sizeof(struct ledger_effect) == 80, "op_effect_80_bytes");
_Static_assert(sizeof(struct ledger_mapping) == 64, "op_rests_whole");

static int refuse_key(struct ledger *l, const struct ledger_op *op, struct refusal *r) {
        if (sqlite3_extended_errcode(l->state.handle) == SQLITE_CONSTRAINT_UNIQUE)
                return refuse(r, REFUSAL_KEY_REUSED, "Session %" PRIu64 " has used this request key before.",
                              op->session);
        return -1;
}

static int check_answer(const struct ledger_op *op, struct refusal *r) {
        if (op->answer_size > LEDGER_ANSWER_MAX)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "An answer of %u bytes is more than the ledger keeps (%u).", op->answer_size,
                              LEDGER_ANSWER_MAX);
        return 0;
}

/* Nothing is NULL. */
static void bind_array(struct stmt *s, int at, const void *data, size_t size) {
        size > 0 ? stmt_blob(s, at, data, size) : stmt_null(s, at);
}

int op_insert(struct ledger *l, const struct ledger_op *op, const struct ledger_op_parts *parts, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_OP_INSERT);
        static const struct ledger_op_parts none;

        if (check_answer(op, r) < 0)
                return -1;
        if (!parts)
                parts = &none;
        stmt_bits(&s, 1, op->id);
        stmt_bits(&s, 2, op->session);
        stmt_bits(&s, 3, op->object);
        stmt_int64(&s, 4, op->kind);
        op->has_key ? stmt_blob(&s, 5, op->key, sizeof op->key) : stmt_null(&s, 5);
        stmt_bits(&s, 6, op->request_hash);
        bind_array(&s, 7, op->answer, op->answer_size);         /* a lazy unmap is answered before it is settled */
        bind_array(&s, 8, parts->ranges, parts->n_ranges * sizeof *parts->ranges);
        bind_array(&s, 9, &op->effect, op->has_effect ? sizeof op->effect : 0);
        bind_array(&s, 10, parts->rests, parts->n_rests * sizeof *parts->rests);
        return stmt_run(&s, NULL, r) == 0 ? 0 : refuse_key(l, op, r);
}

int op_delete(struct ledger *l, uint64_t id, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->state, STMT_OP_DELETE);

        stmt_bits(&s, 1, id);
        return stmt_run(&s, NULL, r);
}

int ledger_op_intend(struct ledger *l, const struct ledger_op *op, struct refusal *r) {
        if (state_in_transaction(l, r) < 0)
                return -1;
        return op_insert(l, op, NULL, r);
}

int ledger_unmap_many_intend(struct ledger *l, const struct ledger_op *op, const struct ledger_range *ranges, size_t n,
                             struct refusal *r) {
        const struct ledger_op_parts parts = { .ranges = ranges, .n_ranges = n };

        if (state_in_transaction(l, r) < 0)
                return -1;
        return op_insert(l, op, &parts, r);
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

        if (check_answer(op, r) < 0)
                return -1;
        stmt_bits(&s, 1, op->id);
        stmt_blob(&s, 2, op->answer, op->answer_size);
        return stmt_run(&s, NULL, r);
}

/* Whether the end of an operation changes mapping rows: of a map if it did not happen, of what unmaps if it did. */
static bool changes_rows(enum ledger_op_kind kind, bool applied) {
        switch (kind) {
        case LEDGER_OP_MAP:
                return !applied;
        case LEDGER_OP_UNMAP:
        case LEDGER_OP_UNMAP_LAZY:
        case LEDGER_OP_REMOVE_WINDOW:
        case LEDGER_OP_RESET_WINDOWS:
                return applied;
        default:
                return false;
        }
}

int ledger_op_settle(struct ledger *l, const struct ledger_op *op, bool applied, struct refusal *r) {
        if (state_in_transaction(l, r) < 0 ||
            (changes_rows(op->kind, applied) && mappings_replace_recorded(l, op, r) < 0))
                return -1;
        if (!op->has_key)
                return op_delete(l, op->id, r);
        if (remember_answer(l, op, r) < 0)
                return -1;
        return prune_sometimes(l, op->session, r);
}
