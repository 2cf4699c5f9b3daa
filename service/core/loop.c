/* SPDX-License-Identifier: Apache-2.0 */
#include "core/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/holder_link.h"
#include "util/cleanup.h"
#include "util/log.h"

#define EVENTS_AT_ONCE 64

/* A link that is watched no more. Its reference is dropped by the loop thread between two rounds: an event of the current
 * round may still point to it. */
struct retired {
        struct retired *next;
        struct holder_link *link;
};

struct guest {                          /* a connection that has not said anything yet */
        int fd;                         /* -1: none */
};

struct loop {
        int epoll, wake, listen_fd;
        void (*greet)(void *arg, int fd);
        void *arg;
        struct guest guests[LOOP_GUESTS_MAX];   /* a ring; the loop thread's own */
        unsigned next_guest;
        pthread_t thread;
        bool started;
        atomic_bool stop;
        pthread_mutex_t lock;           /* protects retired; leaf */
        struct retired *retired;
};

int loop_new(int listen_fd, void (*greet)(void *arg, int fd), void *arg, struct loop **ret) {
        struct loop *l = calloc(1, sizeof *l);
        struct epoll_event event = { .events = EPOLLIN };

        if (!l)
                return -ENOMEM;
        l->greet = greet;
        l->arg = arg;
        for (unsigned i = 0; i < LOOP_GUESTS_MAX; i++)
                l->guests[i].fd = -1;
        l->listen_fd = listen_fd;
        pthread_mutex_init(&l->lock, NULL);
        l->epoll = epoll_create1(EPOLL_CLOEXEC);
        l->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        event.data.ptr = &l->wake;
        if (l->epoll < 0 || l->wake < 0 || epoll_ctl(l->epoll, EPOLL_CTL_ADD, l->wake, &event) < 0)
                goto fail;
        event.data.ptr = &l->listen_fd;
        if (listen_fd >= 0 && epoll_ctl(l->epoll, EPOLL_CTL_ADD, listen_fd, &event) < 0)
                goto fail;
        *ret = l;
        return 0;
fail:
        loop_free(l);
        return -errno;
}

static void drop_retired(struct loop *l) {
        struct retired *list, *next;

        pthread_mutex_lock(&l->lock);
        list = l->retired;
        l->retired = NULL;
        pthread_mutex_unlock(&l->lock);
        for (; list; list = next) {
                next = list->next;
                holder_link_unref(list->link);
                free(list);
        }
}

static void clear(int eventfd_fd) {
        uint64_t count;

        while (read(eventfd_fd, &count, sizeof count) > 0)
                ;
}

/* What it has to say is not waited for here: who is silent would hold up everybody (I10). */
static void let_in(struct loop *l) {
        struct guest *g = &l->guests[l->next_guest];
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = g };
        int fd = accept4(l->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0)
                return;
        if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
                log_warning("a holder that comes back cannot be listened to: %m");
                fd_close(fd);
                return;
        }
        fd_close(g->fd);
        g->fd = fd;
        l->next_guest = (l->next_guest + 1) % LOOP_GUESTS_MAX;
}

static bool is_guest(const struct loop *l, const void *what) {
        return (uintptr_t)what >= (uintptr_t)l->guests && (uintptr_t)what < (uintptr_t)(l->guests + LOOP_GUESTS_MAX);
}

/* Not by epoll any more: from now on it is a link, or nothing. */
static void greet_guest(struct loop *l, struct guest *g) {
        if (g->fd < 0)
                return;         /* gone in this round */
        epoll_ctl(l->epoll, EPOLL_CTL_DEL, g->fd, NULL);
        l->greet(l->arg, fd_steal(&g->fd));
}

static void *loop_run(void *arg) {
        struct loop *l = arg;

        while (!atomic_load(&l->stop)) {
                struct epoll_event events[EVENTS_AT_ONCE];
                int n = epoll_wait(l->epoll, events, EVENTS_AT_ONCE, -1);

                for (int i = 0; i < n; i++) {
                        void *what = events[i].data.ptr;

                        if (what == &l->listen_fd)
                                let_in(l);
                        else if (what == &l->wake)
                                clear(l->wake);
                        else if (is_guest(l, what))
                                greet_guest(l, what);
                        else
                                holder_link_readable(what);
                }
                drop_retired(l);
        }
        return NULL;
}

int loop_start(struct loop *l) {
        int r = pthread_create(&l->thread, NULL, loop_run, l);

        l->started = r == 0;
        return -r;
}

void loop_stop(struct loop *l) {
        const uint64_t one = 1;

        if (!l || !l->started)
                return;
        atomic_store(&l->stop, true);
        if (write(l->wake, &one, sizeof one) < 0)
                log_error("cannot wake the loop: %m");
        pthread_join(l->thread, NULL);
        l->started = false;
}

struct loop *loop_free(struct loop *l) {
        if (!l)
                return NULL;
        drop_retired(l);
        for (unsigned i = 0; i < LOOP_GUESTS_MAX; i++)
                fd_close(l->guests[i].fd);
        fd_close(l->epoll);
        fd_close(l->wake);
        pthread_mutex_destroy(&l->lock);
        free(l);
        return NULL;
}

int loop_watch(struct loop *l, struct holder_link *link, int fd) {
        struct epoll_event event = { .events = EPOLLONESHOT, .data.ptr = link };

        if (epoll_ctl(l->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
                return -errno;
        holder_link_ref(link);
        return 0;
}

static void set_events(struct loop *l, struct holder_link *link, int fd, uint32_t events) {
        struct epoll_event event = { .events = events | EPOLLONESHOT, .data.ptr = link };

        /* ENOENT: unwatched by another thread meanwhile */
        if (epoll_ctl(l->epoll, EPOLL_CTL_MOD, fd, &event) < 0 && errno != ENOENT)
                log_error("cannot watch a holder's link: %m");
}

void loop_arm(struct loop *l, struct holder_link *link, int fd) {
        set_events(l, link, fd, EPOLLIN);
}

void loop_disarm(struct loop *l, struct holder_link *link, int fd) {
        set_events(l, link, fd, 0);
}

void loop_unwatch(struct loop *l, struct holder_link *link, int fd) {
        struct retired *r = malloc(sizeof *r);

        const uint64_t one = 1;

        epoll_ctl(l->epoll, EPOLL_CTL_DEL, fd, NULL);
        if (!r) {
                log_error("out of memory: one link's memory is lost");  /* the reference is never dropped: a leak is safe */
                return;
        }
        r->link = link;
        pthread_mutex_lock(&l->lock);
        r->next = l->retired;
        l->retired = r;
        pthread_mutex_unlock(&l->lock);
        if (write(l->wake, &one, sizeof one) < 0)
                log_debug("the loop is awake already: %m");
}
