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

int iommud_domain_create(struct iommud_client *client, const char *label, struct iommud_domain **ret) {
        Iommud__V1__CreateDomainRequest request = IOMMUD__V1__CREATE_DOMAIN_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        _cleanup_free_ struct iommud_domain *domain = NULL;
        struct request_key key;
        int r;

        sdk_enter(__func__);
        if (!client || !ret)
                return sdk_fail(-EINVAL, 0, "client and the place for the domain must not be NULL");
        r = request_key_make(&key);
        if (r < 0)
                return r;
        domain = calloc(1, sizeof *domain);
        if (!domain)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        request.request_key = request_key_data(&key);
        if (label)
                request.label = (char *)label;
        r = sdk_call(client, METHOD_CreateDomain, &request.base, &answer);
        if (r < 0)
                return r;
        domain->object.free = domain_free;
        domain->object.id = ((Iommud__V1__CreateDomainResponse *)answer)->domain;
        client_add(client, &domain->object);
        *ret = domain;
        domain = NULL;
        return 0;
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
        if (sdk_struct_out(info, &found, sizeof found) < 0)
                return sdk_fail(-EINVAL, 0, "the size of struct iommud_domain_info is not set");
        return 0;
}
