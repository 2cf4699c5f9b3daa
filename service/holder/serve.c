/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/serve_private.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/failpoint.h"
#include "util/log.h"

/* --- operations ---------------------------------------------------------------------------------------------------*/

static void op_run(struct job *j) {
        struct op *op = (struct op *)j;

        op_execute(op);
        free(op);
}

static int post(struct op *op, struct worker *w, struct refusal *r) {
        struct op *copy = malloc(sizeof *copy + op->size);

        if (!copy)
                return refuse(r, REFUSAL_INTERNAL, "no memory for an operation");
        *copy = *op;
        copy->job.run = op_run;
        copy->payload = copy + 1;
        memcpy(copy + 1, op->payload, op->size);
        if (!worker_post(w, &copy->job)) {
                free(copy);
                return refuse(r, REFUSAL_LIMIT_EXCEEDED, "%u operations wait in line already", WORKER_QUEUE_MAX);
        }
        op->fds[0] = op->fds[1] = -1;
        return 0;
}

/* So little that handing it over would take longer than doing it; a longer pin must not hold up the link. */
#define AT_ONCE_BYTES (2ULL << 20)

static bool is_small(const struct op *op) {
        const struct link_map_entry *map = op->payload;
        const struct link_unmap_entry *unmap = op->payload;
        uint64_t total = 0;

        if (op->header.type == LINK_ATTACH_ACK)
                return true;
        if (op->header.type != LINK_MAP && op->header.type != LINK_UNMAP)
                return false;
        for (uint32_t i = 0; i < op->header.count; i++) {
                uint64_t length = op->header.type == LINK_MAP ? map[i].length : unmap[i].length;

                if (length > AT_ONCE_BYTES || (total += length) > AT_ONCE_BYTES)
                        return false;
        }
        return true;
}

/* Memory that is not sealed can be made to fault while it is pinned, which may take its time. */
static int domain_operation(struct serve *s, struct op *op, struct refusal *r) {
        struct worker *w = &op->domain->worker;

        if (!is_small(op) || (op->header.type == LINK_MAP && objects_any_unsealed(s->objects)) || !worker_try_enter(w))
                return post(op, w, r);
        op_execute(op);
        worker_leave(w);
        return 0;
}

static struct served_domain *find_target(struct serve *s, const struct op *op) {
        const struct link_attachment *a = op->payload;

        if (op->header.domain == 0 && (op->header.type == LINK_DETACH || op->header.type == LINK_ATTACH_ACK)) {
                /* these two name an attachment; the domain is a courtesy */
                LOCK_SCOPE(&s->lock);

                return serve_route_locked(s, a->attachment);
        }
        return serve_domain_find(s, op->header.domain);
}

static int create(struct serve *s, const struct op *op, struct refusal *r) {
        struct link_result result = link_result_done();

        if (serve_domain_create(s, op->header.domain, r) < 0)
                return -1;
        FAILPOINT(apply_domain_made);
        serve_finish(s, &op->header, &result, -1);
        return 0;
}

static int dispatch(struct serve *s, struct op *op, struct refusal *r) {
        const struct link_attach *attach = op->payload;

        if (op->header.type == LINK_REGISTER || op->header.type == LINK_UNREGISTER)
                return post(op, &s->memory, r);
        if (op->header.type == LINK_DOMAIN_CREATE)
                return create(s, op, r);
        op->domain = find_target(s, op);
        if (!op->domain)
                return refuse(r, REFUSAL_UNKNOWN_DOMAIN, "there is no domain %" PRIu64, op->header.domain);
        if (op->header.type == LINK_DOMAIN_DESTROY) {
                serve_domain_destroy(s, op->domain, &op->header);
                return 0;
        }
        if (op->header.type == LINK_ATTACH && serve_add_route(s, attach->attachment, op->domain, r) < 0)
                return -1;
        return domain_operation(s, op, r);
}

static bool fits_replace(const struct link_message *m) {
        const struct link_replace *p = m->payload;

        return m->size >= sizeof *p && p->n_unmap <= LINK_BATCH_MAX && p->n_map <= LINK_BATCH_MAX &&
               m->header.count == p->n_unmap + p->n_map && m->header.count > 0 &&
               m->size == sizeof *p + p->n_unmap * sizeof(struct link_unmap_entry) +
                                  p->n_map * sizeof(struct link_map_entry);
}

/* Does the payload fit the type? */
static bool fits(const struct link_message *m) {
        uint64_t count = m->header.count;

        switch (m->header.type) {
        case LINK_REGISTER: return m->size >= sizeof(struct link_register);
        case LINK_UNREGISTER: return m->size >= sizeof(struct link_memory);
        case LINK_ATTACH: return m->size >= sizeof(struct link_attach) && m->n_fds <= 2;
        case LINK_ATTACH_ACK:
        case LINK_DETACH: return m->size >= sizeof(struct link_attachment);
        case LINK_MAP: return count > 0 && count <= LINK_BATCH_MAX && m->size == count * sizeof(struct link_map_entry);
        case LINK_UNMAP:
                return count > 0 && count <= LINK_BATCH_MAX && m->size == count * sizeof(struct link_unmap_entry);
        case LINK_REPLACE: return fits_replace(m);
        case LINK_WINDOW_CREATE: return count == 0 && m->size >= sizeof(struct link_window);
        case LINK_WINDOW_REMOVE:
        case LINK_WINDOWS_RESET:
                return count <= LINK_BATCH_MAX &&
                       m->size == sizeof(struct link_window) + count * sizeof(struct link_unmap_entry);
        case LINK_DOMAIN_CREATE:
        case LINK_DOMAIN_DESTROY:
        case LINK_DUMP: return true;
        default: return false;
        }
}

static struct op make_op(struct serve *s, struct link_message *m) {
        struct op op = { .serve = s, .header = m->header, .payload = m->payload, .size = m->size, .fds = { -1, -1 } };

        if (m->header.type == LINK_ATTACH) {
                op.fds[0] = fd_steal(&m->fds[0]);
                op.fds[1] = fd_steal(&m->fds[1]);
        }
        return op;
}

static void execute_new(struct serve *s, struct link_message *m) {
        struct op op = make_op(s, m);
        struct refusal r;

        if (dispatch(s, &op, &r) == 0)
                return;
        fd_close(op.fds[0]);
        fd_close(op.fds[1]);
        if (m->header.type != LINK_ATTACH_ACK)
                serve_refuse(s, &m->header, &r);
}

/* Each seq has its effect once, whatever a broker that lost its memory sends again. */
static enum link_verdict operation(struct serve *s, struct link_message *m) {
        enum results_state state;
        struct link_result result = link_result_done();
        _cleanup_close_ int fd = -1;

        if (!fits(m) || m->header.seq == 0)
                return LINK_DOES_NOT_FIT;
        if (m->header.type == LINK_DUMP) {
                serve_dump(s, &m->header);
                return LINK_GO_ON;
        }
        if (results_begin(s->results, m->header.seq, &state, &result, &fd) < 0) {
                refuse(&result.refusal, REFUSAL_INTERNAL, "no memory for an operation");
                serve_send_result(s, &m->header, &result, -1);
                return LINK_GO_ON;
        }
        switch (state) {
        case RESULTS_NEW:
                execute_new(s, m);
                break;
        case RESULTS_FORGOTTEN:
                refuse(&result.refusal, REFUSAL_BAD_MESSAGE,
                       "operation %" PRIu64 " is older than what the holder remembers: it is not done again",
                       m->header.seq);
                __attribute__((fallthrough));
        case RESULTS_FINISHED:
                serve_send_result(s, &m->header, &result, fd);
                break;
        case RESULTS_RUNNING:
                break;          /* its answer will come on this link */
        }
        return LINK_GO_ON;
}

/* --- the link's messages ------------------------------------------------------------------------------------------*/

static enum link_verdict take_client(struct serve *s, struct link_message *m) {
        int k;

        if (s->client || m->n_fds < 1 || m->n_fds > 2)
                return LINK_DOES_NOT_FIT;
        FAILPOINT(holder_has_client);
        k = client_channel_new(&m->fds[0], &m->fds[1], s->max_objects, &s->client);
        if (k == 0)
                return LINK_GO_ON;
        log_error("the connection cannot be served: %s", strerrordesc_np(-k));
        return LINK_STOP;
}

static enum link_verdict go(struct serve *s) {
        struct client_events events = serve_client_events;
        int k;

        if (!s->client || s->going)
                return LINK_DOES_NOT_FIT;
        events.userdata = s;
        k = client_channel_start(s->client, &events);
        if (k < 0) {
                log_error("the client cannot be served: %s", strerrordesc_np(-k));
                return LINK_STOP;
        }
        s->going = true;
        FAILPOINT(holder_goes);
        return LINK_GO_ON;
}

static enum link_verdict send_token(struct serve *s, const struct link_message *m) {
        const struct link_token *t = m->payload;

        if (!s->going || m->size < sizeof *t || !memchr(t->token, 0, sizeof t->token))
                return LINK_DOES_NOT_FIT;
        /* From here on the session is one that the next broker knows. One that dies earlier may have left no row to recognise us
         * by; its client has heard nothing yet, and connects again when we end. */
        link_set_live(s->link);
        client_channel_send_token(s->client, t->token);
        FAILPOINT(holder_token_sent);
        return LINK_GO_ON;
}

/* The client hears of it first, and everything is unmapped when this is over. */
static void end_all(struct serve *s, enum refusal_reason reason, const char *text) {
        if (s->going && !s->over)
                client_channel_end(s->client, reason, text);
        s->over = true;
        while (s->domains)
                serve_domain_leave(s, s->domains);
        serve_domains_reap(s, true);
}

static enum link_verdict end(struct serve *s, const struct link_message *m) {
        const struct link_end *e = m->payload;

        if (m->size < sizeof *e || !memchr(e->text, 0, sizeof e->text))
                return LINK_DOES_NOT_FIT;
        FAILPOINT(holder_end);
        end_all(s, (enum refusal_reason)e->reason, e->text);
        FAILPOINT(holder_end_unmapped);
        if (m->header.seq != 0) {
                struct link_result result = link_result_done();

                serve_send_result(s, &m->header, &result, -1);
        }
        return LINK_STOP;
}

static enum link_verdict message(void *userdata, struct link_message *m) {
        struct serve *s = userdata;

        serve_domains_reap(s, false);
        switch (m->header.type) {
        case LINK_CLIENT: return take_client(s, m);
        case LINK_GO: return go(s);
        case LINK_TOKEN: return send_token(s, m);
        case LINK_END: return end(s, m);
        case LINK_SETTLED:
                results_settle(s->results, m->header.seq);
                return LINK_GO_ON;
        case LINK_ATTACH_ACK:
                if (!fits(m))
                        return LINK_DOES_NOT_FIT;
                execute_new(s, m);
                return LINK_GO_ON;
        default: return operation(s, m);
        }
}

struct unack_job {
        struct job job;
        struct served_domain *domain;
};

static void unack_run(struct job *j) {
        struct unack_job *u = (struct unack_job *)j;

        domain_unack(u->domain->domain);
        free(u);
}

static void lost(void *userdata) {
        struct serve *s = userdata;

        FAILPOINT(holder_link_lost);
        log_notice("the broker is gone; holding what it has");
        for (struct served_domain *sd = s->domains; sd; sd = sd->next) {
                struct unack_job *u = malloc(sizeof *u);

                if (!u)
                        continue;
                *u = (struct unack_job){ .job = { .run = unack_run }, .domain = sd };
                worker_post_always(&sd->worker, &u->job);
        }
}

/* --- life ---------------------------------------------------------------------------------------------------------*/

int serve_new(struct link *link, const struct link_setup *setup, struct serve **ret) {
        struct serve *s = calloc(1, sizeof *s);
        int k;

        if (!s)
                return -ENOMEM;
        s->link = link;
        s->soft = setup->soft;
        s->max_objects = setup->max_objects;
        s->lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        s->ended = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
        s->results = results_new();
        s->objects = objects_new(setup->max_objects);
        k = s->results && s->objects ? worker_start(&s->memory) : -ENOMEM;
        if (k < 0) {
                results_free(s->results);
                objects_free(s->objects);
                free(s);
                return k;
        }
        *ret = s;
        return 0;
}

static uint64_t last_seq(void *userdata) {
        struct serve *s = userdata;

        return results_last_seq(s->results);
}

int serve_run(struct serve *s, const struct link_facts *facts) {
        struct link_handler handler = { .message = message, .lost = lost, .userdata = s };
        int k;

        k = link_hello(s->link, facts, last_seq, s);
        if (k < 0)
                return k;
        FAILPOINT(holder_hello_sent);
        switch (link_run(s->link, &handler)) {
        case LINK_ENDED_BY_HANDLER:
                break;
        case LINK_ENDED_UNUSED:
                log_info("the link closed before there was a session");
                end_all(s, REFUSAL_RECOVERING, "the service went away before the session had begun; connect again");
                break;
        case LINK_ENDED_ORPHANED:
                log_warning("no broker for too long: the session ends");
                break;
        }
        end_all(s, REFUSAL_HOLDER_LOST, "the service was away for too long, the session is over");
        return 0;
}

struct serve *serve_free(struct serve *s) {
        if (!s)
                return NULL;
        end_all(s, REFUSAL_HOLDER_LOST, "the session is over");
        worker_stop(&s->memory);
        s->client = client_channel_free(s->client);
        if (s->client)
                return NULL;    /* one of its threads hangs and may still look at the rest */
        objects_free(s->objects);
        results_free(s->results);
        pthread_cond_destroy(&s->ended);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return NULL;
}
