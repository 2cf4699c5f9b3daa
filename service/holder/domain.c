/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/domain_private.h"

#include <inttypes.h>
#include <stdlib.h>

#include "util/log.h"

/* Overlapping ranges compare equal; in the tree there are none. */
static int node_compare(const struct node *a, const struct node *b) {
        if (a->range.last < b->range.first)
                return -1;
        return a->range.first > b->range.last;
}

RB_GENERATE_INTERNAL(node_tree, node, link, node_compare, )

/* --- nodes --------------------------------------------------------------------------------------------------------*/

/* The lowest mapping that shares a byte with the range. */
static struct node *node_find(struct domain *d, struct iova_range range) {
        struct node key = { .range = { range.first, range.first } };
        struct node *n = RB_NFIND(node_tree, &d->tree, &key);

        return n && n->range.first <= range.last ? n : NULL;
}

static void node_remove(struct domain *d, struct node *n) {
        RB_REMOVE(node_tree, &d->tree, n);
        object_put(d->objects, n->object);
        pool_give(&d->pool, n);
        d->n_mappings--;
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
static int node_add(struct domain *d, const struct link_map_entry *e, struct node **ret, struct refusal *r) {
        struct iova_range range;
        struct object *object;
        struct node *n;

        if (e->length == 0)
                return refuse(r, REFUSAL_ZERO_LENGTH, "the length at IOVA 0x%" PRIx64 " is zero", e->iova);
        if (!iova_range_make(e->iova, e->length, &range))
                return refuse(r, REFUSAL_RANGE_WRAPS,
                              "IOVA 0x%" PRIx64 " with length 0x%" PRIx64 " passes the end of the address space",
                              e->iova, e->length);
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
        n->named = false;
        RB_INSERT(node_tree, &d->tree, n);
        d->n_mappings++;
        *ret = n;
        return 0;
}

/* --- nodes in containers ------------------------------------------------------------------------------------------*/

int node_map_into(struct container *c, const struct node *n, struct refusal *r) {
        struct backend_mapping m = { .iova = n->range.first, .length = iova_range_length(n->range),
                                     .vaddr = object_vaddr(n->object, n->offset), .fd = object_fd(n->object),
                                     .offset = n->offset, .access = n->access };

        return container_map(c, &m, r);
}

static void quarantine(struct domain *d, const char *what, const struct node *n, const struct refusal *why) {
        d->undo_failures++;
        log_error("domain %" PRIu64 ": " RANGE_FORMAT " could not be %s again, the domain is quarantined: %s", d->id,
                  n->range.first, n->range.last, what, why->text);
}

/* Takes a mapping out of the containers before `end` (NULL: of all). When one refuses, those before it get the mapping
 * back: -1, and quarantined if that fails. */
static int node_unapply_until(struct domain *d, const struct node *n, const struct group *end, struct refusal *r) {
        for (struct group *g = d->groups; g != end; g = g->next) {
                struct refusal undo;

                if (container_unmap(g->container, n->range.first, iova_range_length(n->range), r) == 0)
                        continue;
                for (struct group *u = d->groups; u != g; u = u->next)
                        if (node_map_into(u->container, n, &undo) < 0)
                                quarantine(d, "mapped", n, &undo);
                return -1;
        }
        return 0;
}

/* Puts a mapping into every container, or into none. */
static int node_apply(struct domain *d, const struct node *n, struct refusal *r) {
        for (struct group *g = d->groups; g; g = g->next) {
                struct refusal undo;

                if (node_map_into(g->container, n, r) == 0)
                        continue;
                if (node_unapply_until(d, n, g, &undo) < 0)
                        quarantine(d, "unmapped", n, &undo);
                return -1;
        }
        return 0;
}

/* Where it stays translated its record stays as well: the memory must not go, and the dump must tell. */
static void undo_map(struct domain *d, struct node *n) {
        struct refusal r;

        if (node_unapply_until(d, n, NULL, &r) == 0)
                node_remove(d, n);
        else
                quarantine(d, "unmapped", n, &r);
}

int domain_takes_new(const struct domain *d, struct refusal *r) {
        if (d->ended)
                return refuse(r, REFUSAL_UNKNOWN_SESSION, "the client is gone, its session takes nothing new");
        if (d->undo_failures > 0)
                return refuse(r, REFUSAL_DOMAIN_QUARANTINED,
                              "domain %" PRIu64 " is quarantined, since an earlier failure could not be undone", d->id);
        return 0;
}

int domain_map(struct domain *d, const struct link_map_entry *entries, size_t n, bool *ret_undo_failed,
               struct refusal *r) {
        struct node *nodes[LINK_BATCH_MAX];

        *ret_undo_failed = false;
        if (domain_takes_new(d, r) < 0)
                return -1;
        for (size_t i = 0; i < n; i++) {
                bool added = node_add(d, &entries[i], &nodes[i], r) == 0;

                if (added && node_apply(d, nodes[i], r) == 0)
                        continue;
                r->element = (int32_t)i;
                if (added && d->undo_failures > 0)      /* it is still in some container */
                        added = false;
                if (added)
                        node_remove(d, nodes[i]);
                while (i-- > 0)
                        undo_map(d, nodes[i]);
                *ret_undo_failed = d->undo_failures > 0;
                return -1;
        }
        return 0;
}

/* --- unmap --------------------------------------------------------------------------------------------------------*/

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

static int find_all(struct domain *d, const struct link_unmap_entry *entries, size_t n, struct node **nodes,
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

int domain_unmap(struct domain *d, const struct link_unmap_entry *entries, size_t n, bool *ret_undo_failed,
                 struct refusal *r) {
        struct node *nodes[LINK_BATCH_MAX];

        *ret_undo_failed = false;
        if (find_all(d, entries, n, nodes, r) < 0)
                return -1;
        for (size_t i = 0; i < n; i++) {
                unsigned failures = d->undo_failures;
                struct refusal undo;

                if (node_unapply_until(d, nodes[i], NULL, r) == 0)
                        continue;
                r->element = (int32_t)i;
                while (i-- > 0)
                        if (node_apply(d, nodes[i], &undo) < 0)
                                quarantine(d, "mapped", nodes[i], &undo);
                *ret_undo_failed = d->undo_failures > failures;
                return -1;
        }
        for (size_t i = 0; i < n; i++)
                node_remove(d, nodes[i]);
        return 0;
}

/* --- the whole ----------------------------------------------------------------------------------------------------*/

struct domain *domain_new(uint64_t id, struct objects *objects, const struct soft_personality *soft,
                          const struct domain_events *events) {
        struct domain *d = malloc(sizeof *d);

        if (!d)
                return NULL;
        *d = (struct domain){ .id = id, .objects = objects, .soft = *soft, .events = *events,
                              .pool = POOL_INIT(struct node, UINT32_MAX) };
        RB_INIT(&d->tree);
        return d;
}

static void forget_mappings(struct domain *d) {
        struct node *n;

        while ((n = RB_MIN(node_tree, &d->tree)))
                node_remove(d, n);
        pool_free(&d->pool);
}

void domain_end(struct domain *d) {
        bool clean = true;

        d->ended = true;
        for (struct group *g = d->groups; g; g = g->next) {
                struct refusal r;

                if (container_unmap_all(g->container, &r) == 0)
                        continue;
                clean = false;
                d->undo_failures++;
                log_error("domain %" PRIu64 ": group %u could not be unmapped: %s", d->id, g->number, r.text);
        }
        if (clean)
                forget_mappings(d);
}

struct domain *domain_free(struct domain *d) {
        if (!d)
                return NULL;
        while (d->attachments)
                attachment_free(d, d->attachments);
        forget_mappings(d);
        free(d);
        return NULL;
}

uint64_t domain_id(const struct domain *d) {
        return d->id;
}
