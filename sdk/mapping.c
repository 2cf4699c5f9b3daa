/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "domain.h"
#include "error.h"
#include "util/cleanup.h"

/* What has been listed so far. */
struct listing {
        struct iommud_mapping *mappings;
        size_t n;
        char *next;             /* page token, owned; NULL: no more */
};

static void listing_clear(struct listing *l) {
        free(l->mappings);
        free(l->next);
}

static int listing_add(struct listing *l, const Iommud__V1__ListMappingsResponse *page) {
        struct iommud_mapping *grown = reallocarray(l->mappings, l->n + page->n_mappings + 1, sizeof *grown);

        if (!grown)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        l->mappings = grown;
        for (size_t i = 0; i < page->n_mappings; i++) {
                const Iommud__V1__Mapping *m = page->mappings[i];

                grown[l->n++] = (struct iommud_mapping){
                        .iova = m->iova, .length = m->length, .memory = m->memory, .offset = m->offset,
                        .access = m->access, .live = strcmp(m->state, "live") == 0, .chunk = m->chunk,
                        .exposed_first = m->exposed ? m->exposed->first : 1,
                        .exposed_last = m->exposed ? m->exposed->last : 0,
                        .exposed_access = m->exposed_access,
                };
        }
        free(l->next);
        l->next = NULL;
        if (page->next_page_token[0] == '\0')
                return 0;
        l->next = strdup(page->next_page_token);
        return l->next ? 0 : sdk_fail(-ENOMEM, 0, "out of memory");
}

static int list_page(struct iommud_domain *domain, struct listing *l) {
        Iommud__V1__ListMappingsRequest request = IOMMUD__V1__LIST_MAPPINGS_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        int r;

        request.domain = domain->object.id;
        if (l->next)
                request.page_token = l->next;
        r = sdk_call(domain->object.client, METHOD_ListMappings, &request.base, &answer);
        if (r < 0)
                return r;
        return listing_add(l, (Iommud__V1__ListMappingsResponse *)answer);
}

int iommud_mapping_list(struct iommud_domain *domain, struct iommud_mapping **ret, size_t *ret_n) {
        _cleanup_(listing_clear) struct listing l = { 0 };
        int r;

        sdk_enter(__func__);
        if (!domain || !ret || !ret_n)
                return sdk_fail(-EINVAL, 0, "domain and the places for the list must not be NULL");
        do {
                r = list_page(domain, &l);
                if (r < 0)
                        return r;
        } while (l.next);
        *ret = l.mappings;
        *ret_n = l.n;
        l.mappings = NULL;
        return 0;
}

void iommud_mapping_list_free(struct iommud_mapping *mappings) {
        free(mappings);
}
