/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "util/cleanup.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(SANITIZED) || defined(IOMMUD_NO_SANDBOX)
#define INSTRUMENTED true
#else
#define INSTRUMENTED false
#endif

#ifdef __powerpc64__
#define MAY_NEED_REVOKER true
#else
#define MAY_NEED_REVOKER false
#endif

bool sandbox_is_possible(void) {
        return !INSTRUMENTED;
}

/* Linux 6.5, younger than libseccomp's table; the same number everywhere. */
#define NR_CACHESTAT 451

/* Any arguments. Grouped by who needs them. The C library chooses among calls that do the same by architecture; libseccomp
 * leaves out those that the running one does not have. */
static const int allowed[] = {
        /* messages */
        SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(recvmsg), SCMP_SYS(sendmsg),
        SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(recv), SCMP_SYS(send), SCMP_SYS(poll), SCMP_SYS(ppoll),
        SCMP_SYS(close), SCMP_SYS(shutdown),
        SCMP_SYS(connect), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(eventfd2), SCMP_SYS(pipe2),
        /* memory files */
        SCMP_SYS(fstat), SCMP_SYS(fstatfs), SCMP_SYS(fstatfs64), SCMP_SYS(munmap), SCMP_SYS(madvise),
        /* the C library: memory, threads, locks, time, an orderly or disorderly end */
        SCMP_SYS(brk), SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_yield),
        SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
        SCMP_SYS(restart_syscall), SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep),
        SCMP_SYS(gettimeofday), SCMP_SYS(getrandom), SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getuid),
        SCMP_SYS(geteuid), SCMP_SYS(tgkill), SCMP_SYS(exit), SCMP_SYS(exit_group),
};

/* What the C library and the journal try for comfort: the time zone, an allocator's hint, a name for a thread. */
static const int denied_softly[] = {
        SCMP_SYS(open), SCMP_SYS(openat), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2),
        SCMP_SYS(readlink), SCMP_SYS(readlinkat), SCMP_SYS(stat), SCMP_SYS(uname), SCMP_SYS(sysinfo),
        SCMP_SYS(prlimit64), SCMP_SYS(getrlimit), SCMP_SYS(sched_getaffinity), SCMP_SYS(memfd_create),
        SCMP_SYS(lseek), SCMP_SYS(getcwd),
};

#define ALL_BITS 0xffffffffU    /* these arguments are ints; what is in the upper half of the register is nobody's */

/* Allowed when the argument, or what the mask leaves of it, is that value. */
static int allow_if(scmp_filter_ctx f, int nr, unsigned arg, scmp_datum_t mask, scmp_datum_t value) {
        struct scmp_arg_cmp a = { .arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value };

        return seccomp_rule_add_array(f, SCMP_ACT_ALLOW, nr, 1, &a);
}

/* No memory that can be written is ever executed, and none that was becomes so. */
static int allow_memory(scmp_filter_ctx f) {
        int k;

        k = allow_if(f, SCMP_SYS(mmap), 2, PROT_EXEC, 0);
        if (k == 0)
                k = allow_if(f, SCMP_SYS(mprotect), 2, PROT_EXEC, 0);
        if (k == 0)
                k = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mremap), 0);
        return k;
}

/* Threads, no processes. The flags of clone3(2) are behind a pointer, where a filter cannot look: ENOSYS sends the C
 * library to clone(2). */
static int allow_threads(scmp_filter_ctx f) {
        const scmp_datum_t must = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND;
        int k;

        k = seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
        if (k == 0)
                k = allow_if(f, SCMP_SYS(clone), 0, must, must);
        return k;
}

/* A thread may give itself a name; for all else prctl(2) is one of the calls that fail softly. */
static int allow_name(scmp_filter_ctx f) {
        struct scmp_arg_cmp other = { .arg = 0, .op = SCMP_CMP_NE, .datum_a = PR_SET_NAME };
        struct scmp_arg_cmp name = { .arg = 0, .op = SCMP_CMP_EQ, .datum_a = PR_SET_NAME };
        int k = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, &name);

        return k < 0 ? k : seccomp_rule_add_array(f, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(prctl), 1, &other);
}

/* One kind of process: it shares the memory, and nothing else. */
static int allow_revoker(scmp_filter_ctx f) {
        int k = allow_if(f, SCMP_SYS(clone), 0, ALL_BITS, CLONE_VM | SIGCHLD);

        if (k == 0)
                k = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(close_range), 0);
        if (k == 0)
                k = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(wait4), 0);
        return k;
}

/* The broker, the journal, and the two ends of a software device: all of them local. */
static int allow_sockets(scmp_filter_ctx f) {
        int k;

        k = allow_if(f, SCMP_SYS(socket), 0, ALL_BITS, AF_UNIX);
        if (k == 0)
                k = allow_if(f, SCMP_SYS(socketpair), 0, ALL_BITS, AF_UNIX);
        return k;
}

static int allow_fcntl(scmp_filter_ctx f) {
        static const unsigned commands[] = { F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GET_SEALS,
                                             F_ADD_SEALS };
        int k = 0;

        for (size_t i = 0; k == 0 && i < ARRAY_SIZE(commands); i++)
                k = allow_if(f, SCMP_SYS(fcntl), 1, ALL_BITS, commands[i]);
        return k;
}

/* The VFIO family, and iommufd's, which has the same letter. */
static int allow_ioctls(scmp_filter_ctx f) {
        return allow_if(f, SCMP_SYS(ioctl), 1, 0xff00, (scmp_datum_t)VFIO_TYPE << 8);
}

/* fstat(3) is newfstatat("", AT_EMPTY_PATH) in newer C libraries, and statx looks at fds here as well. That the path is
 * empty cannot be checked, but AT_EMPTY_PATH with a path still only looks. */
static int allow_stat(scmp_filter_ctx f) {
        int k;

        k = allow_if(f, SCMP_SYS(newfstatat), 3, AT_EMPTY_PATH, AT_EMPTY_PATH);
        if (k == 0)
                k = allow_if(f, SCMP_SYS(statx), 2, AT_EMPTY_PATH, AT_EMPTY_PATH);
        if (k == 0)
                k = seccomp_rule_add(f, SCMP_ACT_ALLOW, NR_CACHESTAT, 0);
        return k;
}

static int add_rules(scmp_filter_ctx f, bool revoker) {
        int k = 0;

        for (size_t i = 0; k == 0 && i < ARRAY_SIZE(allowed); i++)
                k = seccomp_rule_add(f, SCMP_ACT_ALLOW, allowed[i], 0);
        for (size_t i = 0; k == 0 && i < ARRAY_SIZE(denied_softly); i++)
                k = seccomp_rule_add(f, SCMP_ACT_ERRNO(EPERM), denied_softly[i], 0);
        if (k == 0)
                k = allow_memory(f);
        if (k == 0)
                k = allow_threads(f);
        if (k == 0)
                k = allow_name(f);
        if (k == 0 && revoker)
                k = allow_revoker(f);
        if (k == 0)
                k = allow_sockets(f);
        if (k == 0)
                k = allow_fcntl(f);
        if (k == 0)
                k = allow_ioctls(f);
        if (k == 0)
                k = allow_stat(f);
        return k;
}

int sandbox_enter_with(bool revoker) {
        scmp_filter_ctx f;
        int k;

        if (!sandbox_is_possible())
                return -EOPNOTSUPP;
        f = seccomp_init(SCMP_ACT_KILL_PROCESS);
        if (!f)
                return -ENOMEM;
        k = seccomp_attr_set(f, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
        if (k == 0)
                k = add_rules(f, revoker);
        if (k == 0)
                k = seccomp_load(f);
        seccomp_release(f);
        return k;
}

int sandbox_enter(void) {
        return sandbox_enter_with(MAY_NEED_REVOKER);
}
