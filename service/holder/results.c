/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/results.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>

#include <bsd/sys/tree.h>

#include "backend/pool.h"
#include "util/cleanup.h"

/* Answers are a kilobyte, and nearly all of them say no more than "done": only the others are kept in full. */
struct entry {
        struct pool_item item;
        RB_ENTRY(entry) link;
        uint64_t seq;
        bool running;
        int fd;
        struct link_result *full;       /* NULL: done, nothing more to say */
};

RB_HEAD(entry_tree, entry);

struct results {
        pthread_mutex_t lock;           /* nothing is called under it */
        struct entry_tree tree;
        struct pool pool;
        size_t n;
        uint64_t last_seq;
        uint64_t forgotten;             /* newest seq that was known and is not in the tree any more */
};

static int entry_compare(const struct entry *a, const struct entry *b) {
        return a->seq < b->seq ? -1 : a->seq > b->seq;
}

RB_GENERATE_INTERNAL(entry_tree, entry, link, entry_compare, __attribute__((unused)) static)

struct results *results_new(void) {
        struct results *r = calloc(1, sizeof *r);

        if (!r)
                return NULL;
        r->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        /* running ones are bounded by the workers' queues, not by this pool */
        r->pool = (struct pool)POOL_INIT(struct entry, UINT32_MAX);
        RB_INIT(&r->tree);
        return r;
}

static void entry_remove(struct results *r, struct entry *e) {
        RB_REMOVE(entry_tree, &r->tree, e);
        if (e->seq > r->forgotten)
                r->forgotten = e->seq;
        free(e->full);
        fd_close(e->fd);
        pool_give(&r->pool, e);
        r->n--;
}

struct results *results_free(struct results *r) {
        struct entry *e;

        if (!r)
                return NULL;
        while ((e = RB_MIN(entry_tree, &r->tree)))
                entry_remove(r, e);
        pool_free(&r->pool);
        pthread_mutex_destroy(&r->lock);
        free(r);
        return NULL;
}

static struct entry *find(struct results *r, uint64_t seq) {
        struct entry key = { .seq = seq };

        return RB_FIND(entry_tree, &r->tree, &key);
}

static void forget_oldest(struct results *r) {
        struct entry *e;

        RB_FOREACH(e, entry_tree, &r->tree)
                if (!e->running) {
                        entry_remove(r, e);
                        return;
                }
}

static void entry_answer(const struct entry *e, struct link_result *ret, int *ret_fd) {
        if (e->full)
                *ret = *e->full;
        else
                *ret = (struct link_result){ .refusal = { .element = -1, .conflict_first = 1 } };
        *ret_fd = e->fd >= 0 ? fcntl(e->fd, F_DUPFD_CLOEXEC, 0) : -1;
}

int results_begin(struct results *r, uint64_t seq, enum results_state *ret_state, struct link_result *ret,
                  int *ret_fd) {
        LOCK_SCOPE(&r->lock);
        struct entry *e = find(r, seq);

        if (e) {
                *ret_state = e->running ? RESULTS_RUNNING : RESULTS_FINISHED;
                if (!e->running)
                        entry_answer(e, ret, ret_fd);
                return 0;
        }
        if (seq <= r->forgotten) {
                *ret_state = RESULTS_FORGOTTEN;
                return 0;
        }
        if (r->n >= LINK_RESULTS_MAX)
                forget_oldest(r);
        e = pool_take(&r->pool);
        if (!e)
                return -1;
        e->seq = seq;
        e->running = true;
        e->fd = -1;
        e->full = NULL;
        RB_INSERT(entry_tree, &r->tree, e);
        r->n++;
        if (seq > r->last_seq)
                r->last_seq = seq;
        *ret_state = RESULTS_NEW;
        return 0;
}

/* Does the answer say more than "done"? */
static bool says_more(const struct link_result *l) {
        return l->refusal.reason != REFUSAL_NONE || l->flags != 0 || l->info.page_sizes != 0 || l->memory.size != 0;
}

void results_finish(struct results *r, uint64_t seq, const struct link_result *result, int fd) {
        LOCK_SCOPE(&r->lock);
        struct entry *e = find(r, seq);

        if (!e)
                return;
        e->running = false;
        e->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
        if (!says_more(result))
                return;
        e->full = malloc(sizeof *e->full);
        if (e->full)
                *e->full = *result;
        else
                entry_remove(r, e);     /* a repeat is refused as forgotten: better than a wrong "done" */
}

void results_drop_fd(struct results *r, uint64_t seq) {
        LOCK_SCOPE(&r->lock);
        struct entry *e = find(r, seq);

        if (e)
                e->fd = fd_close(e->fd);
}

void results_settle(struct results *r, uint64_t seq) {
        LOCK_SCOPE(&r->lock);
        struct entry *e, *next;

        for (e = RB_MIN(entry_tree, &r->tree); e && e->seq <= seq; e = next) {
                next = RB_NEXT(entry_tree, &r->tree, e);
                if (!e->running)
                        entry_remove(r, e);
        }
}

uint64_t results_last_seq(struct results *r) {
        LOCK_SCOPE(&r->lock);

        return r->last_seq;
}
