/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "iommud.pb-c.h"

/*
 * What a client of the crash tests knows: what it was told, and the requests whose answer it has not got. It shares nothing
 * with the service. One client, one session, one thread.
 */
#define PAGE 4096U
#define FIRST_IOVA 0x100000U
#define SLOTS 64U               /* pages of a domain that single operations use */
#define MANY_IOVA 0x40000000U   /* where large batches go */
#define DOMAINS 3U
#define MEMORIES 4U
#define MEMORY_PAGES 8U
#define HELD_MAX 1300U          /* mappings of a domain: more than one message to a holder unmaps */
#define BATCH_MAX 1024U
#define PENDING_MAX 4U
#define KEPT 32U                /* answered requests that are repeated now and then */

struct held {                   /* a mapping */
        uint64_t iova, length, memory, offset;
        uint32_t access;
        bool chunked;           /* in pages: a part of it can be unmapped */
};

struct held_domain {
        uint64_t id;            /* 0: none */
        uint64_t attachment;    /* 0: none */
        int device;             /* its fd once asked for; -1: none */
        bool lazy;
        size_t n;
        struct held at[HELD_MAX];
        size_t n_away;          /* unmapped since the last Sync: not to be mapped before the next */
        struct held away[HELD_MAX];
};

struct held_memory {
        uint64_t id;            /* 0: none */
        int fd;
        uint8_t *bytes;
};

enum request_kind { CREATE, DESTROY, REGISTER, UNREGISTER, MAP, UNMAP, UNMAP_ALL, ATTACH, DETACH };

struct request {
        enum request_kind kind;
        size_t domain, memory;          /* places in the record */
        uint64_t ticket;
        int fd;                         /* REGISTER: the memory */
        uint8_t *bytes;
        bool lazy, chunked, exposed;    /* CREATE; MAP */
        size_t n;                       /* MAP: mappings, UNMAP: ranges, which may be parts of mappings */
        struct held at[BATCH_MAX];
        uint8_t key[16];
        const char *method;
        uint8_t *packed;
        size_t size;
        bool resolved;                  /* the answer is known */
};

/* A request whose answer was got, to be repeated. */
struct kept {
        const char *method;
        uint8_t *packed, *answer;
        size_t size, answer_size;
};

struct record {
        struct held_domain domains[DOMAINS];
        struct held_memory memories[MEMORIES];
        char device[16];                /* the one that this client attaches; "-": none */
        bool slow_device;               /* it is real: a session's end takes longer to give it back */
        struct request pending[PENDING_MAX];
        size_t n_pending;
        struct kept kept[KEPT];
        size_t n_kept;                  /* ever */
};

void record_clear(struct record *r);

/* A request that can be made now and collides with none that is pending; false: none was found. Fills kind, places and elements;
 * for REGISTER the ticket is the caller's. */
bool request_choose(struct record *r, struct request *q, uint64_t *seed);
/* Large: one map of `n` single pages into the domain, one unmap of everything. */
bool request_many(struct record *r, struct request *q, size_t n, uint64_t *seed);
void request_pack(struct record *r, struct request *q, uint64_t *seed);
void request_clear(struct request *q);
/* It was done: what the record says from now on. */
void request_done(struct record *r, struct request *q, const uint8_t *answer, size_t size);

/* What a listing of the domain shows against the record: with the effect of `q` (1), without (0), or neither (-1; *ret_why). q
 * NULL: only the record as it is (0 or -1). */
int domain_compare(struct record *r, size_t domain, const struct request *q, const struct held *seen, size_t n,
                   char *ret_why, size_t size);

size_t record_mappings(const struct record *r);
size_t record_domains(const struct record *r);
size_t record_memories(const struct record *r);
size_t record_attachments(const struct record *r);
/* Pages of memory that any mapping exposes. */
uint64_t record_pages(const struct record *r);
/* What a device sees at that page: 0, or the union of the access of all that is mapped in it, and what is behind it. */
uint32_t record_page_access(const struct record *r, const struct held_domain *d, uint64_t page, uint8_t **ret_bytes);
