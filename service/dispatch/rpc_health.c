/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <string.h>

#include "dispatch/rpc.h"
#include "util/cleanup.h"

/*
 * The standard health service. Watchers are few (limits per connection and on connections) and hear only of changes.
 *
 * Lock order: health.lock, then whatever rpc->ops takes; ops never call back.
 */
#define STATUS_NOT_FOUND 5
#define STATUS_RESOURCE_EXHAUSTED 8
#define STATUS_UNAVAILABLE 14

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus health_status;

static struct {
        pthread_mutex_t lock;
        bool serving;
        bool ended;                     /* no streams any more */
        struct rpc *watchers;           /* of known services */
} health = { .lock = PTHREAD_MUTEX_INITIALIZER };

static bool service_is_known(const char *service) {
        return service[0] == '\0' || strcmp(service, iommud__v1__client__descriptor.name) == 0 ||
               strcmp(service, iommud__v1__operator__descriptor.name) == 0;
}

static health_status status_now(void) {
        return health.serving ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING :
                                GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING;
}

void rpc_health_check(struct rpc *rpc, const void *request, struct arena *arena) {
        const Grpc__Health__V1__HealthCheckRequest *req = request;
        Grpc__Health__V1__HealthCheckResponse answer = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;

        if (!service_is_known(req->service)) {
                rpc->ops->fail(rpc, STATUS_NOT_FOUND, "no such service");
                return;
        }
        pthread_mutex_lock(&health.lock);
        answer.status = status_now();
        pthread_mutex_unlock(&health.lock);
        rpc_answer(rpc, &answer, arena);
}

static bool watch_send(struct rpc *rpc, health_status status) {
        Grpc__Health__V1__HealthCheckResponse message = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
        uint8_t packed[16];

        message.status = status;
        rpc->last_sent = (int)status;
        return rpc->ops->send(rpc, packed, grpc__health__v1__health_check_response__pack(&message, packed));
}

static void watcher_link(struct rpc *rpc) {
        rpc->previous = NULL;
        rpc->next = health.watchers;
        if (rpc->next)
                rpc->next->previous = rpc;
        health.watchers = rpc;
}

static void watcher_unlink(struct rpc *rpc) {
        if (rpc->previous)
                rpc->previous->next = rpc->next;
        else
                health.watchers = rpc->next;
        if (rpc->next)
                rpc->next->previous = rpc->previous;
        rpc->next = rpc->previous = NULL;
}

static bool watcher_is_linked(const struct rpc *rpc) {
        return rpc->previous || health.watchers == rpc;
}

static void watch_end(struct rpc *rpc) {
        rpc->ops->fail(rpc, STATUS_UNAVAILABLE, "the service is stopping");
}

/* The client went away. Whoever unlinks the watcher ends it: this, or dispatch_end_streams(). */
static void watch_cancelled(struct rpc *rpc) {
        bool mine;

        pthread_mutex_lock(&health.lock);
        mine = watcher_is_linked(rpc);
        if (mine)
                watcher_unlink(rpc);
        pthread_mutex_unlock(&health.lock);
        if (mine)
                watch_end(rpc);
}

void rpc_health_watch(struct rpc *rpc, const void *request, struct arena *arena) {
        const Grpc__Health__V1__HealthCheckRequest *req = request;
        bool known = service_is_known(req->service), linked;

        (void)arena;
        rpc->cancelled = watch_cancelled;
        pthread_mutex_lock(&health.lock);
        linked = !health.ended;
        if (linked) {
                /* an unknown service stays unknown: its stream hears of nothing but its end */
                rpc->last_sent = -1;
                (void)watch_send(rpc, known ? status_now() :
                                          GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN);
                watcher_link(rpc);
        }
        pthread_mutex_unlock(&health.lock);
        if (!linked)
                watch_end(rpc);
}

void dispatch_set_serving(bool serving) {
        LOCK_SCOPE(&health.lock);

        health.serving = serving;
        for (struct rpc *w = health.watchers, *next; w; w = next) {
                next = w->next;
                if (w->last_sent == (int)status_now() ||
                    w->last_sent == (int)GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN)
                        continue;
                if (!watch_send(w, status_now())) {
                        watcher_unlink(w);
                        w->ops->fail(w, STATUS_RESOURCE_EXHAUSTED, "the client does not read its stream");
                }
        }
}

void dispatch_end_streams(void) {
        for (;;) {
                struct rpc *w;

                pthread_mutex_lock(&health.lock);
                health.ended = true;
                w = health.watchers;
                if (w)
                        watcher_unlink(w);
                pthread_mutex_unlock(&health.lock);
                if (!w)
                        return;
                watch_end(w);
        }
}

void rpc_health_reset(void) {
        LOCK_SCOPE(&health.lock);

        health.ended = false;
}
