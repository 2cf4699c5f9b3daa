/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <unistd.h>

#include "dispatch/page.h"
#include "dispatch/rpc.h"

/* ---- status ---- */

#define STATUS_SESSIONS_MAX 8192U

struct session_collect {
        Iommud__V1__GetStatusResponse *answer;
        struct arena *arena;
        size_t room;
        bool full;
};

/* The view lives only during the call: everything is copied. */
static void collect_session(const struct session_view *v, void *arg) {
        struct session_collect *c = arg;
        struct {
                Iommud__V1__Session message;
                struct session_view view;
        } *copy;

        if (c->full || c->answer->n_session_list == STATUS_SESSIONS_MAX)
                return;
        if (c->answer->n_session_list == c->room) {
                size_t room = c->room ? 2 * c->room : 64;
                Iommud__V1__Session **list = arena_alloc(c->arena, room * sizeof(Iommud__V1__Session *));

                if (!list) {
                        c->full = true;
                        return;
                }
                if (c->room)
                        memcpy(list, c->answer->session_list, c->room * sizeof(Iommud__V1__Session *));
                c->answer->session_list = list;
                c->room = room;
        }
        copy = arena_alloc(c->arena, sizeof *copy);
        if (!copy) {
                c->full = true;
                return;
        }
        copy->view = *v;
        iommud__v1__session__init(&copy->message);
        copy->message.id = v->id;
        copy->message.tenant = copy->view.tenant;
        copy->message.client_name = copy->view.client_name;
        copy->message.uid = v->uid;
        copy->message.pid = v->pid;
        copy->message.holder_pid = v->holder_pid;
        copy->message.state = rpc_borrow(v->state);
        c->answer->session_list[c->answer->n_session_list++] = &copy->message;
}

static void host_to_message(const struct host_use_view *v, Iommud__V1__HostUse *to) {
        iommud__v1__host_use__init(to);
        to->resource = (Iommud__V1__Resource)v->resource;
        to->limit = v->limit;
        to->used = v->used;
        to->promised = v->promised;
}

void rpc_get_status(struct rpc *rpc, const void *request, struct arena *arena) {
        Iommud__V1__GetStatusResponse answer = IOMMUD__V1__GET_STATUS_RESPONSE__INIT;
        struct session_collect collect = { .answer = &answer, .arena = arena };
        const char *const *degraded = broker_degraded(rpc->broker);
        Iommud__V1__HostUse host[HOST_USE_MAX], *hosts[HOST_USE_MAX];
        struct host_use_view uses[HOST_USE_MAX];
        struct status_view v;

        (void)request;
        broker_status(rpc->broker, &v);
        answer.n_host = host_use_list(rpc->broker, uses);
        answer.host = hosts;
        for (size_t i = 0; i < answer.n_host; i++) {
                host_to_message(&uses[i], &host[i]);
                hosts[i] = &host[i];
        }
        answer.version = rpc_borrow(v.version);
        answer.backend = rpc_borrow(v.backend);
        answer.state = rpc_borrow(v.state);
        answer.uptime_seconds = v.uptime_seconds;
        answer.tenants = v.tenants;
        answer.sessions = v.sessions;
        answer.domains = v.domains;
        answer.mappings = v.mappings;
        answer.mapped_bytes = v.mapped_bytes;
        answer.devices = v.devices;
        answer.orphaned_devices = v.orphaned_devices;
        answer.pid = (uint32_t)getpid();
        answer.ledger = rpc_borrow(v.ledger_path);
        answer.degraded = (char **)(uintptr_t)degraded;
        while (degraded[answer.n_degraded])
                answer.n_degraded++;
        session_list(rpc->broker, collect_session, &collect);
        if (collect.full)
                rpc_answer_too_large(rpc);
        else
                rpc_answer(rpc, &answer, arena);
}

/* ---- devices ---- */

static int device_named(const char *device, struct refusal *r) {
        return rpc_name_needed(device, "device", r);
}

void rpc_bind_device(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__BindDeviceRequest *req = request;
        Iommud__V1__BindDeviceResponse answer = IOMMUD__V1__BIND_DEVICE_RESPONSE__INIT;
        struct device_view v;
        struct refusal r;

        if (device_named(req->device, &r) < 0 || device_bind(rpc->broker, req->device, &v, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        answer.device = rpc_device_view(&v, arena);
        if (!answer.device)
                rpc_answer_too_large(rpc);
        else
                rpc_answer(rpc, &answer, arena);
}

void rpc_unbind_device(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__UnbindDeviceRequest *req = request;
        Iommud__V1__UnbindDeviceResponse answer = IOMMUD__V1__UNBIND_DEVICE_RESPONSE__INIT;
        struct device_view v;
        struct refusal r;

        if (device_named(req->device, &r) < 0 || device_unbind(rpc->broker, req->device, &v, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        answer.device = rpc_device_view(&v, arena);
        if (!answer.device)
                rpc_answer_too_large(rpc);
        else
                rpc_answer(rpc, &answer, arena);
}

void rpc_release_lease(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__ReleaseLeaseRequest *req = request;
        Iommud__V1__ReleaseLeaseResponse answer = IOMMUD__V1__RELEASE_LEASE_RESPONSE__INIT;
        const char *state;
        struct refusal r;

        if (device_named(req->device, &r) < 0 || device_release(rpc->broker, req->device, &state, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        answer.state = rpc_borrow(state);
        rpc_answer(rpc, &answer, arena);
}

/* ---- domains ---- */

struct domain_collect {
        struct arena *arena;
        Iommud__V1__Domain **domains;
        size_t n, max;
        bool full, more;
};

static void collect_domain(const struct domain_view *v, void *arg) {
        struct domain_collect *c = arg;
        struct domain_view *copy;

        if (c->n == c->max) {
                c->more = true;
                return;
        }
        if (c->full)
                return;
        copy = arena_alloc(c->arena, sizeof *copy);
        if (copy)
                *copy = *v;
        c->domains[c->n] = copy ? rpc_domain_view(copy, true, c->arena) : NULL;
        if (c->domains[c->n])
                c->n++;
        else
                c->full = true;
}

void rpc_list_domains(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__ListDomainsRequest *req = request;
        Iommud__V1__ListDomainsResponse answer = IOMMUD__V1__LIST_DOMAINS_RESPONSE__INIT;
        struct domain_collect c = { .arena = arena, .max = page_size(req->page_size, PAGE_DOMAINS_MAX) };
        struct refusal r;
        uint64_t after;
        bool continued;

        if (rpc_name(req->tenant, "tenant", &r) < 0 || page_number(req->page_token, &after, &continued, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        c.domains = arena_alloc(arena, c.max * sizeof *c.domains);
        if (c.domains)
                (void)domain_list(rpc->broker, req->tenant, after, c.max + 1, collect_domain, &c);
        if (c.more && !c.full)
                answer.next_page_token = page_number_token(c.domains[c.n - 1]->id, arena);
        if (!c.domains || c.full || !answer.next_page_token) {
                rpc_answer_too_large(rpc);
                return;
        }
        answer.n_domains = c.n;
        answer.domains = c.domains;
        rpc_answer(rpc, &answer, arena);
}

/* ---- ledger ---- */

#define CHECK_VIOLATIONS_MAX 1000U
#define CHECK_TEXT_MAX 512U

struct violation_collect {
        struct arena *arena;
        Iommud__V1__Violation *list[CHECK_VIOLATIONS_MAX];
        size_t n;
};

/* The first thousand: whoever has more needs no complete list. */
static void collect_violation(const struct check_view *v, void *arg) {
        struct violation_collect *c = arg;
        struct {
                Iommud__V1__Violation message;
                char invariant[16], text[CHECK_TEXT_MAX];
        } *copy;

        if (c->n == CHECK_VIOLATIONS_MAX)
                return;
        copy = arena_alloc(c->arena, sizeof *copy);
        if (!copy)
                return;
        iommud__v1__violation__init(&copy->message);
        (void)stpncpy(copy->invariant, v->invariant, sizeof copy->invariant - 1);
        copy->invariant[sizeof copy->invariant - 1] = '\0';
        (void)stpncpy(copy->text, v->text, sizeof copy->text - 1);
        copy->text[sizeof copy->text - 1] = '\0';
        copy->message.invariant = copy->invariant;
        copy->message.text = copy->text;
        c->list[c->n++] = &copy->message;
}

void rpc_check_ledger(struct rpc *rpc, const void *request, struct arena *arena) {
        Iommud__V1__CheckLedgerResponse answer = IOMMUD__V1__CHECK_LEDGER_RESPONSE__INIT;
        struct violation_collect c = { .arena = arena };
        struct refusal r;

        (void)request;
        if (ledger_check_request(rpc->broker, collect_violation, &c, &answer.checked_rows, &answer.checked_holders,
                                 &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        answer.n_violations = c.n;
        answer.violations = c.list;
        rpc_answer(rpc, &answer, arena);
}
