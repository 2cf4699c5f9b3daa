/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/vfio_container.h"
#include "util/cleanup.h"

/*
 * VFIO type1 (version 2: an unmap never splits a mapping).
 */

/* Far more than IOVA_RANGES_MAX ranges and every capability there is. */
#define INFO_SIZE_MAX 65536U

/* --- what the IOMMU can do ----------------------------------------------------------------------------------------*/

/* VFIO_IOMMU_GET_INFO with its capabilities. *ret is the caller's to free. 0 or -errno. */
static int info_get(int fd, struct vfio_iommu_type1_info **ret) {
        uint32_t size = sizeof(struct vfio_iommu_type1_info);

        for (;;) {
                struct vfio_iommu_type1_info *info = calloc(1, size);
                int k;

                if (!info)
                        return -ENOMEM;
                info->argsz = size;
                k = vfio_ioctl(fd, VFIO_IOMMU_GET_INFO, info);
                if (k == 0 && info->argsz <= size) {
                        *ret = info;
                        return 0;
                }
                size = info->argsz;
                free(info);
                if (k != 0)
                        return k < 0 ? k : -EIO;
                if (size > INFO_SIZE_MAX)
                        return -E2BIG;
        }
}

/* The first capability with this id that is at least min bytes long, NULL if there is none. Offsets must rise, so that
 * a circle ends. *ret_room: bytes from the capability to the end of the answer. */
static const void *info_capability(const struct vfio_iommu_type1_info *info, uint16_t id, size_t min,
                                   size_t *ret_room) {
        uint32_t offset = info->flags & VFIO_IOMMU_INFO_CAPS ? info->cap_offset : 0, previous = 0;

        while (offset > previous && offset <= info->argsz &&
               info->argsz - offset >= sizeof(struct vfio_info_cap_header)) {
                const struct vfio_info_cap_header *h = (const void *)((const char *)info + offset);

                if (h->id == id && info->argsz - offset >= min) {
                        *ret_room = info->argsz - offset;
                        return h;
                }
                previous = offset;
                offset = h->next;
        }
        return NULL;
}

/* The minimum that counts is the host's page: type1 pins whole ones, whatever smaller pages the IOMMU knows. */
static uint64_t info_page_sizes(const struct vfio_iommu_type1_info *info) {
        uint64_t host_page = (uint64_t)sysconf(_SC_PAGESIZE);
        uint64_t sizes = info->flags & VFIO_IOMMU_INFO_PGSIZES ? info->iova_pgsizes : host_page;

        if (sizes & (host_page - 1))
                sizes = (sizes & ~(host_page - 1)) | host_page;
        return sizes;
}

static void info_ranges(const struct vfio_iommu_type1_info *info, struct container_info *ret) {
        const struct vfio_iommu_type1_info_cap_iova_range *cap;
        size_t room;

        cap = info_capability(info, VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, sizeof *cap, &room);
        if (!cap) {             /* before Linux 5.4 only the map itself tells */
                ret->ranges[ret->n_ranges++] = (struct iova_range){ 0, UINT64_MAX };
                return;
        }
        room = (room - sizeof *cap) / sizeof cap->iova_ranges[0];
        for (size_t i = 0; i < cap->nr_iovas && i < room && ret->n_ranges < IOVA_RANGES_MAX; i++)
                ret->ranges[ret->n_ranges++] =
                        (struct iova_range){ cap->iova_ranges[i].start, cap->iova_ranges[i].end };
}

static void info_translate(const struct vfio_iommu_type1_info *info, struct container_info *ret) {
        const struct vfio_iommu_type1_info_dma_avail *cap;
        size_t room;

        *ret = (struct container_info){ .page_sizes = info_page_sizes(info), .max_mappings = UINT32_MAX };
        info_ranges(info, ret);
        cap = info_capability(info, VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, sizeof *cap, &room);
        if (cap)
                ret->max_mappings = cap->avail; /* nothing is mapped yet: what is available is all there is */
}

static int type1_open(struct backend_open *o, struct container **ret, struct refusal *r) {
        _cleanup_free_ struct vfio_iommu_type1_info *info = NULL;
        struct vfio_container *v;
        int k;

        if (vfio_container_new(o, sizeof *v, VFIO_TYPE1v2_IOMMU, &v, r) < 0)
                return -1;
        k = info_get(v->fd, &info);
        if (k < 0) {
                vfio_refuse(r, -k, "the IOMMU of the container cannot be asked for its limits");
                vfio_container_free(&v->base);
                return -1;
        }
        /* The broker revokes with UNMAP ALL (I12): without it there would be translations that nobody can take back. */
        if (vfio_ioctl(v->fd, VFIO_CHECK_EXTENSION, (void *)(uintptr_t)VFIO_UNMAP_ALL) <= 0) {
                vfio_container_free(&v->base);
                return refuse(r, REFUSAL_UNSUPPORTED,
                              "this kernel's VFIO has no UNMAP ALL (Linux 5.12 or newer is needed)");
        }
        info_translate(info, &v->base.info);
        *ret = &v->base;
        return 0;
}

/* --- mappings -----------------------------------------------------------------------------------------------------*/

static int refuse_map(const struct container *c, const struct backend_mapping *m, int errnum, struct refusal *r) {
#define WHAT "mapping 0x%" PRIx64 " bytes at IOVA 0x%" PRIx64 ": "
        switch (errnum) {
        case ENOMEM:
                refuse(r, REFUSAL_BACKEND_REFUSED,
                       WHAT "the kernel has no memory for it, or it passes the locked-memory limit (RLIMIT_MEMLOCK) of "
                            "the process that maps",
                       m->length, m->iova);
                break;
        case ENOSPC:
                refuse(r, REFUSAL_LIMIT_EXCEEDED,
                       WHAT "the container's budget of %" PRIu32
                            " mappings is used up (vfio_iommu_type1.dma_entry_limit)",
                       m->length, m->iova, c->info.max_mappings);
                r->resource = RESOURCE_MAPPINGS;
                r->limit = c->info.max_mappings;
                r->used = c->mappings.count - 1;        /* without the record of this one */
                r->asked = 1;
                break;
        case EEXIST:
                refuse(r, REFUSAL_OVERLAP, WHAT "the kernel has a mapping there that is not ours", m->length, m->iova);
                break;
        case EFAULT:
                refuse(r, REFUSAL_BACKEND_REFUSED,
                       WHAT "the memory cannot be pinned: it was truncated, or may not be accessed in this way",
                       m->length, m->iova);
                break;
        case EPERM:
        case EACCES:
                refuse(r, REFUSAL_BACKEND_REFUSED, WHAT "the kernel does not permit it", m->length, m->iova);
                break;
        case EINVAL:
                refuse(r, REFUSAL_BACKEND_REFUSED,
                       WHAT "the kernel takes the range, its alignment or its access as invalid for this IOMMU",
                       m->length, m->iova);
                break;
        default:
                refuse(r, REFUSAL_BACKEND_REFUSED, WHAT "%s", m->length, m->iova, strerrordesc_np(errnum));
                break;
        }
#undef WHAT
        r->errnum = errnum;
        return -1;
}

static int type1_map(struct container *c, const struct backend_mapping *m, struct refusal *r) {
        struct vfio_iommu_type1_dma_map map = {
                .argsz = sizeof map,
                .flags = (m->access & BACKEND_ACCESS_READ ? VFIO_DMA_MAP_FLAG_READ : 0U) |
                         (m->access & BACKEND_ACCESS_WRITE ? VFIO_DMA_MAP_FLAG_WRITE : 0U),
                .vaddr = (uintptr_t)m->vaddr,
                .iova = m->iova,
                .size = m->length,
        };
        int k = vfio_ioctl(vfio_container_of(c)->fd, VFIO_IOMMU_MAP_DMA, &map);

        return k == 0 ? 0 : refuse_map(c, m, k < 0 ? -k : EIO, r);
}

static int type1_unmap(struct container *c, struct iova_range range, struct refusal *r) {
        uint64_t length = iova_range_length(range);
        struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof unmap, .iova = range.first, .size = length };
        int k = vfio_ioctl(vfio_container_of(c)->fd, VFIO_IOMMU_UNMAP_DMA, &unmap);

        if (k != 0)
                return vfio_refuse(r, k < 0 ? -k : EIO, "unmapping");
        if (unmap.size == length)
                return 0;
        refuse(r, REFUSAL_BACKEND_REFUSED,
               "unmapping 0x%" PRIx64 " bytes at IOVA 0x%" PRIx64 ": the kernel says that it unmapped 0x%" PRIx64,
               length, range.first, (uint64_t)unmap.size);
        r->asked = length;
        r->used = unmap.size;
        return -1;
}

static int type1_unmap_all(struct container *c, struct refusal *r) {
        struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof unmap, .flags = VFIO_DMA_UNMAP_FLAG_ALL };
        int k = vfio_ioctl(vfio_container_of(c)->fd, VFIO_IOMMU_UNMAP_DMA, &unmap);

        return k == 0 ? 0 : vfio_refuse(r, k < 0 ? -k : EIO, "unmapping everything");
}

const struct backend_ops vfio_type1_ops = {
        .name = "vfio-type1",
        .open = type1_open,
        .close = vfio_container_free,
        .map = type1_map,
        .unmap = type1_unmap,
        .unmap_all = type1_unmap_all,
        .device_open = vfio_device_open,
        .device_close = vfio_device_close,
        .device_keeper_fd = vfio_device_keeper_fd,
        .device_client_fd = vfio_device_client_fd,
};
