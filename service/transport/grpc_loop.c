/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/grpc_loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "transport/tsan.h"
#include "util/cleanup.h"

/* First block: unpacking and answering a Map of 1024 entries fits. Limit: what a message of the largest size can
 * grow to when it is made of the smallest parts; a page of a list. */
#define WORKER_ARENA_FIRST (96U * 1024)
#define WORKER_ARENA_LIMIT (8U * 1024 * 1024)

#define LOOP_THREADS_MAX 64U

struct worker {
        struct grpc_loop *loop;
        grpc_completion_queue *queue;
        struct arena arena;
        pthread_t thread;
        bool running;
};

struct grpc_loop {
        unsigned n_workers, n_queues;
        atomic_uint next_queue;
        grpc_completion_queue *queues[LOOP_THREADS_MAX];
        struct worker workers[LOOP_THREADS_MAX];

        struct worker slow;
        pthread_mutex_t lock;           /* the jobs */
        pthread_cond_t wake;
        struct grpc_loop_job *first, **last;
        bool ending;
};

void *grpc_loop_give(struct grpc_loop_tag *tag) {
        tsan_give(tag);
        return tag;
}

static void *worker_main(void *arg) {
        struct worker *w = arg;

        for (;;) {
                grpc_event e = grpc_completion_queue_next(w->queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);

                if (e.type == GRPC_QUEUE_SHUTDOWN)
                        return NULL;
                if (e.type == GRPC_OP_COMPLETE) {
                        struct grpc_loop_tag *tag = e.tag;

                        tsan_take(tag);
                        tag->complete(tag, e.success != 0, &w->arena);
                        arena_reset(&w->arena);
                }
        }
}

static struct grpc_loop_job *job_take(struct grpc_loop *l) {
        struct grpc_loop_job *job;
        LOCK_SCOPE(&l->lock);

        while (!l->first && !l->ending)
                pthread_cond_wait(&l->wake, &l->lock);
        job = l->first;
        if (job) {
                l->first = job->next;
                if (!l->first)
                        l->last = &l->first;
        }
        return job;
}

static void *slow_main(void *arg) {
        struct worker *w = arg;
        struct grpc_loop_job *job;

        while ((job = job_take(w->loop))) {
                job->run(job, &w->arena);
                arena_reset(&w->arena);
        }
        return NULL;
}

void grpc_loop_defer(struct grpc_loop *l, struct grpc_loop_job *job) {
        LOCK_SCOPE(&l->lock);

        job->next = NULL;
        *l->last = job;
        l->last = &job->next;
        pthread_cond_signal(&l->wake);
}

int grpc_loop_new(unsigned threads, unsigned queues, struct grpc_loop **ret) {
        struct grpc_loop *l;

        if (threads == 0 || threads > LOOP_THREADS_MAX || queues == 0 || threads % queues != 0)
                return -EINVAL;
        l = calloc(1, sizeof *l);
        if (!l)
                return -ENOMEM;
        pthread_mutex_init(&l->lock, NULL);
        pthread_cond_init(&l->wake, NULL);
        l->last = &l->first;
        grpc_init();
        for (l->n_queues = 0; l->n_queues < queues; l->n_queues++)
                l->queues[l->n_queues] = grpc_completion_queue_create_for_next(NULL);
        for (; l->n_workers < threads; l->n_workers++) {
                struct worker *w = &l->workers[l->n_workers];

                w->loop = l;
                w->queue = l->queues[l->n_workers % queues];
                if (arena_init(&w->arena, WORKER_ARENA_FIRST, WORKER_ARENA_LIMIT) < 0)
                        goto fail;
        }
        l->slow.loop = l;
        if (arena_init(&l->slow.arena, WORKER_ARENA_FIRST, WORKER_ARENA_LIMIT) < 0)
                goto fail;
        *ret = l;
        return 0;
fail:
        (void)grpc_loop_free(l);
        return -ENOMEM;
}

static int worker_start(struct worker *w, void *(*run)(void *)) {
        int r = pthread_create(&w->thread, NULL, run, w);

        w->running = r == 0;
        return -r;
}

int grpc_loop_start(struct grpc_loop *l) {
        int r = worker_start(&l->slow, slow_main);

        for (unsigned i = 0; i < l->n_workers && r == 0; i++)
                r = worker_start(&l->workers[i], worker_main);
        return r;
}

static void worker_end(struct worker *w) {
        if (w->running)
                pthread_join(w->thread, NULL);
        arena_clear(&w->arena);
}

struct grpc_loop *grpc_loop_free(struct grpc_loop *l) {
        if (!l)
                return NULL;
        pthread_mutex_lock(&l->lock);
        l->ending = true;
        pthread_cond_broadcast(&l->wake);
        pthread_mutex_unlock(&l->lock);
        worker_end(&l->slow);
        for (unsigned i = 0; i < l->n_queues; i++)
                grpc_completion_queue_shutdown(l->queues[i]);
        for (unsigned i = 0; i < l->n_workers; i++)
                worker_end(&l->workers[i]);
        for (unsigned i = 0; i < l->n_queues; i++) {
                /* without threads, nobody has seen the end of the queue, which must be seen */
                while (grpc_completion_queue_next(l->queues[i], gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type !=
                       GRPC_QUEUE_SHUTDOWN)
                        ;
                grpc_completion_queue_destroy(l->queues[i]);
        }
        grpc_shutdown();
        pthread_cond_destroy(&l->wake);
        pthread_mutex_destroy(&l->lock);
        free(l);
        return NULL;
}

grpc_completion_queue *grpc_loop_queue(struct grpc_loop *l) {
        return l->queues[atomic_fetch_add(&l->next_queue, 1) % l->n_queues];
}
