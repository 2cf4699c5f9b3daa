/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core/broker_private.h"
#include "core/change.h"
#include "core/op.h"

/*
 * A change on its way to the holder: the message, and what the ledger is told.
 */

struct ledger_mapping mapping_row(const struct domain *d, const struct mapping *m, uint64_t op) {
        return (struct ledger_mapping){ .domain = d->id, .iova = m->range.first, .length = iova_range_length(m->range),
                                        .memory = m->memory->id, .offset = m->offset, .access = m->access, .op = op,
                                        .chunk_shift = m->chunk_shift, .page_shift = m->page_shift };
}

static size_t payload_size(const struct change *c, size_t n_old) {
        size_t size = n_old * sizeof *c->old + c->n_new * sizeof *c->new;

        return n_old > 0 && c->n_new > 0 ? sizeof(struct link_replace) + size : size;
}

static enum link_type type_of(const struct change *c, size_t n_old) {
        if (n_old == 0)
                return LINK_MAP;
        return c->n_new == 0 ? LINK_UNMAP : LINK_REPLACE;
}

struct op *op_new_change(struct change *c, enum ledger_op_kind kind, struct refusal *r) {
        size_t n_old = c->n_old < LINK_BATCH_MAX ? c->n_old : LINK_BATCH_MAX;
        struct op *op = op_new(c->session, kind, type_of(c, n_old), payload_size(c, n_old));
        char *to;

        if (!op) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        to = op_payload(op);
        if (n_old > 0 && c->n_new > 0) {
                *(struct link_replace *)to = (struct link_replace){ (uint32_t)n_old, (uint32_t)c->n_new };
                to += sizeof(struct link_replace);
        }
        if (n_old > 0)
                memcpy(to, c->old, n_old * sizeof *c->old);
        if (c->n_new > 0)
                memcpy(to + n_old * sizeof *c->old, c->new, c->n_new * sizeof *c->new);
        op->of.change.change = c;
        op->of.change.n_old = n_old;
        op->ledger_only = n_old == 0 && c->n_new == 0;
        op->row.object = op->message[0].domain = c->domain->id;
        op->row.has_effect = c->uses_pages || c->n_rests > 0;
        if (op->row.has_effect)
                op->row.effect = c->effect;
        op->message[0].count = (uint32_t)(n_old + c->n_new);
        return op;
}
