/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "util/refusal.h"

/*
 * Memory that is registered with an sPAPR container (TCE v2). The kernel pins and charges it at registration, and maps
 * only what is registered. A memory object is registered whole, once for all its mappings in all windows: it refuses what
 * overlaps. It is unregistered with its last mapping, never before: the kernel says yes to that as well, and leaks.
 *
 * Not thread-safe but for one reader: spapr_revoker.c walks the list after this process was killed at any instruction.
 * Items are therefore never taken off, and one that is registered, or may be, has a size.
 */
struct spapr_registration {
        struct spapr_registration *next;
        _Atomic uint64_t vaddr;
        _Atomic uint64_t size;          /* 0: free to be used again */
        uint64_t users;                 /* mappings; 0 with a size: the kernel did not unregister it */
};

struct spapr_memory {
        _Atomic(struct spapr_registration *) first;
};

/* Registers the object unless it is, and takes a use of it. BACKEND_REFUSED with errnum, INTERNAL. */
int spapr_memory_use(struct spapr_memory *m, int container_fd, const void *vaddr, uint64_t length,
                     struct spapr_registration **ret, struct refusal *r);

/* Gives a use back; unregisters the memory with the last. What is mapped of it is unmapped by then. */
void spapr_memory_drop(int container_fd, struct spapr_registration *g);

void spapr_memory_free(struct spapr_memory *m);         /* the list; nobody walks it any more */

/* Unregisters everything, whatever is counted; nothing is mapped any more. 0, or the first -errno. Takes no lock and
 * allocates nothing. */
int spapr_memory_abandon(struct spapr_memory *m, int container_fd);
