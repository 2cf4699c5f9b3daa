/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/backend.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend_ops.h"
#include "backend/backend_windows.h"
#include "util/cleanup.h"
#include "util/log.h"

/*
 * The checked side of backend.h: every promise that can be kept without knowing the backend is kept here, once.
 */

#define RANGE_FORMAT "0x%" PRIx64 "-0x%" PRIx64

int container_open(struct backend_open *o, struct container **ret, struct refusal *r) {
        const struct backend_ops *table = backend_select(o->kind);
        struct backend_open taken = *o;
        struct container *c = NULL;
        struct backend_ops ops;
        int k = -1;

        o->container_fd = o->group_fd = -1;
        if (table) {
                backend_ops_complete(table, &ops);
                k = ops.open(&taken, &c, r);
        } else
                refuse(r, REFUSAL_UNSUPPORTED, "there is no backend number %d", (int)o->kind);
        fd_close(taken.container_fd);
        fd_close(taken.group_fd);
        if (k < 0)
                return -1;
        c->ops = ops;
        mapping_set_init(&c->mappings);
        windows_init(c);
        *ret = c;
        return 0;
}

struct container *container_close(struct container *c) {
        struct refusal r;

        if (!c)
                return NULL;
        if (container_unmap_all(c, &r) < 0)
                log_error("closing a %s container with mappings left: %s", c->ops.name, r.text);
        while (c->devices)
                device_close(c->devices);
        mapping_set_clear(&c->mappings);
        c->ops.close(c);
        return NULL;
}

void container_info(const struct container *c, struct container_info *ret) {
        *ret = c->info;
}

/* --- checks -------------------------------------------------------------------------------------------------------*/

static int check_aligned(uint64_t page, const char *what, uint64_t value, struct refusal *r) {
        uint64_t below = value & ~(page - 1), above;

        if (value == below)
                return 0;
        if (ADD_OVERFLOW(below, page, &above))
                above = below;          /* nothing above can be written down */
        refuse(r, REFUSAL_UNALIGNED, "%s 0x%" PRIx64 " is not a multiple of the IOMMU page, 0x%" PRIx64, what, value, page);
        r->limit = page;
        r->asked = value;
        r->nearest_below = below;
        r->nearest_above = above;
        return -1;
}

/* The page that an address is translated with: its window's, or the smallest. */
static uint64_t page_at(const struct container *c, uint64_t iova) {
        const struct backend_window *w = windows_at(c, iova);

        return w ? UINT64_C(1) << w->page_shift : page_mask_smallest(c->info.page_sizes);
}

/* What map and unmap have in common: a range of whole pages that does not pass 2^64. */
static int check_range(const struct container *c, uint64_t iova, uint64_t length, struct iova_range *ret,
                       struct refusal *r) {
        uint64_t page = page_at(c, iova);

        if (length == 0)
                return refuse(r, REFUSAL_ZERO_LENGTH, "the length at IOVA 0x%" PRIx64 " is zero", iova);
        if (check_aligned(page, "IOVA", iova, r) < 0 || check_aligned(page, "length", length, r) < 0)
                return -1;
        if (!iova_range_make(iova, length, ret))
                return refuse(r, REFUSAL_RANGE_WRAPS,
                              "IOVA 0x%" PRIx64 " with length 0x%" PRIx64 " passes the end of the address space", iova,
                              length);
        return 0;
}

/* A page of the window is one page of memory or a part of one: the kernel would translate past the end of a smaller. */
static int check_memory_page(const struct backend_mapping *m, uint64_t page, uint64_t host_page, struct refusal *r) {
        uint64_t memory_page = m->memory_page ? m->memory_page : host_page;

        if (memory_page >= page)
                return 0;
        refuse(r, REFUSAL_MEMORY_PAGE_SIZE,
               "the window at IOVA 0x%" PRIx64 " has pages of 0x%" PRIx64 " bytes, the memory is made of pages of 0x%" PRIx64
               "; use memory of huge pages (hugetlb) at least that large, or a window of smaller pages", m->iova, page,
               memory_page);
        r->limit = page;
        r->asked = memory_page;
        return -1;
}

/* The memory side. vaddr comes from mmap: without windows the host's page is all the alignment that can be asked of it,
 * in a window the memory's pages are as large as the window's. */
static int check_memory(const struct container *c, const struct backend_mapping *m, struct refusal *r) {
        uint64_t host_page = (uint64_t)sysconf(_SC_PAGESIZE), page = page_at(c, m->iova);
        uint64_t vaddr_align = page < host_page || windows_own(c) ? page : host_page, last;

        if (m->access == 0 || (m->access & ~(BACKEND_ACCESS_READ | BACKEND_ACCESS_WRITE)))
                return refuse(r, REFUSAL_BAD_ACCESS, "access 0x%" PRIx32 " is not read, write or both", m->access);
        if (check_aligned(page, "offset", m->offset, r) < 0)
                return -1;
        if (windows_own(c) && check_memory_page(m, page, host_page, r) < 0)
                return -1;
        if ((uintptr_t)m->vaddr & (vaddr_align - 1))
                return refuse(r, REFUSAL_UNALIGNED, "the memory is not mapped at a page boundary");
        if (ADD_OVERFLOW(m->offset, m->length - 1, &last) || ADD_OVERFLOW((uintptr_t)m->vaddr, m->length - 1, &last))
                return refuse(r, REFUSAL_RANGE_WRAPS,
                              "offset 0x%" PRIx64 " with length 0x%" PRIx64 " passes the end of the memory", m->offset,
                              m->length);
        return 0;
}

/* nearest_below and nearest_above: where a mapping of that length would just fit before and after the gap. */
static int refuse_reserved(struct iova_range before, struct iova_range after, struct iova_range range,
                           struct refusal *r) {
        uint64_t length = iova_range_length(range);

        refuse(r, REFUSAL_RESERVED_REGION, RANGE_FORMAT " touches the reserved region " RANGE_FORMAT, range.first,
               range.last, before.last + 1, after.first - 1);
        r->conflict_first = before.last + 1;
        r->conflict_last = after.first - 1;
        if (before.last - before.first >= length - 1)
                r->nearest_below = before.last - (length - 1);
        if (after.last - after.first >= length - 1)
                r->nearest_above = after.first;
        return -1;
}

static int check_ranges(const struct container *c, struct iova_range range, struct refusal *r) {
        const struct container_info *i = &c->info;

        if (i->n_ranges == 0 || range.first < i->ranges[0].first || range.last > i->ranges[i->n_ranges - 1].last) {
                struct iova_range all = { 1, 0 };

                if (i->n_ranges)
                        all = (struct iova_range){ i->ranges[0].first, i->ranges[i->n_ranges - 1].last };
                refuse(r, REFUSAL_OUTSIDE_APERTURE, RANGE_FORMAT " is outside the aperture " RANGE_FORMAT, range.first,
                       range.last, all.first, all.last);
                r->nearest_below = all.first;
                r->nearest_above = all.last;
                return -1;
        }
        for (uint32_t n = 0; n < i->n_ranges; n++) {
                if (iova_range_contains(i->ranges[n], range))
                        return 0;
                if (n + 1 < i->n_ranges && range.first < i->ranges[n + 1].first)
                        return refuse_reserved(i->ranges[n], i->ranges[n + 1], range, r);
        }
        return 0;       /* not reached: the range begins in or before the last of the ranges */
}

static int check_place(const struct container *c, struct iova_range range, struct refusal *r) {
        if (windows_own(c))
                return windows_find(c, range, r) ? 0 : -1;
        return check_ranges(c, range, r);
}

static int check_free(struct container *c, struct iova_range range, struct refusal *r) {
        const struct mapping *other = mapping_set_find(&c->mappings, range);

        if (other) {
                refuse(r, REFUSAL_OVERLAP, RANGE_FORMAT " overlaps the mapping " RANGE_FORMAT, range.first, range.last,
                       other->range.first, other->range.last);
                r->conflict_first = other->range.first;
                r->conflict_last = other->range.last;
                return -1;
        }
        if (c->mappings.count < c->info.max_mappings)
                return 0;
        refuse(r, REFUSAL_LIMIT_EXCEEDED, "the container holds %" PRIu32 " mappings and takes no more than %" PRIu32,
               c->mappings.count, c->info.max_mappings);
        r->resource = RESOURCE_MAPPINGS;
        r->limit = c->info.max_mappings;
        r->used = c->mappings.count;
        r->asked = 1;
        return -1;
}

static int refuse_not_exact(struct iova_range range, const struct mapping *touched, struct refusal *r) {
        if (!touched)
                return refuse(r, REFUSAL_NOT_MAPPED, "nothing is mapped in " RANGE_FORMAT, range.first, range.last);
        if (iova_range_contains(touched->range, range)) {
                refuse(r, REFUSAL_PARTIAL_UNMAP,
                       RANGE_FORMAT " is a part of the mapping " RANGE_FORMAT ", which can only be unmapped whole",
                       range.first, range.last, touched->range.first, touched->range.last);
                r->nearest_below = touched->range.first;
                r->nearest_above = touched->range.last + 1;
        } else
                refuse(r, REFUSAL_NOT_MAPPED, RANGE_FORMAT " is not one mapping; the first in it is " RANGE_FORMAT,
                       range.first, range.last, touched->range.first, touched->range.last);
        r->conflict_first = touched->range.first;
        r->conflict_last = touched->range.last;
        return -1;
}

/* --- mappings -----------------------------------------------------------------------------------------------------*/

int container_map(struct container *c, const struct backend_mapping *m, struct refusal *r) {
        struct iova_range range;
        struct mapping *record;

        if (check_range(c, m->iova, m->length, &range, r) < 0 || check_place(c, range, r) < 0 ||
            check_memory(c, m, r) < 0 || check_free(c, range, r) < 0)
                return -1;
        record = mapping_set_add(&c->mappings, range);
        if (!record)
                return refuse(r, REFUSAL_INTERNAL, "no memory for the record of a mapping");
        if (c->ops.map(c, m, r) < 0) {
                mapping_set_remove(&c->mappings, record);
                return -1;
        }
        return 0;
}

int container_unmap(struct container *c, uint64_t iova, uint64_t length, struct refusal *r) {
        struct iova_range range;
        struct mapping *m;

        if (check_range(c, iova, length, &range, r) < 0)
                return -1;
        m = mapping_set_find(&c->mappings, range);
        if (!m || m->range.first != range.first || m->range.last != range.last)
                return refuse_not_exact(range, m, r);
        if (c->ops.unmap(c, range, r) < 0)
                return -1;
        mapping_set_remove(&c->mappings, m);
        return 0;
}

int container_unmap_all(struct container *c, struct refusal *r) {
        if (c->ops.unmap_all(c, r) < 0)
                return -1;
        mapping_set_clear(&c->mappings);
        return 0;
}

int container_revoker_fd(struct container *c, int *ret_fd, struct refusal *r) {
        return c->ops.revoker_fd(c, ret_fd, r);
}

/* --- devices ------------------------------------------------------------------------------------------------------*/

int device_open(struct container *c, const char *name, struct device **ret, struct refusal *r) {
        struct device *d = NULL;

        if (name[0] == '\0' || strlen(name) >= BACKEND_DEVICE_NAME_MAX)
                return refuse(r, REFUSAL_UNKNOWN_DEVICE, "a device name has 1 to %u characters",
                              BACKEND_DEVICE_NAME_MAX - 1);
        for (const struct device *other = c->devices; other; other = other->next)
                if (strcmp(other->name, name) == 0)
                        return refuse(r, REFUSAL_DEVICE_BUSY, "device '%s' is open in this container already", name);
        if (c->ops.device_open(c, name, &d, r) < 0)
                return -1;
        strcpy(d->name, name);
        d->container = c;
        d->next = c->devices;
        c->devices = d;
        *ret = d;
        return 0;
}

struct device *device_close(struct device *d) {
        if (!d)
                return NULL;
        for (struct device **p = &d->container->devices; *p; p = &(*p)->next)
                if (*p == d) {
                        *p = d->next;
                        break;
                }
        d->container->ops.device_close(d);
        return NULL;
}

int device_keeper_fd(struct device *d, int *ret_fd, struct refusal *r) {
        return d->container->ops.device_keeper_fd(d, ret_fd, r);
}

int device_client_fd(struct device *d, int *ret_fd, enum device_fd_kind *ret_kind, struct refusal *r) {
        return d->container->ops.device_client_fd(d, ret_fd, ret_kind, r);
}
