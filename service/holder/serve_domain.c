/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/serve_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/failpoint.h"

/* --- routes -------------------------------------------------------------------------------------------------------*/

void serve_forget_route(struct serve *s, uint64_t attachment) {
        LOCK_SCOPE(&s->lock);

        for (struct route **p = &s->routes; *p; p = &(*p)->next)
                if ((*p)->attachment == attachment) {
                        struct route *r = *p;

                        *p = r->next;
                        free(r);
                        return;
                }
}

/* An id that is known already keeps its route: the domain will refuse the second attach. */
int serve_add_route(struct serve *s, uint64_t attachment, struct served_domain *sd, struct refusal *r) {
        LOCK_SCOPE(&s->lock);
        struct route *new;

        for (const struct route *p = s->routes; p; p = p->next)
                if (p->attachment == attachment)
                        return p->domain == sd ? 0 : refuse(r, REFUSAL_IN_USE, "attachment %" PRIu64 " exists already",
                                                            attachment);
        new = malloc(sizeof *new);
        if (!new)
                return refuse(r, REFUSAL_INTERNAL, "no memory for an attachment");
        *new = (struct route){ .next = s->routes, .attachment = attachment, .domain = sd };
        s->routes = new;
        return 0;
}

struct served_domain *serve_route_locked(struct serve *s, uint64_t attachment) {
        for (const struct route *p = s->routes; p; p = p->next)
                if (p->attachment == attachment)
                        return p->domain;
        return NULL;
}

/* --- events -------------------------------------------------------------------------------------------------------*/

static void fd_answered(void *userdata, const struct domain_fd_answer *a) {
        struct served_domain *sd = userdata;

        if (sd->serve->client)
                client_channel_send_device(sd->serve->client, a->cookie, a->attachment, a->fd, a->kind, a->refusal);
        FAILPOINT(device_fd_sent);
}

/* The remembered result of the attach must not keep the device busy. */
static void detaching(void *userdata, uint64_t attachment, uint64_t seq) {
        struct served_domain *sd = userdata;

        results_drop_fd(sd->serve->results, seq);
        serve_forget_route(sd->serve, attachment);
}

/* Ahead of the result of the attach on the same link, so that the broker has it when it answers. */
static void revoker(void *userdata, uint32_t group, int fd) {
        const struct served_domain *sd = userdata;
        struct {
                struct link_header header;
                struct link_revoker revoker;
        } m = { link_header_make(LINK_REVOKER, 0, sd->id), { .group = group } };

        (void)link_send(sd->serve->link, &m, sizeof m, &fd, 1);
}

/* --- domains ------------------------------------------------------------------------------------------------------*/

struct served_domain *serve_domain_find(struct serve *s, uint64_t id) {
        for (struct served_domain *sd = s->domains; sd; sd = sd->next)
                if (sd->id == id)
                        return sd;
        return NULL;
}

/* What is queued is done first. */
static void served_domain_free(struct served_domain *sd) {
        worker_stop(&sd->worker);
        domain_free(sd->domain);
        free(sd);
}

static int domain_start(struct serve *s, uint64_t id, struct served_domain **ret, struct refusal *r) {
        struct served_domain *sd = calloc(1, sizeof *sd);
        struct domain_events events = { .fd_answered = fd_answered, .detaching = detaching, .revoker = revoker, .userdata = sd };
        int k;

        if (!sd)
                return refuse(r, REFUSAL_INTERNAL, "no memory for a domain");
        sd->id = id;
        sd->serve = s;
        atomic_init(&sd->over, false);
        sd->domain = domain_new(id, s->objects, &s->soft, &events);
        k = sd->domain ? worker_start(&sd->worker) : -ENOMEM;
        if (k < 0) {
                domain_free(sd->domain);
                free(sd);
                refuse(r, REFUSAL_LIMIT_EXCEEDED, "the holder gets no thread for the domain (%s); it lives in the "
                       "client's cgroup and counts in its pids.max", strerrordesc_np(-k));
                r->errnum = -k;
                return -1;
        }
        *ret = sd;
        return 0;
}

/* s->gone under the lock: client_gone() sees this domain, or this sees that the client is gone. */
int serve_domain_create(struct serve *s, uint64_t id, struct refusal *r) {
        struct served_domain *sd = NULL;
        bool gone;

        if (id == 0 || serve_domain_find(s, id))
                return refuse(r, REFUSAL_IN_USE, "domain %" PRIu64 " exists already", id);
        if (s->n_domains >= SERVE_DOMAINS_MAX) {
                refuse(r, REFUSAL_LIMIT_EXCEEDED, "the session has %u domains and may have no more", s->n_domains);
                r->resource = RESOURCE_DOMAINS;
                r->limit = r->used = SERVE_DOMAINS_MAX;
                r->asked = 1;
                return -1;
        }
        if (domain_start(s, id, &sd, r) < 0)
                return -1;
        pthread_mutex_lock(&s->lock);
        gone = s->gone;
        if (!gone) {
                sd->next = s->domains;
                s->domains = sd;
                s->n_domains++;
        }
        pthread_mutex_unlock(&s->lock);
        if (!gone)
                return 0;
        served_domain_free(sd);
        return refuse(r, REFUSAL_UNKNOWN_SESSION, "the client is gone, its session takes nothing new");
}

/* --- the end of one ------------------------------------------------------------------------------------------------*/

void serve_domain_leave(struct serve *s, struct served_domain *sd) {
        LOCK_SCOPE(&s->lock);

        for (struct served_domain **p = &s->domains; *p; p = &(*p)->next)
                if (*p == sd) {
                        *p = sd->next;
                        s->n_domains--;
                        break;
                }
        for (struct route **p = &s->routes; *p;) {
                struct route *r = *p;

                if (r->domain == sd) {
                        *p = r->next;
                        free(r);
                } else
                        p = &r->next;
        }
        sd->next = s->leaving;
        s->leaving = sd;
}

void serve_domains_reap(struct serve *s, bool wait) {
        for (struct served_domain **p = &s->leaving; *p;) {
                struct served_domain *sd = *p;

                if (!wait && !atomic_load(&sd->over)) {
                        p = &sd->next;
                        continue;
                }
                *p = sd->next;
                served_domain_free(sd);
        }
}

static void destroy_run(struct job *j) {
        struct op *op = (struct op *)j;
        struct served_domain *sd = op->domain;

        op_execute(op);
        atomic_store(&sd->over, true);
}

void serve_domain_destroy(struct serve *s, struct served_domain *sd, const struct link_header *h) {
        serve_domain_leave(s, sd);
        sd->destroy = (struct op){ .job = { .run = destroy_run }, .serve = s, .domain = sd, .header = *h,
                                   .fds = { -1, -1 } };
        worker_post_always(&sd->worker, &sd->destroy.job);
}
