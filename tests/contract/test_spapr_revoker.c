/* SPDX-License-Identifier: Apache-2.0 */
/* link: backend util */
/*
 * A holder that is killed leaves nothing reachable on sPAPR, where the kernel takes a container's requests from one address
 * space alone. Holders are real processes here and are really killed; the kernel is played, in memory that all share, and
 * keeps to that rule: it knows the address space by a page of it, which is not shared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backend/backend.h"
#include "backend/revoke.h"
#include "children.h"
#include "util/cleanup.h"

#define K UINT64_C(1024)
#define G (K * K * K)
#define HIGH UINT64_C(0x800000000000000)
#define PATIENCE_MS 60000
#define OBJECT ((uint8_t *)0x7f0000000000)      /* never touched */

/* --- the kernel ---------------------------------------------------------------------------------------------------*/

struct kernel {
        atomic_uint low, high;          /* 1: there is such a window */
        atomic_uint mapped, registered, not_ours;
        atomic_uint die_in_create;      /* the process that creates is killed, once the window is there */
        atomic_uint hold_remove;        /* the next removal waits for it to be 0 again */
        atomic_uint removals;
        atomic_int owner;               /* token of the address space that came first */
};

static struct kernel *kernel;           /* shared */
static int my_space;                    /* of this address space */

static int remove_at(uint64_t start) {
        atomic_uint *w = start == 0 ? &kernel->low : start == HIGH ? &kernel->high : NULL;

        while (atomic_load(&kernel->hold_remove))
                usleep(1000);
        if (!w || !atomic_load(w))
                return -EINVAL;
        atomic_fetch_add(&kernel->removals, 1);
        atomic_store(w, 0);
        if (!atomic_load(&kernel->low) && !atomic_load(&kernel->high))
                atomic_store(&kernel->mapped, 0);
        return 0;
}

static int create(struct vfio_iommu_spapr_tce_create *c) {
        atomic_store(&kernel->high, 1);
        c->start_addr = HIGH;
        if (atomic_load(&kernel->die_in_create))
                kill(getpid(), SIGKILL);
        return 0;
}

static int perform(unsigned long request, void *p) {
        struct vfio_iommu_spapr_tce_info *info = p;

        switch (request) {
        case VFIO_GET_API_VERSION:
                return VFIO_API_VERSION;
        case VFIO_CHECK_EXTENSION:
                return (unsigned long)p == VFIO_SPAPR_TCE_v2_IOMMU;
        case VFIO_GROUP_GET_STATUS:
                ((struct vfio_group_status *)p)->flags = VFIO_GROUP_FLAGS_VIABLE;
                return 0;
        case VFIO_GROUP_SET_CONTAINER:
        case VFIO_SET_IOMMU:
                return 0;
        default:
                break;
        }
        if (my_space != atomic_load(&kernel->owner)) {
                atomic_fetch_add(&kernel->not_ours, 1);
                return -EPERM;
        }
        switch (request) {
        case VFIO_IOMMU_SPAPR_TCE_GET_INFO:
                *info = (struct vfio_iommu_spapr_tce_info){
                        .argsz = sizeof *info, .flags = VFIO_IOMMU_SPAPR_INFO_DDW, .dma32_window_size = (uint32_t)G,
                        .ddw = { .pgsizes = 0x1211000, .max_dynamic_windows_supported = 2, .levels = 1 } };
                return 0;
        case VFIO_IOMMU_MAP_DMA:
                atomic_fetch_add(&kernel->mapped, 1);
                return 0;
        case VFIO_IOMMU_UNMAP_DMA:
                atomic_store(&kernel->mapped, 0);
                return 0;
        case VFIO_IOMMU_SPAPR_REGISTER_MEMORY:
                atomic_fetch_add(&kernel->registered, 1);
                return 0;
        case VFIO_IOMMU_SPAPR_UNREGISTER_MEMORY:
                assert_int_equal(atomic_load(&kernel->mapped), 0);
                atomic_fetch_sub(&kernel->registered, 1);
                return 0;
        case VFIO_IOMMU_SPAPR_TCE_CREATE:
                return create(p);
        case VFIO_IOMMU_SPAPR_TCE_REMOVE:
                return remove_at(((struct vfio_iommu_spapr_tce_remove *)p)->start_addr);
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

/* --- holders ------------------------------------------------------------------------------------------------------*/

struct holder {
        pid_t pid, revoker;
        int socket;                     /* its other end is the holder's alone, like a link */
        int revoker_fd;
        struct container *container;    /* in the holder */
};

static void send_fd(int socket, int fd) {
        char control[CMSG_SPACE(sizeof fd)] = { 0 }, byte = 'f';
        struct iovec iov = { &byte, 1 };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
        if (sendmsg(socket, &m, 0) != 1)
                _exit(3);
}

static int receive_fd(int socket) {
        char control[CMSG_SPACE(sizeof(int))], byte;
        struct iovec iov = { &byte, 1 };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
        int fd;

        assert_int_equal(recvmsg(socket, &m, MSG_CMSG_CLOEXEC), 1);
        assert_non_null(CMSG_FIRSTHDR(&m));
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
        return fd;
}

/* Opens a container with a mapping in each of two windows, and does what it is told: a letter at a time. */
static _Noreturn void be_holder(int socket) {
        struct backend_open o = { .kind = BACKEND_VFIO_SPAPR, .container_fd = eventfd(0, 0), .group_fd = eventfd(0, 0) };
        struct backend_window want = { WINDOW_ANYWHERE, 4 * G, 16, 0 }, w;
        struct backend_mapping m = { .iova = 64 * K, .length = 64 * K, .vaddr = OBJECT, .fd = -1, .access = 3,
                                     .memory_page = 64 * K, .object_vaddr = OBJECT, .object_length = 64 * K };
        struct container *c;
        struct refusal r;
        char order;
        int fd;

        my_space = 1;
        atomic_store(&kernel->owner, 1);
        if (container_open(&o, &c, &r) < 0 || container_revoker_fd(c, &fd, &r) < 0)
                _exit(1);
        send_fd(socket, fd);
        fd_close(fd);
        while (read(socket, &order, 1) == 1) {
                if (order == 'w' && container_window_create(c, &want, &w, &r) < 0)
                        _exit(2);
                if (order == 'm') {
                        m.iova = 64 * K;
                        if (container_map(c, &m, &r) < 0)
                                _exit(2);
                        m.iova = HIGH;
                        if (container_map(c, &m, &r) < 0)
                                _exit(2);
                }
                if (order == 'c')
                        c = container_close(c);
                if (order == 'x')
                        exit(0);
                if (order == 'a')
                        abort();
                if (write(socket, &order, 1) != 1)
                        break;
        }
        _exit(0);
}

static void told(struct holder *h, char order) {
        char answer;

        assert_int_equal(write(h->socket, &order, 1), 1);
        assert_int_equal(read(h->socket, &answer, 1), 1);
        assert_int_equal(answer, order);
}

static struct holder start_holder(void) {
        struct holder h = { 0 };
        int pair[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        h.pid = fork();
        assert_true(h.pid >= 0);
        if (h.pid == 0) {
                fd_close(pair[0]);
                be_holder(pair[1]);
        }
        fd_close(pair[1]);
        h.socket = pair[0];
        h.revoker_fd = receive_fd(h.socket);
        assert_true(revoke_is_revoker_fd(h.revoker_fd));
        h.revoker = child_of(h.pid, 0);
        assert_true(h.revoker > 0);
        return h;
}

static struct holder start_busy_holder(void) {
        struct holder h = start_holder();

        told(&h, 'w');
        told(&h, 'm');
        assert_int_equal(atomic_load(&kernel->mapped), 2);
        assert_int_equal(atomic_load(&kernel->registered), 1);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, 0), -EINPROGRESS);
        return h;
}

static void reap(pid_t pid, int *ret_status) {
        assert_int_equal(waitpid(pid, ret_status, 0), pid);
}

static void assert_nothing_reachable(void) {
        assert_int_equal(atomic_load(&kernel->low), 0);
        assert_int_equal(atomic_load(&kernel->high), 0);
        assert_int_equal(atomic_load(&kernel->mapped), 0);
        assert_int_equal(atomic_load(&kernel->registered), 0);
        assert_int_equal(atomic_load(&kernel->not_ours), 0);
}

static void end(struct holder *h) {
        fd_close(h->socket);
        fd_close(h->revoker_fd);
        assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);       /* orphans come to us: nobody is left, nor a zombie */
        assert_int_equal(errno, ECHILD);
}

static int boot(void **state) {
        (void)state;
        memset(kernel, 0, sizeof *kernel);
        atomic_store(&kernel->low, 1);
        return 0;
}

/* --- tests --------------------------------------------------------------------------------------------------------*/

static void a_killed_holder_leaves_nothing_reachable(void **state) {
        struct holder h = start_busy_holder();
        int status;

        (void)state;
        kill(h.pid, SIGKILL);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, PATIENCE_MS), 0);
        assert_nothing_reachable();
        assert_int_equal(atomic_load(&kernel->removals), 2);
        reap(h.pid, &status);
        reap(h.revoker, &status);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, 0), 0);        /* and it stays said */
        end(&h);
}

/* However it goes: also without a goodbye to its containers. */
static void so_does_one_that_exits_or_crashes(void **state) {
        static const char how[] = { 'x', 'a' };

        for (size_t i = 0; i < sizeof how; i++) {
                struct holder h;

                boot(state);
                h = start_busy_holder();
                assert_int_equal(write(h.socket, &how[i], 1), 1);
                assert_int_equal(revoke_by_revoker(h.revoker_fd, PATIENCE_MS), 0);
                assert_nothing_reachable();
                reap(h.pid, NULL);
                reap(h.revoker, NULL);
                end(&h);
        }
}

/* The window is there and nobody has been told where. */
static void a_window_that_was_being_created_is_removed(void **state) {
        struct holder h = start_holder();

        (void)state;
        atomic_store(&kernel->die_in_create, 1);
        assert_int_equal(write(h.socket, "w", 1), 1);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, PATIENCE_MS), 0);
        assert_nothing_reachable();
        assert_int_equal(atomic_load(&kernel->removals), 2);
        reap(h.pid, NULL);
        reap(h.revoker, NULL);
        end(&h);
}

static void an_orderly_end_leaves_no_process_and_says_revoked(void **state) {
        struct holder h = start_busy_holder();

        (void)state;
        told(&h, 'c');
        assert_int_equal(revoke_by_revoker(h.revoker_fd, 0), 0);
        assert_int_equal(atomic_load(&kernel->mapped), 0);
        assert_int_equal(atomic_load(&kernel->registered), 0);
        assert_int_equal(atomic_load(&kernel->removals), 0);            /* windows go with the container */
        assert_int_equal(child_of(h.pid, 0), 0);                        /* no zombie of the holder's either */
        kill(h.pid, SIGKILL);
        reap(h.pid, NULL);
        end(&h);
}

static unsigned count_fds(pid_t pid) {
        char path[64];
        unsigned n = 0;
        DIR *d;

        (void)snprintf(path, sizeof path, "/proc/%d/fd", pid);
        d = opendir(path);
        assert_non_null(d);
        for (struct dirent *e; (e = readdir(d));)
                n += e->d_name[0] != '.';
        closedir(d);
        return n;
}

static void it_has_a_name_and_three_fds(void **state) {
        struct holder h = start_busy_holder();
        char path[64], name[32] = "";
        FILE *f;

        (void)state;
        (void)snprintf(path, sizeof path, "/proc/%d/comm", h.revoker);
        f = fopen(path, "re");
        assert_non_null(f);
        assert_non_null(fgets(name, sizeof name, f));
        (void)fclose(f);
        assert_string_equal(name, "iommud-revoker\n");
        assert_int_equal(count_fds(h.revoker), 3);
        kill(h.pid, SIGKILL);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, PATIENCE_MS), 0);
        reap(h.pid, NULL);
        reap(h.revoker, NULL);
        end(&h);
}

/* Whoever has the other end of a holder's socket hears at once that it died, however long the revocation takes. */
static void the_holders_sockets_end_with_the_holder(void **state) {
        struct holder h = start_busy_holder();
        struct pollfd p = { .fd = h.socket, .events = POLLIN };
        char byte;

        (void)state;
        atomic_store(&kernel->hold_remove, 1);
        kill(h.pid, SIGKILL);
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        assert_true(read(h.socket, &byte, 1) <= 0);
        reap(h.pid, NULL);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, 50), -EINPROGRESS);
        atomic_store(&kernel->hold_remove, 0);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, PATIENCE_MS), 0);
        assert_nothing_reachable();
        reap(h.revoker, NULL);
        end(&h);
}

static pid_t wait_for_child(pid_t parent, pid_t other_than) {
        for (unsigned waited = 0; waited < PATIENCE_MS; waited++) {
                pid_t pid = child_of(parent, other_than);

                if (pid)
                        return pid;
                usleep(1000);
        }
        return 0;
}

static void a_revoker_that_is_killed_is_replaced(void **state) {
        struct holder h = start_busy_holder();
        pid_t second;

        (void)state;
        kill(h.revoker, SIGKILL);
        second = wait_for_child(h.pid, h.revoker);
        assert_true(second > 0);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, 0), -EINPROGRESS);
        kill(h.pid, SIGKILL);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, PATIENCE_MS), 0);
        assert_nothing_reachable();
        reap(h.pid, NULL);
        reap(second, NULL);
        end(&h);
}

/* What is not promised, and how it shows. */
static void when_both_are_killed_nobody_says_revoked(void **state) {
        struct holder h = start_busy_holder();

        (void)state;
        kill(h.pid, SIGSTOP);           /* a holder that runs would start another one */
        kill(h.revoker, SIGKILL);
        kill(h.pid, SIGKILL);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, PATIENCE_MS), -ENOTRECOVERABLE);
        assert_int_equal(atomic_load(&kernel->mapped), 2);
        reap(h.pid, NULL);
        while (waitpid(-1, NULL, 0) > 0)
                ;
        end(&h);
}

/* The rule that all of this is for. */
static void another_process_cannot_do_it(void **state) {
        struct holder h = start_busy_holder();

        (void)state;
        assert_int_equal(revoke_container_fd(h.revoker_fd /* any: the kernel is played */), -EPERM);
        kill(h.pid, SIGKILL);
        reap(h.pid, NULL);
        assert_int_equal(revoke_by_revoker(h.revoker_fd, PATIENCE_MS), 0);
        reap(h.revoker, NULL);
        atomic_store(&kernel->not_ours, 0);
        end(&h);
}

/* At many moments of its life, of which each is the wrong one. */
static void at_any_moment(void **state) {
        for (unsigned i = 0; i < 40; i++) {
                struct holder h;

                boot(state);
                h = start_holder();
                assert_int_equal(write(h.socket, "wm", 2), 2);
                usleep(i * 23 % 1000);
                kill(h.pid, SIGKILL);
                assert_int_equal(revoke_by_revoker(h.revoker_fd, PATIENCE_MS), 0);
                assert_int_equal(atomic_load(&kernel->low) + atomic_load(&kernel->high), 0);
                assert_int_equal(atomic_load(&kernel->mapped), 0);
                reap(h.pid, NULL);
                reap(h.revoker, NULL);
                end(&h);
        }
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup(f, boot)
        const struct CMUnitTest tests[] = {
                TEST(a_killed_holder_leaves_nothing_reachable),
                TEST(so_does_one_that_exits_or_crashes),
                TEST(a_window_that_was_being_created_is_removed),
                TEST(an_orderly_end_leaves_no_process_and_says_revoked),
                TEST(it_has_a_name_and_three_fds),
                TEST(the_holders_sockets_end_with_the_holder),
                TEST(a_revoker_that_is_killed_is_replaced),
                TEST(when_both_are_killed_nobody_says_revoked),
                TEST(another_process_cannot_do_it),
                TEST(at_any_moment),
        };

        if (WHY_NO_REVOKERS)
                return skip_all(WHY_NO_REVOKERS);
        kernel = mmap(NULL, sizeof *kernel, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (kernel == MAP_FAILED || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
                return EXIT_FAILURE;
        (void)signal(SIGPIPE, SIG_IGN);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
