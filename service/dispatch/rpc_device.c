/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "dispatch/page.h"
#include "dispatch/rpc.h"

void rpc_attach_device(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__AttachDeviceRequest *req = request;
        struct attach_request core = { .domain = req->domain, .device = req->device };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0 || rpc_name_needed(req->device, "device", &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        device_attach_request(rpc->session, &core, &rpc->reply);
}

const void *rpc_attach_device_answer(const struct answer *a, struct rpc_response *out) {
        iommud__v1__attach_device_response__init(&out->attach_device);
        out->attach_device.attachment = a->id;
        out->attach_device.constraints = rpc_constraints(&a->info, &out->constraints);
        return &out->attach_device;
}

void rpc_detach_device(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__DetachDeviceRequest *req = request;
        struct detach_request core = { .attachment = req->attachment };
        struct refusal r;

        (void)arena;
        if (rpc_key(&req->request_key, &core.key, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        device_detach_request(rpc->session, &core, &rpc->reply);
}

const void *rpc_detach_device_answer(const struct answer *a, struct rpc_response *out) {
        (void)a;
        iommud__v1__detach_device_response__init(&out->detach_device);
        return &out->detach_device;
}

/* "a b c" -> an array of strings in the arena. */
static bool split_members(const char *members, Iommud__V1__Device *d, struct arena *arena) {
        size_t size = strlen(members) + 1;
        char *copy = arena_alloc(arena, size), *save = NULL;

        d->group_members = arena_alloc(arena, (size / 2 + 1) * sizeof *d->group_members);
        if (!copy || !d->group_members)
                return false;
        memcpy(copy, members, size);
        for (char *name = strtok_r(copy, " ", &save); name; name = strtok_r(NULL, " ", &save))
                d->group_members[d->n_group_members++] = name;
        return true;
}

Iommud__V1__Device *rpc_device_view(const struct device_view *v, struct arena *arena) {
        Iommud__V1__Device *d = arena_alloc(arena, sizeof *d);

        if (!d)
                return NULL;
        iommud__v1__device__init(d);
        d->name = rpc_borrow(v->name);
        d->group = v->group;
        d->driver = rpc_borrow(v->driver);
        d->usable = v->usable;
        d->why_not = rpc_borrow(v->why_not);
        d->vendor_device = rpc_borrow(v->vendor_device);
        d->tenant = rpc_borrow(v->tenant);
        d->session = v->session;
        d->state = rpc_borrow(v->state);
        d->original_driver = rpc_borrow(v->original_driver);
        return split_members(v->members, d, arena) ? d : NULL;
}

static int offer_device(const struct device_view *v, void *arg) {
        page_list_offer(arg, v);
        return 0;
}

/* Client.ListDevices and Operator.ListAllDevices. */
void rpc_list_devices(struct rpc *rpc, const void *request, struct arena *arena) {
        const Iommud__V1__ListDevicesRequest *req = request;
        Iommud__V1__ListDevicesResponse answer = IOMMUD__V1__LIST_DEVICES_RESPONSE__INIT;
        char after[LEDGER_NAME_MAX];
        struct page_list page;
        struct refusal r;

        if (page_name(req->page_token, after, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        page_list_init(&page, after, page_size(req->page_size, PAGE_MAX), sizeof(struct device_view),
                       offsetof(struct device_view, name), arena);
        if (device_list(rpc->broker, rpc->session, offer_device, &page, &r) < 0) {
                rpc_refuse(rpc, &r);
                return;
        }
        answer.devices = arena_alloc(arena, page.n * sizeof *answer.devices);
        answer.next_page_token = page_list_token(&page);
        if (page.full || !answer.devices || !answer.next_page_token) {
                rpc_answer_too_large(rpc);
                return;
        }
        for (size_t i = 0; i < page.n; i++) {
                answer.devices[i] = rpc_device_view((const struct device_view *)(const void *)page.items[i], arena);
                if (!answer.devices[i]) {
                        rpc_answer_too_large(rpc);
                        return;
                }
        }
        answer.n_devices = page.n;
        rpc_answer(rpc, &answer, arena);
}
