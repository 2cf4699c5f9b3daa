/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/revoke.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"

/* misc device, a fixed number of the kernel (include/linux/miscdevice.h) */
#define VFIO_NODE_MAJOR 10U
#define VFIO_NODE_MINOR 196U

static int open_node(const char *dir, const char *name, int *ret_fd) {
        char path[PATH_MAX];
        int fd;

        if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
                return -ENAMETOOLONG;
        fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return -errno;
        *ret_fd = fd;
        return 0;
}

int vfio_open_container(const char *vfio_dir, int *ret_fd) {
        return open_node(vfio_dir, "vfio", ret_fd);
}

int vfio_open_group(const char *vfio_dir, unsigned group, int *ret_fd) {
        char name[16];

        (void)snprintf(name, sizeof name, "%u", group);
        return open_node(vfio_dir, name, ret_fd);
}

#ifdef __powerpc64__
#define VFIO_KIND_OF_ARCHITECTURE BACKEND_VFIO_SPAPR
#else
#define VFIO_KIND_OF_ARCHITECTURE BACKEND_VFIO_TYPE1
#endif

static bool has_extension(int container_fd, unsigned long extension) {
        return ioctl(container_fd, VFIO_CHECK_EXTENSION, extension) > 0;
}

enum backend_kind vfio_kind(const char *vfio_dir) {
        _cleanup_close_ int fd = -1;

        if (vfio_open_container(vfio_dir, &fd) < 0)
                return VFIO_KIND_OF_ARCHITECTURE;
        if (has_extension(fd, VFIO_TYPE1v2_IOMMU) || has_extension(fd, VFIO_TYPE1_IOMMU))
                return BACKEND_VFIO_TYPE1;
        if (has_extension(fd, VFIO_SPAPR_TCE_v2_IOMMU) || has_extension(fd, VFIO_SPAPR_TCE_IOMMU))
                return BACKEND_VFIO_SPAPR;
        return VFIO_KIND_OF_ARCHITECTURE;
}

/* Has an IOMMU type been set: without one no request for the IOMMU driver is understood. */
static bool container_has_iommu(int container_fd) {
        struct vfio_iommu_type1_info info = { .argsz = sizeof info };

        return ioctl(container_fd, VFIO_IOMMU_GET_INFO, &info) == 0 || errno != EINVAL;
}

int revoke_container_fd(int container_fd) {
        struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof unmap, .flags = VFIO_DMA_UNMAP_FLAG_ALL };

        if (ioctl(container_fd, VFIO_IOMMU_UNMAP_DMA, &unmap) == 0)
                return 0;
        if (errno != EINVAL)
                return -errno;
        /* also the answer of a kernel that does not know the flag, and there something can be mapped */
        return container_has_iommu(container_fd) ? -EINVAL : 0;
}

int revoke_by_revoker(int revoker_fd, int timeout_ms) {
        struct pollfd p = { .fd = revoker_fd, .events = POLLIN };
        int k = poll(&p, 1, timeout_ms);

        if (revoker_fd < 0 || (k > 0 && (p.revents & (POLLNVAL | POLLERR))))
                return -EBADF;
        if (k <= 0)
                return -EINPROGRESS;
        return p.revents & POLLIN ? 0 : -ENOTRECOVERABLE;       /* the byte is left there: asking again is the same */
}

bool revoke_group_is_free(const char *vfio_dir, unsigned group) {
        _cleanup_close_ int fd = -1;

        return vfio_open_group(vfio_dir, group, &fd) == 0;
}

bool revoke_group_is_busy(const char *vfio_dir, unsigned group) {
        _cleanup_close_ int fd = -1;

        return vfio_open_group(vfio_dir, group, &fd) == -EBUSY;
}

/* --- recognising fds ----------------------------------------------------------------------------------------------*/

/* Looks at an fd that may be hostile. Never asks a file system (a FUSE file could keep us waiting): the size, times and
 * so on may be stale, the type and the device number cannot be. False also for O_PATH, which looks like the file but is
 * not an open one. */
static bool fd_look(int fd, struct statx *ret) {
        int flags = fcntl(fd, F_GETFL);

        return flags >= 0 && !(flags & O_PATH) &&
               statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, ret) == 0;
}

/* Does the link of /proc begin with this name? Asked first: every file with a path starts with '/', so nobody can give such
 * a name to a file of his. */
static bool fd_is_named(int fd, const char *name) {
        char path[32], target[64];
        size_t length = strlen(name);
        ssize_t n;

        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof target);
        return n >= (ssize_t)length && memcmp(target, name, length) == 0;
}

bool revoke_is_device_fd(int fd) {
        struct statx st;

        return fd_is_named(fd, "anon_inode:[vfio-device]") && fd_look(fd, &st) && (st.stx_mode & S_IFMT) == 0;
}

bool revoke_is_revoker_fd(int fd) {
        struct statx st;

        return fd_is_named(fd, "pipe:[") && fd_look(fd, &st) && S_ISFIFO(st.stx_mode) &&
               (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
}

bool revoke_is_container_fd(int fd) {
        struct statx st;

        return fd_look(fd, &st) && S_ISCHR(st.stx_mode) && st.stx_rdev_major == VFIO_NODE_MAJOR &&
               st.stx_rdev_minor == VFIO_NODE_MINOR;
}
