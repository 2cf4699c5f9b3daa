/* SPDX-License-Identifier: Apache-2.0 */
#include "core/holder_link.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <uthash.h>

#include "core/loop.h"
#include "core/op.h"
#include "core/session.h"
#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/fdmsg.h"
#include "util/log.h"

/* How long a request thread waits for its own result before it leaves the reading to the loop: first without sleeping,
 * then asleep. A holder that once took longer is not waited for again until it has answered fast (I10: a client's slow
 * pins must not occupy the threads that serve everybody). */
#define SPIN_NS 15000
#define WAIT_NS 1000000

struct holder_link {
        atomic_uint refs;
        struct loop *loop;
        struct session *session;        /* a reference until the link is freed */
        int fd;                         /* closed when freed: a reader may still be in recvmsg() */
        atomic_bool slow;
        pthread_mutex_t read_lock;      /* who receives; see core/broker.h for its place in the order */
        uint8_t *buffer;                /* LINK_MESSAGE_MAX, under read_lock */
        pthread_mutex_t lock;           /* protects what follows; also keeps table and send in one order */
        bool closed;
        struct op *in_flight;           /* uthash by row.id */
};

int holder_link_new(struct loop *loop, struct session *s, int fd, struct holder_link **ret) {
        struct holder_link *l = calloc(1, sizeof *l);
        int r;

        if (!l || !(l->buffer = malloc(LINK_MESSAGE_MAX))) {
                free(l);
                fd_close(fd);
                return -ENOMEM;
        }
        atomic_init(&l->refs, 1);
        l->loop = loop;
        l->session = session_ref(s);
        l->fd = fd;
        pthread_mutex_init(&l->read_lock, NULL);
        pthread_mutex_init(&l->lock, NULL);
        r = loop_watch(loop, l, fd);
        if (r < 0) {
                holder_link_unref(l);
                return r;
        }
        *ret = l;
        return 0;
}

struct holder_link *holder_link_ref(struct holder_link *l) {
        atomic_fetch_add(&l->refs, 1);
        return l;
}

struct holder_link *holder_link_unref(struct holder_link *l) {
        if (!l || atomic_fetch_sub(&l->refs, 1) != 1)
                return NULL;
        fd_close(l->fd);
        pthread_mutex_destroy(&l->read_lock);
        pthread_mutex_destroy(&l->lock);
        free(l->buffer);
        session_unref(l->session);
        free(l);
        return NULL;
}

int holder_link_fd(const struct holder_link *l) {
        return l->fd;
}

static void complete_lost(struct op *op, enum refusal_reason reason, const char *why) {
        struct link_result result = { 0 };
        int fd = -1;

        refuse(&result.refusal, reason, "the session ends: %s. Everything it had mapped is being revoked; connect anew", why);
        op_complete(op, &result, &fd);
}

void holder_link_close(struct holder_link *l, enum refusal_reason reason, const char *why) {
        struct op *orphans, *op, *next;

        pthread_mutex_lock(&l->lock);
        if (l->closed) {
                pthread_mutex_unlock(&l->lock);
                return;
        }
        l->closed = true;
        orphans = l->in_flight;
        l->in_flight = NULL;
        pthread_mutex_unlock(&l->lock);
        shutdown(l->fd, SHUT_RDWR);
        HASH_ITER(hh, orphans, op, next) {
                HASH_DEL(orphans, op);
                complete_lost(op, reason, why);
        }
        loop_unwatch(l->loop, l, l->fd);
}

static int send_locked(struct holder_link *l, const void *data, size_t size, const int *fds, size_t n_fds) {
        return l->closed ? -ESHUTDOWN : fdmsg_send(l->fd, data, size, fds, n_fds, MSG_DONTWAIT);
}

static void send_op(struct holder_link *l, struct op *op) {
        int r;

        FAILPOINT(sending);
        pthread_mutex_lock(&l->lock);
        r = send_locked(l, op->message, op->message_size, op->fds, op->n_fds);
        FAILPOINT(sent);
        if (r == 0)
                HASH_ADD(hh, l->in_flight, row.id, sizeof op->row.id, op);
        op->fds[0] = fd_close(op->fds[0]);
        op->fds[1] = fd_close(op->fds[1]);
        pthread_mutex_unlock(&l->lock);
        if (r == 0)
                return;
        if (r == -EAGAIN) {
                /* The queue holds hundreds of messages: a holder that lets it fill is stuck, and its domain's state
                 * cannot be known any more. Only its own client is hurt. */
                log_warning("session %" PRIu64 ": its holder does not read its link", l->session->id);
                session_link_lost(l->session, REFUSAL_HOLDER_LOST, "its holder does not read its link");
        }
        complete_lost(op, REFUSAL_HOLDER_LOST, "its holder is gone");
}

int holder_link_post(struct holder_link *l, enum link_type type, uint64_t seq, uint64_t domain, const void *payload,
                     size_t size, const int *fds, size_t n_fds) {
        struct {
                struct link_header header;
                uint8_t payload[LINK_BATCH_MAX * sizeof(struct link_unmap_entry)];
        } message;
        LOCK_SCOPE(&l->lock);

        if (size > sizeof message.payload)
                return -EMSGSIZE;
        message.header = (struct link_header){ .version = LINK_VERSION, .type = (uint16_t)type, .seq = seq, .domain = domain,
                                                .count = type == LINK_UNMAP
                                                                 ? (uint32_t)(size / sizeof(struct link_unmap_entry)) : 0 };
        if (size > 0)
                memcpy(message.payload, payload, size);
        return send_locked(l, &message, sizeof message.header + size, fds, n_fds);
}

/* ---- receiving ---- */

static void result_arrived(struct holder_link *l, const struct link_header *h, size_t size, int *fds) {
        struct link_result result = { 0 };
        struct op *op;

        FAILPOINT(result_received);
        /* A newer holder may send more than we know, an older one less. */
        memcpy(&result, h + 1, size < sizeof result ? size : sizeof result);
        result.refusal.text[sizeof result.refusal.text - 1] = '\0';
        if (result.info.n_ranges > IOVA_RANGES_MAX)
                result.info.n_ranges = IOVA_RANGES_MAX;
        pthread_mutex_lock(&l->lock);
        HASH_FIND(hh, l->in_flight, &h->seq, sizeof h->seq, op);
        if (op)
                HASH_DEL(l->in_flight, op);
        pthread_mutex_unlock(&l->lock);
        if (op)
                op_complete(op, &result, &fds[0]);
        else
                session_link_message(l->session, h, size, fds);
}

/* One message. 1: done, 0: nothing there, -1: the link is lost. read_lock held. */
static int receive_one(struct holder_link *l, const char **ret_why) {
        int fds[FDMSG_MAX_FDS];
        const struct link_header *h = (const void *)l->buffer;
        ssize_t n = fdmsg_receive(l->fd, l->buffer, LINK_MESSAGE_MAX, fds, MSG_DONTWAIT);

        if (n == -EAGAIN)
                return 0;
        if (n <= 0) {
                *ret_why = "its holder is gone";
                return -1;
        }
        if ((size_t)n < sizeof *h || (h->version >> 16) != (LINK_VERSION >> 16)) {
                for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                        fd_close(fds[i]);
                *ret_why = "its holder sent what is not a message";
                return -1;
        }
        if (h->type == LINK_RESULT)
                result_arrived(l, h, (size_t)n - sizeof *h, fds);
        else
                session_link_message(l->session, h, (size_t)n - sizeof *h, fds);
        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                fd_close(fds[i]);
        return 1;
}

static bool has_in_flight(struct holder_link *l) {
        LOCK_SCOPE(&l->lock);
        return l->in_flight != NULL;
}

static uint64_t monotonic_ns(void) {
        struct timespec t;

        clock_gettime(CLOCK_MONOTONIC, &t);
        return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* Ends a turn of reading: whoever comes next must be able to take read_lock before the loop is told to watch again, or an
 * event could be reported to a loop that finds the lock taken and drops it. */
static void end_turn(struct holder_link *l, int received, const char *why) {
        pthread_mutex_unlock(&l->read_lock);
        if (received < 0)
                session_link_lost(l->session, REFUSAL_HOLDER_LOST, why);
        else
                loop_arm(l->loop, l, l->fd);
}

/* Reads until nothing is in flight, or it has taken too long. read_lock held. */
static int read_briefly(struct holder_link *l, const char **ret_why) {
        uint64_t start = monotonic_ns();

        while (has_in_flight(l)) {
                int received = receive_one(l, ret_why);
                uint64_t waited;

                if (received < 0)
                        return received;
                if (received > 0)
                        continue;
                waited = monotonic_ns() - start;
                if (waited > WAIT_NS) {
                        atomic_store(&l->slow, true);
                        return 0;
                }
                if (waited > SPIN_NS) {
                        struct pollfd p = { .fd = l->fd, .events = POLLIN };
                        struct timespec left = { .tv_nsec = WAIT_NS };

                        ppoll(&p, 1, &left, NULL);
                }
        }
        return 0;
}

void holder_link_exchange(struct holder_link *l, struct op *op) {
        const char *why = NULL;
        int received;

        if (atomic_load(&l->slow) || pthread_mutex_trylock(&l->read_lock) != 0) {
                send_op(l, op);
                return;
        }
        loop_disarm(l->loop, l, l->fd);         /* before there is something to read: the loop is not woken for nothing */
        send_op(l, op);
        received = read_briefly(l, &why);
        end_turn(l, received, why);
}

void holder_link_readable(struct holder_link *l) {
        uint64_t start = monotonic_ns();
        const char *why = NULL;
        int received;

        if (pthread_mutex_trylock(&l->read_lock) != 0)
                return;                 /* its reader arms the link again when it is done */
        for (unsigned i = 0; i < 256; i++) {    /* then let other links have their turn */
                received = receive_one(l, &why);
                if (received <= 0)
                        break;
        }
        if (monotonic_ns() - start < WAIT_NS && !has_in_flight(l))
                atomic_store(&l->slow, false);
        end_turn(l, received, why);
}

/* ---- watched by housekeeping ---- */

enum refusal_reason holder_link_overdue(struct holder_link *l, uint64_t now_ms) {
        struct op *op, *next;
        LOCK_SCOPE(&l->lock);

        HASH_ITER(hh, l->in_flight, op, next)
                if (op->deadline_ms != 0 && now_ms > op->deadline_ms)
                        return op->row.kind == LEDGER_OP_REGISTER ? REFUSAL_MEMORY_STALLED : REFUSAL_HOLDER_LOST;
        return REFUSAL_NONE;
}

uint64_t holder_link_oldest(struct holder_link *l) {
        uint64_t oldest = UINT64_MAX;
        struct op *op, *next;
        LOCK_SCOPE(&l->lock);

        HASH_ITER(hh, l->in_flight, op, next)
                if (op->row.id < oldest)
                        oldest = op->row.id;
        return oldest;
}
