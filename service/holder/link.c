/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/link.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"

#define SEND_TIMEOUT_S 10
#define POLL_US 50U
#define RECONNECT_FIRST_MS 200U
#define RECONNECT_LAST_MS 2000U

struct link {
        pthread_mutex_t send_lock;      /* innermost lock of the holder. Guards: sending on fd, changing fd, facts.
                                         * Only the thread of link_run() changes fd, so it reads fd without the lock. */
        int fd;                         /* -1 while lost */
        uid_t broker_uid;
        bool live;
        bool client_gone;
        struct link_facts facts;
        uint64_t (*last_seq)(void *userdata);
        void *last_seq_userdata;
        uint64_t lost_since_ms;         /* since when no broker has spoken; 0: the link works */
        _Alignas(16) uint8_t buffer[LINK_MESSAGE_MAX];
};

static uint64_t now_us(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t now_ms(void) {
        return now_us() / 1000;
}

struct link_header link_header_make(enum link_type type, uint64_t seq, uint64_t domain) {
        return (struct link_header){ .version = LINK_VERSION, .type = (uint16_t)type, .seq = seq, .domain = domain };
}

/* Is this a socket of the right kind with the broker at its other end? */
static int check_peer(int fd, uid_t uid) {
        struct ucred peer;
        socklen_t size = sizeof peer;
        int type;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
                return -errno;
        if (peer.uid != uid) {
                log_error("the peer of the link has uid %u, not the broker's %u", peer.uid, uid);
                return -EPERM;
        }
        size = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
                return -errno;
        return type == SOCK_SEQPACKET ? 0 : -EINVAL;
}

static void set_send_timeout(int fd) {
        struct timeval t = { .tv_sec = SEND_TIMEOUT_S };

        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

int link_new(int *fd, uid_t broker_uid, struct link **ret) {
        _cleanup_close_ int owned = fd_steal(fd);
        struct link *l;
        int k;

        k = check_peer(owned, broker_uid);
        if (k < 0)
                return k;
        l = calloc(1, sizeof *l);
        if (!l)
                return -ENOMEM;
        l->send_lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        l->broker_uid = broker_uid;
        l->fd = fd_steal(&owned);
        set_send_timeout(l->fd);
        *ret = l;
        return 0;
}

struct link *link_free(struct link *l) {
        if (!l)
                return NULL;
        fd_close(l->fd);
        pthread_mutex_destroy(&l->send_lock);
        explicit_bzero(&l->facts, sizeof l->facts);
        free(l);
        return NULL;
}

int link_fd(const struct link *l) {
        return l->fd;
}

/* --- receiving ----------------------------------------------------------------------------------------------------*/

static void close_fds(struct link_message *m) {
        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                m->fds[i] = fd_close(m->fds[i]);
}

/* Operations come one after the other, each as soon as the last was answered, and waking a thread on an idle core
 * takes ten times as long as doing one: so look for the next for a moment before going to sleep. Yielding lets a broker
 * on the same core send it. */
static ssize_t receive_soon(struct link *l, int fds[FDMSG_MAX_FDS]) {
        uint64_t until = now_us() + POLL_US;
        ssize_t n;

        do {
                n = fdmsg_receive(l->fd, l->buffer, sizeof l->buffer, fds, MSG_DONTWAIT);
                if (n != -EAGAIN)
                        return n;
                (void)sched_yield();
        } while (now_us() < until);
        return fdmsg_receive(l->fd, l->buffer, sizeof l->buffer, fds, 0);
}

/* 0 and a whole message of our major version, or -errno (-ECONNRESET at the end, -EPROTO if it does not fit). */
static int receive_message(struct link *l, struct link_message *ret) {
        ssize_t n = receive_soon(l, ret->fds);

        if (n < 0)
                return n == -EMSGSIZE ? -EPROTO : (int)n;
        if (n == 0)
                return -ECONNRESET;
        if ((size_t)n < sizeof ret->header) {
                close_fds(ret);
                return -EPROTO;
        }
        memcpy(&ret->header, l->buffer, sizeof ret->header);
        if (ret->header.version >> 16 != LINK_VERSION >> 16) {
                log_error("the broker speaks version %u of the link, this holder %u", ret->header.version >> 16,
                          LINK_VERSION >> 16);
                close_fds(ret);
                return -EPROTO;
        }
        ret->payload = l->buffer + sizeof ret->header;
        ret->size = (size_t)n - sizeof ret->header;
        for (ret->n_fds = 0; ret->n_fds < FDMSG_MAX_FDS && ret->fds[ret->n_fds] >= 0; ret->n_fds++)
                ;
        return 0;
}

_Static_assert(sizeof(struct link_header) % 8 == 0, "the payload is aligned when the buffer is");

int link_receive_setup(struct link *l, unsigned timeout_ms, struct link_setup *ret) {
        struct pollfd p = { .fd = l->fd, .events = POLLIN };
        struct link_message m;
        int k;

        k = poll(&p, 1, (int)timeout_ms);
        if (k <= 0)
                return k == 0 ? -ETIMEDOUT : -errno;
        k = receive_message(l, &m);
        if (k < 0)
                return k;
        close_fds(&m);
        if (m.header.type != LINK_SETUP || m.size < sizeof *ret)
                return -EPROTO;
        memcpy(ret, m.payload, sizeof *ret);
        explicit_bzero(l->buffer, sizeof(struct link_header) + sizeof *ret);    /* the secret */
        if (!memchr(ret->cgroup, 0, sizeof ret->cgroup) || !memchr(ret->reconnect, 0, sizeof ret->reconnect))
                return -EPROTO;
        return 0;
}

/* --- sending ------------------------------------------------------------------------------------------------------*/

static int send_locked(struct link *l, const void *message, size_t size, const int *fds, size_t n_fds) {
        int k;

        if (l->fd < 0)
                return -ENOTCONN;
        k = fdmsg_send(l->fd, message, size, fds, n_fds, 0);
        if (k < 0)
                /* the thread of link_run() sees the end, it alone closes and reconnects */
                (void)shutdown(l->fd, SHUT_RDWR);
        return k;
}

int link_send(struct link *l, const void *message, size_t size, const int *fds, size_t n_fds) {
        LOCK_SCOPE(&l->send_lock);

        return send_locked(l, message, size, fds, n_fds);
}

static int send_hello_locked(struct link *l) {
        struct {
                struct link_header header;
                struct link_hello hello;
        } m = { .header = link_header_make(LINK_HELLO, 0, 0) };
        int k;

        m.hello.session = l->facts.session;
        memcpy(m.hello.secret, l->facts.secret, sizeof m.hello.secret);
        m.hello.last_seq = l->last_seq(l->last_seq_userdata);
        m.hello.pid = (uint32_t)getpid();
        m.hello.client_gone = l->client_gone;
        m.hello.cgroup_joined = l->facts.cgroup_joined;
        m.hello.sandboxed = l->facts.sandboxed;
        k = send_locked(l, &m, sizeof m, NULL, 0);
        explicit_bzero(&m, sizeof m);
        return k;
}

int link_hello(struct link *l, const struct link_facts *facts, uint64_t (*last_seq)(void *userdata), void *userdata) {
        LOCK_SCOPE(&l->send_lock);

        l->facts = *facts;
        l->last_seq = last_seq;
        l->last_seq_userdata = userdata;
        return send_hello_locked(l);
}

void link_client_gone(struct link *l) {
        struct link_header h = link_header_make(LINK_CLIENT_GONE, 0, 0);
        LOCK_SCOPE(&l->send_lock);

        /* under the lock: either the next hello carries it, or this link is up and gets the message */
        l->client_gone = true;
        (void)send_locked(l, &h, sizeof h, NULL, 0);
}

void link_set_live(struct link *l) {
        l->live = true;
}

/* --- loss ---------------------------------------------------------------------------------------------------------*/

static void drop(struct link *l) {
        LOCK_SCOPE(&l->send_lock);

        l->fd = fd_close(l->fd);
}

/* One attempt. The listening socket belongs to the broker; whoever else sits there gets no secret. */
static int reconnect_once(struct link *l) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_close_ int fd = -1;
        int k;

        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        memcpy(address.sun_path, l->facts.reconnect, sizeof address.sun_path);
        set_send_timeout(fd);           /* bounds the wait for a full backlog as well */
        if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
                return -errno;
        k = check_peer(fd, l->broker_uid);
        if (k < 0)
                return k;

        LOCK_SCOPE(&l->send_lock);
        l->fd = fd_steal(&fd);
        k = send_hello_locked(l);
        if (k < 0)
                l->fd = fd_close(l->fd);
        return k;
}

/* How long to look for a broker; 0: for ever. Without a client there is nothing left to hold: everything is unmapped, and a
 * broker that comes later finds the process gone and ends the session. */
#define CLIENTLESS_SECONDS 30U

static uint32_t patience(struct link *l) {
        uint32_t seconds = l->facts.orphan_seconds;
        LOCK_SCOPE(&l->send_lock);

        return l->client_gone && (seconds == 0 || seconds > CLIENTLESS_SECONDS) ? CLIENTLESS_SECONDS : seconds;
}

static bool orphaned(struct link *l) {
        uint32_t seconds = patience(l);

        return seconds > 0 && now_ms() - l->lost_since_ms >= (uint64_t)seconds * 1000;
}

/* Until there is a broker again (true), or too long without one (false). The pause before the first attempt keeps a
 * broker that drops every holder from being flooded. */
static bool reconnect(struct link *l, unsigned *pause_ms) {
        if (l->facts.reconnect[0] == '\0')
                return false;
        while (!orphaned(l)) {
                struct timespec t = { .tv_sec = *pause_ms / 1000, .tv_nsec = *pause_ms % 1000 * 1000000L };

                clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
                *pause_ms = *pause_ms * 2 < RECONNECT_LAST_MS ? *pause_ms * 2 : RECONNECT_LAST_MS;
                if (reconnect_once(l) == 0) {
                        FAILPOINT(holder_link_back);
                        log_info("connected to the broker again");
                        return true;
                }
        }
        return false;
}

/* With the broker's reconnected link silent, or dead again, the orphan's clock goes on: only a message stops it. */
static int receive_or_orphan(struct link *l, struct link_message *m) {
        struct pollfd p = { .fd = l->fd, .events = POLLIN };
        uint32_t seconds = l->lost_since_ms ? patience(l) : 0;
        int k;

        if (seconds) {
                uint64_t limit = l->lost_since_ms + (uint64_t)seconds * 1000, now = now_ms();

                k = poll(&p, 1, limit > now ? (int)(limit - now) : 0);
                if (k == 0)
                        return -ETIMEDOUT;
        }
        k = receive_message(l, m);
        if (k == 0)
                l->lost_since_ms = 0;
        return k;
}

enum link_outcome link_run(struct link *l, const struct link_handler *handler) {
        unsigned pause_ms = RECONNECT_FIRST_MS;

        for (;;) {
                enum link_verdict verdict = LINK_DOES_NOT_FIT;
                struct link_message m;
                int k;

                k = receive_or_orphan(l, &m);
                if (k == 0) {
                        pause_ms = RECONNECT_FIRST_MS;
                        verdict = handler->message(handler->userdata, &m);
                        close_fds(&m);
                }
                if (verdict == LINK_GO_ON)
                        continue;
                if (verdict == LINK_STOP)
                        return LINK_ENDED_BY_HANDLER;
                if (k == 0 || k == -EPROTO)
                        log_error("the broker sent something that does not fit the protocol (type %u)",
                                  k == 0 ? m.header.type : 0U);
                drop(l);
                if (!l->live)
                        return LINK_ENDED_UNUSED;
                if (handler->lost)
                        handler->lost(handler->userdata);
                if (!l->lost_since_ms)
                        l->lost_since_ms = now_ms();
                if (!reconnect(l, &pause_ms))
                        return LINK_ENDED_ORPHANED;
        }
}
