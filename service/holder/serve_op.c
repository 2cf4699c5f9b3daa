/* SPDX-License-Identifier: Apache-2.0 */
#include "holder/serve_private.h"

#include "util/cleanup.h"
#include "util/failpoint.h"

struct link_result link_result_done(void) {
        /* as refuse() leaves what it does not know: no element, no conflict */
        return (struct link_result){ .refusal = { .element = -1, .conflict_first = 1 } };
}

void serve_send_result(struct serve *s, const struct link_header *h, const struct link_result *result, int fd) {
        struct {
                struct link_header header;
                struct link_result result;
        } m = { link_header_make(LINK_RESULT, h->seq, h->domain), *result };

        (void)link_send(s->link, &m, sizeof m, &fd, fd >= 0);
}

/* Remembered before it is sent: what is lost with the link is there for the repeat. */
void serve_finish(struct serve *s, const struct link_header *h, struct link_result *result, int fd) {
        FAILPOINT(applied);
        results_finish(s->results, h->seq, result, fd);
        FAILPOINT(result_remembered);
        serve_send_result(s, h, result, fd);
        FAILPOINT(result_sent);
}

void serve_refuse(struct serve *s, const struct link_header *h, const struct refusal *r) {
        struct link_result result = { .refusal = *r };

        serve_finish(s, h, &result, -1);
}

/* --- memory -------------------------------------------------------------------------------------------------------*/

static int do_register(struct op *op, struct link_result *result) {
        const struct link_register *q = op->payload;
        _cleanup_close_ int fd = -1;

        if (!op->serve->client)
                return refuse(&result->refusal, REFUSAL_UNKNOWN_TICKET, "there is no client that could have sent it");
        if (client_channel_claim(op->serve->client, q->ticket, &fd, &result->refusal) < 0)
                return -1;
        FAILPOINT(apply_ticket_claimed);
        return objects_register(op->serve->objects, q, &fd, &result->memory, &result->refusal);
}

static int do_unregister(struct op *op, struct link_result *result) {
        const struct link_memory *q = op->payload;

        return objects_unregister(op->serve->objects, q->memory, &result->refusal);
}

/* --- domains ------------------------------------------------------------------------------------------------------*/

static int do_attach(struct op *op, struct link_result *result, int *ret_keeper) {
        const struct link_attach *q = op->payload;
        struct domain *d = op->domain->domain;

        if (domain_attach(d, q, op->header.seq, op->fds, ret_keeper, &result->refusal) < 0) {
                if (!domain_has_attachment(d, q->attachment))
                        serve_forget_route(op->serve, q->attachment);
                return -1;
        }
        domain_info(d, &result->info);
        return 0;
}

static int do_detach(struct op *op, struct link_result *result) {
        const struct link_attachment *q = op->payload;
        struct domain *d = op->domain->domain;

        if (domain_detach(d, q->attachment, &result->refusal) < 0)
                return -1;
        domain_info(d, &result->info);
        return 0;
}

static int do_map(struct op *op, struct link_result *result) {
        const struct link_replace *replace = op->payload;
        bool undo_failed = false;
        int k;

        if (op->header.type == LINK_MAP)
                k = domain_map(op->domain->domain, op->payload, op->header.count, &undo_failed, &result->refusal);
        else if (op->header.type == LINK_REPLACE)
                k = domain_replace(op->domain->domain, link_replace_unmaps(replace), replace->n_unmap,
                                   link_replace_maps(replace), replace->n_map, &undo_failed, &result->refusal);
        else
                k = domain_unmap(op->domain->domain, op->payload, op->header.count, &undo_failed, &result->refusal);
        if (undo_failed)
                result->flags |= LINK_RESULT_UNDO_FAILED;
        return k;
}

static int do_window(struct op *op, struct link_result *result) {
        const struct link_window *w = op->payload;
        const struct link_unmap_entry *entries = (const struct link_unmap_entry *)(w + 1);
        struct domain *d = op->domain->domain;
        bool undo_failed = false;
        int k;

        if (op->header.type == LINK_WINDOW_CREATE)
                k = domain_window_create(d, w, &result->window, &undo_failed, &result->refusal);
        else if (op->header.type == LINK_WINDOW_REMOVE)
                k = domain_window_remove(d, w->start, entries, op->header.count, &undo_failed, &result->refusal);
        else
                k = domain_windows_reset(d, w, entries, op->header.count, &undo_failed, &result->refusal);
        if (undo_failed)
                result->flags |= LINK_RESULT_UNDO_FAILED;
        return k;
}

static int do_destroy(struct op *op) {
        op->domain->domain = domain_free(op->domain->domain);
        FAILPOINT(apply_domain_gone);
        return 0;
}

static void do_ack(struct op *op) {
        const struct link_attachment *q = op->payload;

        FAILPOINT(ack_received);
        domain_ack(op->domain->domain, q->attachment);
}

void op_execute(struct op *op) {
        struct link_result result = link_result_done();
        int keeper = -1, k = -1;

        FAILPOINT(apply_begins);
        switch (op->header.type) {
        case LINK_REGISTER: k = do_register(op, &result); break;
        case LINK_UNREGISTER: k = do_unregister(op, &result); break;
        case LINK_ATTACH: k = do_attach(op, &result, &keeper); break;
        case LINK_DETACH: k = do_detach(op, &result); break;
        case LINK_MAP:
        case LINK_UNMAP:
        case LINK_REPLACE: k = do_map(op, &result); break;
        case LINK_WINDOW_CREATE:
        case LINK_WINDOW_REMOVE:
        case LINK_WINDOWS_RESET: k = do_window(op, &result); break;
        case LINK_DOMAIN_DESTROY: k = do_destroy(op); break;
        default: do_ack(op);
        }
        for (size_t i = 0; i < ARRAY_SIZE(op->fds); i++)
                op->fds[i] = fd_close(op->fds[i]);
        if (op->header.type == LINK_ATTACH_ACK)
                return;
        if (k == 0)             /* what a refused attempt left in it on the way to a success does not count */
                result.refusal = link_result_done().refusal;
        serve_finish(op->serve, &op->header, &result, keeper);
}
