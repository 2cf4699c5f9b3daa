/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

/*
 * Cutting a container off from memory with nothing but its fd: the one part of the backends that the broker may call
 * (I12). None of this takes a reference on memory or needs the process that mapped.
 * Thread-safe. May block behind a pin of another process on the same container: kill that process first.
 */

/* Opens VFIO nodes for the holder (which can open none). 0 or -errno; the fd is the caller's. */
int vfio_open_container(const char *vfio_dir, int *ret_fd);             /* vfio_dir: "/dev/vfio" */
int vfio_open_group(const char *vfio_dir, unsigned group, int *ret_fd);

/* VFIO_IOMMU_UNMAP_DMA with VFIO_DMA_UNMAP_FLAG_ALL (Linux >= 5.12). 0 or -errno. -EINVAL from a container that has no
 * IOMMU set yet (nothing can be mapped there) is reported as 0. */
int revoke_container_fd(int container_fd);

/* Is the device free again: can the group be opened. False while anybody still has it or a BAR mapped. */
bool revoke_group_is_free(const char *vfio_dir, unsigned group);

/* Does this fd look like what a holder is allowed to send: a VFIO device fd (anon inode "[vfio-device]"), or the VFIO
 * container node. Checked by fstat and /proc/self/fd only, before anything else is done with the fd. */
bool revoke_is_device_fd(int fd);
bool revoke_is_container_fd(int fd);
