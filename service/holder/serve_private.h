/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "holder/client_channel.h"
#include "holder/domain.h"
#include "holder/results.h"
#include "holder/serve.h"
#include "holder/worker.h"

/*
 * What the files of serve share: serve.c (the link's messages), serve_op.c (one operation),
 * serve_domain.c (which domains there are), serve_client.c (what the client causes), serve_dump.c.
 */
struct served_domain;

/* One operation on its way, allocated with its payload behind it, or on the link thread's stack. */
struct op {
        struct job job;
        struct serve *serve;
        struct served_domain *domain;   /* NULL for those of memory */
        struct link_header header;
        const void *payload;
        size_t size;
        int fds[2];                     /* owned */
};

struct end_job {
        struct job job;
        struct served_domain *domain;
};

struct served_domain {
        struct served_domain *next;
        uint64_t id;
        struct serve *serve;
        struct domain *domain;
        struct worker worker;
        atomic_bool over;               /* destroyed: the thread has nothing more to do and can be joined */
        /* there from the start, since these two must not fail for want of memory */
        struct op destroy;
        struct end_job end;
};

struct route {                          /* which domain has this attachment */
        struct route *next;
        uint64_t attachment;
        struct served_domain *domain;
};

#define SERVE_DOMAINS_MAX 1024U

struct serve {
        struct link *link;
        struct soft_personality soft;
        uint32_t max_objects;
        struct results *results;
        struct objects *objects;
        struct worker memory;
        struct client_channel *client;  /* set once, before there are threads that look */
        bool going;                     /* LINK_GO was read */

        pthread_mutex_t lock;           /* below; the link's thread alone changes `domains` and reads it without */
        struct served_domain *domains;
        unsigned n_domains;
        struct route *routes;
        bool gone;                      /* the client is; nothing new begins */
        unsigned n_ending;              /* domains that have still to unmap after the client's end */
        pthread_cond_t ended;           /* none has */

        struct served_domain *leaving;  /* destroyed or about to be; the link's thread only, as the next */
        bool over;                      /* the client was told that the session ends */
};

/* Does it and sends the result. The fds that nobody took are closed. */
void op_execute(struct op *op);

/* Sends what became of an operation and, with a seq, remembers it first. NULL refusal: done. */
void serve_finish(struct serve *s, const struct link_header *h, struct link_result *result, int fd);
void serve_send_result(struct serve *s, const struct link_header *h, const struct link_result *result, int fd);
void serve_refuse(struct serve *s, const struct link_header *h, const struct refusal *r);
struct link_result link_result_done(void);

/* Domains; the link's thread only. Once one has left, nobody posts to it any more. */
struct served_domain *serve_domain_find(struct serve *s, uint64_t id);
int serve_domain_create(struct serve *s, uint64_t id, struct refusal *r);
void serve_domain_leave(struct serve *s, struct served_domain *sd);
void serve_domain_destroy(struct serve *s, struct served_domain *sd, const struct link_header *h);
/* Joins the threads of domains that are over; wait: of all that have left. */
void serve_domains_reap(struct serve *s, bool wait);

/* Routes: which domain has an attachment. Any thread. */
int serve_add_route(struct serve *s, uint64_t attachment, struct served_domain *sd, struct refusal *r);
void serve_forget_route(struct serve *s, uint64_t attachment);
struct served_domain *serve_route_locked(struct serve *s, uint64_t attachment); /* with s->lock held */

extern const struct client_events serve_client_events;

/* LINK_DUMP: every part is told by the worker to which it belongs. */
void serve_dump(struct serve *s, const struct link_header *h);
