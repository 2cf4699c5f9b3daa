/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/transport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "dispatch/dispatch.h"
#include "transport/transport_private.h"
#include "util/cleanup.h"

static void default_to(unsigned *option, unsigned value) {
        if (*option == 0)
                *option = value;
}

/* Each further worker costs a single client 3 to 5 microseconds a call, because gRPC hands the role of poller on
 * with every event (seen); more than one is needed so that a commit or a long batch keeps nobody else waiting. */
static unsigned default_threads(void) {
        long n = sysconf(_SC_NPROCESSORS_ONLN);

        return n <= 2 ? 2 : n >= 4 ? 4 : (unsigned)n;
}

static void options_complete(struct transport_options *o) {
        default_to(&o->threads, default_threads());
        default_to(&o->queues, 1);
        default_to(&o->max_streams, 64);
        default_to(&o->max_message, 256 * 1024);
        default_to(&o->max_metadata, 4096);
        default_to(&o->first_call_ms, 60000);
        default_to(&o->limits.per_role, 2048);
        default_to(&o->limits.per_owner, 128);
        default_to(&o->limits.sessions_burst, 64);
        default_to(&o->limits.sessions_per_second, 32);
}

int transport_new(struct broker *b, const struct transport_options *options, struct transport **ret) {
        struct transport *t = calloc(1, sizeof *t);
        pthread_condattr_t monotonic;
        int r;

        if (!t)
                return -ENOMEM;
        t->broker = b;
        t->options = *options;
        options_complete(&t->options);
        pthread_mutex_init(&t->lock, NULL);
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&t->gone, &monotonic);
        pthread_condattr_destroy(&monotonic);
        t->calls = call_pool_new();
        r = t->calls ? dispatch_start() : -ENOMEM;
        if (r == 0)
                r = admission_new(&t->options.limits, &t->admission);
        if (r == 0)
                r = grpc_loop_new(t->options.threads, t->options.queues, &t->loop);
        if (r == 0)
                r = listener_new(t, &t->listener);
        if (r < 0) {
                (void)transport_free(t);
                return r;
        }
        *ret = t;
        return 0;
}

int transport_add_listener(struct transport *t, int fd, enum listener_role role, const char *tenant) {
        bool of_tenant = role == LISTENER_TENANT || role == LISTENER_TENANT_SESSION;

        if (role < LISTENER_CLIENT || role >= _LISTENER_ROLE_N || of_tenant != (tenant && tenant[0]) ||
            (tenant && strlen(tenant) >= PEER_TENANT_MAX)) {
                fd_close(fd);
                return -EINVAL;
        }
        return listener_add(t->listener, fd, role, tenant);
}

void transport_remove_tenant(struct transport *t, const char *tenant) {
        listener_remove_tenant(t->listener, tenant);
        LOCK_SCOPE(&t->lock);
        for (struct connection *c = t->connections; c; c = c->next)
                if (strcmp(c->peer.tenant, tenant) == 0)
                        connection_end(c, false);
}

int transport_start(struct transport *t) {
        int r = grpc_loop_start(t->loop);

        if (r == 0)
                r = listener_start(t->listener);
        t->started = r == 0;
        if (r == 0)
                dispatch_set_serving(true);
        return r;
}

/* ---- connections ---- */

bool transport_connection_new(struct transport *t, struct connection *c) {
        LOCK_SCOPE(&t->lock);

        c->next = t->connections;
        if (c->next)
                c->next->previous = c;
        t->connections = c;
        t->n_connections++;
        return !t->stopped;
}

void transport_connection_gone(struct transport *t, struct connection *c) {
        LOCK_SCOPE(&t->lock);

        *(c->previous ? &c->previous->next : &t->connections) = c->next;
        if (c->next)
                c->next->previous = c->previous;
}

void transport_count_down(struct transport *t) {
        LOCK_SCOPE(&t->lock);

        if (--t->n_connections == 0)
                pthread_cond_broadcast(&t->gone);
}

void transport_watch_end(struct transport *t, struct connection *c) {
        listener_release(t->listener, c);
}

unsigned transport_connections(struct transport *t) {
        LOCK_SCOPE(&t->lock);

        return t->n_connections;
}

/* ---- the end ---- */

static void end_all(struct transport *t, bool at_once) {
        LOCK_SCOPE(&t->lock);

        for (struct connection *c = t->connections; c; c = c->next)
                connection_end(c, at_once);
}

/* Waits until every connection is gone, at most this long; how many are left. */
static unsigned wait_gone(struct transport *t, unsigned timeout_ms) {
        struct timespec until;
        LOCK_SCOPE(&t->lock);

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += timeout_ms / 1000;
        until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
        if (until.tv_nsec >= 1000000000) {
                until.tv_sec++;
                until.tv_nsec -= 1000000000;
        }
        while (t->n_connections > 0)
                if (pthread_cond_timedwait(&t->gone, &t->lock, &until) == ETIMEDOUT)
                        break;
        return t->n_connections;
}

/* After a cancellation, only calls that wait for the core are left. */
#define CANCEL_SETTLES_MS 500U

unsigned transport_stop(struct transport *t, unsigned drain_ms) {
        if (!t->started || t->stopped)
                return 0;
        pthread_mutex_lock(&t->lock);
        t->stopped = true;
        pthread_mutex_unlock(&t->lock);
        dispatch_set_serving(false);
        listener_remove_all(t->listener);
        dispatch_end_streams();
        end_all(t, false);
        if (wait_gone(t, drain_ms) == 0)
                return 0;
        end_all(t, true);
        return wait_gone(t, CANCEL_SETTLES_MS);
}

struct transport *transport_free(struct transport *t) {
        if (!t)
                return NULL;
        (void)transport_stop(t, 0);
        if (t->listener && t->started) {
                pthread_mutex_lock(&t->lock);
                while (t->n_connections > 0)
                        pthread_cond_wait(&t->gone, &t->lock);
                pthread_mutex_unlock(&t->lock);
        }
        t->listener = listener_free(t->listener);
        t->loop = grpc_loop_free(t->loop);
        t->calls = call_pool_free(t->calls);
        t->admission = admission_free(t->admission);
        pthread_cond_destroy(&t->gone);
        pthread_mutex_destroy(&t->lock);
        free(t);
        return NULL;
}
