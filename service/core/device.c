/* SPDX-License-Identifier: Apache-2.0 */
#include "core/device.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "backend/revoke.h"
#include "core/bind_client.h"
#include "core/broker_private.h"
#include "core/domain.h"
#include "core/inventory.h"
#include "util/cleanup.h"
#include "util/log.h"
#include "util/text.h"

/*
 * Devices as people see them: the kernel's inventory (or the soft devices), joined with who holds what.
 */

/* ---- one device ---- */

static void describe_soft(struct broker *b, size_t i, struct device_view *v) {
        memset(v, 0, sizeof *v);
        text_copy(v->name, sizeof v->name, b->options.soft_devices[i]);
        text_copy(v->driver, sizeof v->driver, "soft");
        text_copy(v->vendor_device, sizeof v->vendor_device, "1234:11e8");
        text_copy(v->members, sizeof v->members, v->name);
        v->group = BROKER_SOFT_GROUP_BASE + (uint32_t)i;
        v->usable = true;
        v->state = "free";
}

static void describe_pci(struct broker *b, const struct inventory *inventory, const struct inventory_device *d,
                         struct device_view *v) {
        struct refusal r, ignored;
        bool found;

        memset(v, 0, sizeof *v);
        text_copy(v->name, sizeof v->name, d->name);
        text_copy(v->driver, sizeof v->driver, d->driver);
        text_copy(v->vendor_device, sizeof v->vendor_device, d->vendor_device);
        inventory_group_members(inventory, d->group, v->members, sizeof v->members);
        v->group = d->group;
        v->usable = inventory_group_is_viable(inventory, d->group, &r) && strcmp(d->driver, "vfio-pci") == 0;
        v->state = v->usable ? "free" : "unbound";
        if (!v->usable)
                text_copy(v->why_not, sizeof v->why_not,
                          strcmp(d->driver, "vfio-pci") != 0 ? "not bound to vfio-pci (iommuctl device bind)" : r.text);
        if (ledger_binding_get(b->ledger, d->name, v->original_driver, &found, &ignored) < 0 || !found)
                v->original_driver[0] = '\0';
}

/* Who has it. s: who asks; NULL: an operator, who sees names. */
static void add_lease(struct broker *b, const struct session *s, struct device_view *v) {
        struct lease l;

        if (!lease_describe(b, v->group, &l))
                return;
        v->usable = false;
        v->state = l.state == LEASE_ORPHANED ? "orphaned" : "leased";
        text_copy(v->why_not, sizeof v->why_not,
                  l.state == LEASE_ORPHANED ? "given back, but a process still has it open" : "lent to a session");
        if (!s || strcmp(s->tenant->name, l.tenant) == 0) {
                text_copy(v->tenant, sizeof v->tenant, l.tenant);
                v->session = l.session;
        }
}

int device_list(struct broker *b, struct session *s, int (*each)(const struct device_view *v, void *arg), void *arg,
                struct refusal *r) {
        struct inventory inventory = { 0 };
        struct device_view v;
        int result = 0;

        if (b->options.backend == BACKEND_SOFT) {
                for (size_t i = 0; result == 0 && i < b->options.n_soft_devices; i++) {
                        describe_soft(b, i, &v);
                        add_lease(b, s, &v);
                        if (!s || tenant_may_lease(b, s->tenant, v.name, v.vendor_device))
                                result = each(&v, arg);
                }
                return result;
        }
        if (inventory_read(b->options.sysfs, &inventory, r) < 0)
                return -1;
        for (size_t i = 0; result == 0 && i < inventory.n; i++) {
                describe_pci(b, &inventory, &inventory.devices[i], &v);
                add_lease(b, s, &v);
                if (!s || tenant_may_lease(b, s->tenant, v.name, v.vendor_device))
                        result = each(&v, arg);
        }
        inventory_clear(&inventory);
        return result;
}

static int adopt_if_busy(const struct device_view *v, void *arg) {
        struct broker *b = arg;

        if (strcmp(v->state, "free") == 0 && revoke_group_is_busy(b->options.vfio_directory, v->group)) {
                log_warning("device %s (IOMMU group %u) is in use by a process that is none of ours: not lent until it is closed",
                            v->name, v->group);
                lease_adopt_orphan(b, 0, "", v->group, v->name);
        }
        return 0;
}

void device_find_orphans(struct broker *b) {
        struct refusal r;

        if (b->options.backend != BACKEND_SOFT && device_list(b, NULL, adopt_if_busy, b, &r) < 0)
                log_warning("devices cannot be looked at: %s", r.text);
}

struct search {
        const char *name;
        struct device_view *ret;
};

static int match(const struct device_view *v, void *arg) {
        struct search *search = arg;

        if (strcmp(v->name, search->name) != 0)
                return 0;
        *search->ret = *v;
        return 1;
}

/* An operator's look at one device. */
static int find(struct broker *b, const char *name, struct device_view *ret, struct refusal *r) {
        struct search search = { name, ret };
        int n = device_list(b, NULL, match, &search, r);

        if (n < 0)
                return -1;
        return n > 0 ? 0
                     : refuse(r, REFUSAL_UNKNOWN_DEVICE, "there is no device '%s' behind an IOMMU here (iommuctl device list)",
                              name);
}

int device_find_usable(struct broker *b, struct tenant *tenant, const char *name, uint32_t *ret_group,
                       struct refusal *r) {
        struct device_view v;

        if (!tenant && find(b, name, &v, r) < 0)
                return -1;
        if (tenant && (find(b, name, &v, r) < 0 || !tenant_may_lease(b, tenant, v.name, v.vendor_device)))
                return refuse(r, REFUSAL_UNKNOWN_DEVICE, "tenant '%s' has no device '%s' to attach (iommud_device_list() names "
                                                         "those it has)", tenant->name, name);
        /* Whether it is lent is decided when it is taken (core/lease.c); here only whether it ever could be. */
        if (strcmp(v.state, "unbound") == 0)
                return refuse(r, REFUSAL_GROUP_NOT_VIABLE, "device %s cannot be used: %s", name, v.why_not);
        *ret_group = v.group;
        return 0;
}

int constraints_query(struct broker *b, struct session *s, const char *device, struct container_info *ret, struct refusal *r) {
        uint32_t group;

        if (device && device[0] && device_find_usable(b, s->tenant, device, &group, r) < 0)
                return -1;
        constraints_default(b, ret);
        return 0;
}

/* ---- operators' requests ---- */

static int check_not_in_use(const struct device_view *v, struct refusal *r) {
        if (strcmp(v->state, "leased") != 0 && strcmp(v->state, "orphaned") != 0)
                return 0;
        return refuse(r, REFUSAL_DEVICE_BUSY, "device %s is %s by tenant '%s' (session %" PRIu64 "); release it first: iommuctl "
                                              "device release %s", v->name, strcmp(v->state, "leased") == 0 ? "leased" : "still "
                                              "held open", v->tenant, v->session, v->name);
}

int device_bind(struct broker *b, const char *device, struct device_view *ret, struct refusal *r) {
        char original[LEDGER_NAME_MAX];

        if (b->options.backend == BACKEND_SOFT)
                return refuse(r, REFUSAL_UNSUPPORTED, "devices of the software IOMMU need no binding");
        if (find(b, device, ret, r) < 0 || check_not_in_use(ret, r) < 0)
                return -1;
        if (strcmp(ret->driver, "vfio-pci") == 0)
                return 0;
        /* The driver to go back to is in the ledger before it is taken away. */
        if (ledger_binding_put(b->ledger, device, ret->driver, r) < 0)
                return -1;
        if (bind_client_call(b->options.bind_socket, BIND_TO_VFIO, device, NULL, BIND_DEADLINE_MS, original, r) < 0) {
                struct refusal ignored;

                ledger_binding_delete(b->ledger, device, &ignored);
                return -1;
        }
        broker_audit(b, "device.bound", NULL, device);
        return find(b, device, ret, r);
}

int device_unbind(struct broker *b, const char *device, struct device_view *ret, struct refusal *r) {
        char original[LEDGER_NAME_MAX];
        bool found;

        if (b->options.backend == BACKEND_SOFT)
                return refuse(r, REFUSAL_UNSUPPORTED, "devices of the software IOMMU need no binding");
        if (find(b, device, ret, r) < 0 || check_not_in_use(ret, r) < 0 ||
            ledger_binding_get(b->ledger, device, original, &found, r) < 0)
                return -1;
        if (!found)
                original[0] = '\0';     /* not bound by us: the kernel chooses */
        if (bind_client_call(b->options.bind_socket, BIND_RESTORE, device, original, BIND_DEADLINE_MS, NULL, r) < 0 ||
            ledger_binding_delete(b->ledger, device, r) < 0)
                return -1;
        broker_audit(b, "device.unbound", NULL, device);
        return find(b, device, ret, r);
}
