/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/domain_private.h"

#include <inttypes.h>

#include "util/log.h"

/*
 * One mapping of a domain: its record, and what of it is in the containers. A node is applied in pieces: the whole of it,
 * or chunks that can be taken out one by one.
 */

/* Overlapping ranges compare equal; in the tree there are none. */
static int node_compare(const struct node *a, const struct node *b) {
        if (a->range.last < b->range.first)
                return -1;
        return a->range.first > b->range.last;
}

RB_GENERATE_INTERNAL(node_tree, node, link, node_compare, )

/* --- records ------------------------------------------------------------------------------------------------------*/

/* The lowest mapping that shares a byte with the range. */
struct node *node_find(struct domain *d, struct iova_range range) {
        struct node key = { .range = { range.first, range.first } };
        struct node *n = RB_NFIND(node_tree, &d->tree, &key);

        return n && n->range.first <= range.last ? n : NULL;
}

/* Out of the tree, with its use of the object: what happens to it is not decided yet. */
void node_take_out(struct domain *d, struct node *n) {
        RB_REMOVE(node_tree, &d->tree, n);
        d->n_mappings--;
}

void node_put_back(struct domain *d, struct node *n) {
        RB_INSERT(node_tree, &d->tree, n);
        d->n_mappings++;
}

void node_forget(struct domain *d, struct node *n) {
        object_put(d->objects, n->object);
        pool_give(&d->pool, n);
}

void node_remove(struct domain *d, struct node *n) {
        node_take_out(d, n);
        node_forget(d, n);
}

static int check_free(struct domain *d, struct iova_range range, struct refusal *r) {
        const struct node *other = node_find(d, range);

        if (!other)
                return 0;
        refuse(r, REFUSAL_OVERLAP, RANGE_FORMAT " overlaps the mapping " RANGE_FORMAT, range.first, range.last,
               other->range.first, other->range.last);
        r->conflict_first = other->range.first;
        r->conflict_last = other->range.last;
        return -1;
}

/* Checks an entry against what is mapped and what its memory allows, and records it. */
int node_add(struct domain *d, const struct link_map_entry *e, struct node **ret, struct refusal *r) {
        struct iova_range range;
        struct object *object;
        struct node *n;

        if (e->length == 0)
                return refuse(r, REFUSAL_ZERO_LENGTH, "the length at IOVA 0x%" PRIx64 " is zero", e->iova);
        if (!iova_range_make(e->iova, e->length, &range))
                return refuse(r, REFUSAL_RANGE_WRAPS,
                              "IOVA 0x%" PRIx64 " with length 0x%" PRIx64 " passes the end of the address space",
                              e->iova, e->length);
        if (e->chunk_shift > CHUNK_SHIFT_MAX)
                return refuse(r, REFUSAL_BAD_MESSAGE, "chunks of 2^%" PRIu32 " bytes", e->chunk_shift);
        if (check_free(d, range, r) < 0)
                return -1;
        object = object_get(d->objects, e->memory);
        if (!object)
                return refuse(r, REFUSAL_UNKNOWN_MEMORY, "there is no memory object %" PRIu64, e->memory);
        if (object_check(object, e->offset, e->length, e->access, r) < 0) {
                object_put(d->objects, object);
                return -1;
        }
        n = pool_take(&d->pool);
        if (!n) {
                object_put(d->objects, object);
                return refuse(r, REFUSAL_INTERNAL, "no memory for the record of a mapping");
        }
        n->range = range;
        n->object = object;
        n->offset = e->offset;
        n->access = e->access;
        n->chunk_shift = e->chunk_shift;
        n->named = n->kept = false;
        RB_INSERT(node_tree, &d->tree, n);
        d->n_mappings++;
        *ret = n;
        return 0;
}

static int refuse_not_exact(const struct link_unmap_entry *e, struct iova_range range, const struct node *touched,
                            struct refusal *r) {
        if (!touched)
                return refuse(r, REFUSAL_NOT_MAPPED, "nothing is mapped in " RANGE_FORMAT, range.first, range.last);
        if (touched->named)
                return refuse(r, REFUSAL_NOT_MAPPED, RANGE_FORMAT " is named twice", range.first, range.last);
        if (iova_range_contains(touched->range, range)) {
                refuse(r, REFUSAL_PARTIAL_UNMAP, RANGE_FORMAT " is a part of the mapping " RANGE_FORMAT, range.first,
                       range.last, touched->range.first, touched->range.last);
                r->nearest_below = touched->range.first;
                r->nearest_above = touched->range.last + 1;
        } else
                refuse(r, REFUSAL_NOT_MAPPED, RANGE_FORMAT " is not one mapping; the first in it is " RANGE_FORMAT,
                       range.first, range.last, touched->range.first, touched->range.last);
        r->asked = e->length;
        r->conflict_first = touched->range.first;
        r->conflict_last = touched->range.last;
        return -1;
}

static int find_exact(struct domain *d, const struct link_unmap_entry *e, struct node **ret, struct refusal *r) {
        struct iova_range range;
        struct node *n;

        if (e->length == 0)
                return refuse(r, REFUSAL_ZERO_LENGTH, "the length at IOVA 0x%" PRIx64 " is zero", e->iova);
        if (!iova_range_make(e->iova, e->length, &range))
                return refuse(r, REFUSAL_RANGE_WRAPS,
                              "IOVA 0x%" PRIx64 " with length 0x%" PRIx64 " passes the end of the address space",
                              e->iova, e->length);
        n = node_find(d, range);
        if (!n || n->named || n->range.first != range.first || n->range.last != range.last)
                return refuse_not_exact(e, range, n, r);
        n->named = true;
        *ret = n;
        return 0;
}

int nodes_find_exact(struct domain *d, const struct link_unmap_entry *entries, size_t n, struct node **nodes,
                    struct refusal *r) {
        size_t found = 0;

        while (found < n && find_exact(d, &entries[found], &nodes[found], r) == 0)
                found++;
        for (size_t i = 0; i < found; i++)
                nodes[i]->named = false;
        if (found == n)
                return 0;
        r->element = (int32_t)found;
        return -1;
}

/* --- pieces in containers ------------------------------------------------------------------------------------------*/

static uint64_t piece_length(const struct node *n, uint64_t left) {
        uint64_t chunk = n->chunk_shift ? UINT64_C(1) << n->chunk_shift : left;

        return chunk < left ? chunk : left;
}

static int piece_map(struct container *c, const struct node *n, uint64_t iova, uint64_t length, struct refusal *r) {
        uint64_t offset = n->offset + (iova - n->range.first);
        struct backend_mapping m = { .iova = iova, .length = length, .vaddr = object_vaddr(n->object, offset),
                                     .fd = object_fd(n->object), .offset = offset, .access = n->access,
                                     .memory_page = object_page_size(n->object) };

        m.object_vaddr = object_mmap(n->object, &m.object_length);
        return container_map(c, &m, r);
}

static void quarantine(struct domain *d, const char *what, const struct node *n, const struct refusal *why) {
        d->undo_failures++;
        log_error("domain %" PRIu64 ": " RANGE_FORMAT " could not be %s again, the domain is quarantined: %s", d->id,
                  n->range.first, n->range.last, what, why->text);
}

/* The pieces from part.first to before `end`, which are all there, are taken back out of one container. */
static void undo_pieces(struct domain *d, struct container *c, const struct node *n, uint64_t first, uint64_t end) {
        struct refusal r;

        for (uint64_t at = first, length; at < end; at += length) {
                length = piece_length(n, end - at);
                if (container_unmap(c, at, length, &r) < 0)
                        quarantine(d, "unmapped", n, &r);
        }
}

int part_map_into(struct domain *d, struct container *c, const struct node *n, struct iova_range part, struct refusal *r) {
        for (uint64_t at = part.first, length;; at += length) {
                uint64_t left = part.last - at + 1;

                length = piece_length(n, left);
                if (piece_map(c, n, at, length, r) < 0) {
                        undo_pieces(d, c, n, part.first, at);
                        return -1;
                }
                if (length == left)
                        return 0;
        }
}

/* A part out of one container, or none of it. */
static int part_unmap_from(struct domain *d, struct container *c, const struct node *n, struct iova_range part,
                           struct refusal *r) {
        for (uint64_t at = part.first, length;; at += length) {
                uint64_t left = part.last - at + 1;

                length = piece_length(n, left);
                if (container_unmap(c, at, length, r) < 0) {
                        struct refusal undo;

                        if (at > part.first &&
                            part_map_into(d, c, n, (struct iova_range){ part.first, at - 1 }, &undo) < 0)
                                quarantine(d, "mapped", n, &undo);
                        return -1;
                }
                if (length == left)
                        return 0;
        }
}

/* Out of the containers before `end` (NULL: of all). When one refuses, those before it get the part back. */
static int part_unapply_until(struct domain *d, const struct node *n, struct iova_range part, const struct group *end,
                              struct refusal *r) {
        for (struct group *g = d->groups; g != end; g = g->next) {
                struct refusal undo;

                if (part_unmap_from(d, g->container, n, part, r) == 0)
                        continue;
                for (struct group *u = d->groups; u != g; u = u->next)
                        if (part_map_into(d, u->container, n, part, &undo) < 0)
                                quarantine(d, "mapped", n, &undo);
                return -1;
        }
        return 0;
}

int part_unapply(struct domain *d, const struct node *n, struct iova_range part, struct refusal *r) {
        return part_unapply_until(d, n, part, NULL, r);
}

int part_apply(struct domain *d, const struct node *n, struct iova_range part, struct refusal *r) {
        for (struct group *g = d->groups; g; g = g->next) {
                struct refusal undo;

                if (part_map_into(d, g->container, n, part, r) == 0)
                        continue;
                if (part_unapply_until(d, n, part, g, &undo) < 0)
                        quarantine(d, "unmapped", n, &undo);
                return -1;
        }
        return 0;
}

bool part_reapply(struct domain *d, const struct node *n, struct iova_range part) {
        struct refusal r;

        if (part_apply(d, n, part, &r) == 0)
                return true;
        quarantine(d, "mapped", n, &r);
        return false;
}

bool part_withdraw(struct domain *d, const struct node *n, struct iova_range part) {
        struct refusal r;

        if (part_unapply(d, n, part, &r) == 0)
                return true;
        quarantine(d, "unmapped", n, &r);
        return false;
}
