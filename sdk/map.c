/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "domain.h"
#include "error.h"
#include "memory.h"
#include "sized.h"
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

/* What an option needs of the service. One that does not know it would ignore it. */
static int check_options(const struct iommud_client *client, const struct iommud_map_options *o) {
        static const struct {
                uint32_t flag;
                uint64_t capability;
                const char *what;
        } needs[] = {
                { IOMMUD_MAP_EXPOSE_PAGES, IOMMUD__V1__CAPABILITY__CAPABILITY_SUBPAGE, "EXPOSE_PAGES" },
                { IOMMUD_MAP_MERGE, IOMMUD__V1__CAPABILITY__CAPABILITY_MERGE, "MERGE" },
                { IOMMUD_MAP_DRY_RUN, IOMMUD__V1__CAPABILITY__CAPABILITY_DRY_RUN, "DRY_RUN" },
                { IOMMUD_MAP_ANYWHERE, IOMMUD__V1__CAPABILITY__CAPABILITY_WINDOWS, "ANYWHERE" },
        };
        uint32_t unknown = o->flags;
        int r = 0;

        for (size_t i = 0; i < ARRAY_SIZE(needs) && r == 0; i++) {
                unknown &= ~needs[i].flag;
                if (o->flags & needs[i].flag)
                        r = client_needs(client, needs[i].capability, needs[i].what);
        }
        if (r == 0 && o->chunk != 0)
                r = client_needs(client, IOMMUD__V1__CAPABILITY__CAPABILITY_PARTIAL_UNMAP, "chunks");
        if (r < 0)
                return r;
        if (unknown)
                return sdk_fail(-EINVAL, 0, "this library knows no map flag 0x%x", unknown);
        if (o->window != 0 && !(o->flags & IOMMUD_MAP_ANYWHERE))
                return sdk_fail(-EINVAL, 0, "a window is chosen for IOMMUD_MAP_ANYWHERE only");
        return 0;
}

/* Two calls can meet in an IOMMU page that their ranges share, which no caller can know of the other: whoever comes
 * second waits until the first is done. */
static int call_in(struct iommud_domain *domain, enum sdk_method method, const ProtobufCMessage *request,
                   ProtobufCMessage **ret_answer) {
        if (atomic_load(&domain->shares_pages))
                return sdk_call_patient(domain->object.client, method, request, ret_answer);
        return sdk_call(domain->object.client, method, request, ret_answer);
}

static void fill_map_request(Iommud__V1__MapRequest *request, struct columns *c, size_t n,
                             const struct iommud_map_options *o, uint64_t *chunk) {
        request->iova = c->iova;
        request->length = c->length;
        request->offset = c->offset;
        request->n_iova = request->n_length = request->n_offset = n;
        request->memory = c->memory;
        request->n_memory = c->n_memory;
        request->access = c->access;
        request->n_access = c->n_access;
        request->chunk = chunk;
        request->n_chunk = *chunk != 0;
        request->expose_pages = (o->flags & IOMMUD_MAP_EXPOSE_PAGES) != 0;
        request->merge = (o->flags & IOMMUD_MAP_MERGE) != 0;
        request->dry_run = (o->flags & IOMMUD_MAP_DRY_RUN) != 0;
        request->anywhere = (o->flags & IOMMUD_MAP_ANYWHERE) != 0;
        request->window = o->window;
        if (request->anywhere)
                request->n_iova = 0;
}

/* n is not 0. */
static int map_columns(struct iommud_domain *domain, struct columns *c, size_t n, const struct iommud_map_options *o,
                       struct iommud_map_result *ret) {
        Iommud__V1__MapRequest request = IOMMUD__V1__MAP_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        const Iommud__V1__MapResponse *done;
        uint64_t chunk = o->chunk;
        struct request_key key;
        int r;

        fill_map_request(&request, c, n, o, &chunk);
        request.domain = domain->object.id;
        if (!request.dry_run) {         /* what has no effect has none twice, and need not be remembered */
                r = request_key_make(&key);
                if (r < 0)
                        return r;
                request.request_key = request_key_data(&key);
        }
        if (request.expose_pages)
                atomic_store(&domain->shares_pages, true);
        r = call_in(domain, METHOD_Map, &request.base, &answer);
        if (r < 0)
                return r;
        done = (Iommud__V1__MapResponse *)answer;
        *ret = (struct iommud_map_result){ .iova = request.anywhere ? done->iova : c->iova[0],
                                           .mappings = done->mappings, .locked_bytes = done->locked_bytes,
                                           .table_bytes = done->table_bytes };
        return 0;
}

static int map_entries(struct iommud_domain *domain, const struct iommud_map_entry *entries, size_t n,
                       const struct iommud_map_options *o, struct iommud_map_result *ret) {
        _cleanup_free_ struct columns *c = NULL;
        int r;

        *ret = (struct iommud_map_result){ 0 };
        r = check_batch(domain, entries, n);
        if (r < 0)
                return r;
        r = check_options(domain->object.client, o);
        if (r < 0 || n == 0)
                return r;
        c = malloc(sizeof *c);
        if (!c)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        r = fill_columns(domain, entries, n, c);
        if (r < 0)
                return r;
        return map_columns(domain, c, n, o, ret);
}

static const struct iommud_map_options no_map_options = { .size = sizeof no_map_options };

int iommud_map(struct iommud_domain *domain, uint64_t iova, struct iommud_memory *memory, uint64_t offset,
               uint64_t length, enum iommud_access access) {
        struct iommud_map_entry entry = { .iova = iova, .memory = memory, .offset = offset, .length = length,
                                          .access = access };
        struct iommud_map_result result;
        int r;

        sdk_enter(__func__);
        r = map_entries(domain, &entry, 1, &no_map_options, &result);
        if (r < 0)
                sdk_error_not_batch();
        return r;
}

int iommud_map_batch(struct iommud_domain *domain, const struct iommud_map_entry *entries, size_t n) {
        struct iommud_map_result result;

        sdk_enter(__func__);
        return map_entries(domain, entries, n, &no_map_options, &result);
}

int iommud_map_with(struct iommud_domain *domain, const struct iommud_map_entry *entries, size_t n,
                    const struct iommud_map_options *given, struct iommud_map_result *ret) {
        struct iommud_map_options options;
        struct iommud_map_result result;
        int r;

        sdk_enter(__func__);
        if (sdk_options_in(&options, sizeof options, given) < 0)
                return sdk_fail(-EINVAL, 0, "the options' size is wrong, or they hold what this library does not know");
        if (ret && sdk_struct_check(ret) < 0)
                return sdk_fail(-EINVAL, 0, "the size of struct iommud_map_result is not set");
        r = map_entries(domain, entries, n, &options, &result);
        if (r == 0 && ret)
                (void)sdk_struct_out(ret, &result, sizeof result);
        return r;
}

static int unmap_entries(struct iommud_domain *domain, const struct iommud_unmap_entry *entries, size_t n,
                         enum iommud_split_policy split, uint64_t *ret_bytes) {
        Iommud__V1__UnmapRequest request = IOMMUD__V1__UNMAP_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        _cleanup_free_ struct columns *c = NULL;
        struct request_key key;
        int r;

        *ret_bytes = 0;
        r = check_batch(domain, entries, n);
        if (r == 0 && split != IOMMUD_SPLIT_AT_CHUNKS)
                r = client_needs(domain->object.client, IOMMUD__V1__CAPABILITY__CAPABILITY_PARTIAL_UNMAP, "a split policy");
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
        request.split_policy = (Iommud__V1__SplitPolicy)split;
        r = call_in(domain, METHOD_Unmap, &request.base, &answer);
        if (r == 0)
                *ret_bytes = ((Iommud__V1__UnmapResponse *)answer)->unmapped_bytes;
        return r;
}

int iommud_unmap(struct iommud_domain *domain, uint64_t iova, uint64_t length) {
        struct iommud_unmap_entry entry = { .iova = iova, .length = length };
        uint64_t bytes;
        int r;

        sdk_enter(__func__);
        r = unmap_entries(domain, &entry, 1, IOMMUD_SPLIT_AT_CHUNKS, &bytes);
        if (r < 0)
                sdk_error_not_batch();
        return r;
}

int iommud_unmap_batch(struct iommud_domain *domain, const struct iommud_unmap_entry *entries, size_t n) {
        uint64_t bytes;

        sdk_enter(__func__);
        return unmap_entries(domain, entries, n, IOMMUD_SPLIT_AT_CHUNKS, &bytes);
}

int iommud_unmap_with(struct iommud_domain *domain, const struct iommud_unmap_entry *entries, size_t n,
                      const struct iommud_unmap_options *given, uint64_t *ret_bytes) {
        struct iommud_unmap_options options;
        uint64_t bytes;
        int r;

        sdk_enter(__func__);
        if (sdk_options_in(&options, sizeof options, given) < 0)
                return sdk_fail(-EINVAL, 0, "the options' size is wrong, or they hold what this library does not know");
        r = unmap_entries(domain, entries, n, options.split, &bytes);
        if (r == 0 && ret_bytes)
                *ret_bytes = bytes;
        return r;
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
        r = call_in(domain, METHOD_UnmapAll, &request.base, &answer);
        if (r < 0)
                return r;
        if (ret_bytes)
                *ret_bytes = ((Iommud__V1__UnmapResponse *)answer)->unmapped_bytes;
        return 0;
}
