/* SPDX-License-Identifier: Apache-2.0 */
#include "core/lazy.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/change.h"
#include "core/op.h"
#include "core/recovery.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"

struct sync_waiter {                    /* a Sync that waits for what was unmapped before it */
        struct sync_waiter *next;
        struct reply *reply;
        uint64_t upto;                  /* of lazy->taken */
        struct answer answer;
        bool failed;
        struct refusal refusal;
};

void lazy_init(struct domain *d, bool enabled) {
        d->lazy = (struct lazy){ .enabled = enabled };
        d->lazy.end = &d->lazy.first;
        if (enabled)
                d->session->has_lazy = true;
}

bool lazy_accepts(const struct domain *d, const struct change *c) {
        return d->lazy.enabled && c->n_made == 0 && !c->uses_pages && c->n_gone == c->n_old && c->n_old <= LINK_BATCH_MAX &&
               d->state == LEDGER_LIVE;
}

void lazy_prepare(struct op *op) {
        op->row.kind = LEDGER_OP_UNMAP_LAZY;
}

/* ---- the flush ---- */

static void finish_flush(struct op *op, struct link_result *result, int *fd);
static void answer_syncs(struct op *op);

/* The unmaps are in the ledger already, each with its own intent. */
static int write_nothing(struct op *op, struct ledger *ledger, struct refusal *r) {
        (void)op, (void)ledger, (void)r;
        return 0;
}

static size_t nodes_of(const struct op *lazy) {
        return lazy->of.change.change->n_old;
}

/* Those that go out with the next message: as many as fit, whole requests, oldest first. */
static size_t take_batch(struct lazy *l, struct op **ret_first) {
        struct op **end = ret_first;
        size_t n = 0;

        *ret_first = l->first;
        while (*end && n + nodes_of(*end) <= LINK_BATCH_MAX) {
                n += nodes_of(*end);
                end = &(*end)->waiting_next;
        }
        l->first = *end;
        *end = NULL;
        if (!l->first)
                l->end = &l->first;
        return n;
}

static void give_batch_back(struct lazy *l, struct op *first) {
        struct op *last = first;

        if (!first)
                return;
        while (last->waiting_next)
                last = last->waiting_next;
        last->waiting_next = l->first;
        if (!l->first)
                l->end = &last->waiting_next;
        l->first = first;
}

/* An op that flushes what waits, to be submitted without the lock; NULL: nothing does, one is under way, no memory. Nor while
 * the domain is being destroyed: that takes with it what waits, and the flush would finish on a domain that is gone. */
static struct op *flush_begin(struct domain *d) {
        struct lazy *l = &d->lazy;
        struct link_unmap_entry *entries;
        struct op *op, *batch;
        size_t n;

        if (!l->first || l->flush || d->state == LEDGER_ENDING)
                return NULL;
        n = take_batch(l, &batch);
        op = op_new(d->session, LEDGER_OP_UNMAP, LINK_UNMAP, n * sizeof *entries);
        if (!op) {
                give_batch_back(l, batch);
                return NULL;
        }
        entries = op_payload(op);
        for (struct op *lazy = batch; lazy; lazy = lazy->waiting_next) {
                memcpy(entries, lazy->of.change.change->old, nodes_of(lazy) * sizeof *entries);
                entries += nodes_of(lazy);
        }
        op->of.flush.domain = d;
        op->of.flush.batch = batch;
        op->row.object = op->message[0].domain = d->id;
        op->message[0].count = (uint32_t)n;
        op->deadline_ms = monotonic_ms() + d->session->broker->options.operation_deadline_ms;
        op->write_intent = write_nothing;
        op->finish = finish_flush;
        op->after = answer_syncs;
        FAILPOINT(flush_begun);
        l->flush = op;
        d->busy++;
        atomic_fetch_add(&d->session->in_flight, 1);
        return op;
}

static void flushed(struct domain *d, struct op *batch) {
        struct lazy *l = &d->lazy;
        struct op *next;

        FAILPOINT(flushed);
        for (struct op *lazy = batch; lazy; lazy = next) {
                uint64_t bytes = 0, mappings = 0;

                next = lazy->waiting_next;
                change_apply(lazy->of.change.change, &bytes, &mappings);
                change_free(lazy->of.change.change);
                l->bytes -= bytes;
                l->mappings -= mappings;
                l->flushed++;
                lazy->applied = true;
                op_settle_later(lazy);
                op_unref(lazy);
        }
        l->oldest_ms = monotonic_ms();
}

static void finish_flush(struct op *op, struct link_result *result, int *fd) {
        struct domain *d = op->of.flush.domain;
        struct lazy *l = &d->lazy;

        (void)fd;
        d->busy--;
        l->flush = NULL;
        if (result->flags & LINK_RESULT_UNDO_FAILED)
                d->state = LEDGER_QUARANTINED;
        if (result->refusal.reason == REFUSAL_NONE) {
                flushed(d, op->of.flush.batch);
                if (l->syncs || l->mappings >= d->session->broker->options.lazy_mappings)
                        op->next = flush_begin(d);
                return;
        }
        /* They wait on, translated and charged; the next flush tries again, or the session's end takes them. */
        give_batch_back(l, op->of.flush.batch);
        l->oldest_ms = monotonic_ms();
        log_error("domain %" PRIu64 ": what was unmapped lazily could not be flushed: %s", d->id, result->refusal.text);
        for (struct sync_waiter *w = l->syncs; w; w = w->next) {
                w->failed = true;
                w->refusal = result->refusal;
        }
}

/* ---- an unmap that waits ---- */

void lazy_take(struct op *op) {
        struct change *c = op->of.change.change;
        struct domain *d = c->domain;
        struct lazy *l = &d->lazy;
        const struct broker_options *o = &d->session->broker->options;

        for (size_t i = 0; i < c->n_gone; i++) {
                c->gone[i]->state = MAPPING_DEFERRED;
                c->gone[i]->by = NULL;
                op->answer.unmapped_bytes += iova_range_length(c->gone[i]->range);
        }
        op->answer.unmapped_mappings = c->n_gone;
        d->busy--;
        if (!l->first)
                l->oldest_ms = monotonic_ms();
        op->waiting_next = NULL;
        *l->end = op;
        l->end = &op->waiting_next;
        FAILPOINT(lazy_taken);
        l->taken++;
        l->mappings += c->n_gone;
        l->bytes += op->answer.unmapped_bytes;
        if (d->session->stage == SESSION_LIVE && (l->mappings >= o->lazy_mappings || l->bytes >= o->lazy_bytes))
                op->next = flush_begin(d);
}

/* As admission made it. */
static struct change *deferred_again(struct domain *d, const struct noted_op *noted) {
        struct change *c = change_new(d->session, d);
        struct refusal ignored;

        for (size_t i = 0; c && i < noted->n_ranges; i++) {
                struct iova_range range;
                struct mapping *m;

                if (!iova_range_make(noted->ranges[i].iova, noted->ranges[i].length, &range) ||
                    !(m = mapping_set_find(&d->mappings, range)) || m->range.first != range.first ||
                    m->range.last != range.last || change_remove(c, m, &ignored) < 0) {
                        change_undo(c);
                        change_free(c);
                        return NULL;
                }
        }
        return c;
}

bool lazy_resume(struct domain *d, const struct noted_op *noted) {
        struct change *c = deferred_again(d, noted);
        struct refusal ignored;
        struct op *op = c ? op_new_change(c, LEDGER_OP_UNMAP_LAZY, &ignored) : NULL;

        if (!op) {
                if (c)
                        change_undo(c);
                change_free(c);
                return false;
        }
        op->row = noted->row;
        d->busy++;
        lazy_take(op);          /* takes the one reference; nothing is flushed before the session is live */
        op_answer_store(&op->row, &op->answer, NULL);
        return true;
}

void lazy_tick(struct session *s, uint64_t now_ms) {
        uint64_t patience = s->broker->options.lazy_ms;
        struct op *flushes = NULL, *op;

        pthread_mutex_lock(&s->lock);
        for (struct domain *d = s->has_lazy && s->stage == SESSION_LIVE ? s->domains : NULL; d; d = d->hh.next) {
                if (!d->lazy.first || now_ms - d->lazy.oldest_ms < patience || now_ms < d->lazy.oldest_ms)
                        continue;
                op = flush_begin(d);
                if (!op)
                        continue;
                op->waiting_next = flushes;
                flushes = op;
        }
        pthread_mutex_unlock(&s->lock);
        while ((op = flushes)) {
                flushes = op->waiting_next;
                op_submit(op);
        }
}

void lazy_settle(struct domain *d) {
        struct lazy *l = &d->lazy;
        struct op *op;

        while ((op = l->first)) {
                l->first = op->waiting_next;
                change_free(op->of.change.change);
                op->applied = true;
                op_settle_later(op);
                op_unref(op);
        }
        l->end = &l->first;
}

void lazy_drop_session(struct session *s) {
        pthread_mutex_lock(&s->lock);
        for (struct domain *d = s->domains; d; d = d->hh.next) {
                struct op *op;

                while ((op = d->lazy.first)) {
                        d->lazy.first = op->waiting_next;
                        change_free(op->of.change.change);
                        op_unref(op);           /* not the last reference of the session: the caller has one */
                }
                d->lazy.end = &d->lazy.first;
        }
        pthread_mutex_unlock(&s->lock);
}

/* ---- Sync ---- */

/* Session's lock held: those whose turn it is, off the list. */
static struct sync_waiter *take_ready(struct lazy *l) {
        struct sync_waiter *ready = NULL;

        for (struct sync_waiter **p = &l->syncs; *p;) {
                struct sync_waiter *w = *p;

                if (!w->failed && w->upto > l->flushed) {
                        p = &w->next;
                        continue;
                }
                *p = w->next;
                w->next = ready;
                ready = w;
        }
        return ready;
}

static void answer_syncs(struct op *op) {
        struct session *s = op->session;
        struct sync_waiter *w, *ready;
        struct domain *d;

        pthread_mutex_lock(&s->lock);
        HASH_FIND(hh, s->domains, &op->row.object, sizeof op->row.object, d);
        ready = d ? take_ready(&d->lazy) : NULL;
        pthread_mutex_unlock(&s->lock);
        while ((w = ready)) {
                ready = w->next;
                w->reply->done(w->reply, w->failed ? &w->refusal : NULL, w->failed ? NULL : &w->answer);
                free(w);
        }
}

/* Session's lock held. 0: *ret_op, if there is one, is to be submitted; 1: nothing waits; -1: refused. */
static int begin_sync(struct session *s, uint64_t domain, struct reply *reply, struct op **ret_op, struct refusal *r) {
        struct sync_waiter *w;
        struct domain *d;

        if (session_is_live(s, r) < 0 || !(d = session_find_domain(s, domain, r)))
                return -1;
        if (d->lazy.taken == d->lazy.flushed)
                return 1;
        w = calloc(1, sizeof *w);
        if (!w)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        w->reply = reply;
        w->upto = d->lazy.taken;
        w->answer.unmapped_bytes = d->lazy.bytes;
        w->answer.unmapped_mappings = d->lazy.mappings;
        w->next = d->lazy.syncs;
        d->lazy.syncs = w;
        *ret_op = flush_begin(d);
        if (*ret_op || d->lazy.flush)
                return 0;
        d->lazy.syncs = w->next;
        free(w);
        return refuse(r, REFUSAL_INTERNAL, "out of memory");
}

void sync_request_start(struct session *s, const struct sync_request *req, struct reply *reply) {
        const struct answer nothing = { 0 };
        struct op *op = NULL;
        struct refusal r;
        int k;

        /* No key is remembered: asking again does no harm. */
        pthread_mutex_lock(&s->lock);
        k = begin_sync(s, req->domain, reply, &op, &r);
        pthread_mutex_unlock(&s->lock);
        if (k < 0)
                reply_refused(reply, &r);
        else if (k > 0)
                reply->done(reply, NULL, &nothing);
        else if (op)
                op_submit(op);
}
