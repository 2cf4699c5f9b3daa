/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker util */
/* Who is at the other end of a connection, as the kernel says it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "auth/peer.h"
#include "util/cleanup.h"

#define NAME_WITH_TRAPS "a) R 1 (2 3)"

static char directory[] = "/tmp/iommud-peer-XXXXXX", path[64];
static int listener;

static int start(void **state) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };

        (void)state;
        if (!mkdtemp(directory))
                return -1;
        (void)snprintf(path, sizeof path, "%s/s", directory);
        (void)strcpy(a.sun_path, path);
        listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(listener, (struct sockaddr *)&a, sizeof a) < 0 || listen(listener, 8) < 0)
                return -1;
        return chmod(path, 0666) < 0 || chmod(directory, 0755) < 0 ? -1 : 0;
}

static int stop(void **state) {
        (void)state;
        close(listener);
        unlink(path);
        return rmdir(directory);
}

/* A process that connects under a name that is a trap for readers of /proc, and lives until it is killed. */
struct other {
        pid_t pid;
        int connection;
};

static int connect_here(void) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);

        (void)strcpy(a.sun_path, path);
        return fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a) < 0 ? -1 : fd;
}

static void other_main(uid_t uid) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)prctl(PR_SET_NAME, NAME_WITH_TRAPS);
        if ((uid && setresuid(uid, uid, uid) < 0) || connect_here() < 0)
                _exit(1);
        for (;;)
                pause();
}

static void other_start(struct other *o, uid_t uid) {
        o->pid = fork();
        if (o->pid == 0)
                other_main(uid);
        o->connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(o->connection >= 0);
}

static void other_die(struct other *o) {
        if (o->pid > 0) {
                assert_int_equal(kill(o->pid, SIGKILL), 0);
                assert_int_equal(waitpid(o->pid, NULL, 0), o->pid);
        }
        o->pid = 0;
}

static void other_end(struct other *o) {
        other_die(o);
        o->connection = fd_close(o->connection);
}

static void test_credentials(void **state) {
        uid_t uid = geteuid() == 0 ? 12345 : 0;
        struct other o;
        struct peer p;

        (void)state;
        other_start(&o, uid);
        assert_int_equal(peer_from_socket(o.connection, PEER_SOCKET_CLIENT, NULL, &p), 0);
        assert_int_equal(p.pid, o.pid);
        assert_int_equal(p.uid, uid ? uid : getuid());
        assert_int_equal(p.gid, getgid());
        assert_int_equal(p.socket, PEER_SOCKET_CLIENT);
        assert_string_equal(p.tenant, "");
        assert_true(p.pidfd >= 0);
        assert_false(peer_is_gone(&p));
        other_end(&o);
        assert_true(peer_is_gone(&p));
        peer_clear(&p);
        peer_clear(&p);
}

/* Field 22 by another way: from behind. stat has 52 fields, none after the command holds a space. */
static uint64_t start_time_of(pid_t pid) {
        char name[64], text[1024];
        size_t n;
        FILE *f;

        (void)snprintf(name, sizeof name, "/proc/%d/stat", (int)pid);
        f = fopen(name, "re");
        assert_non_null(f);
        n = fread(text, 1, sizeof text - 1, f);
        fclose(f);
        text[n] = '\0';
        for (int field = 52; field >= 22; field--) {
                char *space = strrchr(text, ' ');

                assert_non_null(space);
                if (field == 22)
                        return strtoull(space + 1, NULL, 10);
                *space = '\0';
        }
        return 0;
}

static void test_start_time_with_a_hostile_name(void **state) {
        struct other o;
        struct peer p;

        (void)state;
        other_start(&o, 0);
        assert_int_equal(peer_from_socket(o.connection, PEER_SOCKET_CLIENT, NULL, &p), 0);
        assert_true(p.start_time > 0);
        assert_int_equal(p.start_time, start_time_of(o.pid));
        peer_clear(&p);
        other_end(&o);
}

static void test_cgroup(void **state) {
        char text[4096], *line;
        struct peer p;
        struct other o;
        FILE *f = fopen("/proc/self/cgroup", "re");

        (void)state;
        assert_non_null(f);
        text[fread(text, 1, sizeof text - 1, f)] = '\0';
        fclose(f);
        other_start(&o, 0);
        assert_int_equal(peer_from_socket(o.connection, PEER_SOCKET_CLIENT, NULL, &p), 0);
        line = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
        if (!line)
                assert_string_equal(p.cgroup, "");
        else {
                line = strchr(line, '/');
                line[strcspn(line, "\n")] = '\0';
                assert_string_equal(p.cgroup, line);
        }
        peer_clear(&p);
        other_end(&o);
}

static void test_peer_that_died_before_we_asked(void **state) {
        struct other o;
        struct peer p = { .pidfd = -7 };

        (void)state;
        other_start(&o, 0);
        other_die(&o);
        assert_int_equal(peer_from_socket(o.connection, PEER_SOCKET_CLIENT, NULL, &p), -ESRCH);
        assert_int_equal(p.pidfd, -7);          /* untouched */
        other_end(&o);
}

/* Dead, but its parent has not looked yet: /proc still answers. */
static void test_zombie(void **state) {
        siginfo_t info;
        struct other o;
        struct peer p;

        (void)state;
        other_start(&o, 0);
        assert_int_equal(kill(o.pid, SIGKILL), 0);
        assert_int_equal(waitid(P_PID, (id_t)o.pid, &info, WEXITED | WNOWAIT), 0);
        assert_int_equal(peer_from_socket(o.connection, PEER_SOCKET_CLIENT, NULL, &p), -ESRCH);
        other_end(&o);
}

static void test_own_tenant(void **state) {
        char long_name[PEER_TENANT_MAX + 1];
        struct other o;
        struct peer p;

        (void)state;
        other_start(&o, 0);
        assert_int_equal(peer_from_socket(o.connection, PEER_SOCKET_TENANT, "blue", &p), 0);
        assert_string_equal(p.tenant, "blue");
        assert_int_equal(p.socket, PEER_SOCKET_TENANT);
        peer_clear(&p);
        memset(long_name, 'x', sizeof long_name - 1);
        long_name[sizeof long_name - 1] = '\0';
        assert_int_equal(peer_from_socket(o.connection, PEER_SOCKET_TENANT, long_name, &p), -EINVAL);
        other_end(&o);
}

static void test_same_process(void **state) {
        struct other a, b;
        struct peer pa, pb, copy, mine, again;
        int connection, other_connection;

        (void)state;
        other_start(&a, 0);
        other_start(&b, 0);
        connection = connect_here();
        other_connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_int_equal(peer_from_socket(other_connection, PEER_SOCKET_CLIENT, NULL, &mine), 0);
        assert_int_equal(peer_from_socket(other_connection, PEER_SOCKET_TENANT, "t", &again), 0);
        assert_int_equal(peer_from_socket(a.connection, PEER_SOCKET_CLIENT, NULL, &pa), 0);
        assert_int_equal(peer_from_socket(b.connection, PEER_SOCKET_CLIENT, NULL, &pb), 0);
        assert_true(peer_same_process(&mine, &again));
        assert_false(peer_same_process(&pa, &pb));
        assert_false(peer_same_process(&pa, &mine));
        assert_int_equal(peer_copy(&pa, &copy), 0);
        assert_int_not_equal(copy.pidfd, pa.pidfd);
        assert_true(peer_same_process(&pa, &copy));
        peer_clear(&pa);
        assert_false(peer_is_gone(&copy));      /* its own pidfd */
        copy.start_time++;
        assert_false(peer_same_process(&pa, &copy));
        copy.start_time--;
        copy.uid++;
        assert_false(peer_same_process(&pa, &copy));
        copy.uid--;
        assert_true(peer_same_process(&pa, &copy));     /* the cleared one by its numbers */
        other_end(&a);
        assert_true(peer_is_gone(&copy));
        assert_true(peer_is_gone(&pa));
        peer_clear(&copy);
        peer_clear(&pb);
        peer_clear(&mine);
        peer_clear(&again);
        other_end(&b);
        close(connection);
        close(other_connection);
}

/* getsockopt(SO_PEERPIDFD) fails with this errno in this process from now on, as on another kernel. */
static int without_peerpidfd(int error) {
        struct sock_filter code[] = {
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsockopt, 0, 3),
                BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 77, 0, 1),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ((uint32_t)error & SECCOMP_RET_DATA)),
                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { .len = ARRAY_SIZE(code), .filter = code };

        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -1 : prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* In a child with such a kernel: the exit code says what went wrong. */
static int on_an_old_kernel(const struct other *o, int error) {
        struct peer p;
        int r;

        if (without_peerpidfd(error) < 0)
                return 77;
        r = peer_from_socket(o->connection, PEER_SOCKET_CLIENT, NULL, &p);
        if (error != ENOPROTOOPT)
                return r == -ESRCH ? 0 : 1;     /* the option is there, the process is not */
        if (r != 0)
                return 2;
        /* nothing that follows from the number is proof: pidfd_from_socket says so */
        if (p.pidfd_from_socket || p.pidfd < 0 || p.pid != o->pid || p.start_time != start_time_of(o->pid))
                return 3;
        peer_clear(&p);
        return 0;
}

static void test_kernels_without_peerpidfd(void **state) {
        static const int errors[] = { ENOPROTOOPT, ESRCH, EINVAL };
        struct other o;

        (void)state;
        other_start(&o, 0);
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                pid_t child = fork();
                int status;

                if (child == 0)
                        _exit(on_an_old_kernel(&o, errors[i]));
                assert_int_equal(waitpid(child, &status, 0), child);
                if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
                        print_message("skipped: no seccomp here\n");
                        break;
                }
                if (status != 0)
                        fail_msg("errno %d: status 0x%x", errors[i], status);
        }
        other_end(&o);
}

static void test_no_socket(void **state) {
        struct peer p;
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), tcp = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void)state;
        assert_int_equal(peer_from_socket(fd, PEER_SOCKET_CLIENT, NULL, &p), -ENOTSOCK);
        if (tcp >= 0)                   /* no peer: pid 0 */
                assert_int_equal(peer_from_socket(tcp, PEER_SOCKET_CLIENT, NULL, &p), -ESRCH);
        close(fd);
        fd_close(tcp);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_credentials),
                cmocka_unit_test(test_start_time_with_a_hostile_name),
                cmocka_unit_test(test_cgroup),
                cmocka_unit_test(test_peer_that_died_before_we_asked),
                cmocka_unit_test(test_zombie),
                cmocka_unit_test(test_own_tenant),
                cmocka_unit_test(test_same_process),
                cmocka_unit_test(test_kernels_without_peerpidfd),
                cmocka_unit_test(test_no_socket),
        };
        return cmocka_run_group_tests(tests, start, stop);
}
