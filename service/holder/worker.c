/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/worker.h"

#include <limits.h>
#include <signal.h>

#include "util/cleanup.h"

/* Enough for the deepest path (a dump batch is on the heap); a thread per domain makes the default of 8 MiB silly. */
#define WORKER_STACK (256UL * 1024UL)

static struct job *pop(struct worker *w) {
        struct job *j = w->first;

        w->first = j->next;
        if (!w->first)
                w->last = &w->first;
        w->n_queued--;
        return j;
}

static void *worker_main(void *p) {
        struct worker *w = p;

        pthread_mutex_lock(&w->lock);
        for (;;) {
                struct job *j;

                while (w->inside || (!w->first && !w->stop))
                        pthread_cond_wait(&w->wake, &w->lock);
                if (!w->first)
                        break;
                j = pop(w);
                w->inside = true;
                pthread_mutex_unlock(&w->lock);
                j->run(j);
                pthread_mutex_lock(&w->lock);
                w->inside = false;
        }
        pthread_mutex_unlock(&w->lock);
        return NULL;
}

int worker_start(struct worker *w) {
        pthread_attr_t attr;
        int k;

        *w = (struct worker){ .lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };
        w->last = &w->first;
        k = pthread_attr_init(&attr);
        if (k != 0)
                return -k;
        (void)pthread_attr_setstacksize(&attr, WORKER_STACK);
        k = pthread_create(&w->thread, &attr, worker_main, w);
        pthread_attr_destroy(&attr);
        return -k;
}

void worker_stop(struct worker *w) {
        pthread_mutex_lock(&w->lock);
        w->stop = true;
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
        pthread_cond_destroy(&w->wake);
        pthread_mutex_destroy(&w->lock);
}

bool worker_try_enter(struct worker *w) {
        LOCK_SCOPE(&w->lock);

        if (w->inside || w->first || w->stop)
                return false;
        w->inside = true;
        return true;
}

void worker_leave(struct worker *w) {
        LOCK_SCOPE(&w->lock);

        w->inside = false;
        if (w->first || w->stop)
                pthread_cond_signal(&w->wake);
}

static void append(struct worker *w, struct job *j) {
        j->next = NULL;
        *w->last = j;
        w->last = &j->next;
        w->n_queued++;
        if (!w->inside)
                pthread_cond_signal(&w->wake);
}

bool worker_post(struct worker *w, struct job *j) {
        LOCK_SCOPE(&w->lock);

        if (w->n_queued >= WORKER_QUEUE_MAX)
                return false;
        append(w, j);
        return true;
}

void worker_post_always(struct worker *w, struct job *j) {
        LOCK_SCOPE(&w->lock);

        append(w, j);
}

void worker_post_front(struct worker *w, struct job *j) {
        LOCK_SCOPE(&w->lock);

        j->next = w->first;
        w->first = j;
        if (!j->next)
                w->last = &j->next;
        w->n_queued++;
        if (!w->inside)
                pthread_cond_signal(&w->wake);
}
