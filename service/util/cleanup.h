/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

/* Scope-bound release of memory, fds and locks. Everything tolerates "nothing to release". */

static inline void cleanup_free_p(void *p) {
        free(*(void **)p);
}

/* Closes and returns -1, so that a call reads `fd = fd_close(fd)`. errno is kept. close() is not retried on EINTR:
 * on Linux the descriptor is gone by then, and a second close could hit another thread's new one. */
static inline int fd_close(int fd) {
        if (fd >= 0) {
                int saved = errno;
                close(fd);
                errno = saved;
        }
        return -1;
}

static inline void cleanup_close_p(int *fd) {
        *fd = fd_close(*fd);
}

static inline int fd_steal(int *fd) {
        int r = *fd;
        *fd = -1;
        return r;
}

static inline void cleanup_unlock_p(pthread_mutex_t **m) {
        if (*m)
                pthread_mutex_unlock(*m);
}

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _cleanup_free_ _cleanup_(cleanup_free_p)
#define _cleanup_close_ _cleanup_(cleanup_close_p)

#define IOMMUD_CONCAT_(a, b) a##b
#define IOMMUD_CONCAT(a, b) IOMMUD_CONCAT_(a, b)

/* Takes a mutex until the end of the scope. */
#define LOCK_SCOPE(mutex)                                                                                              \
        _cleanup_(cleanup_unlock_p) __attribute__((unused)) pthread_mutex_t *IOMMUD_CONCAT(lock_scope_, __LINE__) =    \
                lock_scope_enter(mutex)

static inline pthread_mutex_t *lock_scope_enter(pthread_mutex_t *m) {
        pthread_mutex_lock(m);
        return m;
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
