/* SPDX-License-Identifier: Apache-2.0 */
#include "wire.h"

#include <stdint.h>
#include <string.h>

#include "util/cleanup.h"

/* The service's texts are short and gRPC limits metadata to 8 KiB; more is not ours. */
#define DETAILS_MAX 16384U
#define REFUSAL_TYPE_URL "type.googleapis.com/iommud.v1.Refusal"

static void free_status_details(Iommud__V1__StatusDetails **m) {
        if (*m)
                iommud__v1__status_details__free_unpacked(*m, NULL);
}

static void free_refusal(Iommud__V1__Refusal **m) {
        if (*m)
                iommud__v1__refusal__free_unpacked(*m, NULL);
}

void wire_text(char *ret, size_t size, const char *text) {
        size_t n = text ? strnlen(text, size) : 0;

        if (n >= size) {
                n = size - 1;
                while (n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80)     /* not in the middle of a UTF-8 sequence */
                        n--;
        }
        for (size_t i = 0; i < n; i++)
                ret[i] = (uint8_t)text[i] < 0x20 || text[i] == 0x7f ? ' ' : text[i];
        ret[n] = '\0';
}

static void fill_error(const Iommud__V1__Refusal *r, struct iommud_error *ret) {
        *ret = (struct iommud_error){
                .reason = (enum iommud_reason)r->reason,
                .resource = (enum iommud_resource)r->resource,
                .element = r->batch_case == IOMMUD__V1__REFUSAL__BATCH_ELEMENT ? (int64_t)r->element : -1,
                .limit = r->limit,
                .used = r->used,
                .asked = r->asked,
                .conflict_first = r->conflict ? r->conflict->first : 1,
                .conflict_last = r->conflict ? r->conflict->last : 0,
                .nearest_below = r->nearest_below,
                .nearest_above = r->nearest_above,
                .system_errno = r->system_errno,
        };
        wire_text(ret->text, sizeof ret->text, r->text);
}

bool wire_refusal(const void *bytes, size_t n, struct iommud_error *ret) {
        _cleanup_(free_status_details) Iommud__V1__StatusDetails *status = NULL;

        if (!bytes || n == 0 || n > DETAILS_MAX)
                return false;
        status = iommud__v1__status_details__unpack(NULL, n, bytes);
        if (!status)
                return false;
        for (size_t i = 0; i < status->n_details; i++) {
                const Iommud__V1__StatusDetail *d = status->details[i];
                _cleanup_(free_refusal) Iommud__V1__Refusal *r = NULL;

                if (strcmp(d->type_url, REFUSAL_TYPE_URL) != 0)
                        continue;
                r = iommud__v1__refusal__unpack(NULL, d->value.len, d->value.data);
                if (!r)
                        return false;
                fill_error(r, ret);
                return true;
        }
        return false;
}

void wire_constraints(const Iommud__V1__Constraints *c, struct iommud_constraints *ret) {
        *ret = (struct iommud_constraints){ .size = sizeof *ret, .max_mappings = UINT32_MAX };
        if (!c)
                return;
        ret->page_sizes = c->page_sizes;
        if (c->max_mappings != 0)
                ret->max_mappings = c->max_mappings;
        for (size_t i = 0; i < c->n_ranges && ret->n_ranges < ARRAY_SIZE(ret->ranges); i++)
                ret->ranges[ret->n_ranges++] =
                        (struct iommud_range){ .first = c->ranges[i]->first, .last = c->ranges[i]->last };
}
