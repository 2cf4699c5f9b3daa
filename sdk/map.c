/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "domain.h"
#include "error.h"
#include "memory.h"
#include "util/cleanup.h"

#define BATCH_MAX 1024U

/* The columns of a MapRequest; entry i is row i. Memory and access have one value when it stands for all. */
struct columns {
        uint64_t iova[BATCH_MAX], length[BATCH_MAX], offset[BATCH_MAX], memory[BATCH_MAX];
        uint32_t access[BATCH_MAX];
        size_t n_memory, n_access;
};

static int check_batch(const void *domain, const void *entries, size_t n) {
        struct iommud_error e = { .reason = IOMMUD_REASON_BATCH_TOO_LARGE, .element = -1, .conflict_first = 1,
                                  .limit = BATCH_MAX, .asked = n };

        if (!domain || (!entries && n > 0))
                return sdk_fail(-EINVAL, 0, "domain and entries must not be NULL");
        if (n <= BATCH_MAX)
                return 0;
        strcpy(e.text, "a batch has at most 1024 entries; send several");
        return sdk_fail_with(-EINVAL, &e);
}

static int wrong_memory(const struct iommud_memory *memory, size_t element) {
        struct iommud_error e = { .element = (int64_t)element, .conflict_first = 1 };

        strcpy(e.text, memory ? "the memory belongs to another client than the domain" : "the memory must not be NULL");
        return sdk_fail_with(-EINVAL, &e);
}

static int fill_columns(const struct iommud_domain *domain, const struct iommud_map_entry *entries, size_t n,
                        struct columns *c) {
        c->n_memory = c->n_access = 1;
        for (size_t i = 0; i < n; i++) {
                const struct iommud_map_entry *e = &entries[i];

                if (!e->memory || e->memory->object.client != domain->object.client)
                        return wrong_memory(e->memory, i);
                c->iova[i] = e->iova;
                c->length[i] = e->length;
                c->offset[i] = e->offset;
                c->memory[i] = e->memory->object.id;
                c->access[i] = (uint32_t)e->access;
                if (c->memory[i] != c->memory[0])
                        c->n_memory = n;
                if (c->access[i] != c->access[0])
                        c->n_access = n;
        }
        return 0;
}

static int map_entries(struct iommud_domain *domain, const struct iommud_map_entry *entries, size_t n) {
        Iommud__V1__MapRequest request = IOMMUD__V1__MAP_REQUEST__INIT;
        _cleanup_free_ struct columns *c = NULL;
        struct request_key key;
        int r;

        r = check_batch(domain, entries, n);
        if (r < 0 || n == 0)
                return r;
        c = malloc(sizeof *c);
        if (!c)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        r = fill_columns(domain, entries, n, c);
        if (r < 0)
                return r;
        r = request_key_make(&key);
        if (r < 0)
                return r;
        request.request_key = request_key_data(&key);
        request.domain = domain->object.id;
        request.iova = c->iova;
        request.length = c->length;
        request.offset = c->offset;
        request.n_iova = request.n_length = request.n_offset = n;
        request.memory = c->memory;
        request.n_memory = c->n_memory;
        request.access = c->access;
        request.n_access = c->n_access;
        return sdk_call(domain->object.client, METHOD_Map, &request.base, NULL);
}

int iommud_map(struct iommud_domain *domain, uint64_t iova, struct iommud_memory *memory, uint64_t offset,
               uint64_t length, enum iommud_access access) {
        struct iommud_map_entry entry = { .iova = iova, .memory = memory, .offset = offset, .length = length,
                                          .access = access };
        int r;

        sdk_enter(__func__);
        r = map_entries(domain, &entry, 1);
        if (r < 0)
                sdk_error_not_batch();
        return r;
}

int iommud_map_batch(struct iommud_domain *domain, const struct iommud_map_entry *entries, size_t n) {
        sdk_enter(__func__);
        return map_entries(domain, entries, n);
}

static int unmap_entries(struct iommud_domain *domain, const struct iommud_unmap_entry *entries, size_t n) {
        Iommud__V1__UnmapRequest request = IOMMUD__V1__UNMAP_REQUEST__INIT;
        _cleanup_free_ struct columns *c = NULL;
        struct request_key key;
        int r;

        r = check_batch(domain, entries, n);
        if (r < 0 || n == 0)
                return r;
        c = malloc(sizeof *c);
        if (!c)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        for (size_t i = 0; i < n; i++) {
                c->iova[i] = entries[i].iova;
                c->length[i] = entries[i].length;
        }
        r = request_key_make(&key);
        if (r < 0)
                return r;
        request.request_key = request_key_data(&key);
        request.domain = domain->object.id;
        request.iova = c->iova;
        request.length = c->length;
        request.n_iova = request.n_length = n;
        return sdk_call(domain->object.client, METHOD_Unmap, &request.base, NULL);
}

int iommud_unmap(struct iommud_domain *domain, uint64_t iova, uint64_t length) {
        struct iommud_unmap_entry entry = { .iova = iova, .length = length };
        int r;

        sdk_enter(__func__);
        r = unmap_entries(domain, &entry, 1);
        if (r < 0)
                sdk_error_not_batch();
        return r;
}

int iommud_unmap_batch(struct iommud_domain *domain, const struct iommud_unmap_entry *entries, size_t n) {
        sdk_enter(__func__);
        return unmap_entries(domain, entries, n);
}

int iommud_unmap_all(struct iommud_domain *domain, uint64_t *ret_bytes) {
        Iommud__V1__UnmapAllRequest request = IOMMUD__V1__UNMAP_ALL_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        struct request_key key;
        int r;

        sdk_enter(__func__);
        if (!domain)
                return sdk_fail(-EINVAL, 0, "the domain must not be NULL");
        r = request_key_make(&key);
        if (r < 0)
                return r;
        request.request_key = request_key_data(&key);
        request.domain = domain->object.id;
        r = sdk_call(domain->object.client, METHOD_UnmapAll, &request.base, &answer);
        if (r < 0)
                return r;
        if (ret_bytes)
                *ret_bytes = ((Iommud__V1__UnmapResponse *)answer)->unmapped_bytes;
        return 0;
}

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

                grown[l->n++] = (struct iommud_mapping){ .iova = m->iova, .length = m->length, .memory = m->memory,
                                                         .offset = m->offset, .access = m->access,
                                                         .live = strcmp(m->state, "live") == 0 };
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
