/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions of state.db, and the rows of sessions, domains, memory, attachments and windows. */
#include <stdio.h>
#include <string.h>

#include "ledger_private.h"

/* Its address tells threads apart, without a system call. */
static _Thread_local char thread_mark;

static bool is_mine(const struct ledger *l) {
        return atomic_load_explicit(&l->state_owner, memory_order_relaxed) == &thread_mark;
}

static void leave(struct ledger *l) {
        atomic_store_explicit(&l->state_owner, NULL, memory_order_relaxed);
        pthread_mutex_unlock(&l->state_gate);
}

/* After some errors (disk full, I/O) sqlite rolls back by itself; what followed would then commit one by one. */
int state_in_transaction(struct ledger *l, struct refusal *r) {
        if (!is_mine(l))
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No transaction of the ledger is open in this thread.");
        if (sqlite3_get_autocommit(l->state.handle))
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "The ledger's transaction was rolled back after an earlier error.");
        return 0;
}

int ledger_begin(struct ledger *l, struct refusal *r) {
        struct stmt s = db_stmt(&l->state, STMT_STATE_BEGIN);
        int k;

        if (is_mine(l))
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE,
                              "A transaction of the ledger is open in this thread already.");
        pthread_mutex_lock(&l->state_gate);
        atomic_store_explicit(&l->state_owner, &thread_mark, memory_order_relaxed);
        l->state.fault = FAULT_OF_REQUEST;
        k = damage_check(&l->damage, r);
        if (k < 0)
                l->state.fault = FAULT_LASTING;
        else
                k = stmt_run(&s, NULL, r);
        stmt_end(&s);                   /* not by scope: after leave() the statement is another thread's */
        if (k < 0)
                leave(l);
        return k;
}

void ledger_rollback(struct ledger *l) {
        struct refusal ignored;

        if (!is_mine(l))
                return;
        if (!sqlite3_get_autocommit(l->state.handle)) {
                struct stmt s = db_stmt(&l->state, STMT_STATE_ROLLBACK);

                (void)stmt_run(&s, NULL, &ignored);
                stmt_end(&s);
        }
        leave(l);
}

int ledger_commit(struct ledger *l, struct refusal *r) {
        struct stmt s = db_stmt(&l->state, STMT_STATE_COMMIT);
        int k;

        if (state_in_transaction(l, r) < 0) {
                ledger_rollback(l);
                return -1;
        }
        k = stmt_run(&s, NULL, r);
        stmt_end(&s);
        if (k < 0)
                ledger_rollback(l);
        else
                leave(l);
        return k;
}

/* Children first, so that no cascade runs. */
int ledger_state_reset(struct ledger *l, struct refusal *r) {
        char sql[512];

        if (ledger_begin(l, r) < 0)
                return -1;
        (void)snprintf(sql, sizeof sql,
                       "DELETE FROM mapping; DELETE FROM op; DELETE FROM attachment; DELETE FROM window; DELETE FROM touched; "
                       "DELETE FROM domain; "
                       "UPDATE memory SET mapped = 0; DELETE FROM memory; DELETE FROM session; "
                       "INSERT INTO boot VALUES (1, '%s') ON CONFLICT (one) DO UPDATE SET boot_id = excluded.boot_id",
                       l->boot_id);
        if (db_exec(&l->state, sql, r) < 0) {
                ledger_rollback(l);
                return -1;
        }
        if (ledger_commit(l, r) < 0)
                return -1;
        atomic_store(&l->other_boot, false);
        return 0;
}

int ledger_session_put(struct ledger *l, const struct ledger_session *s, struct refusal *r) {
        _cleanup_stmt_ struct stmt q = db_stmt(&l->state, STMT_SESSION_PUT);

        if (state_in_transaction(l, r) < 0)
                return -1;
        stmt_bits(&q, 1, s->id);
        stmt_text(&q, 2, s->tenant);
        stmt_text(&q, 3, s->client_name);
        stmt_int64(&q, 4, s->uid);
        stmt_int64(&q, 5, s->gid);
        stmt_int64(&q, 6, s->pid);
        stmt_bits(&q, 7, s->start_time);
        stmt_int64(&q, 8, s->holder_pid);
        stmt_int64(&q, 9, s->holder_uid);
        stmt_bits(&q, 10, s->holder_start_time);
        stmt_blob(&q, 11, s->token_hash, sizeof s->token_hash);
        stmt_blob(&q, 12, s->secret_hash, sizeof s->secret_hash);
        stmt_int64(&q, 13, s->state);
        return stmt_run(&q, NULL, r);
}

int ledger_domain_put(struct ledger *l, const struct ledger_domain *d, struct refusal *r) {
        _cleanup_stmt_ struct stmt q = db_stmt(&l->state, STMT_DOMAIN_PUT);

        if (state_in_transaction(l, r) < 0)
                return -1;
        stmt_bits(&q, 1, d->id);
        stmt_bits(&q, 2, d->session);
        stmt_text(&q, 3, d->label);
        stmt_int64(&q, 4, d->state);
        stmt_int64(&q, 5, d->lazy);
        return stmt_run(&q, NULL, r);
}

int ledger_memory_put(struct ledger *l, const struct ledger_memory *m, struct refusal *r) {
        _cleanup_stmt_ struct stmt q = db_stmt(&l->state, STMT_MEMORY_PUT);

        if (state_in_transaction(l, r) < 0)
                return -1;
        stmt_bits(&q, 1, m->id);
        stmt_bits(&q, 2, m->session);
        stmt_bits(&q, 3, m->size);
        stmt_bits(&q, 4, m->page_size);
        stmt_bits(&q, 5, m->dev);
        stmt_bits(&q, 6, m->ino);
        stmt_int64(&q, 7, m->sealed);
        stmt_int64(&q, 8, m->writable);
        stmt_int64(&q, 9, m->state);
        return stmt_run(&q, NULL, r);
}

int ledger_attachment_put(struct ledger *l, const struct ledger_attachment *a, struct refusal *r) {
        _cleanup_stmt_ struct stmt q = db_stmt(&l->state, STMT_ATTACHMENT_PUT);

        if (state_in_transaction(l, r) < 0)
                return -1;
        stmt_bits(&q, 1, a->id);
        stmt_bits(&q, 2, a->domain);
        stmt_text(&q, 3, a->device);
        stmt_int64(&q, 4, a->group);
        stmt_int64(&q, 5, a->backend);
        stmt_int64(&q, 6, a->state);
        return stmt_run(&q, NULL, r);
}

int ledger_window_put(struct ledger *l, const struct ledger_window *w, struct refusal *r) {
        _cleanup_stmt_ struct stmt q = db_stmt(&l->state, STMT_WINDOW_PUT);

        if (state_in_transaction(l, r) < 0)
                return -1;
        stmt_bits(&q, 1, w->id);
        stmt_bits(&q, 2, w->domain);
        stmt_int64(&q, 3, address_encode(w->start));
        stmt_bits(&q, 4, w->size);
        stmt_int64(&q, 5, w->page_shift);
        stmt_int64(&q, 6, w->levels);
        stmt_bits(&q, 7, w->quota);
        stmt_bits(&q, 8, w->table_bytes);
        stmt_int64(&q, 9, w->is_default);
        stmt_int64(&q, 10, w->state);
        return stmt_run(&q, NULL, r);
}

int ledger_touched_put(struct ledger *l, uint64_t domain, struct iova_range range, struct refusal *r) {
        _cleanup_stmt_ struct stmt q = db_stmt(&l->state, STMT_TOUCHED_PUT);

        if (state_in_transaction(l, r) < 0)
                return -1;
        stmt_bits(&q, 1, domain);
        stmt_int64(&q, 2, address_encode(range.first));
        stmt_int64(&q, 3, address_encode(range.last));
        return stmt_run(&q, NULL, r);
}

static int run_for_id(struct ledger *l, size_t statement, uint64_t id, struct refusal *r) {
        _cleanup_stmt_ struct stmt q = db_stmt(&l->state, statement);

        if (state_in_transaction(l, r) < 0)
                return -1;
        stmt_bits(&q, 1, id);
        return stmt_run(&q, NULL, r);
}

int ledger_session_delete(struct ledger *l, uint64_t id, struct refusal *r) {
        return run_for_id(l, STMT_SESSION_DELETE, id, r);
}

int ledger_domain_delete(struct ledger *l, uint64_t id, struct refusal *r) {
        if (run_for_id(l, STMT_MEMORY_UNCOUNT_DOMAIN, id, r) < 0)
                return -1;
        return run_for_id(l, STMT_DOMAIN_DELETE, id, r);
}

int ledger_memory_delete(struct ledger *l, uint64_t id, struct refusal *r) {
        if (state_in_transaction(l, r) < 0)
                return -1;
        if (run_for_id(l, STMT_MEMORY_DELETE, id, r) == 0)
                return 0;
        if (sqlite3_extended_errcode(l->state.handle) == SQLITE_CONSTRAINT_TRIGGER)
                return refuse(r, REFUSAL_IN_USE, "Memory %llu is still mapped.", (unsigned long long)id);
        return -1;
}

int ledger_attachment_delete(struct ledger *l, uint64_t id, struct refusal *r) {
        return run_for_id(l, STMT_ATTACHMENT_DELETE, id, r);
}

int ledger_window_delete(struct ledger *l, uint64_t id, struct refusal *r) {
        return run_for_id(l, STMT_WINDOW_DELETE, id, r);
}
