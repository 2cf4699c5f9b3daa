/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/rpc.h"
#include "util/cleanup.h"

/* One of the parallel arrays of a batch. */
struct column {
        const char *name;
        size_t n;
        bool one_for_all;               /* one element may stand for all */
};

/* Every array has as many elements as the first, or one where that may stand for all. */
static int columns_fit(const struct column *columns, size_t n_columns, struct refusal *r) {
        size_t n = columns[0].n;

        for (size_t i = 0; i < n_columns; i++) {
                if (columns[i].n <= REQUEST_BATCH_MAX)
                        continue;
                (void)refuse(r, REFUSAL_BATCH_TOO_LARGE, "%zu entries in %s; at most %u go into one request",
                             columns[i].n, columns[i].name, REQUEST_BATCH_MAX);
                r->limit = REQUEST_BATCH_MAX;
                r->asked = columns[i].n;
                return -1;
        }
        if (n == 0)
                return refuse(r, REFUSAL_BAD_MESSAGE, "the request has no entries: %s is empty", columns[0].name);
        for (size_t i = 1; i < n_columns; i++) {
                const struct column *c = &columns[i];

                if (c->n == n || (c->one_for_all && c->n == 1))
                        continue;
                (void)refuse(r, REFUSAL_BAD_MESSAGE, "%s has %zu elements where %s has %zu", c->name, c->n,
                             columns[0].name, n);
                r->element = (int32_t)(c->n < n ? c->n : n);    /* the first one without a partner */
                r->used = c->n;
                r->asked = n;
                return -1;
        }
        return 0;
}

void rpc_map(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__MapRequest *req = request;
        const struct column columns[] = {
                { "iova", req->n_iova, false },     { "length", req->n_length, false },
                { "offset", req->n_offset, false }, { "memory", req->n_memory, true },
                { "access", req->n_access, true },
        };
        struct map_request core = { .domain = req->domain, .n = req->n_iova, .iova = req->iova, .length = req->length,
                                    .offset = req->offset, .memory = req->memory, .n_memory = req->n_memory,
                                    .access = req->access, .n_access = req->n_access };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0 || columns_fit(columns, ARRAY_SIZE(columns), &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        map_request_start(rpc->session, &core, &rpc->reply);
}

const void *rpc_map_answer(const struct answer *a, struct rpc_response *out) {
        (void)a;
        iommud__v1__map_response__init(&out->map);
        return &out->map;
}

void rpc_unmap(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__UnmapRequest *req = request;
        const struct column columns[] = { { "iova", req->n_iova, false }, { "length", req->n_length, false } };
        struct unmap_request core = { .domain = req->domain, .n = req->n_iova, .iova = req->iova,
                                      .length = req->length };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0 || columns_fit(columns, ARRAY_SIZE(columns), &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        unmap_request_start(rpc->session, &core, &rpc->reply);
}

void rpc_unmap_all(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__UnmapAllRequest *req = request;
        struct unmap_request core = { .domain = req->domain };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        unmap_request_start(rpc->session, &core, &rpc->reply);
}

const void *rpc_unmap_answer(const struct answer *a, struct rpc_response *out) {
        iommud__v1__unmap_response__init(&out->unmap);
        out->unmap.unmapped_bytes = a->unmapped_bytes;
        out->unmap.mappings = a->unmapped_mappings;
        return &out->unmap;
}
