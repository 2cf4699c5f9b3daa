/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/domain_tables.h"
#include "core/domain_window.h"
#include "core/holder_link.h"
#include "core/reconcile_private.h"
#include "util/log.h"

/*
 * Windows of the ledger against those of the holder. Where windows are the IOMMU's own, the holder has them and tells; a holder
 * that never had a container, and an IOMMU without windows of its own, leave the ledger's word: there an intent was all there
 * was to do.
 */

/* ---- did an open operation happen ---- */

static const struct dumped_domain *told(const struct recovery *rec, const struct domain *d) {
        const struct dumped_domain *there = recovery_find_domain(rec, d->id);

        return there && there->d.has_windows ? there : NULL;
}

static struct dumped_window *find_at(const struct recovery *rec, uint64_t domain, uint64_t start) {
        for (size_t i = 0; i < rec->n_windows; i++)
                if (rec->windows[i].domain == domain && rec->windows[i].w.start == start)
                        return &rec->windows[i];
        return NULL;
}

static struct window *window_of(const struct domain *d, const struct noted_op *op) {
        for (size_t i = 0; i < d->windows.n; i++)
                if (d->windows.of[i]->id == op->row.effect.made.memory)
                        return d->windows.of[i];
        return NULL;
}

/* A window of the holder that is none of the ledger's, and like the one that was to be made. */
static struct dumped_window *find_made(const struct recovery *rec, const struct domain *d, const struct window *w) {
        for (size_t i = 0; i < rec->n_windows; i++) {
                struct dumped_window *there = &rec->windows[i];

                if (there->domain == d->id && !there->explained && !window_set_at(&d->windows, there->w.start) &&
                    there->w.size == iova_range_length(w->range) && there->w.page_shift == w->page_shift)
                        return there;
        }
        return NULL;
}

static bool create_happened(const struct recovery *rec, struct domain *d, struct window *w) {
        struct dumped_window *there;
        struct iova_range range;

        if (!told(rec, d))
                return window_has_place(w);
        there = find_made(rec, d, w);
        if (!there || !iova_range_make(there->w.start, there->w.size, &range))
                return false;
        window_set_move(&d->windows, w, range);
        return true;
}

static bool gone_is_gone(const struct recovery *rec, const struct noted_op *op) {
        const struct ledger_node *n = &op->row.effect.gone;
        const struct link_map_entry gone = { .iova = n->iova, .length = n->length, .memory = n->memory, .offset = n->offset,
                                             .access = n->access, .chunk_shift = n->chunk_shift };

        return gone.length == 0 || !recovery_find_exact(rec, op->row.object, &gone);
}

/* Of the holder's windows there is the default one and no other. */
static bool is_reset(const struct recovery *rec, const struct domain *d) {
        struct window_rules rules;
        size_t n = 0, same = 0;

        domain_window_rules(d, &rules);
        for (size_t i = 0; i < rec->n_windows; i++) {
                const struct link_window *w = &rec->windows[i].w;

                if (rec->windows[i].domain != d->id)
                        continue;
                n++;
                same += rules.has_initial && w->start == rules.initial.range.first &&
                        w->size == iova_range_length(rules.initial.range) && w->page_shift == rules.initial.page_shift;
        }
        return n == rules.has_initial && same == n;
}

bool window_op_happened(struct domain *d, const struct recovery *rec, const struct noted_op *op) {
        struct window *w = window_of(d, op);

        switch (op->row.kind) {
        case LEDGER_OP_CREATE_WINDOW:
                return w && create_happened(rec, d, w);
        case LEDGER_OP_REMOVE_WINDOW:
                if (!gone_is_gone(rec, op))
                        return false;
                return !w || !told(rec, d) || !find_at(rec, d->id, w->range.first);
        case LEDGER_OP_RESET_WINDOWS:
        default:
                return gone_is_gone(rec, op) && (!told(rec, d) || is_reset(rec, d));
        }
}

/* ---- what is there then ---- */

static void drop(struct domain *d, struct recovery *rec, struct window *w) {
        recovery_note_lost(rec, LOST_WINDOW, w->id, 0);
        window_set_remove(&d->windows, w);
}

/* A default window that a reset was to bring back is there already, for a reset that did not happen it is none. */
static void end_reset(struct domain *d, struct recovery *rec, bool applied) {
        struct window_rules rules;
        struct window *fresh;

        for (size_t i = d->windows.n; i-- > 0;) {
                struct window *w = d->windows.of[i];

                if (w->is_default ? !applied && !window_has_place(w) : applied)
                        drop(d, rec, w);
        }
        domain_window_rules(d, &rules);
        fresh = domain_default_window(d);
        if (fresh && !window_has_place(fresh))
                window_set_move(&d->windows, fresh, rules.initial.range);
}

static void end_operation(struct domain *d, struct recovery *rec, const struct noted_op *op) {
        struct window *w = window_of(d, op);

        if (op->row.kind == LEDGER_OP_RESET_WINDOWS)
                end_reset(d, rec, op->applied);
        else if (w && op->applied == (op->row.kind == LEDGER_OP_REMOVE_WINDOW))
                drop(d, rec, w);
}

static bool is_window_op(const struct noted_op *op) {
        return op->row.kind == LEDGER_OP_CREATE_WINDOW || op->row.kind == LEDGER_OP_REMOVE_WINDOW ||
               op->row.kind == LEDGER_OP_RESET_WINDOWS;
}

/* What the holder has and nothing explains goes; what it has not is lost. */
static void compare(struct session *s, struct domain *d, struct recovery *rec, unsigned *differs) {
        for (size_t i = d->windows.n; i-- > 0;) {
                struct window *w = d->windows.of[i];
                struct dumped_window *there = find_at(rec, d->id, w->range.first);

                if (there && there->w.size == iova_range_length(w->range) && there->w.page_shift == w->page_shift) {
                        there->explained = true;
                        continue;
                }
                *differs += 1;
                log_error("session %" PRIu64 ", domain %" PRIu64 ": its holder does not have window %" PRIu64
                          " (0x%" PRIx64 "): gone",
                          s->id, d->id, w->id, w->range.first);
                drop(d, rec, w);
        }
        for (size_t i = 0; i < rec->n_windows; i++) {
                if (rec->windows[i].domain != d->id || rec->windows[i].explained)
                        continue;
                *differs += 1;
                log_error("session %" PRIu64 ": its holder has a window at 0x%" PRIx64 " that the ledger does not know: removed",
                          s->id, rec->windows[i].w.start);
                rec->windows[i].unknown = true;
        }
}

void reconcile_windows(struct session *s, struct domain *d, struct recovery *rec, unsigned *differs) {
        for (size_t i = 0; i < rec->n_ops; i++)
                if (rec->ops[i].row.object == d->id && is_window_op(&rec->ops[i]))
                        end_operation(d, rec, &rec->ops[i]);
        if (d->has_info || !told(rec, d))
                domain_windows_follow(d);
        if (told(rec, d))
                compare(s, d, rec, differs);
        for (size_t i = 0; i < d->windows.n; i++)
                d->windows.of[i]->state = LEDGER_LIVE;
        domain_adopt_tables(d);
        domain_adopt_windows(d);
}

/* After everything that was mapped there without a row has been told to go. */
void remove_unknown_windows(struct session *s, struct recovery *rec) {
        for (size_t i = 0; i < rec->n_windows; i++)
                if (rec->windows[i].unknown)
                        holder_link_post(s->link, LINK_WINDOW_REMOVE, ledger_next_id(s->broker->ledger), rec->windows[i].domain,
                                         &rec->windows[i].w, sizeof rec->windows[i].w, NULL, 0);
}
