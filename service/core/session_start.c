/* SPDX-License-Identifier: Apache-2.0 */
#include "core/session_start.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "core/broker_private.h"
#include "core/holder_link.h"
#include "core/holder_start.h"
#include "core/revocation.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"
#include "util/text.h"

void session_refuse_connection(struct broker *b, int connection, const struct refusal *r) {
        discarder_refuse(b->discarder, connection, r->reason, r->text);
}

/* A uid that no other holder has (DESIGN, section 4): the range is several times the session limit. broker->lock held. */
static uint32_t choose_uid(struct broker *b, uint64_t id) {
        uint32_t first = b->options.holder_uid_first, last = b->options.holder_uid_last, n;
        struct session *s, *next;

        if (first > last)
                return UINT32_MAX;
        n = last - first + 1;
        for (uint32_t i = 0; i < n; i++) {
                uint32_t uid = first + (uint32_t)((id + i) % n);
                bool taken = false;

                HASH_ITER(hh_id, b->sessions_by_id, s, next)
                        taken |= s->holder_uid == uid;
                if (!taken)
                        return uid;
        }
        return UINT32_MAX;
}

/* Limits that are checked before anything is made. broker->lock held. */
static struct tenant *admit(struct broker *b, const struct peer *peer, struct refusal *r) {
        struct tenant *t = tenant_find(b, peer->tenant);

        if (!t || t->retired) {
                refuse(r, REFUSAL_UNKNOWN_PEER, "tenant '%s' takes no sessions any more", peer->tenant);
                return NULL;
        }
        if (atomic_load(&b->stopping)) {
                refuse(r, REFUSAL_RECOVERING, "the service is stopping; connect again in a moment");
                return NULL;
        }
        if (b->n_sessions >= b->options.max_sessions) {
                refuse(r, REFUSAL_LIMIT_EXCEEDED, "the host serves at most %u sessions and all are in use (limits.sessions)",
                       b->options.max_sessions);
                r->resource = RESOURCE_SESSIONS;
                r->limit = b->options.max_sessions;
                r->used = b->n_sessions;
                r->asked = 1;
                return NULL;
        }
        if (!tenant_may_start(b, t)) {
                refuse(r, REFUSAL_LIMIT_EXCEEDED, "tenant '%s' starts more than %u sessions a second; try again in a moment",
                       t->name, b->options.starts_per_second);
                r->limit = b->options.starts_per_second;
                return NULL;
        }
        return t;
}

static struct session *prepare(struct broker *b, const struct peer *peer, struct refusal *r) {
        static const struct quota_amounts one = { .of[RESOURCE_SESSIONS] = 1 };
        uint8_t token[SESSION_TOKEN_BYTES];
        struct session *s;
        struct tenant *t;

        pthread_mutex_lock(&b->lock);
        t = admit(b, peer, r);
        pthread_mutex_unlock(&b->lock);
        if (!t || ledger_ids_ready(b->ledger, r) < 0 || quota_charge(&t->account, &one, r) < 0)
                return NULL;
        s = session_new(b, t, ledger_next_id(b->ledger));
        if (!s || secret_random(token, sizeof token) < 0 || secret_random(s->secret, sizeof s->secret) < 0 ||
            peer_copy(peer, &s->peer) < 0) {
                refuse(r, REFUSAL_INTERNAL, "no memory or descriptors are left for another session");
                quota_refund(&t->account, &one);
                session_unref(s);
                return NULL;
        }
        secret_to_hex(token, sizeof token, s->token);
        secret_hash(s->token, 2 * sizeof token, &s->token_hash);
        secret_hash(s->secret, sizeof s->secret, &s->secret_hash);
        s->stage = SESSION_STARTING;
        pthread_mutex_lock(&b->lock);
        s->holder_uid = choose_uid(b, s->id);
        pthread_mutex_unlock(&b->lock);
        session_register(s);
        return s;
}

struct row_entry {
        struct journal_entry entry;
        struct ledger_session row;
};

static int put_row(struct journal_entry *entry, struct ledger *ledger, struct refusal *r) {
        struct row_entry *e = (struct row_entry *)entry;        /* entry is its first member */

        return ledger_session_put(ledger, &e->row, r);
}

/* The row as the session is now, durable on return. */
static int commit_row(struct session *s, struct refusal *r) {
        struct row_entry e = { .entry.apply = put_row };

        pthread_mutex_lock(&s->lock);
        session_row(s, &e.row);
        pthread_mutex_unlock(&s->lock);
        return journal_commit(s->broker->journal, &e.entry, r);
}

/* RLIMIT_MEMLOCK of a holder. type1 counts a page against it for every mapping, our quota counts it once: the same memory can
 * be mapped MEMLOCK_ALIASES times over before the kernel's count is in the way. The quota is the precise fence, this the coarse
 * one behind it, also for what a holder might lock by itself. */
#define MEMLOCK_ALIASES 16U
#define MEMLOCK_SLACK (64U << 20)

static uint64_t memlock_for(struct tenant *t) {
        uint64_t limit[_RESOURCE_N], used[_RESOURCE_N], memlock;

        quota_account_read(&t->account, limit, used);
        if (MUL_OVERFLOW(limit[RESOURCE_LOCKED_BYTES], MEMLOCK_ALIASES, &memlock) ||
            ADD_OVERFLOW(memlock, MEMLOCK_SLACK, &memlock) || memlock == UINT64_MAX)
                return UINT64_MAX - 1;
        return memlock;
}

/* Memory objects of one session. Not the tenant's quota, which the broker asks for each and which may be raised meanwhile. */
#define OBJECTS_MAX 1024U

static int send_setup(struct session *s) {
        const struct broker_options *o = &s->broker->options;
        struct link_setup setup = { .session = s->id, .uid = s->holder_uid, .gid = s->holder_uid,
                                    .max_objects = OBJECTS_MAX, .orphan_seconds = o->orphan_seconds, .soft = o->soft };

        memcpy(setup.secret, s->secret, sizeof setup.secret);
        setup.memlock = s->holder_uid == UINT32_MAX ? UINT64_MAX : memlock_for(s->tenant);
        if (s->holder_uid != UINT32_MAX)
                text_copy(setup.cgroup, sizeof setup.cgroup, s->peer.cgroup);
        text_copy(setup.reconnect, sizeof setup.reconnect, o->link_socket);
        return holder_link_post(s->link, LINK_SETUP, 0, 0, &setup, sizeof setup, NULL, 0);
}

static int start_holder(struct session *s, struct refusal *r) {
        struct broker *b = s->broker;
        struct holder_link *link;
        int fd, error;

        FAILPOINT(session_row_intended);
        fd = holder_start(&b->options, &s->holder_pid);
        FAILPOINT(session_holder_started);

        if (fd < 0)
                return refuse(r, REFUSAL_INTERNAL, "cannot start a holder process: %s", strerror(-fd));
        error = holder_link_new(b->loop, s, fd, &link);
        if (error < 0)
                return refuse(r, REFUSAL_INTERNAL, "cannot watch a holder process: %s", strerror(-error));
        pthread_mutex_lock(&s->lock);
        s->link = link;
        error = send_setup(s);
        pthread_mutex_unlock(&s->lock);
        loop_arm(b->loop, link, holder_link_fd(link));
        return error < 0 ? refuse(r, REFUSAL_HOLDER_LOST, "a holder process ended at once: %s", strerror(-error)) : 0;
}

void session_start(struct broker *b, int connection, const struct peer *peer) {
        struct refusal r;
        struct session *s = prepare(b, peer, &r);

        if (!s) {
                broker_audit(b, "session.refused", peer, r.text);
                session_refuse_connection(b, connection, &r);
                return;
        }
        FAILPOINT(session_admitted);
        s->connection = connection;     /* nobody else sees the session yet but listings */
        if (commit_row(s, &r) < 0 || start_holder(s, &r) < 0) {
                log_error("session %" PRIu64 " of tenant %s cannot start: %s", s->id, s->tenant->name, r.text);
                revocation_begin(s, r.reason, r.text);
        }
        session_unref(s);
}

/* Hands the client's connection over. The holder keeps it until LINK_GO, which is sent after our copy is closed: we are
 * never the last to close it. */
static int hand_over(struct session *s) {
        int fds[2] = { s->connection, s->peer.pidfd };
        int r = holder_link_post(s->link, LINK_CLIENT, 0, 0, NULL, 0, fds, s->peer.pidfd >= 0 ? 2 : 1);

        if (r < 0)
                return r;
        FAILPOINT(session_connection_sent);
        s->connection = fd_close(s->connection);
        r = holder_link_post(s->link, LINK_GO, 0, 0, NULL, 0, NULL, 0);
        FAILPOINT(session_handed_over);
        return r;
}

void session_holder_ready(struct session *s, const struct link_header *h, size_t size) {
        struct link_hello hello = { 0 };
        struct refusal r;
        int error = 0;

        FAILPOINT(session_hello);
        memcpy(&hello, h + 1, size < sizeof hello ? size : sizeof hello);
        pthread_mutex_lock(&s->lock);
        if (s->stage != SESSION_STARTING || s->connection < 0 || !s->link) {
                pthread_mutex_unlock(&s->lock);
                return;
        }
        if (s->holder_pid == 0)
                s->holder_pid = hello.pid;
        s->holder_pidfd = holder_identify(s->holder_pid, s->holder_uid, &s->holder_start_time);
        if (s->holder_pidfd < 0)
                error = s->holder_pidfd;
        else
                error = hand_over(s);
        if (error == 0)
                s->stage = SESSION_LIVE;
        pthread_mutex_unlock(&s->lock);
        if (error < 0) {
                refuse(&r, REFUSAL_HOLDER_LOST, "the session's holder process ended at once: %s", strerror(-error));
                revocation_begin(s, r.reason, r.text);
                return;
        }
        if (commit_row(s, &r) < 0) {
                revocation_begin(s, r.reason, r.text);
                return;
        }
        FAILPOINT(session_row_live);
        if (!hello.cgroup_joined && s->holder_uid != UINT32_MAX)
                log_notice("session %" PRIu64 ": its holder could not join the client's cgroup '%s'; what it pins is charged to "
                           "the service's", s->id, s->peer.cgroup);
        pthread_mutex_lock(&s->lock);
        if (s->link)
                holder_link_post(s->link, LINK_TOKEN, 0, 0, s->token, sizeof s->token, NULL, 0);
        FAILPOINT(session_token_sent);
        explicit_bzero(s->token, sizeof s->token);
        explicit_bzero(s->secret, sizeof s->secret);
        pthread_mutex_unlock(&s->lock);
        broker_audit(s->broker, "session.opened", &s->peer, s->tenant->name);
}
