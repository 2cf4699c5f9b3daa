/* SPDX-License-Identifier: Apache-2.0 */
/* The audit trail: lines are put into a ring and written to config.db in groups by the maintenance thread. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "ledger_private.h"

int audit_init(struct audit *a, struct refusal *r) {
        a->lines = calloc(AUDIT_BUFFERED, sizeof *a->lines);
        if (!a->lines)
                return refuse(r, REFUSAL_LEDGER_UNAVAILABLE, "No memory for the audit buffer.");
        return 0;
}

void audit_destroy(struct audit *a) {
        free(a->lines);
        a->lines = NULL;
}

static int64_t now_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_REALTIME, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* False: the line was dropped. *ret_waiting: lines in the ring. */
static bool audit_push(struct audit *a, const struct audit_line *line, uint64_t *ret_waiting) {
        LOCK_SCOPE(&a->lock);
        bool fits = a->head - a->tail < AUDIT_BUFFERED;

        if (fits)
                a->lines[a->head++ % AUDIT_BUFFERED] = *line;
        else
                a->dropped++;
        *ret_waiting = a->head - a->tail;
        return fits;
}

void ledger_audit(struct ledger *l, const char *event, const char *tenant, uint32_t uid, uint32_t pid,
                  const char *text) {
        struct audit_line line = { .time_ns = now_ns(), .has_tenant = tenant != NULL, .uid = uid, .pid = pid };
        uint64_t waiting;

        (void)snprintf(line.event, sizeof line.event, "%s", event);
        (void)snprintf(line.tenant, sizeof line.tenant, "%s", tenant ? tenant : "");
        (void)snprintf(line.text, sizeof line.text, "%s", text);
        if (audit_push(&l->audit, &line, &waiting) && waiting % AUDIT_WAKE == 0)
                maintenance_poke(l);
}

static int audit_write(struct ledger *l, const struct audit_line *line, struct refusal *r) {
        _cleanup_stmt_ struct stmt s = db_stmt(&l->config, STMT_AUDIT_ADD);

        stmt_int64(&s, 1, line->time_ns);
        stmt_text(&s, 2, line->event);
        stmt_text(&s, 3, line->has_tenant ? line->tenant : NULL);
        stmt_int64(&s, 4, line->uid);
        stmt_int64(&s, 5, line->pid);
        stmt_text(&s, 6, line->text);
        return stmt_run(&s, NULL, r);
}

/* The trail says itself where it has a hole. */
static int audit_write_dropped(struct ledger *l, uint64_t dropped, struct refusal *r) {
        struct audit_line line = { .time_ns = now_ns(), .event = "audit.dropped" };

        if (dropped == 0)
                return 0;
        (void)snprintf(line.text, sizeof line.text, "%" PRIu64 " lines came faster than they could be written",
                       dropped);
        return audit_write(l, &line, r);
}

static int audit_write_all(struct ledger *l, uint64_t from, uint64_t to, uint64_t dropped, struct refusal *r) {
        _cleanup_stmt_ struct stmt prune = db_stmt(&l->config, STMT_AUDIT_PRUNE);

        for (uint64_t i = from; i < to; i++)
                if (audit_write(l, &l->audit.lines[i % AUDIT_BUFFERED], r) < 0)
                        return -1;
        if (audit_write_dropped(l, dropped, r) < 0)
                return -1;
        stmt_int64(&prune, 1, LEDGER_AUDIT_MAX);
        return stmt_run(&prune, NULL, r);
}

/* config_lock makes this the only flusher, so the lines from tail to head stay what they are while they are read. */
int ledger_audit_flush(struct ledger *l, struct refusal *r) {
        struct audit *a = &l->audit;
        LOCK_SCOPE(&l->config_lock);
        uint64_t from, to, dropped;

        pthread_mutex_lock(&a->lock);
        from = a->tail;
        to = a->head;
        dropped = a->dropped;
        pthread_mutex_unlock(&a->lock);
        if (from == to && dropped == 0)
                return 0;
        if (config_begin(l, r) < 0)
                return -1;
        if (audit_write_all(l, from, to, dropped, r) < 0) {
                config_rollback(l);
                return -1;
        }
        if (config_commit(l, r) < 0)
                return -1;
        pthread_mutex_lock(&a->lock);
        a->tail = to;
        a->dropped -= dropped;
        pthread_mutex_unlock(&a->lock);
        return 0;
}
