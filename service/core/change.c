/* SPDX-License-Identifier: Apache-2.0 */
#include "core/change.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/change_private.h"

/* One more element at the end of an array of struct change. NULL: out of memory. */
#define APPEND(c, name) ((typeof((c)->name))append((void **)&(c)->name, &(c)->n_##name, &(c)->room_##name, sizeof *(c)->name))

static void *append(void **array, size_t *n, size_t *room, size_t size) {
        if (*n == *room) {
                size_t more = *room ? *room * 2 : 4;
                void *grown = reallocarray(*array, more, size);

                if (!grown)
                        return NULL;
                *array = grown;
                *room = more;
        }
        return (char *)*array + (*n)++ * size;
}

static int out_of_memory(struct refusal *r) {
        return refuse(r, REFUSAL_INTERNAL, "out of memory");
}

struct change *change_new(struct session *s, struct domain *d) {
        struct change *c = calloc(1, sizeof *c);

        if (!c)
                return NULL;
        c->session = s;
        c->domain = d;
        return c;
}

void change_free(struct change *c) {
        if (!c)
                return;
        free(c->gone);
        free(c->made);
        free(c->pages);
        free(c->old);
        free(c->new);
        free(c);
}

/* ---- for the holder ---- */

static int tell_new(struct change *c, const struct link_map_entry *e, struct refusal *r) {
        struct link_map_entry *entry = APPEND(c, new);

        if (!entry)
                return out_of_memory(r);
        *entry = *e;
        return 0;
}

static int tell_old(struct change *c, uint64_t iova, uint64_t length, struct refusal *r) {
        struct link_unmap_entry *entry = APPEND(c, old);

        if (!entry)
                return out_of_memory(r);
        *entry = (struct link_unmap_entry){ iova, length };
        return 0;
}

bool mapping_body_entry(const struct mapping *m, struct link_map_entry *ret) {
        struct iova_range body;

        if (!mapping_body(m, &body))
                return false;
        *ret = (struct link_map_entry){ .iova = body.first, .length = iova_range_length(body), .memory = m->memory->id,
                                        .offset = m->offset + (body.first - m->range.first), .access = m->access,
                                        .chunk_shift = m->chunk_shift };
        return true;
}

struct link_map_entry shared_page_entry(const struct shared_page *p, uint32_t access) {
        return (struct link_map_entry){ .iova = p->iova, .length = UINT64_C(1) << p->page_shift, .memory = p->memory->id,
                                        .offset = p->offset, .access = access };
}

static struct ledger_node node_of(const struct link_map_entry *e) {
        return (struct ledger_node){ .iova = e->iova, .length = e->length, .memory = e->memory, .offset = e->offset,
                                     .access = e->access, .chunk_shift = e->chunk_shift };
}

/* The first of each kind tells recovery whether it happened, as all of a change happens or nothing. */
static void note_effect(struct change *c, const struct link_map_entry *gone, const struct link_map_entry *made) {
        if (gone && c->effect.gone.length == 0)
                c->effect.gone = node_of(gone);
        if (made && c->effect.made.length == 0)
                c->effect.made = node_of(made);
}

/* ---- shared pages ---- */

static int refuse_changing(const struct shared_page *p, struct refusal *r) {
        const struct iova_range page = shared_page_range(p);

        refuse(r, REFUSAL_IN_PROGRESS,
               "the IOMMU page 0x%" PRIx64 "-0x%" PRIx64 ", which this mapping shares, is being changed by another request; "
               "repeat when that is done", page.first, page.last);
        r->conflict_first = page.first;
        r->conflict_last = page.last;
        return -1;
}

/* A mapping that shares the page already: the one to name when two disagree. If there is none any more, the page itself. */
static struct iova_range sharer(struct domain *d, const struct shared_page *p, const struct mapping *not_this) {
        const struct iova_range page = shared_page_range(p);
        struct mapping *m = mapping_set_find(&d->mappings, page);

        while (m && m == not_this)
                m = mapping_set_next(&d->mappings, m);
        return m && iova_range_overlaps(m->range, page) ? m->range : page;
}

static int refuse_disagreement(struct change *c, const struct shared_page *p, const struct mapping *m, uint64_t offset,
                               struct refusal *r) {
        const struct iova_range other = sharer(c->domain, p, m), page = shared_page_range(p);

        refuse(r, REFUSAL_OVERLAP,
               "0x%" PRIx64 "-0x%" PRIx64 " and the mapping 0x%" PRIx64 "-0x%" PRIx64 " share the IOMMU page 0x%" PRIx64
               "-0x%" PRIx64 ", behind which can be one page only: there is offset 0x%" PRIx64 " of memory object %" PRIu64
               ", and 0x%" PRIx64 " of %" PRIu64 " was asked for",
               m->range.first, m->range.last, other.first, other.last, page.first, page.last, p->offset, p->memory->id, offset,
               m->memory->id);
        r->conflict_first = other.first;
        r->conflict_last = other.last;
        return -1;
}

static int refuse_exposed(struct change *c, const struct shared_page *p, const struct mapping *m, struct refusal *r) {
        const struct iova_range other = sharer(c->domain, p, m), page = shared_page_range(p);

        refuse(r, REFUSAL_OVERLAP,
               "0x%" PRIx64 "-0x%" PRIx64 " touches the IOMMU page 0x%" PRIx64 "-0x%" PRIx64 ", all of which is exposed for the "
               "mapping 0x%" PRIx64 "-0x%" PRIx64 ", made before the domain had a device; unmap that first",
               m->range.first, m->range.last, page.first, page.last, other.first, other.last);
        r->conflict_first = other.first;
        r->conflict_last = other.last;
        return -1;
}

/* Pages that were exposed while larger ones were the smallest known are taken as a whole, also what nobody has of them. */
static int check_exposed(struct change *c, const struct mapping *m, struct refusal *r) {
        struct shared_page_set *pages = &c->domain->pages;
        struct iova_range seen = mapping_seen(m);

        for (struct shared_page *p = shared_page_in(pages, seen); p && p->iova <= seen.last; p = shared_page_next(pages, p))
                if (p->page_shift != m->page_shift)
                        return refuse_exposed(c, p, m, r);
        return 0;
}

/* The page at iova for a mapping that comes: the one that is there, or a new one. NULL: refused. */
static struct shared_page *page_for(struct change *c, const struct mapping *m, uint64_t iova, struct refusal *r) {
        struct shared_page *p = shared_page_find(&c->domain->pages, iova);
        uint64_t offset = m->offset - (m->range.first - iova);  /* modulo 2^64: iova may lie behind the beginning */

        if (!p) {
                p = shared_page_add(&c->domain->pages, iova);
                if (!p) {
                        (void)out_of_memory(r);
                        return NULL;
                }
                p->page_shift = m->page_shift;
                p->memory = m->memory;
                p->offset = offset;
                return p;
        }
        if (p->by && p->by != c) {
                (void)refuse_changing(p, r);
                return NULL;
        }
        if (p->memory == m->memory && p->offset == offset && p->page_shift == m->page_shift)
                return p;
        (void)refuse_disagreement(c, p, m, offset, r);
        return NULL;
}

static int count_page(struct change *c, struct shared_page *p, uint32_t access, int sign, struct refusal *r) {
        struct change_page *record = NULL;

        for (size_t i = 0; p->by == c && i < c->n_pages; i++)
                if (c->pages[i].page == p)
                        record = &c->pages[i];
        if (!record) {
                record = APPEND(c, pages);
                if (!record) {
                        if (p->access == 0 && p->by == NULL)
                                shared_page_remove(&c->domain->pages, p);
                        return out_of_memory(r);
                }
                *record = (struct change_page){ .page = p };
                p->by = c;
        }
        c->uses_pages = true;
        record->readers += access & BACKEND_ACCESS_READ ? sign : 0;
        record->writers += access & BACKEND_ACCESS_WRITE ? sign : 0;
        shared_page_count(p, access, sign);
        return 0;
}

static int add_pages(struct change *c, const struct mapping *m, struct refusal *r) {
        uint64_t edges[2];
        unsigned n = mapping_edges(m, edges);

        for (unsigned i = 0; i < n; i++) {
                struct shared_page *p = page_for(c, m, edges[i], r);

                if (!p || count_page(c, p, m->access, 1, r) < 0)
                        return -1;
        }
        return 0;
}

static int remove_pages(struct change *c, const struct mapping *m, struct refusal *r) {
        uint64_t edges[2];
        unsigned n = mapping_edges(m, edges);

        for (unsigned i = 0; i < n; i++) {
                struct shared_page *p = shared_page_find(&c->domain->pages, edges[i]);

                if (!p)
                        return refuse(r, REFUSAL_INTERNAL, "the shared page 0x%" PRIx64 " is not counted", edges[i]);
                if (p->by && p->by != c)
                        return refuse_changing(p, r);
                if (count_page(c, p, m->access, -1, r) < 0)
                        return -1;
        }
        return 0;
}

/* ---- mappings ---- */

int change_add(struct change *c, struct mapping *m, bool rest, struct refusal *r) {
        struct mapping **slot = APPEND(c, made);
        struct link_map_entry body;

        if (!slot) {
                m->memory->mappings--;
                if (rest)
                        mapping_set_give_back(&c->domain->mappings, m);
                else
                        mapping_set_remove(&c->domain->mappings, m);
                return out_of_memory(r);
        }
        *slot = m;
        c->n_rests += rest;
        if (!rest && check_exposed(c, m, r) < 0)
                return -1;
        if (mapping_body_entry(m, &body)) {
                if (tell_new(c, &body, r) < 0)
                        return -1;
                note_effect(c, NULL, &body);
                c->new_pieces += mapping_pieces(m);
        }
        return add_pages(c, m, r);
}

void change_name_element(const struct change *c, size_t n_old, struct refusal *r) {
        size_t entry = r->element < 0 ? SIZE_MAX : (size_t)r->element - n_old;  /* an unmap becomes too large */
        struct iova_range range;

        r->element = -1;
        if (entry >= c->n_new || !iova_range_make(c->new[entry].iova, c->new[entry].length, &range))
                return;
        for (size_t i = 0; i < c->n_made && r->element < 0; i++)
                if (iova_range_overlaps(mapping_seen(c->made[i]), range))
                        r->element = (int32_t)c->made[i]->element;
}

int change_remove(struct change *c, struct mapping *m, struct refusal *r) {
        struct mapping **slot = APPEND(c, gone);
        struct link_map_entry body;

        if (!slot)
                return out_of_memory(r);
        *slot = m;
        m->state = MAPPING_UNMAPPING;
        m->by = c;
        if (mapping_body_entry(m, &body)) {
                if (tell_old(c, body.iova, body.length, r) < 0)
                        return -1;
                note_effect(c, &body, NULL);
                c->old_pieces += mapping_pieces(m);
        }
        return remove_pages(c, m, r);
}

/* A page whose access changes goes and comes again: neither type1 nor iommufd can change it in place. */
static int settle_page(struct change *c, struct shared_page *p, struct refusal *r) {
        uint32_t before = p->access, after = shared_page_union(p);
        struct link_map_entry old = shared_page_entry(p, before), new = shared_page_entry(p, after);

        if (before == after)
                return 0;
        if (before) {
                if (tell_old(c, old.iova, old.length, r) < 0)
                        return -1;
                note_effect(c, &old, NULL);
                c->old_pieces++;
        }
        if (after) {
                if (tell_new(c, &new, r) < 0)
                        return -1;
                note_effect(c, NULL, &new);
                c->new_pieces++;
        }
        return 0;
}

int change_settle_pages(struct change *c, struct refusal *r) {
        struct domain *d = c->domain;
        uint64_t limit = d->info.max_mappings, after;

        for (size_t i = 0; i < c->n_pages; i++)
                if (settle_page(c, c->pages[i].page, r) < 0)
                        return -1;
        if ((c->n_old > LINK_BATCH_MAX || c->n_gone > LINK_BATCH_MAX) && (c->n_new > 0 || c->uses_pages))
                return refuse(r, REFUSAL_BATCH_TOO_LARGE,
                              "%zu mappings would go at once; where parts of mappings stay, or pages are shared, %u can. Ask for "
                              "less in one request", c->n_gone, LINK_BATCH_MAX);
        if (c->n_new > LINK_BATCH_MAX || c->n_rests > LINK_BATCH_MAX)
                return refuse(r, REFUSAL_BATCH_TOO_LARGE, "%zu mappings would be made at once, %u can. Ask for less in one request",
                              c->n_new > c->n_rests ? c->n_new : c->n_rests, LINK_BATCH_MAX);
        if (c->new_pieces <= c->old_pieces || limit == UINT32_MAX)
                return 0;
        after = d->kernel_mappings + (c->new_pieces - c->old_pieces);
        if (after <= limit)
                return 0;
        refuse(r, REFUSAL_LIMIT_EXCEEDED,
               "the IOMMU takes %" PRIu64 " mappings in a domain; %" PRIu64 " are there and %" PRIu64 " more were asked for. Map "
               "larger pieces, larger chunks or neighbours merged, or use another domain", limit, d->kernel_mappings,
               c->new_pieces - c->old_pieces);
        r->resource = RESOURCE_MAPPINGS;
        r->limit = limit;
        r->used = d->kernel_mappings;
        r->asked = c->new_pieces - c->old_pieces;
        return -1;
}
