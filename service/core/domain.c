/* SPDX-License-Identifier: Apache-2.0 */
#include "core/domain.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/broker_private.h"
#include "core/change.h"
#include "core/device.h"
#include "core/domain_window.h"
#include "core/op.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

struct domain *domain_add(struct session *s, uint64_t id, const char *label, bool lazy, enum ledger_object_state state) {
        struct domain *d = calloc(1, sizeof *d);

        if (!d)
                return NULL;
        d->id = id;
        d->session = s;
        d->state = state;
        text_copy(d->label, sizeof d->label, label);
        constraints_default(s->broker, &d->info);
        window_set_init(&d->windows);
        mapping_set_init(&d->mappings);
        d->mappings.windows = &d->windows;
        shared_page_set_init(&d->pages);
        table_pages_init(&d->tables, page_mask_smallest(d->info.page_sizes));
        d->containers = 1;
        lazy_init(d, lazy);
        HASH_ADD(hh, s->domains, id, sizeof d->id, d);
        return d;
}

void domain_remove(struct domain *d) {
        static const struct iova_range all = { 0, UINT64_MAX };

        for (struct mapping *m = mapping_set_find(&d->mappings, all); m; m = mapping_set_next(&d->mappings, m))
                m->memory->mappings--;
        domain_clear(d);
        HASH_DEL(d->session->domains, d);
        free(d);
}

void domain_clear(struct domain *d) {
        mapping_set_clear(&d->mappings);
        window_set_clear(&d->windows);
        shared_page_set_clear(&d->pages);
        table_pages_clear(&d->tables);
}

const struct container_info *domain_constraints(const struct domain *d) {
        return &d->info;
}

int domain_is_usable(const struct domain *d, struct refusal *r) {
        if (d->state == LEDGER_QUARANTINED)
                return refuse(r, REFUSAL_DOMAIN_QUARANTINED,
                              "domain %" PRIu64 " is quarantined: an operation on it could not be undone wholly. Destroy it, or "
                              "end the session", d->id);
        return 0;
}

const char *object_state_name(enum ledger_object_state state) {
        switch (state) {
        case LEDGER_INTENDED:
                return "starting";
        case LEDGER_LIVE:
                return "live";
        case LEDGER_ENDING:
                return "closing";
        case LEDGER_QUARANTINED:
                return "quarantined";
        default:
                return "unknown";
        }
}

void constraints_default(struct broker *b, struct container_info *ret) {
        struct refusal r;

        memset(ret, 0, sizeof *ret);
        if (b->options.backend != BACKEND_SOFT) {
                /* Nothing is known before a group is attached; type1's granularity is the host's page size. */
                ret->max_mappings = UINT32_MAX;
                ret->page_sizes = ~((uint64_t)sysconf(_SC_PAGESIZE) - 1);
                ret->ranges[ret->n_ranges++] = (struct iova_range){ 0, UINT64_MAX };
        } else if (soft_personality_info(&b->options.soft, ret, &r) < 0)
                log_error("%s", r.text);        /* the configuration was checked: cannot be */
}

/* ---- create ---- */

/* What the ledger is told rides behind the header; the holder does not look at it. */
struct create_payload {
        char label[LEDGER_NAME_MAX];
        bool has_window;
        struct ledger_window window;    /* the default one */
};

static int write_create_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        struct ledger_domain row = { .id = op->row.object, .session = op->row.session, .state = LEDGER_INTENDED,
                                     .lazy = op->of.domain.lazy };
        const struct create_payload *p = op_payload(op);

        text_copy(row.label, sizeof row.label, p->label);
        if (ledger_domain_put(ledger, &row, r) < 0 || (p->has_window && ledger_window_put(ledger, &p->window, r) < 0))
                return -1;
        return ledger_op_intend(ledger, &op->row, r);
}

static int write_create_settle(struct op *op, struct ledger *ledger, struct refusal *r) {
        struct ledger_domain row = { .id = op->row.object, .session = op->row.session, .state = LEDGER_LIVE,
                                     .lazy = op->of.domain.lazy };
        const struct create_payload *p = op_payload(op);

        if (!op->applied)
                return ledger_domain_delete(ledger, row.id, r);
        text_copy(row.label, sizeof row.label, p->label);
        return ledger_domain_put(ledger, &row, r);
}

static void finish_create(struct op *op, struct link_result *result, int *fd) {
        static const struct quota_amounts one = { .of[RESOURCE_DOMAINS] = 1 };
        struct session *s = op->session;

        (void)fd;
        if (op_outcome_unknown(result))
                return;
        if (result->refusal.reason == REFUSAL_NONE) {
                op->of.domain.domain->state = LEDGER_LIVE;
                return;
        }
        domain_remove(op->of.domain.domain);
        quota_refund(&s->tenant->account, &one);
}

static void fill_create(struct op *op, const struct domain *d) {
        const struct window *w = domain_default_window(d);
        struct create_payload *p = op_payload(op);

        text_copy(p->label, sizeof p->label, d->label);
        p->has_window = w != NULL;
        if (w)
                window_fill_row(w, d->id, &p->window);
        op->message_size = sizeof(struct link_header);
        op->row.object = op->answer.id = op->message[0].domain = d->id;
        op->write_intent = write_create_intent;
        op->write_settle = write_create_settle;
        op->finish = finish_create;
}

/* With the session's lock held. NULL: answered in *r. */
static struct op *admit_create(struct session *s, const void *request, struct answer *ret, struct refusal *r) {
        const struct create_domain_request *req = request;
        static const struct quota_amounts one = { .of[RESOURCE_DOMAINS] = 1 };
        struct ledger *ledger = s->broker->ledger;
        struct domain *d = NULL;
        struct op *op;

        (void)ret;
        if (quota_charge(&s->tenant->account, &one, r) < 0)
                return NULL;
        op = op_new(s, LEDGER_OP_CREATE_DOMAIN, LINK_DOMAIN_CREATE, sizeof(struct create_payload));
        if (op)
                d = domain_add(s, ledger_next_id(ledger), req->label ? req->label : "", req->lazy, LEDGER_INTENDED);
        if (!d || !domain_add_default_window(d, ledger_next_id(ledger))) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                if (d)
                        domain_remove(d);
                if (op)
                        op_unref(op);
                quota_refund(&s->tenant->account, &one);
                return NULL;
        }
        op->of.domain.domain = d;
        op->of.domain.lazy = req->lazy;
        fill_create(op, d);
        return op;
}

void domain_create_request(struct session *s, const struct create_domain_request *req, struct reply *reply) {
        const char *label = req->label ? req->label : "";
        uint64_t hash = request_hash(request_hash_u64(REQUEST_HASH_INIT, LEDGER_OP_CREATE_DOMAIN), label, strlen(label));

        hash = request_hash_u64(hash, req->lazy);
        request_start(s, &req->key, hash, reply, admit_create, req);
}

/* ---- destroy ---- */

static int write_destroy_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        struct ledger_domain row = { .id = op->row.object, .session = op->row.session, .state = LEDGER_ENDING,
                                     .lazy = op->of.domain.lazy };

        text_copy(row.label, sizeof row.label, op->of.domain.domain->label);
        return ledger_domain_put(ledger, &row, r) < 0 ? -1 : ledger_op_intend(ledger, &op->row, r);
}

static int write_destroy_settle(struct op *op, struct ledger *ledger, struct refusal *r) {
        struct ledger_domain row = { .id = op->row.object, .session = op->row.session, .state = LEDGER_LIVE,
                                     .lazy = op->of.domain.lazy };

        if (op->applied)
                return ledger_domain_delete(ledger, row.id, r);
        text_copy(row.label, sizeof row.label, (const char *)op_payload(op));
        return ledger_domain_put(ledger, &row, r);
}

/* Everything below the domain is gone: its objects and their charges now, its leases when the lock is dropped. */
static void take_down(struct op *op, struct domain *d) {
        struct quota_amounts freed = { .of[RESOURCE_DOMAINS] = 1 };
        struct session *s = op->session;
        struct attachment *a, *next;

        HASH_ITER(hh, s->attachments, a, next) {
                if (a->domain != d || op->of.domain.n_groups == VIEW_ATTACHMENTS_MAX)
                        continue;
                op->of.domain.groups[op->of.domain.n_groups++] = a->group;
                attachment_remove(s, a);
        }
        freed.of[RESOURCE_DEVICES] = op->of.domain.n_groups;
        domain_refund(d);
        lazy_settle(d);
        domain_remove(d);
        quota_refund(&s->tenant->account, &freed);
}

static void finish_destroy(struct op *op, struct link_result *result, int *fd) {
        (void)fd;
        if (op_outcome_unknown(result))
                return;
        if (result->refusal.reason == REFUSAL_NONE)
                take_down(op, op->of.domain.domain);
        else
                op->of.domain.domain->state = LEDGER_LIVE;
}

static void drop_leases(struct op *op) {
        for (size_t i = 0; i < op->of.domain.n_groups; i++)
                lease_drop(op->session->broker, op->of.domain.groups[i]);
}

static struct op *admit_destroy(struct session *s, const void *request, struct answer *ret, struct refusal *r) {
        const struct destroy_domain_request *req = request;
        struct domain *d;
        struct op *op;

        (void)ret;
        if (!(d = session_find_domain(s, req->domain, r)))
                return NULL;
        if (d->busy > 0) {
                refuse(r, REFUSAL_IN_PROGRESS, "%u operations are under way in domain %" PRIu64 "; repeat when they are done",
                       d->busy, d->id);
                return NULL;
        }
        if (!req->force && (d->mappings.count > 0 || d->n_attachments > 0)) {
                refuse(r, REFUSAL_IN_USE, "domain %" PRIu64 " has %" PRIu64 " mappings and %u devices; take them away first, or "
                                          "ask for force", d->id, d->mappings.count, d->n_attachments);
                r->used = d->mappings.count + d->n_attachments;
                return NULL;
        }
        op = op_new(s, LEDGER_OP_DESTROY_DOMAIN, LINK_DOMAIN_DESTROY, LEDGER_NAME_MAX);
        if (!op) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        d->state = LEDGER_ENDING;
        text_copy(op_payload(op), LEDGER_NAME_MAX, d->label);
        op->message_size = sizeof(struct link_header);
        op->of.domain.domain = d;
        op->of.domain.lazy = d->lazy.enabled;
        op->row.object = op->message[0].domain = d->id;
        op->deadline_ms = monotonic_ms() + s->broker->options.operation_deadline_ms;
        op->write_intent = write_destroy_intent;
        op->write_settle = write_destroy_settle;
        op->finish = finish_destroy;
        op->after = drop_leases;
        return op;
}

void domain_destroy_request(struct session *s, const struct destroy_domain_request *req, struct reply *reply) {
        uint64_t hash = request_hash_u64(request_hash_u64(REQUEST_HASH_INIT, LEDGER_OP_DESTROY_DOMAIN), req->domain);

        request_start(s, &req->key, hash, reply, admit_destroy, req);
}

/* ---- queries ---- */

static void fill_view(struct session *s, struct domain *d, struct domain_view *v) {
        struct attachment *a, *next;

        memset(v, 0, sizeof *v);
        v->id = d->id;
        v->session = s->id;
        v->mappings = d->mappings.count;
        v->mapped_bytes = d->mappings.bytes;
        v->client_pid = (uint32_t)s->peer.pid;
        v->state = s->stage == SESSION_ENDING ? "closing" : object_state_name(d->state);
        v->info = *domain_constraints(d);
        v->lazy = d->lazy.enabled;
        v->deferred_mappings = d->lazy.mappings;
        v->deferred_bytes = d->lazy.bytes;
        v->kernel_mappings = d->kernel_mappings;
        v->table_bytes = d->charged.of[RESOURCE_TABLE_BYTES];
        v->shared_pages = d->pages.count;
        text_copy(v->label, sizeof v->label, d->label);
        text_copy(v->tenant, sizeof v->tenant, s->tenant->name);
        HASH_ITER(hh, s->attachments, a, next) {
                if (a->domain != d || v->n_attachments == VIEW_ATTACHMENTS_MAX)
                        continue;
                v->attachments[v->n_attachments].id = a->id;
                v->attachments[v->n_attachments].state = object_state_name(a->state);
                text_copy(v->attachments[v->n_attachments].device, LEDGER_NAME_MAX, a->device);
                v->n_attachments++;
        }
}

struct session *domain_owner(struct broker *b, struct session *s, uint64_t domain) {
        struct session *found = NULL;
        size_t n;

        if (s)
                return session_ref(s);
        _cleanup_free_ struct session **list = broker_sessions(b, &n);
        for (size_t i = 0; list && i < n; i++) {
                struct domain *d;

                pthread_mutex_lock(&list[i]->lock);
                HASH_FIND(hh, list[i]->domains, &domain, sizeof domain, d);
                pthread_mutex_unlock(&list[i]->lock);
                if (d && !found)
                        found = list[i];
                else
                        session_unref(list[i]);
        }
        return found;
}

int domain_describe(struct broker *b, struct session *s, uint64_t domain, struct domain_view *ret, struct refusal *r) {
        struct session *owner = domain_owner(b, s, domain);
        struct domain *d = NULL;

        if (owner) {
                pthread_mutex_lock(&owner->lock);
                d = session_find_domain(owner, domain, r);
                if (d)
                        fill_view(owner, d, ret);
                pthread_mutex_unlock(&owner->lock);
                session_unref(owner);
        } else
                refuse(r, REFUSAL_UNKNOWN_DOMAIN, "there is no domain %" PRIu64, domain);
        return d ? 0 : -1;
}

struct domain_ids {
        uint64_t id;
        struct session *session;
};

static int compare_ids(const void *a, const void *b) {
        const struct domain_ids *x = a, *y = b;

        return x->id < y->id ? -1 : x->id > y->id;
}

size_t domain_list(struct broker *b, const char *tenant, uint64_t after, size_t max,
                   void (*each)(const struct domain_view *v, void *arg), void *arg) {
        _cleanup_free_ struct domain_ids *ids = NULL;
        size_t n_sessions, n = 0, room = 0, shown = 0;
        _cleanup_free_ struct session **list = broker_sessions(b, &n_sessions);

        for (size_t i = 0; list && i < n_sessions; i++) {
                struct session *s = list[i];
                struct domain *d, *next;
                LOCK_SCOPE(&s->lock);

                if (tenant && tenant[0] && strcmp(tenant, s->tenant->name) != 0)
                        continue;
                HASH_ITER(hh, s->domains, d, next) {
                        if (n == room) {
                                struct domain_ids *more = reallocarray(ids, room * 2 + 64, sizeof *ids);

                                if (!more)
                                        break;
                                ids = more;
                                room = room * 2 + 64;
                        }
                        if (d->id > after)
                                ids[n++] = (struct domain_ids){ d->id, s };
                }
        }
        if (n > 0)
                qsort(ids, n, sizeof *ids, compare_ids);
        for (size_t i = 0; i < n && shown < max; i++) {
                struct domain_view v;
                struct refusal r;

                if (domain_describe(b, ids[i].session, ids[i].id, &v, &r) == 0) {
                        each(&v, arg);
                        shown++;
                }
        }
        for (size_t i = 0; list && i < n_sessions; i++)
                session_unref(list[i]);
        return shown;
}

static void fill_mapping_view(struct domain *d, const struct mapping *m, struct mapping_view *v) {
        uint64_t edges[2];
        unsigned n = mapping_edges(m, edges);

        *v = (struct mapping_view){ .domain = d->id, .iova = m->range.first, .length = iova_range_length(m->range),
                                    .memory = m->memory->id, .offset = m->offset, .access = m->access,
                                    .state = mapping_state_name(m->state), .exposed = { 1, 0 },
                                    .chunk = m->chunk_shift ? UINT64_C(1) << m->chunk_shift : 0 };
        if (n > 0)
                v->exposed = mapping_seen(m);
        for (unsigned i = 0; i < n; i++) {
                const struct shared_page *p = shared_page_find(&d->pages, edges[i]);

                v->exposed_access |= p ? shared_page_union(p) : 0;
        }
}

int mapping_list(struct broker *b, struct session *s, uint64_t domain, struct iova_range range, size_t max,
                 struct mapping_view *ret, size_t *ret_n, bool *ret_more, struct refusal *r) {
        struct session *owner = domain_owner(b, s, domain);
        struct mapping *m;
        struct domain *d;

        *ret_n = 0;
        *ret_more = false;
        if (!owner)
                return refuse(r, REFUSAL_UNKNOWN_DOMAIN, "there is no domain %" PRIu64, domain);
        pthread_mutex_lock(&owner->lock);
        d = session_find_domain(owner, domain, r);
        for (m = d ? mapping_set_find(&d->mappings, range) : NULL; m && iova_range_overlaps(m->range, range);
             m = mapping_set_next(&d->mappings, m)) {
                if (*ret_n == max) {
                        *ret_more = true;
                        break;
                }
                fill_mapping_view(d, m, &ret[(*ret_n)++]);
        }
        pthread_mutex_unlock(&owner->lock);
        session_unref(owner);
        return d ? 0 : -1;
}
