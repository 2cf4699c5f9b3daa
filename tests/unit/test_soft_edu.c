/* SPDX-License-Identifier: Apache-2.0 */
/* link: backend util */
/* The software device: its registers, its socket, its DMA, and that nothing a client says or leaves unsaid hurts it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "../contract/edu_client.h"
#include "backend/backend.h"
#include "backend/soft.h"

#define PAGE UINT64_C(4096)
#define HOST_PAGE ((uint64_t)sysconf(_SC_PAGESIZE))       /* in which memory comes and goes; not smaller than the IOMMU's */
#define MEMORY_SIZE (16 * HOST_PAGE)
#define IOVA UINT64_C(0x700000)
#define BAR0 0U
#define CONFIG 7U

struct bench {
        struct container *container;
        struct device *device;
        struct edu edu;
        int memfd;
        uint8_t *memory;
};

static int bench_make(void **state, uint32_t delay_us) {
        struct backend_open o = {
                .kind = BACKEND_SOFT, .container_fd = -1, .group_fd = -1, .soft.dma_delay_us = delay_us
        };
        struct bench *b = calloc(1, sizeof *b);
        struct refusal r;

        assert_non_null(b);
        assert_int_equal(container_open(&o, &b->container, &r), 0);
        assert_int_equal(device_open(b->container, "edu0", &b->device, &r), 0);
        assert_true(edu_attach(&b->edu, b->device));
        b->memfd = memfd_create("edu", MFD_CLOEXEC);
        assert_int_equal(ftruncate(b->memfd, (off_t)MEMORY_SIZE), 0);
        b->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, b->memfd, 0);
        assert_ptr_not_equal(b->memory, MAP_FAILED);
        *state = b;
        return 0;
}

static int bench_fast(void **state) {
        return bench_make(state, 50);
}

static int bench_slow(void **state) {
        return bench_make(state, 200000);
}

static int bench_end(void **state) {
        struct bench *b = *state;

        edu_detach(&b->edu);
        container_close(b->container);
        munmap(b->memory, MEMORY_SIZE);
        fd_close(b->memfd);
        free(b);
        return 0;
}

static void map_pages(struct bench *b, uint64_t iova, uint64_t first, uint64_t n, uint32_t access) {
        struct backend_mapping m = { .iova = iova,
                                     .length = n * PAGE,
                                     .vaddr = b->memory + first * PAGE,
                                     .fd = b->memfd,
                                     .offset = first * PAGE,
                                     .access = access };
        struct refusal r;

        if (container_map(b->container, &m, &r) < 0)
                fail_msg("%s", r.text);
}

static uint64_t faults(struct bench *b, struct soft_fault *ret_last) {
        struct soft_fault all[SOFT_FAULTS_KEPT];
        uint64_t total;
        size_t n = soft_faults(b->container, all, &total);

        assert_int_equal(n, total < SOFT_FAULTS_KEPT ? total : SOFT_FAULTS_KEPT);
        if (n > 0 && ret_last)
                *ret_last = all[n - 1];
        return total;
}

static void assert_fault(struct bench *b, uint64_t total, uint64_t iova, uint32_t access,
                         enum soft_fault_reason reason) {
        struct soft_fault last = { 0 };

        assert_int_equal(faults(b, &last), total);
        assert_int_equal(last.iova, iova);
        assert_int_equal(last.access, access);
        assert_int_equal(last.reason, reason);
}

static uint64_t clock_us(clockid_t clock) {
        struct timespec t;

        clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t now_us(void) {
        return clock_us(CLOCK_MONOTONIC);
}

/* --- registers ----------------------------------------------------------------------------------------------------*/

static int access_to(struct bench *b, uint32_t op, uint32_t region, uint64_t offset, uint32_t size, uint64_t *value) {
        return edu_access_soft(&b->edu, op, region, offset, size, value);
}

static uint64_t config_read(struct bench *b, uint64_t offset, uint32_t size) {
        uint64_t value = 0;

        assert_int_equal(access_to(b, SOFT_READ, CONFIG, offset, size, &value), 0);
        return value;
}

static void identification_liveness_and_factorial_are_those_of_edu(void **state) {
        static const struct {
                uint32_t n, expected;
        } factorials[] = { { 0, 1 },           { 1, 1 },           { 5, 120 }, { 12, 479001600 },
                           { 13, 1932053504 }, { 33, 0x80000000 }, { 34, 0 },  { UINT32_MAX, 0 } };
        struct bench *b = *state;
        uint64_t start = now_us();

        assert_int_equal(edu_read(&b->edu, 0x00, 4), 0x010000ed);
        edu_write(&b->edu, 0x04, 4, 0x12345678);
        assert_int_equal(edu_read(&b->edu, 0x04, 4), 0xedcba987);
        for (size_t i = 0; i < ARRAY_SIZE(factorials); i++) {
                edu_write(&b->edu, 0x08, 4, factorials[i].n);
                if (edu_read(&b->edu, 0x08, 4) != factorials[i].expected)
                        fail_msg("%u!", factorials[i].n);
        }
        assert_true(now_us() - start < 1000000);        /* however large the number */
        edu_write(&b->edu, 0x20, 4, 0xff);
        assert_int_equal(edu_read(&b->edu, 0x20, 4), 0x80);
        edu_write(&b->edu, 0x00, 4, 1);
        assert_int_equal(edu_read(&b->edu, 0x00, 4), 0x010000ed);
}

static void dma_registers_take_four_or_eight_bytes(void **state) {
        struct bench *b = *state;

        for (uint64_t offset = 0x80; offset <= 0x90; offset += 8) {
                edu_write(&b->edu, offset, 8, 0x1122334455667788);
                assert_int_equal(edu_read(&b->edu, offset, 8), 0x1122334455667788);
                assert_int_equal(edu_read(&b->edu, offset, 4), 0x55667788);
                edu_write(&b->edu, offset, 4, 0xaabbccdd);
                assert_int_equal(edu_read(&b->edu, offset, 8), 0xaabbccdd);
        }
        edu_write(&b->edu, 0x98, 8, 2);         /* no start, no command */
        assert_int_equal(edu_read(&b->edu, 0x98, 8), 0);
}

static void what_is_no_register_reads_as_ones_and_ignores_writes(void **state) {
        static const struct {
                uint64_t offset;
                uint32_t size;
        } cases[] = { { 0x00, 1 }, { 0x00, 2 }, { 0x00, 8 }, { 0x0c, 4 },    { 0x40, 4 },    { 0x80, 1 },
                      { 0x80, 2 }, { 0x84, 4 }, { 0xa0, 8 }, { 0x40000, 8 }, { 0xffff8, 8 }, { 0xfffff, 1 } };
        struct bench *b = *state;

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                uint64_t ones = cases[i].size == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * cases[i].size) - 1, value = 0;

                assert_int_equal(access_to(b, SOFT_WRITE, BAR0, cases[i].offset, cases[i].size, &value), 0);
                assert_int_equal(access_to(b, SOFT_READ, BAR0, cases[i].offset, cases[i].size, &value), 0);
                assert_int_equal(value, ones);
        }
        assert_int_equal(edu_read(&b->edu, 0x00, 4), 0x010000ed);
}

static void configuration_space_names_the_device_and_only_the_command_is_writable(void **state) {
        struct bench *b = *state;
        uint64_t value;

        assert_int_equal(config_read(b, 0, 4), 0x11e81234);
        assert_int_equal(config_read(b, 0, 2), 0x1234);
        assert_int_equal(config_read(b, 3, 1), 0x11);
        assert_int_equal(config_read(b, 8, 4), 0x00ff0010);
        for (uint64_t offset = 0; offset < 256; offset += 8) {
                uint64_t before = config_read(b, offset, 8);

                value = UINT64_MAX;
                assert_int_equal(access_to(b, SOFT_WRITE, CONFIG, offset, 8, &value), 0);
                assert_int_equal(config_read(b, offset, 8), offset == 0 ? 0x0000040711e81234 : before);
        }
        value = 0;
        assert_int_equal(access_to(b, SOFT_WRITE, CONFIG, 5, 1, &value), 0);
        assert_int_equal(config_read(b, 4, 2), 0x0007);
        assert_int_equal(access_to(b, SOFT_WRITE, CONFIG, 4, 1, &value), 0);
        assert_int_equal(config_read(b, 4, 4), 0);
}

static void regions_have_the_sizes_that_they_say(void **state) {
        struct bench *b = *state;

        for (uint32_t region = 0; region < 12; region++) {
                uint64_t value = 77, expected = region == BAR0 ? 0x100000 : region == CONFIG ? 256 : 0;

                assert_int_equal(access_to(b, SOFT_INFO, region, 0, 0, &value), 0);
                assert_int_equal(value, expected);
        }
}

static void a_bad_access_is_answered_with_einval_and_changes_nothing(void **state) {
        static const struct {
                uint32_t op, region;
                uint64_t offset;
                uint32_t size;
        } cases[] = {
                { 0, BAR0, 0, 4 },
                { 4, BAR0, 0, 4 },
                { UINT32_MAX, BAR0, 0, 4 }, /* operations */
                { SOFT_READ, 1, 0, 4 },
                { SOFT_READ, 6, 0, 4 },
                { SOFT_READ, 8, 0, 4 },
                { SOFT_WRITE, UINT32_MAX, 0, 4 },
                { SOFT_READ, BAR0, 0, 0 },
                { SOFT_READ, BAR0, 0, 3 },
                { SOFT_READ, BAR0, 0, 16 }, /* sizes */
                { SOFT_READ, BAR0, 0, UINT32_MAX },
                { SOFT_WRITE, CONFIG, 0, 256 },
                { SOFT_READ, BAR0, 2, 4 },
                { SOFT_READ, BAR0, 0x84, 8 },
                { SOFT_WRITE, CONFIG, 3, 2 }, /* alignment */
                { SOFT_READ, BAR0, 0x100000, 1 },
                { SOFT_READ, BAR0, 0x100000, 8 },
                { SOFT_READ, CONFIG, 256, 1 },
                { SOFT_WRITE, CONFIG, 256, 4 },
                { SOFT_READ, BAR0, UINT64_MAX, 1 },
                { SOFT_READ, CONFIG, UINT64_MAX - 7, 8 },
        };
        struct bench *b = *state;

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                uint64_t value = 0;

                assert_int_equal(access_to(b, cases[i].op, cases[i].region, cases[i].offset, cases[i].size, &value),
                                 -EINVAL);
        }
        assert_int_equal(edu_read(&b->edu, 0, 4), 0x010000ed);
        assert_int_equal(config_read(b, 4, 2), 0x0006);
}

/* --- socket -------------------------------------------------------------------------------------------------------*/

static void a_message_of_the_wrong_size_is_answered_with_einval(void **state) {
        static const size_t sizes[] = { 1, 8, sizeof(struct soft_access) - 1, sizeof(struct soft_access) + 1, 4096 };
        struct bench *b = *state;
        union {
                uint8_t bytes[4096];
                struct soft_access access;
        } message = { .access = { .op = SOFT_READ, .region = BAR0, .size = 4 } };       /* good but for its size */

        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                struct soft_access answer;

                assert_int_equal(send(b->edu.fd, &message, sizes[i], MSG_NOSIGNAL), sizes[i]);
                assert_int_equal(recv(b->edu.fd, &answer, sizeof answer, 0), sizeof answer);
                assert_int_equal(answer.error, -EINVAL);
        }
        assert_int_equal(edu_read(&b->edu, 0, 4), 0x010000ed);
}

static void answers_come_in_order_with_the_cookie_of_the_question(void **state) {
        struct bench *b = *state;
        struct soft_access a;

        for (uint64_t i = 0; i < 16; i++) {
                a = (struct soft_access){ .op = SOFT_READ, .cookie = i * 3, .region = BAR0, .size = 4 };
                assert_int_equal(send(b->edu.fd, &a, sizeof a, MSG_NOSIGNAL), sizeof a);
        }
        for (uint64_t i = 0; i < 16; i++) {
                assert_int_equal(recv(b->edu.fd, &a, sizeof a, 0), sizeof a);
                assert_int_equal(a.cookie, i * 3);
                assert_int_equal(a.value, 0x010000ed);
        }
}

/* One asks until nothing more fits and never listens; another is served, and the first finds all its answers. */
static void a_client_that_does_not_read_delays_nobody_and_loses_nothing(void **state) {
        struct bench *b = *state;
        struct soft_access a = { .op = SOFT_READ, .region = BAR0, .size = 4 };
        uint64_t sent = 0, start;
        struct edu mute;

        assert_true(edu_attach(&mute, b->device));
        for (unsigned quiet = 0; quiet < 20;) {
                a.cookie = sent;
                if (send(mute.fd, &a, sizeof a, MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof a) {
                        sent++;
                        quiet = 0;
                } else {
                        quiet++;
                        usleep(1000);
                }
        }
        assert_true(sent > 2);
        start = clock_us(CLOCK_PROCESS_CPUTIME_ID);
        usleep(300000);         /* the device sleeps too */
        assert_true(clock_us(CLOCK_PROCESS_CPUTIME_ID) - start < 100000);
        for (unsigned i = 0; i < 100; i++)
                assert_int_equal(edu_read(&b->edu, 0, 4), 0x010000ed);
        for (uint64_t i = 0; i < sent; i++) {
                assert_int_equal(recv(mute.fd, &a, sizeof a, 0), sizeof a);
                assert_int_equal(a.cookie, i);
        }
        edu_detach(&mute);
}

static void attached_fds_are_dropped(void **state) {
        struct bench *b = *state;
        int pair[2];
        struct soft_access a = { .op = SOFT_READ, .region = BAR0, .size = 4 };
        union { char bytes[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = { 0 };
        struct iovec iov = { &a, sizeof a };
        struct msghdr msg = {
                .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control
        };
        struct pollfd hang_up;

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        control.align = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)),
                                          .cmsg_level = SOL_SOCKET,
                                          .cmsg_type = SCM_RIGHTS };
        memcpy(CMSG_DATA(&control.align), &pair[0], sizeof(int));
        assert_int_equal(sendmsg(b->edu.fd, &msg, MSG_NOSIGNAL), sizeof a);
        fd_close(pair[0]);
        assert_int_equal(recv(b->edu.fd, &a, sizeof a, 0), sizeof a);
        assert_int_equal(a.value, 0x010000ed);
        hang_up = (struct pollfd){ .fd = pair[1], .events = POLLIN };
        assert_int_equal(poll(&hang_up, 1, 5000), 1);
        assert_true(hang_up.revents & POLLHUP);
        fd_close(pair[1]);
}

static bool is_closed(struct edu *e) {
        struct pollfd p = { .fd = e->fd, .events = POLLIN };

        return poll(&p, 1, 5000) == 1 && (p.revents & POLLHUP);
}

static void four_connections_live_and_a_fifth_closes_the_oldest(void **state) {
        struct bench *b = *state;
        struct edu more[4];

        for (unsigned i = 0; i < 3; i++)
                assert_true(edu_attach(&more[i], b->device));
        assert_int_equal(edu_read(&b->edu, 0, 4), 0x010000ed);
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(edu_read(&more[i], 0, 4), 0x010000ed);
        assert_true(edu_attach(&more[3], b->device));
        assert_true(is_closed(&b->edu));
        for (unsigned i = 0; i < 4; i++)
                assert_int_equal(edu_read(&more[i], 0, 4), 0x010000ed);
        edu_detach(&more[1]);   /* one that goes makes room: now nobody has to */
        usleep(10000);
        edu_detach(&b->edu);
        assert_true(edu_attach(&b->edu, b->device));
        assert_int_equal(edu_read(&more[0], 0, 4), 0x010000ed);
        for (unsigned i = 0; i < 4; i++)
                edu_detach(&more[i]);
}

static void many_connections_at_once_leave_the_newest_four(void **state) {
        struct bench *b = *state;
        enum device_fd_kind kind;
        struct edu many[20];
        struct refusal r;

        for (unsigned i = 0; i < 20; i++) {
                many[i] = (struct edu){ .kind = DEVICE_FD_SOFT };
                assert_int_equal(device_client_fd(b->device, &many[i].fd, &kind, &r), 0);
        }
        for (unsigned i = 0; i < 16; i++)
                assert_true(is_closed(&many[i]));
        for (unsigned i = 16; i < 20; i++)
                assert_int_equal(edu_read(&many[i], 0, 4), 0x010000ed);
        for (unsigned i = 0; i < 20; i++)
                edu_detach(&many[i]);
}

static void a_device_lives_on_without_connections(void **state) {
        struct bench *b = *state;

        edu_write(&b->edu, 0x04, 4, 1);
        edu_detach(&b->edu);
        usleep(10000);
        assert_true(edu_attach(&b->edu, b->device));
        assert_int_equal(edu_read(&b->edu, 0x04, 4), 0xfffffffe);
}

/* --- DMA ----------------------------------------------------------------------------------------------------------*/

static void fill(uint8_t *p, size_t n, unsigned seed) {
        for (size_t i = 0; i < n; i++)
                p[i] = (uint8_t)(i * 7 + seed);
}

static void a_transfer_of_the_whole_buffer_crosses_pages_both_ways(void **state) {
        struct bench *b = *state;
        uint8_t expected[4096];

        /* neighbours in IOVA that are not neighbours in memory */
        map_pages(b, IOVA, 3, 1, 3);
        map_pages(b, IOVA + PAGE, 1, 1, 3);
        map_pages(b, IOVA + 2 * PAGE, 8, 2, 3);
        fill(expected, sizeof expected, 5);
        memcpy(b->memory + 3 * PAGE + 1000, expected, PAGE - 1000);
        memcpy(b->memory + PAGE, expected + PAGE - 1000, 1000);
        assert_true(edu_pull(&b->edu, IOVA + 1000, PAGE));
        assert_true(edu_push(&b->edu, IOVA + 2 * PAGE + 77, PAGE));
        assert_memory_equal(b->memory + 8 * PAGE + 77, expected, PAGE);
        assert_int_equal(b->memory[8 * PAGE + 76], 0);
        assert_int_equal(b->memory[9 * PAGE + 77], 0);
        assert_int_equal(faults(b, NULL), 0);
}

static void a_transfer_uses_the_named_part_of_the_buffer(void **state) {
        struct bench *b = *state;

        map_pages(b, IOVA, 0, 4, 3);
        fill(b->memory, 16, 1);
        edu_start(&b->edu, false, IOVA, 4080, 16);
        assert_true(edu_wait(&b->edu));
        edu_start(&b->edu, true, IOVA + PAGE, 4080, 16);
        assert_true(edu_wait(&b->edu));
        assert_memory_equal(b->memory + PAGE, b->memory, 16);
        edu_start(&b->edu, true, IOVA + 2 * PAGE, 0, 16);
        assert_true(edu_wait(&b->edu));
        assert_int_equal(b->memory[2 * PAGE + 1], 0);
}

static void a_transfer_that_leaves_the_buffer_moves_nothing(void **state) {
        static const struct { uint64_t address, n; } cases[] = { { 0x40000, 4097 }, { 0x40001, 4096 }, { 0x3ffff, 1 },
                { 0x41000, 1 }, { 0, 4096 }, { UINT64_MAX, 1 }, { 0x40000, UINT64_MAX }, { 0x40fff, 2 } };
        struct bench *b = *state;

        map_pages(b, IOVA, 0, 2, 3);
        memset(b->memory, 0xaa, PAGE);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                for (unsigned to_memory = 0; to_memory < 2; to_memory++) {
                        edu_start(&b->edu, to_memory, IOVA, cases[i].address - EDU_BUFFER, cases[i].n);
                        assert_true(edu_wait(&b->edu));
                        assert_int_equal(b->memory[0], 0xaa);
                }
        assert_int_equal(faults(b, NULL), 0);
        assert_true(edu_push(&b->edu, IOVA, 4096));
        assert_int_equal(b->memory[0], 0);
}

static void a_transfer_of_nothing_is_done_and_no_fault(void **state) {
        struct bench *b = *state;

        assert_true(edu_push(&b->edu, IOVA, 0));
        assert_int_equal(faults(b, NULL), 0);
}

static void faults_are_recorded_with_address_access_and_reason(void **state) {
        struct bench *b = *state;

        map_pages(b, IOVA, 0, 1, BACKEND_ACCESS_READ);
        map_pages(b, IOVA + PAGE, 1, 1, BACKEND_ACCESS_WRITE);
        assert_true(edu_push(&b->edu, IOVA + 16, 16));
        assert_fault(b, 1, IOVA + 16, BACKEND_ACCESS_WRITE, SOFT_FAULT_NO_WRITE);
        assert_true(edu_pull(&b->edu, IOVA + PAGE + 8, 16));
        assert_fault(b, 2, IOVA + PAGE + 8, BACKEND_ACCESS_READ, SOFT_FAULT_NO_READ);
        assert_true(edu_pull(&b->edu, IOVA + 2 * PAGE, 16));
        assert_fault(b, 3, IOVA + 2 * PAGE, BACKEND_ACCESS_READ, SOFT_FAULT_NOT_MAPPED);
        assert_true(edu_push(&b->edu, UINT64_C(1) << 48, 16));
        assert_fault(b, 4, UINT64_C(1) << 48, BACKEND_ACCESS_WRITE, SOFT_FAULT_NOT_MAPPED);
        assert_true(edu_push(&b->edu, UINT64_MAX, 16));
        assert_fault(b, 5, UINT64_MAX, BACKEND_ACCESS_WRITE, SOFT_FAULT_NOT_MAPPED);
}

static void what_was_moved_before_a_fault_stays_moved(void **state) {
        struct bench *b = *state;

        map_pages(b, IOVA, 0, 1, 3);
        fill(b->memory, 64, 9);
        assert_true(edu_pull(&b->edu, IOVA, 64));
        memset(b->memory, 0xaa, 2 * PAGE);
        assert_true(edu_push(&b->edu, IOVA + PAGE - 32, 64));
        assert_fault(b, 1, IOVA + PAGE, BACKEND_ACCESS_WRITE, SOFT_FAULT_NOT_MAPPED);
        assert_int_equal(b->memory[PAGE - 33], 0xaa);
        assert_int_equal(b->memory[PAGE - 32], 9);
        assert_int_equal(b->memory[PAGE - 1], (uint8_t)(31 * 7 + 9));
        assert_int_equal(b->memory[PAGE], 0xaa);
}

static void the_last_64_faults_are_kept_in_order(void **state) {
        struct bench *b = *state;
        struct soft_fault all[SOFT_FAULTS_KEPT];
        uint64_t total;

        for (uint64_t i = 0; i < 70; i++)
                assert_true(edu_push(&b->edu, i * PAGE, 4));
        assert_int_equal(soft_faults(b->container, all, &total), 64);
        assert_int_equal(total, 70);
        for (uint64_t i = 0; i < 64; i++)
                assert_int_equal(all[i].iova, (i + 6) * PAGE);
}

static void without_bus_mastering_nothing_moves(void **state) {
        struct bench *b = *state;

        map_pages(b, IOVA, 0, 1, 3);
        memset(b->memory, 0xaa, 16);
        assert_true(edu_bus_master(&b->edu, false));
        assert_true(edu_push(&b->edu, IOVA, 16));
        assert_int_equal(b->memory[0], 0xaa);
        assert_true(edu_push(&b->edu, IOVA + PAGE, 16));
        assert_int_equal(faults(b, NULL), 0);           /* it never got as far as the IOMMU */
        assert_true(edu_bus_master(&b->edu, true));
        assert_true(edu_push(&b->edu, IOVA, 16));
        assert_int_equal(b->memory[0], 0);
}

/* The file shrinks under a mapping: the process lives, what is still there moves, the rest is a fault. */
static void memory_that_was_truncated_is_a_fault_and_no_signal(void **state) {
        struct bench *b = *state;

        map_pages(b, IOVA, 0, 4 * HOST_PAGE / PAGE, 3);
        fill(b->memory, 64, 3);
        assert_true(edu_pull(&b->edu, IOVA, 64));
        memset(b->memory, 0xaa, HOST_PAGE);
        assert_int_equal(ftruncate(b->memfd, (off_t)HOST_PAGE), 0);
        assert_true(edu_push(&b->edu, IOVA + 2 * HOST_PAGE, 64));
        assert_fault(b, 1, IOVA + 2 * HOST_PAGE, BACKEND_ACCESS_WRITE, SOFT_FAULT_MEMORY);
        assert_true(edu_pull(&b->edu, IOVA + HOST_PAGE, 64));
        assert_fault(b, 2, IOVA + HOST_PAGE, BACKEND_ACCESS_READ, SOFT_FAULT_MEMORY);
        assert_true(edu_push(&b->edu, IOVA + HOST_PAGE - 16, 64));
        assert_fault(b, 3, IOVA + HOST_PAGE, BACKEND_ACCESS_WRITE, SOFT_FAULT_MEMORY);
        assert_int_equal(b->memory[HOST_PAGE - 17], 0xaa);
        assert_int_equal(b->memory[HOST_PAGE - 16], 3);
        assert_int_equal(ftruncate(b->memfd, (off_t)MEMORY_SIZE), 0);
        assert_true(edu_push(&b->edu, IOVA + 2 * HOST_PAGE, 64));    /* and nothing of a failed copy comes out later */
        for (unsigned i = 0; i < 64; i++)
                assert_int_equal(b->memory[2 * HOST_PAGE + i], (uint8_t)(i * 7 + 3));
        assert_int_equal(faults(b, NULL), 3);
}

/* The same within one superpage, which spans many pages of the host. */
static void memory_that_was_truncated_within_a_superpage_is_a_fault(void **state) {
        const uint64_t size = UINT64_C(2) << 20;
        struct bench *b = *state;
        uint8_t *memory;
        struct backend_mapping m = { .iova = 8 * size, .length = size, .access = 3, .fd = b->memfd };
        struct refusal r;

        assert_int_equal(ftruncate(b->memfd, (off_t)size), 0);
        memory = m.vaddr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, b->memfd, 0);
        assert_ptr_not_equal(memory, MAP_FAILED);
        assert_int_equal(container_map(b->container, &m, &r), 0);
        memset(memory, 0xaa, 4 * HOST_PAGE);
        assert_int_equal(ftruncate(b->memfd, (off_t)(3 * HOST_PAGE)), 0);
        assert_true(edu_push(&b->edu, m.iova + 3 * HOST_PAGE - 100, 3000));
        assert_fault(b, 1, m.iova + 3 * HOST_PAGE, BACKEND_ACCESS_WRITE, SOFT_FAULT_MEMORY);
        assert_int_equal(memory[3 * HOST_PAGE - 101], 0xaa);
        assert_int_equal(memory[3 * HOST_PAGE - 100], 0);
        assert_int_equal(memory[3 * HOST_PAGE - 1], 0);
        assert_int_equal(container_unmap(b->container, m.iova, size, &r), 0);
        munmap(memory, size);
}

/* 2^64 - 1 and 0 are no neighbours for a device, even if both are mapped. */
static void a_transfer_does_not_wrap_around(void **state) {
        const uint64_t size = 65536;
        struct backend_open o = { .kind = BACKEND_SOFT, .container_fd = -1, .group_fd = -1,
                                  .soft = { .page_sizes = size, .aperture_last = UINT64_MAX, .dma_delay_us = 50 } };
        struct bench *b = *state;
        struct backend_mapping m = { .length = size, .vaddr = b->memory, .fd = b->memfd, .access = 3 };
        struct container *ours = b->container;
        struct device *d;
        struct refusal r;
        struct edu edu;

        assert_int_equal(container_open(&o, &b->container, &r), 0);
        assert_int_equal(device_open(b->container, "edu1", &d, &r), 0);
        assert_true(edu_attach(&edu, d));
        assert_int_equal(container_map(b->container, &m, &r), 0);
        m.iova = UINT64_MAX - size + 1;
        assert_int_equal(container_map(b->container, &m, &r), 0);
        memset(b->memory, 0xaa, size);
        assert_true(edu_push(&edu, UINT64_MAX - 15, 32));
        assert_int_equal(b->memory[size - 16], 0);
        assert_int_equal(b->memory[size - 1], 0);
        assert_int_equal(b->memory[0], 0xaa);
        assert_fault(b, 1, 0, BACKEND_ACCESS_WRITE, SOFT_FAULT_NOT_MAPPED);
        edu_detach(&edu);
        container_close(b->container);
        b->container = ours;
}

/* The holder's own mmap may be read-only; a device-write mapping of it would be the holder's mistake, not our death. */
static void memory_that_the_process_cannot_write_is_a_fault_and_no_signal(void **state) {
        struct bench *b = *state;
        uint8_t *read_only = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, b->memfd, 0);
        struct backend_mapping m = { .iova = IOVA, .length = PAGE, .vaddr = read_only, .fd = b->memfd, .access = 3 };
        struct refusal r;

        assert_ptr_not_equal(read_only, MAP_FAILED);
        assert_int_equal(container_map(b->container, &m, &r), 0);
        assert_true(edu_push(&b->edu, IOVA, 64));
        assert_fault(b, 1, IOVA, BACKEND_ACCESS_WRITE, SOFT_FAULT_MEMORY);
        assert_int_equal(container_unmap(b->container, IOVA, PAGE, &r), 0);
        munmap(read_only, PAGE);
}

static void a_transfer_takes_its_time_and_locks_the_registers(void **state) {
        struct bench *b = *state;
        uint64_t start = now_us();

        map_pages(b, IOVA, 0, 2, 3);
        memset(b->memory, 0xaa, 2 * PAGE);
        edu_start(&b->edu, true, IOVA, 0, 16);
        assert_int_equal(edu_read(&b->edu, 0x98, 8), 3);
        edu_write(&b->edu, 0x88, 8, IOVA + PAGE);
        assert_int_equal(edu_read(&b->edu, 0x88, 8), IOVA);
        assert_int_equal(b->memory[0], 0xaa);
        assert_true(edu_wait(&b->edu));
        assert_true(now_us() - start >= 200000);
        assert_int_equal(edu_read(&b->edu, 0x98, 8), 2);
        assert_int_equal(b->memory[0], 0);
        assert_int_equal(b->memory[PAGE], 0xaa);
}

/* It is translated when it moves, not when it was started. */
static void an_unmap_before_the_transfer_moves_stops_it(void **state) {
        struct bench *b = *state;
        struct refusal r;

        map_pages(b, IOVA, 0, 1, 3);
        memset(b->memory, 0xaa, PAGE);
        edu_start(&b->edu, true, IOVA, 0, 16);
        assert_int_equal(container_unmap(b->container, IOVA, PAGE, &r), 0);
        assert_true(edu_wait(&b->edu));
        assert_int_equal(b->memory[0], 0xaa);
        assert_fault(b, 1, IOVA, BACKEND_ACCESS_WRITE, SOFT_FAULT_NOT_MAPPED);
}

static void closing_a_device_does_not_wait_for_its_transfer(void **state) {
        struct bench *b = *state;
        uint64_t start = now_us();

        edu_start(&b->edu, true, IOVA, 0, 16);
        b->device = device_close(b->device);
        assert_true(now_us() - start < 150000);
        assert_true(is_closed(&b->edu));
}

static void several_devices_of_a_container_are_independent(void **state) {
        struct bench *b = *state;
        struct device *second;
        struct edu edu;
        struct refusal r;

        assert_int_equal(device_open(b->container, "edu1", &second, &r), 0);
        assert_true(edu_attach(&edu, second));
        map_pages(b, IOVA, 0, 2, 3);
        fill(b->memory, 16, 1);
        assert_true(edu_pull(&b->edu, IOVA, 16));
        assert_true(edu_push(&edu, IOVA, 16));          /* its own buffer: zeroes */
        assert_int_equal(b->memory[1], 0);
        assert_true(edu_push(&b->edu, IOVA + PAGE, 16));
        assert_int_equal(b->memory[PAGE + 1], 8);
        device_close(second);
        assert_true(is_closed(&edu));
        edu_detach(&edu);
        assert_int_equal(edu_read(&b->edu, 0, 4), 0x010000ed);
}

int main(void) {
#define FAST(f) cmocka_unit_test_setup_teardown(f, bench_fast, bench_end)
#define SLOW(f) cmocka_unit_test_setup_teardown(f, bench_slow, bench_end)
        const struct CMUnitTest tests[] = {
                FAST(identification_liveness_and_factorial_are_those_of_edu),
                FAST(dma_registers_take_four_or_eight_bytes),
                FAST(what_is_no_register_reads_as_ones_and_ignores_writes),
                FAST(configuration_space_names_the_device_and_only_the_command_is_writable),
                FAST(regions_have_the_sizes_that_they_say),
                FAST(a_bad_access_is_answered_with_einval_and_changes_nothing),
                FAST(a_message_of_the_wrong_size_is_answered_with_einval),
                FAST(answers_come_in_order_with_the_cookie_of_the_question),
                FAST(a_client_that_does_not_read_delays_nobody_and_loses_nothing),
                FAST(attached_fds_are_dropped),
                FAST(four_connections_live_and_a_fifth_closes_the_oldest),
                FAST(many_connections_at_once_leave_the_newest_four),
                FAST(a_device_lives_on_without_connections),
                FAST(a_transfer_of_the_whole_buffer_crosses_pages_both_ways),
                FAST(a_transfer_uses_the_named_part_of_the_buffer),
                FAST(a_transfer_that_leaves_the_buffer_moves_nothing),
                FAST(a_transfer_of_nothing_is_done_and_no_fault),
                FAST(faults_are_recorded_with_address_access_and_reason),
                FAST(what_was_moved_before_a_fault_stays_moved),
                FAST(the_last_64_faults_are_kept_in_order),
                FAST(without_bus_mastering_nothing_moves),
                FAST(memory_that_was_truncated_is_a_fault_and_no_signal),
                FAST(memory_that_was_truncated_within_a_superpage_is_a_fault),
                FAST(a_transfer_does_not_wrap_around),
                FAST(memory_that_the_process_cannot_write_is_a_fault_and_no_signal),
                SLOW(a_transfer_takes_its_time_and_locks_the_registers),
                SLOW(an_unmap_before_the_transfer_moves_stops_it),
                SLOW(closing_a_device_does_not_wait_for_its_transfer),
                FAST(several_devices_of_a_container_are_independent),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
