/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/rpc.h"

/* One of a later version is refused: a client must not take lazy for strict, nor the other way round. */
static int flush_mode(Iommud__V1__FlushMode mode, bool *ret_lazy, struct refusal *r) {
        if (mode != IOMMUD__V1__FLUSH_MODE__FLUSH_STRICT && mode != IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY)
                return refuse(r, REFUSAL_BAD_MESSAGE, "this service knows no flush_mode %d", (int)mode);
        *ret_lazy = mode == IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY;
        return 0;
}

void rpc_create_domain(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__CreateDomainRequest *req = request;
        struct create_domain_request core = { .label = req->label };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0 || rpc_name(req->label, "label", &r) < 0 ||
            flush_mode(req->flush_mode, &core.lazy, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        domain_create_request(rpc->session, &core, &rpc->reply);
}

const void *rpc_create_domain_answer(const struct answer *a, struct rpc_response *out) {
        iommud__v1__create_domain_response__init(&out->create_domain);
        out->create_domain.domain = a->id;
        return &out->create_domain;
}

void rpc_destroy_domain(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__DestroyDomainRequest *req = request;
        struct destroy_domain_request core = { .domain = req->domain, .force = req->force };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        domain_destroy_request(rpc->session, &core, &rpc->reply);
}

const void *rpc_destroy_domain_answer(const struct answer *a, struct rpc_response *out) {
        (void)a;
        iommud__v1__destroy_domain_response__init(&out->destroy_domain);
        return &out->destroy_domain;
}

void rpc_sync(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__SyncRequest *req = request;
        struct sync_request core = { .domain = req->domain };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        sync_request_start(rpc->session, &core, &rpc->reply);
}

const void *rpc_sync_answer(const struct answer *a, struct rpc_response *out) {
        iommud__v1__sync_response__init(&out->sync);
        out->sync.flushed_mappings = a->unmapped_mappings;
        out->sync.flushed_bytes = a->unmapped_bytes;
        return &out->sync;
}

static bool add_attachments(Iommud__V1__Domain *d, const struct domain_view *v, struct arena *arena) {
        size_t n = v->n_attachments < VIEW_ATTACHMENTS_MAX ? v->n_attachments : VIEW_ATTACHMENTS_MAX;
        Iommud__V1__Attachment *a;

        d->attachments = arena_alloc(arena, n * sizeof *d->attachments);
        a = arena_alloc(arena, n * sizeof *a);
        if (!d->attachments || !a)
                return false;
        for (size_t i = 0; i < n; i++) {
                iommud__v1__attachment__init(&a[i]);
                a[i].id = v->attachments[i].id;
                a[i].domain = v->id;
                a[i].device = rpc_borrow(v->attachments[i].device);
                a[i].state = rpc_borrow(v->attachments[i].state);
                d->attachments[i] = &a[i];
        }
        d->n_attachments = n;
        return true;
}

Iommud__V1__Domain *rpc_domain_view(const struct domain_view *v, bool operator_view, struct arena *arena) {
        Iommud__V1__Domain *d = arena_alloc(arena, sizeof *d);
        struct rpc_constraints *c = arena_alloc(arena, sizeof *c);

        if (!d || !c)
                return NULL;
        iommud__v1__domain__init(d);
        d->id = v->id;
        d->label = rpc_borrow(v->label);
        d->state = rpc_borrow(v->state);
        d->constraints = rpc_constraints(&v->info, c);
        d->mappings = v->mappings;
        d->mapped_bytes = v->mapped_bytes;
        d->flush_mode = v->lazy ? IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY : IOMMUD__V1__FLUSH_MODE__FLUSH_STRICT;
        d->deferred_mappings = v->deferred_mappings;
        d->deferred_bytes = v->deferred_bytes;
        d->kernel_mappings = v->kernel_mappings;
        d->table_bytes = v->table_bytes;
        d->shared_pages = v->shared_pages;
        if (operator_view) {
                d->tenant = rpc_borrow(v->tenant);
                d->session = v->session;
                d->client_pid = v->client_pid;
        }
        return add_attachments(d, v, arena) ? d : NULL;
}

/* Client.DescribeDomain and Operator.ShowDomain. */
void rpc_describe_domain(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__DescribeDomainRequest *req = request;
        Iommud__V1__DescribeDomainResponse answer = IOMMUD__V1__DESCRIBE_DOMAIN_RESPONSE__INIT;
        struct domain_view v;
        struct refusal r;

        if (domain_describe(rpc->broker, rpc->session, req->domain, &v, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        answer.domain = rpc_domain_view(&v, rpc->session == NULL, arena);
        if (!answer.domain)
                rpc_answer_too_large(rpc);
        else
                rpc_answer(rpc, &answer, arena);
}
