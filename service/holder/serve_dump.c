/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/serve_private.h"

#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/failpoint.h"

/* The dump is taken by the workers, each at its own place in its order: what was sent before it is in it. The last to
 * tell its part sends the result. Nothing of it is remembered: a repeated dump is a new one. */
struct dump {
        struct serve *serve;
        struct link_header header;
        atomic_uint parts;              /* still to be told */
        atomic_bool failed;
};

struct part {
        struct job job;
        struct dump *dump;
        struct served_domain *domain;   /* NULL: memory */
};

static void part_done(struct dump *d) {
        struct link_result result = link_result_done();

        if (atomic_fetch_sub(&d->parts, 1) != 1)
                return;
        FAILPOINT(holder_dump_done);
        if (atomic_load(&d->failed))
                refuse(&result.refusal, REFUSAL_INTERNAL, "no memory for the dump: a part of it is missing");
        serve_send_result(d->serve, &d->header, &result, -1);
        free(d);
}

/* --- parts --------------------------------------------------------------------------------------------------------*/

static void send_part(struct part *p, enum link_type type, uint32_t count, const void *payload, size_t size,
                      const int *fds, size_t n_fds) {
        uint64_t domain = p->domain ? p->domain->id : 0;
        struct link_header h = link_header_make(type, p->dump->header.seq, domain);
        _cleanup_free_ uint8_t *m = malloc(sizeof h + size);

        if (!m) {
                atomic_store(&p->dump->failed, true);
                return;
        }
        h.count = count;
        memcpy(m, &h, sizeof h);
        memcpy(m + sizeof h, payload, size);
        (void)link_send(p->dump->serve->link, m, sizeof h + size, fds, n_fds);
        FAILPOINT(holder_dump_part);
}

static void send_memory(void *userdata, const struct link_dump_memory *m) {
        send_part(userdata, LINK_DUMP_MEMORY, 0, m, sizeof *m, NULL, 0);
}

static void send_domain(void *userdata, const struct link_dump_domain *m) {
        send_part(userdata, LINK_DUMP_DOMAIN, 0, m, sizeof *m, NULL, 0);
}

static void send_attachment(void *userdata, const struct link_dump_attachment *m, const int *fds, size_t n_fds) {
        send_part(userdata, LINK_DUMP_ATTACHMENT, 0, m, sizeof *m, fds, n_fds);
}

static void send_revoker(void *userdata, uint32_t group, int fd) {
        const struct link_revoker m = { .group = group };

        send_part(userdata, LINK_REVOKER, 0, &m, sizeof m, &fd, 1);
}

static void send_window(void *userdata, const struct link_window *m) {
        send_part(userdata, LINK_DUMP_WINDOW, 0, m, sizeof *m, NULL, 0);
}

static void send_mappings(void *userdata, const struct link_map_entry *entries, size_t n) {
        send_part(userdata, LINK_DUMP_MAPPINGS, (uint32_t)n, entries, n * sizeof *entries, NULL, 0);
}

static void part_run(struct job *j) {
        struct part *p = (struct part *)j;
        struct domain_dump_sink sink = { .domain = send_domain, .attachment = send_attachment, .revoker = send_revoker,
                                         .window = send_window, .mappings = send_mappings, .userdata = p };

        if (p->domain)
                domain_dump(p->domain->domain, &sink);
        else
                objects_dump(p->dump->serve->objects, send_memory, p);
        part_done(p->dump);
        free(p);
}

/* --- the whole ----------------------------------------------------------------------------------------------------*/

static void post_part(struct dump *d, struct served_domain *domain, struct worker *w) {
        struct part *p = malloc(sizeof *p);

        if (!p) {
                atomic_store(&d->failed, true);
                return;
        }
        *p = (struct part){ .job = { .run = part_run }, .dump = d, .domain = domain };
        atomic_fetch_add(&d->parts, 1);
        worker_post_always(w, &p->job);
}

void serve_dump(struct serve *s, const struct link_header *h) {
        struct dump *d = malloc(sizeof *d);

        FAILPOINT(holder_dump_begins);
        if (!d) {
                struct link_result result = link_result_done();

                refuse(&result.refusal, REFUSAL_INTERNAL, "no memory for a dump");
                serve_send_result(s, h, &result, -1);
                return;
        }
        d->serve = s;
        d->header = *h;
        atomic_init(&d->parts, 1);      /* ours, until all are posted */
        atomic_init(&d->failed, false);
        post_part(d, NULL, &s->memory);
        for (struct served_domain *sd = s->domains; sd; sd = sd->next)
                post_part(d, sd, &sd->worker);
        part_done(d);
}
