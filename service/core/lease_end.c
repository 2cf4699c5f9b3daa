/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "backend/revoke.h"
#include "core/broker_private.h"
#include "core/lease_private.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"

/*
 * How a group comes back. With the last attachment, or the session, the keepers are closed and the lease stays as an orphan,
 * lent to nobody, until the kernel gives the group out again: mostly at once.
 */

/* The device goes first; the container last, so that there is always one of our fds that can revoke. */
void keepers_close(struct keepers *k) {
        fd_close(k->device_fd);
        fd_close(k->group_fd);
        fd_close(k->container_fd);
        fd_close(k->revoker_fd);
        *k = KEEPERS_NONE;
}

/* lease_lock held. The lease is nobody's any more; *ret is the caller's to close. */
static void retire(struct lease *l, struct keepers *ret) {
        *ret = l->keepers;
        l->keepers = KEEPERS_NONE;
        l->state = LEASE_ORPHANED;
        l->attachments = 0;
}

/* lease_lock held. Of those in that state, and of that session (NULL: any), the one with the lowest group from that one on. */
static struct lease *lowest(struct broker *b, enum lease_state state, const uint64_t *session, uint64_t from) {
        struct lease *l, *next, *found = NULL;

        HASH_ITER(hh, b->leases, l, next)
                if (l->state == state && (!session || l->session == *session) && l->group >= from &&
                    (!found || l->group < found->group))
                        found = l;
        return found;
}

void lease_drop(struct broker *b, uint32_t group) {
        struct keepers k = KEEPERS_NONE;
        struct lease *l;
        bool last;

        pthread_mutex_lock(&b->lease_lock);
        l = lease_find(b, group);
        last = l && l->state == LEASE_HELD && --l->attachments == 0;
        if (last)
                retire(l, &k);
        pthread_mutex_unlock(&b->lease_lock);
        if (!last)
                return;
        FAILPOINT(lease_retired);
        keepers_close(&k);
        lease_check_orphans(b);
}

/* --- a session's end ----------------------------------------------------------------------------------------------*/

/* What a lease is revoked by: a duplicate, as keepers may be replaced meanwhile. */
struct revoker {
        uint32_t group;
        bool spapr, kept;
        int fd;
};

/* lease_lock held. */
static struct revoker revoker_of(struct broker *b, const struct lease *l) {
        bool spapr = b->options.backend == BACKEND_VFIO_SPAPR;
        int kept = spapr ? l->keepers.revoker_fd : l->keepers.container_fd;

        return (struct revoker){ l->group, spapr, kept >= 0, kept >= 0 ? fcntl(kept, F_DUPFD_CLOEXEC, 0) : -1 };
}

/* 0: nothing is mapped there any more. -ENOTRECOVERABLE: that will never be said. Else not yet. */
static int ask_revoker(const struct revoker *v) {
        /* On sPAPR a holder that sent no revoker has not yet made its container; or died doing so, and then its client has no
         * fd of the device, and what the kernel still has of it ends with our keepers. */
        if (!v->kept)
                return v->spapr ? -ENOTRECOVERABLE : 0;
        if (v->fd < 0)
                return -EMFILE;
        return v->spapr ? revoke_by_revoker(v->fd, 0) : revoke_container_fd(v->fd);
}

/* No lock held. Nobody can cut it off any more: it becomes an orphan that counts. */
static void give_up(struct broker *b, uint64_t session, uint32_t group) {
        struct keepers k = KEEPERS_NONE;
        struct lease *l;

        pthread_mutex_lock(&b->lease_lock);
        l = lease_find(b, group);
        if (l && l->session == session && l->state == LEASE_HELD) {
                retire(l, &k);
                l->unrevoked = true;
        }
        pthread_mutex_unlock(&b->lease_lock);
        keepers_close(&k);
}

/* One group: the next from *from on, which is moved behind it. 1: done, 0: not yet, -1: there is no other. */
static int revoke_next(struct broker *b, uint64_t session, bool holder_is_dead, uint64_t *from) {
        struct revoker v;
        struct lease *l;
        int e;

        pthread_mutex_lock(&b->lease_lock);
        l = lowest(b, LEASE_HELD, &session, *from);
        if (l)
                v = revoker_of(b, l);
        pthread_mutex_unlock(&b->lease_lock);
        if (!l)
                return -1;
        *from = UINT64_C(1) + v.group;
        e = ask_revoker(&v);
        fd_close(v.fd);
        if (e == -ENOTRECOVERABLE && holder_is_dead) {
                give_up(b, session, v.group);
                return 1;
        }
        if (e < 0 && e != -EINPROGRESS && e != -ENOTRECOVERABLE)
                log_error("session %" PRIu64 ": the container of group %u could not be unmapped: %s", session, v.group,
                          strerror(-e));
        return e == 0;
}

int lease_revoke_session(struct broker *b, uint64_t session, bool holder_is_dead) {
        uint64_t from = 0;
        int result = 0, done;

        while ((done = revoke_next(b, session, holder_is_dead, &from)) >= 0)
                if (done == 0)
                        result = -1;
        return result;
}

void lease_end_session(struct broker *b, uint64_t session) {
        struct keepers k;
        struct lease *l;

        do {
                pthread_mutex_lock(&b->lease_lock);
                l = lowest(b, LEASE_HELD, &session, 0);
                if (l)
                        retire(l, &k);
                pthread_mutex_unlock(&b->lease_lock);
                if (l)
                        keepers_close(&k);
        } while (l);
        lease_check_orphans(b);
}

/* --- orphans ------------------------------------------------------------------------------------------------------*/

void lease_adopt_orphan(struct broker *b, uint64_t session, const char *tenant, uint32_t group, const char *device) {
        struct lease *l;
        LOCK_SCOPE(&b->lease_lock);

        l = lease_find(b, group);
        if (l && (l->state == LEASE_HELD || l->session != 0))
                return;
        if (l)
                lease_forget(b, l);     /* seen to be busy before it was known whose it is */
        l = lease_add(b, group, tenant, session, 0, device);
        if (!l)
                return;
        l->state = LEASE_ORPHANED;
        l->unrevoked = session != 0;
}

bool lease_any_unrevoked(struct broker *b, uint64_t session) {
        struct lease *l, *next;
        LOCK_SCOPE(&b->lease_lock);

        HASH_ITER(hh, b->leases, l, next)
                if (l->session == session && l->unrevoked)
                        return true;
        return false;
}

/* The lowest orphaned group from that one on. False: there is none. */
static bool next_orphan(struct broker *b, uint64_t from, uint32_t *ret_group) {
        struct lease *l;
        LOCK_SCOPE(&b->lease_lock);

        l = lowest(b, LEASE_ORPHANED, NULL, from);
        if (l)
                *ret_group = l->group;
        return l != NULL;
}

static void forget_orphan(struct broker *b, uint32_t group) {
        struct lease *l;
        LOCK_SCOPE(&b->lease_lock);

        l = lease_find(b, group);
        if (l && l->state == LEASE_ORPHANED)
                lease_forget(b, l);
}

/* The kernel is asked without the lock, and for every one, however many stay busy. */
void lease_check_orphans(struct broker *b) {
        uint32_t group;

        /* A soft device ends with its holder, which is gone before its lease is. */
        for (uint64_t from = 0; next_orphan(b, from, &group); from = UINT64_C(1) + group)
                if (group >= BROKER_SOFT_GROUP_BASE || revoke_group_is_free(b->options.vfio_directory, group))
                        forget_orphan(b, group);
}

unsigned lease_count_orphans(struct broker *b) {
        struct lease *l, *next;
        unsigned n = 0;
        LOCK_SCOPE(&b->lease_lock);

        HASH_ITER(hh, b->leases, l, next)
                n += l->state == LEASE_ORPHANED;
        return n;
}
