/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/domain_private.h"

#include <inttypes.h>
#include <stdlib.h>

#include "util/failpoint.h"
#include "util/log.h"

int domain_takes_new(const struct domain *d, struct refusal *r) {
        if (d->ended)
                return refuse(r, REFUSAL_UNKNOWN_SESSION, "the client is gone, its session takes nothing new");
        if (d->undo_failures > 0)
                return refuse(r, REFUSAL_DOMAIN_QUARANTINED,
                              "domain %" PRIu64 " is quarantined, since an earlier failure could not be undone", d->id);
        return 0;
}

/* Where it stays translated its record stays as well: the memory must not go, and the dump must tell. */
static void undo_map(struct domain *d, struct node *n) {
        if (part_withdraw(d, n, n->range))
                node_remove(d, n);
}

int domain_map(struct domain *d, const struct link_map_entry *entries, size_t n, bool *ret_undo_failed,
               struct refusal *r) {
        struct node *nodes[LINK_BATCH_MAX];

        *ret_undo_failed = false;
        if (domain_takes_new(d, r) < 0)
                return -1;
        for (size_t i = 0; i < n; i++) {
                bool added = node_add(d, &entries[i], &nodes[i], r) == 0;

                if (added && part_apply(d, nodes[i], nodes[i]->range, r) == 0) {
                        FAILPOINT(apply_map_element);
                        continue;
                }
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

void nodes_reapply(struct domain *d, struct node **nodes, size_t n) {
        while (n-- > 0)
                (void)part_reapply(d, nodes[n], nodes[n]->range);
}

int nodes_unapply(struct domain *d, struct node **nodes, size_t n, struct refusal *r) {
        for (size_t i = 0; i < n; i++) {
                if (part_unapply(d, nodes[i], nodes[i]->range, r) == 0) {
                        FAILPOINT(apply_unmap_element);
                        continue;
                }
                r->element = (int32_t)i;
                nodes_reapply(d, nodes, i);
                return -1;
        }
        return 0;
}

int domain_unmap(struct domain *d, const struct link_unmap_entry *entries, size_t n, bool *ret_undo_failed,
                 struct refusal *r) {
        struct node *nodes[LINK_BATCH_MAX];
        unsigned failures = d->undo_failures;

        *ret_undo_failed = false;
        if (nodes_find_exact(d, entries, n, nodes, r) < 0)
                return -1;
        if (nodes_unapply(d, nodes, n, r) < 0) {
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
