/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "core/requests.h"

/*
 * A lease: an IOMMU group that is lent to one domain, and the keepers: fds that let us revoke it without its holder (I12).
 * All fields under broker->lease_lock.
 */
enum lease_state {
        LEASE_HELD = 1,         /* attachments exist, or are on their way */
        LEASE_ORPHANED = 2,     /* nothing is mapped any more, but somebody still has the device open */
};

/* One each for a group, -1: none (soft has no VFIO nodes; a revoker is kept on sPAPR alone). */
struct keepers {
        int container_fd, group_fd;
        int device_fd;                  /* of the device attached last */
        int revoker_fd;                 /* backend/revoke.h: revoke_by_revoker() */
};

struct lease {
        UT_hash_handle hh;
        uint32_t group;
        enum lease_state state;
        uint64_t session, domain;
        char tenant[LEDGER_NAME_MAX];
        unsigned attachments;
        bool unrevoked;                 /* orphaned before anybody cut it off: what its session had mapped may be reachable */
        struct keepers keepers;
        char device[LEDGER_NAME_MAX];
};

/* The group for a domain: a new lease, or one more attachment in the one that the domain has. *ret_new: the holder has no
 * container for it yet, and *ret_container and *ret_group are new fds for it, the caller's (-1 on soft).
 * DEVICE_BUSY (leased to somebody else; tenant named only if it is the same), DEVICE_ORPHANED, DEVICE_NODE_*. */
int lease_take(struct broker *b, struct session *s, uint64_t domain, uint32_t group, const char *device, bool *ret_new,
               int *ret_container, int *ret_group, struct refusal *r);
/* Recovery: what a holder that came back holds. container_fd may be -1 when it was sent before; takes both fds. */
int lease_adopt(struct broker *b, struct session *s, uint64_t domain, uint32_t group, const char *device, int container_fd,
                int device_fd);
/* Recovery: a group that nobody of ours can cut off: an orphan until it proves to be free. session: of the ledger, whose holder
 * is gone; 0: not known. A group that is lent already stays as it is. */
void lease_adopt_orphan(struct broker *b, uint64_t session, const char *tenant, uint32_t group, const char *device);

/* Keeps what the holder sent (takes it). False: that is not a group of the session, and it was closed. */
bool lease_keep_device(struct broker *b, uint64_t session, uint32_t group, int device_fd);
bool lease_keep_revoker(struct broker *b, uint64_t session, uint32_t group, int revoker_fd);

/* One attachment less. With the last one the keepers are closed and the lease ends, or becomes an orphan while somebody
 * has the device open. The mappings must be gone. */
void lease_drop(struct broker *b, uint32_t group);

/* All leases of a session: what is mapped becomes unreachable, through the keepers. 0; -1: not yet all of it (refusals are
 * logged), ask again. With holder_is_dead what nobody can revoke any more is given up, and is one of lease_any_unrevoked()
 * until the kernel gives the group out. */
int lease_revoke_session(struct broker *b, uint64_t session, bool holder_is_dead);
bool lease_any_unrevoked(struct broker *b, uint64_t session);
/* ... and give them up, all attachments at once. */
void lease_end_session(struct broker *b, uint64_t session);

/* Orphans that are free by now are forgotten. Called now and then. */
void lease_check_orphans(struct broker *b);
unsigned lease_count_orphans(struct broker *b);

/* State for listings; false if there is no lease. */
bool lease_describe(struct broker *b, uint32_t group, struct lease *ret);
void lease_free_all(struct broker *b);
