/* SPDX-License-Identifier: Apache-2.0 */
#include "domain.h"

#include <errno.h>
#include <stdlib.h>

#include "call.h"
#include "device.h"
#include "error.h"
#include "sized.h"
#include "util/cleanup.h"

static void domain_free(struct sdk_object *o) {
        free(o);        /* the object is the domain's first member */
}

static int create(struct iommud_client *client, const char *label, enum iommud_flush_mode mode,
                  struct iommud_domain **ret) {
        Iommud__V1__CreateDomainRequest request = IOMMUD__V1__CREATE_DOMAIN_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        _cleanup_free_ struct iommud_domain *domain = NULL;
        struct request_key key;
        int r;

        if (!client || !ret)
                return sdk_fail(-EINVAL, 0, "client and the place for the domain must not be NULL");
        if (mode != IOMMUD_FLUSH_STRICT) {
                r = client_needs(client, IOMMUD__V1__CAPABILITY__CAPABILITY_LAZY_FLUSH, "a flush mode");
                if (r < 0)
                        return r;
        }
        r = request_key_make(&key);
        if (r < 0)
                return r;
        domain = calloc(1, sizeof *domain);
        if (!domain)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        request.request_key = request_key_data(&key);
        request.flush_mode = (Iommud__V1__FlushMode)mode;
        if (label)
                request.label = (char *)label;
        r = sdk_call(client, METHOD_CreateDomain, &request.base, &answer);
        if (r < 0)
                return r;
        domain->object.free = domain_free;
        domain->lazy = mode == IOMMUD_FLUSH_LAZY;
        domain->object.id = ((Iommud__V1__CreateDomainResponse *)answer)->domain;
        client_add(client, &domain->object);
        *ret = domain;
        domain = NULL;
        return 0;
}

int iommud_domain_create(struct iommud_client *client, const char *label, struct iommud_domain **ret) {
        sdk_enter(__func__);
        return create(client, label, IOMMUD_FLUSH_STRICT, ret);
}

int iommud_domain_create_with(struct iommud_client *client, const struct iommud_domain_options *given,
                              struct iommud_domain **ret) {
        struct iommud_domain_options options;

        sdk_enter(__func__);
        if (sdk_options_in(&options, sizeof options, given) < 0)
                return sdk_fail(-EINVAL, 0, "the options' size is wrong, or they hold what this library does not know");
        return create(client, options.label, options.flush_mode, ret);
}

static int sync_domain(struct iommud_domain *domain, ProtobufCMessage **ret_answer) {
        Iommud__V1__SyncRequest request = IOMMUD__V1__SYNC_REQUEST__INIT;
        struct request_key key;
        int r = request_key_make(&key);

        if (r < 0)
                return r;
        request.request_key = request_key_data(&key);
        request.domain = domain->object.id;
        return sdk_call(domain->object.client, METHOD_Sync, &request.base, ret_answer);
}

int iommud_domain_destroy(struct iommud_domain *domain) {
        Iommud__V1__DestroyDomainRequest request = IOMMUD__V1__DESTROY_DOMAIN_REQUEST__INIT;
        struct device_of_domain which;
        struct request_key key;
        int r;

        if (!domain)
                return 0;
        sdk_enter(__func__);
        r = request_key_make(&key);
        if (r < 0)
                return r;
        /* A flush that the service does by itself would be in the way; if this fails, the destroy will say why. */
        if (domain->lazy)
                (void)sync_domain(domain, NULL);
        which = (struct device_of_domain){ .domain = domain->object.id };
        client_visit(domain->object.client, device_object_leave_domain, &which);
        request.request_key = request_key_data(&key);
        request.domain = domain->object.id;
        request.force = true;
        r = sdk_call_release(domain->object.client, METHOD_DestroyDomain, &request.base, IOMMUD_REASON_UNKNOWN_DOMAIN);
        if (r < 0)
                return r;
        which.gone = true;
        client_visit(domain->object.client, device_object_leave_domain, &which);
        client_remove(&domain->object);
        return 0;
}

int iommud_domain_sync(struct iommud_domain *domain, uint64_t *ret_bytes) {
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        int r;

        sdk_enter(__func__);
        if (!domain)
                return sdk_fail(-EINVAL, 0, "the domain must not be NULL");
        if (!client_has(domain->object.client, IOMMUD__V1__CAPABILITY__CAPABILITY_LAZY_FLUSH)) {
                if (ret_bytes)
                        *ret_bytes = 0;         /* an older service knows strict domains alone */
                return 0;
        }
        r = sync_domain(domain, &answer);
        if (r < 0)
                return r;
        if (ret_bytes)
                *ret_bytes = ((Iommud__V1__SyncResponse *)answer)->flushed_bytes;
        return 0;
}

uint64_t iommud_domain_id(const struct iommud_domain *domain) {
        return domain ? domain->object.id : 0;
}

int iommud_domain_info(struct iommud_domain *domain, struct iommud_domain_info *info) {
        Iommud__V1__DescribeDomainRequest request = IOMMUD__V1__DESCRIBE_DOMAIN_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        struct iommud_domain_info found = { .size = sizeof found };
        const Iommud__V1__Domain *d;
        int r;

        sdk_enter(__func__);
        if (!domain || !info)
                return sdk_fail(-EINVAL, 0, "domain and the place for the info must not be NULL");
        request.domain = domain->object.id;
        r = sdk_call(domain->object.client, METHOD_DescribeDomain, &request.base, &answer);
        if (r < 0)
                return r;
        d = ((Iommud__V1__DescribeDomainResponse *)answer)->domain;
        if (!d)
                return sdk_fail(-EIO, IOMMUD_REASON_INTERNAL, "the service's answer holds no domain");
        found.id = d->id;
        found.mappings = d->mappings;
        found.mapped_bytes = d->mapped_bytes;
        found.attachments = (uint32_t)d->n_attachments;
        wire_text(found.label, sizeof found.label, d->label);
        wire_text(found.state, sizeof found.state, d->state);
        wire_constraints(d->constraints, &found.constraints);
        found.flush_mode = (enum iommud_flush_mode)d->flush_mode;
        found.deferred_mappings = d->deferred_mappings;
        found.deferred_bytes = d->deferred_bytes;
        found.kernel_mappings = d->kernel_mappings;
        found.table_bytes = d->table_bytes;
        found.shared_pages = d->shared_pages;
        if (sdk_struct_out(info, &found, sizeof found) < 0)
                return sdk_fail(-EINVAL, 0, "the size of struct iommud_domain_info is not set");
        return 0;
}
