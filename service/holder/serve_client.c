/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/serve_private.h"

#include <inttypes.h>
#include <stdlib.h>

#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"

/* --- device fds ---------------------------------------------------------------------------------------------------*/

struct fd_request {
        struct job job;
        struct served_domain *domain;
        uint64_t attachment, cookie;
};

static void fd_request_run(struct job *j) {
        struct fd_request *q = (struct fd_request *)j;

        domain_request_fd(q->domain->domain, q->attachment, q->cookie);
        free(q);
}

static void refuse_fd(struct serve *s, uint64_t attachment, uint64_t cookie, enum refusal_reason reason,
                      const char *why) {
        struct refusal r;

        refuse(&r, reason, "attachment %" PRIu64 ": %s", attachment, why);
        client_channel_send_device(s->client, cookie, attachment, -1, 0, &r);
}

/* The client wants a device fd: the domain's worker makes it, after whatever it is at. */
static void client_wants_fd(void *userdata, uint64_t attachment, uint64_t cookie) {
        struct serve *s = userdata;
        struct fd_request *q = malloc(sizeof *q);
        bool known, posted = false;

        if (!q) {
                refuse_fd(s, attachment, cookie, REFUSAL_INTERNAL, "no memory for a request");
                return;
        }
        pthread_mutex_lock(&s->lock);
        *q = (struct fd_request){ .job = { .run = fd_request_run }, .domain = serve_route_locked(s, attachment),
                                  .attachment = attachment, .cookie = cookie };
        known = q->domain != NULL;
        if (known)      /* under the lock: the domain is not on its way out before this is in its queue */
                posted = worker_post(&q->domain->worker, &q->job);
        pthread_mutex_unlock(&s->lock);
        if (posted)
                return;
        free(q);
        if (known)
                refuse_fd(s, attachment, cookie, REFUSAL_LIMIT_EXCEEDED, "too many requests wait for its domain");
        else
                refuse_fd(s, attachment, cookie, REFUSAL_UNKNOWN_ATTACHMENT, "there is none of this id");
}

/* --- the end ------------------------------------------------------------------------------------------------------*/

static void end_run(struct job *j) {
        struct end_job *e = (struct end_job *)j;
        struct serve *s = e->domain->serve;

        domain_end(e->domain->domain);
        LOCK_SCOPE(&s->lock);
        if (--s->n_ending == 0)
                pthread_cond_signal(&s->ended);
}

/* On the watcher's thread, which nothing else can hold up. */
static void client_gone(void *userdata) {
        struct serve *s = userdata;

        FAILPOINT(holder_client_gone);
        pthread_mutex_lock(&s->lock);
        s->gone = true;
        for (struct served_domain *sd = s->domains; sd; sd = sd->next) {
                sd->end = (struct end_job){ .job = { .run = end_run }, .domain = sd };
                s->n_ending++;
                worker_post_front(&sd->worker, &sd->end.job);
        }
        while (s->n_ending > 0)
                pthread_cond_wait(&s->ended, &s->lock);
        pthread_mutex_unlock(&s->lock);
        FAILPOINT(holder_client_unmapped);
        log_info("the client is gone, all its domains are unmapped");
        link_client_gone(s->link);
}

const struct client_events serve_client_events = { .device_fd = client_wants_fd, .gone = client_gone };
