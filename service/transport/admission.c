/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/admission.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "util/cleanup.h"

#define OWNER_BUCKETS 256U
#define AUDIT_BURST 16U
#define AUDIT_PER_SECOND 1U

/* Tokens in thousandths, filled up with time. */
struct rate {
        uint64_t tokens, stamp_ms;
};

struct owner {
        struct owner *next;
        char tenant[PEER_TENANT_MAX];   /* "": uid */
        uid_t uid;
        unsigned connections;
        struct rate sessions, audit;
};

struct admission {
        struct admission_limits limits;
        pthread_mutex_t lock;
        unsigned role_connections[_LISTENER_ROLE_N];
        unsigned nobodys;               /* connections of peers that are no tenant */
        struct owner *owners[OWNER_BUCKETS];
};

static uint64_t now_ms(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void rate_fill(struct rate *r, uint64_t now, unsigned burst, unsigned per_second) {
        uint64_t full = (uint64_t)burst * 1000;

        r->tokens += (now - r->stamp_ms) * per_second;
        if (r->tokens > full)
                r->tokens = full;
        r->stamp_ms = now;
}

static bool rate_take(struct rate *r) {
        if (r->tokens < 1000)
                return false;
        r->tokens -= 1000;
        return true;
}

int admission_new(const struct admission_limits *limits, struct admission **ret) {
        struct admission *a = calloc(1, sizeof *a);

        if (!a)
                return -ENOMEM;
        a->limits = *limits;
        pthread_mutex_init(&a->lock, NULL);
        *ret = a;
        return 0;
}

struct admission *admission_free(struct admission *a) {
        if (!a)
                return NULL;
        for (unsigned i = 0; i < OWNER_BUCKETS; i++)
                for (struct owner *e = a->owners[i], *next; e; e = next) {
                        next = e->next;
                        free(e);
                }
        pthread_mutex_destroy(&a->lock);
        free(a);
        return NULL;
}

static void owner_fill(struct admission *a, struct owner *o, uint64_t now) {
        rate_fill(&o->sessions, now, a->limits.sessions_burst, a->limits.sessions_per_second);
        rate_fill(&o->audit, now, AUDIT_BURST, AUDIT_PER_SECOND);
}

static bool owner_says_nothing(const struct admission *a, const struct owner *o) {
        return o->connections == 0 && o->sessions.tokens == (uint64_t)a->limits.sessions_burst * 1000 &&
               o->audit.tokens == (uint64_t)AUDIT_BURST * 1000;
}

static bool owner_is(const struct owner *o, const struct peer *peer) {
        return strcmp(o->tenant, peer->tenant) == 0 && (peer->tenant[0] || o->uid == peer->uid);
}

static struct owner **bucket_of(struct admission *a, const struct peer *peer) {
        uint32_t h = peer->tenant[0] ? 2166136261U : peer->uid;

        for (const char *p = peer->tenant; *p; p++)
                h = (h ^ (unsigned char)*p) * 16777619U;
        return &a->owners[h % OWNER_BUCKETS];
}

/* The owner of a peer's connections, made if need be. Others of the same bucket that would be the same if made
 * afresh are dropped on the way. NULL without memory. */
static struct owner *owner_of(struct admission *a, const struct peer *peer) {
        struct owner **bucket = bucket_of(a, peer), **p = bucket, *o, *found = NULL;
        uint64_t now = now_ms();

        while ((o = *p)) {
                owner_fill(a, o, now);
                if (owner_is(o, peer))
                        found = o;
                else if (owner_says_nothing(a, o)) {
                        *p = o->next;
                        free(o);
                        continue;
                }
                p = &o->next;
        }
        if (found)
                return found;
        o = calloc(1, sizeof *o);
        if (!o)
                return NULL;
        (void)strcpy(o->tenant, peer->tenant);
        o->uid = peer->uid;
        o->sessions = (struct rate){ (uint64_t)a->limits.sessions_burst * 1000, now };
        o->audit = (struct rate){ (uint64_t)AUDIT_BURST * 1000, now };
        o->next = *bucket;
        *bucket = o;
        return o;
}

/* A local user can have many uids (subuid(5)): together they must leave room for tenants. */
static unsigned nobodys_limit(const struct admission *a) {
        return a->limits.per_role / 8 + 1;
}

static bool is_nobody(enum listener_role role, const struct peer *peer) {
        return role != LISTENER_OPERATOR && !peer->tenant[0];
}

static int over(unsigned used, unsigned limit, struct refusal *r, const char *whose) {
        (void)refuse(r, REFUSAL_LIMIT_EXCEEDED, "too many connections: %u of %s are open, %u are allowed", used, whose,
                     limit);
        r->used = used;
        r->limit = limit;
        r->asked = 1;
        return -1;
}

int admission_enter(struct admission *a, enum listener_role role, const struct peer *peer, struct refusal *r) {
        struct owner *o;
        LOCK_SCOPE(&a->lock);

        o = owner_of(a, peer);
        if (!o)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        if (listener_role_is_session(role)) {
                if (rate_take(&o->sessions))
                        return 0;
                (void)refuse(r, REFUSAL_LIMIT_EXCEEDED, "sessions are opened too fast: %u at once, then %u a second",
                             a->limits.sessions_burst, a->limits.sessions_per_second);
                r->limit = a->limits.sessions_per_second;
                return -1;
        }
        if (a->role_connections[role] >= a->limits.per_role)
                return over(a->role_connections[role], a->limits.per_role, r, "this kind of socket");
        if (role != LISTENER_OPERATOR && o->connections >= a->limits.per_owner)
                return over(o->connections, a->limits.per_owner, r, "this tenant or user");
        if (is_nobody(role, peer) && a->nobodys >= nobodys_limit(a))
                return over(a->nobodys, nobodys_limit(a), r, "users that are no tenant");
        a->role_connections[role]++;
        a->nobodys += is_nobody(role, peer);
        o->connections += role != LISTENER_OPERATOR;
        return 0;
}

void admission_leave(struct admission *a, enum listener_role role, const struct peer *peer) {
        struct owner *o;
        LOCK_SCOPE(&a->lock);

        a->role_connections[role]--;
        a->nobodys -= is_nobody(role, peer);
        if (role == LISTENER_OPERATOR)
                return;
        o = owner_of(a, peer);
        if (o && o->connections > 0)
                o->connections--;
}

bool admission_may_audit(struct admission *a, const struct peer *peer) {
        struct owner *o;
        LOCK_SCOPE(&a->lock);

        o = owner_of(a, peer);
        return o && rate_take(&o->audit);
}
