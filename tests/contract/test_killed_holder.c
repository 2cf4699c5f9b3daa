/* SPDX-License-Identifier: Apache-2.0 */
/* link: backend util */
/*
 * On real hardware: a holder is killed while its client has the device open and drives DMA. What the broker kept cuts the
 * device off (I12): on type1 the container's fd, on sPAPR the holder's revoker. This process is client and broker in one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "children.h"
#include "rig.h"

#define PATIENCE_MS 120000
#define WINDOW_SIZE (UINT64_C(2) << 30)

/* What the holder gives away. */
enum { CLIENT_DEVICE, KEEPER_DEVICE, KEEPER_REVOKER, N_FDS };

struct given {
        uint64_t iova[2];               /* of the first two pages of memory */
        int fds[N_FDS];                 /* -1: none */
};

static void give(int socket, const struct given *g) {
        char control[CMSG_SPACE(sizeof g->fds)] = { 0 };
        struct iovec iov = { (void *)g, sizeof *g };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        size_t n = 0;

        for (unsigned i = 0; i < N_FDS; i++)
                if (g->fds[i] >= 0)
                        memcpy((int *)CMSG_DATA(c) + n++, &g->fds[i], sizeof g->fds[i]);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n * sizeof g->fds[0]);
        m.msg_controllen = CMSG_SPACE(n * sizeof g->fds[0]);
        if (sendmsg(socket, &m, 0) != sizeof *g)
                _exit(3);
}

static bool take(int socket, struct given *g) {
        char control[CMSG_SPACE(sizeof g->fds)];
        struct iovec iov = { g, sizeof *g };
        struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
        struct cmsghdr *c;
        size_t n = 0;

        if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC) != sizeof *g)
                return false;
        c = CMSG_FIRSTHDR(&m);
        for (unsigned i = 0; i < N_FDS; i++)
                if (g->fds[i] >= 0)
                        memcpy(&g->fds[i], (int *)CMSG_DATA(c) + n++, sizeof g->fds[i]);
        return true;
}

/* A container with the device; one page is mapped at BASE, the next in a second window where there are such. */
static _Noreturn void be_holder(int socket, struct backend_open *o, int memfd) {
        struct backend_window want = { WINDOW_ANYWHERE, WINDOW_SIZE, 12, 0 }, w = { .start = 2 * BASE };
        uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
        struct backend_mapping m = { .iova = BASE, .length = page, .fd = memfd, .access = RW, .object_length = MEMORY_SIZE };
        struct given g = { .fds = { -1, -1, -1 } };
        enum device_fd_kind kind;
        struct container_info info;
        struct container *c;
        struct device *d;
        struct refusal r = { 0 };

        m.vaddr = m.object_vaddr = map_aligned(memfd, MEMORY_SIZE, PROT_READ | PROT_WRITE);
        if (container_open(o, &c, &r) < 0)
                goto failed;
        container_info(c, &info);
        if (info.windows.max_windows > 1 && container_window_create(c, &want, &w, &r) < 0)
                goto failed;
        if (device_open(c, current->device, &d, &r) < 0 || container_map(c, &m, &r) < 0)
                goto failed;
        g.iova[0] = m.iova;
        m.iova = g.iova[1] = w.start;
        m.vaddr = (uint8_t *)m.vaddr + page;
        m.offset = page;
        if (container_map(c, &m, &r) < 0 || device_client_fd(d, &g.fds[CLIENT_DEVICE], &kind, &r) < 0 ||
            device_keeper_fd(d, &g.fds[KEEPER_DEVICE], &r) < 0 || container_revoker_fd(c, &g.fds[KEEPER_REVOKER], &r) < 0)
                goto failed;
        give(socket, &g);
        for (;;)
                pause();
failed:
        (void)fprintf(stderr, "the holder: %s\n", r.text);
        _exit(1);
}

struct victim {
        pid_t pid;
        int memfd, container_fd;
        uint8_t *memory;
        uint64_t page;
        struct given given;
        struct edu edu;
};

static int start_victim(void **state) {
        struct victim *v = calloc(1, sizeof *v);
        struct backend_open o = rig_open(current);
        int pair[2];

        assert_non_null(v);
        v->page = (uint64_t)sysconf(_SC_PAGESIZE);
        v->container_fd = fcntl(o.container_fd, F_DUPFD_CLOEXEC, 0);
        v->memfd = memfd_create("victim", MFD_CLOEXEC);
        assert_int_equal(ftruncate(v->memfd, (off_t)MEMORY_SIZE), 0);
        v->memory = map_aligned(v->memfd, MEMORY_SIZE, PROT_READ | PROT_WRITE);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        v->pid = fork();
        if (v->pid == 0) {
                fd_close(pair[0]);
                be_holder(pair[1], &o, v->memfd);
        }
        fd_close(pair[1]);
        fd_close(o.container_fd);
        fd_close(o.group_fd);
        assert_true(take(pair[0], &v->given));
        fd_close(pair[0]);
        assert_true(edu_use(&v->edu, v->given.fds[CLIENT_DEVICE], DEVICE_FD_VFIO));
        *state = v;
        return 0;
}

static int end_victim(void **state) {
        struct victim *v = *state;

        kill(v->pid, SIGKILL);
        while (waitpid(-1, NULL, 0) > 0)
                ;
        edu_detach(&v->edu);
        fd_close(v->given.fds[KEEPER_DEVICE]);
        fd_close(v->given.fds[KEEPER_REVOKER]);
        fd_close(v->container_fd);
        munmap(v->memory, MEMORY_SIZE);
        fd_close(v->memfd);
        free(v);
        return 0;
}

/* Does the device write to that page of memory? Its buffer has other bytes than the memory gets before. */
static bool writes(struct victim *v, unsigned page) {
        uint8_t *at = v->memory + page * v->page, before[MARK];

        memset(at, 0x5a, MARK);
        memcpy(before, at, MARK);
        assert_true(edu_push(&v->edu, v->given.iova[page], MARK));
        return memcmp(before, at, MARK) != 0;
}

static void load(struct victim *v) {
        memset(v->memory, 0x33, MARK);
        assert_true(edu_pull(&v->edu, v->given.iova[0], MARK));
        assert_true(writes(v, 0));
        assert_true(writes(v, 1));
}

static int cut_off(struct victim *v) {
        return v->given.fds[KEEPER_REVOKER] >= 0 ? revoke_by_revoker(v->given.fds[KEEPER_REVOKER], PATIENCE_MS)
                                                 : revoke_container_fd(v->container_fd);
}

static void a_device_reaches_nothing_once_its_holder_was_killed_and_revoked(void **state) {
        struct victim *v = *state;

        load(v);
        kill(v->pid, SIGKILL);
        assert_int_equal(cut_off(v), 0);
        assert_false(writes(v, 0));
        assert_false(writes(v, 1));
        assert_int_equal(cut_off(v), 0);
        assert_false(revoke_group_is_free("/dev/vfio", current->group));        /* the client has it: an orphan */
}

static void the_keepers_alone_cannot_on_spapr(void **state) {
        struct victim *v = *state;

        if (v->given.fds[KEEPER_REVOKER] < 0)
                skip();
        load(v);
        assert_int_equal(revoke_container_fd(v->container_fd), -EPERM);
        assert_true(writes(v, 0));
        assert_int_equal(revoke_by_revoker(v->given.fds[KEEPER_REVOKER], 0), -EINPROGRESS);
}

/* Nobody is left who could: then that is said, and it is true. */
static void when_holder_and_revoker_are_killed_the_device_is_an_orphan(void **state) {
        struct victim *v = *state;
        pid_t revoker;

        if (v->given.fds[KEEPER_REVOKER] < 0)
                skip();
        revoker = child_of(v->pid, 0);
        assert_true(revoker > 0);
        load(v);
        kill(v->pid, SIGSTOP);
        kill(revoker, SIGKILL);
        kill(v->pid, SIGKILL);
        assert_int_equal(revoke_by_revoker(v->given.fds[KEEPER_REVOKER], PATIENCE_MS), -ENOTRECOVERABLE);
        assert_true(writes(v, 0));
}

/* Everybody has let go: all is as new. */
static void afterwards_the_group_is_free(void **state) {
        (void)state;
        assert_true(revoke_group_is_free("/dev/vfio", current->group));
}

int main(void) {
        const char *group = getenv("IOMMUD_TEST_VFIO_GROUP"), *device = getenv("IOMMUD_TEST_VFIO_DEVICE");
#define TEST(f) cmocka_unit_test_setup_teardown(f, start_victim, end_victim)
        const struct CMUnitTest tests[] = {
                TEST(a_device_reaches_nothing_once_its_holder_was_killed_and_revoked),
                TEST(the_keepers_alone_cannot_on_spapr),
                TEST(when_holder_and_revoker_are_killed_the_device_is_an_orphan),
                TEST(a_device_reaches_nothing_once_its_holder_was_killed_and_revoked),
                cmocka_unit_test(afterwards_the_group_is_free),
        };
        struct rig_kind vfio;

        if (!group || !device)
                return skip_all("needs VFIO: IOMMUD_TEST_VFIO_GROUP and IOMMUD_TEST_VFIO_DEVICE, as the VM lanes set them");
        /* the revoker of a killed holder comes to us */
        if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
                return EXIT_FAILURE;
        vfio = (struct rig_kind){ .open = { .kind = vfio_kind("/dev/vfio"), .container_fd = -1, .group_fd = -1 },
                                  .group = (unsigned)strtoul(group, NULL, 10), .device = device };
        current = &vfio;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
