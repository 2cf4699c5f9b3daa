/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/memory_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Linux 6.5; one number on every architecture. Debian 12 has no header for it. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct cachestat_range_abi {
        uint64_t offset, length;
};

struct cachestat_abi {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

/* --- what is it ---------------------------------------------------------------------------------------------------*/

static const char *kind_name(mode_t mode) {
        switch (mode & S_IFMT) {
        case S_IFDIR: return "a directory";
        case S_IFIFO: return "a pipe";
        case S_IFSOCK: return "a socket";
        case S_IFCHR: return "a character device";
        case S_IFBLK: return "a block device";
        case S_IFLNK: return "a symbolic link";
        default: return "no file at all (an eventfd, epoll or the like)";
        }
}

static int refuse_errno(struct refusal *r, enum refusal_reason reason, int errnum) {
        refuse(r, reason, "the fd cannot be looked at: %s", strerrordesc_np(errnum));
        r->errnum = errnum;
        return -1;
}

/* Says why a file without seals is none of ours. AT_STATX_DONT_SYNC: what the kernel remembers will do; asking for more
 * would wait for the server of a FUSE or network file system, which may be the client. */
static int refuse_foreign(int fd, struct refusal *r) {
        struct statx st;

        if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st) < 0)
                return refuse_errno(r, REFUSAL_MEMORY_NOT_REGULAR, errno);
        if ((st.stx_mode & S_IFMT) != S_IFREG)
                return refuse(r, REFUSAL_MEMORY_NOT_REGULAR,
                              "the fd is %s; device memory must be a memfd or a file on tmpfs or hugetlbfs",
                              kind_name(st.stx_mode));
        return refuse(r, REFUSAL_MEMORY_BAD_FILESYSTEM,
                      "the file is on file system %u:%u, which is neither tmpfs nor hugetlbfs; use a memfd",
                      st.stx_dev_major, st.stx_dev_minor);
}

static int check_mode(int fd, bool *ret_writable, struct refusal *r) {
        int flags = fcntl(fd, F_GETFL);

        if (flags < 0)
                return refuse(r, REFUSAL_MEMORY_NOT_REGULAR, "the fd is not open");
        if (flags & O_PATH)
                return refuse(r, REFUSAL_MEMORY_O_PATH,
                              "the fd was opened with O_PATH, which names a file and gives no right to its memory");
        if ((flags & O_ACCMODE) == O_WRONLY)
                return refuse(r, REFUSAL_BAD_ACCESS,
                              "the fd is open for writing only; open it for reading and writing (O_RDWR)");
        *ret_writable = (flags & O_ACCMODE) == O_RDWR;
        return 0;
}

int memory_file_inspect(int fd, struct memory_file *ret, struct refusal *r) {
        struct memory_file f = { .page_size = (uint64_t)sysconf(_SC_PAGESIZE) };
        struct statfs fs;
        struct stat st;

        if (check_mode(fd, &f.writable, r) < 0)
                return -1;
        /* Only shmem and hugetlb have seals, and the kernel knows by looking at its own struct: no file system, no
         * inode lock. What fails here is never touched again. */
        f.seals = fcntl(fd, F_GET_SEALS);
        if (f.seals < 0)
                return refuse_foreign(fd, r);
        if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
                return refuse_errno(r, REFUSAL_INTERNAL, errno);
        if (!S_ISREG(st.st_mode))
                return refuse(r, REFUSAL_MEMORY_NOT_REGULAR, "the fd is %s", kind_name(st.st_mode));
        if (fs.f_type != TMPFS_MAGIC && fs.f_type != HUGETLBFS_MAGIC)
                return refuse_foreign(fd, r);
        if (st.st_size <= 0)
                return refuse(r, REFUSAL_MEMORY_EMPTY,
                              "the memory file is empty: give it its size with ftruncate(2) first");
        f.hugetlb = fs.f_type == HUGETLBFS_MAGIC;
        if (f.hugetlb)
                f.page_size = (uint64_t)fs.f_bsize;
        f.dev = st.st_dev;
        f.ino = st.st_ino;
        f.size = (uint64_t)st.st_size;
        *ret = f;
        return 0;
}

/* --- seals --------------------------------------------------------------------------------------------------------*/

#define SEALS_SIZE (F_SEAL_SHRINK | F_SEAL_GROW)

/* Each of the two write seals forbids punching holes, by whatever means. */
bool memory_file_is_stable(int seals) {
        return (seals & SEALS_SIZE) == SEALS_SIZE && (seals & (F_SEAL_FUTURE_WRITE | F_SEAL_WRITE));
}

int memory_file_seal(int fd) {
        int seals = fcntl(fd, F_GET_SEALS);

        if (seals < 0)
                return -errno;
        if (memory_file_is_stable(seals))
                return 0;
        return fcntl(fd, F_ADD_SEALS, SEALS_SIZE | F_SEAL_FUTURE_WRITE) < 0 ? -errno : 0;
}

/* --- size and population ------------------------------------------------------------------------------------------*/

int memory_file_size(int fd, uint64_t *ret) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        *ret = (uint64_t)st.st_size;
        return 0;
}

static uint64_t round_up(uint64_t value, uint64_t page) {
        return (value + page - 1) / page * page;
}

/* Pages that were swapped out count as present: they have content, and come back from where they are charged. */
static int missing_by_cachestat(int fd, uint64_t page_size, uint64_t offset, uint64_t length, uint64_t *ret) {
        struct cachestat_range_abi range = { offset, length };
        uint64_t first = offset / page_size, last = (offset + length - 1) / page_size, pages = last - first + 1;
        struct cachestat_abi c = { 0 };

        if (syscall(SYS_cachestat, fd, &range, &c, 0) < 0)
                return -errno;
        *ret = c.cached + c.evicted >= pages ? 0 : (pages - c.cached - c.evicted) * page_size;
        return 0;
}

int memory_file_missing(int fd, bool hugetlb, uint64_t page_size, uint64_t offset, uint64_t length, uint64_t *ret) {
        uint64_t whole, present;
        struct stat st;

        /* Refused for hugetlb (EOPNOTSUPP), unknown to old kernels (ENOSYS), or not allowed through a fd without the
         * right to write (EPERM). SEEK_HOLE is no way out: it lies both ways, and waits for the inode (DESIGN, 6).
         * Nor is mincore(): it does not see hugetlb pages that this process has not touched, and claims residency
         * where it may not tell. */
        if (!hugetlb && missing_by_cachestat(fd, page_size, offset, length, ret) == 0)
                return 0;
        if (fstat(fd, &st) < 0)
                return -errno;
        whole = round_up((uint64_t)st.st_size, page_size);
        present = (uint64_t)st.st_blocks * 512;
        *ret = present >= whole ? 0 : whole - present;
        return 0;
}
