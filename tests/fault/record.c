/* SPDX-License-Identifier: Apache-2.0 */
#include "fault/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/harness.h"
#include "util/cleanup.h"

/* ---- life ---- */

void request_clear(struct request *q) {
        free(q->packed);
        q->packed = NULL;
}

static void memory_clear(struct held_memory *m) {
        if (m->bytes)
                munmap(m->bytes, MEMORY_PAGES * PAGE);
        if (m->id != 0 || m->bytes)
                (void)close(m->fd);
        *m = (struct held_memory){ .fd = -1 };
}

static void domain_clear(struct held_domain *d) {
        if (d->id != 0 && d->device >= 0)
                (void)close(d->device);
        d->id = d->attachment = 0;
        d->device = -1;
        d->n = d->n_away = 0;
}

void record_clear(struct record *r) {
        for (size_t i = 0; i < DOMAINS; i++)
                domain_clear(&r->domains[i]);
        for (size_t i = 0; i < MEMORIES; i++)
                memory_clear(&r->memories[i]);
        for (size_t i = 0; i < r->n_pending; i++)
                request_clear(&r->pending[i]);
        r->n_pending = 0;
        for (size_t i = 0; i < KEPT; i++) {
                free(r->kept[i].packed);
                free(r->kept[i].answer);
                r->kept[i] = (struct kept){ 0 };
        }
        r->n_kept = 0;
}

/* ---- counts ---- */

size_t record_domains(const struct record *r) {
        size_t n = 0;

        for (size_t i = 0; i < DOMAINS; i++)
                n += r->domains[i].id != 0;
        return n;
}

size_t record_attachments(const struct record *r) {
        size_t n = 0;

        for (size_t i = 0; i < DOMAINS; i++)
                n += r->domains[i].attachment != 0;
        return n;
}

size_t record_memories(const struct record *r) {
        size_t n = 0;

        for (size_t i = 0; i < MEMORIES; i++)
                n += r->memories[i].id != 0;
        return n;
}

size_t record_mappings(const struct record *r) {
        size_t n = 0;

        for (size_t i = 0; i < DOMAINS; i++)
                n += r->domains[i].n;
        return n;
}

/* The page of an address. */
static uint64_t page_of(uint64_t address) {
        return address & ~(uint64_t)(PAGE - 1);
}

uint64_t record_pages(const struct record *r) {
        bool touched[MEMORIES][MEMORY_PAGES] = { { false } };
        uint64_t n = 0;

        for (size_t i = 0; i < DOMAINS; i++)
                for (size_t k = 0; k < r->domains[i].n; k++) {
                        const struct held *h = &r->domains[i].at[k];

                        for (size_t m = 0; m < MEMORIES; m++)
                                for (uint64_t at = page_of(h->offset); r->memories[m].id == h->memory && at < h->offset + h->length;
                                     at += PAGE)
                                        touched[m][at / PAGE] = true;
                }
        for (size_t m = 0; m < MEMORIES; m++)
                for (size_t p = 0; p < MEMORY_PAGES; p++)
                        n += touched[m][p];
        return n;
}

uint32_t record_page_access(const struct record *r, const struct held_domain *d, uint64_t page, uint8_t **ret_bytes) {
        uint32_t access = 0;

        for (size_t i = 0; i < d->n; i++) {
                const struct held *h = &d->at[i];

                if (page < page_of(h->iova) || page >= h->iova + h->length)
                        continue;
                access |= h->access;
                for (size_t m = 0; m < MEMORIES; m++)
                        if (r->memories[m].id == h->memory)
                                *ret_bytes = r->memories[m].bytes + page_of(h->offset) + (page - page_of(h->iova));
        }
        return access;
}

/* ---- choosing ---- */

static uint64_t below(uint64_t *seed, uint64_t n) {
        return harness_random(seed) % n;
}

static bool domain_is_busy(const struct record *r, size_t domain) {
        for (size_t i = 0; i < r->n_pending; i++)
                if (r->pending[i].kind != REGISTER && r->pending[i].kind != UNREGISTER && r->pending[i].domain == domain)
                        return true;
        return false;
}

static bool names(const struct held *list, size_t n, uint64_t memory) {
        for (size_t i = 0; i < n; i++)
                if (list[i].memory == memory)
                        return true;
        return false;
}

static bool memory_is_used(const struct record *r, uint64_t id) {
        for (size_t i = 0; i < DOMAINS; i++)
                if (names(r->domains[i].at, r->domains[i].n, id) || names(r->domains[i].away, r->domains[i].n_away, id))
                        return true;
        for (size_t i = 0; i < r->n_pending; i++)
                if (r->pending[i].kind == MAP && names(r->pending[i].at, r->pending[i].n, id))
                        return true;
        return false;
}

static bool memory_is_leaving(const struct record *r, size_t memory) {
        for (size_t i = 0; i < r->n_pending; i++)
                if (r->pending[i].kind == UNREGISTER && r->pending[i].memory == memory)
                        return true;
        return false;
}

static bool overlaps(const struct held *a, const struct held *b) {
        return a->iova < b->iova + b->length && b->iova < a->iova + a->length;
}

/* In pages: parts of a page share it with nothing that does not show the same page of memory. */
static bool share_a_page(const struct held *a, const struct held *b) {
        return page_of(a->iova) < b->iova + b->length && page_of(b->iova) < a->iova + a->length;
}

static bool collides(const struct held *a, const struct held *b) {
        bool parts = a->length < PAGE && b->length < PAGE;

        if (!parts)
                return share_a_page(a, b);
        return overlaps(a, b) || (share_a_page(a, b) && (a->memory != b->memory || page_of(a->offset) != page_of(b->offset)));
}

static bool is_free(const struct held_domain *d, const struct request *q, const struct held *h) {
        for (size_t i = 0; i < d->n; i++)
                if (collides(&d->at[i], h))
                        return false;
        for (size_t i = 0; i < d->n_away; i++)
                if (share_a_page(&d->away[i], h))
                        return false;
        for (size_t i = 0; i < q->n; i++)
                if (collides(&q->at[i], h))
                        return false;
        return true;
}

static bool some_memory(const struct record *r, uint64_t *seed, uint64_t *ret_id) {
        size_t from = below(seed, MEMORIES);

        for (size_t i = 0; i < MEMORIES; i++) {
                size_t m = (from + i) % MEMORIES;

                if (r->memories[m].id != 0 && !memory_is_leaving(r, m)) {
                        *ret_id = r->memories[m].id;
                        return true;
                }
        }
        return false;
}

/* A whole number of pages, or an eighth of one where parts of pages were asked for. */
static struct held some_place(const struct request *q, uint64_t *seed) {
        struct held h = { .length = (1 + below(seed, 3)) * PAGE, .access = below(seed, 4) ? 3 : 1, .chunked = q->chunked };
        uint64_t within = q->exposed ? below(seed, 8) * (PAGE / 8) : 0;

        if (q->exposed)
                h.length = PAGE / 8;
        h.iova = FIRST_IOVA + below(seed, q->exposed ? 4 : SLOTS - 3) * PAGE + within;
        h.offset = below(seed, q->exposed ? 2 : MEMORY_PAGES - 2) * PAGE + within;
        return h;
}

static bool choose_map(struct record *r, struct request *q, uint64_t *seed) {
        const struct held_domain *d = &r->domains[q->domain];
        size_t wanted = 1 + below(seed, 4);

        q->exposed = below(seed, 3) == 0;
        q->chunked = !q->exposed && below(seed, 2) == 0;
        for (int tries = 0; tries < 16 && q->n < wanted; tries++) {
                struct held h = some_place(q, seed);

                if (!some_memory(r, seed, &h.memory))
                        return false;
                if (is_free(d, q, &h))
                        q->at[q->n++] = h;
        }
        return q->n > 0;
}

/* Whole mappings, or a page out of one: chunked ones are cut, others are mapped again around it. */
static bool choose_unmap(struct record *r, struct request *q, uint64_t *seed) {
        const struct held_domain *d = &r->domains[q->domain];
        size_t from;

        if (d->n == 0)
                return false;
        from = below(seed, d->n);
        for (size_t i = from; i < d->n && i < from + 3; i++) {
                struct held h = d->at[i];

                if (h.length > PAGE && below(seed, 2)) {
                        h.iova += below(seed, h.length / PAGE) * PAGE;
                        h.length = PAGE;
                }
                q->at[q->n++] = h;
        }
        return true;
}

static bool choose_memory(struct record *r, struct request *q, uint64_t *seed) {
        (void)seed;
        for (q->memory = 0; q->memory < MEMORIES; q->memory++) {
                const struct held_memory *m = &r->memories[q->memory];
                bool wanted = q->kind == REGISTER ? m->id == 0 : m->id != 0 && !memory_is_used(r, m->id);

                for (size_t i = 0; i < r->n_pending; i++)
                        if ((r->pending[i].kind == REGISTER || r->pending[i].kind == UNREGISTER) &&
                            r->pending[i].memory == q->memory)
                                wanted = false;
                if (wanted)
                        return true;
        }
        return false;
}

/* Or can have none. */
static bool has_device(const struct record *r) {
        if (r->device[0] == '-')
                return true;
        for (size_t i = 0; i < r->n_pending; i++)
                if (r->pending[i].kind == ATTACH || r->pending[i].kind == DETACH || r->pending[i].kind == DESTROY)
                        return true;
        return record_attachments(r) > 0;
}

static bool choose_in_domain(struct record *r, struct request *q, uint64_t *seed) {
        const struct held_domain *d = &r->domains[q->domain];

        if (domain_is_busy(r, q->domain) || (d->id == 0) != (q->kind == CREATE))
                return false;
        switch (q->kind) {
        case CREATE:
                q->lazy = below(seed, 3) == 0;
                return true;
        case DESTROY: return below(seed, 4) == 0;
        case MAP: return choose_map(r, q, seed);
        case UNMAP: return choose_unmap(r, q, seed);
        case UNMAP_ALL: return d->n > 0;
        case ATTACH: return !has_device(r);
        case DETACH: return d->attachment != 0;
        case REGISTER:
        case UNREGISTER:
        default: return false;
        }
}

bool request_choose(struct record *r, struct request *q, uint64_t *seed) {
        static const enum request_kind kinds[] = { MAP, MAP, MAP, MAP, UNMAP, UNMAP, UNMAP, CREATE, CREATE, DESTROY,
                                                   REGISTER, REGISTER, UNREGISTER, UNMAP_ALL, ATTACH, ATTACH, ATTACH, ATTACH,
                                                   DETACH };

        q->kind = kinds[below(seed, ARRAY_SIZE(kinds))];
        q->n = 0;
        q->lazy = q->chunked = q->exposed = false;
        q->domain = below(seed, DOMAINS);
        q->resolved = false;
        q->packed = NULL;
        if (q->kind == REGISTER || q->kind == UNREGISTER)
                return choose_memory(r, q, seed);
        return choose_in_domain(r, q, seed);
}

bool request_many(struct record *r, struct request *q, size_t n, uint64_t *seed) {
        struct held_domain *d = &r->domains[q->domain];
        uint64_t memory, next = MANY_IOVA;

        q->n = 0;
        q->resolved = q->lazy = q->chunked = q->exposed = false;
        q->packed = NULL;
        if (d->id == 0 || domain_is_busy(r, q->domain) || !some_memory(r, seed, &memory) || n > BATCH_MAX ||
            (q->kind == MAP && d->n + n > HELD_MAX))
                return false;
        for (size_t i = 0; i < d->n; i++)
                if (d->at[i].iova >= next)
                        next = d->at[i].iova + PAGE;
        for (size_t i = 0; i < d->n_away; i++)
                if (d->away[i].iova >= next)
                        next = d->away[i].iova + PAGE;
        for (size_t i = 0; q->kind == MAP && i < n; i++)
                q->at[q->n++] = (struct held){ .iova = next + i * PAGE, .length = PAGE, .memory = memory, .access = 3 };
        return q->kind == MAP || d->n > 0;
}

/* ---- the wire ---- */

static void finish_pack(struct request *q, const char *method, const ProtobufCMessage *m) {
        q->method = method;
        q->size = protobuf_c_message_get_packed_size(m);
        q->packed = malloc(q->size + 1);
        assert_non_null(q->packed);
        (void)protobuf_c_message_pack(m, q->packed);
}

static void pack_map(struct request *q, uint64_t domain, ProtobufCBinaryData key) {
        static uint64_t iova[BATCH_MAX], length[BATCH_MAX], memory[BATCH_MAX], offset[BATCH_MAX];
        static uint32_t access[BATCH_MAX];
        static uint64_t page = PAGE;
        Iommud__V1__MapRequest map = IOMMUD__V1__MAP_REQUEST__INIT;
        Iommud__V1__UnmapRequest unmap = IOMMUD__V1__UNMAP_REQUEST__INIT;

        for (size_t i = 0; i < q->n; i++) {
                iova[i] = q->at[i].iova;
                length[i] = q->at[i].length;
                memory[i] = q->at[i].memory;
                offset[i] = q->at[i].offset;
                access[i] = q->at[i].access;
        }
        map.request_key = unmap.request_key = key;
        map.domain = unmap.domain = domain;
        map.n_iova = map.n_length = map.n_memory = map.n_offset = map.n_access = unmap.n_iova = unmap.n_length = q->n;
        map.iova = unmap.iova = iova;
        map.length = unmap.length = length;
        map.memory = memory;
        map.offset = offset;
        map.access = access;
        map.n_chunk = q->chunked;
        map.chunk = &page;
        map.expose_pages = q->exposed;
        unmap.split_policy = IOMMUD__V1__SPLIT_POLICY__SPLIT_REMAP;
        if (q->kind == MAP)
                finish_pack(q, "Map", &map.base);
        else
                finish_pack(q, "Unmap", &unmap.base);
}

static void pack_memory(struct request *q, uint64_t memory, ProtobufCBinaryData key) {
        Iommud__V1__RegisterMemoryRequest m = IOMMUD__V1__REGISTER_MEMORY_REQUEST__INIT;
        Iommud__V1__UnregisterMemoryRequest u = IOMMUD__V1__UNREGISTER_MEMORY_REQUEST__INIT;

        m.request_key = u.request_key = key;
        m.ticket = q->ticket;
        m.size = MEMORY_PAGES * PAGE;
        u.memory = memory;
        if (q->kind == REGISTER)
                finish_pack(q, "RegisterMemory", &m.base);
        else
                finish_pack(q, "UnregisterMemory", &u.base);
}

static void pack_device(struct record *r, struct request *q, const struct held_domain *d, ProtobufCBinaryData key) {
        Iommud__V1__AttachDeviceRequest a = IOMMUD__V1__ATTACH_DEVICE_REQUEST__INIT;
        Iommud__V1__DetachDeviceRequest e = IOMMUD__V1__DETACH_DEVICE_REQUEST__INIT;

        a.request_key = e.request_key = key;
        a.domain = d->id;
        a.device = r->device;
        e.attachment = d->attachment;
        if (q->kind == ATTACH)
                finish_pack(q, "AttachDevice", &a.base);
        else
                finish_pack(q, "DetachDevice", &e.base);
}

static void pack_domain(struct request *q, const struct held_domain *d, ProtobufCBinaryData key) {
        Iommud__V1__CreateDomainRequest c = IOMMUD__V1__CREATE_DOMAIN_REQUEST__INIT;
        Iommud__V1__DestroyDomainRequest e = IOMMUD__V1__DESTROY_DOMAIN_REQUEST__INIT;
        Iommud__V1__UnmapAllRequest u = IOMMUD__V1__UNMAP_ALL_REQUEST__INIT;

        c.request_key = e.request_key = u.request_key = key;
        e.domain = u.domain = d->id;
        e.force = true;
        c.flush_mode = q->lazy ? IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY : IOMMUD__V1__FLUSH_MODE__FLUSH_STRICT;
        if (q->kind == CREATE)
                finish_pack(q, "CreateDomain", &c.base);
        else if (q->kind == DESTROY)
                finish_pack(q, "DestroyDomain", &e.base);
        else
                finish_pack(q, "UnmapAll", &u.base);
}

void request_pack(struct record *r, struct request *q, uint64_t *seed) {
        const uint64_t random[2] = { harness_random(seed), harness_random(seed) };
        const ProtobufCBinaryData key = { .len = sizeof q->key, .data = q->key };

        memcpy(q->key, random, sizeof q->key);
        if (q->kind == MAP || q->kind == UNMAP)
                pack_map(q, r->domains[q->domain].id, key);
        else if (q->kind == REGISTER || q->kind == UNREGISTER)
                pack_memory(q, r->memories[q->memory].id, key);
        else if (q->kind == ATTACH || q->kind == DETACH)
                pack_device(r, q, &r->domains[q->domain], key);
        else
                pack_domain(q, &r->domains[q->domain], key);
}

/* ---- effects ---- */

static uint64_t answered_id(enum request_kind kind, const uint8_t *answer, size_t size) {
        const ProtobufCMessageDescriptor *descriptor = kind == CREATE ? &iommud__v1__create_domain_response__descriptor
                                                       : kind == REGISTER
                                                               ? &iommud__v1__register_memory_response__descriptor
                                                               : &iommud__v1__attach_device_response__descriptor;
        ProtobufCMessage *m = protobuf_c_message_unpack(descriptor, NULL, size, answer);
        uint64_t id;

        assert_non_null(m);
        id = kind == CREATE     ? ((Iommud__V1__CreateDomainResponse *)m)->domain
             : kind == REGISTER ? ((Iommud__V1__RegisterMemoryResponse *)m)->memory
                                : ((Iommud__V1__AttachDeviceResponse *)m)->attachment;
        protobuf_c_message_free_unpacked(m, NULL);
        return id;
}

/* [iova, iova + length) goes; what stays of a mapping that is cut are mappings of their own. */
static void remove_range(struct held_domain *d, uint64_t iova, uint64_t length) {
        for (size_t i = 0; i < d->n;) {
                struct held old = d->at[i], left = old, right = old;

                if (old.iova >= iova + length || iova >= old.iova + old.length) {
                        i++;
                        continue;
                }
                d->at[i] = d->at[--d->n];
                if (old.iova < iova) {
                        left.length = iova - old.iova;
                        d->at[d->n++] = left;
                }
                if (old.iova + old.length > iova + length) {
                        right.offset += iova + length - old.iova;
                        right.length = old.iova + old.length - (iova + length);
                        right.iova = iova + length;
                        d->at[d->n++] = right;
                }
        }
}

static void remove_held(struct held_domain *d, const struct held *h) {
        if (d->lazy && d->n_away < HELD_MAX)
                d->away[d->n_away++] = *h;
        remove_range(d, h->iova, h->length);
}

static void detach(struct held_domain *d) {
        if (d->device >= 0)
                (void)close(d->device);
        d->device = -1;
        d->attachment = 0;
}

void request_done(struct record *r, struct request *q, const uint8_t *answer, size_t size) {
        struct held_domain *d = &r->domains[q->domain];

        q->resolved = true;
        switch (q->kind) {
        case CREATE:
                d->id = answered_id(CREATE, answer, size);
                d->lazy = q->lazy;
                d->attachment = 0;
                d->device = -1;
                d->n = d->n_away = 0;
                break;
        case DESTROY:
                domain_clear(d);
                break;
        case REGISTER:
                r->memories[q->memory] = (struct held_memory){ .id = answered_id(REGISTER, answer, size), .fd = q->fd,
                                                               .bytes = q->bytes };
                break;
        case UNREGISTER:
                memory_clear(&r->memories[q->memory]);
                break;
        case MAP:
                for (size_t i = 0; i < q->n; i++)
                        d->at[d->n++] = q->at[i];
                break;
        case UNMAP:
                for (size_t i = 0; i < q->n; i++)
                        remove_held(d, &q->at[i]);
                break;
        case UNMAP_ALL:
                while (d->n > 0)
                        remove_held(d, &(struct held){ .iova = d->at[0].iova, .length = d->at[0].length,
                                                       .memory = d->at[0].memory });
                break;
        case ATTACH:
                d->attachment = answered_id(ATTACH, answer, size);
                d->device = -1;
                break;
        case DETACH:
        default:
                detach(d);
        }
}

/* ---- comparing ---- */

static const struct held *find(const struct held *list, size_t n, uint64_t iova) {
        for (size_t i = 0; i < n; i++)
                if (list[i].iova == iova)
                        return &list[i];
        return NULL;
}

static bool same(const struct held *a, const struct held *b) {
        return a->iova == b->iova && a->length == b->length && a->memory == b->memory && a->offset == b->offset &&
               a->access == b->access;
}

/* Is exactly `wanted` there? The first difference into why. */
static bool is_exactly(const struct held *wanted, size_t n_wanted, const struct held *seen, size_t n, char *why,
                       size_t size) {
        for (size_t i = 0; i < n_wanted; i++) {
                const struct held *s = find(seen, n, wanted[i].iova);

                if (s && same(s, &wanted[i]))
                        continue;
                (void)snprintf(why, size, "0x%llx is %s", (unsigned long long)wanted[i].iova,
                               s ? "mapped otherwise" : "not mapped any more");
                return false;
        }
        for (size_t i = 0; i < n; i++) {
                if (find(wanted, n_wanted, seen[i].iova))
                        continue;
                (void)snprintf(why, size, "0x%llx is mapped and should not be", (unsigned long long)seen[i].iova);
                return false;
        }
        return true;
}

int domain_compare(struct record *r, size_t domain, const struct request *q, const struct held *seen, size_t n,
                   char *ret_why, size_t size) {
        static struct held_domain with;
        const struct held_domain *d = &r->domains[domain];
        char why[2][128];

        if (is_exactly(d->at, d->n, seen, n, why[0], sizeof why[0]))
                return 0;
        (void)snprintf(ret_why, size, "domain %llu: %s", (unsigned long long)d->id, why[0]);
        if (!q || (q->kind != MAP && q->kind != UNMAP && q->kind != UNMAP_ALL))
                return -1;
        with = *d;
        for (size_t i = 0; i < q->n; i++)
                if (q->kind == MAP)
                        with.at[with.n++] = q->at[i];
                else
                        remove_range(&with, q->at[i].iova, q->at[i].length);
        if (q->kind == UNMAP_ALL)
                with.n = 0;
        if (is_exactly(with.at, with.n, seen, n, why[1], sizeof why[1]))
                return 1;
        (void)snprintf(ret_why, size, "domain %llu, after a %s of %zu: if it did not happen, %s; if it did, %s",
                       (unsigned long long)d->id, q->method, q->n, why[0], why[1]);
        return -1;
}
