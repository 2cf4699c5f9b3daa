/* SPDX-License-Identifier: Apache-2.0 */
#include "core/split.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/broker_private.h"
#include "core/domain_window.h"

/* ---- borders ---- */

/* Distances from the beginning of a mapping at which it can be cut are multiples of this, shifted so that they fall on page
 * borders of what it exposes; 0: it cannot. */
static uint64_t cut_granule(const struct domain *d, const struct mapping *m, enum split_policy policy) {
        uint64_t page = domain_page_at(d, m->range.first);

        /* Of memory that is not sealed each mapping pays for whole pages: a huge page that is cut would be paid for twice. */
        uint64_t least = m->memory->file || m->memory->page_size < page ? page : m->memory->page_size;
        uint64_t chunk = m->chunk_shift ? UINT64_C(1) << m->chunk_shift : 0;

        if (policy == SPLIT_REMAP)
                return least;
        return least == page || (chunk >= least && m->offset % least == 0) ? chunk : 0;
}

/* How far `at` lies behind a border. Borders are counted from the beginning of the mapping, or from a page border where it exposes
 * pages or pays for them: that may lie before the mapping. */
static uint64_t behind_border(const struct mapping *m, uint64_t granule, uint64_t at, enum split_policy policy) {
        uint64_t base = policy == SPLIT_REMAP ? m->range.first - m->offset % granule : m->range.first;

        return (at - base) % granule;
}

static bool is_border(const struct mapping *m, uint64_t granule, uint64_t at, enum split_policy policy) {
        return at == m->range.first || at == m->range.last + 1 ||
               (granule != 0 && behind_border(m, granule, at, policy) == 0);
}

static int refuse_cut(const struct mapping *m, struct iova_range range, uint64_t granule, uint64_t at, enum split_policy policy,
                      struct refusal *r) {
        uint64_t below = m->range.first, above = m->range.last + 1;

        if (granule != 0) {
                uint64_t behind = behind_border(m, granule, at, policy);

                if (behind < at - m->range.first)
                        below = at - behind;
                if (granule - behind < m->range.last + 1 - at)
                        above = at + (granule - behind);
        }
        refuse(r, policy == SPLIT_HITLESS ? REFUSAL_UNSUPPORTED : REFUSAL_PARTIAL_UNMAP,
               "unmapping 0x%" PRIx64 "-0x%" PRIx64 " would cut the mapping 0x%" PRIx64 "-0x%" PRIx64 " at 0x%" PRIx64
               "; the nearest borders are 0x%" PRIx64 " and 0x%" PRIx64 ". %s", range.first, range.last, m->range.first,
               m->range.last, at, below, above,
               policy == SPLIT_REMAP     ? "It can be cut between pages"
               : policy == SPLIT_HITLESS ? "No backend replaces mappings without a moment in between: consent to a remap instead"
               : m->chunk_shift          ? "Its chunks end there; with consent to a remap it can be cut at any page"
                                         : "Map in chunks to cut later, or consent to a moment without translation (remap)");
        r->conflict_first = m->range.first;
        r->conflict_last = m->range.last;
        r->nearest_below = below;
        r->nearest_above = above;
        return -1;
}

/* ---- ranges ---- */

static int refuse_hole(uint64_t first, uint64_t last, struct refusal *r) {
        refuse(r, REFUSAL_NOT_MAPPED, "nothing is mapped at 0x%" PRIx64 "-0x%" PRIx64, first, last);
        r->conflict_first = first;
        r->conflict_last = last;
        return -1;
}

static int refuse_twice(struct iova_range range, const struct mapping *m, struct refusal *r) {
        refuse(r, REFUSAL_OVERLAP, "0x%" PRIx64 "-0x%" PRIx64 " of the mapping 0x%" PRIx64 "-0x%" PRIx64 " is named twice",
               range.first, range.last, m->range.first, m->range.last);
        r->conflict_first = m->range.first;
        r->conflict_last = m->range.last;
        return -1;
}

static int check_live(struct change *c, const struct mapping *m, struct refusal *r) {
        if (m->state == MAPPING_LIVE || (m->state == MAPPING_UNMAPPING && m->by == c))
                return 0;
        if (m->state == MAPPING_DEFERRED)
                return refuse_hole(m->range.first, m->range.last, r);   /* for its client it is unmapped */
        return refuse(r, REFUSAL_IN_PROGRESS,
                      "the mapping 0x%" PRIx64 "-0x%" PRIx64 " is being %s; repeat when that is done", m->range.first,
                      m->range.last, m->state == MAPPING_INTENDED ? "made" : "unmapped");
}

/* The index of one that goes already. */
static size_t index_of(const struct change *c, const struct mapping *m) {
        size_t i = c->n_gone;

        while (i-- > 0 && c->gone[i] != m)
                ;
        return i;
}

static int add_cut(struct change *c, struct cuts *cuts, const struct mapping *m, struct iova_range part, size_t element,
                   struct refusal *r) {
        size_t gone = index_of(c, m);

        for (size_t i = 0; i < cuts->n; i++)
                if (cuts->cuts[i].gone == gone && iova_range_overlaps(cuts->cuts[i].range, part))
                        return refuse_twice(part, m, r);
        if (cuts->n == cuts->room) {
                size_t room = cuts->room ? cuts->room * 2 : 4;
                struct cut *grown = reallocarray(cuts->cuts, room, sizeof *grown);

                if (!grown)
                        return refuse(r, REFUSAL_INTERNAL, "out of memory");
                cuts->cuts = grown;
                cuts->room = room;
        }
        cuts->cuts[cuts->n++] = (struct cut){ gone, part, element };
        return 0;
}

static bool has_cuts(const struct change *c, const struct cuts *cuts, const struct mapping *m) {
        size_t gone = index_of(c, m);

        for (size_t i = 0; i < cuts->n; i++)
                if (cuts->cuts[i].gone == gone)
                        return true;
        return false;
}

/* One mapping that the range touches. */
static int split_mapping(struct change *c, struct mapping *m, struct iova_range range, size_t element, struct cuts *cuts,
                         struct refusal *r) {
        bool again = m->by == c && m->state == MAPPING_UNMAPPING;
        struct iova_range part = { range.first > m->range.first ? range.first : m->range.first,
                                   range.last < m->range.last ? range.last : m->range.last };
        bool whole = part.first == m->range.first && part.last == m->range.last;
        uint64_t granule = cut_granule(c->domain, m, cuts->policy);

        if (check_live(c, m, r) < 0)
                return -1;
        if (again && (whole || !has_cuts(c, cuts, m)))
                return refuse_twice(part, m, r);
        if (!is_border(m, granule, part.first, cuts->policy))
                return refuse_cut(m, range, granule, part.first, cuts->policy, r);
        if (!is_border(m, granule, part.last + 1, cuts->policy))
                return refuse_cut(m, range, granule, part.last + 1, cuts->policy, r);
        if (!again && change_remove(c, m, r) < 0)
                return -1;
        return whole ? 0 : add_cut(c, cuts, m, part, element, r);
}

int split_range(struct change *c, struct iova_range range, size_t element, struct cuts *cuts, struct refusal *r) {
        struct mapping_set *set = &c->domain->mappings;
        struct mapping *m = mapping_set_find(set, range);
        uint64_t next = range.first;

        for (;; m = mapping_set_next(set, m)) {
                if (!m || m->range.first > next)
                        return refuse_hole(next, m && m->range.first <= range.last ? m->range.first - 1 : range.last, r);
                if (split_mapping(c, m, range, element, cuts, r) < 0)
                        return -1;
                if (m->range.last >= range.last)
                        return 0;
                next = m->range.last + 1;
        }
}

/* ---- what stays ---- */

static int add_rest(struct change *c, const struct mapping *m, uint64_t first, uint64_t last, struct refusal *r) {
        struct mapping *rest = mapping_set_take(&c->domain->mappings, (struct iova_range){ first, last });

        if (!rest)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        rest->memory = m->memory;
        rest->offset = m->offset + (first - m->range.first);
        rest->access = m->access;
        rest->page_shift = m->page_shift;
        rest->state = MAPPING_INTENDED;
        /* Cut between chunks, or with consent anywhere: then the borders of its chunks are not where they were. */
        rest->chunk_shift = m->chunk_shift;
        rest->memory->mappings++;
        return change_add(c, rest, true, r);
}

static int by_place(const void *a, const void *b) {
        const struct cut *x = a, *y = b;

        if (x->gone != y->gone)
                return x->gone < y->gone ? -1 : 1;
        return x->range.first < y->range.first ? -1 : x->range.first > y->range.first;
}

/* What stays of one mapping between n cuts, which are in order and do not touch all of it. */
static int rests_of(struct change *c, const struct mapping *m, const struct cut *cuts, size_t n, struct refusal *r) {
        uint64_t at = m->range.first;

        for (size_t i = 0; i < n; i++) {
                if (cuts[i].range.first > at && add_rest(c, m, at, cuts[i].range.first - 1, r) < 0)
                        return -1;
                if (cuts[i].range.last == m->range.last)
                        return 0;
                at = cuts[i].range.last + 1;
        }
        return add_rest(c, m, at, m->range.last, r);
}

int split_make_rests(struct change *c, struct cuts *cuts, size_t *ret_element, struct refusal *r) {
        if (cuts->n > 1)
                qsort(cuts->cuts, cuts->n, sizeof *cuts->cuts, by_place);
        for (size_t i = 0, run; i < cuts->n; i += run) {
                const struct mapping *m = c->gone[cuts->cuts[i].gone];

                for (run = 1; i + run < cuts->n && cuts->cuts[i + run].gone == cuts->cuts[i].gone; run++)
                        ;
                *ret_element = cuts->cuts[i].element;
                if (rests_of(c, m, &cuts->cuts[i], run, r) < 0)
                        return -1;
        }
        return 0;
}
