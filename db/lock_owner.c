/* SPDX-License-Identifier: Apache-2.0 */
#include "lock_owner.h"

#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* In the -shm of a database with a WAL, the byte that its writer locks (sqlite.org/walformat.html, section 2.3). */
#define WRITER_BYTE 120U

/* One line of /proc/locks: "12: POSIX  ADVISORY  WRITE 4242 08:01:12345 120 120". */
static bool is_writer(const char *line, const struct stat *st, long *ret_pid) {
        uint64_t inode, first;
        char kind[16];
        long pid;

        if (sscanf(line, "%*s POSIX %*s %15s %ld %*x:%*x:%" SCNu64 " %" SCNu64, kind, &pid, &inode, &first) != 4 ||
            kind[0] != 'W' || first != WRITER_BYTE || inode != st->st_ino || pid == getpid())
                return false;
        /* the device number is left out: on some file systems stat(2) gives another one */
        *ret_pid = pid;
        return true;
}

long lock_owner_of(const char *path) {
        char name[PATH_MAX], line[256];
        struct stat st;
        long pid = 0;
        FILE *f;

        if (!path || snprintf(name, sizeof name, "%s-shm", path) >= (int)sizeof name || stat(name, &st) < 0)
                return 0;
        f = fopen("/proc/locks", "re");
        while (f && pid == 0 && fgets(line, sizeof line, f))
                (void)is_writer(line, &st, &pid);
        if (f)
                (void)fclose(f);
        return pid;
}
