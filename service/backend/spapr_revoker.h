/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <linux/vfio.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "backend/backend.h"
#include "backend/spapr_memory.h"

/*
 * Who revokes an sPAPR container when the process that maps was killed (I12).
 *
 * The kernel takes a container's requests from one address space alone: the broker's container fd, which revokes on
 * type1, gets EPERM. And it gives nothing back while a client has its device open. So the address space has to outlive
 * the process: a second process lives in it (CLONE_VM), asleep, until the first one is gone, then removes every window,
 * which stops DMA at once, unregisters the memory, says that it is done and ends.
 *
 *      holder, thread      iommud-revoker          broker
 *          │ clone ───────────▶│ closes every fd but three, sleeps
 *          │ waits             │                     │ keeps the status fd
 *          ╳ killed            │                     │ poll: neither byte nor end: wait
 *                              │ control pipe ends   │
 *                              │ removes windows     │
 *                              │ status: one byte ──▶│ revoked
 *
 * Guaranteed: after a kill of the holder's process, at any instruction, windows that exist or were about to are removed;
 * a window that the holder is creating while it dies is found by its place, which the kernel writes into shared memory.
 * A revoker that is killed while its holder lives is replaced.
 *
 * Not guaranteed: that anybody revokes when both are killed at once (cgroup.kill, the OOM killer, which ends all that
 * share an address space; a unit's SIGKILL). Then the status fd ends without a byte, windows and pins stay until the
 * client closes its device, and the device is an orphan until then.
 *
 * The clone borrows a thread of the holder, with its thread-local storage (errno): that thread does nothing but wait for
 * the child's end and reap it, so there is no zombie. When the holder is killed, the child becomes init's, or its
 * subreaper's. (CLONE_VFORK would say the same to the kernel, but a thread that waits in there cannot be stopped: no
 * debugger could attach to the holder.)
 */
#define SPAPR_PLACES_MAX 16U

/* All that has to be known after the holder's death. In memory that is shared and may be torn between any two writes. */
struct spapr_revocation {
        int container_fd;
        bool v2;                        /* v1: no windows to remove, the initial one is unmapped whole */
        struct backend_window initial;
        _Atomic uint32_t n_places;
        _Atomic uint64_t places[SPAPR_PLACES_MAX];      /* where windows ever began; they come back to the same few */
        struct vfio_iommu_spapr_tce_create create;      /* the request under way: the kernel writes start_addr */
        struct spapr_memory memory;
};

struct spapr_revoker;

/* what outlives the revoker. Blocks until the process sleeps. INTERNAL. */
int spapr_revoker_start(struct spapr_revocation *what, struct spapr_revoker **ret, struct refusal *r);

/* Ends it. revoked: nothing can be reached through the container any more, and the broker may know. NULL is fine. */
struct spapr_revoker *spapr_revoker_stop(struct spapr_revoker *v, bool revoked);

int spapr_revoker_status_fd(const struct spapr_revoker *v);     /* borrowed; revoke.h reads it */

/* Remembers where a window begins, before anything is mapped in it. False when there is no room. */
bool spapr_revocation_add(struct spapr_revocation *what, uint64_t start);

/* Removes every window there may be and unregisters all memory. True: no window is left. For the process that maps, or
 * its revoker; takes no lock and allocates nothing. */
bool spapr_revocation_do(struct spapr_revocation *what);
