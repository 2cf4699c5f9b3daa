/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/domain.h"
#include "core/domain_tables.h"
#include "core/domain_window.h"
#include "core/op.h"
#include "core/revocation.h"
#include "core/window_request.h"

/*
 * A window is created: admit (core/window_plan.c; its place and its charge are reserved by a window in state INTENDED) ->
 * intend -> the holder makes it, where windows are the IOMMU's own -> live. Elsewhere a window is a promise of ours, and the
 * intent is all there is to do. Removing them is core/window_remove.c.
 */
struct create_payload {
        struct link_window message;
        struct ledger_window row;       /* behind the message: what the ledger is told */
};

int window_check_container(const struct domain *d, struct refusal *r) {
        bool own = d->info.windows.max_windows > 0 || d->session->broker->options.backend == BACKEND_VFIO_SPAPR;

        if (!own || d->has_info)
                return 0;
        return refuse(r, REFUSAL_UNSUPPORTED,
                      "windows of this IOMMU are made in the container of a device, and domain %" PRIu64 " has none; attach a "
                      "device first", d->id);
}

static int write_create_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct create_payload *p = op_payload(op);

        return ledger_window_put(ledger, &p->row, r) < 0 ? -1 : ledger_op_intend(ledger, &op->row, r);
}

static int write_create_settle(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct create_payload *p = op_payload(op);

        return op->applied ? ledger_window_put(ledger, &p->row, r) : ledger_window_delete(ledger, p->row.id, r);
}

/* Takes back what admission reserved. */
static void withdraw(struct domain *d, struct window *w) {
        struct refusal ignored;

        window_set_remove(&d->windows, w);
        domain_refund_windows(d, 1);
        (void)domain_charge_tables(d, &ignored);         /* less than before */
}

/* The IOMMU says where it is; its holder might say anything (DESIGN, section 4, Trust). */
static bool take_place(struct domain *d, struct window *w, const struct link_window *made) {
        struct iova_range range;

        if (made->size != iova_range_length(w->range) || made->page_shift != w->page_shift ||
            !iova_range_make(made->start, made->size, &range))
                return false;
        for (size_t i = 0; i < d->windows.n; i++)
                if (d->windows.of[i] != w && window_has_place(d->windows.of[i]) &&
                    iova_range_overlaps(d->windows.of[i]->range, range))
                        return false;
        window_set_move(&d->windows, w, range);
        return true;
}

static void finish_create(struct op *op, struct link_result *result, int *fd) {
        struct domain *d = op->of.window.domain;
        struct window *w = op->of.window.window;
        struct create_payload *p = op_payload(op);

        (void)fd;
        d->busy--;
        if (result->flags & LINK_RESULT_UNDO_FAILED)
                d->state = LEDGER_QUARANTINED;
        if (op_outcome_unknown(result))
                return;                 /* it stays, and charged, until the revocation */
        if (result->refusal.reason != REFUSAL_NONE) {
                withdraw(d, w);
                return;
        }
        if (!op->ledger_only && !take_place(d, w, &result->window)) {
                refuse(&result->refusal, REFUSAL_HOLDER_LOST, "the session's holder broke the protocol; the session ends");
                op->of.window.revoke = true;
                return;
        }
        w->state = LEDGER_LIVE;
        window_fill_row(w, d->id, &p->row);
        window_fill_view(w, &op->answer.window);
}

static void after_create(struct op *op) {
        if (op->of.window.revoke)
                revocation_begin(op->session, REFUSAL_HOLDER_LOST, "its holder made another window than it was told to");
}

static struct op *op_for_create(struct domain *d, struct window *w, bool own, struct refusal *r) {
        struct op *op = op_new(d->session, LEDGER_OP_CREATE_WINDOW, LINK_WINDOW_CREATE, sizeof(struct create_payload));
        struct create_payload *p;

        if (!op) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        p = op_payload(op);
        p->message = (struct link_window){ .start = WINDOW_ANYWHERE, .size = iova_range_length(w->range),
                                           .page_shift = w->page_shift, .levels = w->levels };
        window_fill_row(w, d->id, &p->row);
        op->message_size = sizeof(struct link_header) + sizeof p->message;
        op->of.window.domain = d;
        op->of.window.window = w;
        op->ledger_only = !own;
        window_op_about(op, d, w);
        op->answer.id = w->id;
        op->deadline_ms = monotonic_ms() + d->session->broker->options.operation_deadline_ms;
        op->write_intent = write_create_intent;
        op->write_settle = write_create_settle;
        op->finish = finish_create;
        op->after = after_create;
        return op;
}

/* Which window, for recovery: an operation names its domain. */
void window_op_about(struct op *op, struct domain *d, const struct window *w) {
        op->row.object = op->message[0].domain = d->id;
        op->row.has_effect = true;
        op->row.effect.made = (struct ledger_node){ .memory = w ? w->id : 0 };
}

/* Planned, in the set, and charged. NULL: refused. */
static struct window *reserve(struct domain *d, const struct window_rules *rules, const struct create_window_request *req,
                              struct refusal *r) {
        struct window plan, *w;

        if (window_plan(&d->windows, rules, req, &plan, r) < 0)
                return NULL;
        plan.id = req->dry_run ? 0 : ledger_next_id(d->session->broker->ledger);
        w = window_set_add(&d->windows, &plan);
        if (!w) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        if (domain_charge_window(d, r) < 0) {
                window_set_remove(&d->windows, w);
                return NULL;
        }
        if (domain_charge_tables(d, r) < 0) {
                withdraw(d, w);
                return NULL;
        }
        return w;
}

static struct op *admit_create(struct session *s, const void *request, struct answer *ret, struct refusal *r) {
        const struct create_window_request *req = request;
        struct domain *d = session_find_domain(s, req->domain, r);
        struct window_rules rules;
        struct window *w;
        struct op *op = NULL;

        if (!d || domain_is_usable(d, r) < 0 || window_check_container(d, r) < 0 || window_check_resetting(d, r) < 0)
                return NULL;
        domain_window_rules(d, &rules);
        w = reserve(d, &rules, req, r);
        if (!w)
                return NULL;
        if (req->dry_run)
                window_fill_view(w, &ret->window);
        else
                op = op_for_create(d, w, rules.own, r);
        if (!op) {
                withdraw(d, w);
                return NULL;
        }
        d->busy++;
        return op;
}

void window_create_request(struct session *s, const struct create_window_request *req, struct reply *reply) {
        const uint64_t what[] = { LEDGER_OP_CREATE_WINDOW, req->domain, req->min_page_size, req->size, req->quota,
                                  req->page_shift, req->levels, req->dry_run };

        request_start(s, &req->key, request_hash(REQUEST_HASH_INIT, what, sizeof what), reply, admit_create, req);
}

/* ---- query ---- */

static void fill_windows(const struct domain *d, struct windows_view *ret) {
        struct window_rules rules;

        domain_window_rules(d, &rules);
        memset(ret, 0, sizeof *ret);
        for (size_t i = 0; i < d->windows.n; i++)
                if (window_has_place(d->windows.of[i]))
                        window_fill_view(d->windows.of[i], &ret->windows[ret->n++]);
        ret->can_create = window_can_create(&d->windows, &rules);
        ret->levels_max = rules.levels_max;
        ret->page_sizes = rules.page_sizes;
        ret->largest = rules.largest;
        ret->n_free = window_free_ranges(&d->windows, &rules, ret->free);
}

int window_query(struct broker *b, struct session *s, uint64_t domain, struct windows_view *ret, struct refusal *r) {
        struct session *owner = domain_owner(b, s, domain);
        struct domain *d;

        if (!owner)
                return refuse(r, REFUSAL_UNKNOWN_DOMAIN, "there is no domain %" PRIu64, domain);
        pthread_mutex_lock(&owner->lock);
        d = session_find_domain(owner, domain, r);
        if (d)
                fill_windows(d, ret);
        pthread_mutex_unlock(&owner->lock);
        session_unref(owner);
        return d ? 0 : -1;
}
