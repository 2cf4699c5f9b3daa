/* SPDX-License-Identifier: Apache-2.0 */
#include "core/revocation.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/adopt.h"
#include "core/broker_private.h"
#include "core/holder_link.h"
#include "core/holder_start.h"
#include "core/session_start.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"
#include "util/text.h"

#define POLITE_MS 300           /* a holder that is well ends by itself within this */
#define KILL_WAIT_MS 500        /* how long it is waited for a holder before looking whether the service stops */
#define KILL_STOP 8U            /* of these waits, what a stop allows: less than revocation_wait_all() waits */
#define KILL_TELL 20U           /* of these waits, after which a holder that cannot die is written about */
#define REVOKE_WAIT_US 50000U   /* between tries, more each time: a holder's revoker (sPAPR) needs a moment */

struct revocation {
        struct journal_entry entry;
        struct session *session;        /* a reference */
        struct holder_link *link;
        struct ledger_session row;
        enum refusal_reason reason;
        int connection;
        char why[SESSION_TEXT_MAX];
};

static int write_ending(struct journal_entry *entry, struct ledger *ledger, struct refusal *r) {
        return ledger_session_put(ledger, &((struct revocation *)entry)->row, r);
}

static int write_deleted(struct journal_entry *entry, struct ledger *ledger, struct refusal *r) {
        int deleted = ledger_session_delete(ledger, ((struct revocation *)entry)->row.id, r);

        FAILPOINT(revoke_rows_deleted);
        return deleted;
}

/* The rows are gone, and with them the last trace. */
static void forgotten(struct journal_entry *entry) {
        struct revocation *v = (struct revocation *)entry;
        struct broker *b = v->session->broker;

        FAILPOINT(revoke_forgotten);
        session_unref(v->session);
        free(v);
        atomic_fetch_sub(&b->revocations, 1);
}

/* The holder first: an UNMAP ALL from here would wait behind a pin that it is in, the kill ends the pin. */
static void end_holder(struct revocation *v) {
        struct session *s = v->session;
        struct link_end end = { .reason = (uint32_t)v->reason };

        text_copy(end.text, sizeof end.text, v->why);
        if (v->link && holder_link_post(v->link, LINK_END, 0, 0, &end, sizeof end, NULL, 0) == 0 && s->holder_pidfd >= 0)
                holder_wait(s->holder_pidfd, POLITE_MS);
        holder_kill(s->holder_pidfd);
        if (v->link)
                holder_link_close(v->link, v->reason == REFUSAL_MEMORY_STALLED ? v->reason : REFUSAL_HOLDER_LOST, v->why);
}

/* Groups of a session that had no live broker when it ended: no keepers, only the kernel knows whether they are free. */
static void adopt_orphans(struct session *s) {
        LOCK_SCOPE(&s->lock);

        for (struct attachment *a = s->attachments; a; a = a->hh.next)
                lease_adopt_orphan(s->broker, s->id, s->tenant->name, a->group, a->device);
}

/* Until the kernel gives its groups back, what the session had mapped may be reachable, and is pinned: it stays, and stays
 * charged (I1, I2). Nobody else waits for it. False: the service stops meanwhile; the next one goes on from the rows. */
static bool outlast_orphans(struct session *s) {
        struct broker *b = s->broker;
        bool stopping;

        adopt_orphans(s);
        if (!lease_any_unrevoked(b, s->id))
                return true;
        atomic_fetch_add(&b->lingering, 1);
        atomic_fetch_sub(&b->revocations, 1);
        lease_check_orphans(b);
        if (lease_any_unrevoked(b, s->id))
                log_warning("session %" PRIu64 " of tenant %s: a process has its device open, and nobody is left who could cut it "
                            "off; it stays charged until the device is closed", s->id, s->tenant->name);
        while (!(stopping = atomic_load(&b->stopping)) && lease_any_unrevoked(b, s->id))
                usleep(100000);
        atomic_fetch_add(&b->revocations, 1);
        atomic_fetch_sub(&b->lingering, 1);
        return !stopping || !lease_any_unrevoked(b, s->id);
}

/* False: the service stops before it could be done; the next one goes on from the rows. */
static bool unmap_everything(struct revocation *v) {
        struct session *s = v->session;
        const atomic_bool *stopping = &s->broker->stopping;

        (void)lease_revoke_session(s->broker, s->id, false);
        FAILPOINT(revoke_unmapped);
        for (unsigned waits = 1; !holder_wait(s->holder_pidfd, KILL_WAIT_MS); waits++) {
                if (atomic_load(stopping) && waits >= KILL_STOP)
                        return false;
                if (waits % KILL_TELL != 0)
                        continue;
                log_warning("session %" PRIu64 " of tenant %s: its holder (pid %u) cannot be killed yet, perhaps its memory's "
                            "inode is stuck; it stays charged and its devices are not lent", s->id, s->tenant->name,
                            s->holder_pid);
        }
        /* What a last operation may have mapped between the first time and its death. */
        for (unsigned tries = 1; lease_revoke_session(s->broker, s->id, true) < 0; tries++) {
                if (atomic_load(stopping))
                        return false;
                if (tries % KILL_TELL == 0)
                        log_warning("session %" PRIu64 " of tenant %s: what it had mapped cannot be unmapped yet; it stays "
                                    "charged and its devices are not lent", s->id, s->tenant->name);
                usleep(tries < 10 ? tries * REVOKE_WAIT_US : 10 * REVOKE_WAIT_US);
        }
        FAILPOINT(revoke_unmapped_again);
        while (atomic_load(&s->in_flight) > 0)
                usleep(2000);
        return true;
}

static void *run(void *arg) {
        struct revocation *v = arg;
        struct session *s = v->session;
        struct refusal r;
        bool over;

        FAILPOINT(revoke_begun);
        v->entry.apply = write_ending;
        if (journal_commit(s->broker->journal, &v->entry, &r) < 0)
                log_error("session %" PRIu64 ": its end could not be recorded: %s", s->id, r.text);
        FAILPOINT(revoke_recorded);
        end_holder(v);
        FAILPOINT(revoke_holder_killed);
        if (v->connection >= 0)
                discarder_refuse(s->broker->discarder, v->connection, v->reason, v->why);
        over = unmap_everything(v) && outlast_orphans(s);
        if (over)
                lease_end_session(s->broker, s->id);
        FAILPOINT(revoke_leases_ended);
        holder_link_unref(v->link);
        lazy_drop_session(s);
        pthread_mutex_lock(&s->lock);
        session_refund(s);
        pthread_mutex_unlock(&s->lock);
        session_unregister(s);
        if (!over) {
                forgotten(&v->entry);
                return NULL;
        }
        broker_audit(s->broker, "session.ended", &s->peer, v->why);
        FAILPOINT(revoke_refunded);
        v->entry.apply = write_deleted;
        v->entry.done = forgotten;
        journal_defer(s->broker->journal, &v->entry);
        return NULL;
}

void revocation_begin(struct session *s, enum refusal_reason reason, const char *why) {
        struct revocation *v = calloc(1, sizeof *v);
        pthread_attr_t attributes;
        pthread_t thread;
        bool begun;

        if (!v) {
                log_error("out of memory: session %" PRIu64 " cannot be ended yet", s->id);
                return;
        }
        pthread_mutex_lock(&s->lock);
        begun = s->revoking;
        s->revoking = true;
        if (!begun) {
                s->stage = SESSION_ENDING;
                v->link = s->link;
                s->link = NULL;
                v->connection = fd_steal(&s->connection);
                session_row(s, &v->row);
        }
        pthread_mutex_unlock(&s->lock);
        if (begun) {
                free(v);
                return;
        }
        log_info("session %" PRIu64 " of tenant %s ends: %s", s->id, s->tenant->name, why);
        v->session = session_ref(s);
        v->reason = reason;
        text_copy(v->why, sizeof v->why, why);
        atomic_fetch_add(&s->broker->revocations, 1);
        pthread_attr_init(&attributes);
        pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        if (pthread_create(&thread, &attributes, run, v) != 0)
                run(v);                 /* late is better than never; only this caller waits */
        pthread_attr_destroy(&attributes);
}

void revocation_wait_all(struct broker *b, unsigned timeout_ms) {
        struct refusal r;

        for (unsigned waited = 0; atomic_load(&b->revocations) + atomic_load(&b->lingering) > 0 && waited < timeout_ms;
             waited += 5) {
                usleep(5000);
                journal_flush(b->journal, &r);
        }
}
