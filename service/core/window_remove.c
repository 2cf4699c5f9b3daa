/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/change.h"
#include "core/change_private.h"
#include "core/domain.h"
#include "core/domain_tables.h"
#include "core/domain_window.h"
#include "core/op.h"
#include "core/window_request.h"

/*
 * A window is removed, or all of them are reset to the default one, with everything that is mapped there: one operation, which
 * happens wholly or not at all. What is more than LINK_BATCH_MAX mappings is unmapped before, batch by batch, as a long unmap is
 * (core/unmap_op.c). The windows are ENDING from admission on: nothing new is admitted to them.
 *
 * What was unmapped lazily and still is translated has to go first, so a request for such a domain begins with a sync.
 */
struct tail {                           /* behind the message: what the ledger is told */
        bool has_fresh;
        struct ledger_window fresh;     /* reset: the default window, where there was none */
        size_t n;
        struct ledger_window gone[WINDOWS_MAX];
};

static struct tail *tail_of(struct op *op) {
        return (struct tail *)((char *)op->message + op->message_size);
}

int window_check_resetting(const struct domain *d, struct refusal *r) {
        if (!d->resetting)
                return 0;
        return refuse(r, REFUSAL_IN_PROGRESS, "the windows of domain %" PRIu64 " are being reset; repeat when that is done", d->id);
}

/* ---- the ledger ---- */

static int put_rows(struct ledger *ledger, const struct tail *t, enum ledger_object_state state, struct refusal *r) {
        for (size_t i = 0; i < t->n; i++) {
                struct ledger_window row = t->gone[i];

                row.state = state;
                if (ledger_window_put(ledger, &row, r) < 0)
                        return -1;
        }
        return 0;
}

static int write_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct change *c = op->of.window.change;
        const struct tail *t = tail_of(op);
        struct ledger_range rows[LINK_BATCH_MAX];

        for (size_t i = 0; i < c->n_gone; i++)
                rows[i] = (struct ledger_range){ c->gone[i]->range.first, iova_range_length(c->gone[i]->range) };
        if (put_rows(ledger, t, LEDGER_ENDING, r) < 0 || (t->has_fresh && ledger_window_put(ledger, &t->fresh, r) < 0))
                return -1;
        return ledger_unmap_intend(ledger, &op->row, rows, c->n_gone, NULL, 0, r);
}

static int write_settle(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct tail *t = tail_of(op);
        struct ledger_window fresh = t->fresh;

        if (!op->applied)
                return put_rows(ledger, t, LEDGER_LIVE, r) < 0 || (t->has_fresh && ledger_window_delete(ledger, fresh.id, r) < 0)
                               ? -1 : 0;
        for (size_t i = 0; i < t->n; i++)
                if (ledger_window_delete(ledger, t->gone[i].id, r) < 0)
                        return -1;
        fresh.state = LEDGER_LIVE;
        return t->has_fresh ? ledger_window_put(ledger, &fresh, r) : 0;
}

/* ---- what goes ---- */

static int refuse_busy(const struct mapping *m, struct refusal *r) {
        refuse(r, REFUSAL_IN_PROGRESS, "the mapping 0x%" PRIx64 "-0x%" PRIx64 " is being %s; repeat when that is done",
               m->range.first, m->range.last,
               m->state == MAPPING_INTENDED   ? "made"
               : m->state == MAPPING_DEFERRED ? "unmapped, and waits for the domain's next flush"
                                              : "unmapped");
        r->conflict_first = m->range.first;
        r->conflict_last = m->range.last;
        return -1;
}

static int mark_mappings(struct change *c, struct iova_range range, struct refusal *r) {
        struct mapping_set *set = &c->domain->mappings;

        for (struct mapping *m = mapping_set_find(set, range); m && m->range.first <= range.last; m = mapping_set_next(set, m))
                if (m->state != MAPPING_LIVE ? refuse_busy(m, r) < 0 : change_remove(c, m, r) < 0)
                        return -1;
        return change_settle_pages(c, r) < 0 ? -1 : change_charge(c, r);
}

static void set_states(struct domain *d, const struct window *only, enum ledger_object_state state) {
        for (size_t i = 0; i < d->windows.n; i++)
                if (!only || d->windows.of[i] == only)
                        d->windows.of[i]->state = state;
}

/* As if it had never been asked for. */
static void undone(struct change *c) {
        set_states(c->domain, c->window, LEDGER_LIVE);
        if (!c->window)
                c->domain->resetting = false;
}

/* The windows that go leave the set, and what they were charged is given back. */
static void drop_windows(struct domain *d, struct window *only) {
        struct refusal ignored;
        uint64_t created = 0;

        for (size_t i = d->windows.n; i-- > 0;) {
                struct window *w = d->windows.of[i];

                if (only ? w != only : w->is_default)
                        continue;
                created += !w->is_default;
                window_set_remove(&d->windows, w);
        }
        domain_refund_windows(d, created);
        (void)domain_charge_tables(d, &ignored);         /* less than before */
}

static void finish(struct op *op, struct link_result *result, int *fd) {
        struct change *c = op->of.window.change;
        struct window *fresh = op->of.window.window;
        struct domain *d = c->domain;

        (void)fd;
        d->busy--;
        if (result->flags & LINK_RESULT_UNDO_FAILED)
                d->state = LEDGER_QUARANTINED;
        if (op_outcome_unknown(result))
                change_abandon(c);
        else if (result->refusal.reason != REFUSAL_NONE && op->answer.unmapped_mappings > 0)
                change_quarantine(op, c, result);
        else if (result->refusal.reason != REFUSAL_NONE) {
                change_undo(c);
                undone(c);
        } else {
                change_apply(c, &op->answer.unmapped_bytes, &op->answer.unmapped_mappings);
                drop_windows(d, c->window);
                if (fresh)
                        window_set_insert(&d->windows, fresh);
                fresh = NULL;
                domain_windows_follow(d);
                if (!c->window)
                        undone(c);
        }
        free(fresh);
        change_free(c);
}

/* ---- the operation ---- */

static struct link_window link_window_of(const struct window *w) {
        return (struct link_window){ .start = w->range.first, .size = iova_range_length(w->range), .page_shift = w->page_shift,
                                     .levels = w->levels };
}

/* What tells recovery whether it happened. Of a long one the first mappings have gone before. */
static struct ledger_node first_gone(const struct change *c) {
        struct link_map_entry e;

        if (c->uses_pages || c->n_gone == 0 || !mapping_body_entry(c->gone[0], &e))
                return c->effect.gone;
        return (struct ledger_node){ .iova = e.iova, .length = e.length, .memory = e.memory, .offset = e.offset,
                                     .access = e.access, .chunk_shift = e.chunk_shift };
}

/* The message: for windows of the IOMMU's own the window and what is mapped there, else the latter alone. */
static struct op *op_with_tail(struct change *c, enum ledger_op_kind kind, const struct link_window *head, struct refusal *r) {
        enum link_type type = !head ? LINK_UNMAP : c->window ? LINK_WINDOW_REMOVE : LINK_WINDOWS_RESET;
        size_t head_size = head ? sizeof *head : 0, entries = c->n_old * sizeof *c->old;
        struct op *op = op_new(c->session, kind, type, head_size + entries + sizeof(struct tail));

        if (!op) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        if (head)
                memcpy(op_payload(op), head, sizeof *head);
        if (entries > 0)
                memcpy((char *)op_payload(op) + head_size, c->old, entries);
        op->message_size = sizeof(struct link_header) + head_size + entries;
        op->message[0].count = (uint32_t)c->n_old;
        op->ledger_only = !head && c->n_old == 0;
        op->of.window.domain = c->domain;
        op->of.window.change = c;
        window_op_about(op, c->domain, c->window);
        op->row.effect.gone = first_gone(c);
        op->deadline_ms = monotonic_ms() + c->session->broker->options.operation_deadline_ms;
        op->write_intent = write_intent;
        op->write_settle = write_settle;
        op->finish = finish;
        return op;
}

static struct op *last_of_remove(struct change *c, struct refusal *r) {
        const struct link_window head = link_window_of(c->window);
        struct op *op = op_with_tail(c, LEDGER_OP_REMOVE_WINDOW, c->domain->info.windows.max_windows ? &head : NULL, r);
        struct tail *t = op ? tail_of(op) : NULL;

        if (t)
                window_fill_row(c->window, c->domain->id, &t->gone[t->n++]);
        return op;
}

/* The default window comes back where it is missing. False: out of memory. */
static bool add_fresh(struct domain *d, const struct window_rules *rules, struct op *op) {
        struct tail *t = tail_of(op);
        struct window w = rules->initial;

        if (domain_default_window(d) || !rules->has_initial)
                return true;
        w.id = ledger_next_id(d->session->broker->ledger);
        op->of.window.window = window_new(&w);
        if (!op->of.window.window)
                return false;
        t->has_fresh = true;
        window_fill_row(&w, d->id, &t->fresh);
        t->fresh.state = LEDGER_INTENDED;
        return true;
}

static struct op *last_of_reset(struct change *c, struct refusal *r) {
        struct domain *d = c->domain;
        struct link_window head = { 0 };
        struct window_rules rules;
        struct op *op;

        domain_window_rules(d, &rules);
        if (rules.has_initial)
                head = link_window_of(&rules.initial);
        op = op_with_tail(c, LEDGER_OP_RESET_WINDOWS, rules.own ? &head : NULL, r);
        if (op && !add_fresh(d, &rules, op)) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                op_unref(op);
                return NULL;
        }
        for (size_t i = 0; op && i < d->windows.n; i++)
                if (!d->windows.of[i]->is_default)
                        window_fill_row(d->windows.of[i], d->id, &tail_of(op)->gone[tail_of(op)->n++]);
        return op;
}

/* With the windows ENDING, what is mapped there marked, and the first operation made. NULL: refused, and nothing has changed. */
static struct op *begin(struct domain *d, struct window *w, struct op *(*last)(struct change *c, struct refusal *r),
                        struct refusal *r) {
        struct change *c = change_new(d->session, d);
        struct op *op;

        if (!c) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        c->window = w;
        c->last = last;
        c->undone = undone;
        if (mark_mappings(c, w ? w->range : (struct iova_range){ 0, UINT64_MAX }, r) < 0 || !(op = change_unmap_op(c, r))) {
                change_undo(c);
                change_free(c);
                return NULL;
        }
        change_commit(c);
        set_states(d, w, LEDGER_ENDING);
        d->resetting = !w;
        d->busy++;
        return op;
}

/* ---- admit ---- */

static struct op *admit_remove(struct session *s, const void *request, struct answer *ret, struct refusal *r) {
        const struct remove_window_request *req = request;
        struct domain *d = session_find_domain(s, req->domain, r);
        struct window *w = d ? window_set_find(&d->windows, req->window, r) : NULL;

        (void)ret;
        if (!w || domain_is_usable(d, r) < 0 || window_check_container(d, r) < 0 || window_check_resetting(d, r) < 0 ||
            window_check_removable(w, req->force, r) < 0)
                return NULL;
        return begin(d, w, last_of_remove, r);
}

static struct op *admit_reset(struct session *s, const void *request, struct answer *ret, struct refusal *r) {
        const struct reset_windows_request *req = request;
        struct domain *d = session_find_domain(s, req->domain, r);

        (void)ret;
        if (!d || domain_is_usable(d, r) < 0 || window_check_resetting(d, r) < 0)
                return NULL;
        /* without a container it is enough to know what the IOMMU is like */
        if (d->info.windows.max_windows == 0 && window_check_container(d, r) < 0)
                return NULL;
        for (size_t i = 0; i < d->windows.n; i++)
                if (d->windows.of[i]->state != LEDGER_LIVE) {
                        (void)window_check_removable(d->windows.of[i], true, r);        /* which says what is the matter */
                        return NULL;
                }
        return begin(d, NULL, last_of_reset, r);
}

/* ---- requests ---- */

static void start_remove(struct session *s, const struct remove_window_request *req, struct reply *reply) {
        const uint64_t what[] = { LEDGER_OP_REMOVE_WINDOW, req->domain, req->window, req->force };

        request_start(s, &req->key, request_hash(REQUEST_HASH_INIT, what, sizeof what), reply, admit_remove, req);
}

static void start_reset(struct session *s, const struct reset_windows_request *req, struct reply *reply) {
        const uint64_t what[] = { LEDGER_OP_RESET_WINDOWS, req->domain };

        request_start(s, &req->key, request_hash(REQUEST_HASH_INIT, what, sizeof what), reply, admit_reset, req);
}

/* A request that waits for a sync of its domain. */
struct after_sync {
        struct reply reply;
        struct session *session;
        struct reply *client;
        bool is_reset;
        struct remove_window_request remove;
        struct reset_windows_request reset;
};

static void synced(struct reply *reply, const struct refusal *refusal, const struct answer *answer) {
        struct after_sync *a = (struct after_sync *)reply;

        (void)answer;
        if (refusal)
                reply_refused(a->client, refusal);
        else if (a->is_reset)
                start_reset(a->session, &a->reset, a->client);
        else
                start_remove(a->session, &a->remove, a->client);
        session_unref(a->session);
        free(a);
}

/* NULL: nothing is unmapped lazily there, or no memory; then the request says IN_PROGRESS where it matters. */
static struct after_sync *after_sync_new(struct session *s, uint64_t domain, struct reply *client) {
        struct after_sync *a = NULL;
        struct domain *d;

        pthread_mutex_lock(&s->lock);
        HASH_FIND(hh, s->domains, &domain, sizeof domain, d);
        if (d && d->lazy.taken != d->lazy.flushed)
                a = calloc(1, sizeof *a);
        pthread_mutex_unlock(&s->lock);
        if (!a)
                return NULL;
        a->reply.done = synced;
        a->session = session_ref(s);
        a->client = client;
        return a;
}

static void sync_first(struct after_sync *a, uint64_t domain) {
        const struct sync_request sync = { .domain = domain };

        sync_request_start(a->session, &sync, &a->reply);
}

void window_remove_request(struct session *s, const struct remove_window_request *req, struct reply *reply) {
        struct after_sync *a = after_sync_new(s, req->domain, reply);

        if (a) {
                a->remove = *req;
                sync_first(a, req->domain);
        } else
                start_remove(s, req, reply);
}

void windows_reset_request(struct session *s, const struct reset_windows_request *req, struct reply *reply) {
        struct after_sync *a = after_sync_new(s, req->domain, reply);

        if (a) {
                a->is_reset = true;
                a->reset = *req;
                sync_first(a, req->domain);
        } else
                start_reset(s, req, reply);
}
