/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include "core/recovery.h"

#include <stdlib.h>
#include <string.h>

#include "core/recover.h"

/* Of a mapping that shares pages the holder has three; operations that are open may leave as many more. */
#define TOLD_PER_MAPPING 4U
#define TOLD_BESIDES 65536U     /* all else: memory, domains, attachments, windows, rests of what is being cut */

/* One more element at the end of an array of struct recovery; NULL: out of memory. */
#define APPEND(r, name) ((typeof((r)->name))append((void **)&(r)->name, &(r)->n_##name, &(r)->room_##name, sizeof *(r)->name))

static void *append(void **array, size_t *n, size_t *room, size_t size) {
        char *element;

        if (*n == *room) {
                size_t more = *room ? *room * 2 : 16;
                void *grown = reallocarray(*array, more, size);

                if (!grown)
                        return NULL;
                *array = grown;
                *room = more;
        }
        element = (char *)*array + (*n)++ * size;
        memset(element, 0, size);
        return element;
}

struct recovery *recovery_new(void) {
        struct recovery *r = calloc(1, sizeof *r);

        if (r)
                recovery_allow(r, 0);
        return r;
}

void recovery_allow(struct recovery *r, uint64_t mappings) {
        r->told_max = mappings * TOLD_PER_MAPPING + TOLD_BESIDES;
}

struct recovery *recovery_free(struct recovery *r) {
        if (!r)
                return NULL;
        for (size_t i = 0; i < r->n_ops; i++) {
                free(r->ops[i].ranges);
                free(r->ops[i].rests);
        }
        free(r->rows);
        free(r->ops);
        free(r->memories);
        free(r->domains);
        free(r->attachments);
        free(r->mappings);
        free(r->windows);
        free(r->lost);
        free(r);
        return NULL;
}

int recovery_note_mapping(struct recovery *r, const struct ledger_mapping *row) {
        struct noted_mapping *n = APPEND(r, rows);

        if (!n)
                return -1;
        *n = (struct noted_mapping){ .domain = row->domain, .iova = row->iova, .op = row->op };
        return 0;
}

/* *ret: a copy of n elements, NULL for none. */
static int copy(void **ret, const void *from, size_t n, size_t size) {
        *ret = NULL;
        if (n == 0)
                return 0;
        *ret = calloc(n, size);
        if (!*ret)
                return -1;
        memcpy(*ret, from, n * size);
        return 0;
}

int recovery_note_op(struct recovery *r, const struct ledger_op *row, const struct ledger_op_parts *parts) {
        struct noted_op *op = APPEND(r, ops);

        if (!op)
                return -1;
        op->row = *row;
        op->n_ranges = parts->n_ranges;
        op->n_rests = parts->n_rests;
        return copy((void **)&op->ranges, parts->ranges, parts->n_ranges, sizeof *parts->ranges) < 0 ||
                               copy((void **)&op->rests, parts->rests, parts->n_rests, sizeof *parts->rests) < 0
                       ? -1 : 0;
}

void recovery_note_lost(struct recovery *r, enum lost_kind kind, uint64_t id, uint64_t iova) {
        struct lost_object *lost = APPEND(r, lost);

        if (lost)
                *lost = (struct lost_object){ kind, id, iova };
        else
                r->out_of_memory = true;
}

/* Copies what was sent of a struct that may have grown since, or not yet. */
static void take(void *destination, size_t room, const void *payload, size_t size) {
        memcpy(destination, payload, size < room ? size : room);
}

static int note_mappings(struct recovery *r, const struct link_header *h, size_t size) {
        const struct link_map_entry *entries = (const void *)(h + 1);

        if (h->count > LINK_BATCH_MAX || size < h->count * sizeof *entries)
                return -1;
        for (uint32_t i = 0; i < h->count; i++) {
                struct dumped_mapping *m = APPEND(r, mappings);

                if (!m)
                        return -1;
                m->domain = h->domain;
                m->m = entries[i];
        }
        return 0;
}

int recovery_note_message(struct recovery *r, const struct link_header *h, size_t size) {
        struct dumped_attachment *a;
        struct link_dump_memory *m;
        struct dumped_domain *d;
        struct dumped_window *w;

        /* A holder may have been taken over: its account is no longer than what it can have. */
        r->told += h->type == LINK_DUMP_MAPPINGS ? h->count : 1;
        if (r->told > r->told_max)
                return -1;
        switch (h->type) {
        case LINK_DUMP_MEMORY:
                if (!(m = APPEND(r, memories)))
                        return -1;
                take(m, sizeof *m, h + 1, size);
                return 0;
        case LINK_DUMP_DOMAIN:
                if (!(d = APPEND(r, domains)))
                        return -1;
                d->domain = h->domain;
                take(&d->d, sizeof d->d, h + 1, size);
                if (d->d.info.n_ranges > IOVA_RANGES_MAX)
                        return -1;
                return 0;
        case LINK_DUMP_ATTACHMENT:
                if (!(a = APPEND(r, attachments)))
                        return -1;
                a->domain = h->domain;
                take(&a->a, sizeof a->a, h + 1, size);
                a->a.attach.device[sizeof a->a.attach.device - 1] = '\0';
                return 0;
        case LINK_DUMP_WINDOW:
                if (!(w = APPEND(r, windows)))
                        return -1;
                w->domain = h->domain;
                take(&w->w, sizeof w->w, h + 1, size);
                return 0;
        case LINK_DUMP_MAPPINGS:
                return note_mappings(r, h, size);
        default:
                return -1;
        }
}

const struct link_dump_memory *recovery_find_memory(const struct recovery *r, uint64_t id) {
        for (size_t i = 0; i < r->n_memories; i++)
                if (r->memories[i].memory == id)
                        return &r->memories[i];
        return NULL;
}

const struct dumped_domain *recovery_find_domain(const struct recovery *r, uint64_t id) {
        for (size_t i = 0; i < r->n_domains; i++)
                if (r->domains[i].domain == id)
                        return &r->domains[i];
        return NULL;
}

const struct dumped_attachment *recovery_find_attachment(const struct recovery *r, uint64_t id) {
        for (size_t i = 0; i < r->n_attachments; i++)
                if (r->attachments[i].a.attach.attachment == id)
                        return &r->attachments[i];
        return NULL;
}

static int order(uint64_t domain_a, uint64_t iova_a, uint64_t domain_b, uint64_t iova_b) {
        if (domain_a != domain_b)
                return domain_a < domain_b ? -1 : 1;
        return iova_a < iova_b ? -1 : iova_a > iova_b;
}

static int compare_dumped(const void *a, const void *b) {
        const struct dumped_mapping *x = a, *y = b;

        return order(x->domain, x->m.iova, y->domain, y->m.iova);
}

static int compare_noted(const void *a, const void *b) {
        const struct noted_mapping *x = a, *y = b;

        return order(x->domain, x->iova, y->domain, y->iova);
}

static int compare_ops(const void *a, const void *b) {
        const struct noted_op *x = a, *y = b;

        return x->row.id < y->row.id ? -1 : x->row.id > y->row.id;
}

void recovery_sort(struct recovery *r) {
        if (r->n_mappings > 0)
                qsort(r->mappings, r->n_mappings, sizeof *r->mappings, compare_dumped);
        if (r->n_rows > 0)
                qsort(r->rows, r->n_rows, sizeof *r->rows, compare_noted);
        if (r->n_ops > 0)
                qsort(r->ops, r->n_ops, sizeof *r->ops, compare_ops);
}

struct dumped_mapping *recovery_find_mapping(const struct recovery *r, uint64_t domain, uint64_t iova) {
        const struct dumped_mapping key = { .domain = domain, .m.iova = iova };

        return r->n_mappings ? bsearch(&key, r->mappings, r->n_mappings, sizeof key, compare_dumped) : NULL;
}

struct dumped_mapping *recovery_find_exact(const struct recovery *r, uint64_t domain, const struct link_map_entry *e) {
        struct dumped_mapping *there = recovery_find_mapping(r, domain, e->iova);

        return there && there->m.length == e->length && there->m.memory == e->memory && there->m.offset == e->offset &&
                               there->m.access == e->access && there->m.chunk_shift == e->chunk_shift
                       ? there : NULL;
}

struct noted_op *recovery_op_of_row(const struct recovery *r, uint64_t domain, uint64_t iova) {
        const struct noted_mapping key = { .domain = domain, .iova = iova }, *row;
        struct noted_op op;

        row = r->n_rows ? bsearch(&key, r->rows, r->n_rows, sizeof key, compare_noted) : NULL;
        if (!row || r->n_ops == 0)
                return NULL;
        op.row.id = row->op;
        return bsearch(&op, r->ops, r->n_ops, sizeof op, compare_ops);
}
