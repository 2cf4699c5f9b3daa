/* SPDX-License-Identifier: Apache-2.0 */
#include "fd_channel.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"
#include "error.h"
#include "fd_message.h"
#include "util/cleanup.h"

#define WAITERS_MAX 32U         /* threads that wait for an answer at once; further ones queue for a place */

struct waiter {
        uint64_t cookie;
        bool done;
        struct session_msg answer;
        int fd;
};

struct sdk_session {
        int socket;
        pthread_t reader;
        bool started;
        void (*on_end)(void *);
        void *on_end_arg;

        pthread_mutex_t lock;           /* what follows; nothing else is locked and nothing waits while it is held */
        pthread_cond_t changed;
        uint64_t last_cookie;
        struct waiter *waiting[WAITERS_MAX];
        bool ended;
        struct sdk_session_end end;
};

int sdk_session_fail(const struct sdk_session_end *end) {
        return sdk_fail(-ECONNRESET, (enum iommud_reason)end->reason, "%s", end->text);
}

bool sdk_session_ended(struct sdk_session *s, struct sdk_session_end *ret) {
        LOCK_SCOPE(&s->lock);

        if (s->ended)
                *ret = s->end;
        return s->ended;
}

static void end_session(struct sdk_session *s, uint32_t reason, const char *text) {
        {
                LOCK_SCOPE(&s->lock);

                if (s->ended)
                        return;
                s->ended = true;
                s->end.reason = reason;
                snprintf(s->end.text, sizeof s->end.text, "%s", text);
                pthread_cond_broadcast(&s->changed);
        }
        s->on_end(s->on_end_arg);
}

/* Hands an answer, and its fd, to who waits for it. False when nobody does any more. */
static bool deliver(struct sdk_session *s, const struct session_msg *m, int *fd) {
        LOCK_SCOPE(&s->lock);

        for (size_t i = 0; i < WAITERS_MAX; i++) {
                struct waiter *w = s->waiting[i];

                if (!w || w->cookie != m->cookie || w->done)
                        continue;
                w->answer = *m;
                w->fd = fd_steal(fd);
                w->done = true;
                pthread_cond_broadcast(&s->changed);
                return true;
        }
        return false;
}

static void handle(struct sdk_session *s, const struct session_msg *m, int *fd) {
        switch (m->type) {
        case SESSION_TICKET:
                if (!deliver(s, m, fd) && m->reason == 0)
                        sdk_session_drop_ticket(s, m->id);
                break;
        case SESSION_DEVICE:
        case SESSION_ERROR:
                deliver(s, m, fd);
                break;
        case SESSION_REFUSED:
        case SESSION_ENDED:
                end_session(s, m->reason, m->text);
                break;
        default:        /* newer than this library */
                break;
        }
}

static void *reader(void *arg) {
        struct sdk_session *s = arg;
        struct session_msg m;

        for (;;) {
                _cleanup_close_ int fd = -1;
                ssize_t n = fd_message_receive(s->socket, &m, sizeof m, &fd, INT64_MAX);

                if (n <= 0)
                        break;
                if (n != sizeof m || m.version != SESSION_CHANNEL_VERSION)
                        continue;
                m.text[sizeof m.text - 1] = '\0';
                handle(s, &m, &fd);
        }
        end_session(s, IOMMUD_REASON_HOLDER_LOST,
                    "the session has ended: its holder process is gone, and all that it had mapped with it; "
                    "close this client and connect anew");
        return NULL;
}

static int connect_failed(int error, const char *path) {
        if (error == -ENOENT || error == -ECONNREFUSED)
                return sdk_fail(error, 0, "no iommud listens at %s; is the service running?", path);
        if (error == -EACCES)
                return sdk_fail(error, 0, "%s may not be opened by this user", path);
        return sdk_fail(error, 0, "connecting to %s failed: %s", path, strerror(-error));
}

static int receive_token(int socket, int64_t deadline, char token[2 * SESSION_TOKEN_BYTES + 1]) {
        struct session_msg m;
        _cleanup_close_ int fd = -1;
        ssize_t n = fd_message_receive(socket, &m, sizeof m, &fd, deadline);

        if (n == -ETIMEDOUT)
                return sdk_fail(-ETIMEDOUT, 0, "the service accepted the connection but gave no session in time");
        if (n <= 0)
                return sdk_fail(-ECONNRESET, IOMMUD_REASON_HOLDER_LOST,
                                "the connection was closed before a session was given");
        if (n != sizeof m || m.version != SESSION_CHANNEL_VERSION)
                return sdk_fail(-EPROTO, 0, "what answers at the session socket does not speak its version %u",
                                SESSION_CHANNEL_VERSION);
        m.text[sizeof m.text - 1] = '\0';
        if (m.type == SESSION_REFUSED) {
                int error = sdk_errno_of_reason(m.reason);

                return sdk_fail(error == -EIO ? -EACCES : error, (enum iommud_reason)m.reason, "%s", m.text);
        }
        if (m.type != SESSION_TOKEN || strlen(m.text) != (size_t)2 * SESSION_TOKEN_BYTES ||
            strspn(m.text, "0123456789abcdef") != (size_t)2 * SESSION_TOKEN_BYTES)
                return sdk_fail(-EPROTO, 0, "the session socket answered with something else than a token");
        memcpy(token, m.text, (size_t)2 * SESSION_TOKEN_BYTES + 1);
        return 0;
}

int sdk_session_open(const char *path, int64_t deadline, struct sdk_session **ret,
                     char token[2 * SESSION_TOKEN_BYTES + 1]) {
        _cleanup_close_ int fd = -1;
        pthread_condattr_t monotonic;
        struct sdk_session *s;
        int r;

        fd = fd_message_connect(path, deadline);
        if (fd < 0)
                return connect_failed(fd, path);
        r = receive_token(fd, deadline, token);
        if (r < 0)
                return r;
        s = calloc(1, sizeof *s);
        if (!s)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        s->socket = fd_steal(&fd);
        pthread_mutex_init(&s->lock, NULL);
        pthread_condattr_init(&monotonic);
        pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
        pthread_cond_init(&s->changed, &monotonic);
        pthread_condattr_destroy(&monotonic);
        *ret = s;
        return 0;
}

int sdk_session_start(struct sdk_session *s, void (*on_end)(void *), void *arg) {
        sigset_t all, before;
        int r;

        s->on_end = on_end;
        s->on_end_arg = arg;
        /* The program's signals are not for a thread that it does not know of. */
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&s->reader, NULL, reader, s);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (r != 0)
                return sdk_fail(-r, 0, "no thread for the session: %s", strerror(r));
        s->started = true;
        return 0;
}

/* Waits for a change. Call with the lock held. 0, or -ETIMEDOUT. */
static int wait_change(struct sdk_session *s, int64_t deadline) {
        struct timespec until = clock_timespec(deadline);

        return pthread_cond_timedwait(&s->changed, &s->lock, &until) == ETIMEDOUT ? -ETIMEDOUT : 0;
}

/* A place in the table; *w is found by its cookie from now on. 0, -ETIMEDOUT, or -ECONNRESET. */
static int enter_waiter(struct sdk_session *s, struct waiter *w, int64_t deadline) {
        LOCK_SCOPE(&s->lock);

        for (;;) {
                if (s->ended)
                        return -ECONNRESET;
                for (size_t i = 0; i < WAITERS_MAX; i++)
                        if (!s->waiting[i]) {
                                w->cookie = ++s->last_cookie;
                                s->waiting[i] = w;
                                return 0;
                        }
                if (wait_change(s, deadline) < 0)
                        return -ETIMEDOUT;
        }
}

/* An answer that arrived counts, also when the session has ended or the time is up meanwhile. */
static int await_answer(struct sdk_session *s, struct waiter *w, int64_t deadline) {
        LOCK_SCOPE(&s->lock);

        while (!w->done) {
                if (s->ended)
                        return -ECONNRESET;
                if (wait_change(s, deadline) < 0)
                        return w->done ? 0 : -ETIMEDOUT;
        }
        return 0;
}

static void leave_waiter(struct sdk_session *s, struct waiter *w) {
        LOCK_SCOPE(&s->lock);

        for (size_t i = 0; i < WAITERS_MAX; i++)
                if (s->waiting[i] == w)
                        s->waiting[i] = NULL;
        pthread_cond_broadcast(&s->changed);
}

static int ask_failed(struct sdk_session *s, int error) {
        struct sdk_session_end end;

        if (sdk_session_ended(s, &end))
                return sdk_session_fail(&end);
        if (error == -ETIMEDOUT)
                return sdk_fail(error, 0, "the session's holder did not answer in time");
        if (error == -EPIPE || error == -ECONNRESET)
                return sdk_fail(-ECONNRESET, IOMMUD_REASON_HOLDER_LOST, "the session's holder is gone");
        return sdk_fail(error, 0, "sending on the session channel failed: %s", strerror(-error));
}

int sdk_session_ask(struct sdk_session *s, struct session_msg *request, int fd, int64_t deadline,
                    struct session_msg *ret_answer, int *ret_fd) {
        struct waiter w = { .fd = -1 };
        int r;

        r = enter_waiter(s, &w, deadline);
        if (r < 0)
                return ask_failed(s, r);
        request->version = SESSION_CHANNEL_VERSION;
        request->cookie = w.cookie;
        r = fd_message_send(s->socket, request, sizeof *request, fd, deadline);
        if (r == 0)
                r = await_answer(s, &w, deadline);
        leave_waiter(s, &w);
        if (r < 0) {
                /* the answer may have come between giving up and leaving */
                fd_close(w.fd);
                if (w.done && w.answer.type == SESSION_TICKET && w.answer.reason == 0)
                        sdk_session_drop_ticket(s, w.answer.id);
                return ask_failed(s, r);
        }
        if (w.answer.type == SESSION_ERROR || w.answer.reason != 0) {
                fd_close(w.fd);
                if (w.answer.reason == 0)
                        return sdk_fail(-ENOTSUP, IOMMUD_REASON_UNSUPPORTED,
                                        "the session's holder does not know the request");
                return sdk_fail(sdk_errno_of_reason(w.answer.reason), (enum iommud_reason)w.answer.reason, "%s",
                                w.answer.text);
        }
        *ret_answer = w.answer;
        *ret_fd = w.fd;
        return 0;
}

void sdk_session_drop_ticket(struct sdk_session *s, uint64_t ticket) {
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_DROP_TICKET, .id = ticket };

        fd_message_send(s->socket, &m, sizeof m, -1, 0);
}

void sdk_session_close(struct sdk_session *s) {
        if (!s)
                return;
        shutdown(s->socket, SHUT_RDWR);         /* wakes the reader */
        if (s->started)
                pthread_join(s->reader, NULL);
        fd_close(s->socket);
        pthread_cond_destroy(&s->changed);
        pthread_mutex_destroy(&s->lock);
        free(s);
}
