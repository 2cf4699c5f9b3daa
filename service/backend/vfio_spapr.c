/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <string.h>
#include <unistd.h>

#include "backend/backend_windows.h"
#include "backend/spapr_memory.h"
#include "backend/spapr_revoker.h"
#include "backend/vfio_container.h"
#include "util/cleanup.h"
#include "util/log.h"

/*
 * VFIO on POWER: sPAPR TCE, version 2 (windows that can be created, memory that is registered), or 1 where there is no
 * other (the initial window alone, no registration).
 *
 * The kernel trusts its caller here, so this is the safe side of it (DESIGN, section 8):
 *      - a map across a window's end can make the kernel oops: the range is compared with the window before each request
 *      - a positive answer means that nothing was done: success is 0
 *      - a map over a mapped address replaces it silently: the wrapper refuses overlaps
 *      - unregistering memory that is mapped leaks it: unmapped first, always
 *      - a creation that failed may leave locked memory charged: counted, and said in the log
 *      - a length or size of 0 never reaches it
 *      - one group in one container (I7): a second one can be put in, and then nothing works
 */
struct spapr_container {
        struct vfio_container vfio;
        bool enabled;                   /* v1 */
        bool dirty;                     /* an unmap failed: something may be left in the windows */
        unsigned failed_creations;
        struct spapr_revocation revocation;     /* with the registered memory */
        struct spapr_revoker *revoker;
};

/* 0x80000000 pages of 4K: what a count of 32 bits can say as a power of two. Not a matter of how much memory there is. */
#define LARGEST_WINDOW (UINT64_C(0x80000000) << INITIAL_PAGE_SHIFT)
#define INITIAL_PAGE_SHIFT 12U

static struct spapr_container *spapr_of(struct container *c) {
        return (struct spapr_container *)c;     /* vfio is the first member, and base is its first */
}

/* 0 or -errno; whatever is not success is failure. */
static int request(const struct spapr_container *s, unsigned long what, void *argument) {
        int k = vfio_ioctl(s->vfio.fd, what, argument);

        return k > 0 ? -EIO : k;
}

/* --- mappings -----------------------------------------------------------------------------------------------------*/

/* The last look before the kernel, which takes none. */
static int check_inside(const struct container *c, uint64_t iova, uint64_t length, struct refusal *r) {
        const struct backend_window *w = windows_at(c, iova);

        if (w && length > 0 && length <= w->size && iova - w->start <= w->size - length &&
            ((iova | length) & ((UINT64_C(1) << w->page_shift) - 1)) == 0)
                return 0;
        return refuse(r, REFUSAL_INTERNAL, "0x%" PRIx64 " bytes at IOVA 0x%" PRIx64 " do not lie in one window", length, iova);
}

static int refuse_map(const struct backend_mapping *m, int errnum, struct refusal *r) {
        const char *why;

        switch (errnum) {
        case ENOMEM:
                why = "the kernel has no memory for the window's table, or it passes the locked-memory limit (RLIMIT_MEMLOCK) of "
                      "the process that maps";
                break;
        case EINVAL:
                why = "the kernel takes the range, its alignment or the pages behind it as invalid for this window";
                break;
        case EPERM:
                why = "the kernel does not let this process use the container";
                break;
        case ENXIO:
                why = "the kernel has no window there";
                break;
        case EFAULT:
                why = "the memory is gone: it was truncated";
                break;
        default:
                why = strerrordesc_np(errnum);
                break;
        }
        refuse(r, REFUSAL_BACKEND_REFUSED, "mapping 0x%" PRIx64 " bytes at IOVA 0x%" PRIx64 ": %s", m->length, m->iova, why);
        r->errnum = errnum;
        return -1;
}

static int unmap_range(const struct spapr_container *s, uint64_t iova, uint64_t length) {
        struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof unmap, .iova = iova, .size = length };

        return request(s, VFIO_IOMMU_UNMAP_DMA, &unmap);
}

/* What a failed map may have put there goes again: unmapping a hole is nothing to the kernel. */
static int map_range(const struct spapr_container *s, const struct backend_mapping *m, struct refusal *r) {
        struct vfio_iommu_type1_dma_map map = {
                .argsz = sizeof map,
                .flags = (m->access & BACKEND_ACCESS_READ ? VFIO_DMA_MAP_FLAG_READ : 0U) |
                         (m->access & BACKEND_ACCESS_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0U),
                .vaddr = (uintptr_t)m->vaddr,
                .iova = m->iova,
                .size = m->length,
        };
        int k = request(s, VFIO_IOMMU_MAP_DMA, &map);

        if (k == 0)
                return 0;
        (void)unmap_range(s, m->iova, m->length);
        return refuse_map(m, -k, r);
}

static int check_object(const struct backend_mapping *m, struct refusal *r) {
        uint64_t at = (uintptr_t)m->vaddr - (uintptr_t)m->object_vaddr;

        if (m->object_vaddr && m->vaddr >= m->object_vaddr && m->length <= m->object_length &&
            at <= m->object_length - m->length)
                return 0;
        return refuse(r, REFUSAL_INTERNAL, "a mapping does not lie in its memory object");
}

/* v1 charges the whole window at once, and before the first map. */
static int enable(struct spapr_container *s, struct refusal *r) {
        int k;

        if (s->enabled)
                return 0;
        k = request(s, VFIO_IOMMU_ENABLE, NULL);
        if (k < 0) {
                refuse(r, REFUSAL_BACKEND_REFUSED,
                       "the container cannot be enabled: %s; this kernel's sPAPR (version 1) locks as many bytes as the window "
                       "has, 0x%" PRIx64, strerrordesc_np(-k), s->revocation.initial.size);
                r->errnum = -k;
                return -1;
        }
        s->enabled = true;
        return 0;
}

static int map_v2(struct spapr_container *s, const struct backend_mapping *m, struct mapping *record, struct refusal *r) {
        struct spapr_registration *g;

        if (check_object(m, r) < 0 ||
            spapr_memory_use(&s->revocation.memory, s->vfio.fd, m->object_vaddr, m->object_length, &g, r) < 0)
                return -1;
        if (map_range(s, m, r) < 0) {
                spapr_memory_drop(s->vfio.fd, g);
                return -1;
        }
        record->backend = g;
        return 0;
}

static int spapr_map(struct container *c, const struct backend_mapping *m, struct refusal *r) {
        struct spapr_container *s = spapr_of(c);
        struct mapping *record = mapping_set_find(&c->mappings, (struct iova_range){ m->iova, m->iova });

        if (check_inside(c, m->iova, m->length, r) < 0)
                return -1;
        if (s->revocation.v2)
                return map_v2(s, m, record, r);
        return enable(s, r) < 0 ? -1 : map_range(s, m, r);
}

static int unmap_mapping(struct spapr_container *s, struct mapping *m) {
        int k = unmap_range(s, m->range.first, iova_range_length(m->range));

        if (k < 0) {
                s->dirty = true;
                return k;
        }
        if (m->backend)
                spapr_memory_drop(s->vfio.fd, m->backend);
        m->backend = NULL;
        return 0;
}

static int spapr_unmap(struct container *c, struct iova_range range, struct refusal *r) {
        int k;

        if (check_inside(c, range.first, iova_range_length(range), r) < 0)
                return -1;
        k = unmap_mapping(spapr_of(c), mapping_set_find(&c->mappings, range));
        return k < 0 ? vfio_refuse(r, -k, "unmapping") : 0;
}

/* There is no request for it: each mapping by itself, and on after one that fails. */
static int spapr_unmap_all(struct container *c, struct refusal *r) {
        int first = 0;

        for (struct mapping *m = mapping_set_first(&c->mappings); m; m = mapping_set_next(m)) {
                int k = unmap_mapping(spapr_of(c), m);

                if (k < 0 && first == 0)
                        first = k;
        }
        return first < 0 ? vfio_refuse(r, -first, "unmapping everything") : 0;
}

/* --- windows ------------------------------------------------------------------------------------------------------*/

static int refuse_create(struct spapr_container *s, const struct backend_window *want, int errnum, struct refusal *r) {
        const struct container *c = &s->vfio.base;
        const char *why;

        s->failed_creations++;
        if ((s->failed_creations & (s->failed_creations - 1)) == 0)     /* a client can make as many as it likes */
                log_warning("a window of 0x%" PRIx64 " bytes was not created (%s), failure number %u in this container; the kernel "
                            "may keep locked memory charged for it until the container is closed",
                            want->size, strerrordesc_np(errnum), s->failed_creations);
        if (errnum == ENOSPC) {
                refuse(r, REFUSAL_WINDOW_LIMIT, "the kernel has no room for a window beside the %" PRIu32 " that exist",
                       c->n_windows);
                r->limit = r->used = c->n_windows;
                r->asked = 1;
                r->errnum = errnum;
                return -1;
        }
        switch (errnum) {
        case ENOMEM:
                why = "the kernel has no memory for its table, or that passes the locked-memory limit (RLIMIT_MEMLOCK) of the "
                      "process that maps; a smaller window or larger pages make a smaller table";
                break;
        case EINVAL:
                why = "this platform has no such window; it may be too large, or have too many levels for its size; a smaller "
                      "one, or levels that the service chooses, can be possible";
                break;
        case EPERM:
                why = "the platform does not allow it beside the windows that exist (the initial window can be restored only "
                      "when there is no other)";
                break;
        default:
                why = strerrordesc_np(errnum);
                break;
        }
        refuse(r, REFUSAL_BACKEND_REFUSED, "a window of 0x%" PRIx64 " bytes with pages of 2^%" PRIu32 ": %s", want->size,
               want->page_shift, why);
        r->errnum = errnum;
        return -1;
}

/* The request lies where the revoker finds it: the kernel puts the place into it, also when we die meanwhile. */
static int create(struct spapr_container *s, const struct backend_window *w, uint32_t levels, uint64_t *ret_start) {
        struct vfio_iommu_spapr_tce_create *order = &s->revocation.create;
        int k;

        *order = (struct vfio_iommu_spapr_tce_create){ .argsz = sizeof *order, .page_shift = w->page_shift,
                                                          .window_size = w->size, .levels = levels,
                                                          .start_addr = s->revocation.initial.start };
        k = request(s, VFIO_IOMMU_SPAPR_TCE_CREATE, order);
        *ret_start = order->start_addr;
        return k;
}

static int remove_at(struct spapr_container *s, uint64_t start) {
        struct vfio_iommu_spapr_tce_remove remove = { .argsz = sizeof remove, .start_addr = start };

        return request(s, VFIO_IOMMU_SPAPR_TCE_REMOVE, &remove);
}

/* powernv has tables of several levels, which are small while little is mapped; pseries one. With large host pages and
 * large IOMMU pages the kernel finds two levels too many. */
static int create_with_levels(struct spapr_container *s, const struct backend_window *want, struct backend_window *ret) {
        int k;

        *ret = *want;
        ret->levels = want->levels ? want->levels : s->vfio.base.info.windows.levels_default;
        k = create(s, ret, ret->levels, &ret->start);
        if (k != -EINVAL || want->levels != 0 || ret->levels == 1)
                return k;
        ret->levels = 1;
        return create(s, ret, ret->levels, &ret->start);
}

/* The kernel takes the first free place. When that is the initial window's and another is wanted, it is kept taken by
 * a window like the initial one meanwhile. */
static bool needs_filler(const struct spapr_container *s, const struct backend_window *want, uint64_t got) {
        const struct container *c = &s->vfio.base;

        return want->start != WINDOW_ANYWHERE && want->start != got && got == s->revocation.initial.start &&
               c->n_windows + 2 <= c->info.windows.max_windows;
}

static int create_elsewhere(struct spapr_container *s, const struct backend_window *want, struct backend_window *ret) {
        uint64_t filler;
        int k;

        k = remove_at(s, ret->start);
        if (k == 0)
                k = create(s, &s->revocation.initial, 1, &filler);
        if (k < 0)
                return k;
        k = create_with_levels(s, want, ret);
        if (remove_at(s, filler) < 0)
                log_error("a window at 0x%" PRIx64 " that kept a place taken cannot be removed", filler);
        return k;
}

static int spapr_window_create(struct container *c, const struct backend_window *want, struct backend_window *ret,
                               struct refusal *r) {
        struct spapr_container *s = spapr_of(c);
        struct backend_window made;
        int k = create_with_levels(s, want, &made);

        if (k == 0 && needs_filler(s, want, made.start))
                k = create_elsewhere(s, want, &made);
        if (k < 0)
                return refuse_create(s, want, -k, r);
        if (!spapr_revocation_add(&s->revocation, made.start)) {
                (void)remove_at(s, made.start);
                return refuse(r, REFUSAL_BACKEND_REFUSED, "the kernel has put windows at more than %u places; no more can be "
                              "taken back if this process dies", SPAPR_PLACES_MAX);
        }
        *ret = made;
        return 0;
}

static int spapr_window_remove(struct container *c, const struct backend_window *w, struct refusal *r) {
        int k;

        if (!spapr_of(c)->revocation.v2)
                return refuse(r, REFUSAL_UNSUPPORTED, "this kernel's sPAPR (version 1) has one window, which stays");
        k = remove_at(spapr_of(c), w->start);
        return k < 0 ? vfio_refuse(r, -k, "removing a window") : 0;
}

/* --- container ----------------------------------------------------------------------------------------------------*/

static int info_get(struct spapr_container *s, struct container_info *ret, struct refusal *r) {
        struct vfio_iommu_spapr_tce_info info = { .argsz = sizeof info };
        struct window_caps *w = &ret->windows;
        int k = request(s, VFIO_IOMMU_SPAPR_TCE_GET_INFO, &info);

        if (k < 0)
                return vfio_refuse(r, -k, "the IOMMU of the container cannot be asked for its windows");
        if (info.dma32_window_size == 0)
                return refuse(r, REFUSAL_UNSUPPORTED, "the IOMMU of the container says that it has no window");
        *ret = (struct container_info){ .page_sizes = UINT64_C(1) << INITIAL_PAGE_SHIFT, .max_mappings = UINT32_MAX };
        w->max_windows = w->levels_max = w->levels_default = 1;
        w->initial = (struct backend_window){ .start = info.dma32_window_start, .size = info.dma32_window_size,
                                              .page_shift = INITIAL_PAGE_SHIFT, .levels = 1 };
        ret->n_ranges = 1;
        ret->ranges[0] = window_range(&w->initial);
        if (!s->revocation.v2 || !(info.flags & VFIO_IOMMU_SPAPR_INFO_DDW) || info.ddw.pgsizes == 0)
                return 0;
        ret->ranges[0] = (struct iova_range){ 0, UINT64_MAX };  /* the kernel chooses the place, and does not say which */
        ret->page_sizes |= info.ddw.pgsizes;
        w->page_sizes = info.ddw.pgsizes;
        w->largest = LARGEST_WINDOW;
        if (info.ddw.max_dynamic_windows_supported > 1)
                w->max_windows = info.ddw.max_dynamic_windows_supported < BACKEND_WINDOWS_MAX
                                         ? info.ddw.max_dynamic_windows_supported : BACKEND_WINDOWS_MAX;
        if (info.ddw.levels > 1) {
                w->levels_max = info.ddw.levels;
                w->levels_default = 2;
        }
        return 0;
}

static void spapr_free(struct container *c) {
        struct spapr_container *s = spapr_of(c);
        bool empty = !s->dirty || spapr_revocation_do(&s->revocation);

        if (!empty)
                log_error("closing an sPAPR container of which a window cannot be removed");
        else            /* what could not be unregistered when it should have been */
                (void)spapr_memory_abandon(&s->revocation.memory, s->vfio.fd);
        s->revoker = spapr_revoker_stop(s->revoker, empty);
        spapr_memory_free(&s->revocation.memory);
        if (s->enabled)
                (void)request(s, VFIO_IOMMU_DISABLE, NULL);
        vfio_container_free(c);
}

static int finish_open(struct spapr_container *s, bool v2, struct refusal *r) {
        struct spapr_revocation *revocation = &s->revocation;

        revocation->container_fd = s->vfio.fd;
        revocation->v2 = v2;
        if (info_get(s, &s->vfio.base.info, r) < 0)
                return -1;
        revocation->initial = s->vfio.base.info.windows.initial;
        revocation->create.start_addr = revocation->initial.start;
        return spapr_revoker_start(revocation, &s->revoker, r);
}

static int spapr_open(struct backend_open *o, struct container **ret, struct refusal *r) {
        bool v2 = o->container_fd >= 0 &&
                  vfio_ioctl(o->container_fd, VFIO_CHECK_EXTENSION, (void *)(uintptr_t)VFIO_SPAPR_TCE_v2_IOMMU) > 0;
        struct vfio_container *v;

        if (vfio_container_new(o, sizeof(struct spapr_container), v2 ? VFIO_SPAPR_TCE_v2_IOMMU : VFIO_SPAPR_TCE_IOMMU, &v, r) < 0)
                return -1;
        if (finish_open(spapr_of(&v->base), v2, r) < 0) {
                spapr_free(&v->base);
                return -1;
        }
        *ret = &v->base;
        return 0;
}

static int spapr_revoker_fd(struct container *c, int *ret_fd, struct refusal *r) {
        int fd = fcntl(spapr_revoker_status_fd(spapr_of(c)->revoker), F_DUPFD_CLOEXEC, 3);

        if (fd < 0)
                return refuse(r, REFUSAL_INTERNAL, "the fd of a container's revoker cannot be duplicated: %s",
                              strerrordesc_np(errno));
        *ret_fd = fd;
        return 0;
}

const struct backend_ops vfio_spapr_ops = {
        .name = "vfio-spapr",
        .open = spapr_open,
        .close = spapr_free,
        .map = spapr_map,
        .unmap = spapr_unmap,
        .unmap_all = spapr_unmap_all,
        .window_create = spapr_window_create,
        .window_remove = spapr_window_remove,
        .revoker_fd = spapr_revoker_fd,
        .device_open = vfio_device_open,
        .device_close = vfio_device_close,
        .device_keeper_fd = vfio_device_keeper_fd,
        .device_client_fd = vfio_device_client_fd,
};
