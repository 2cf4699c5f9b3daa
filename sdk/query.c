/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "error.h"
#include "sized.h"
#include "util/cleanup.h"

int iommud_capabilities(struct iommud_client *client, const char *device, struct iommud_constraints *ret) {
        Iommud__V1__GetCapabilitiesRequest request = IOMMUD__V1__GET_CAPABILITIES_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        struct iommud_constraints found;
        int r;

        sdk_enter(__func__);
        if (!client || !ret)
                return sdk_fail(-EINVAL, 0, "client and the place for the constraints must not be NULL");
        if (device)
                request.device = (char *)device;
        r = sdk_call(client, METHOD_GetCapabilities, &request.base, &answer);
        if (r < 0)
                return r;
        wire_constraints(((Iommud__V1__GetCapabilitiesResponse *)answer)->constraints, &found);
        if (sdk_struct_out(ret, &found, sizeof found) < 0)
                return sdk_fail(-EINVAL, 0, "the size of struct iommud_constraints is not set");
        return 0;
}

int iommud_quota_get(struct iommud_client *client, struct iommud_quota *quotas, size_t *n) {
        Iommud__V1__GetQuotaRequest request = IOMMUD__V1__GET_QUOTA_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        const Iommud__V1__GetQuotaResponse *found;
        int r;

        sdk_enter(__func__);
        if (!client || !n || (!quotas && *n > 0))
                return sdk_fail(-EINVAL, 0, "client, quotas and their number must not be NULL");
        r = sdk_call(client, METHOD_GetQuota, &request.base, &answer);
        if (r < 0)
                return r;
        found = (Iommud__V1__GetQuotaResponse *)answer;
        for (size_t i = 0; i < found->n_quotas && i < *n; i++)
                quotas[i] = (struct iommud_quota){ .resource = (enum iommud_resource)found->quotas[i]->resource,
                                                   .limit = found->quotas[i]->limit,
                                                   .used = found->quotas[i]->used };
        *n = found->n_quotas;
        return 0;
}

/* What has been listed so far; every string of a device is its own. */
struct listing {
        struct iommud_device *devices;
        size_t n;
        char *next;             /* page token, owned; NULL: no more */
};

static void listing_clear(struct listing *l) {
        iommud_device_list_free(l->devices, l->n);
        free(l->next);
}

/* False when out of memory; what was copied is in *ret, so that freeing the list frees it. */
static bool copy_device(struct iommud_device *ret, const Iommud__V1__Device *d) {
        *ret = (struct iommud_device){
                .name = strdup(d->name),
                .driver = strdup(d->driver),
                .state = strdup(d->state),
                .why_not = strdup(d->why_not),
                .vendor_device = strdup(d->vendor_device),
                .group = d->group,
                .usable = d->usable,
        };
        return ret->name && ret->driver && ret->state && ret->why_not && ret->vendor_device;
}

static int listing_add(struct listing *l, const Iommud__V1__ListDevicesResponse *page) {
        struct iommud_device *grown = reallocarray(l->devices, l->n + page->n_devices + 1, sizeof *grown);

        if (!grown)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        l->devices = grown;
        for (size_t i = 0; i < page->n_devices; i++)
                if (!copy_device(&grown[l->n++], page->devices[i]))
                        return sdk_fail(-ENOMEM, 0, "out of memory");
        free(l->next);
        l->next = NULL;
        if (page->next_page_token[0] == '\0')
                return 0;
        l->next = strdup(page->next_page_token);
        return l->next ? 0 : sdk_fail(-ENOMEM, 0, "out of memory");
}

static int list_page(struct iommud_client *client, struct listing *l) {
        Iommud__V1__ListDevicesRequest request = IOMMUD__V1__LIST_DEVICES_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        int r;

        if (l->next)
                request.page_token = l->next;
        r = sdk_call(client, METHOD_ListDevices, &request.base, &answer);
        if (r < 0)
                return r;
        return listing_add(l, (Iommud__V1__ListDevicesResponse *)answer);
}

int iommud_device_list(struct iommud_client *client, struct iommud_device **ret, size_t *ret_n) {
        _cleanup_(listing_clear) struct listing l = { 0 };
        int r;

        sdk_enter(__func__);
        if (!client || !ret || !ret_n)
                return sdk_fail(-EINVAL, 0, "client and the places for the list must not be NULL");
        do {
                r = list_page(client, &l);
                if (r < 0)
                        return r;
        } while (l.next);
        *ret = l.devices;
        *ret_n = l.n;
        l.devices = NULL;
        l.n = 0;
        return 0;
}

void iommud_device_list_free(struct iommud_device *devices, size_t n) {
        for (size_t i = 0; i < n; i++) {
                free((char *)devices[i].name);
                free((char *)devices[i].driver);
                free((char *)devices[i].state);
                free((char *)devices[i].why_not);
                free((char *)devices[i].vendor_device);
        }
        free(devices);
}
