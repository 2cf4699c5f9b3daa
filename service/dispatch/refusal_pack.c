/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "dispatch/rpc.h"
#include "dispatch/text.h"

#define REFUSAL_TYPE_URL "type.googleapis.com/iommud.v1.Refusal"

static void refusal_to_message(const struct refusal *r, const char *text, Iommud__V1__Range *conflict,
                               Iommud__V1__Refusal *ret) {
        iommud__v1__refusal__init(ret);
        ret->reason = (Iommud__V1__Reason)r->reason;
        ret->resource = (Iommud__V1__Resource)r->resource;
        if (r->element >= 0) {
                ret->batch_case = IOMMUD__V1__REFUSAL__BATCH_ELEMENT;
                ret->element = (uint32_t)r->element;
        }
        ret->limit = r->limit;
        ret->used = r->used;
        ret->asked = r->asked;
        if (r->conflict_first <= r->conflict_last) {
                iommud__v1__range__init(conflict);
                conflict->first = r->conflict_first;
                conflict->last = r->conflict_last;
                ret->conflict = conflict;
        }
        ret->nearest_below = r->nearest_below;
        ret->nearest_above = r->nearest_above;
        ret->system_errno = r->errnum;
        ret->text = rpc_borrow(text);
}

size_t refusal_pack(const struct refusal *r, char message[REFUSAL_TEXT_MAX], unsigned char packed[REFUSAL_PACKED_MAX]) {
        Iommud__V1__StatusDetails status = IOMMUD__V1__STATUS_DETAILS__INIT;
        Iommud__V1__StatusDetail detail = IOMMUD__V1__STATUS_DETAIL__INIT, *details[] = { &detail };
        Iommud__V1__Range conflict;
        Iommud__V1__Refusal refusal;
        uint8_t value[REFUSAL_PACKED_MAX / 2];

        /* the text may name things that others chose: a command's name, a kernel's words */
        text_make_printable(r->text, message, REFUSAL_TEXT_MAX);
        refusal_to_message(r, message, &conflict, &refusal);
        if (iommud__v1__refusal__get_packed_size(&refusal) > sizeof value)
                return 0;
        detail.type_url = rpc_borrow(REFUSAL_TYPE_URL);
        detail.value.data = value;
        detail.value.len = iommud__v1__refusal__pack(&refusal, value);
        status.code = refusal_grpc_status(r->reason);
        status.message = message;
        status.n_details = 1;
        status.details = details;
        if (iommud__v1__status_details__get_packed_size(&status) > REFUSAL_PACKED_MAX)
                return 0;
        return iommud__v1__status_details__pack(&status, packed);
}
