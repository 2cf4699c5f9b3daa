/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include "core/reconcile.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/device.h"
#include "core/domain.h"
#include "core/holder_link.h"
#include "core/op.h"
#include "core/recovery.h"
#include "core/revocation.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

/* Everything below: session's lock held, recovery sorted. `differs` counts what no open operation explains. */

static void reconcile_mappings(struct domain *d, struct recovery *rec) {
        static const struct iova_range all = { 0, UINT64_MAX };
        struct mapping *next;

        for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = next) {
                struct dumped_mapping *there = recovery_find_mapping(rec, d->id, m->range.first);
                struct noted_op *op = recovery_op_of_row(rec, d->id, m->range.first);

                next = mapping_set_next(&d->mappings, m);
                if (there && there->m.length == iova_range_length(m->range) && there->m.memory == m->memory->id &&
                    there->m.offset == m->offset && there->m.access == m->access) {
                        there->explained = true;
                        m->state = MAPPING_LIVE;
                        if (op)
                                op->applied = true;
                        continue;
                }
                recovery_note_lost(rec, LOST_MAPPING, d->id, m->range.first);
                m->memory->mappings--;
                mapping_set_remove(&d->mappings, m);
        }
}

/* Rows that the holder does not have are explained only by an open map or unmap. */
static bool is_being_changed(const struct recovery *rec, uint64_t object) {
        for (size_t i = 0; i < rec->n_ops; i++)
                if (rec->ops[i].row.object == object)
                        return true;
        return false;
}

static void reconcile_domains(struct session *s, struct recovery *rec, unsigned *differs) {
        struct domain *d, *next;

        HASH_ITER(hh, s->domains, d, next) {
                const struct dumped_domain *there = recovery_find_domain(rec, d->id);
                uint64_t before = d->mappings.count;

                if (!there) {
                        *differs += !is_being_changed(rec, d->id);
                        for (struct attachment *a = s->attachments, *after; a; a = after) {
                                after = a->hh.next;
                                if (a->domain == d)
                                        attachment_remove(s, a);        /* its row goes with the domain's */
                        }
                        recovery_note_lost(rec, LOST_DOMAIN, d->id, 0);
                        domain_remove(d);
                        continue;
                }
                d->state = there->d.quarantined ? LEDGER_QUARANTINED : LEDGER_LIVE;
                d->has_info = there->d.info.n_ranges > 0;
                if (d->has_info)
                        d->info = there->d.info;
                reconcile_mappings(d, rec);
                if (d->mappings.count != before && !is_being_changed(rec, d->id))
                        *differs += 1;
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
                if (!there->a.acked)
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
                        free(m);
                        continue;
                }
                m->state = LEDGER_LIVE;
                m->page_size = there->info.page_size;
                m->dev = there->info.dev;
                m->ino = there->info.ino;
                m->sealed = there->info.sealed != 0;
                m->writable = there->info.writable != 0;
        }
}

/* What the holder has and no row explains is undone (I2). Also counts: it cannot happen while intents precede acts. */
static void undo_unexplained(struct session *s, struct recovery *rec, unsigned *differs) {
        for (size_t i = 0; i < rec->n_mappings; i++) {
                const struct dumped_mapping *m = &rec->mappings[i];
                const struct link_unmap_entry entry = { m->m.iova, m->m.length };

                if (m->explained)
                        continue;
                *differs += 1;
                log_error("session %" PRIu64 ": its holder has a mapping at 0x%" PRIx64 " that the ledger does not know: undone",
                          s->id, m->m.iova);
                holder_link_post(s->link, LINK_UNMAP, ledger_next_id(s->broker->ledger), m->domain, &entry, sizeof entry, NULL, 0);
        }
}

/* Did the open operation happen? MAP was found out with its rows. */
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
        case LEDGER_OP_UNMAP:
                return op->ranges == 0 || recovery_find_mapping(rec, op->row.object, op->first.iova) == NULL;
        case LEDGER_OP_MAP:
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
                struct ledger_domain row = { .id = d->id, .session = s->id, .state = d->state };

                text_copy(row.label, sizeof row.label, d->label);
                if (ledger_domain_put(ledger, &row, r) < 0)
                        return -1;
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
        case LEDGER_OP_MAP:
        case LEDGER_OP_UNMAP:
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
        case LOST_DOMAIN:
        default:
                return ledger_domain_delete(ledger, lost->id, r);
        }
}

static int write_reconciled(struct journal_entry *entry, struct ledger *ledger, struct refusal *r) {
        struct session *s = ((struct reconcile_entry *)entry)->session;
        struct recovery *rec = s->recovery;

        for (size_t i = 0; i < rec->n_ops; i++)
                if (ledger_op_settle(ledger, &rec->ops[i].row, rec->ops[i].applied, r) < 0 ||
                    delete_object(ledger, &rec->ops[i], r) < 0)
                        return -1;
        for (size_t i = 0; i < rec->n_lost; i++)        /* mappings and domains were noted before the memory they use */
                if (delete_lost(ledger, &rec->lost[i], r) < 0)
                        return -1;
        if (rec->out_of_memory)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        return write_objects(s, ledger, r);
}

/* What a repeated key is answered. An operation that did not happen leaves no trace: repeating it does it. */
static void answer_of(struct session *s, struct noted_op *op) {
        struct answer answer = { .id = op->row.object };
        struct memory *m;

        op->row.settled = true;
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
        } else if (op->row.kind == LEDGER_OP_UNMAP) {
                answer.unmapped_bytes = op->bytes;
                answer.unmapped_mappings = op->ranges;
        }
        op_answer_store(&op->row, &answer, NULL);
        if (op_key_restore(s, &op->row) < 0)
                log_error("out of memory: a repeated request of session %" PRIu64 " will not be recognised", s->id);
}

static void refund_difference(struct session *s, const struct quota_amounts *before) {
        struct quota_amounts now, gone;

        session_charges(s, &now);
        for (unsigned i = 0; i < _RESOURCE_N; i++)
                gone.of[i] = before->of[i] - now.of[i];         /* reconciling only takes away */
        quota_refund(&s->tenant->account, &gone);
}

int reconcile_session(struct session *s) {
        struct reconcile_entry entry = { .entry.apply = write_reconciled, .session = s };
        struct quota_amounts before;
        unsigned differs = 0;
        struct refusal r;

        pthread_mutex_lock(&s->lock);
        recovery_sort(s->recovery);
        session_charges(s, &before);
        reconcile_domains(s, s->recovery, &differs);
        reconcile_attachments(s, s->recovery, &differs);
        reconcile_memories(s, s->recovery, &differs);
        undo_unexplained(s, s->recovery, &differs);
        for (size_t i = 0; i < s->recovery->n_ops; i++) {
                s->recovery->ops[i].applied = was_applied(s->recovery, &s->recovery->ops[i]);
                answer_of(s, &s->recovery->ops[i]);
        }
        refund_difference(s, &before);
        pthread_mutex_unlock(&s->lock);
        /* Still RECONCILING: nobody changes the session while its rows are written. */
        if (journal_commit(s->broker->journal, &entry.entry, &r) < 0) {
                log_error("session %" PRIu64 ": what its holder told cannot be recorded: %s", s->id, r.text);
                revocation_begin(s, REFUSAL_LEDGER_UNAVAILABLE, "what its holder told could not be recorded");
                return -1;
        }
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
