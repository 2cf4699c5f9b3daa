/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "holder/sandbox.h"
#include "util/cleanup.h"
#include "util/log.h"

/* --- cgroup -------------------------------------------------------------------------------------------------------*/

static bool path_is_sane(const char *path) {
        if (path[0] != '/')
                return false;
        for (const char *p = path; *p; p++)
                if (p[0] == '/' && p[1] == '.' && p[2] == '.' && (p[3] == '/' || p[3] == '\0'))
                        return false;
        return true;
}

/* The kernel keeps the walk below the root; the check of the text is for a kernel or sandbox without openat2(2), which
 * is an error here. */
static int open_beneath(const char *root, const char *path, unsigned flags) {
        _cleanup_close_ int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct open_how how = { .flags = flags | O_CLOEXEC,
                                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
        long fd;

        if (dir < 0)
                return -errno;
        while (*path == '/')
                path++;
        fd = syscall(SYS_openat2, dir, path, &how, sizeof how);
        return fd < 0 ? -errno : (int)fd;
}

int setup_join_cgroup(const char *root, const char *path) {
        char procs[sizeof((struct link_setup *)0)->cgroup + sizeof "/cgroup.procs"], pid[32];
        _cleanup_close_ int fd = -1;
        int n;

        if (!path_is_sane(path))
                return -EINVAL;
        n = snprintf(procs, sizeof procs, "%s/cgroup.procs", path);
        if (n < 0 || (size_t)n >= sizeof procs)
                return -ENAMETOOLONG;
        fd = open_beneath(root, procs, O_WRONLY);
        if (fd < 0)
                return fd;
        n = snprintf(pid, sizeof pid, "%d", (int)getpid());
        return write(fd, pid, (size_t)n) == n ? 0 : -errno;
}

/* --- limits -------------------------------------------------------------------------------------------------------*/

static void limit(__rlimit_resource_t resource, const char *name, rlim_t value) {
        struct rlimit want = { .rlim_cur = value, .rlim_max = value }, have;

        if (setrlimit(resource, &want) == 0)
                return;
        if (getrlimit(resource, &have) < 0 || have.rlim_max >= value) {
                log_warning("%s cannot be set: %s", name, strerrordesc_np(errno));
                return;
        }
        log_warning("%s stays at %" PRIu64 ", since raising it to %" PRIu64 " takes a privilege", name,
                    (uint64_t)have.rlim_max, (uint64_t)value);
        want.rlim_cur = want.rlim_max = have.rlim_max;
        (void)setrlimit(resource, &want);
}

/* fds beside those of memory: containers, groups, devices and their keepers, sockets of soft devices, the link */
#define NOFILE_REST 1024U

void setup_limits(const struct link_setup *s) {
        if (s->memlock != UINT64_MAX)
                limit(RLIMIT_MEMLOCK, "RLIMIT_MEMLOCK", (rlim_t)s->memlock);
        /* an object each, and a ticket each */
        limit(RLIMIT_NOFILE, "RLIMIT_NOFILE", (rlim_t)s->max_objects * 2 + NOFILE_REST);
        limit(RLIMIT_CORE, "RLIMIT_CORE", 0);
}

/* --- identity -----------------------------------------------------------------------------------------------------*/

static bool in_range(const struct setup_options *o, uint32_t id) {
        return id >= o->uid_first && id <= o->uid_last;
}

static int check_identity(const struct setup_options *o, const struct link_setup *s) {
        bool stays = s->uid == UINT32_MAX;

        if (stays && !o->has_uid_range)
                return 0;
        if (!stays && o->has_uid_range && in_range(o, s->uid) &&
            (in_range(o, s->gid) || (o->has_reconnect_group && s->gid == o->reconnect_group)))
                return 0;
        if (!stays && !o->has_uid_range && s->uid == geteuid() && s->gid == getegid())
                return 0;
        log_error("the broker asks for uid %u and gid %u, which --uid-range does not allow", s->uid, s->gid);
        return -EPERM;
}

static int drop_capabilities(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct none[2] = { { 0 }, { 0 } };

        return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

/* Needs CAP_SETPCAP, and matters only to a process that has something to bound. */
static void drop_bounding_set(void) {
        (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
                (void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

static int change_ids(const struct setup_options *o, const struct link_setup *s) {
        gid_t keep[1] = { o->reconnect_group };

        /* started as who it is to be; a service manager has then chosen the supplementary groups too */
        if (s->uid == geteuid() && s->gid == getegid())
                return 0;
        if (setgroups(o->has_reconnect_group ? 1 : 0, keep) < 0 || setresgid(s->gid, s->gid, s->gid) < 0 ||
            setresuid(s->uid, s->uid, s->uid) < 0)
                return -errno;
        return 0;
}

int setup_identity(const struct setup_options *o, const struct link_setup *s) {
        int k;

        k = check_identity(o, s);
        if (k < 0)
                return k;
        drop_bounding_set();
        if (s->uid != UINT32_MAX) {
                k = change_ids(o, s);
                if (k < 0)
                        return k;
        }
        k = drop_capabilities();
        if (k < 0)
                return k;
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        /* after the change of uid, which sets it anew. The sanitizers read /proc/self, which this forbids. */
        if (sandbox_is_possible() && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return -errno;
        return 0;
}
