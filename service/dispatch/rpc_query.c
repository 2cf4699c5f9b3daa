/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/page.h"
#include "dispatch/rpc.h"

void rpc_get_capabilities(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__GetCapabilitiesRequest *req = request;
        Iommud__V1__GetCapabilitiesResponse answer = IOMMUD__V1__GET_CAPABILITIES_RESPONSE__INIT;
        const char *const *degraded = broker_degraded(rpc->broker);
        struct rpc_constraints constraints;
        struct container_info info;
        struct refusal r;

        if (rpc_name(req->device, "device", &r) < 0 ||
            constraints_query(rpc->broker, rpc->session, req->device, &info, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        answer.capabilities = RPC_CAPABILITIES;
        answer.backend = rpc_borrow(broker_backend_name(rpc->broker));
        answer.constraints = rpc_constraints(&info, &constraints);
        answer.max_batch = REQUEST_BATCH_MAX;
        answer.degraded = (char **)(uintptr_t)degraded;
        while (degraded[answer.n_degraded])
                answer.n_degraded++;
        rpc_answer(rpc, &answer, arena);
}

void rpc_get_quota(struct rpc *rpc, const void *request, struct arena *arena) {
        Iommud__V1__GetQuotaResponse answer = IOMMUD__V1__GET_QUOTA_RESPONSE__INIT;
        Iommud__V1__Quota quotas[_RESOURCE_N], *pointers[_RESOURCE_N];
        struct quota_view views[_RESOURCE_N];
        size_t n = quota_list(rpc->session, views);

        (void)request;
        for (size_t i = 0; i < n; i++) {
                iommud__v1__quota__init(&quotas[i]);
                quotas[i].resource = (Iommud__V1__Resource)views[i].resource;
                quotas[i].limit = views[i].limit;
                quotas[i].used = views[i].used;
                quotas[i].over = rpc_over(views[i].limit, views[i].used);
                pointers[i] = &quotas[i];
        }
        answer.tenant = rpc_borrow(session_tenant_name(rpc->session));
        answer.n_quotas = n;
        answer.quotas = pointers;
        rpc_answer(rpc, &answer, arena);
}

/* The part of the asked range that begins after the token's address; false when nothing is left. */
static int range_asked(const Iommud__V1__ListMappingsRequest *req, struct iova_range *ret, bool *ret_empty,
                       struct refusal *r) {
        bool continued;
        uint64_t last;

        *ret = (struct iova_range){ 0, UINT64_MAX };
        *ret_empty = false;
        if (req->range) {
                if (req->range->first > req->range->last)
                        return refuse(r, REFUSAL_BAD_MESSAGE, "range ends (0x%llx) before it begins (0x%llx)",
                                      (unsigned long long)req->range->last, (unsigned long long)req->range->first);
                *ret = (struct iova_range){ req->range->first, req->range->last };
        }
        if (page_number(req->page_token, &last, &continued, r) < 0)
                return -1;
        if (!continued)
                return 0;
        if (last >= ret->last)
                *ret_empty = true;
        else if (last >= ret->first)
                ret->first = last + 1;
        return 0;
}

static bool mappings_to_message(const struct mapping_view *views, size_t n, bool more,
                                Iommud__V1__ListMappingsResponse *answer, struct arena *arena) {
        Iommud__V1__Mapping *mappings = arena_alloc(arena, n * sizeof *mappings);
        Iommud__V1__Range *exposed = arena_alloc(arena, n * sizeof *exposed);

        answer->mappings = arena_alloc(arena, n * sizeof *answer->mappings);
        if (!mappings || !exposed || !answer->mappings)
                return false;
        for (size_t i = 0; i < n; i++) {
                iommud__v1__mapping__init(&mappings[i]);
                mappings[i].iova = views[i].iova;
                mappings[i].length = views[i].length;
                mappings[i].memory = views[i].memory;
                mappings[i].offset = views[i].offset;
                mappings[i].access = views[i].access;
                mappings[i].state = rpc_borrow(views[i].state);
                mappings[i].domain = views[i].domain;
                mappings[i].chunk = views[i].chunk;
                if (views[i].exposed.first <= views[i].exposed.last) {
                        iommud__v1__range__init(&exposed[i]);
                        exposed[i].first = views[i].exposed.first;
                        exposed[i].last = views[i].exposed.last;
                        mappings[i].exposed = &exposed[i];
                        mappings[i].exposed_access = views[i].exposed_access;
                }
                answer->mappings[i] = &mappings[i];
        }
        answer->n_mappings = n;
        if (more && n > 0)
                answer->next_page_token = page_number_token(views[n - 1].iova + (views[n - 1].length - 1), arena);
        return answer->next_page_token != NULL;
}

/* Client.ListMappings and Operator.ListAllMappings. */
void rpc_list_mappings(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__ListMappingsRequest *req = request;
        Iommud__V1__ListMappingsResponse answer = IOMMUD__V1__LIST_MAPPINGS_RESPONSE__INIT;
        size_t max = page_size(req->page_size, PAGE_MAX), n = 0;
        struct mapping_view *views = arena_alloc(arena, max * sizeof *views);
        bool more = false, empty;
        struct iova_range range;
        struct refusal r;

        if (range_asked(req, &range, &empty, &r) < 0 ||
            (views && !empty &&
             mapping_list(rpc->broker, rpc->session, req->domain, range, max, views, &n, &more, &r) < 0)) {
                rpc_refuse(rpc, &r);
                return;
        }
        if (!views || !mappings_to_message(views, n, more, &answer, arena))
                rpc_answer_too_large(rpc);
        else
                rpc_answer(rpc, &answer, arena);
}
