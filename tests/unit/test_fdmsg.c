/* SPDX-License-Identifier: Apache-2.0 */
/* link: util */
/* Messages with descriptors: what arrives is what was sent, and no descriptor stays behind, whatever was sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/fdmsg.h"

struct pair {
        int ends[2], null;
        int fds[FDMSG_MAX_FDS];
        unsigned open;                  /* descriptors of this process before the test */
};

static unsigned count_open(void) {
        DIR *d = opendir("/proc/self/fd");
        unsigned n = 0;

        assert_non_null(d);
        while (readdir(d))
                n++;
        closedir(d);
        return n;
}

static int setup(void **state) {
        static struct pair p;

        p.null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (p.null < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p.ends) < 0)
                return -1;
        p.open = count_open();
        *state = &p;
        return 0;
}

static int teardown(void **state) {
        struct pair *p = *state;

        fd_close(p->ends[0]);
        fd_close(p->ends[1]);
        fd_close(p->null);
        return 0;
}

/* Sends n descriptors past the limit of fdmsg_send(), in as many control messages as asked. */
static void send_raw(struct pair *p, unsigned n, const void *data, size_t size) {
        union {
                char bytes[CMSG_SPACE(sizeof(int) * 200)];
                struct cmsghdr align;
        } control = { 0 };
        struct iovec iov = { .iov_base = (void *)data, .iov_len = size };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.bytes,
                              .msg_controllen = CMSG_SPACE(sizeof(int) * n) };
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * n);
        for (unsigned i = 0; i < n; i++)
                memcpy(CMSG_DATA(c) + i * sizeof(int), &p->null, sizeof(int));
        assert_int_equal(sendmsg(p->ends[0], &msg, 0), size);
}

static void assert_none(const struct pair *p) {
        for (unsigned i = 0; i < FDMSG_MAX_FDS; i++)
                assert_int_equal(p->fds[i], -1);
        assert_int_equal(count_open(), p->open);
}

static void a_message_arrives_whole_without_descriptors(void **state) {
        struct pair *p = *state;
        char got[8] = { 0 };

        assert_int_equal(fdmsg_send(p->ends[0], "hello", 5, NULL, 0, 0), 0);
        assert_int_equal(fdmsg_receive(p->ends[1], got, sizeof got, p->fds, 0), 5);
        assert_string_equal(got, "hello");
        assert_none(p);
}

static void as_many_descriptors_arrive_as_were_sent_and_close_on_exec(void **state) {
        struct pair *p = *state;
        char got[8];

        for (unsigned n = 1; n <= FDMSG_MAX_FDS; n++) {
                const int sent[FDMSG_MAX_FDS] = { p->null, p->null, p->null, p->null };

                assert_int_equal(fdmsg_send(p->ends[0], "x", 1, sent, n, 0), 0);
                assert_int_equal(fdmsg_receive(p->ends[1], got, sizeof got, p->fds, 0), 1);
                for (unsigned i = 0; i < FDMSG_MAX_FDS; i++) {
                        assert_int_equal(p->fds[i] >= 0, i < n);
                        if (i < n)
                                assert_int_equal(fcntl(p->fds[i], F_GETFD), FD_CLOEXEC);
                        p->fds[i] = fd_close(p->fds[i]);
                }
                assert_none(p);
        }
}

/* One more than fits in the array, two more, and as many as the kernel takes: recognised, and all of them closed. */
static void surplus_descriptors_are_refused_and_closed(void **state) {
        struct pair *p = *state;
        char got[8];

        for (size_t i = 0; i < 4; i++) {
                send_raw(p, (const unsigned[]){ FDMSG_MAX_FDS + 1, FDMSG_MAX_FDS + 2, FDMSG_MAX_FDS + 3, 200 }[i], "x", 1);
                assert_int_equal(fdmsg_receive(p->ends[1], got, sizeof got, p->fds, 0), -EPROTO);
                assert_none(p);
        }
}

static void more_than_the_limit_is_not_even_sent(void **state) {
        struct pair *p = *state;
        const int sent[FDMSG_MAX_FDS + 1] = { p->null, p->null, p->null, p->null, p->null };
        char got;

        assert_int_equal(fdmsg_send(p->ends[0], "x", 1, sent, FDMSG_MAX_FDS + 1, 0), -EINVAL);
        assert_int_equal(fdmsg_receive(p->ends[1], &got, 1, p->fds, MSG_DONTWAIT), -EAGAIN);
}

static void a_message_that_does_not_fit_is_refused_with_its_descriptors(void **state) {
        struct pair *p = *state;
        char got[4];

        assert_int_equal(fdmsg_send(p->ends[0], "hello", 5, &p->null, 1, 0), 0);
        assert_int_equal(fdmsg_receive(p->ends[1], got, sizeof got, p->fds, 0), -EMSGSIZE);
        assert_none(p);
        /* the rest of it is gone, and the next one whole */
        assert_int_equal(fdmsg_send(p->ends[0], "next", 4, NULL, 0, 0), 0);
        assert_int_equal(fdmsg_receive(p->ends[1], got, sizeof got, p->fds, 0), 4);
        assert_memory_equal(got, "next", 4);
}

static void an_empty_queue_and_a_closed_end_are_told_apart(void **state) {
        struct pair *p = *state;
        char got[4];

        assert_int_equal(fdmsg_receive(p->ends[1], got, sizeof got, p->fds, MSG_DONTWAIT), -EAGAIN);
        p->ends[0] = fd_close(p->ends[0]);
        assert_int_equal(fdmsg_receive(p->ends[1], got, sizeof got, p->fds, 0), 0);
}

static void a_full_queue_does_not_block_and_keeps_no_descriptor(void **state) {
        struct pair *p = *state;
        char data[4096] = { 0 };
        int r = 0;

        for (unsigned i = 0; r == 0 && i < 10000; i++)
                r = fdmsg_send(p->ends[0], data, sizeof data, &p->null, 1, MSG_DONTWAIT);
        assert_int_equal(r, -EAGAIN);
        assert_int_equal(count_open(), p->open);
}

/* Without SIGPIPE, which would end the whole service. */
static void sending_to_nobody_is_an_error_and_no_signal(void **state) {
        struct pair *p = *state;

        p->ends[1] = fd_close(p->ends[1]);
        assert_int_equal(fdmsg_send(p->ends[0], "x", 1, NULL, 0, 0), -EPIPE);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(a_message_arrives_whole_without_descriptors),
                T(as_many_descriptors_arrive_as_were_sent_and_close_on_exec),
                T(surplus_descriptors_are_refused_and_closed),
                T(more_than_the_limit_is_not_even_sent),
                T(a_message_that_does_not_fit_is_refused_with_its_descriptors),
                T(an_empty_queue_and_a_closed_end_are_told_apart),
                T(a_full_queue_does_not_block_and_keeps_no_descriptor),
                T(sending_to_nobody_is_an_error_and_no_signal),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
