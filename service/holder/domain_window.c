/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/domain_private.h"

#include <inttypes.h>
#include <string.h>

#include "util/log.h"

/*
 * Windows of the IOMMU's own. All containers of a domain have the same ones, at the same places: the first container
 * decides where a window lies, the others must agree. What the domain has is recorded, so that a container that comes
 * later gets it too, also when there was none for a while.
 */
static struct iova_range window_range(const struct backend_window *w) {
        return (struct iova_range){ w->start, w->start + (w->size - 1) };
}

static bool same_window(const struct backend_window *a, const struct backend_window *b) {
        return a->start == b->start && a->size == b->size && a->page_shift == b->page_shift;
}

static bool has_window(const struct backend_window *windows, size_t n, const struct backend_window *w) {
        for (size_t i = 0; i < n; i++)
                if (same_window(&windows[i], w))
                        return true;
        return false;
}

static struct backend_window *record_find(struct domain *d, uint64_t start) {
        for (uint32_t i = 0; i < d->n_windows; i++)
                if (d->windows[i].start == start)
                        return &d->windows[i];
        return NULL;
}

static void record_add(struct domain *d, const struct backend_window *w) {
        uint32_t i = d->n_windows++;

        for (; i > 0 && d->windows[i - 1].start > w->start; i--)
                d->windows[i] = d->windows[i - 1];
        d->windows[i] = *w;
}

static void record_remove(struct domain *d, struct backend_window *w) {
        size_t after = (size_t)(d->windows + d->n_windows - (w + 1));

        memmove(w, w + 1, after * sizeof *w);
        d->n_windows--;
}

static void quarantine(struct domain *d, const char *what, const struct backend_window *w, const struct refusal *why) {
        d->undo_failures++;
        log_error("domain %" PRIu64 ": the window at 0x%" PRIx64 " could not be %s again, the domain is quarantined: %s",
                  d->id, w->start, what, why->text);
}

/* ---- a new container ---- */

static bool overlaps_unwanted(struct domain *d, struct container *c, const struct backend_window *w) {
        struct backend_window there[BACKEND_WINDOWS_MAX];
        size_t n = container_windows(c, there);

        for (size_t i = 0; i < n; i++)
                if (!has_window(d->windows, d->n_windows, &there[i]) &&
                    iova_range_overlaps(window_range(&there[i]), window_range(w)))
                        return true;
        return false;
}

/* Those of the domain that the container lacks; with `beside` only what fits beside the ones that are to go. */
static int create_missing(struct domain *d, struct container *c, const struct container_info *info, bool beside,
                          struct refusal *r) {
        for (uint32_t i = 0; i < d->n_windows; i++) {
                const struct backend_window *w = &d->windows[i];
                struct backend_window there[BACKEND_WINDOWS_MAX], made;
                size_t n = container_windows(c, there);

                if (has_window(there, n, w) || (beside && (n >= info->windows.max_windows || overlaps_unwanted(d, c, w))))
                        continue;
                if (container_window_create(c, w, &made, r) < 0)
                        return -1;
        }
        return 0;
}

static int remove_unwanted(struct domain *d, struct container *c, struct refusal *r) {
        struct backend_window there[BACKEND_WINDOWS_MAX];
        size_t n = container_windows(c, there);

        for (size_t i = 0; i < n; i++)
                if (!has_window(d->windows, d->n_windows, &there[i]) && container_window_remove(c, there[i].start, r) < 0)
                        return -1;
        return 0;
}

/* The kernel takes the first free place, so the order is that in which they were made, as far as it matters: what lies
 * beside the initial window first, then that one goes, then what lies where it was. */
int windows_apply(struct domain *d, struct container *c, struct refusal *r) {
        struct container_info info;

        container_info(c, &info);
        if (info.windows.max_windows == 0)
                return 0;
        if (!d->has_windows) {
                d->n_windows = (uint32_t)container_windows(c, d->windows);
                d->has_windows = true;
                return 0;
        }
        if (create_missing(d, c, &info, true, r) < 0 || remove_unwanted(d, c, r) < 0)
                return -1;
        return create_missing(d, c, &info, false, r);
}

/* ---- create ---- */

/* Out of the containers before `end`. */
static void undo_create(struct domain *d, const struct backend_window *w, const struct group *end) {
        struct refusal r;

        for (struct group *g = d->groups; g != end; g = g->next)
                if (container_window_remove(g->container, w->start, &r) < 0)
                        quarantine(d, "removed", w, &r);
}

int domain_window_create(struct domain *d, const struct link_window *want, struct link_window *ret, bool *ret_undo_failed,
                         struct refusal *r) {
        struct backend_window asked = { .start = want->start, .size = want->size, .page_shift = want->page_shift,
                                        .levels = want->levels }, made;
        unsigned failures = d->undo_failures;

        *ret_undo_failed = false;
        if (domain_takes_new(d, r) < 0)
                return -1;
        if (!d->groups)
                return refuse(r, REFUSAL_UNSUPPORTED,
                              "windows of this IOMMU are made in the container of a device, and the domain has none; attach "
                              "a device first");
        if (d->n_windows == BACKEND_WINDOWS_MAX)
                return refuse(r, REFUSAL_WINDOW_LIMIT, "the domain has %u windows and may have no more", d->n_windows);
        for (struct group *g = d->groups; g; g = g->next) {
                if (container_window_create(g->container, &asked, &made, r) < 0) {
                        undo_create(d, &asked, g);
                        *ret_undo_failed = d->undo_failures > failures;
                        return -1;
                }
                asked = made;
        }
        record_add(d, &made);
        *ret = (struct link_window){ .start = made.start, .size = made.size, .page_shift = made.page_shift,
                                     .levels = made.levels };
        return 0;
}

/* ---- remove ---- */

static size_t count_nodes(struct domain *d, struct iova_range range) {
        size_t n = 0;

        for (struct node *node = node_find(d, range); node && node->range.first <= range.last;
             node = RB_NEXT(node_tree, &d->tree, node))
                n++;
        return n;
}

/* The nodes that go are all that is mapped in the range. */
static int find_all(struct domain *d, struct iova_range range, const struct link_unmap_entry *entries, size_t n,
                    struct node **nodes, struct refusal *r) {
        if (nodes_find_exact(d, entries, n, nodes, r) < 0)
                return -1;
        for (size_t i = 0; i < n; i++)
                if (!iova_range_contains(range, nodes[i]->range))
                        return refuse(r, REFUSAL_BAD_MESSAGE, RANGE_FORMAT " is not in " RANGE_FORMAT, nodes[i]->range.first,
                                      nodes[i]->range.last, range.first, range.last);
        if (count_nodes(d, range) == n)
                return 0;
        return refuse(r, REFUSAL_IN_USE, RANGE_FORMAT " has %zu mappings, and %zu are to go", range.first, range.last,
                      count_nodes(d, range), n);
}

static void forget_nodes(struct domain *d, struct node **nodes, size_t n) {
        for (size_t i = 0; i < n; i++)
                node_remove(d, nodes[i]);
}

static int remove_everywhere(struct domain *d, const struct backend_window *w, struct refusal *r) {
        for (struct group *g = d->groups; g; g = g->next) {
                struct backend_window made;
                struct refusal undo;

                if (container_window_remove(g->container, w->start, r) == 0)
                        continue;
                for (struct group *u = d->groups; u != g; u = u->next)
                        if (container_window_create(u->container, w, &made, &undo) < 0)
                                quarantine(d, "created", w, &undo);
                return -1;
        }
        return 0;
}

int domain_window_remove(struct domain *d, uint64_t start, const struct link_unmap_entry *entries, size_t n,
                         bool *ret_undo_failed, struct refusal *r) {
        struct backend_window *w = record_find(d, start);
        struct node *nodes[LINK_BATCH_MAX];
        unsigned failures = d->undo_failures;

        *ret_undo_failed = false;
        if (!w) {
                refuse(r, REFUSAL_UNKNOWN_WINDOW, "no window begins at 0x%" PRIx64, start);
                r->asked = start;
                return -1;
        }
        if (find_all(d, window_range(w), entries, n, nodes, r) < 0)
                return -1;
        if (nodes_unapply(d, nodes, n, r) < 0) {
                *ret_undo_failed = d->undo_failures > failures;
                return -1;
        }
        if (remove_everywhere(d, w, r) < 0) {
                nodes_reapply(d, nodes, n);
                *ret_undo_failed = d->undo_failures > failures;
                return -1;
        }
        forget_nodes(d, nodes, n);
        record_remove(d, w);
        return 0;
}

/* ---- reset ---- */

/* 0, -1: nothing has changed, -2: a part has. */
static int reset_everywhere(struct domain *d, struct refusal *r) {
        for (struct group *g = d->groups; g; g = g->next) {
                struct backend_window now[BACKEND_WINDOWS_MAX];
                bool same = g == d->groups;
                size_t n;

                if (container_windows_reset(g->container, r) == 0)
                        continue;
                n = container_windows(g->container, now);
                for (size_t i = 0; i < n; i++)
                        same = same && has_window(d->windows, d->n_windows, &now[i]);
                return same && n == d->n_windows ? -1 : -2;
        }
        return 0;
}

static void record_initial(struct domain *d, const struct link_window *initial) {
        const struct backend_window w = { .start = initial->start, .size = initial->size,
                                          .page_shift = initial->page_shift, .levels = initial->levels };

        d->n_windows = 0;
        if (d->groups)
                d->n_windows = (uint32_t)container_windows(d->groups->container, d->windows);
        else if (w.size > 0)
                record_add(d, &w);
}

int domain_windows_reset(struct domain *d, const struct link_window *initial, const struct link_unmap_entry *entries, size_t n,
                         bool *ret_undo_failed, struct refusal *r) {
        static const struct iova_range all = { 0, UINT64_MAX };
        struct node *nodes[LINK_BATCH_MAX];
        unsigned failures = d->undo_failures;
        int k;

        *ret_undo_failed = false;
        if (find_all(d, all, entries, n, nodes, r) < 0)
                return -1;
        if (nodes_unapply(d, nodes, n, r) < 0) {
                *ret_undo_failed = d->undo_failures > failures;
                return -1;
        }
        k = reset_everywhere(d, r);
        if (k < 0) {
                if (k == -1)
                        nodes_reapply(d, nodes, n);
                else {
                        d->undo_failures++;
                        log_error("domain %" PRIu64 ": its windows are neither what they were nor what they are to be, the "
                                  "domain is quarantined: %s", d->id, r->text);
                }
                *ret_undo_failed = d->undo_failures > failures;
                return -1;
        }
        forget_nodes(d, nodes, n);
        if (d->has_windows)
                record_initial(d, initial);
        return 0;
}
