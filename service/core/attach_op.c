/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/revoke.h"
#include "core/broker_private.h"
#include "core/device.h"
#include "core/domain.h"
#include "core/domain_tables.h"
#include "core/domain_window.h"
#include "core/holder_link.h"
#include "core/op.h"
#include "core/revocation.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"
#include "util/text.h"

/*
 * Attach and detach. The broker opens the nodes and keeps duplicates (core/lease.c); the holder makes the container, replays
 * the domain's mappings into it and opens the device; its device fd comes back and is kept; only then may the client have
 * one (I12).
 */
struct attachment *attachment_add(struct session *s, struct domain *d, uint64_t id, const char *device, uint32_t group,
                                  enum ledger_object_state state) {
        struct attachment *a = calloc(1, sizeof *a);

        if (!a)
                return NULL;
        a->id = id;
        a->domain = d;
        a->group = group;
        a->state = state;
        text_copy(a->device, sizeof a->device, device);
        HASH_ADD(hh, s->attachments, id, sizeof a->id, a);
        d->n_attachments++;
        return a;
}

void attachment_remove(struct session *s, struct attachment *a) {
        a->domain->n_attachments--;
        HASH_DEL(s->attachments, a);
        free(a);
}

static const struct quota_amounts one_device = { .of[RESOURCE_DEVICES] = 1 };

/* The settle's row is kept behind the message, as the attachment may be gone by then. */
struct attach_payload {
        struct link_attach message;
        struct ledger_attachment row;
        bool has_window;
        struct ledger_window window;    /* the default one, which follows the constraints */
};

static int write_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct attach_payload *p = op_payload(op);

        return ledger_attachment_put(ledger, &p->row, r) < 0 ? -1 : ledger_op_intend(ledger, &op->row, r);
}

static int write_attach_settle(struct op *op, struct ledger *ledger, struct refusal *r) {
        struct attach_payload *p = op_payload(op);
        struct ledger_attachment row = p->row;

        row.state = LEDGER_LIVE;
        if (p->has_window && ledger_window_put(ledger, &p->window, r) < 0)
                return -1;
        return op->applied ? ledger_attachment_put(ledger, &row, r) : ledger_attachment_delete(ledger, row.id, r);
}

static int write_detach_settle(struct op *op, struct ledger *ledger, struct refusal *r) {
        struct attach_payload *p = op_payload(op);
        struct ledger_attachment row = p->row;

        row.state = LEDGER_LIVE;
        if (p->has_window && ledger_window_put(ledger, &p->window, r) < 0)
                return -1;
        return op->applied ? ledger_attachment_delete(ledger, row.id, r) : ledger_attachment_put(ledger, &row, r);
}

/* Windows of the IOMMU's own outlive its containers: the holder makes them anew in the next one. */
static void set_info(struct op *op, struct domain *d, const struct container_info *info) {
        struct attach_payload *p = op_payload(op);
        const struct window *w;

        d->has_info = info->n_ranges > 0;
        if (d->has_info)
                d->info = *info;
        else if (d->info.windows.max_windows == 0)
                constraints_default(d->session->broker, &d->info);
        domain_windows_follow(d);
        w = domain_default_window(d);
        p->has_window = w != NULL;
        if (w)
                window_fill_row(w, d->id, &p->window);
}

/* Keeps what revokes, then allows the holder to give the client its fd. */
static void attached(struct op *op, const struct link_result *result, int *fd) {
        struct session *s = op->session;
        struct attachment *a = op->of.attach.attachment;
        const struct link_attachment ack = { a->id };

        if (*fd >= 0)
                (void)lease_keep_device(s->broker, s->id, a->group, fd_steal(fd));
        FAILPOINT(attach_kept);
        a->state = LEDGER_LIVE;
        set_info(op, a->domain, &result->info);
        op->answer.info = a->domain->info;
        if (s->link)
                holder_link_post(s->link, LINK_ATTACH_ACK, 0, a->domain->id, &ack, sizeof ack, NULL, 0);
        FAILPOINT(attach_acked);
        broker_audit(s->broker, "device.leased", &s->peer, a->device);
}

/* Opens the nodes, or joins the container that the domain has for the group. */
static int prepare_attach(struct op *op, struct refusal *r) {
        struct attachment *a = op->of.attach.attachment;
        bool fresh;

        if (lease_take(op->session->broker, op->session, a->domain->id, a->group, a->device, &fresh, &op->fds[0], &op->fds[1],
                       r) < 0)
                return -1;
        FAILPOINT(lease_taken);
        op->of.attach.leased = true;
        op->n_fds = op->fds[0] >= 0 && op->fds[1] >= 0 ? 2 : 0;
        return 0;
}

static void take_away(struct session *s, struct attachment *a) {
        struct domain *d = a->domain;
        struct refusal ignored;

        attachment_remove(s, a);
        (void)domain_charge_tables(d, &ignored);         /* less than before */
        quota_refund(&s->tenant->account, &one_device);
}

static void finish_attach(struct op *op, struct link_result *result, int *fd) {
        struct session *s = op->session;
        struct attachment *a = op->of.attach.attachment;

        a->domain->busy--;
        if (result->flags & LINK_RESULT_UNDO_FAILED)
                a->domain->state = LEDGER_QUARANTINED;
        if (op_outcome_unknown(result))
                return;
        if (result->refusal.reason == REFUSAL_NONE && *fd >= 0 && !revoke_is_device_fd(*fd)) {
                /* A holder that sends something else is not ours any more (DESIGN, section 4, Trust). The attachment stays
                 * until the revocation. */
                log_error("session %" PRIu64 ": its holder sent what is not a VFIO device", s->id);
                refuse(&result->refusal, REFUSAL_HOLDER_LOST, "the session's holder broke the protocol; the session ends");
                op->of.attach.revoke = true;
        } else if (result->refusal.reason == REFUSAL_NONE)
                attached(op, result, fd);
        else {
                op->of.attach.drop_lease = op->of.attach.leased;
                take_away(s, a);
        }
}

static void after_device(struct op *op) {
        if (op->of.attach.revoke)
                revocation_begin(op->session, REFUSAL_HOLDER_LOST, "its holder sent what is not a VFIO device");
        if (op->of.attach.drop_lease)
                lease_drop(op->session->broker, op->of.attach.group);
}

static int check_device_name(const char *name, struct refusal *r) {
        size_t n = strlen(name);

        return n > 0 && n < BACKEND_DEVICE_NAME_MAX ? 0
                                                     : refuse(r, REFUSAL_UNKNOWN_DEVICE, "no device has a name of %zu bytes", n);
}

struct attach_admission {
        const struct attach_request *request;
        uint32_t group;
};

/* With the session's lock held: the object and the charge. The lease is taken later, without the lock. */
static struct op *admit_attach(struct session *s, const void *request, struct answer *ret,
                               struct refusal *r) {
        const struct attach_admission *admission = request;
        const struct attach_request *req = admission->request;
        struct domain *d = session_find_domain(s, req->domain, r);
        struct attach_payload *p;
        struct attachment *a;
        struct op *op;

        (void)ret;
        if (!d || domain_is_usable(d, r) < 0)
                return NULL;
        for (a = s->attachments; a; a = a->hh.next)
                if (strcmp(a->device, req->device) == 0) {
                        refuse(r, REFUSAL_DEVICE_BUSY, "device %s is attached to domain %" PRIu64 " of this session already",
                               a->device, a->domain->id);
                        return NULL;
                }
        if (quota_charge(&s->tenant->account, &one_device, r) < 0)
                return NULL;
        op = op_new(s, LEDGER_OP_ATTACH, LINK_ATTACH, sizeof *p);
        a = op ? attachment_add(s, d, ledger_next_id(s->broker->ledger), req->device, admission->group, LEDGER_INTENDED) : NULL;
        if (!a) {
                if (op)
                        op_unref(op);
                quota_refund(&s->tenant->account, &one_device);
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        if (domain_charge_tables(d, r) < 0) {
                op_unref(op);
                take_away(s, a);
                return NULL;
        }
        d->busy++;
        p = op_payload(op);
        p->message.attachment = a->id;
        p->message.backend = s->broker->options.backend;
        p->message.group = a->group;
        text_copy(p->message.device, sizeof p->message.device, a->device);
        p->row = (struct ledger_attachment){ .id = a->id, .domain = d->id, .group = a->group,
                                             .backend = s->broker->options.backend, .state = LEDGER_INTENDED };
        text_copy(p->row.device, sizeof p->row.device, a->device);
        op->of.attach.attachment = a;
        op->of.attach.group = a->group;
        op->after = after_device;
        op->row.object = op->answer.id = a->id;
        op->message[0].domain = d->id;
        op->message_size = sizeof(struct link_header) + sizeof p->message;
        op->deadline_ms = monotonic_ms() + s->broker->options.operation_deadline_ms;
        op->write_intent = write_intent;
        op->write_settle = write_attach_settle;
        op->finish = finish_attach;
        op->prepare = prepare_attach;
        return op;
}

void device_attach_request(struct session *s, const struct attach_request *req, struct reply *reply) {
        struct attach_admission admission = { .request = req };
        uint64_t hash = request_hash_u64(request_hash_u64(REQUEST_HASH_INIT, LEDGER_OP_ATTACH), req->domain);
        struct refusal r;

        if (check_device_name(req->device, &r) < 0 ||
            device_find_usable(s->broker, s->tenant, req->device, &admission.group, &r) < 0) {
                reply_refused(reply, &r);
                return;
        }
        if (broker_is_recovering(s->broker)) {
                refuse(&r, REFUSAL_RECOVERING, "the service has just been restarted and does not know yet which devices are in "
                                               "use; repeat the request");
                reply_refused(reply, &r);
                return;
        }
        hash = request_hash(hash, req->device, strlen(req->device));
        request_start(s, &req->key, hash, reply, admit_attach, &admission);
}

/* ---- detach ---- */

static void finish_detach(struct op *op, struct link_result *result, int *fd) {
        struct session *s = op->session;
        struct attachment *a = op->of.attach.attachment;

        (void)fd;
        a->domain->busy--;
        if (op_outcome_unknown(result))
                return;
        if (result->refusal.reason != REFUSAL_NONE) {
                a->state = LEDGER_LIVE;
                return;
        }
        set_info(op, a->domain, &result->info);
        broker_audit(s->broker, "device.returned", &s->peer, a->device);
        take_away(s, a);
        op->of.attach.drop_lease = true;
}

static struct op *admit_detach(struct session *s, const void *request, struct answer *ret,
                               struct refusal *r) {
        const struct detach_request *req = request;
        struct attachment *a = session_find_attachment(s, req->attachment, r);
        struct attach_payload *p;
        struct op *op;

        (void)ret;
        if (!a)
                return NULL;
        op = op_new(s, LEDGER_OP_DETACH, LINK_DETACH, sizeof *p);
        if (!op) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        a->state = LEDGER_ENDING;
        a->domain->busy++;
        p = op_payload(op);
        p->message.attachment = a->id;          /* struct link_attachment is its first member's place */
        p->row = (struct ledger_attachment){ .id = a->id, .domain = a->domain->id, .group = a->group,
                                             .backend = s->broker->options.backend, .state = LEDGER_ENDING };
        text_copy(p->row.device, sizeof p->row.device, a->device);
        op->of.attach.attachment = a;
        op->of.attach.group = a->group;
        op->after = after_device;
        op->row.object = a->id;
        op->message[0].domain = a->domain->id;
        op->message_size = sizeof(struct link_header) + sizeof(struct link_attachment);
        op->deadline_ms = monotonic_ms() + s->broker->options.operation_deadline_ms;
        op->write_intent = write_intent;
        op->write_settle = write_detach_settle;
        op->finish = finish_detach;
        return op;
}

void device_detach_request(struct session *s, const struct detach_request *req, struct reply *reply) {
        uint64_t hash = request_hash_u64(request_hash_u64(REQUEST_HASH_INIT, LEDGER_OP_DETACH), req->attachment);

        request_start(s, &req->key, hash, reply, admit_detach, req);
}

/* ---- an operator takes a device back ---- */

struct waiting_reply {
        struct reply reply;
        pthread_mutex_t lock;
        pthread_cond_t answered;
        bool done, refused, abandoned;
};

static void release_answered(struct reply *reply, const struct refusal *refusal, const struct answer *answer) {
        struct waiting_reply *w = (struct waiting_reply *)reply;
        bool abandoned;

        (void)answer;
        pthread_mutex_lock(&w->lock);
        w->done = true;
        w->refused = refusal != NULL;
        abandoned = w->abandoned;
        pthread_cond_signal(&w->answered);
        pthread_mutex_unlock(&w->lock);
        if (abandoned)
                free(w);
}

/* Detaches through the holder, like the client would, but waits only so long. False: it did not happen in time. */
static bool detach_within(struct session *s, uint64_t attachment, time_t seconds) {
        const struct detach_request req = { .attachment = attachment };
        struct waiting_reply *w = calloc(1, sizeof *w);
        struct timespec until;
        bool ok;

        if (!w)
                return false;
        w->reply.done = release_answered;
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->answered, NULL);
        device_detach_request(s, &req, &w->reply);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += seconds;
        pthread_mutex_lock(&w->lock);
        while (!w->done && pthread_cond_timedwait(&w->answered, &w->lock, &until) == 0)
                ;
        ok = w->done && !w->refused;
        w->abandoned = !w->done;
        if (w->abandoned) {
                pthread_mutex_unlock(&w->lock);
                return false;           /* whoever answers frees it */
        }
        pthread_mutex_unlock(&w->lock);
        free(w);
        return ok;
}

static uint64_t attachment_of_group(struct session *s, uint32_t group) {
        LOCK_SCOPE(&s->lock);

        for (struct attachment *a = s->attachments; a; a = a->hh.next)
                if (a->group == group && a->state == LEDGER_LIVE)
                        return a->id;
        return 0;
}

int device_release(struct broker *b, const char *device, const char **ret_state, struct refusal *r) {
        struct session *s = NULL;
        uint64_t attachment;
        uint32_t group;
        struct lease l;

        if (device_find_usable(b, NULL, device, &group, r) < 0)
                return -1;
        if (lease_describe(b, group, &l) && l.state == LEASE_HELD)
                s = session_find(b, l.session);
        while (s && (attachment = attachment_of_group(s, group)) != 0)
                if (!detach_within(s, attachment, 5)) {
                        log_warning("session %" PRIu64 " does not give %s back: it is ended", s->id, device);
                        revocation_begin(s, REFUSAL_NOT_PERMITTED, "an operator took its device back");
                        break;
                }
        if (s)
                broker_audit(b, "device.released", &s->peer, device);
        session_unref(s);
        lease_check_orphans(b);
        *ret_state = !lease_describe(b, group, &l) ? "free" : l.state == LEASE_ORPHANED ? "orphaned" : "leased";
        return 0;
}
