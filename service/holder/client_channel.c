/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/client_channel.h"

#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/fdmsg.h"
#include "util/log.h"

#define SEND_PATIENCE_MS 1000   /* for a client whose queue is full */
#define JOIN_PATIENCE_S 1       /* for a reader that hangs in closing a fd */

struct ticket {
        uint64_t id;
        int fd;
};

struct client_channel {
        int connection;
        int pidfd;
        struct client_events events;
        bool started;
        pthread_t reader, watcher;
        atomic_bool ending;             /* from our side: the hang-up that follows is no news */

        pthread_mutex_t send_lock;      /* one message after the other, and no two waits for one full queue */

        pthread_mutex_t lock;           /* tickets; innermost */
        struct ticket *tickets;
        uint32_t n_tickets, max_tickets, room;
        uint64_t next_ticket;
};

/* --- sending ------------------------------------------------------------------------------------------------------*/

static struct session_msg answer(enum session_msg_type type, uint64_t cookie, uint64_t id) {
        return (struct session_msg){ .version = SESSION_CHANNEL_VERSION, .type = type, .cookie = cookie, .id = id };
}

static void set_refusal(struct session_msg *m, const struct refusal *r) {
        m->reason = r->reason;
        (void)snprintf(m->text, sizeof m->text, "%s", r->text);
}

/* A client that lets its answers pile up gets a moment, then it loses the session: the watcher sees the hang-up. */
static void send_msg(struct client_channel *c, const struct session_msg *m, int fd) {
        struct pollfd p = { .fd = c->connection, .events = POLLOUT };
        LOCK_SCOPE(&c->send_lock);
        int k;

        k = fdmsg_send(c->connection, m, sizeof *m, &fd, fd >= 0, MSG_DONTWAIT);
        if (k == -EAGAIN && poll(&p, 1, SEND_PATIENCE_MS) == 1)
                k = fdmsg_send(c->connection, m, sizeof *m, &fd, fd >= 0, MSG_DONTWAIT);
        if (k == -EAGAIN) {
                log_notice("the client does not read its answers: the session ends");
                (void)shutdown(c->connection, SHUT_RDWR);
        }
}

static void send_error(struct client_channel *c, uint64_t cookie, const char *what) {
        struct session_msg m = answer(SESSION_ERROR, cookie, 0);

        m.reason = REFUSAL_BAD_MESSAGE;
        (void)snprintf(m.text, sizeof m.text, "%s", what);
        send_msg(c, &m, -1);
}

void client_channel_send_token(struct client_channel *c, const char *token) {
        struct session_msg m = answer(SESSION_TOKEN, 0, 0);

        (void)snprintf(m.text, sizeof m.text, "%s", token);
        send_msg(c, &m, -1);
        explicit_bzero(&m, sizeof m);
}

void client_channel_send_device(struct client_channel *c, uint64_t cookie, uint64_t attachment, int fd,
                                enum device_fd_kind kind, const struct refusal *refusal) {
        struct session_msg m = answer(SESSION_DEVICE, cookie, attachment);

        if (refusal)
                set_refusal(&m, refusal);
        else
                m.kind = kind;
        send_msg(c, &m, refusal ? -1 : fd);
}

void client_channel_end(struct client_channel *c, enum refusal_reason reason, const char *text) {
        struct session_msg m = answer(SESSION_ENDED, 0, 0);

        m.reason = reason;
        (void)snprintf(m.text, sizeof m.text, "%s", text);
        atomic_store(&c->ending, true);
        /* without the lock: it may be waiting for this very client */
        (void)fdmsg_send(c->connection, &m, sizeof m, NULL, 0, MSG_DONTWAIT);
        (void)shutdown(c->connection, SHUT_RDWR);
}

/* --- tickets ------------------------------------------------------------------------------------------------------*/

static bool ticket_room(struct client_channel *c) {
        uint32_t room = c->room ? c->room * 2 : 16;
        struct ticket *t;

        if (c->n_tickets < c->room)
                return true;
        t = reallocarray(c->tickets, room, sizeof *t);
        if (!t)
                return false;
        c->tickets = t;
        c->room = room;
        return true;
}

static int ticket_add(struct client_channel *c, int *fd, uint64_t *ret, struct refusal *r) {
        LOCK_SCOPE(&c->lock);

        if (c->n_tickets >= c->max_tickets) {
                refuse(r, REFUSAL_LIMIT_EXCEEDED, "%u memory fds wait to be registered, and no more may: register or "
                       "drop some first", c->n_tickets);
                r->resource = RESOURCE_MEMORY_OBJECTS;
                r->limit = c->max_tickets;
                r->used = c->n_tickets;
                return -1;
        }
        if (!ticket_room(c))
                return refuse(r, REFUSAL_INTERNAL, "no memory for a ticket");
        *ret = c->next_ticket++;
        c->tickets[c->n_tickets++] = (struct ticket){ .id = *ret, .fd = fd_steal(fd) };
        return 0;
}

/* The fd of a ticket that is gone now; -1: there was none. */
static int ticket_take(struct client_channel *c, uint64_t id) {
        LOCK_SCOPE(&c->lock);

        for (uint32_t i = 0; i < c->n_tickets; i++)
                if (c->tickets[i].id == id) {
                        int fd = c->tickets[i].fd;

                        c->tickets[i] = c->tickets[--c->n_tickets];
                        return fd;
                }
        return -1;
}

int client_channel_claim(struct client_channel *c, uint64_t ticket, int *ret_fd, struct refusal *r) {
        int fd = ticket_take(c, ticket);

        if (fd < 0)
                return refuse(r, REFUSAL_UNKNOWN_TICKET,
                              "there is no memory fd with ticket %" PRIu64 ": it was never sent, was dropped, or was "
                              "used by an earlier registration (each attempt takes its ticket)", ticket);
        *ret_fd = fd;
        return 0;
}

/* --- reading ------------------------------------------------------------------------------------------------------*/

static void handle_memory(struct client_channel *c, const struct session_msg *m, int fds[FDMSG_MAX_FDS]) {
        struct session_msg a = answer(SESSION_TICKET, m->cookie, 0);
        struct refusal r;
        int k;

        if (fds[0] < 0 || fds[1] >= 0)
                k = refuse(&r, REFUSAL_BAD_MESSAGE, "a memory message carries exactly one fd");
        else
                k = ticket_add(c, &fds[0], &a.id, &r);
        if (k < 0)
                set_refusal(&a, &r);
        send_msg(c, &a, -1);
}

static void handle(struct client_channel *c, const struct session_msg *m, int fds[FDMSG_MAX_FDS]) {
        if (m->type == SESSION_MEMORY) {
                handle_memory(c, m, fds);
                return;
        }
        if (fds[0] >= 0) {
                send_error(c, m->cookie, "this kind of message carries no fd");
                return;
        }
        switch (m->type) {
        case SESSION_DEVICE_FD:
                c->events.device_fd(c->events.userdata, m->id, m->cookie);
                break;
        case SESSION_DROP_TICKET:
                fd_close(ticket_take(c, m->id));
                break;
        default:
                send_error(c, m->cookie, "unknown type of message");
        }
}

/* An empty message reads like the end: the socket's state tells them apart. */
static bool hung_up(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLRDHUP };

        return poll(&p, 1, 0) == 1;
}

/* False: there will be no more. */
static bool read_one(struct client_channel *c) {
        struct pollfd p = { .fd = c->connection, .events = POLLIN };
        struct session_msg m = { .cookie = 0 };
        int fds[FDMSG_MAX_FDS];
        ssize_t n;

        if (poll(&p, 1, -1) < 0)
                return errno == EINTR;
        n = fdmsg_receive(c->connection, &m, sizeof m, fds, MSG_DONTWAIT);
        if (n == 0 && hung_up(c->connection))
                return false;
        if (n < 0 && n != -EMSGSIZE && n != -EPROTO)
                return n == -EAGAIN;
        if (atomic_load(&c->ending))
                ;               /* read on, so that what is unread does not turn our last words into a reset */
        else if (n == (ssize_t)sizeof m && m.version == SESSION_CHANNEL_VERSION)
                handle(c, &m, fds);
        else
                send_error(c, 0, n == -EPROTO ? "too many fds in a message" : "wrong size or version of a message");
        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                fd_close(fds[i]);
        return true;
}

static void *reader_main(void *p) {
        struct client_channel *c = p;

        while (read_one(c))
                ;
        return NULL;
}

/* --- watching -----------------------------------------------------------------------------------------------------*/

static void *watcher_main(void *v) {
        struct client_channel *c = v;
        struct pollfd p[2] = { { .fd = c->connection, .events = POLLRDHUP },
                               { .fd = c->pidfd, .events = POLLIN } };  /* a negative fd is ignored */

        while (poll(p, 2, -1) < 0 && errno == EINTR)
                ;
        /* the client may have died with its connection open in a child: the reader ends too */
        (void)shutdown(c->connection, SHUT_RDWR);
        if (!atomic_load(&c->ending))
                c->events.gone(c->events.userdata);
        return NULL;
}

/* --- life ---------------------------------------------------------------------------------------------------------*/

int client_channel_new(int *connection, int *pidfd, uint32_t max_tickets, struct client_channel **ret) {
        struct client_channel *c = calloc(1, sizeof *c);

        if (!c)
                return -ENOMEM;
        c->connection = fd_steal(connection);
        c->pidfd = fd_steal(pidfd);
        c->max_tickets = max_tickets;
        c->next_ticket = 1;
        c->send_lock = c->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        *ret = c;
        return 0;
}

int client_channel_start(struct client_channel *c, const struct client_events *events) {
        int k;

        c->events = *events;
        k = pthread_create(&c->watcher, NULL, watcher_main, c);
        if (k != 0)
                return -k;
        k = pthread_create(&c->reader, NULL, reader_main, c);
        if (k != 0) {
                atomic_store(&c->ending, true);
                (void)shutdown(c->connection, SHUT_RDWR);
                pthread_join(c->watcher, NULL);
                return -k;
        }
        c->started = true;
        return 0;
}

static bool stop_threads(struct client_channel *c) {
        struct timespec until;

        atomic_store(&c->ending, true);
        (void)shutdown(c->connection, SHUT_RDWR);
        pthread_join(c->watcher, NULL);
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += JOIN_PATIENCE_S;
        return pthread_timedjoin_np(c->reader, NULL, &until) == 0;
}

struct client_channel *client_channel_free(struct client_channel *c) {
        if (!c)
                return NULL;
        if (c->started && !stop_threads(c)) {
                log_warning("a fd of the client cannot be closed; left to the end of the process");
                return c;
        }
        fd_close(c->connection);
        fd_close(c->pidfd);
        for (uint32_t i = 0; i < c->n_tickets; i++)
                fd_close(c->tickets[i].fd);
        free(c->tickets);
        pthread_mutex_destroy(&c->send_lock);
        pthread_mutex_destroy(&c->lock);
        free(c);
        return NULL;
}
