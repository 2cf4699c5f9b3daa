/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* What the sandbox keeps a holder from, and what it must not. */
#include "test_holder_harness.h"

#include <pthread.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#include "backend/spapr_revoker.h"
#include "holder/sandbox.h"

enum end {
        GOES_ON,
        KILLED,
};

/* What becomes of a process that does it inside. */
static enum end inside_with(bool (*f)(void), int (*enter)(void)) {
        int status;
        pid_t pid;

        if (!sandbox_is_possible()) {
                print_message("an instrumented build has no sandbox\n");
                skip();
        }
        pid = fork();
        if (pid == 0) {
                if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || enter() < 0)
                        _exit(2);
                _exit(f() ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (WIFSIGNALED(status)) {
                assert_int_equal(WTERMSIG(status), SIGSYS);
                return KILLED;
        }
        assert_int_equal(WEXITSTATUS(status), 0);
        return GOES_ON;
}

static enum end inside(bool (*f)(void)) {
        return inside_with(f, sandbox_enter);
}

static bool do_exec(void) {
        execl("/bin/true", "true", NULL);
        return false;
}

static bool do_fork(void) {
        return fork() != 0;
}

static bool do_internet(void) {
        return socket(AF_INET, SOCK_STREAM, 0) >= 0;
}

static bool do_executable_memory(void) {
        return mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED;
}

static bool do_make_executable(void) {
        void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        return mprotect(p, PAGE, PROT_READ | PROT_EXEC) == 0;
}

static bool do_ptrace(void) {
        return syscall(SYS_ptrace, 0, 0, 0, 0) == 0;
}

static bool do_kill(void) {
        return kill(getppid(), 0) == 0;
}

static bool do_read_others(void) {
        return syscall(SYS_process_vm_readv, getpid(), NULL, 0, NULL, 0, 0) == 0;
}

static bool do_terminal(void) {
        return ioctl(0, 0x5412 /* TIOCSTI */, "x") == 0;
}

static bool do_lease(void) {
        return fcntl(0, F_SETOWN, 1) == 0;
}

static bool do_uid(void) {
        return setuid(0) == 0;
}

static void test_forbidden(void **state) {
        bool (*const forbidden[])(void) = { do_exec, do_fork, do_internet, do_executable_memory, do_make_executable,
                                            do_ptrace, do_kill, do_read_others, do_terminal, do_lease, do_uid };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++)
                if (inside(forbidden[i]) != KILLED)
                        fail_msg("number %zu of the forbidden was allowed", i);
}

static bool open_is_refused(void) {
        return open("/etc/passwd", O_RDONLY) < 0 && errno == EPERM && access("/", R_OK) < 0 && errno == EPERM;
}

static void *thread(void *p) {
        return p;
}

static bool threads_work(void) {
        pthread_t t[8];

        for (size_t i = 0; i < ARRAY_SIZE(t); i++)
                if (pthread_create(&t[i], NULL, thread, NULL) != 0)
                        return false;
        for (size_t i = 0; i < ARRAY_SIZE(t); i++)
                pthread_join(t[i], NULL);
        return true;
}

static bool memory_works(void) {
        for (size_t size = 1; size < 64 << 20; size *= 3) {
                char *p = malloc(size), *q;

                if (!p)
                        return false;
                memset(p, 1, size);
                q = realloc(p, size * 2);
                if (!q)
                        return false;
                free(q);
        }
        return true;
}

static bool sockets_work(void) {
        int pair[2];

        return socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) == 0 && send(pair[0], "x", 1, 0) == 1 &&
               socket(AF_UNIX, SOCK_SEQPACKET, 0) >= 0;
}

static void test_allowed(void **state) {
        bool (*const allowed[])(void) = { open_is_refused, threads_work, memory_works, sockets_work };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
                if (inside(allowed[i]) != GOES_ON)
                        fail_msg("number %zu of the allowed was killed", i);
}

/* --- on POWER -----------------------------------------------------------------------------------------------------*/

static int enter_with_revoker(void) {
        return sandbox_enter_with(true);
}

static int enter_without(void) {
        return sandbox_enter_with(false);
}

static bool revoker_works(void) {
        struct spapr_revocation what = { .container_fd = eventfd(0, 0) };
        struct spapr_revoker *v;
        struct refusal r;

        if (spapr_revoker_start(&what, &v, &r) < 0)
                return false;
        spapr_revoker_stop(v, true);
        return true;
}

static int nothing(void *arg) {
        (void)arg;
        return 0;
}

/* As the revoker, but for one flag. */
static bool clone_with(int flags) {
        static _Alignas(16) char stack[65536];

        return clone(nothing, stack + sizeof stack, flags, NULL) > 0;
}

static bool do_clone_copy(void) {
        return clone_with(SIGCHLD);
}

static bool do_clone_files(void) {
        return clone_with(CLONE_VM | CLONE_FILES | SIGCHLD);
}

static bool do_clone_namespace(void) {
        return clone_with(CLONE_VM | CLONE_NEWUSER | SIGCHLD);
}

static void test_revoker(void **state) {
        bool (*const forbidden[])(void) = { do_exec, do_fork, do_clone_copy, do_clone_files,
                                            do_clone_namespace };

        (void)state;
        assert_int_equal(inside_with(revoker_works, enter_without), KILLED);
        assert_int_equal(inside_with(revoker_works, enter_with_revoker), GOES_ON);
        for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++)
                if (inside_with(forbidden[i], enter_with_revoker) != KILLED)
                        fail_msg("number %zu of the forbidden was allowed", i);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_forbidden),
                cmocka_unit_test(test_allowed),
                cmocka_unit_test(test_revoker),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
