/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/*
 * An ordered queue of jobs with a thread of its own, that others may also enter while it is idle: what runs inside a
 * worker runs alone and in order. Domains have one each, memory has one.
 * Lock order: `lock` is innermost except for the link's send lock, and is never held while a job runs.
 */
struct job {
        struct job *next;
        void (*run)(struct job *j);     /* owns the job: frees it or hands it on */
};

struct worker {
        pthread_mutex_t lock;
        pthread_cond_t wake;            /* for the thread: a job is there and nobody is inside, or stop */
        struct job *first, **last;
        size_t n_queued;
        bool inside;                    /* somebody runs a job: the thread, or one that entered */
        bool stop;
        pthread_t thread;
};

/* Jobs of the broker and the client that may wait; internal ones are always taken. */
#define WORKER_QUEUE_MAX 256U

/* Starts the thread. 0 or -errno (-EAGAIN: no thread to be had). */
int worker_start(struct worker *w);
/* Runs what is queued, then ends the thread. Not from a job of this worker. */
void worker_stop(struct worker *w);

/* Takes the place of the thread for one job if nothing is queued and nobody inside. worker_leave() after it. */
bool worker_try_enter(struct worker *w);
void worker_leave(struct worker *w);

/* Appends. False when the queue is full: the job stays the caller's. */
bool worker_post(struct worker *w, struct job *j);
/* Like worker_post() for what must not fail, at the end or, to overtake what waits, at the front. */
void worker_post_always(struct worker *w, struct job *j);
void worker_post_front(struct worker *w, struct job *j);
