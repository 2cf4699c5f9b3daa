/* SPDX-License-Identifier: Apache-2.0 */
/* link: backend util */
/*
 * What becomes of the kernel's answers on VFIO type1 and in revoke.c, those included that hardware never gives on
 * demand: this program's ioctl() is a kernel that plays what a test wrote down.
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/revoke.h"
#include "util/cleanup.h"

/* --- the kernel ---------------------------------------------------------------------------------------------------*/

static struct kernel {
        int api_version;                /* answers: >= 0, or -errno */
        int status, set_container, set_iommu, get_info, check_extension, map, unmap, get_device;
        uint32_t group_flags;
        uint64_t unmapped;              /* what UNMAP says it did; UINT64_MAX: what was asked */

        uint8_t info[2048];              /* what GET_INFO has to say */
        uint32_t info_size;

        int container_fd, group_fd, device_fd;          /* as ioctl saw them */
        unsigned long iommu_type;
        struct vfio_iommu_type1_dma_map last_map;
        struct {                        /* as struct vfio_iommu_type1_dma_unmap, which ends in an array */
                uint32_t argsz, flags;
                uint64_t iova, size;
        } last_unmap;
        char order[64];                 /* a letter for each call */
} kernel;

static int answer(int k, char letter) {
        size_t n = strlen(kernel.order);

        if (n + 1 < sizeof kernel.order)
                kernel.order[n] = letter;
        if (k >= 0)
                return k;
        errno = -k;
        return -1;
}

static int answer_info(struct vfio_iommu_type1_info *info) {
        uint32_t room = info->argsz;

        if (kernel.get_info < 0)
                return answer(kernel.get_info, 'i');
        memcpy((uint8_t *)info + 4, kernel.info + 4, (room < kernel.info_size ? room : kernel.info_size) - 4);
        info->argsz = kernel.info_size > room ? kernel.info_size : room;
        return answer(0, 'i');
}

int ioctl(int fd, unsigned long request, ...) {
        va_list args;
        void *p;

        va_start(args, request);
        p = va_arg(args, void *);
        va_end(args);
        switch (request) {
        case VFIO_GET_API_VERSION:
                return answer(kernel.api_version, 'v');
        case VFIO_GROUP_GET_STATUS:
                ((struct vfio_group_status *)p)->flags = kernel.group_flags;
                return answer(kernel.status, 's');
        case VFIO_GROUP_SET_CONTAINER:
                kernel.group_fd = fd;
                kernel.container_fd = *(int *)p;
                return answer(kernel.set_container, 'c');
        case VFIO_SET_IOMMU:
                kernel.iommu_type = (unsigned long)p;
                return answer(kernel.set_iommu, 't');
        case VFIO_CHECK_EXTENSION:
                return answer(kernel.check_extension, 'x');
        case VFIO_IOMMU_GET_INFO:
                return answer_info(p);
        case VFIO_IOMMU_MAP_DMA:
                memcpy(&kernel.last_map, p, sizeof kernel.last_map);
                return answer(kernel.map, 'm');
        case VFIO_IOMMU_UNMAP_DMA:
                memcpy(&kernel.last_unmap, p, sizeof kernel.last_unmap);
                if (kernel.unmapped != UINT64_MAX)
                        ((struct vfio_iommu_type1_dma_unmap *)p)->size = kernel.unmapped;
                return answer(kernel.unmap, 'u');
        case VFIO_GROUP_GET_DEVICE_FD:
                if (kernel.get_device < 0)
                        return answer(kernel.get_device, 'd');
                kernel.device_fd = eventfd(0, EFD_CLOEXEC);
                return answer(kernel.device_fd, 'd');
        default:
                return answer(-ENOTTY, '?');
        }
}

#define RANGES_AT 64U
#define AVAIL_AT 192U

static void info_put(uint32_t at, const void *data, size_t n) {
        memcpy(kernel.info + at, data, n);
        if (kernel.info_size < at + n)
                kernel.info_size = (uint32_t)(at + n);
}

/* A kernel that agrees to everything: VT-d as it answers in reality. */
static int kernel_boot(void **state) {
        struct vfio_iommu_type1_info info = { .flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS,
                                              .iova_pgsizes = 0x40201000, .cap_offset = RANGES_AT };
        struct vfio_iommu_type1_info_cap_iova_range cap = {
                .header = { .id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, .version = 1, .next = AVAIL_AT }, .nr_iovas = 2
        };
        struct vfio_iova_range ranges[2] = { { 0, 0xfedfffff }, { 0xfef00000, 0x7fffffffff } };
        struct vfio_iommu_type1_info_dma_avail avail = {
                .header = { .id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, .version = 1 }, .avail = 65535 };

        (void)state;
        kernel = (struct kernel){ .group_flags = VFIO_GROUP_FLAGS_VIABLE, .check_extension = 1, .unmapped = UINT64_MAX,
                                  .container_fd = -1, .group_fd = -1, .device_fd = -1 };
        info_put(0, &info, sizeof info);
        info_put(RANGES_AT, &cap, sizeof cap);
        info_put(RANGES_AT + sizeof cap, ranges, sizeof ranges);
        info_put(AVAIL_AT, &avail, sizeof avail);
        return 0;
}

static int try_open(struct container **ret, struct refusal *r) {
        struct backend_open o = { .kind = BACKEND_VFIO_TYPE1,
                                  .container_fd = eventfd(0, 0),
                                  .group_fd = eventfd(0, 0) };
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

static struct container_info open_for_info(void) {
        struct container *c = open_container();
        struct container_info i;

        container_info(c, &i);
        container_close(c);
        return i;
}

static const struct backend_mapping page_at_1m = {
        .iova = 0x100000, .length = 0x1000, .vaddr = (void *)0x10000, .fd = -1, .access = 1
};

/* --- opening ------------------------------------------------------------------------------------------------------*/

static void opening_asks_in_the_order_that_vfio_wants(void **state) {
        struct container *c = open_container();

        (void)state;
        assert_int_equal(strncmp(kernel.order, "vsct", 4), 0);
        assert_int_equal(kernel.iommu_type, VFIO_TYPE1v2_IOMMU);
        container_close(c);
}

static void every_failure_of_opening_has_its_reason_and_closes_both_fds(void **state) {
        static const struct {
                int *answer;
                int value;
                enum refusal_reason reason;
                int errnum;
        } cases[] = {
                { &kernel.api_version, 1, REFUSAL_UNSUPPORTED, 0 },
                { &kernel.status, -EIO, REFUSAL_BACKEND_REFUSED, EIO },
                { (int *)&kernel.group_flags, 0, REFUSAL_GROUP_NOT_VIABLE, 0 },
                { (int *)&kernel.group_flags, VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET,
                  REFUSAL_DEVICE_BUSY, 0 },
                { &kernel.set_container, -EINVAL, REFUSAL_BACKEND_REFUSED, EINVAL },
                { &kernel.set_iommu, -EPERM, REFUSAL_BACKEND_REFUSED, EPERM },
                { &kernel.set_iommu, -ENODEV, REFUSAL_UNSUPPORTED, ENODEV },
                { &kernel.set_iommu, -EINVAL, REFUSAL_BACKEND_REFUSED, EINVAL },
                { &kernel.set_iommu, 1, REFUSAL_BACKEND_REFUSED, EIO }, /* sPAPR answers like this: not success */
                { &kernel.get_info, -EINVAL, REFUSAL_BACKEND_REFUSED, EINVAL },
                { &kernel.check_extension, 0, REFUSAL_UNSUPPORTED, 0 }, /* no UNMAP ALL: not revocable */
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct container *c = NULL;
                struct refusal r;

                kernel_boot(state);
                *cases[i].answer = cases[i].value;
                assert_int_equal(try_open(&c, &r), -1);
                assert_null(c);
                assert_int_equal(r.reason, cases[i].reason);
                assert_int_equal(r.errnum, cases[i].errnum);
                assert_true(strlen(r.text) > 20);
        }
}

static void closing_unmaps_everything_first(void **state) {
        struct container *c = open_container();
        int fds[2] = { kernel.container_fd, kernel.group_fd };

        (void)state;
        memset(kernel.order, 0, sizeof kernel.order);
        container_close(c);
        assert_string_equal(kernel.order, "u");
        assert_int_equal(kernel.last_unmap.flags, VFIO_DMA_UNMAP_FLAG_ALL);
        assert_int_equal(kernel.last_unmap.iova, 0);
        assert_int_equal(kernel.last_unmap.size, 0);
        for (int i = 0; i < 2; i++)
                assert_int_equal(fcntl(fds[i], F_GETFD), -1);
}

/* --- limits -------------------------------------------------------------------------------------------------------*/

static void ranges_page_sizes_and_budget_come_from_the_kernel(void **state) {
        struct container_info i = open_for_info();

        (void)state;
        assert_int_equal(i.page_sizes, 0x40201000);
        assert_int_equal(i.max_mappings, 65535);
        assert_int_equal(i.n_ranges, 2);
        assert_int_equal(i.ranges[0].last, 0xfedfffff);
        assert_int_equal(i.ranges[1].first, 0xfef00000);
        assert_int_equal(i.ranges[1].last, 0x7fffffffff);
}

static void the_smallest_page_is_the_hosts_at_least(void **state) {
        uint64_t host = (uint64_t)sysconf(_SC_PAGESIZE), sizes = 0x40200000 | host / 4;

        (void)state;
        memcpy(kernel.info + offsetof(struct vfio_iommu_type1_info, iova_pgsizes), &sizes, sizeof sizes);
        assert_int_equal(open_for_info().page_sizes, 0x40200000 | host);
        kernel.info[offsetof(struct vfio_iommu_type1_info, flags)] = VFIO_IOMMU_INFO_CAPS;
        assert_int_equal(open_for_info().page_sizes, host);
}

static void without_capabilities_nothing_is_known_to_be_limited(void **state) {
        struct container_info i;

        (void)state;
        kernel.info[offsetof(struct vfio_iommu_type1_info, flags)] = VFIO_IOMMU_INFO_PGSIZES;
        i = open_for_info();
        assert_int_equal(i.n_ranges, 1);
        assert_int_equal(i.ranges[0].first, 0);
        assert_int_equal(i.ranges[0].last, UINT64_MAX);
        assert_int_equal(i.max_mappings, UINT32_MAX);
}

static void put_u32(uint32_t at, uint32_t value) {
        memcpy(kernel.info + at, &value, sizeof value);
}

/* Broken chains and counts end the reading; they are never followed out of the answer. */
static void a_broken_capability_chain_is_not_followed(void **state) {
        const uint32_t next = offsetof(struct vfio_info_cap_header, next);
        struct container_info i;

        put_u32(RANGES_AT + next, RANGES_AT);           /* to itself */
        i = open_for_info();
        assert_int_equal(i.n_ranges, 2);
        assert_int_equal(i.max_mappings, UINT32_MAX);

        kernel_boot(state);
        put_u32(RANGES_AT + next, kernel.info_size - 4);        /* no room for a header */
        assert_int_equal(open_for_info().max_mappings, UINT32_MAX);

        kernel_boot(state);
        put_u32(RANGES_AT + next, 0xfffffff0);
        assert_int_equal(open_for_info().max_mappings, UINT32_MAX);

        kernel_boot(state);
        kernel.info_size = AVAIL_AT + sizeof(struct vfio_info_cap_header);      /* a capability that is cut */
        assert_int_equal(open_for_info().max_mappings, UINT32_MAX);

        kernel_boot(state);
        put_u32(RANGES_AT + offsetof(struct vfio_iommu_type1_info_cap_iova_range, nr_iovas), 1000000);
        i = open_for_info();                            /* only what is there: garbage, but within the answer */
        assert_int_equal(i.n_ranges,
                         (kernel.info_size - RANGES_AT - sizeof(struct vfio_iommu_type1_info_cap_iova_range)) /
                                 sizeof(struct vfio_iova_range));
        assert_int_equal(i.ranges[0].last, 0xfedfffff);
}

static void more_ranges_than_can_be_told_are_left_out(void **state) {
        const uint32_t header = sizeof(struct vfio_iommu_type1_info_cap_iova_range);
        struct container_info i;

        (void)state;
        put_u32(RANGES_AT + offsetof(struct vfio_iommu_type1_info_cap_iova_range, nr_iovas), 40);
        put_u32(RANGES_AT + offsetof(struct vfio_info_cap_header, next), 0);
        for (uint64_t n = 0; n < 40; n++) {
                struct vfio_iova_range range = { n * 0x10000, n * 0x10000 + 0xfff };

                info_put((uint32_t)(RANGES_AT + header + n * sizeof range), &range, sizeof range);
        }
        i = open_for_info();
        assert_int_equal(i.n_ranges, IOVA_RANGES_MAX);
        assert_int_equal(i.ranges[31].first, 0x1f0000);
}

/* --- mapping ------------------------------------------------------------------------------------------------------*/

static void a_map_passes_exactly_what_was_asked(void **state) {
        struct container *c = open_container();
        struct backend_mapping m = page_at_1m;
        struct refusal r;

        (void)state;
        for (m.access = 1; m.access <= 3; m.access++, m.iova += 0x1000) {
                assert_int_equal(container_map(c, &m, &r), 0);
                assert_int_equal(kernel.last_map.argsz, sizeof kernel.last_map);
                assert_int_equal(kernel.last_map.flags, m.access);      /* the bits happen to be the same */
                assert_int_equal(kernel.last_map.vaddr, 0x10000);
                assert_int_equal(kernel.last_map.iova, m.iova);
                assert_int_equal(kernel.last_map.size, 0x1000);
        }
        container_close(c);
}

static void every_refusal_of_a_map_has_its_reason_and_leaves_no_record(void **state) {
        static const struct { int answer; enum refusal_reason reason; const char *says; } cases[] = {
                { -ENOMEM, REFUSAL_BACKEND_REFUSED, "RLIMIT_MEMLOCK" },
                { -ENOSPC, REFUSAL_LIMIT_EXCEEDED, "65535" },
                { -EEXIST, REFUSAL_OVERLAP, "not ours" },
                { -EFAULT, REFUSAL_BACKEND_REFUSED, "truncated" },
                { -EINVAL, REFUSAL_BACKEND_REFUSED, "invalid" },
                { -EPERM, REFUSAL_BACKEND_REFUSED, "permit" },
                { -EIO, REFUSAL_BACKEND_REFUSED, "Input/output error" },
                { 1, REFUSAL_BACKEND_REFUSED, "Input/output error" },
        };
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                kernel.map = cases[i].answer;
                assert_int_equal(container_map(c, &page_at_1m, &r), -1);
                assert_int_equal(r.reason, cases[i].reason);
                assert_int_equal(r.errnum, cases[i].answer < 0 ? -cases[i].answer : EIO);
                assert_non_null(strstr(r.text, cases[i].says));
                if (r.reason == REFUSAL_LIMIT_EXCEEDED) {
                        assert_int_equal(r.resource, RESOURCE_MAPPINGS);
                        assert_int_equal(r.limit, 65535);
                        assert_int_equal(r.used, 0);
                        assert_int_equal(r.asked, 1);
                }
                assert_int_equal(container_unmap(c, page_at_1m.iova, page_at_1m.length, &r), -1);
                assert_int_equal(r.reason, REFUSAL_NOT_MAPPED);
        }
        kernel.map = 0;
        assert_int_equal(container_map(c, &page_at_1m, &r), 0);
        container_close(c);
}

static void an_unmap_that_did_less_than_asked_is_a_failure(void **state) {
        static const uint64_t sizes[] = { 0, 0xfff, 0x2000 };
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        assert_int_equal(container_map(c, &page_at_1m, &r), 0);
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                kernel.unmapped = sizes[i];
                assert_int_equal(container_unmap(c, 0x100000, 0x1000, &r), -1);
                assert_int_equal(r.reason, REFUSAL_BACKEND_REFUSED);
                assert_int_equal(r.asked, 0x1000);
                assert_int_equal(r.used, sizes[i]);
        }
        kernel.unmapped = UINT64_MAX;
        kernel.unmap = -EINVAL;
        assert_int_equal(container_unmap(c, 0x100000, 0x1000, &r), -1);
        assert_int_equal(r.errnum, EINVAL);
        kernel.unmap = 0;               /* the record is still there: it can be tried again */
        assert_int_equal(container_unmap(c, 0x100000, 0x1000, &r), 0);
        assert_int_equal(kernel.last_unmap.iova, 0x100000);
        assert_int_equal(kernel.last_unmap.flags, 0);
        container_close(c);
}

/* type1 would remove both mappings under a range that covers them: the kernel must not even be asked. */
static void what_is_not_one_mapping_never_reaches_the_kernel(void **state) {
        struct container *c = open_container();
        struct backend_mapping m = page_at_1m;
        struct refusal r;

        (void)state;
        assert_int_equal(container_map(c, &m, &r), 0);
        m.iova += 0x1000;
        assert_int_equal(container_map(c, &m, &r), 0);
        memset(kernel.order, 0, sizeof kernel.order);
        assert_int_equal(container_unmap(c, 0x100000, 0x2000, &r), -1);
        assert_int_equal(container_unmap(c, 0x200000, 0x1000, &r), -1);
        assert_int_equal(container_map(c, &m, &r), -1);
        assert_string_equal(kernel.order, "");
        container_close(c);
}

static void a_failing_unmap_all_keeps_the_records(void **state) {
        struct container *c = open_container();
        struct refusal r;

        (void)state;
        assert_int_equal(container_map(c, &page_at_1m, &r), 0);
        kernel.unmap = -EIO;
        assert_int_equal(container_unmap_all(c, &r), -1);
        assert_int_equal(r.reason, REFUSAL_BACKEND_REFUSED);
        assert_int_equal(r.errnum, EIO);
        assert_int_equal(container_map(c, &page_at_1m, &r), -1);
        assert_int_equal(r.reason, REFUSAL_OVERLAP);
        kernel.unmap = 0;
        assert_int_equal(container_unmap_all(c, &r), 0);
        assert_int_equal(container_map(c, &page_at_1m, &r), 0);
        container_close(c);
}

/* --- devices ------------------------------------------------------------------------------------------------------*/

static void every_failure_of_a_device_has_its_reason(void **state) {
        static const struct {
                int answer;
                enum refusal_reason reason;
        } cases[] = { { -ENODEV, REFUSAL_UNKNOWN_DEVICE },
                      { -EBUSY, REFUSAL_DEVICE_BUSY },
                      { -EINVAL, REFUSAL_BACKEND_REFUSED } };
        struct container *c = open_container();
        struct device *d;
        struct refusal r;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                kernel.get_device = cases[i].answer;
                assert_int_equal(device_open(c, "0000:00:05.0", &d, &r), -1);
                assert_int_equal(r.reason, cases[i].reason);
                assert_int_equal(r.errnum, -cases[i].answer);
        }
        container_close(c);
}

static void a_name_that_does_not_fit_never_reaches_the_kernel(void **state) {
        char name[BACKEND_DEVICE_NAME_MAX + 1];
        struct container *c = open_container();
        struct device *d;
        struct refusal r;

        (void)state;
        memset(name, 'x', sizeof name);
        name[BACKEND_DEVICE_NAME_MAX] = '\0';
        memset(kernel.order, 0, sizeof kernel.order);
        assert_int_equal(device_open(c, name, &d, &r), -1);
        assert_int_equal(r.reason, REFUSAL_UNKNOWN_DEVICE);
        assert_string_equal(kernel.order, "");
        name[BACKEND_DEVICE_NAME_MAX - 1] = '\0';
        assert_int_equal(device_open(c, name, &d, &r), 0);
        container_close(c);
}

static void device_fds_are_duplicates_that_the_device_does_not_close(void **state) {
        struct container *c = open_container();
        enum device_fd_kind kind;
        int keeper, client, own;
        struct device *d;
        struct refusal r;

        (void)state;
        assert_int_equal(device_open(c, "0000:00:05.0", &d, &r), 0);
        own = kernel.device_fd;
        assert_int_equal(device_keeper_fd(d, &keeper, &r), 0);
        assert_int_equal(device_client_fd(d, &client, &kind, &r), 0);
        assert_int_equal(kind, DEVICE_FD_VFIO);
        assert_true(keeper != client && keeper != own && client != own);
        container_close(c);             /* closes the device too */
        assert_int_equal(fcntl(own, F_GETFD), -1);
        assert_int_equal(fcntl(keeper, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(client, F_GETFD), FD_CLOEXEC);
        fd_close(keeper);
        fd_close(client);
}

/* --- revoking -----------------------------------------------------------------------------------------------------*/

static void revoking_unmaps_all_and_tells_nothing_to_do_from_cannot(void **state) {
        (void)state;
        assert_int_equal(revoke_container_fd(77), 0);
        assert_int_equal(kernel.last_unmap.flags, VFIO_DMA_UNMAP_FLAG_ALL);
        kernel.unmap = -EIO;
        assert_int_equal(revoke_container_fd(77), -EIO);
        kernel.unmap = kernel.get_info = -EINVAL;       /* no IOMMU set: nothing can be mapped */
        assert_int_equal(revoke_container_fd(77), 0);
        kernel.get_info = -EIO;                         /* an IOMMU that is out of order is an IOMMU */
        assert_int_equal(revoke_container_fd(77), -EINVAL);
        kernel.get_info = 0;                            /* an IOMMU, but no such flag: something may be mapped */
        assert_int_equal(revoke_container_fd(77), -EINVAL);
}

static void nodes_are_opened_by_their_names_in_the_directory_given(void **state) {
        char dir[] = "/tmp/iommud-vfio-XXXXXX", vfio[64], group[64];
        int fd = -1;

        (void)state;
        assert_non_null(mkdtemp(dir));
        (void)snprintf(vfio, sizeof vfio, "%s/vfio", dir);
        (void)snprintf(group, sizeof group, "%s/17", dir);
        assert_int_equal(vfio_open_container(dir, &fd), -ENOENT);
        assert_int_equal(vfio_open_group(dir, 17, &fd), -ENOENT);
        assert_false(revoke_group_is_free(dir, 17));
        assert_int_equal(fd, -1);
        fd_close(open(vfio, O_CREAT | O_WRONLY, 0600));
        fd_close(open(group, O_CREAT | O_WRONLY, 0600));
        assert_int_equal(vfio_open_container(dir, &fd), 0);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
        fd = fd_close(fd);
        assert_int_equal(vfio_open_group(dir, 17, &fd), 0);
        fd = fd_close(fd);
        assert_true(revoke_group_is_free(dir, 17));
        unlink(vfio);
        unlink(group);
        rmdir(dir);
}

/* A real one is recognised in the contract suite. Here: whatever a hostile holder may send instead. */
static void other_fds_are_taken_neither_for_a_device_nor_for_a_container(void **state) {
        char dir[] = "/tmp/iommud-fds-XXXXXX", fake[96];
        int fds[10];
        size_t n = 0;

        (void)state;
        assert_non_null(mkdtemp(dir));
        (void)snprintf(fake, sizeof fake, "%s/anon_inode:[vfio-device]", dir);
        fds[n++] = eventfd(0, 0);                               /* an anonymous inode of another kind */
        fds[n++] = memfd_create("anon_inode:[vfio-device]", 0);
        fds[n++] = open(fake, O_CREAT | O_RDWR, 0600);
        fds[n++] = open("/dev/null", O_RDWR);                   /* a character device */
        fds[n++] = open("/", O_RDONLY | O_DIRECTORY);
        fds[n++] = open("/dev/null", O_PATH);
        fds[n++] = open("/dev/fuse", O_RDWR);                   /* where they exist: neighbours of VFIO's node */
        fds[n++] = open("/dev/net/tun", O_RDWR);
        fds[n++] = 9999;
        for (size_t i = 0; i < n; i++) {
                assert_false(revoke_is_device_fd(fds[i]));
                assert_false(revoke_is_container_fd(fds[i]));
        }
        for (size_t i = 0; i + 1 < n; i++)
                fd_close(fds[i]);
        unlink(fake);
        rmdir(dir);
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup(f, kernel_boot)
        const struct CMUnitTest tests[] = {
                TEST(opening_asks_in_the_order_that_vfio_wants),
                TEST(every_failure_of_opening_has_its_reason_and_closes_both_fds),
                TEST(closing_unmaps_everything_first),
                TEST(ranges_page_sizes_and_budget_come_from_the_kernel),
                TEST(the_smallest_page_is_the_hosts_at_least),
                TEST(without_capabilities_nothing_is_known_to_be_limited),
                TEST(a_broken_capability_chain_is_not_followed),
                TEST(more_ranges_than_can_be_told_are_left_out),
                TEST(a_map_passes_exactly_what_was_asked),
                TEST(every_refusal_of_a_map_has_its_reason_and_leaves_no_record),
                TEST(an_unmap_that_did_less_than_asked_is_a_failure),
                TEST(what_is_not_one_mapping_never_reaches_the_kernel),
                TEST(a_failing_unmap_all_keeps_the_records),
                TEST(every_failure_of_a_device_has_its_reason),
                TEST(a_name_that_does_not_fit_never_reaches_the_kernel),
                TEST(device_fds_are_duplicates_that_the_device_does_not_close),
                TEST(revoking_unmaps_all_and_tells_nothing_to_do_from_cannot),
                TEST(nodes_are_opened_by_their_names_in_the_directory_given),
                TEST(other_fds_are_taken_neither_for_a_device_nor_for_a_container),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
