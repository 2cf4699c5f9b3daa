/* SPDX-License-Identifier: Apache-2.0 */
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "domain.h"
#include "error.h"
#include "fd_channel.h"
#include "util/cleanup.h"

static void attachment_free(struct sdk_object *o) {
        struct iommud_attachment *a = (struct iommud_attachment *)o;

        fd_close(a->fd);
        pthread_mutex_destroy(&a->lock);
        free(a);
}

/* Call with the lock held. */
static void close_fd(struct iommud_attachment *a) {
        a->fd = fd_close(a->fd);
        memset(a->regions, 0, sizeof a->regions);
}

static struct iommud_attachment *attachment_of(struct sdk_object *o) {
        return o->free == attachment_free ? (struct iommud_attachment *)o : NULL;
}

void device_object_close_fd(struct sdk_object *o) {
        struct iommud_attachment *a = attachment_of(o);

        if (!a)
                return;
        LOCK_SCOPE(&a->lock);

        close_fd(a);
}

void device_object_leave_domain(struct sdk_object *o, void *device_of_domain) {
        const struct device_of_domain *which = device_of_domain;
        struct iommud_attachment *a = attachment_of(o);

        if (!a || a->domain != which->domain)
                return;
        LOCK_SCOPE(&a->lock);

        close_fd(a);
        a->gone = a->gone || which->gone;
}

static struct iommud_attachment *attachment_new(struct iommud_domain *domain) {
        struct iommud_attachment *a = calloc(1, sizeof *a);

        if (!a)
                return NULL;
        a->object.free = attachment_free;
        a->domain = domain->object.id;
        a->fd = -1;
        pthread_mutex_init(&a->lock, NULL);
        return a;
}

int iommud_device_attach(struct iommud_domain *domain, const char *device, struct iommud_attachment **ret) {
        Iommud__V1__AttachDeviceRequest request = IOMMUD__V1__ATTACH_DEVICE_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        struct iommud_attachment *a;
        struct request_key key;
        int r;

        sdk_enter(__func__);
        if (!domain || !device || !ret)
                return sdk_fail(-EINVAL, 0, "domain, device and the place for the attachment must not be NULL");
        r = request_key_make(&key);
        if (r < 0)
                return r;
        a = attachment_new(domain);
        if (!a)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        request.request_key = request_key_data(&key);
        request.domain = domain->object.id;
        request.device = (char *)device;
        r = sdk_call(domain->object.client, METHOD_AttachDevice, &request.base, &answer);
        if (r < 0) {
                attachment_free(&a->object);
                return r;
        }
        a->object.id = ((Iommud__V1__AttachDeviceResponse *)answer)->attachment;
        client_add(domain->object.client, &a->object);
        *ret = a;
        return 0;
}

static bool already_gone(struct iommud_attachment *a) {
        LOCK_SCOPE(&a->lock);

        close_fd(a);
        return a->gone;
}

int iommud_device_detach(struct iommud_attachment *a) {
        Iommud__V1__DetachDeviceRequest request = IOMMUD__V1__DETACH_DEVICE_REQUEST__INIT;
        struct request_key key;
        int r;

        if (!a)
                return 0;
        sdk_enter(__func__);
        /* The fd first: while one is open the service can take the device back, but lend it to nobody. */
        if (!already_gone(a)) {
                r = request_key_make(&key);
                if (r < 0)
                        return r;
                request.request_key = request_key_data(&key);
                request.attachment = a->object.id;
                r = sdk_call_release(a->object.client, METHOD_DetachDevice, &request.base,
                                     IOMMUD_REASON_UNKNOWN_ATTACHMENT);
                if (r < 0)
                        return r;
        }
        client_remove(&a->object);
        return 0;
}

uint64_t iommud_attachment_id(const struct iommud_attachment *a) {
        return a ? a->object.id : 0;
}

static const struct device_ops *ops_of_kind(uint32_t kind) {
        switch (kind) {
        case DEVICE_KIND_VFIO:
                return &device_vfio_ops;
        case DEVICE_KIND_SOFT:
                return &device_soft_ops;
        default:
                return NULL;
        }
}

/* Makes sure that the device fd is there. Call with the lock held. */
static int ensure_fd(struct iommud_attachment *a, int64_t deadline) {
        struct session_msg request = { .type = SESSION_DEVICE_FD, .id = a->object.id }, answer;
        _cleanup_close_ int fd = -1;
        int r;

        if (a->gone)
                return sdk_fail(-ENODEV, IOMMUD_REASON_UNKNOWN_ATTACHMENT,
                                "the device was detached when its domain was destroyed");
        if (a->fd >= 0)
                return 0;
        r = sdk_session_ask(a->object.client->session, &request, -1, deadline, &answer, &fd);
        if (r < 0)
                return r;
        a->ops = ops_of_kind(answer.kind);
        if (answer.type != SESSION_DEVICE || fd < 0)
                return sdk_fail(-EPROTO, IOMMUD_REASON_INTERNAL, "the session's holder sent no device");
        if (!a->ops)
                return sdk_fail(-ENOTSUP, IOMMUD_REASON_UNSUPPORTED, "this library does not know devices of kind %u",
                                answer.kind);
        a->fd = fd_steal(&fd);
        return 0;
}

int iommud_device_fd(struct iommud_attachment *a, int *ret) {
        int fd, r;

        sdk_enter(__func__);
        if (!a || !ret)
                return sdk_fail(-EINVAL, 0, "attachment and the place for the fd must not be NULL");
        LOCK_SCOPE(&a->lock);

        r = ensure_fd(a, client_deadline(a->object.client));
        if (r < 0)
                return r;
        if (a->ops != &device_vfio_ops)
                return sdk_fail(-ENOTSUP, IOMMUD_REASON_UNSUPPORTED,
                                "a device of the software IOMMU has no VFIO fd; read and write its regions instead");
        fd = fcntl(a->fd, F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
                return sdk_fail(-errno, 0, "the device fd could not be duplicated: %s", strerror(errno));
        *ret = fd;
        return 0;
}

/* Makes sure that fd and region are known. Call with the lock held. */
static int ensure_region(struct iommud_attachment *a, uint32_t region, int64_t deadline) {
        struct device_region found = { .known = true };
        int r;

        if (region >= DEVICE_REGIONS_MAX)
                return sdk_fail(-EINVAL, 0, "there is no region %u; regions are numbered 0 to %u", region,
                                DEVICE_REGIONS_MAX - 1);
        r = ensure_fd(a, deadline);
        if (r < 0 || a->regions[region].known)
                return r;
        r = a->ops->describe(a, region, deadline, &found);
        if (r < 0)
                return r;
        a->regions[region] = found;
        return 0;
}

int iommud_device_region_size(struct iommud_attachment *a, uint32_t region, uint64_t *ret) {
        int r;

        sdk_enter(__func__);
        if (!a || !ret)
                return sdk_fail(-EINVAL, 0, "attachment and the place for the size must not be NULL");
        LOCK_SCOPE(&a->lock);

        r = ensure_region(a, region, client_deadline(a->object.client));
        if (r < 0)
                return r;
        *ret = a->regions[region].size;
        return 0;
}

static int access_region(struct iommud_attachment *a, struct device_access *access) {
        int64_t deadline = client_deadline(a->object.client);
        uint64_t size;
        int r;
        LOCK_SCOPE(&a->lock);

        if (access->width > 8 || __builtin_popcount(access->width) != 1)
                return sdk_fail(-EINVAL, 0, "an access is 1, 2, 4 or 8 bytes wide, not %u", access->width);
        if (access->offset % access->width != 0)
                return sdk_fail(-EINVAL, IOMMUD_REASON_UNALIGNED, "offset %#llx is not a multiple of the width, %u",
                                (unsigned long long)access->offset, access->width);
        r = ensure_region(a, access->region, deadline);
        if (r < 0)
                return r;
        size = a->regions[access->region].size;
        if (access->offset >= size || size - access->offset < access->width)
                return sdk_fail(-EINVAL, 0, "offset %#llx is beyond region %u, which has %llu bytes",
                                (unsigned long long)access->offset, access->region, (unsigned long long)size);
        return a->ops->access(a, access, deadline);
}

int iommud_device_region_read(struct iommud_attachment *a, uint32_t region, uint64_t offset, unsigned width,
                              uint64_t *ret) {
        struct device_access access = { .region = region, .width = width, .offset = offset };
        int r;

        sdk_enter(__func__);
        if (!a || !ret)
                return sdk_fail(-EINVAL, 0, "attachment and the place for the value must not be NULL");
        r = access_region(a, &access);
        if (r < 0)
                return r;
        *ret = access.value;
        return 0;
}

int iommud_device_region_write(struct iommud_attachment *a, uint32_t region, uint64_t offset, unsigned width,
                               uint64_t value) {
        struct device_access access = { .write = true, .region = region, .width = width, .offset = offset,
                                        .value = value };

        sdk_enter(__func__);
        if (!a)
                return sdk_fail(-EINVAL, 0, "the attachment must not be NULL");
        return access_region(a, &access);
}
