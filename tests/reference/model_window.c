/* SPDX-License-Identifier: Apache-2.0 */
#include "model_private.h"

/*
 * Windows that are the IOMMU's own: the default one, and one more that is made and removed. Each has pages and a table of its own;
 * beside them there is nothing. What they are like is known from a domain's first device on, and they stay when it goes.
 */
#define LARGEST (UINT64_C(1) << 43)     /* 0x80000000 pages of 4K */
#define WINDOWS 2
#define PAGE_SIZES 0x11000U             /* of those that are asked for here: 4K and 64K are possible */

static uint64_t far_bytes(const struct model *m) {
        return m->world.far_window * m->world.page;
}

bool model_is_in_second(const struct model *m, const struct model_domain *d, uint64_t iova) {
        return d->second.there && iova >= m->world.far_base && iova - m->world.far_base < far_bytes(m);
}

static bool default_window_has(const struct model *m, const struct model_domain *d, uint64_t iova) {
        return d->met && iova >= m->world.ranges[0].first && iova <= m->world.ranges[0].last;
}

uint64_t model_page_at(const struct model *m, const struct model_domain *d, uint64_t iova) {
        if (model_is_in_second(m, d, iova))
                return d->second.page;
        return default_window_has(m, d, iova) ? m->world.page : model_smallest_page(m, d);
}

uint64_t window_tables(const struct model *m, const struct model_domain *d) {
        /* of the first level: entries of 8 bytes, in whole pages, and one will do */
        return d->second.there ? m->world.host_page * (m->world.far_levels > 1 ? 2 : 1) : 0;
}

static void count(const struct model_domain *d, struct model_window_view *w) {
        for (int i = 0; i < MAPPINGS; i++)
                if (d->mappings[i].there && d->mappings[i].iova >= w->start && d->mappings[i].iova - w->start < w->length) {
                        w->mappings++;
                        w->mapped_bytes += d->mappings[i].length;
                }
}

static struct model_window_view second_window(const struct model *m, const struct model_domain *d) {
        struct model_window_view w = { .start = m->world.far_base, .length = far_bytes(m), .page = d->second.page,
                                       .quota = d->second.quota, .table_bytes = window_tables(m, d) };

        count(d, &w);
        return w;
}

uint32_t model_windows(const struct model *m, const struct model_domain *d, struct model_window_view ret[WINDOWS]) {
        const struct world_range *first = &m->world.ranges[0];

        ret[0] = (struct model_window_view){ .start = first->first, .length = first->last - first->first + 1,
                                             .page = m->world.page };
        count(d, &ret[0]);
        if (!d->second.there)
                return 1;
        ret[1] = second_window(m, d);
        return 2;
}

/* ---- what is mapped in them ---- */

/* The nearest places: the last with room in a window that begins before, and the first in one behind. */
static void complain_of_no_window(const struct model_window_view *w, uint32_t n, uint64_t first, uint64_t last, struct verdict *v) {
        struct complaint *c = complain(v, IOMMUD_REASON_NO_WINDOW);

        c->nearest = true;
        for (uint32_t i = n; i-- > 0;) {
                uint64_t end = w[i].start + w[i].length;
                bool begins = first >= w[i].start && first < end, ends = last >= w[i].start && last < end;

                if (begins || (ends && !c->conflict)) {
                        c->conflict = true;
                        c->conflict_first = w[i].start;
                        c->conflict_last = end - 1;
                }
                if (last - first > w[i].length - 1)
                        continue;
                if (w[i].start > first)
                        c->above = w[i].start;
                else if (c->below == 0)
                        c->below = round_down(end - 1 - (last - first), w[i].page);
        }
}

void judge_window(const struct model *m, const struct model_domain *d, uint64_t first, uint64_t last, struct verdict *v) {
        struct model_window_view w[WINDOWS];
        uint32_t n = model_windows(m, d, w);

        for (uint32_t i = 0; i < n; i++)
                if (first >= w[i].start && last - w[i].start < w[i].length)
                        return;
        complain_of_no_window(w, n, first, last, v);
}

/* Memory of pages that are as large, and no more bytes than the window was made for. */
void judge_in_window(const struct model *m, const struct model_domain *d, const struct op_element *e, struct verdict *v) {
        struct model_window_view w;
        struct complaint *c;

        if (!model_is_in_second(m, d, e->iova))
                return;
        w = second_window(m, d);
        if (m->world.host_page < w.page) {
                c = complain(v, IOMMUD_REASON_MEMORY_PAGE_SIZE);
                c->amounts = true;
                c->limit = w.page;
                c->asked = m->world.host_page;
        }
        if (w.quota == 0 || w.mapped_bytes + e->length <= w.quota)
                return;
        c = complain(v, IOMMUD_REASON_QUOTA_EXCEEDED);
        c->amounts = c->conflict = true;
        c->limit = w.quota;
        c->used = w.mapped_bytes;
        c->asked = e->length;
        c->conflict_first = w.start;
        c->conflict_last = w.start + w.length - 1;
}

/* ---- made and removed ---- */

static void judge_size(uint64_t length, uint64_t page, struct verdict *v) {
        struct complaint *c;

        if (length >= page && length <= LARGEST && (length & (length - 1)) == 0)
                return;
        c = complain(v, IOMMUD_REASON_WINDOW_SIZE);
        c->amounts = c->nearest = true;
        c->limit = length < page ? page : LARGEST;
        c->asked = length;
        if (length < page) {
                c->above = page;
                return;
        }
        for (c->below = page; c->below * 2 <= length && c->below < LARGEST; c->below *= 2)
                ;
        c->above = length < LARGEST ? c->below * 2 : 0;
}

static void complain_of_no_device(const struct model_domain *d, struct verdict *v) {
        if (d->n_devices == 0)
                complain(v, IOMMUD_REASON_UNSUPPORTED);
}

void play_window(struct model *m, const struct op *op, struct verdict *v) {
        static struct model after;
        struct model_domain *d = &m->clients[op->client].domains[op->domain];
        uint64_t page = UINT64_C(1) << op->flags;

        complain_of_no_device(d, v);
        if (!(page & PAGE_SIZES))
                complain(v, IOMMUD_REASON_WINDOW_PAGE);
        else
                judge_size(op->length, page, v);
        if (d->second.there) {
                struct complaint *c = complain(v, IOMMUD_REASON_WINDOW_LIMIT);

                c->amounts = true;
                c->limit = c->used = WINDOWS;
                c->asked = 1;
        }
        if (v->n > 0)
                return;
        after = *m;
        after.clients[op->client].domains[op->domain].second = (struct model_window){ true, page, op->limit };
        complain_of_limits(m, &after, op->client, NOBODY, v);
        if (v->n > 0)
                return;
        *m = after;
        v->window = second_window(m, d);
}

/* Nothing waits for a flush any more then, whether it is removed or not. */
void play_unwindow(struct model *m, const struct op *op, struct verdict *v) {
        struct model_domain *d = &m->clients[op->client].domains[op->domain];
        struct model_window_view w;

        flush(m, d);
        w = second_window(m, d);
        complain_of_no_device(d, v);
        if (w.mappings > 0 && op->flags == 0) {
                struct complaint *c = complain(v, IOMMUD_REASON_IN_USE);

                c->amounts = c->conflict = true;
                c->used = w.mappings;
                c->conflict_first = w.start;
                c->conflict_last = w.start + w.length - 1;
        }
        if (v->n > 0)
                return;
        for (int i = 0; i < MAPPINGS; i++)
                if (d->mappings[i].there && model_is_in_second(m, d, d->mappings[i].iova))
                        mapping_drop(m, d, &d->mappings[i]);
        d->second = (struct model_window){ 0 };
}
