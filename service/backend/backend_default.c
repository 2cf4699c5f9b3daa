/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend_ops.h"

/*
 * What a backend answers where it implements nothing, so that no caller tests for NULL.
 */
static int default_open(struct backend_open *o, struct container **ret, struct refusal *r) {
        (void)o;
        (void)ret;
        return refuse(r, REFUSAL_UNSUPPORTED, "this backend cannot open containers");
}

static void default_close(struct container *c) {
        (void)c;
}

static int default_map(struct container *c, const struct backend_mapping *m, struct refusal *r) {
        (void)m;
        return refuse(r, REFUSAL_UNSUPPORTED, "the %s backend cannot map", c->ops.name);
}

static int default_unmap(struct container *c, struct iova_range range, struct refusal *r) {
        (void)range;
        return refuse(r, REFUSAL_UNSUPPORTED, "the %s backend cannot unmap", c->ops.name);
}

static int default_unmap_all(struct container *c, struct refusal *r) {
        return refuse(r, REFUSAL_UNSUPPORTED, "the %s backend cannot unmap", c->ops.name);
}

static int default_window_create(struct container *c, const struct backend_window *want, struct backend_window *ret,
                                 struct refusal *r) {
        (void)want;
        (void)ret;
        return refuse(r, REFUSAL_UNSUPPORTED, "the %s backend cannot create windows", c->ops.name);
}

static int default_window_remove(struct container *c, const struct backend_window *w, struct refusal *r) {
        (void)w;
        return refuse(r, REFUSAL_UNSUPPORTED, "the %s backend cannot remove windows", c->ops.name);
}

/* Most need none: the broker's keepers can revoke, or the translation dies with this process. */
static int default_revoker_fd(struct container *c, int *ret_fd, struct refusal *r) {
        (void)c;
        (void)r;
        *ret_fd = -1;
        return 0;
}

static int default_device_open(struct container *c, const char *name, struct device **ret, struct refusal *r) {
        (void)ret;
        return refuse(r, REFUSAL_UNSUPPORTED, "the %s backend has no devices, '%s' was asked for", c->ops.name, name);
}

static void default_device_close(struct device *d) {
        (void)d;
}

static int default_device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r) {
        (void)ret_fd;
        return refuse(r, REFUSAL_UNSUPPORTED, "the %s backend has no device fd to keep", d->container->ops.name);
}

static int default_device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r) {
        (void)ret_fd;
        (void)ret_kind;
        return refuse(r, REFUSAL_UNSUPPORTED, "the %s backend has no device fd to give", d->container->ops.name);
}

void backend_ops_complete(const struct backend_ops *ops, struct backend_ops *ret) {
#define OR_DEFAULT(entry) .entry = ops->entry ? ops->entry : default_##entry
        *ret = (struct backend_ops){
                .name = ops->name ? ops->name : "nameless",
                OR_DEFAULT(open),
                OR_DEFAULT(close),
                OR_DEFAULT(map),
                OR_DEFAULT(unmap),
                OR_DEFAULT(unmap_all),
                OR_DEFAULT(window_create),
                OR_DEFAULT(window_remove),
                OR_DEFAULT(revoker_fd),
                OR_DEFAULT(device_open),
                OR_DEFAULT(device_close),
                OR_DEFAULT(device_keeper_fd),
                OR_DEFAULT(device_client_fd),
        };
#undef OR_DEFAULT
}
