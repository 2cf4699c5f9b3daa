/* SPDX-License-Identifier: Apache-2.0 */
/* Reading state.db back at start. */
#include <string.h>

#include "ledger_private.h"

/* A loader called from within itself would restart the walk that it is in. */
static int walk_begin(struct stmt *s, struct refusal *r) {
        if (sqlite3_stmt_busy(s->handle))
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "A walk over the ledger was started inside the same walk.");
        return 0;
}

int ledger_sessions(struct ledger *l, int (*each)(const struct ledger_session *s, void *arg), void *arg,
                    struct refusal *r) {
        struct stmt q = db_stmt(&l->state, STMT_SESSIONS);
        int k;

        if (walk_begin(&q, r) < 0)
                return -1;
        while ((k = stmt_next(&q, r)) > 0) {
                struct ledger_session s = { .id = stmt_get_bits(&q, 0) };

                stmt_get_text(&q, 1, s.tenant, sizeof s.tenant);
                stmt_get_text(&q, 2, s.client_name, sizeof s.client_name);
                s.uid = stmt_get_u32(&q, 3);
                s.gid = stmt_get_u32(&q, 4);
                s.pid = stmt_get_u32(&q, 5);
                s.start_time = stmt_get_bits(&q, 6);
                s.holder_pid = stmt_get_u32(&q, 7);
                s.holder_uid = stmt_get_u32(&q, 8);
                s.holder_start_time = stmt_get_bits(&q, 9);
                (void)stmt_get_blob(&q, 10, s.token_hash, sizeof s.token_hash);
                (void)stmt_get_blob(&q, 11, s.secret_hash, sizeof s.secret_hash);
                s.state = (enum ledger_object_state)stmt_get_u32(&q, 12);
                k = each(&s, arg);
                if (k != 0)
                        break;
        }
        stmt_end(&q);
        return k;
}

int ledger_domains(struct ledger *l, uint64_t session, int (*each)(const struct ledger_domain *d, void *arg), void *arg,
                   struct refusal *r) {
        struct stmt q = db_stmt(&l->state, STMT_DOMAINS);
        int k;

        if (walk_begin(&q, r) < 0)
                return -1;
        stmt_bits(&q, 1, session);
        while ((k = stmt_next(&q, r)) > 0) {
                struct ledger_domain d = { .id = stmt_get_bits(&q, 0), .session = session };

                stmt_get_text(&q, 1, d.label, sizeof d.label);
                d.state = (enum ledger_object_state)stmt_get_u32(&q, 2);
                d.lazy = stmt_get_int64(&q, 3) != 0;
                k = each(&d, arg);
                if (k != 0)
                        break;
        }
        stmt_end(&q);
        return k;
}

int ledger_memories(struct ledger *l, uint64_t session, int (*each)(const struct ledger_memory *m, void *arg),
                    void *arg, struct refusal *r) {
        struct stmt q = db_stmt(&l->state, STMT_MEMORIES);
        int k;

        if (walk_begin(&q, r) < 0)
                return -1;
        stmt_bits(&q, 1, session);
        while ((k = stmt_next(&q, r)) > 0) {
                struct ledger_memory m = {
                        .id = stmt_get_bits(&q, 0),
                        .session = session,
                        .size = stmt_get_bits(&q, 1),
                        .page_size = stmt_get_bits(&q, 2),
                        .dev = stmt_get_bits(&q, 3),
                        .ino = stmt_get_bits(&q, 4),
                        .sealed = stmt_get_int64(&q, 5) != 0,
                        .writable = stmt_get_int64(&q, 6) != 0,
                        .state = (enum ledger_object_state)stmt_get_u32(&q, 7),
                };

                k = each(&m, arg);
                if (k != 0)
                        break;
        }
        stmt_end(&q);
        return k;
}

int ledger_attachments(struct ledger *l, uint64_t domain, int (*each)(const struct ledger_attachment *a, void *arg),
                       void *arg, struct refusal *r) {
        struct stmt q = db_stmt(&l->state, STMT_ATTACHMENTS);
        int k;

        if (walk_begin(&q, r) < 0)
                return -1;
        stmt_bits(&q, 1, domain);
        while ((k = stmt_next(&q, r)) > 0) {
                struct ledger_attachment a = { .id = stmt_get_bits(&q, 0), .domain = domain };

                stmt_get_text(&q, 1, a.device, sizeof a.device);
                a.group = stmt_get_u32(&q, 2);
                a.backend = stmt_get_u32(&q, 3);
                a.state = (enum ledger_object_state)stmt_get_u32(&q, 4);
                k = each(&a, arg);
                if (k != 0)
                        break;
        }
        stmt_end(&q);
        return k;
}

int ledger_windows(struct ledger *l, uint64_t domain, int (*each)(const struct ledger_window *w, void *arg), void *arg,
                   struct refusal *r) {
        struct stmt q = db_stmt(&l->state, STMT_WINDOWS);
        int k;

        if (walk_begin(&q, r) < 0)
                return -1;
        stmt_bits(&q, 1, domain);
        while ((k = stmt_next(&q, r)) > 0) {
                struct ledger_window w = {
                        .id = stmt_get_bits(&q, 0),
                        .domain = domain,
                        .start = address_decode(stmt_get_int64(&q, 1)),
                        .size = stmt_get_bits(&q, 2),
                        .page_shift = stmt_get_u32(&q, 3),
                        .levels = stmt_get_u32(&q, 4),
                        .quota = stmt_get_bits(&q, 5),
                        .table_bytes = stmt_get_bits(&q, 6),
                        .is_default = stmt_get_int64(&q, 7) != 0,
                        .state = (enum ledger_object_state)stmt_get_u32(&q, 8),
                };

                k = each(&w, arg);
                if (k != 0)
                        break;
        }
        stmt_end(&q);
        return k;
}

int ledger_touched(struct ledger *l, uint64_t domain, int (*each)(struct iova_range range, void *arg), void *arg,
                   struct refusal *r) {
        struct stmt q = db_stmt(&l->state, STMT_TOUCHED);
        int k;

        if (walk_begin(&q, r) < 0)
                return -1;
        stmt_bits(&q, 1, domain);
        while ((k = stmt_next(&q, r)) > 0) {
                struct iova_range range = { address_decode(stmt_get_int64(&q, 0)), address_decode(stmt_get_int64(&q, 1)) };

                k = each(range, arg);
                if (k != 0)
                        break;
        }
        stmt_end(&q);
        return k;
}

int ledger_mappings(struct ledger *l, uint64_t domain, int (*each)(const struct ledger_mapping *m, void *arg),
                    void *arg, struct refusal *r) {
        struct stmt q = db_stmt(&l->state, STMT_MAPPINGS);
        int k;

        if (walk_begin(&q, r) < 0)
                return -1;
        stmt_bits(&q, 1, domain);
        while ((k = stmt_next(&q, r)) > 0) {
                struct ledger_mapping m = {
                        .domain = domain,
                        .iova = address_decode(stmt_get_int64(&q, 0)),
                        .length = stmt_get_bits(&q, 1) - stmt_get_bits(&q, 0) + 1,
                        .memory = stmt_get_bits(&q, 2),
                        .offset = stmt_get_bits(&q, 3),
                        .access = stmt_get_u32(&q, 4),
                        .op = stmt_get_bits(&q, 5),
                        .chunk_shift = stmt_get_u32(&q, 6),
                        .page_shift = stmt_get_u32(&q, 7),
                };

                k = each(&m, arg);
                if (k != 0)
                        break;
        }
        stmt_end(&q);
        return k;
}

static void get_op(const struct stmt *q, uint64_t session, struct ledger_op *ret) {
        ret->id = stmt_get_bits(q, 0);
        ret->session = session;
        ret->object = stmt_get_bits(q, 1);
        ret->kind = (enum ledger_op_kind)stmt_get_u32(q, 2);
        ret->has_key = stmt_get_blob(q, 3, ret->key, sizeof ret->key) == sizeof ret->key;
        ret->request_hash = stmt_get_bits(q, 4);
        ret->settled = stmt_get_int64(q, 5) != 0;
        ret->answer_size = (uint32_t)stmt_get_blob(q, 6, ret->answer, sizeof ret->answer);
        ret->has_effect = stmt_get_blob(q, 7, &ret->effect, sizeof ret->effect) == sizeof ret->effect;
}

/* An array that is stored as it is in memory, copied: sqlite does not align it. *ret is the caller's to free; NULL for
 * none. */
static int get_array(const struct stmt *q, int column, size_t element_size, void **ret, size_t *ret_n,
                     struct refusal *r) {
        size_t n = (size_t)sqlite3_column_bytes(q->handle, column) / element_size;

        *ret = NULL;
        *ret_n = n;
        if (n == 0)
                return 0;
        *ret = calloc(n, element_size);
        if (!*ret)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory for %zu parts of an operation.", n);
        (void)stmt_get_blob(q, column, *ret, n * element_size);
        return 0;
}

static int load_op(const struct stmt *q, uint64_t session,
                   int (*each)(const struct ledger_op *op, const struct ledger_op_parts *parts, void *arg), void *arg,
                   struct refusal *r) {
        _cleanup_free_ void *ranges = NULL, *rests = NULL;
        struct ledger_op_parts parts = { 0 };
        struct ledger_op op = { 0 };

        get_op(q, session, &op);
        if (get_array(q, 8, sizeof *parts.ranges, &ranges, &parts.n_ranges, r) < 0 ||
            get_array(q, 9, sizeof *parts.rests, &rests, &parts.n_rests, r) < 0)
                return -1;
        parts.ranges = ranges;
        parts.rests = rests;
        return each(&op, &parts, arg);
}

int ledger_ops(struct ledger *l, uint64_t session,
               int (*each)(const struct ledger_op *op, const struct ledger_op_parts *parts, void *arg), void *arg,
               struct refusal *r) {
        struct stmt q = db_stmt(&l->state, STMT_OPS);
        int k;

        if (walk_begin(&q, r) < 0)
                return -1;
        stmt_bits(&q, 1, session);
        while ((k = stmt_next(&q, r)) > 0) {
                k = load_op(&q, session, each, arg, r);
                if (k != 0)
                        break;
        }
        stmt_end(&q);
        return k;
}
