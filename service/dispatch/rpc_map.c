/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/rpc.h"
#include "util/cleanup.h"

/* One of the parallel arrays of a batch. */
struct column {
        const char *name;
        size_t n;
        bool one_for_all;               /* one element may stand for all */
        bool optional;                  /* none is fine as well */
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

                if (c->n == n || (c->one_for_all && c->n == 1) || (c->optional && c->n == 0))
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

/* Where the entries lie: at the addresses that are given, or where the service chooses. A request that says both, or
 * names a window that nothing is looked for in, means something else than it says. */
static int place_fits(const Iommud__V1__MapRequest *req, struct refusal *r) {
        if (req->anywhere && req->n_iova > 0)
                return refuse(r, REFUSAL_BAD_MESSAGE, "anywhere is set, and yet iova has %zu elements: leave it empty",
                              req->n_iova);
        if (!req->anywhere && req->window != 0)
                return refuse(r, REFUSAL_BAD_MESSAGE, "a window is chosen (%llu), and yet anywhere is not set",
                              (unsigned long long)req->window);
        return 0;
}

/* The first column says how many entries there are. */
static int map_columns_fit(const Iommud__V1__MapRequest *req, struct refusal *r) {
        const struct column columns[] = {
                { .name = "iova", .n = req->n_iova },
                { .name = "length", .n = req->n_length },
                { .name = "offset", .n = req->n_offset },
                { .name = "memory", .n = req->n_memory, .one_for_all = true },
                { .name = "access", .n = req->n_access, .one_for_all = true },
                { .name = "chunk", .n = req->n_chunk, .one_for_all = true, .optional = true },
        };
        size_t skip = req->anywhere ? 1 : 0;

        return columns_fit(columns + skip, ARRAY_SIZE(columns) - skip, r);
}

void rpc_map(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__MapRequest *req = request;
        struct map_request core = {
                .domain = req->domain,
                .n = req->n_length,
                .iova = req->anywhere ? NULL : req->iova,
                .length = req->length,
                .offset = req->offset,
                .memory = req->memory,
                .n_memory = req->n_memory,
                .access = req->access,
                .n_access = req->n_access,
                .chunk = req->chunk,
                .n_chunk = req->n_chunk,
                .expose_pages = req->expose_pages,
                .merge = req->merge,
                .dry_run = req->dry_run,
                .anywhere = req->anywhere,
                .window = req->window,
        };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0 || place_fits(req, &r) < 0 || map_columns_fit(req, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        map_request_start(rpc->session, &core, &rpc->reply);
}

const void *rpc_map_answer(const struct answer *a, struct rpc_response *out) {
        iommud__v1__map_response__init(&out->map);
        out->map.iova = a->iova;
        out->map.mappings = a->mappings;
        out->map.locked_bytes = a->locked_bytes;
        out->map.table_bytes = a->table_bytes;
        return &out->map;
}

/* A policy of a later version may consent to less than we would do. */
static int split_policy(Iommud__V1__SplitPolicy policy, enum split_policy *ret, struct refusal *r) {
        switch (policy) {
        case IOMMUD__V1__SPLIT_POLICY__SPLIT_AT_CHUNKS:
        case IOMMUD__V1__SPLIT_POLICY__SPLIT_REMAP:
        case IOMMUD__V1__SPLIT_POLICY__SPLIT_HITLESS:
                *ret = (enum split_policy)policy;
                return 0;
        default:
                return refuse(r, REFUSAL_BAD_MESSAGE, "this service knows no split_policy %d", (int)policy);
        }
}

void rpc_unmap(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__UnmapRequest *req = request;
        const struct column columns[] = { { .name = "iova", .n = req->n_iova }, { .name = "length", .n = req->n_length } };
        struct unmap_request core = { .domain = req->domain, .n = req->n_iova, .iova = req->iova,
                                      .length = req->length };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0 || columns_fit(columns, ARRAY_SIZE(columns), &r) < 0 ||
            split_policy(req->split_policy, &core.split, &r) < 0) {
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
