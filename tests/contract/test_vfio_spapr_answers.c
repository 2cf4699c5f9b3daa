/* SPDX-License-Identifier: Apache-2.0 */
/* link: backend util */
/*
 * What becomes of the kernel's answers on sPAPR, those included that hardware never gives on demand: this program's
 * ioctl() is a kernel that plays what was seen on pseries and powernv, and what a test wrote down. It is also the judge:
 * what the kernel does not survive (a map across a window's end, memory that is unregistered while it is mapped) fails the
 * test at once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/backend_ops.h"
#include "backend/revoke.h"
#include "children.h"
#include "util/cleanup.h"

#define K UINT64_C(1024)
#define M (K * K)
#define G (K * M)
#define HIGH UINT64_C(0x800000000000000)
#define OBJECT ((uint8_t *)0x7f0000000000)      /* never touched */
#define OBJECT_SIZE (16 * M)

/* --- the kernel ---------------------------------------------------------------------------------------------------*/

struct window {
        uint64_t start, size;
        uint32_t shift, levels;
        bool used;
};

struct translation {
        uint64_t iova, size, vaddr;
};

struct registered {
        uint64_t vaddr, size;
};

static struct kernel {
        int has_v1, has_v2, get_info, enable, disable, create, remove, map, unmap, do_register, unregister;     /* 0 or answer */
        bool create_fails_with_two_levels;
        struct vfio_iommu_spapr_tce_info info;
        unsigned long iommu_type;
        struct window windows[2];
        struct translation mapped[64];
        struct registered registered[64];
        unsigned n_mapped, n_registered, n_create, n_register, n_unregister, n_enable;
        struct vfio_iommu_type1_dma_map last_map;
        struct vfio_iommu_spapr_tce_create last_create;
        bool enabled, dead;             /* dead: it oopsed or leaked; the test has failed */
        char why[128];
} kernel;

static int dies(const char *why) {
        kernel.dead = true;
        (void)snprintf(kernel.why, sizeof kernel.why, "%s", why);
        return -EIO;
}

static struct window *window_at(uint64_t iova) {
        for (unsigned i = 0; i < ARRAY_SIZE(kernel.windows); i++)
                if (kernel.windows[i].used && iova >= kernel.windows[i].start &&
                    iova - kernel.windows[i].start < kernel.windows[i].size)
                        return &kernel.windows[i];
        return NULL;
}

static int do_map(const struct vfio_iommu_type1_dma_map *m) {
        const struct window *w = window_at(m->iova);

        kernel.last_map = *m;
        if (kernel.map)
                return kernel.map;
        if (kernel.n_register == 0 && kernel.iommu_type == VFIO_SPAPR_TCE_v2_IOMMU)
                return -EPERM;
        if (kernel.iommu_type == VFIO_SPAPR_TCE_IOMMU && !kernel.enabled)
                return -EPERM;
        if (!w)
                return -ENXIO;
        if (m->size > w->size - (m->iova - w->start))
                return dies("a map across a window's end");
        if (m->size == 0)
                return dies("a map of no bytes");
        if (m->iova & ((UINT64_C(1) << w->shift) - 1))
                return 1;
        for (unsigned i = 0; i < kernel.n_mapped; i++)
                if (m->iova < kernel.mapped[i].iova + kernel.mapped[i].size && kernel.mapped[i].iova < m->iova + m->size)
                        return dies("a map over a map");
        kernel.mapped[kernel.n_mapped++] = (struct translation){ m->iova, m->size, m->vaddr };
        return 0;
}

static int do_unmap(const struct vfio_iommu_type1_dma_unmap *m) {
        const struct window *w = window_at(m->iova);

        if (kernel.unmap)
                return kernel.unmap;
        if (m->flags)
                return -EINVAL;
        if (!w)
                return -ENXIO;
        if (m->size == 0 || m->size > w->size - (m->iova - w->start))
                return dies("an unmap past a window's end");
        for (unsigned i = kernel.n_mapped; i-- > 0;)
                if (kernel.mapped[i].iova >= m->iova && kernel.mapped[i].iova - m->iova < m->size)
                        kernel.mapped[i] = kernel.mapped[--kernel.n_mapped];
        return 0;
}

static int do_register(const struct vfio_iommu_spapr_register_memory *m) {
        kernel.n_register++;
        if (kernel.do_register)
                return kernel.do_register;
        for (unsigned i = 0; i < kernel.n_registered; i++) {
                if (kernel.registered[i].vaddr == m->vaddr && kernel.registered[i].size == m->size)
                        return -EBUSY;
                if (m->vaddr < kernel.registered[i].vaddr + kernel.registered[i].size &&
                    kernel.registered[i].vaddr < m->vaddr + m->size)
                        return -EINVAL;
        }
        if (m->size == 0 || (m->vaddr | m->size) & ((uint64_t)sysconf(_SC_PAGESIZE) - 1))
                return -EINVAL;
        kernel.registered[kernel.n_registered++] = (struct registered){ m->vaddr, m->size };
        return 0;
}

static int do_unregister(const struct vfio_iommu_spapr_register_memory *m) {
        kernel.n_unregister++;
        if (kernel.unregister)
                return kernel.unregister;
        for (unsigned i = 0; i < kernel.n_mapped; i++)
                if (kernel.mapped[i].vaddr >= m->vaddr && kernel.mapped[i].vaddr - m->vaddr < m->size)
                        return dies("memory that is mapped was unregistered");
        for (unsigned i = 0; i < kernel.n_registered; i++)
                if (kernel.registered[i].vaddr == m->vaddr && kernel.registered[i].size == m->size) {
                        kernel.registered[i] = kernel.registered[--kernel.n_registered];
                        return 0;
                }
        return -ENOENT;
}

/* The first free place: the low one, then the high one. */
static int do_create(struct vfio_iommu_spapr_tce_create *c) {
        unsigned i = kernel.windows[0].used ? 1 : 0;

        kernel.n_create++;
        kernel.last_create = *c;
        if (kernel.create)
                return kernel.create;
        if (c->flags || c->levels == 0 || c->levels > kernel.info.ddw.levels || (c->window_size & (c->window_size - 1)) ||
            !(kernel.info.ddw.pgsizes >> c->page_shift & 1) || (kernel.create_fails_with_two_levels && c->levels == 2))
                return -EINVAL;
        if (c->window_size == 0)
                return dies("a window of size 0");
        if (kernel.windows[i].used)
                return -ENOSPC;
        kernel.windows[i] = (struct window){ i ? HIGH : 0, c->window_size, c->page_shift, c->levels, true };
        c->start_addr = kernel.windows[i].start;
        return 0;
}

static int do_remove(const struct vfio_iommu_spapr_tce_remove *m) {
        if (kernel.remove)
                return kernel.remove;
        for (unsigned i = 0; i < ARRAY_SIZE(kernel.windows); i++)
                if (kernel.windows[i].used && kernel.windows[i].start == m->start_addr) {
                        for (unsigned n = kernel.n_mapped; n-- > 0;)
                                if (window_at(kernel.mapped[n].iova) == &kernel.windows[i])
                                        kernel.mapped[n] = kernel.mapped[--kernel.n_mapped];
                        kernel.windows[i].used = false;
                        return 0;
                }
        return -EINVAL;
}

static int do_info(struct vfio_iommu_spapr_tce_info *info) {
        const uint32_t argsz = info->argsz;

        if (argsz < offsetof(struct vfio_iommu_spapr_tce_info, ddw))
                return -EINVAL;
        memcpy(info, &kernel.info, argsz < sizeof *info ? argsz : sizeof *info);
        info->argsz = argsz;
        return kernel.get_info;
}

static int perform(unsigned long request, void *p) {
        switch (request) {
        case VFIO_GET_API_VERSION:
                return VFIO_API_VERSION;
        case VFIO_CHECK_EXTENSION:
                return (unsigned long)p == VFIO_SPAPR_TCE_v2_IOMMU ? kernel.has_v2
                       : (unsigned long)p == VFIO_SPAPR_TCE_IOMMU  ? kernel.has_v1 : 0;
        case VFIO_GROUP_GET_STATUS:
                ((struct vfio_group_status *)p)->flags = VFIO_GROUP_FLAGS_VIABLE;
                return 0;
        case VFIO_GROUP_SET_CONTAINER:
                return 0;
        case VFIO_SET_IOMMU:
                kernel.iommu_type = (unsigned long)p;
                return 0;
        case VFIO_IOMMU_SPAPR_TCE_GET_INFO:     /* has the number of VFIO_IOMMU_GET_INFO, on another type of container */
                return do_info(p);
        case VFIO_IOMMU_ENABLE:
                kernel.n_enable++;
                kernel.enabled = kernel.enable == 0;
                return kernel.enable;
        case VFIO_IOMMU_DISABLE:
                kernel.enabled = false;
                return kernel.disable;
        case VFIO_IOMMU_MAP_DMA:
                return do_map(p);
        case VFIO_IOMMU_UNMAP_DMA:
                return do_unmap(p);
        case VFIO_IOMMU_SPAPR_REGISTER_MEMORY:
                return do_register(p);
        case VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY:
                return do_unregister(p);
        case VFIO_IOMMU_SPAPR_TCE_CREATE:
                return do_create(p);
        case VFIO_IOMMU_SPAPR_TCE_REMOVE:
                return do_remove(p);
        default:
                return -ENOTTY;
        }
}

int ioctl(int fd, unsigned long request, ...) {
        va_list args;
        void *p;
        int k;

        (void)fd;
        va_start(args, request);
        p = va_arg(args, void *);
        va_end(args);
        k = perform(request, p);
        if (k >= 0)
                return k;
        errno = -k;
        return -1;
}

static void boot(uint64_t dma32_size, uint64_t pgsizes, uint32_t levels) {
        kernel = (struct kernel){ .has_v1 = 1, .has_v2 = 1,
                                  .info = { .flags = VFIO_IOMMU_SPAPR_INFO_DDW, .dma32_window_size = (uint32_t)dma32_size,
                                            .ddw = { .pgsizes = pgsizes, .max_dynamic_windows_supported = 2, .levels = levels } },
                                  .windows = { { 0, dma32_size, 12, 1, true } } };
}

static int boot_pseries(void **state) {
        (void)state;
        boot(G, 0x1211000, 1);
        return 0;
}

static int judge(void **state) {
        (void)state;
        if (kernel.dead)
                fail_msg("the kernel would not have survived: %s", kernel.why);
        /* no process is left behind, as none or as a zombie */
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
        assert_int_equal(errno, ECHILD);
        return kernel.dead;
}

/* --- helpers ------------------------------------------------------------------------------------------------------*/

static int try_open(struct container **ret, struct refusal *r) {
        struct backend_open o = { .kind = BACKEND_VFIO_SPAPR, .container_fd = eventfd(0, 0), .group_fd = eventfd(0, 0) };
        int fds[2] = { o.container_fd, o.group_fd };
        int k = container_open(&o, ret, r);

        assert_int_equal(o.container_fd, -1);
        assert_int_equal(o.group_fd, -1);
        for (int i = 0; i < 2; i++)     /* owned by the container, or closed */
                assert_int_equal(fcntl(fds[i], F_GETFD) >= 0, k == 0);
        return k;
}

static struct container *open_container(void) {
        struct container *c;
        struct refusal r;

        if (try_open(&c, &r) < 0)
                fail_msg("%s", r.text);
        return c;
}

static struct backend_mapping mapping(uint64_t iova, uint64_t length, uint64_t offset) {
        return (struct backend_mapping){ .iova = iova, .length = length, .vaddr = OBJECT + offset, .fd = -1, .offset = offset,
                                         .access = 3, .memory_page = 64 * K, .object_vaddr = OBJECT,
                                         .object_length = OBJECT_SIZE };
}

static enum refusal_reason map_at(struct container *c, uint64_t iova, uint64_t length, uint64_t offset, struct refusal *r) {
        struct backend_mapping m = mapping(iova, length, offset);

        return container_map(c, &m, r) == 0 ? REFUSAL_NONE : r->reason;
}

static enum refusal_reason create(struct container *c, uint64_t start, uint64_t size, uint32_t shift, uint32_t levels,
                                  struct backend_window *ret, struct refusal *r) {
        struct backend_window want = { start, size, shift, levels };

        return container_window_create(c, &want, ret, r) == 0 ? REFUSAL_NONE : r->reason;
}

static size_t count_windows(const struct container *c) {
        struct backend_window w[BACKEND_WINDOWS_MAX];

        return container_windows(c, w);
}

/* --- opening ------------------------------------------------------------------------------------------------------*/

static void windows_are_those_of_the_platform(void **state) {
        static const struct { uint64_t dma32, pgsizes; uint32_t levels, levels_default; } platforms[] = {
                { G, 0x1211000, 1, 1 },         /* pseries */
                { 2 * G, 0x40211000, 5, 2 },    /* powernv */
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(platforms); i++) {
                struct container_info info;
                struct container *c;

                boot(platforms[i].dma32, platforms[i].pgsizes, platforms[i].levels);
                c = open_container();
                container_info(c, &info);
                assert_int_equal(kernel.iommu_type, VFIO_SPAPR_TCE_v2_IOMMU);
                assert_int_equal(info.page_sizes, platforms[i].pgsizes);
                assert_int_equal(info.windows.page_sizes, platforms[i].pgsizes);
                assert_int_equal(info.windows.largest, UINT64_C(0x80000000) * 4096);
                assert_int_equal(info.windows.max_windows, 2);
                assert_int_equal(info.windows.levels_max, platforms[i].levels);
                assert_int_equal(info.windows.levels_default, platforms[i].levels_default);
                assert_int_equal(info.windows.initial.start, 0);
                assert_int_equal(info.windows.initial.size, platforms[i].dma32);
                assert_int_equal(info.windows.initial.page_shift, 12);
                assert_int_equal(count_windows(c), 1);
                container_close(c);
        }
}

static void every_failure_of_opening_has_its_reason_and_closes_both_fds(void **state) {
        struct container *c = NULL;
        struct refusal r;

        kernel.get_info = -ENXIO;
        assert_int_equal(try_open(&c, &r), -1);
        assert_int_equal(r.reason, REFUSAL_BACKEND_REFUSED);
        assert_int_equal(r.errnum, ENXIO);
        boot_pseries(state);
        kernel.get_info = 1;
        assert_int_equal(try_open(&c, &r), -1);
        assert_int_equal(r.errnum, EIO);
        boot_pseries(state);
        kernel.info.dma32_window_size = 0;
        assert_int_equal(try_open(&c, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNSUPPORTED);
        assert_null(c);
}

static void without_dynamic_windows_there_is_the_initial_one(void **state) {
        struct backend_window w;
        struct container_info info;
        struct container *c;
        struct refusal r;

        (void)state;
        kernel.info.flags = 0;
        c = open_container();
        container_info(c, &info);
        assert_int_equal(info.windows.max_windows, 1);
        assert_int_equal(info.windows.page_sizes, 0);
        assert_int_equal(map_at(c, 0x10000, 4 * K, 0, &r), REFUSAL_NONE);
        assert_int_equal(create(c, WINDOW_ANYWHERE, G, 16, 0, &w, &r), REFUSAL_WINDOW_PAGE);
        assert_int_equal(kernel.n_create, 0);
        container_close(c);
}

/* --- version 1 ----------------------------------------------------------------------------------------------------*/

static void version_1_enables_once_registers_nothing_and_has_one_window(void **state) {
        struct backend_window w;
        struct container *c;
        struct refusal r;

        (void)state;
        kernel.has_v2 = 0;
        c = open_container();
        assert_int_equal(kernel.iommu_type, VFIO_SPAPR_TCE_IOMMU);
        assert_int_equal(kernel.n_enable, 0);
        assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_NONE);
        assert_int_equal(map_at(c, 64 * K, 4 * K, 0, &r), REFUSAL_NONE);
        assert_int_equal(kernel.n_enable, 1);
        assert_int_equal(kernel.n_register, 0);
        assert_int_equal(container_unmap(c, 0, 4 * K, &r), 0);
        assert_int_equal(container_unmap_all(c, &r), 0);
        assert_int_equal(kernel.n_mapped, 0);
        assert_int_equal(create(c, WINDOW_ANYWHERE, G, 16, 0, &w, &r), REFUSAL_WINDOW_PAGE);
        assert_int_equal(container_window_remove(c, 0, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNSUPPORTED);
        assert_int_equal(container_windows_reset(c, &r), 0);
        container_close(c);
        assert_false(kernel.enabled);
}

static void version_1_says_that_the_whole_window_is_charged(void **state) {
        struct container *c;
        struct refusal r;

        (void)state;
        kernel.has_v2 = 0;
        kernel.enable = -ENOMEM;
        c = open_container();
        assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_BACKEND_REFUSED);
        assert_int_equal(r.errnum, ENOMEM);
        assert_non_null(strstr(r.text, "0x40000000"));
        container_close(c);
}

/* --- memory -------------------------------------------------------------------------------------------------------*/

static void an_object_is_registered_once_and_until_its_last_mapping(void **state) {
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_NONE);
        assert_int_equal(map_at(c, 64 * K, 64 * K, 0, &r), REFUSAL_NONE);       /* the same memory again */
        assert_int_equal(map_at(c, w.start, 64 * K, 64 * K, &r), REFUSAL_NONE); /* and in another window */
        assert_int_equal(kernel.n_register, 1);
        assert_int_equal(kernel.registered[0].vaddr, (uintptr_t)OBJECT);
        assert_int_equal(kernel.registered[0].size, OBJECT_SIZE);
        assert_int_equal(container_unmap(c, 0, 4 * K, &r), 0);
        assert_int_equal(container_unmap(c, w.start, 64 * K, &r), 0);
        assert_int_equal(kernel.n_unregister, 0);
        assert_int_equal(container_unmap(c, 64 * K, 64 * K, &r), 0);
        assert_int_equal(kernel.n_unregister, 1);
        assert_int_equal(kernel.n_registered, 0);
        assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_NONE);
        assert_int_equal(kernel.n_register, 2);
        container_close(c);
        assert_int_equal(kernel.n_registered, 0);
        assert_int_equal(kernel.n_mapped, 0);
}

static void objects_are_registered_each_by_itself(void **state) {
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        for (uint64_t i = 0; i < 10; i++) {
                struct backend_mapping m = mapping(i * 64 * K, 64 * K, 0);

                m.object_vaddr = OBJECT + i * OBJECT_SIZE;
                m.vaddr = OBJECT + i * OBJECT_SIZE;
                m.object_length = 64 * K + 1;           /* as the file says; a mapping has whole pages */
                assert_int_equal(container_map(c, &m, &r), 0);
                assert_int_equal(kernel.registered[i].size, 64 * K + (uint64_t)sysconf(_SC_PAGESIZE));
        }
        assert_int_equal(kernel.n_registered, 10);
        for (uint64_t i = 0; i < 10; i += 2)
                assert_int_equal(container_unmap(c, i * 64 * K, 64 * K, &r), 0);
        assert_int_equal(kernel.n_registered, 5);
        assert_int_equal(container_unmap_all(c, &r), 0);
        assert_int_equal(kernel.n_registered, 0);
        container_close(c);
}

static void a_mapping_that_leaves_its_object_never_reaches_the_kernel(void **state) {
        struct container *c = open_container();
        struct backend_mapping m;
        struct refusal r;

        (void)state;
        for (unsigned i = 0; i < 5; i++) {
                m = mapping(0, 64 * K, 0);
                if (i == 0)
                        m.object_vaddr = NULL;
                else if (i == 1)
                        m.object_length = 0;
                else if (i == 2)
                        m.object_length = 32 * K;
                else if (i == 3)
                        m.vaddr = OBJECT + OBJECT_SIZE - 32 * K;
                else
                        m.vaddr = OBJECT - 64 * K;
                assert_int_equal(container_map(c, &m, &r), -1);
                assert_int_equal(r.reason, REFUSAL_INTERNAL);
        }
        assert_int_equal(kernel.n_register, 0);
        container_close(c);
}

static void every_refusal_of_a_registration_has_its_words_and_leaves_nothing(void **state) {
        static const struct { int answer, errnum; const char *says; } cases[] = {
                { -ENOMEM, ENOMEM, "RLIMIT_MEMLOCK" }, { -EFAULT, EFAULT, "read-only" }, { -EBUSY, EBUSY, "already" },
                { -EINVAL, EINVAL, "already" }, { -EPERM, EPERM, "not permitted" }, { 1, EFAULT, "cannot be pinned" },
        };
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                kernel.do_register = cases[i].answer;
                assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_BACKEND_REFUSED);
                assert_int_equal(r.errnum, cases[i].errnum);
                assert_non_null(strstr(r.text, cases[i].says));
                kernel.do_register = 0;
                assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_NONE);
                assert_int_equal(container_unmap(c, 0, 4 * K, &r), 0);
        }
        assert_int_equal(kernel.n_registered, 0);
        container_close(c);
}

/* What the kernel does not take back is known to be there still: the next mapping does not register it again. */
static void memory_that_is_not_unregistered_is_used_again_and_tried_again(void **state) {
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_NONE);
        kernel.unregister = -EBUSY;
        assert_int_equal(container_unmap(c, 0, 4 * K, &r), 0);  /* what was asked for was done */
        assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_NONE);
        assert_int_equal(kernel.n_register, 1);
        kernel.unregister = 0;
        assert_int_equal(container_unmap(c, 0, 4 * K, &r), 0);
        assert_int_equal(kernel.n_registered, 0);
        container_close(c);
}

/* --- mapping ------------------------------------------------------------------------------------------------------*/

static void a_map_passes_exactly_what_was_asked(void **state) {
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        for (uint32_t access = 1; access <= 3; access++) {
                struct backend_mapping m = mapping(access * 64 * K, 8 * K, 4 * K);

                m.access = access;
                assert_int_equal(container_map(c, &m, &r), 0);
                assert_int_equal(kernel.last_map.argsz, sizeof kernel.last_map);
                assert_int_equal(kernel.last_map.flags, access);
                assert_int_equal(kernel.last_map.iova, access * 64 * K);
                assert_int_equal(kernel.last_map.size, 8 * K);
                assert_int_equal(kernel.last_map.vaddr, (uintptr_t)OBJECT + 4 * K);
        }
        container_close(c);
}

static void what_the_kernel_would_not_survive_never_reaches_it(void **state) {
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(map_at(c, G - 4 * K, 8 * K, 0, &r), REFUSAL_NO_WINDOW);
        assert_int_equal(map_at(c, w.start + w.size - 64 * K, 128 * K, 0, &r), REFUSAL_NO_WINDOW);
        assert_int_equal(map_at(c, G, 4 * K, 0, &r), REFUSAL_NO_WINDOW);
        assert_int_equal(map_at(c, w.start - 64 * K, 128 * K, 0, &r), REFUSAL_NO_WINDOW);
        assert_int_equal(map_at(c, w.start + w.size - 64 * K, 0 - (w.start + w.size - 64 * K), 0, &r), REFUSAL_NO_WINDOW);
        assert_int_equal(map_at(c, w.start, 0, 0, &r), REFUSAL_ZERO_LENGTH);
        assert_int_equal(map_at(c, w.start + 4 * K, 64 * K, 0, &r), REFUSAL_UNALIGNED);
        assert_int_equal(map_at(c, 512, 4 * K, 0, &r), REFUSAL_UNALIGNED);
        assert_int_equal(kernel.n_register, 0);
        assert_int_equal(map_at(c, w.start, 128 * K, 0, &r), REFUSAL_NONE);
        assert_int_equal(map_at(c, w.start + 64 * K, 64 * K, 0, &r), REFUSAL_OVERLAP);
        assert_int_equal(container_unmap(c, w.start + 64 * K, 64 * K, &r), -1);
        assert_int_equal(r.reason, REFUSAL_PARTIAL_UNMAP);
        assert_int_equal(create(c, WINDOW_ANYWHERE, 0, 16, 0, &w, &r), REFUSAL_WINDOW_SIZE);
        container_close(c);
        assert_int_equal(kernel.dead, false);
}

/* The wrapper has refused all of this before: the backend looks once more by itself, as the kernel does not. */
static void the_backend_looks_by_itself(void **state) {
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
        const struct iova_range ranges[] = {
                { G - 4 * K, G + 4 * K - 1 }, { G, G + 4 * K - 1 }, { 512, 512 + 4 * K - 1 },
                { w.start + w.size - 64 * K, w.start + w.size + 64 * K - 1 }, { w.start - 64 * K, w.start + 64 * K - 1 },
                { w.start, w.start + 8 * G - 1 }, { w.start + 4 * K, w.start + 68 * K - 1 }, { w.start, w.start + 4 * K - 1 },
        };
        for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
                struct backend_mapping m = mapping(ranges[i].first, iova_range_length(ranges[i]), 0);

                assert_int_equal(vfio_spapr_ops.map(c, &m, &r), -1);
                assert_int_equal(r.reason, REFUSAL_INTERNAL);
                assert_int_equal(vfio_spapr_ops.unmap(c, ranges[i], &r), -1);
                assert_int_equal(r.reason, REFUSAL_INTERNAL);
        }
        assert_int_equal(kernel.n_register, 0);
        assert_int_equal(kernel.n_mapped, 0);
        container_close(c);
        assert_int_equal(kernel.dead, false);
}

static void every_refusal_of_a_map_has_its_words_and_leaves_nothing(void **state) {
        static const struct { int answer, errnum; const char *says; } cases[] = {
                { 1, EIO, "Input/output" }, { -ENOMEM, ENOMEM, "RLIMIT_MEMLOCK" }, { -EINVAL, EINVAL, "invalid" },
                { -EPERM, EPERM, "does not let" }, { -ENXIO, ENXIO, "no window" }, { -EFAULT, EFAULT, "truncated" },
                { -ENOSPC, ENOSPC, "No space" }, { -EBUSY, EBUSY, "busy" }, { 4711, EIO, "Input/output" },
        };
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                kernel.map = cases[i].answer;
                assert_int_equal(map_at(c, 0x10000, 8 * K, 0, &r), REFUSAL_BACKEND_REFUSED);
                assert_int_equal(r.errnum, cases[i].errnum);
                assert_non_null(strstr(r.text, cases[i].says));
                assert_int_equal(kernel.n_registered, 0);
                kernel.map = 0;
                assert_int_equal(map_at(c, 0x10000, 8 * K, 0, &r), REFUSAL_NONE);
                assert_int_equal(container_unmap(c, 0x10000, 8 * K, &r), 0);
        }
        container_close(c);
}

static void an_unmap_that_was_not_done_is_reported_and_keeps_everything(void **state) {
        static const int answers[] = { 1, -EPERM, -ENXIO, -EINVAL };
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_NONE);
        for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
                kernel.unmap = answers[i];
                assert_int_equal(container_unmap(c, 0, 4 * K, &r), -1);
                assert_int_equal(r.reason, REFUSAL_BACKEND_REFUSED);
                assert_int_equal(r.errnum, answers[i] > 0 ? EIO : -answers[i]);
                assert_int_equal(container_unmap_all(c, &r), -1);
                assert_int_equal(kernel.n_unregister, 0);               /* unmap before unregister, always */
        }
        kernel.unmap = 0;
        assert_int_equal(container_unmap(c, 0, 4 * K, &r), 0);
        assert_int_equal(kernel.n_registered, 0);
        container_close(c);
}

static void one_mapping_that_stays_does_not_keep_the_others(void **state) {
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        for (uint64_t i = 0; i < 4; i++)
                assert_int_equal(map_at(c, i * 4 * K, 4 * K, 0, &r), REFUSAL_NONE);
        kernel.windows[0].size = 12 * K;                        /* the last one is outside now: ENXIO */
        assert_int_equal(container_unmap_all(c, &r), -1);
        assert_int_equal(r.errnum, ENXIO);
        assert_int_equal(kernel.n_mapped, 1);
        assert_int_equal(kernel.n_unregister, 0);
        kernel.windows[0].size = G;
        assert_int_equal(container_unmap_all(c, &r), 0);
        assert_int_equal(kernel.n_registered, 0);
        container_close(c);
}

/* When closing cannot unmap, the windows go. */
static void closing_with_mappings_that_stay_removes_the_windows(void **state) {
        struct container *c = open_container();
        struct refusal r;
        int fd;

        (void)state;
        assert_int_equal(container_revoker_fd(c, &fd, &r), 0);
        assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_NONE);
        kernel.unmap = 1;
        container_close(c);
        assert_false(kernel.windows[0].used);
        assert_int_equal(kernel.n_mapped, 0);
        assert_int_equal(kernel.n_registered, 0);
        assert_int_equal(revoke_by_revoker(fd, 0), 0);
        fd_close(fd);
}

static void closing_with_windows_that_stay_is_not_called_revoked(void **state) {
        struct container *c = open_container();
        struct refusal r;
        int fd;

        (void)state;
        assert_int_equal(container_revoker_fd(c, &fd, &r), 0);
        assert_int_equal(map_at(c, 0, 4 * K, 0, &r), REFUSAL_NONE);
        kernel.unmap = kernel.remove = 1;
        container_close(c);
        assert_int_equal(kernel.n_unregister, 0);
        assert_int_equal(revoke_by_revoker(fd, 0), -ENOTRECOVERABLE);
        fd_close(fd);
}

/* --- windows ------------------------------------------------------------------------------------------------------*/

static void a_window_is_created_where_the_kernel_says(void **state) {
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.start, HIGH);
        assert_int_equal(w.levels, 1);
        assert_int_equal(kernel.last_create.argsz, sizeof kernel.last_create);
        assert_int_equal(kernel.last_create.window_size, 4 * G);
        assert_int_equal(kernel.last_create.page_shift, 16);
        assert_int_equal(kernel.last_create.levels, 1);
        assert_int_equal(kernel.last_create.flags, 0);
        assert_int_equal(container_window_remove(c, w.start, &r), 0);
        assert_int_equal(container_window_remove(c, w.start, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNKNOWN_WINDOW);
        container_close(c);
}

static void levels_are_two_on_powernv_and_one_when_that_is_too_many(void **state) {
        struct backend_window w;
        struct container *c;
        struct refusal r;

        (void)state;
        boot(2 * G, 0x40211000, 5);
        c = open_container();
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.levels, 2);
        assert_int_equal(container_window_remove(c, w.start, &r), 0);
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 4, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.levels, 4);
        assert_int_equal(container_window_remove(c, w.start, &r), 0);
        kernel.create_fails_with_two_levels = true;
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 30, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.levels, 1);
        assert_int_equal(container_window_remove(c, w.start, &r), 0);
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 30, 2, &w, &r), REFUSAL_BACKEND_REFUSED);    /* as asked, or not */
        container_close(c);
}

static void every_refusal_of_a_creation_has_its_words_and_leaves_nothing(void **state) {
        static const struct { int answer, errnum; enum refusal_reason reason; const char *says; } cases[] = {
                { -ENOSPC, ENOSPC, REFUSAL_WINDOW_LIMIT, "no room" },
                { -ENOMEM, ENOMEM, REFUSAL_BACKEND_REFUSED, "RLIMIT_MEMLOCK" },
                { -EINVAL, EINVAL, REFUSAL_BACKEND_REFUSED, "too large" }, { -EPERM, EPERM, REFUSAL_BACKEND_REFUSED, "restored" },
                { -ENODEV, ENODEV, REFUSAL_BACKEND_REFUSED, "No such device" },
                { 1, EIO, REFUSAL_BACKEND_REFUSED, "Input/output" },
        };
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                kernel.create = cases[i].answer;
                assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), cases[i].reason);
                assert_int_equal(r.errnum, cases[i].errnum);
                assert_non_null(strstr(r.text, cases[i].says));
                assert_int_equal(count_windows(c), 1);
                kernel.create = 0;
                assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
                assert_int_equal(container_window_remove(c, w.start, &r), 0);
        }
        container_close(c);
}

static void a_removal_that_was_not_done_is_reported_and_keeps_the_window(void **state) {
        static const int answers[] = { 1, -EPERM, -EINVAL, -ENXIO };
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
        for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
                kernel.remove = answers[i];
                assert_int_equal(container_window_remove(c, w.start, &r), -1);
                assert_int_equal(r.reason, REFUSAL_BACKEND_REFUSED);
                assert_int_equal(r.errnum, answers[i] > 0 ? EIO : -answers[i]);
                assert_int_equal(container_windows_reset(c, &r), -1);
                assert_int_equal(count_windows(c), 2);
        }
        kernel.remove = 0;
        assert_int_equal(container_windows_reset(c, &r), 0);
        assert_int_equal(count_windows(c), 1);
        container_close(c);
}

/* pseries restores the initial window only when there is no other. */
static void a_reset_removes_the_others_first(void **state) {
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(container_window_remove(c, 0, &r), 0);
        assert_int_equal(container_windows_reset(c, &r), 0);
        assert_false(kernel.windows[1].used);
        assert_true(kernel.windows[0].used);
        assert_int_equal(kernel.windows[0].size, G);
        assert_int_equal(kernel.windows[0].shift, 12);
        container_close(c);
}

/* Half way is not nowhere: what is left is known. */
static void a_reset_that_fails_half_way_leaves_what_is_said(void **state) {
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        assert_int_equal(create(c, WINDOW_ANYWHERE, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(container_window_remove(c, 0, &r), 0);
        kernel.create = -ENOMEM;
        assert_int_equal(container_windows_reset(c, &r), -1);
        assert_int_equal(r.errnum, ENOMEM);
        assert_int_equal(count_windows(c), 0);
        kernel.create = 0;
        assert_int_equal(container_windows_reset(c, &r), 0);
        assert_int_equal(count_windows(c), 1);
        container_close(c);
}

static void the_high_place_is_had_also_when_the_low_one_is_free(void **state) {
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        assert_int_equal(container_window_remove(c, 0, &r), 0);
        assert_int_equal(create(c, HIGH, 4 * G, 16, 0, &w, &r), REFUSAL_NONE);
        assert_int_equal(w.start, HIGH);
        assert_false(kernel.windows[0].used);
        assert_int_equal(count_windows(c), 1);
        container_close(c);
}

static void a_window_at_another_place_than_demanded_is_undone(void **state) {
        struct container *c = open_container();
        struct backend_window w;
        struct refusal r;

        (void)state;
        assert_int_equal(create(c, 16 * G, 4 * G, 16, 0, &w, &r), REFUSAL_OUTSIDE_APERTURE);
        assert_int_equal(r.nearest_above, HIGH);
        assert_false(kernel.windows[1].used);
        assert_int_equal(count_windows(c), 1);
        kernel.remove = -EIO;           /* and when it cannot be undone, it is there, and known */
        assert_int_equal(create(c, 16 * G, 4 * G, 16, 0, &w, &r), REFUSAL_OUTSIDE_APERTURE);
        assert_int_equal(count_windows(c), 2);
        kernel.remove = 0;
        assert_int_equal(container_window_remove(c, HIGH, &r), 0);
        container_close(c);
}

/* --- which backend, and revoking from outside ---------------------------------------------------------------------*/

static void the_kernel_says_which_backend_it_has(void **state) {
        char dir[] = "/tmp/iommud-vfio-XXXXXX", node[64];

        (void)state;
        assert_non_null(mkdtemp(dir));
        (void)snprintf(node, sizeof node, "%s/vfio", dir);
        fd_close(open(node, O_CREAT | O_WRONLY, 0600));
        assert_int_equal(vfio_kind(dir), BACKEND_VFIO_SPAPR);
        kernel.has_v2 = 0;
        assert_int_equal(vfio_kind(dir), BACKEND_VFIO_SPAPR);
#ifndef __powerpc64__
        kernel.has_v1 = 0;
        assert_int_equal(vfio_kind(dir), BACKEND_VFIO_TYPE1);
        assert_int_equal(vfio_kind("/nowhere"), BACKEND_VFIO_TYPE1);
#endif
        unlink(node);
        rmdir(dir);
}

static void a_revoker_fd_is_told_from_others(void **state) {
        struct container *c = open_container();
        struct refusal r;
        int fd, ends[2];

        (void)state;
        assert_int_equal(container_revoker_fd(c, &fd, &r), 0);
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_true(revoke_is_revoker_fd(fd));
        assert_false(revoke_is_device_fd(fd));
        assert_false(revoke_is_container_fd(fd));
        assert_int_equal(revoke_by_revoker(fd, 0), -EINPROGRESS);
        container_close(c);
        assert_int_equal(revoke_by_revoker(fd, 0), 0);
        assert_int_equal(revoke_by_revoker(fd, 0), 0);
        fd_close(fd);
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        assert_false(revoke_is_revoker_fd(ends[1]));
        fd_close(ends[0]);
        fd_close(ends[1]);
        fd = eventfd(0, 0);
        assert_false(revoke_is_revoker_fd(fd));
        fd_close(fd);
        assert_int_equal(revoke_by_revoker(-1, 0), -EBADF);
        assert_int_equal(revoke_by_revoker(9999, 0), -EBADF);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, boot_pseries, judge)
        const struct CMUnitTest tests[] = {
                TEST(windows_are_those_of_the_platform),
                TEST(every_failure_of_opening_has_its_reason_and_closes_both_fds),
                TEST(without_dynamic_windows_there_is_the_initial_one),
                TEST(version_1_enables_once_registers_nothing_and_has_one_window),
                TEST(version_1_says_that_the_whole_window_is_charged),
                TEST(an_object_is_registered_once_and_until_its_last_mapping),
                TEST(objects_are_registered_each_by_itself),
                TEST(a_mapping_that_leaves_its_object_never_reaches_the_kernel),
                TEST(every_refusal_of_a_registration_has_its_words_and_leaves_nothing),
                TEST(memory_that_is_not_unregistered_is_used_again_and_tried_again),
                TEST(a_map_passes_exactly_what_was_asked),
                TEST(what_the_kernel_would_not_survive_never_reaches_it),
                TEST(the_backend_looks_by_itself),
                TEST(every_refusal_of_a_map_has_its_words_and_leaves_nothing),
                TEST(an_unmap_that_was_not_done_is_reported_and_keeps_everything),
                TEST(one_mapping_that_stays_does_not_keep_the_others),
                TEST(closing_with_mappings_that_stay_removes_the_windows),
                TEST(closing_with_windows_that_stay_is_not_called_revoked),
                TEST(a_window_is_created_where_the_kernel_says),
                TEST(levels_are_two_on_powernv_and_one_when_that_is_too_many),
                TEST(every_refusal_of_a_creation_has_its_words_and_leaves_nothing),
                TEST(a_removal_that_was_not_done_is_reported_and_keeps_the_window),
                TEST(a_reset_removes_the_others_first),
                TEST(a_reset_that_fails_half_way_leaves_what_is_said),
                TEST(the_high_place_is_had_also_when_the_low_one_is_free),
                TEST(a_window_at_another_place_than_demanded_is_undone),
                TEST(the_kernel_says_which_backend_it_has),
                TEST(a_revoker_fd_is_told_from_others),
        };

        if (WHY_NO_REVOKERS)
                return skip_all(WHY_NO_REVOKERS);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
