/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include "core/reconcile.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/adopt.h"
#include "core/broker_private.h"
#include "core/device.h"
#include "core/domain.h"
#include "core/domain_tables.h"
#include "core/holder_link.h"
#include "core/op.h"
#include "core/reconcile_private.h"
#include "core/recovery.h"
#include "core/revocation.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"
#include "util/text.h"

/* Everything below: session's lock held, recovery sorted. `differs` counts what no open operation explains. */

/* Rows that the holder does not have are explained only by an open map or unmap. */
static bool is_being_changed(const struct recovery *rec, uint64_t object) {
        for (size_t i = 0; i < rec->n_ops; i++)
                if (rec->ops[i].row.object == object)
                        return true;
        return false;
}

static void release_all(struct domain *d) {
        static const struct iova_range all = { 0, UINT64_MAX };
        struct mapping *m;

        while ((m = mapping_set_find(&d->mappings, all)))
                mapping_release(d, m);
}

static void reconcile_domains(struct session *s, struct recovery *rec, unsigned *differs) {
        struct domain *d, *next;

        HASH_ITER(hh, s->domains, d, next) {
                const struct dumped_domain *there = recovery_find_domain(rec, d->id);

                if (!there) {
                        *differs += !is_being_changed(rec, d->id);
                        for (struct attachment *a = s->attachments, *after; a; a = after) {
                                after = a->hh.next;
                                if (a->domain == d)
                                        attachment_remove(s, a);        /* its row goes with the domain's */
                        }
                        recovery_note_lost(rec, LOST_DOMAIN, d->id, 0);
                        release_all(d);
                        domain_remove(d);
                        continue;
                }
                d->state = there->d.quarantined ? LEDGER_QUARANTINED : LEDGER_LIVE;
                d->has_info = there->d.info.n_ranges > 0;
                if (d->has_info)
                        d->info = there->d.info;
                reconcile_mappings(d, rec, differs);
                reconcile_windows(s, d, rec, differs);
        }
}

static void reconcile_attachments(struct session *s, struct recovery *rec, unsigned *differs) {
        struct attachment *a, *next;

        HASH_ITER(hh, s->attachments, a, next) {
                const struct dumped_attachment *there = recovery_find_attachment(rec, a->id);
                const struct link_attachment ack = { a->id };

                if (!there) {
                        *differs += !is_being_changed(rec, a->id);
                        recovery_note_lost(rec, LOST_ATTACHMENT, a->id, 0);
                        attachment_remove(s, a);
                        continue;
                }
                a->state = LEDGER_LIVE;
                /* Also where the last service had said so: a holder gives out no device fd on the word of one that is gone. */
                holder_link_post(s->link, LINK_ATTACH_ACK, 0, there->domain, &ack, sizeof ack, NULL, 0);
        }
}

static void reconcile_memories(struct session *s, struct recovery *rec, unsigned *differs) {
        struct memory *m, *next;

        HASH_ITER(hh, s->memories, m, next) {
                const struct link_dump_memory *there = recovery_find_memory(rec, m->id);

                if (!there) {
                        *differs += !is_being_changed(rec, m->id);
                        if (m->mappings > 0)
                                continue;       /* cannot be: the holder has mappings of it */
                        recovery_note_lost(rec, LOST_MEMORY, m->id, 0);
                        HASH_DEL(s->memories, m);
                        locked_file_unref(&s->tenant->account, m->file);
                        free(m);
                        continue;
                }
                m->state = LEDGER_LIVE;
                m->page_size = there->info.page_size;
                m->dev = there->info.dev;
                m->ino = there->info.ino;
                m->sealed = there->info.sealed != 0;
                m->writable = there->info.writable != 0;
                memory_identify(s, m);
        }
}

/* Unmaps of one domain, many in a message: a message each could be more than the link's queue holds. */
struct undo {
        struct session *session;
        uint64_t domain;
        size_t n;
        struct link_unmap_entry entries[LINK_BATCH_MAX];
};

static void undo_send(struct undo *u) {
        if (u->n > 0 && holder_link_post(u->session->link, LINK_UNMAP, ledger_next_id(u->session->broker->ledger), u->domain,
                                         u->entries, u->n * sizeof u->entries[0], NULL, 0) < 0)
                log_error("session %" PRIu64 ": its holder does not take what is to be undone", u->session->id);
        u->n = 0;
}

static void undo_add(struct undo *u, const struct dumped_mapping *m) {
        if (u->n == ARRAY_SIZE(u->entries) || m->domain != u->domain)
                undo_send(u);
        u->domain = m->domain;
        u->entries[u->n++] = (struct link_unmap_entry){ m->m.iova, m->m.length };
}

/* What the holder has and no row explains is undone (I2). Where it was to go that is what was still to do; elsewhere it also
 * counts: it cannot happen while intents precede acts. */
static void undo_unexplained(struct session *s, struct recovery *rec, unsigned *differs) {
        struct undo undo = { .session = s };

        for (size_t i = 0; i < rec->n_mappings; i++) {
                const struct dumped_mapping *m = &rec->mappings[i];

                if (m->explained)
                        continue;
                if (!was_to_go(rec, m)) {
                        *differs += 1;
                        log_error("session %" PRIu64 ": its holder has a mapping at 0x%" PRIx64 " that the ledger does not know: "
                                  "undone", s->id, m->m.iova);
                }
                undo_add(&undo, m);
        }
        undo_send(&undo);
}

/* Did the open operation happen? Of maps and unmaps reconcile_mappings.c has found it out. */
static bool was_applied(const struct recovery *rec, const struct noted_op *op) {
        switch (op->row.kind) {
        case LEDGER_OP_CREATE_DOMAIN:
                return recovery_find_domain(rec, op->row.object) != NULL;
        case LEDGER_OP_DESTROY_DOMAIN:
                return recovery_find_domain(rec, op->row.object) == NULL;
        case LEDGER_OP_ATTACH:
                return recovery_find_attachment(rec, op->row.object) != NULL;
        case LEDGER_OP_DETACH:
                return recovery_find_attachment(rec, op->row.object) == NULL;
        case LEDGER_OP_REGISTER:
                return recovery_find_memory(rec, op->row.object) != NULL;
        case LEDGER_OP_UNREGISTER:
                return recovery_find_memory(rec, op->row.object) == NULL;
        default:
                return op->applied;
        }
}

/* ---- the ledger follows ---- */

struct reconcile_entry {
        struct journal_entry entry;
        struct session *session;
};

static int write_objects(struct session *s, struct ledger *ledger, struct refusal *r) {
        for (struct memory *m = s->memories; m; m = m->hh.next) {
                const struct ledger_memory row = { .id = m->id, .session = s->id, .size = m->size, .page_size = m->page_size,
                                                   .dev = m->dev, .ino = m->ino, .sealed = m->sealed, .writable = m->writable,
                                                   .state = m->state };

                if (ledger_memory_put(ledger, &row, r) < 0)
                        return -1;
        }
        for (struct domain *d = s->domains; d; d = d->hh.next) {
                struct ledger_domain row = { .id = d->id, .session = s->id, .state = d->state, .lazy = d->lazy.enabled };

                text_copy(row.label, sizeof row.label, d->label);
                if (ledger_domain_put(ledger, &row, r) < 0)
                        return -1;
                for (size_t i = 0; i < d->windows.n; i++) {
                        struct ledger_window window;

                        window_fill_row(d->windows.of[i], d->id, &window);
                        if (ledger_window_put(ledger, &window, r) < 0)
                                return -1;
                }
        }
        for (struct attachment *a = s->attachments; a; a = a->hh.next) {
                struct ledger_attachment row = { .id = a->id, .domain = a->domain->id, .group = a->group, .state = a->state,
                                                 .backend = s->broker->options.backend };

                text_copy(row.device, sizeof row.device, a->device);
                if (ledger_attachment_put(ledger, &row, r) < 0)
                        return -1;
        }
        return 0;
}

/* The row of an object whose making did not happen, or whose end did. */
static int delete_object(struct ledger *ledger, const struct noted_op *op, struct refusal *r) {
        switch (op->row.kind) {
        case LEDGER_OP_CREATE_DOMAIN:
                return op->applied ? 0 : ledger_domain_delete(ledger, op->row.object, r);
        case LEDGER_OP_DESTROY_DOMAIN:
                return op->applied ? ledger_domain_delete(ledger, op->row.object, r) : 0;
        case LEDGER_OP_ATTACH:
                return op->applied ? 0 : ledger_attachment_delete(ledger, op->row.object, r);
        case LEDGER_OP_DETACH:
                return op->applied ? ledger_attachment_delete(ledger, op->row.object, r) : 0;
        case LEDGER_OP_REGISTER:
                return op->applied ? 0 : ledger_memory_delete(ledger, op->row.object, r);
        case LEDGER_OP_UNREGISTER:
                return op->applied ? ledger_memory_delete(ledger, op->row.object, r) : 0;
        default:
                return 0;
        }
}

static int delete_lost(struct ledger *ledger, const struct lost_object *lost, struct refusal *r) {
        switch (lost->kind) {
        case LOST_MAPPING:
                return ledger_mapping_delete(ledger, lost->id, lost->iova, r);
        case LOST_ATTACHMENT:
                return ledger_attachment_delete(ledger, lost->id, r);
        case LOST_MEMORY:
                return ledger_memory_delete(ledger, lost->id, r);
        case LOST_WINDOW:
                return ledger_window_delete(ledger, lost->id, r);
        case LOST_DOMAIN:
        default:
                return ledger_domain_delete(ledger, lost->id, r);
        }
}

static int write_reconciled(struct journal_entry *entry, struct ledger *ledger, struct refusal *r) {
        struct session *s = ((struct reconcile_entry *)entry)->session;
        struct recovery *rec = s->recovery;

        for (size_t i = 0; i < rec->n_ops; i++)
                if (!rec->ops[i].open && (ledger_op_settle(ledger, &rec->ops[i].row, rec->ops[i].applied, r) < 0 ||
                    delete_object(ledger, &rec->ops[i], r) < 0))
                        return -1;
        for (size_t i = 0; i < rec->n_lost; i++)        /* mappings and domains were noted before the memory they use */
                if (delete_lost(ledger, &rec->lost[i], r) < 0)
                        return -1;
        if (rec->out_of_memory)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        FAILPOINT(reconcile_written);
        return write_objects(s, ledger, r);
}

static void answer_of_unmap(const struct noted_op *op, struct answer *ret) {
        for (size_t i = 0; i < op->n_ranges; i++)
                ret->unmapped_bytes += op->ranges[i].length;
        for (size_t i = 0; i < op->n_rests; i++)
                ret->unmapped_bytes -= op->rests[i].length;
        ret->unmapped_mappings = op->n_ranges;
}

/* A part of it is done and could not be undone: that is all that can be said of it. */
static void answer_quarantined(struct session *s, struct noted_op *op) {
        const struct answer nothing = { 0 };
        struct refusal r;

        refuse(&r, REFUSAL_DOMAIN_QUARANTINED,
               "domain %" PRIu64 " is quarantined: this operation was done in part and could not be undone", op->row.object);
        op_answer_store(&op->row, &nothing, &r);
        if (op_key_restore(s, &op->row) < 0)
                log_error("out of memory: a repeated request of session %" PRIu64 " will not be recognised", s->id);
}

static void answer_of_window(struct session *s, const struct noted_op *op, struct answer *ret) {
        struct window *w = NULL;
        struct refusal ignored;
        struct domain *d;

        HASH_FIND(hh, s->domains, &op->row.object, sizeof op->row.object, d);
        if (d)
                w = window_set_find(&d->windows, op->row.effect.made.memory, &ignored);
        if (!w)
                return;
        ret->id = w->id;
        window_fill_view(w, &ret->window);
}

/* What a repeated key is answered. An operation that did not happen leaves no trace: repeating it does it. */
static void answer_of(struct session *s, struct noted_op *op) {
        struct answer answer = { .id = op->row.object };
        struct attachment *a;
        struct memory *m;

        op->row.settled = true;
        if (op->open && op->row.kind != LEDGER_OP_UNMAP_LAZY) {
                answer_quarantined(s, op);
                return;
        }
        if (!op->applied) {
                op->row.has_key = false;
                return;
        }
        if (op->row.kind == LEDGER_OP_REGISTER) {
                HASH_FIND(hh, s->memories, &op->row.object, sizeof op->row.object, m);
                if (m) {
                        answer.size = m->size;
                        answer.page_size = m->page_size;
                        answer.sealed = m->sealed;
                }
        } else if (op->row.kind == LEDGER_OP_ATTACH) {
                HASH_FIND(hh, s->attachments, &op->row.object, sizeof op->row.object, a);
                if (a)
                        answer.info = a->domain->info;
        } else if (op->row.kind == LEDGER_OP_UNMAP || op->row.kind == LEDGER_OP_UNMAP_LAZY ||
                   op->row.kind == LEDGER_OP_REMOVE_WINDOW || op->row.kind == LEDGER_OP_RESET_WINDOWS)
                answer_of_unmap(op, &answer);
        else if (op->row.kind == LEDGER_OP_CREATE_WINDOW)
                answer_of_window(s, op, &answer);
        if (op->row.answer_size == 0)           /* else it was recorded with the intent */
                op_answer_store(&op->row, &answer, NULL);
        if (op_key_restore(s, &op->row) < 0)
                log_error("out of memory: a repeated request of session %" PRIu64 " will not be recognised", s->id);
}

/* Reconciling takes away, and adds what stays of a mapping that was cut: the account follows, whatever the limits. */
static void charge_difference(struct session *s, const struct quota_amounts *before) {
        struct quota_amounts now, gone = { 0 }, come = { 0 };

        session_charges(s, &now);
        for (unsigned i = 0; i < _RESOURCE_N; i++)
                if (before->of[i] > now.of[i])
                        gone.of[i] = before->of[i] - now.of[i];
                else
                        come.of[i] = now.of[i] - before->of[i];
        quota_refund(&s->tenant->account, &gone);
        if (!quota_adopt(&s->tenant->account, &come))
                log_error("session %" PRIu64 ": what it is charged passes 2^64", s->id);
}

void reconcile_session(struct session *s) {
        struct quota_amounts before;

        pthread_mutex_lock(&s->lock);
        recovery_sort(s->recovery);
        session_charges(s, &before);
        reconcile_open_changes(s, s->recovery);
        reconcile_domains(s, s->recovery, &s->recovery->differs);
        reconcile_attachments(s, s->recovery, &s->recovery->differs);
        for (struct domain *d = s->domains; d; d = d->hh.next)
                domain_adopt_tables(d);
        reconcile_memories(s, s->recovery, &s->recovery->differs);
        undo_unexplained(s, s->recovery, &s->recovery->differs);
        remove_unknown_windows(s, s->recovery);
        for (size_t i = 0; i < s->recovery->n_ops; i++) {
                s->recovery->ops[i].applied = was_applied(s->recovery, &s->recovery->ops[i]);
                answer_of(s, &s->recovery->ops[i]);
        }
        charge_difference(s, &before);
        pthread_mutex_unlock(&s->lock);
        FAILPOINT(reconcile_decided);
}

/* Still RECONCILING: nobody changes the session while its rows are written. A ledger that cannot be written costs nobody the
 * session: it waits, as the client does, whose requests are answered with RECOVERING. */
int reconcile_record(struct session *s) {
        struct reconcile_entry entry = { .entry.apply = write_reconciled, .session = s };
        unsigned differs;
        struct refusal r;

        if (journal_commit(s->broker->journal, &entry.entry, &r) < 0) {
                LOCK_SCOPE(&s->lock);

                if (!s->recovery->unrecorded)
                        log_error("session %" PRIu64 ": what its holder told cannot be recorded yet: %s", s->id, r.text);
                s->recovery->unrecorded = true;
                return -1;
        }
        differs = s->recovery->differs;
        FAILPOINT(reconcile_committed);
        if (differs > 0 && !s->recovery->client_gone) {         /* a holder unmaps by itself when its client dies */
                log_error("session %" PRIu64 " of tenant %s: ledger and holder differ in %u places that no operation explains",
                          s->id, s->tenant->name, differs);
                broker_audit(s->broker, "ledger.differs", &s->peer, "ledger and holder differ; the holder's account counts");
        }
        pthread_mutex_lock(&s->lock);
        if (s->stage == SESSION_RECONCILING)
                s->stage = SESSION_LIVE;
        pthread_mutex_unlock(&s->lock);
        log_notice("session %" PRIu64 " of tenant %s goes on: its holder (pid %u) is back", s->id, s->tenant->name,
                   s->holder_pid);
        return 0;
}
