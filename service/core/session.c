/* SPDX-License-Identifier: Apache-2.0 */
#include "core/session.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend/revoke.h"
#include "core/broker_private.h"
#include "core/domain.h"
#include "core/holder_link.h"
#include "core/op.h"
#include "core/recover.h"
#include "core/revocation.h"
#include "core/session_start.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"
#include "util/text.h"

uint64_t monotonic_ms(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000U + (uint64_t)t.tv_nsec / 1000000U;
}

struct session *session_new(struct broker *b, struct tenant *t, uint64_t id) {
        struct session *s = calloc(1, sizeof *s);

        if (!s)
                return NULL;
        s->broker = b;
        s->tenant = t;
        s->id = id;
        s->connection = s->holder_pidfd = s->peer.pidfd = -1;
        s->born_ms = monotonic_ms();
        atomic_init(&s->refs, 1);
        pthread_mutex_init(&s->lock, NULL);
        pthread_cond_init(&s->check_changed, NULL);
        return s;
}

struct session *session_ref(struct session *s) {
        atomic_fetch_add(&s->refs, 1);
        return s;
}

static void free_objects(struct session *s) {
        struct domain *d, *next_d;
        struct memory *m, *next_m;
        struct attachment *a, *next_a;

        HASH_ITER(hh, s->attachments, a, next_a) {
                HASH_DEL(s->attachments, a);
                free(a);
        }
        HASH_ITER(hh, s->domains, d, next_d) {
                HASH_DEL(s->domains, d);
                domain_clear(d);
                free(d);
        }
        HASH_ITER(hh, s->memories, m, next_m) {
                HASH_DEL(s->memories, m);
                free(m);
        }
}

struct session *session_unref(struct session *s) {
        if (!s || atomic_fetch_sub(&s->refs, 1) != 1)
                return NULL;
        free_objects(s);
        op_keys_clear(s);
        recovery_free(s->recovery);
        pthread_cond_destroy(&s->check_changed);
        peer_clear(&s->peer);
        fd_close(s->connection);
        fd_close(s->holder_pidfd);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return NULL;
}

uint64_t session_id(const struct session *s) {
        return s->id;
}

const char *session_tenant_name(const struct session *s) {
        return s->tenant->name;
}

const char *session_stage_name(enum session_stage stage) {
        switch (stage) {
        case SESSION_STARTING:
                return "starting";
        case SESSION_LIVE:
                return "live";
        case SESSION_DETACHED:
        case SESSION_RECONCILING:
                return "detached";
        case SESSION_ENDING:
                return "revoking";
        default:
                return "unknown";
        }
}

/* ---- registry ---- */

void session_register(struct session *s) {
        struct broker *b = s->broker;
        LOCK_SCOPE(&b->lock);

        HASH_ADD(hh_id, b->sessions_by_id, id, sizeof s->id, s);
        HASH_ADD(hh_token, b->sessions_by_token, token_hash, sizeof s->token_hash, s);
        b->n_sessions++;
        s->tenant->sessions++;
        session_ref(s);
}

void session_unregister(struct session *s) {
        struct broker *b = s->broker;

        pthread_mutex_lock(&b->lock);
        HASH_DELETE(hh_id, b->sessions_by_id, s);
        HASH_DELETE(hh_token, b->sessions_by_token, s);
        b->n_sessions--;
        s->tenant->sessions--;
        pthread_mutex_unlock(&b->lock);
        session_unref(s);
}

struct session *session_find(struct broker *b, uint64_t id) {
        struct session *s;
        LOCK_SCOPE(&b->lock);

        HASH_FIND(hh_id, b->sessions_by_id, &id, sizeof id, s);
        return s ? session_ref(s) : NULL;
}

struct session **broker_sessions(struct broker *b, size_t *ret_n) {
        struct session **list, *s, *next;
        LOCK_SCOPE(&b->lock);

        *ret_n = 0;
        list = calloc(b->n_sessions + 1, sizeof(struct session *));
        if (!list)
                return NULL;
        HASH_ITER(hh_id, b->sessions_by_id, s, next)
                list[(*ret_n)++] = session_ref(s);
        return list;
}

/* ---- authentication ---- */

static int refuse_unknown(struct refusal *r) {
        return refuse(r, REFUSAL_UNKNOWN_SESSION,
                      "there is no session with this token for this process: it ended, was revoked, or the token belongs to "
                      "another process. Connect anew");
}

int session_authenticate(struct broker *b, const char *token, const struct peer *peer, struct session **ret,
                         struct refusal *r) {
        struct secret_hash hash;
        struct session *s;
        enum session_stage stage;
        bool same;

        if (strlen(token) != 2 * SESSION_TOKEN_BYTES)
                return refuse_unknown(r);
        secret_hash(token, 2 * SESSION_TOKEN_BYTES, &hash);
        pthread_mutex_lock(&b->lock);
        HASH_FIND(hh_token, b->sessions_by_token, &hash, sizeof hash, s);
        if (s)
                session_ref(s);
        pthread_mutex_unlock(&b->lock);
        if (!s)
                return refuse_unknown(r);
        pthread_mutex_lock(&s->lock);
        stage = s->stage;
        same = peer_same_process(&s->peer, peer) && strcmp(peer->tenant, s->tenant->name) == 0;
        if (same)
                s->claimed = true;
        pthread_mutex_unlock(&s->lock);
        if (same && stage == SESSION_LIVE) {
                *ret = s;
                return 0;
        }
        session_unref(s);
        if (same && (stage == SESSION_DETACHED || stage == SESSION_RECONCILING))
                return refuse(r, REFUSAL_RECOVERING, "the service has just been restarted and waits for the session's holder; "
                                                     "repeat the request");
        return refuse_unknown(r);
}

void session_set_client_name(struct session *s, const char *name) {
        LOCK_SCOPE(&s->lock);

        FAILPOINT(session_claimed);
        text_copy(s->client_name, sizeof s->client_name, name);
}

/* ---- what it owns ---- */

int session_is_live(struct session *s, struct refusal *r) {
        return s->stage == SESSION_LIVE ? 0 : refuse_unknown(r);
}

struct domain *session_find_domain(struct session *s, uint64_t id, struct refusal *r) {
        struct domain *d;

        HASH_FIND(hh, s->domains, &id, sizeof id, d);
        /* A domain that is not there yet, or not any more, is not found either. */
        if (!d || d->state == LEDGER_INTENDED || d->state == LEDGER_ENDING) {
                refuse(r, REFUSAL_UNKNOWN_DOMAIN, "this session has no domain %" PRIu64, id);
                return NULL;
        }
        return d;
}

struct memory *session_find_memory(struct session *s, uint64_t id, struct refusal *r) {
        struct memory *m;

        HASH_FIND(hh, s->memories, &id, sizeof id, m);
        if (!m || m->state != LEDGER_LIVE) {
                refuse(r, REFUSAL_UNKNOWN_MEMORY, "this session has no memory object %" PRIu64, id);
                return NULL;
        }
        return m;
}

struct attachment *session_find_attachment(struct session *s, uint64_t id, struct refusal *r) {
        struct attachment *a;

        HASH_FIND(hh, s->attachments, &id, sizeof id, a);
        if (!a || a->state != LEDGER_LIVE) {
                refuse(r, REFUSAL_UNKNOWN_ATTACHMENT, "this session has no attachment %" PRIu64, id);
                return NULL;
        }
        return a;
}

void session_row(const struct session *s, struct ledger_session *ret) {
        memset(ret, 0, sizeof *ret);
        ret->id = s->id;
        text_copy(ret->tenant, sizeof ret->tenant, s->tenant->name);
        text_copy(ret->client_name, sizeof ret->client_name, s->client_name);
        ret->uid = s->peer.uid;
        ret->gid = s->peer.gid;
        ret->pid = (uint32_t)s->peer.pid;
        ret->start_time = s->peer.start_time;
        ret->holder_pid = s->holder_pid;
        ret->holder_uid = s->holder_uid;
        ret->holder_start_time = s->holder_start_time;
        memcpy(ret->token_hash, s->token_hash.bytes, sizeof ret->token_hash);
        memcpy(ret->secret_hash, s->secret_hash.bytes, sizeof ret->secret_hash);
        ret->state = s->stage == SESSION_STARTING ? LEDGER_INTENDED
                     : s->stage == SESSION_ENDING ? LEDGER_ENDING
                                                  : LEDGER_LIVE;
}

void session_charges(struct session *s, struct quota_amounts *ret) {
        memset(ret, 0, sizeof *ret);
        ret->of[RESOURCE_SESSIONS] = 1;
        ret->of[RESOURCE_DOMAINS] = HASH_COUNT(s->domains);
        ret->of[RESOURCE_MEMORY_OBJECTS] = HASH_COUNT(s->memories);
        ret->of[RESOURCE_DEVICES] = HASH_COUNT(s->attachments);
        for (struct domain *d = s->domains; d; d = d->hh.next)
                for (unsigned i = 1; i < _RESOURCE_N; i++)
                        ret->of[i] += d->charged.of[i];
        for (struct memory *m = s->memories; m; m = m->hh.next)
                ret->of[RESOURCE_REGISTERED_BYTES] += m->charged_bytes;
}

size_t quota_list(struct session *s, struct quota_view *ret) {
        uint64_t limit[_RESOURCE_N], used[_RESOURCE_N];
        size_t n = 0;

        quota_account_read(&s->tenant->account, limit, used);
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                ret[n++] = (struct quota_view){ .resource = (enum resource)i, .limit = limit[i], .used = used[i] };
        return n;
}

/* ---- what the link brings besides results ---- */

/* Recognised before anything is done with it, like every fd that a holder sends (DESIGN, section 4, Trust). */
static void keep_revoker(struct session *s, const struct link_header *h, size_t size, int *fds) {
        const struct link_revoker *m = (const void *)(h + 1);

        if (size < sizeof *m || !revoke_is_revoker_fd(fds[0]) ||
            !lease_keep_revoker(s->broker, s->id, m->group, fd_steal(&fds[0])))
                session_link_lost(s, REFUSAL_HOLDER_LOST, "its holder sent what is no revoker of a group of its own");
}

void session_link_message(struct session *s, const struct link_header *h, size_t size, int *fds) {
        switch (h->type) {
        case LINK_HELLO:
                session_holder_ready(s, h, size);
                return;
        case LINK_CLIENT_GONE:
                revocation_begin(s, REFUSAL_UNKNOWN_SESSION, "the client is gone");
                return;
        case LINK_REVOKER:
                keep_revoker(s, h, size, fds);
                return;
        case LINK_DUMP_MEMORY:
        case LINK_DUMP_DOMAIN:
        case LINK_DUMP_ATTACHMENT:
        case LINK_DUMP_MAPPINGS:
        case LINK_DUMP_WINDOW:
        case LINK_RESULT:
                recovery_message(s, h, size, fds);
                return;
        default:
                log_debug("session %" PRIu64 ": message of unknown type %u from its holder", s->id, h->type);
        }
}

void session_link_lost(struct session *s, enum refusal_reason reason, const char *why) {
        revocation_begin(s, reason, why);
}

void session_close_request(struct session *s, struct reply *reply) {
        struct answer answer = { 0 };

        revocation_begin(s, REFUSAL_UNKNOWN_SESSION, "the client closed it");
        reply->done(reply, NULL, &answer);
}

void session_list(struct broker *b, void (*each)(const struct session_view *v, void *arg), void *arg) {
        size_t n;
        _cleanup_free_ struct session **list = broker_sessions(b, &n);

        for (size_t i = 0; list && i < n; i++) {
                struct session_view v = { .id = list[i]->id };

                pthread_mutex_lock(&list[i]->lock);
                text_copy(v.tenant, sizeof v.tenant, list[i]->tenant->name);
                text_copy(v.client_name, sizeof v.client_name, list[i]->client_name);
                v.uid = list[i]->peer.uid;
                v.pid = (uint32_t)list[i]->peer.pid;
                v.holder_pid = list[i]->holder_pid;
                v.state = session_stage_name(list[i]->stage);
                pthread_mutex_unlock(&list[i]->lock);
                each(&v, arg);
                session_unref(list[i]);
        }
}
