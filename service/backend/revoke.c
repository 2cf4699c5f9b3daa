/* SPDX-License-Identifier: Apache-2.0 */
#include "backend/revoke.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/vfio.h>
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

bool revoke_group_is_free(const char *vfio_dir, unsigned group) {
        _cleanup_close_ int fd = -1;

        return vfio_open_group(vfio_dir, group, &fd) == 0;
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

bool revoke_is_device_fd(int fd) {
        static const char expected[] = "anon_inode:[vfio-device]";
        char path[32], target[sizeof expected];
        struct statx st;
        ssize_t n;

        /* the name first: every file with a path starts with '/', so nobody can give this name to a file of his */
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof target);
        if (n != (ssize_t)sizeof expected - 1 || memcmp(target, expected, sizeof expected - 1) != 0)
                return false;
        return fd_look(fd, &st) && (st.stx_mode & S_IFMT) == 0;
}

bool revoke_is_container_fd(int fd) {
        struct statx st;

        return fd_look(fd, &st) && S_ISCHR(st.stx_mode) && st.stx_rdev_major == VFIO_NODE_MAJOR &&
               st.stx_rdev_minor == VFIO_NODE_MINOR;
}
