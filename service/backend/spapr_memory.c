/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/spapr_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backend/vfio_container.h"
#include "util/log.h"

/* Success is 0 and nothing else. A positive answer is how many pages could be pinned before one could not be (seen on
 * pseries): they are not any more. 0 or -errno. */
static int request(int fd, unsigned long what, uint64_t vaddr, uint64_t size) {
        struct vfio_iommu_spapr_register_memory m = { .argsz = sizeof m, .vaddr = vaddr, .size = size };
        int k = vfio_ioctl(fd, what, &m);

        return k > 0 ? -EFAULT : k;
}

static int refuse_register(uint64_t size, int errnum, struct refusal *r) {
        const char *why;

        switch (errnum) {
        case ENOMEM:
                why = "the kernel has no memory for it, or it passes the locked-memory limit (RLIMIT_MEMLOCK) of the process "
                      "that maps; sPAPR locks a memory object as a whole";
                break;
        case EFAULT:
                why = "it cannot be pinned: it was truncated, or it is read-only, which sPAPR cannot register";
                break;
        case EBUSY:
        case EINVAL:
                why = "the kernel has it, or a part of it, registered already";
                break;
        default:
                why = strerrordesc_np(errnum);
                break;
        }
        refuse(r, REFUSAL_BACKEND_REFUSED, "registering a memory object of 0x%" PRIx64 " bytes: %s", size, why);
        r->errnum = errnum;
        return -1;
}

static struct spapr_registration *find(struct spapr_memory *m, uint64_t vaddr, uint64_t size) {
        struct spapr_registration *g = atomic_load(&m->first);

        while (g && (atomic_load(&g->size) != size || (size > 0 && atomic_load(&g->vaddr) != vaddr)))
                g = g->next;
        return g;
}

static struct spapr_registration *take_free(struct spapr_memory *m) {
        struct spapr_registration *g = find(m, 0, 0);

        if (g)
                return g;
        g = calloc(1, sizeof *g);
        if (!g)
                return NULL;
        g->next = atomic_load(&m->first);
        atomic_store(&m->first, g);
        return g;
}

int spapr_memory_use(struct spapr_memory *m, int container_fd, const void *vaddr, uint64_t length,
                     struct spapr_registration **ret, struct refusal *r) {
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), size = (length + page - 1) & ~(page - 1);
        struct spapr_registration *g = find(m, (uintptr_t)vaddr, size);
        int k;

        if (!g) {
                g = take_free(m);
                if (!g)
                        return refuse(r, REFUSAL_INTERNAL, "no memory for the record of a registration");
                atomic_store(&g->vaddr, (uintptr_t)vaddr);
                atomic_store(&g->size, size);   /* before the kernel has it: it may be the last thing that we do */
                k = request(container_fd, VFIO_IOMMU_SPAPR_REGISTER_MEMORY, (uintptr_t)vaddr, size);
                if (k < 0) {
                        atomic_store(&g->size, 0);
                        return refuse_register(size, -k, r);
                }
        }
        g->users++;
        *ret = g;
        return 0;
}

/* ENOENT: the kernel does not have it, which is what was wanted. */
static int unregister(int container_fd, struct spapr_registration *g) {
        int k = request(container_fd, VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY, atomic_load(&g->vaddr), atomic_load(&g->size));

        if (k < 0 && k != -ENOENT)
                return k;
        atomic_store(&g->size, 0);
        return 0;
}

/* One that cannot be unregistered keeps its size: the next mapping of the object finds it registered. */
void spapr_memory_drop(int container_fd, struct spapr_registration *g) {
        int k;

        if (--g->users > 0)
                return;
        k = unregister(container_fd, g);
        if (k < 0)
                log_error("0x%" PRIx64 " bytes of memory cannot be unregistered and stay pinned until the container is closed: %s",
                          (uint64_t)atomic_load(&g->size), strerrordesc_np(-k));
}

int spapr_memory_abandon(struct spapr_memory *m, int container_fd) {
        int first = 0;

        for (struct spapr_registration *g = atomic_load(&m->first); g; g = g->next) {
                int k = atomic_load(&g->size) > 0 ? unregister(container_fd, g) : 0;

                if (k < 0 && first == 0)
                        first = k;
        }
        return first;
}

void spapr_memory_free(struct spapr_memory *m) {
        struct spapr_registration *g = atomic_load(&m->first), *next;

        atomic_store(&m->first, NULL);
        for (; g; g = next) {
                next = g->next;
                free(g);
        }
}
