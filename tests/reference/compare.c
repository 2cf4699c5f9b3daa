/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "run.h"

bool disagree(struct run *r, const char *format, ...) {
        va_list args;

        va_start(args, format);
        (void)vsnprintf(r->why, sizeof r->why, format, args);
        va_end(args);
        return false;
}

/* ---- answers ---- */

/* As iommud_error(3) has them. */
static int errno_of(enum iommud_reason reason) {
        switch ((int)reason) {
        case IOMMUD_REASON_OVERLAP:
                return -EEXIST;
        case IOMMUD_REASON_MEMORY_READ_ONLY:
        case IOMMUD_REASON_MEMORY_WRITE_SEALED:
                return -EACCES;
        case IOMMUD_REASON_MEMORY_TRUNCATED:
                return -EFAULT;
        case IOMMUD_REASON_MEMORY_UNSEALED:
        case IOMMUD_REASON_PARTIAL_UNMAP:
        case IOMMUD_REASON_IN_USE:
        case IOMMUD_REASON_DEVICE_BUSY:
        case IOMMUD_REASON_BACKEND_REFUSED:
                return -EBUSY;
        case IOMMUD_REASON_NOT_MAPPED:
                return -ENOENT;
        case IOMMUD_REASON_QUOTA_EXCEEDED:
        case IOMMUD_REASON_LIMIT_EXCEEDED:
                return -EDQUOT;
        case IOMMUD_REASON_IN_PROGRESS:
                return -EAGAIN;
        case IOMMUD_REASON_UNSUPPORTED:
                return -ENOTSUP;
        case IOMMUD_REASON_NO_WINDOW:
                return -ERANGE;
        case IOMMUD_REASON_WINDOW_SIZE:
                return -E2BIG;
        case IOMMUD_REASON_WINDOW_LIMIT:
                return -ENOSPC;
        default:
                return -EINVAL;
        }
}

/* Does the range that the service calls a hole touch what was asked for, and is nothing mapped in it? */
static bool is_hole(const struct run *r, const struct op *op, int64_t element, uint64_t first, uint64_t last) {
        const struct model_domain *d = &r->model.clients[op->client].domains[op->domain];
        const struct op_element *e = &op->e[element];

        if (first > last || first > e->iova + (e->length - 1) || last < e->iova)
                return false;
        for (int i = 0; i < MAPPINGS; i++) {
                const struct model_mapping *x = &d->mappings[i];

                if (x->there && !x->waits && x->iova <= last && x->iova + (x->length - 1) >= first)
                        return false;
        }
        return true;
}

/* The kernel is asked in an order of the holder's own. */
static bool is_not_registered(const struct run *r, const struct op *op, const struct complaint *c, int64_t element) {
        return c->reason == IOMMUD_REASON_BACKEND_REFUSED && element >= 0 && element < op->n &&
               !model_can_register(&r->model, op->client, op->e[element].memory);
}

static bool is_right(const struct run *r, const struct op *op, const struct verdict *v, const struct complaint *c,
                     const struct report *p) {
        const struct iommud_error *e = &p->error;

        if (op->kind == OP_CONNECT)     /* that connection carries a reason and a text */
                return e->reason == c->reason && p->result == errno_of(c->reason);
        return e->reason == c->reason && p->result == errno_of(c->reason) &&
               (e->element == v->element || is_not_registered(r, op, c, e->element)) &&
               (!c->amounts || (e->limit == c->limit && e->used == c->used && e->asked == c->asked)) &&
               (c->resource == 0 || e->resource == c->resource) &&
               (!c->conflict || (e->conflict_first == c->conflict_first && e->conflict_last == c->conflict_last)) &&
               (!c->nearest || (e->nearest_below == c->below && e->nearest_above == c->above)) &&
               (!c->hole || is_hole(r, op, v->element, e->conflict_first, e->conflict_last));
}

static int print_complaint(char *to, size_t size, const struct complaint *c) {
        int n = snprintf(to, size, " %s", iommud_reason_name(c->reason));

        if (c->amounts && n >= 0 && (size_t)n < size)
                n += snprintf(to + n, size - (size_t)n, " (resource %d: 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64 ")",
                              (int)c->resource,
                              c->limit, c->used, c->asked);
        if (c->conflict && n >= 0 && (size_t)n < size)
                n += snprintf(to + n, size - (size_t)n, " (0x%" PRIx64 "-0x%" PRIx64 ")", c->conflict_first, c->conflict_last);
        if (c->nearest && n >= 0 && (size_t)n < size)
                n += snprintf(to + n, size - (size_t)n, " (nearest 0x%" PRIx64 ", 0x%" PRIx64 ")", c->below, c->above);
        return n;
}

static bool say_wrong(struct run *r, const struct verdict *v, const struct report *p) {
        const struct iommud_error *e = &p->error;
        char right[400] = " success", got[300] = "success";
        size_t used = 0;

        for (uint32_t i = 0; i < v->n && used < sizeof right; i++)
                used += (size_t)print_complaint(right + used, sizeof right - used, &v->of[i]);
        if (p->result < 0)
                (void)snprintf(got, sizeof got,
                               "%d %s of element %" PRId64 ": resource %d: 0x%" PRIx64 ", 0x%" PRIx64 ", 0x%" PRIx64
                               ", conflict 0x%" PRIx64 "-0x%" PRIx64 ", nearest 0x%" PRIx64 ", 0x%" PRIx64 " [%.60s]",
                               p->result, iommud_reason_name(e->reason), e->element, (int)e->resource, e->limit, e->used, e->asked,
                               e->conflict_first, e->conflict_last, e->nearest_below, e->nearest_above, e->text);
        return disagree(r, "the answer is %s; right would be (element %" PRId64 "):%s", got, v->element, right);
}

static bool same(struct run *r, const char *what, uint64_t got, uint64_t right) {
        return got == right || disagree(r, "%s: the service has 0x%" PRIx64 ", the model 0x%" PRIx64, what, got, right);
}

static bool compare_window(struct run *r, const struct iommud_window *got, const struct model_window_view *w) {
        return same(r, "a window's start", got->start, w->start) && same(r, "its length", got->length, w->length) &&
               same(r, "its page", UINT64_C(1) << got->page_shift, w->page) && same(r, "its quota", got->quota, w->quota) &&
               same(r, "its table bytes", got->table_bytes, w->table_bytes) &&
               same(r, "its mappings", got->mappings, w->mappings) &&
               same(r, "its mapped bytes", got->mapped_bytes, w->mapped_bytes);
}

bool compare_answer(struct run *r, const struct op *op, const struct verdict *v, const struct report *p) {
        if (p->result < 0) {
                for (uint32_t i = 0; i < v->n; i++)
                        if (is_right(r, op, v, &v->of[i], p))
                                return true;
                return say_wrong(r, v, p);
        }
        if (v->n > 0)
                return say_wrong(r, v, p);
        switch (op->kind) {
        case OP_MAP:
                return same(r, "the map's IOVA", p->iova, v->iova) && same(r, "mappings made", p->mappings, v->mappings) &&
                       same(r, "locked bytes charged", p->locked_bytes, v->locked_bytes) &&
                       same(r, "table bytes charged", p->table_bytes, v->table_bytes);
        case OP_UNMAP:
        case OP_UNMAP_ALL:
        case OP_SYNC:
                return same(r, "bytes unmapped or flushed", p->bytes, v->bytes);
        case OP_WINDOW:
                return compare_window(r, &p->windows[0], &v->window);
        default:
                return true;
        }
}

/* ---- balances ---- */

bool compare_balances(struct run *r) {
        for (uint32_t t = 0; t < TENANTS; t++) {
                uint64_t limit[RESOURCES] = { 0 }, used[RESOURCES] = { 0 }, right[RESOURCES];

                host_balance(r->host, t, limit, used);
                model_balance(&r->model, t, right);
                for (unsigned i = 1; i < RESOURCES; i++) {
                        char what[64];

                        (void)snprintf(what, sizeof what, "tenant %u, resource %u, %s", t, i, "limit");
                        if (!same(r, what, limit[i], r->model.tenants[t].limit[i]))
                                return false;
                        (void)snprintf(what, sizeof what, "tenant %u, resource %u, %s", t, i, "used");
                        if (!same(r, what, used[i], right[i]))
                                return false;
                }
        }
        return true;
}

/* ---- domains ---- */

/* The world is as we think: what a device's domain can be like. */
static bool compare_constraints(struct run *r, const struct iommud_constraints *c, uint64_t page, bool known) {
        static const struct world_range all = { 0, UINT64_MAX };
        bool limited = known && !r->world.windows;
        const struct world_range *ranges = limited ? r->world.ranges : &all;
        uint32_t n = limited ? r->world.n_ranges : 1;

        if (!same(r, "smallest page", c->page_sizes & -c->page_sizes, page) || !same(r, "usable ranges", c->n_ranges, n))
                return false;
        for (uint32_t i = 0; i < n; i++)
                if (!same(r, "a range's first", c->ranges[i].first, ranges[i].first) ||
                    !same(r, "a range's last", c->ranges[i].last, ranges[i].last))
                        return false;
        return !known || r->world.max_mappings == 0 || same(r, "most mappings", c->max_mappings, r->world.max_mappings);
}

static bool compare_info(struct run *r, uint32_t client, uint32_t domain, const struct iommud_domain_info *info) {
        const struct model_domain *d = &r->model.clients[client].domains[domain];
        struct model_counts counts;
        uint32_t attached = 0;

        model_count(&r->model, client, domain, &counts);
        for (uint32_t i = 0; i < r->world.n_devices; i++)
                attached += r->model.devices[i].client == client && r->model.devices[i].domain == domain;
        if (strcmp(info->state, "live") != 0)
                return disagree(r, "client %u, domain %u is '%s'", client, domain, info->state);
        return same(r, "domain: mappings", info->mappings, counts.mappings) &&
               same(r, "domain: mapped bytes", info->mapped_bytes, counts.bytes) &&
               same(r, "domain: waiting mappings", info->deferred_mappings, counts.waiting_mappings) &&
               same(r, "domain: waiting bytes", info->deferred_bytes, counts.waiting_bytes) &&
               same(r, "domain: mappings of the IOMMU", info->kernel_mappings, counts.pieces) &&
               same(r, "domain: shared pages", info->shared_pages, counts.shared_pages) &&
               same(r, "domain: table bytes", info->table_bytes, counts.table_bytes) &&
               same(r, "domain: attachments", info->attachments, attached) &&
               compare_constraints(r, &info->constraints, model_smallest_page(&r->model, d),
                                   model_knows_constraints(&r->model, d)) &&
               same(r, "domain: lazy", info->flush_mode == IOMMUD_FLUSH_LAZY, d->lazy);
}

static const struct model_mapping *mapping_at(const struct model_domain *d, uint64_t iova) {
        for (int i = 0; i < MAPPINGS; i++)
                if (d->mappings[i].there && d->mappings[i].iova == iova)
                        return &d->mappings[i];
        return NULL;
}

static bool compare_mapping(struct run *r, uint32_t client, const struct model_domain *d, const struct iommud_mapping *got) {
        const struct model_mapping *x = mapping_at(d, got->iova);
        uint64_t first, last;
        uint32_t access;
        bool partial;

        if (!x)
                return disagree(r, "the service lists a mapping at 0x%" PRIx64 ", the model has none there", got->iova);
        model_exposure(d, x, &partial, &first, &last, &access);
        if (got->exposed_first <= got->exposed_last && !partial)
                return disagree(r, "the mapping at 0x%" PRIx64 " is said to expose pages", got->iova);
        return same(r, "a mapping's length", got->length, x->length) &&
               same(r, "a mapping's memory", got->memory, r->clients[client].memory_id[x->memory]) &&
               same(r, "a mapping's offset", got->offset, x->offset) && same(r, "a mapping's access", got->access, x->access) &&
               same(r, "a mapping's chunk", got->chunk, x->chunk) && same(r, "a mapping's life", got->live, !x->waits) &&
               (!partial || (same(r, "a mapping's first exposed byte", got->exposed_first, first) &&
                             same(r, "a mapping's last exposed byte", got->exposed_last, last) &&
                             same(r, "a mapping's exposed access", got->exposed_access, access)));
}

static bool compare_windows(struct run *r, const struct model_domain *d, const struct report *p) {
        struct model_window_view right[REPORT_WINDOWS];
        uint32_t n = model_windows(&r->model, d, right);

        if (!same(r, "windows", p->n_windows, n))
                return false;
        for (uint32_t i = 0; i < n; i++)
                if (!compare_window(r, &p->windows[i], &right[i]))
                        return false;
        return true;
}

bool compare_domain(struct run *r, uint32_t client, uint32_t domain) {
        const struct model_domain *d = &r->model.clients[client].domains[domain];
        struct order o = { .kind = ORDER_DESCRIBE, .domain = domain };
        const struct report *p = crew_order(r, client, &o, -1);

        if (!p)
                return disagree(r, "client %u is gone", client);
        if (p->result < 0)
                return disagree(r, "client %u cannot describe domain %u: %s", client, domain, p->error.text);
        if (!compare_info(r, client, domain, &p->info) || !same(r, "listed mappings", p->n, p->info.mappings))
                return false;
        for (uint32_t i = 0; i < p->n; i++)
                if (!compare_mapping(r, client, d, &p->list[i]))
                        return false;
        return !d->met || compare_windows(r, d, p);
}

bool compare_capabilities(struct run *r, uint32_t client, uint32_t device) {
        struct order o = { .kind = ORDER_CAPABILITIES };
        const struct report *p;

        memcpy(o.text, r->world.devices[device], sizeof r->world.devices[device]);
        p = crew_order(r, client, &o, -1);
        if (!p || p->result < 0)
                return disagree(r, "client %u is not told the constraints: %s", client, p ? p->error.text : "it is gone");
        return compare_constraints(r, &p->constraints, r->world.host_page, !r->world.at_attach);
}
