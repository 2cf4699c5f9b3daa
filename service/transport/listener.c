/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

#include "auth/policy.h"
#include "core/requests.h"
#include "transport/socket.h"
#include "transport/transport_private.h"
#include "util/cleanup.h"
#include "util/log.h"

#define ACCEPT_BATCH 16U                /* connections of one socket before others have their turn */
#define EVENTS_MAX 64
#define NO_DESCRIPTORS_PAUSE_MS 100

/* A listening socket. The thread owns it; others mark it as removed. */
struct listening {
        int fd;
        enum listener_role role;
        char tenant[PEER_TENANT_MAX];
        atomic_bool removed;
        struct listening *next;         /* under lock */
};

struct listener {
        struct transport *transport;
        int epoll_fd, wake_fd;
        pthread_t thread;
        bool running;
        atomic_bool ending;
        pthread_mutex_t lock;
        struct listening *sockets;
        struct connection *released;    /* their servers are down, by released_next */
        /* of the thread alone: connections whose deadline is to come, oldest first, which is the order of deadlines */
        struct connection *first, *last;
        uint64_t paused_until_ms;       /* out of descriptors: nothing is accepted until then */
};

/* epoll hands back a pointer: the lowest bit says to what. */
#define DATA_CONNECTION 1U

static uint64_t now_ms(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void wake(struct listener *l) {
        uint64_t one = 1;

        while (write(l->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
                ;
}

/* ---- watched connections; the thread only ---- */

/* The connection has no deadline any more. */
static void deadline_remove(struct listener *l, struct connection *c) {
        if (c->deadline_ms == 0)
                return;
        c->deadline_ms = 0;
        *(c->watch_previous ? &c->watch_previous->watch_next : &l->first) = c->watch_next;
        *(c->watch_next ? &c->watch_next->watch_previous : &l->last) = c->watch_previous;
        c->watch_next = c->watch_previous = NULL;
}

static void watch_add(struct listener *l, struct connection *c) {
        struct epoll_event e = { .events = EPOLLRDHUP, .data.u64 = (uintptr_t)c | DATA_CONNECTION };

        c->deadline_ms = now_ms() + l->transport->options.first_call_ms;
        c->watch_previous = l->last;
        *(l->last ? &l->last->watch_next : &l->first) = c;
        l->last = c;
        if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, c->watch_fd, &e) < 0) {
                log_warning("transport: cannot watch a connection of pid %d: %m", (int)c->peer.pid);
                connection_end(c, true);
        }
}

/* Lets go of a connection. Its descriptor is removed by hand: the socket lives on in gRPC's, so close() would not do
 * it. */
static void watch_remove(struct listener *l, struct connection *c) {
        if (c->watch_fd < 0)
                return;
        (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, c->watch_fd, NULL);
        c->watch_fd = fd_close(c->watch_fd);
        deadline_remove(l, c);
        (void)connection_unref(c);
}

static void hung_up(struct listener *l, struct connection *c) {
        connection_end(c, true);
        watch_remove(l, c);
}

void listener_release(struct listener *l, struct connection *c) {
        connection_ref(c);
        pthread_mutex_lock(&l->lock);
        c->released_next = l->released;
        l->released = c;
        pthread_mutex_unlock(&l->lock);
        wake(l);
}

static void let_go(struct listener *l) {
        struct connection *c, *next;

        pthread_mutex_lock(&l->lock);
        c = l->released;
        l->released = NULL;
        pthread_mutex_unlock(&l->lock);
        for (; c; c = next) {
                next = c->released_next;
                watch_remove(l, c);
                (void)connection_unref(c);
        }
}

/* Ends connections that have not made a call by their deadline, or that may not make any. Returns for how long to
 * wait, -1 for ever. */
static int silent_end(struct listener *l) {
        uint64_t now = now_ms();
        struct connection *c;

        while ((c = l->first) && c->deadline_ms <= now) {
                deadline_remove(l, c);
                if (!c->called || c->refused)
                        connection_end(c, true);
        }
        return c ? (int)(c->deadline_ms - now) : -1;
}

/* ---- accepting ---- */

static void accept_session(struct listener *l, const struct listening *s, int fd) {
        struct broker *b = l->transport->broker;
        struct refusal r;
        struct peer peer;
        int e = peer_from_socket(fd, socket_peer_kind(s->role), s->tenant[0] ? s->tenant : NULL, &peer);

        if (e < 0) {
                (void)refuse(&r, REFUSAL_UNKNOWN_PEER, "who is connecting could not be found out: %s", strerror(-e));
                session_refuse_connection(b, fd, &r);
                return;
        }
        if (policy_identify(b, &peer, &r) < 0) {
                if (admission_may_audit(l->transport->admission, &peer))
                        policy_peer_refused(b, &peer, &r);
                session_refuse_connection(b, fd, &r);
        } else if (admission_enter(l->transport->admission, s->role, &peer, &r) < 0)
                session_refuse_connection(b, fd, &r);
        else
                session_start(b, fd, &peer);
        peer_clear(&peer);
}

static void accept_grpc(struct listener *l, const struct listening *s, int fd) {
        struct transport *t = l->transport;
        struct connection *c;
        struct refusal r, over;
        struct peer peer;
        bool refused;
        int e = peer_from_socket(fd, socket_peer_kind(s->role), s->tenant[0] ? s->tenant : NULL, &peer);

        if (e < 0) {
                log_debug("transport: a connection whose peer is gone: %s", strerror(-e));
                fd_close(fd);
                return;
        }
        refused = policy_identify(t->broker, &peer, &r) < 0;
        if (refused && admission_may_audit(t->admission, &peer))
                policy_peer_refused(t->broker, &peer, &r);
        if (admission_enter(t->admission, s->role, &peer, &over) < 0) {
                log_debug("transport: pid %d: %s", (int)peer.pid, over.text);
                fd_close(fd);
                peer_clear(&peer);
                return;
        }
        socket_refuse_descriptors(fd);
        e = connection_new(t, fd, s->role, &peer, refused ? &r : NULL, &c);
        if (e < 0)
                log_warning("transport: connection: %s", strerror(-e));
        else
                watch_add(l, c);
}

/* Out of something, for now. */
static bool accept_error_passes(int e) {
        return e == EMFILE || e == ENFILE || e == ENOBUFS || e == ENOMEM;
}

/* Of the one connection, or of nobody (accept(2)). */
static bool accept_error_is_theirs(int e) {
        return e == ECONNABORTED || e == EINTR || e == EPERM || e == EPROTO;
}

static void listeners_arm(struct listener *l, uint32_t events) {
        LOCK_SCOPE(&l->lock);

        for (struct listening *s = l->sockets; s; s = s->next) {
                struct epoll_event e = { .events = events, .data.ptr = s };

                (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, s->fd, &e);
        }
}

static void accept_failed(struct listener *l, struct listening *s) {
        if (errno == EAGAIN)
                return;
        log_warning("transport: accept: %m");
        if (accept_error_passes(errno)) {
                /* the socket stays readable: looking away is all that keeps this from spinning */
                l->paused_until_ms = now_ms() + NO_DESCRIPTORS_PAUSE_MS;
                listeners_arm(l, 0);
        } else
                s->removed = true;
}

static void accept_some(struct listener *l, struct listening *s) {
        for (unsigned i = 0; i < ACCEPT_BATCH && !s->removed; i++) {
                int fd = accept4(s->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

                if (fd < 0 && accept_error_is_theirs(errno))
                        continue;
                if (fd < 0) {
                        accept_failed(l, s);
                        return;
                }
                if (listener_role_is_session(s->role))
                        accept_session(l, s, fd);
                else
                        accept_grpc(l, s, fd);
        }
}

/* Closes sockets that were removed. Nothing of this round of events points to them any more. */
static void sockets_reap(struct listener *l) {
        struct listening **p = &l->sockets, *s;
        LOCK_SCOPE(&l->lock);

        while ((s = *p)) {
                if (!s->removed) {
                        p = &s->next;
                        continue;
                }
                *p = s->next;
                (void)epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
                fd_close(s->fd);
                free(s);
        }
}

/* ---- the thread ---- */

static int timeout_ms(struct listener *l) {
        int silent = silent_end(l), pause;
        uint64_t now;

        if (l->paused_until_ms == 0)
                return silent;
        now = now_ms();
        if (now >= l->paused_until_ms) {
                l->paused_until_ms = 0;
                listeners_arm(l, EPOLLIN);
                return silent;
        }
        pause = (int)(l->paused_until_ms - now);
        return silent >= 0 && silent < pause ? silent : pause;
}

static void handle(struct listener *l, const struct epoll_event *e) {
        uint64_t drained;

        if (!e->data.ptr) {
                while (read(l->wake_fd, &drained, sizeof drained) < 0 && errno == EINTR)
                        ;
                return;
        }
        if (e->data.u64 & DATA_CONNECTION)
                hung_up(l, (struct connection *)(uintptr_t)(e->data.u64 & ~(uint64_t)DATA_CONNECTION));
        else
                accept_some(l, e->data.ptr);
}

static void *listener_main(void *arg) {
        struct listener *l = arg;
        struct epoll_event events[EVENTS_MAX];

        while (!l->ending) {
                int n = epoll_wait(l->epoll_fd, events, EVENTS_MAX, timeout_ms(l));

                for (int i = 0; i < n; i++)
                        handle(l, &events[i]);
                let_go(l);
                sockets_reap(l);
        }
        return NULL;
}

/* ---- from outside ---- */

int listener_new(struct transport *t, struct listener **ret) {
        struct listener *l = calloc(1, sizeof *l);
        struct epoll_event e = { .events = EPOLLIN, .data.ptr = NULL };

        if (!l)
                return -ENOMEM;
        l->transport = t;
        pthread_mutex_init(&l->lock, NULL);
        l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (l->epoll_fd < 0 || l->wake_fd < 0 || epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, l->wake_fd, &e) < 0) {
                int r = -errno;

                (void)listener_free(l);
                return r;
        }
        *ret = l;
        return 0;
}

int listener_start(struct listener *l) {
        int r = pthread_create(&l->thread, NULL, listener_main, l);

        l->running = r == 0;
        return -r;
}

int listener_add(struct listener *l, int fd, enum listener_role role, const char *tenant) {
        _cleanup_close_ int owned = fd;
        struct epoll_event e = { .events = EPOLLIN };
        struct listening *s;
        int r = socket_check_listening(fd, role);

        if (r < 0)
                return r;
        s = calloc(1, sizeof *s);
        if (!s)
                return -ENOMEM;
        s->fd = fd;
        s->role = role;
        if (tenant)
                (void)stpncpy(s->tenant, tenant, sizeof s->tenant - 1);
        e.data.ptr = s;
        if (!listener_role_is_session(role))
                socket_refuse_descriptors(fd);
        pthread_mutex_lock(&l->lock);
        if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
                r = -errno;
        else {
                s->next = l->sockets;
                l->sockets = s;
                (void)fd_steal(&owned);
        }
        pthread_mutex_unlock(&l->lock);
        if (r < 0)
                free(s);
        return r;
}

/* tenant NULL: all. */
static void mark_removed(struct listener *l, const char *tenant) {
        pthread_mutex_lock(&l->lock);
        for (struct listening *s = l->sockets; s; s = s->next) {
                if (!tenant || strcmp(s->tenant, tenant) == 0)
                        s->removed = true;
        }
        pthread_mutex_unlock(&l->lock);
        wake(l);
}

void listener_remove_tenant(struct listener *l, const char *tenant) {
        mark_removed(l, tenant);
}

void listener_remove_all(struct listener *l) {
        mark_removed(l, NULL);
}

struct listener *listener_free(struct listener *l) {
        if (!l)
                return NULL;
        if (l->running) {
                l->ending = true;
                wake(l);
                pthread_join(l->thread, NULL);
        }
        let_go(l);
        for (struct listening *s = l->sockets; s; s = s->next)
                s->removed = true;
        sockets_reap(l);
        l->wake_fd = fd_close(l->wake_fd);
        l->epoll_fd = fd_close(l->epoll_fd);
        pthread_mutex_destroy(&l->lock);
        free(l);
        return NULL;
}
