/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "backend/backend.h"

/*
 * Cutting a container off from memory with nothing but its fd: the one part of the backends that the broker may call
 * (I12). None of this takes a reference on memory or needs the process that mapped.
 * Thread-safe. May block behind a pin of another process on the same container: kill that process first.
 */

/* Opens VFIO nodes for the holder (which can open none). 0 or -errno; the fd is the caller's. */
int vfio_open_container(const char *vfio_dir, int *ret_fd);             /* vfio_dir: "/dev/vfio" */
int vfio_open_group(const char *vfio_dir, unsigned group, int *ret_fd);

/* Which VFIO backend this kernel has: BACKEND_VFIO_SPAPR where it knows sPAPR and no type1, else BACKEND_VFIO_TYPE1. Where
 * the node cannot be opened or no IOMMU module is loaded yet, the one that this machine's architecture would have. */
enum backend_kind vfio_kind(const char *vfio_dir);

/* VFIO_IOMMU_UNMAP_DMA with VFIO_DMA_UNMAP_FLAG_ALL (Linux >= 5.12). 0 or -errno. -EINVAL from a container that has no
 * IOMMU set yet (nothing can be mapped there) is reported as 0. For type1: sPAPR takes requests from the process that maps
 * alone, and answers -EPERM; there revoke_by_revoker() says what has become of a container. */
int revoke_container_fd(int container_fd);

/* On sPAPR a process of the holder's revokes when the holder has died (backend/spapr_revoker.h); revoker_fd is what
 * container_revoker_fd() gave. Waits up to timeout_ms (0: not at all; -1: as long as it takes) for
 *      0                       nothing is reachable through the container any more, and nothing pinned
 *      -EINPROGRESS            not yet: the holder lives, or its revoker is at work
 *      -ENOTRECOVERABLE        both are gone, and it was not done: what is mapped stays so until the client closes its
 *                              device. An orphan; asking again is of no use
 *      -EBADF                  this is no such fd */
int revoke_by_revoker(int revoker_fd, int timeout_ms);

/* Is the device free again: can the group be opened. False while anybody still has it or a BAR mapped. */
bool revoke_group_is_free(const char *vfio_dir, unsigned group);
/* The opposite, for certain: somebody has it. False too when the node is missing or may not be opened. */
bool revoke_group_is_busy(const char *vfio_dir, unsigned group);

/* Does this fd look like what a holder is allowed to send: a VFIO device fd (anon inode "[vfio-device]"), or the VFIO
 * container node. Checked by fstat and /proc/self/fd only, before anything else is done with the fd. */
bool revoke_is_device_fd(int fd);
bool revoke_is_container_fd(int fd);
bool revoke_is_revoker_fd(int fd);      /* the reading end of a pipe */
