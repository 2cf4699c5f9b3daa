/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "ctl.h"
#include "json.h"
#include "table.h"
#include "util/cleanup.h"

static struct libscols_table *new_table(void) {
        static const char *const titles[] = {
                "DEVICE", ">GROUP", "ID", "DRIVER", "STATE", "TENANT", ">SESSION", "NOTE"
        };

        return table_new(titles, ARRAY_SIZE(titles));
}

static void add_row(struct libscols_table *t, const Iommud__V1__Device *d) {
        table_row(t, (const char *const[]){ d->name, cell_number(d->group), d->vendor_device, d->driver, d->state,
                                            d->tenant, d->session != 0 ? cell_number(d->session) : "", d->why_not });
}

static void add_device(const ProtobufCMessage *element, void *table) {
        if (table)
                add_row(table, (const Iommud__V1__Device *)element);
        else
                json_list_add(element);
}

static int run_list(struct ctl *c, int argc, char **argv) {
        Iommud__V1__ListDevicesRequest request = IOMMUD__V1__LIST_DEVICES_REQUEST__INIT;
        struct libscols_table *t = NULL;
        int code = ctl_plain_arguments(c, argc, argv, 0, &argv);

        if (code >= 0)
                return code;
        if (c->json)
                json_list_begin("devices");
        else
                t = new_table();
        code = ctl_list(c, "ListAllDevices", &request.base, &iommud__v1__list_devices_response__descriptor, add_device,
                        t);
        if (c->json)
                json_list_end();
        else
                table_print(t, code == CTL_OK ? "no devices" : NULL);
        return code;
}

static void print_device(const struct ctl *c, const Iommud__V1__Device *d) {
        struct libscols_table *t;

        if (c->json) {
                json_print(&d->base);
                return;
        }
        t = new_table();
        add_row(t, d);
        table_print(t, NULL);
}

static int run_bind(struct ctl *c, int argc, char **argv) {
        Iommud__V1__BindDeviceRequest request = IOMMUD__V1__BIND_DEVICE_REQUEST__INIT;
        _cleanup_message_ ProtobufCMessage *answer = NULL;
        int code = ctl_plain_arguments(c, argc, argv, 1, &argv);

        if (code >= 0)
                return code;
        request.device = argv[0];
        code = ctl_call(c, "BindDevice", &request.base, &iommud__v1__bind_device_response__descriptor, &answer);
        if (answer && ((Iommud__V1__BindDeviceResponse *)answer)->device)
                print_device(c, ((Iommud__V1__BindDeviceResponse *)answer)->device);
        return code;
}

static int run_unbind(struct ctl *c, int argc, char **argv) {
        Iommud__V1__UnbindDeviceRequest request = IOMMUD__V1__UNBIND_DEVICE_REQUEST__INIT;
        _cleanup_message_ ProtobufCMessage *answer = NULL;
        int code = ctl_plain_arguments(c, argc, argv, 1, &argv);

        if (code >= 0)
                return code;
        request.device = argv[0];
        code = ctl_call(c, "UnbindDevice", &request.base, &iommud__v1__unbind_device_response__descriptor, &answer);
        if (answer && ((Iommud__V1__UnbindDeviceResponse *)answer)->device)
                print_device(c, ((Iommud__V1__UnbindDeviceResponse *)answer)->device);
        return code;
}

static int run_release(struct ctl *c, int argc, char **argv) {
        Iommud__V1__ReleaseLeaseRequest request = IOMMUD__V1__RELEASE_LEASE_REQUEST__INIT;
        _cleanup_message_ ProtobufCMessage *answer = NULL;
        int code = ctl_plain_arguments(c, argc, argv, 1, &argv);

        if (code >= 0)
                return code;
        request.device = argv[0];
        code = ctl_call(c, "ReleaseLease", &request.base, &iommud__v1__release_lease_response__descriptor, &answer);
        if (!answer)
                return code;
        if (c->json)
                json_print(answer);
        else
                puts(((Iommud__V1__ReleaseLeaseResponse *)answer)->state);
        return CTL_OK;
}

const struct verb device_verbs[] = {
        { "device", "list", "", "devices, their IOMMU groups, drivers and who holds them", "", run_list },
        { "device", "bind", "DEVICE", "give a device to vfio-pci, so that tenants can lease it", "", run_bind },
        { "device", "unbind", "DEVICE", "give a device back to the driver that it had", "", run_unbind },
        { "device", "release", "DEVICE", "take a device back from who holds it", "", run_release },
        { 0 },
};
