/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/rpc.h"

void rpc_open_session(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__OpenSessionRequest *req = request;
        Iommud__V1__OpenSessionResponse answer = IOMMUD__V1__OPEN_SESSION_RESPONSE__INIT;
        struct refusal r;

        if (rpc_name(req->client_name, "client_name", &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        session_set_client_name(rpc->session, req->client_name);
        answer.session = session_id(rpc->session);
        answer.tenant = rpc_borrow(session_tenant_name(rpc->session));
        answer.capabilities = RPC_CAPABILITIES;
        answer.service_version = rpc_borrow(IOMMUD_VERSION);
        rpc_answer(rpc, &answer, arena);
}

void rpc_close_session(struct rpc *rpc, const void *request, struct arena *arena) {
        (void)request;
        (void)arena;
        session_close_request(rpc->session, &rpc->reply);
}

const void *rpc_close_session_answer(const struct answer *a, struct rpc_response *out) {
        (void)a;
        iommud__v1__close_session_response__init(&out->close_session);
        return &out->close_session;
}
