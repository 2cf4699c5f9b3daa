/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/rpc.h"

static int seal_policy(Iommud__V1__SealPolicy policy, bool *ret, struct refusal *r) {
        switch (policy) {
        case IOMMUD__V1__SEAL_POLICY__SEAL_REQUIRED:
                *ret = false;
                return 0;
        case IOMMUD__V1__SEAL_POLICY__SEAL_NONE:
                *ret = true;
                return 0;
        default:
                return refuse(r, REFUSAL_BAD_MESSAGE, "seal_policy %d is unknown to this version", (int)policy);
        }
}

void rpc_register_memory(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__RegisterMemoryRequest *req = request;
        struct register_request core = { .ticket = req->ticket, .size = req->size, .read_only = req->read_only,
                                         .populate = req->populate };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0 ||
            seal_policy(req->seal_policy, &core.unsealed, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        memory_register_request(rpc->session, &core, &rpc->reply);
}

const void *rpc_register_memory_answer(const struct answer *a, struct rpc_response *out) {
        iommud__v1__register_memory_response__init(&out->register_memory);
        out->register_memory.memory = a->id;
        out->register_memory.page_size = a->page_size;
        out->register_memory.sealed = a->sealed;
        out->register_memory.size = a->size;
        return &out->register_memory;
}

void rpc_unregister_memory(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__UnregisterMemoryRequest *req = request;
        struct unregister_request core = { .memory = req->memory };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        memory_unregister_request(rpc->session, &core, &rpc->reply);
}

const void *rpc_unregister_memory_answer(const struct answer *a, struct rpc_response *out) {
        (void)a;
        iommud__v1__unregister_memory_response__init(&out->unregister_memory);
        return &out->unregister_memory;
}
