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
        enum results_state state;
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
        uint64_t settled;               /* up to here the broker has asked to forget */
        uint64_t floor;                 /* what is not above was in the tree once, or could have been */
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

static void entry_forget(struct entry *e) {
        e->state = RESULTS_FORGOTTEN;
        free(e->full);
        e->full = NULL;
        e->fd = fd_close(e->fd);
}

static void entry_remove(struct results *r, struct entry *e) {
        entry_forget(e);
        RB_REMOVE(entry_tree, &r->tree, e);
        if (e->seq > r->floor)
                r->floor = e->seq;
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

static void remove_oldest(struct results *r) {
        struct entry *e;

        RB_FOREACH(e, entry_tree, &r->tree)
                if (e->state != RESULTS_RUNNING) {
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
                *ret_state = e->state;
                if (e->state == RESULTS_FINISHED)
                        entry_answer(e, ret, ret_fd);
                return 0;
        }
        if (seq <= r->floor) {
                *ret_state = RESULTS_FORGOTTEN;
                return 0;
        }
        if (r->n >= LINK_RESULTS_MAX)
                remove_oldest(r);
        e = pool_take(&r->pool);
        if (!e)
                return -1;
        e->seq = seq;
        e->state = RESULTS_RUNNING;
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
        e->state = RESULTS_FINISHED;
        e->fd = fd >= 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 0) : -1;
        if (!says_more(result))
                return;
        e->full = malloc(sizeof *e->full);
        if (e->full)
                *e->full = *result;
        else
                entry_forget(e);        /* a repeat is refused: better than a wrong "done" */
}

void results_drop_fd(struct results *r, uint64_t seq) {
        LOCK_SCOPE(&r->lock);
        struct entry *e = find(r, seq);

        if (e)
                e->fd = fd_close(e->fd);
}

/* The entry stays, without its answer: that a seq was done is worth more than how it ended. Operations of several
 * threads of the broker can arrive a little out of order, so one below the newest settled need not have been seen. */
void results_settle(struct results *r, uint64_t seq) {
        LOCK_SCOPE(&r->lock);
        struct entry key = { .seq = r->settled + 1 }, *e;

        if (seq <= r->settled)
                return;
        for (e = RB_NFIND(entry_tree, &r->tree, &key); e && e->seq <= seq; e = RB_NEXT(entry_tree, &r->tree, e))
                if (e->state == RESULTS_FINISHED)
                        entry_forget(e);
        r->settled = seq;
}

uint64_t results_last_seq(struct results *r) {
        LOCK_SCOPE(&r->lock);

        return r->last_seq;
}
