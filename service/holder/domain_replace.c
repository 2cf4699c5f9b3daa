/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/domain_private.h"

#include <stdlib.h>

#include "util/cleanup.h"
#include "util/failpoint.h"

/*
 * Mappings go and others come in their place, as one operation: how a mapping is cut, and how the access of a page that is
 * shared changes. Records first: the old ones out of the tree, the new ones in, which checks everything. Then the
 * containers: what of the old is not kept goes out, what of the new is not there yet comes in.
 */
struct part {                           /* of an old node, between what is kept */
        const struct node *node;
        struct iova_range range;
};

struct replace {
        struct domain *d;
        struct node *old[LINK_BATCH_MAX], *new[LINK_BATCH_MAX]; /* sorted by address once all records are changed */
        size_t n_old, n_new;
        struct part gone[2 * LINK_BATCH_MAX];
        size_t n_gone;
};

/* ---- records ---- */

static int by_address(const void *a, const void *b) {
        const struct node *x = *(struct node *const *)a, *y = *(struct node *const *)b;

        return x->range.first < y->range.first ? -1 : x->range.first > y->range.first;
}

static void sort(struct node **nodes, size_t n) {
        if (n > 1)
                qsort(nodes, n, sizeof(struct node *), by_address);
}

static void restore_records(struct replace *p) {
        for (size_t i = 0; i < p->n_new; i++)
                node_remove(p->d, p->new[i]);
        for (size_t i = 0; i < p->n_old; i++)
                node_put_back(p->d, p->old[i]);
}

static int change_records(struct replace *p, const struct link_map_entry *maps, size_t n_map, struct refusal *r) {
        for (size_t i = 0; i < p->n_old; i++)
                node_take_out(p->d, p->old[i]);
        for (; p->n_new < n_map; p->n_new++)
                if (node_add(p->d, &maps[p->n_new], &p->new[p->n_new], r) < 0) {
                        r->element = (int32_t)(p->n_old + p->n_new);
                        restore_records(p);
                        return -1;
                }
        sort(p->old, p->n_old);
        sort(p->new, p->n_new);
        return 0;
}

/* ---- what is kept ---- */

/* Pieces of the new one are pieces of the old one, to the last border. */
static bool same_pieces(const struct node *old, const struct node *new) {
        uint64_t shift = new->range.first - old->range.first;
        uint64_t mask = old->chunk_shift ? (UINT64_C(1) << old->chunk_shift) - 1 : UINT64_MAX;

        return iova_range_contains(old->range, new->range) && old->object == new->object && old->access == new->access &&
               old->chunk_shift == new->chunk_shift && new->offset == old->offset + shift && (shift & mask) == 0 &&
               (new->range.last == old->range.last || ((new->range.last - old->range.first + 1) & mask) == 0);
}

/* Both lists are sorted, and nodes of one list do not overlap: one walk finds what is kept and what goes. */
static void find_gone(struct replace *p) {
        size_t k = 0;

        for (size_t i = 0; i < p->n_old; i++) {
                const struct node *old = p->old[i];
                uint64_t at = old->range.first;
                bool over = false;

                for (; k < p->n_new && p->new[k]->range.first <= old->range.last; k++) {
                        struct node *new = p->new[k];

                        new->kept = same_pieces(old, new);
                        if (!new->kept)
                                continue;
                        if (new->range.first > at)
                                p->gone[p->n_gone++] = (struct part){ old, { at, new->range.first - 1 } };
                        over = new->range.last == old->range.last;
                        at = new->range.last + 1;
                }
                if (!over)
                        p->gone[p->n_gone++] = (struct part){ old, { at, old->range.last } };
        }
}

/* ---- containers ---- */

static int take_out_gone(struct replace *p, struct refusal *r) {
        for (size_t i = 0; i < p->n_gone; i++) {
                if (part_unapply(p->d, p->gone[i].node, p->gone[i].range, r) == 0)
                        continue;
                while (i-- > 0)
                        (void)part_reapply(p->d, p->gone[i].node, p->gone[i].range);
                return -1;
        }
        return 0;
}

static int bring_in_new(struct replace *p, struct refusal *r) {
        FAILPOINT(replace_taken_out);
        for (size_t i = 0; i < p->n_new; i++) {
                if (p->new[i]->kept || part_apply(p->d, p->new[i], p->new[i]->range, r) == 0)
                        continue;
                while (i-- > 0)
                        if (!p->new[i]->kept)
                                (void)part_withdraw(p->d, p->new[i], p->new[i]->range);
                for (size_t k = 0; k < p->n_gone; k++)
                        (void)part_reapply(p->d, p->gone[k].node, p->gone[k].range);
                return -1;
        }
        return 0;
}

/* What could not be undone is in some container under a record that is going: its memory keeps its use for ever, so that it
 * is not given back while a device may reach it. */
static void keep_memory(struct replace *p) {
        for (size_t i = 0; i < p->n_new; i++)
                (void)object_get(p->d->objects, object_id(p->new[i]->object));
}

int domain_replace(struct domain *d, const struct link_unmap_entry *unmaps, size_t n_unmap,
                   const struct link_map_entry *maps, size_t n_map, bool *ret_undo_failed, struct refusal *r) {
        _cleanup_free_ struct replace *p = calloc(1, sizeof *p);
        unsigned failures = d->undo_failures;

        *ret_undo_failed = false;
        if (!p)
                return refuse(r, REFUSAL_INTERNAL, "no memory for a change of mappings");
        p->d = d;
        if (domain_takes_new(d, r) < 0 || nodes_find_exact(d, unmaps, n_unmap, p->old, r) < 0)
                return -1;
        p->n_old = n_unmap;
        if (change_records(p, maps, n_map, r) < 0)
                return -1;
        FAILPOINT(replace_recorded);
        find_gone(p);
        if (take_out_gone(p, r) < 0 || bring_in_new(p, r) < 0) {
                *ret_undo_failed = d->undo_failures > failures;
                if (*ret_undo_failed)
                        keep_memory(p);
                restore_records(p);
                return -1;
        }
        FAILPOINT(replace_brought_in);
        for (size_t i = 0; i < p->n_old; i++)
                node_forget(d, p->old[i]);
        return 0;
}
