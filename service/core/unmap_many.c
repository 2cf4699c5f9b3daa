/* SPDX-License-Identifier: Apache-2.0 */
#include "core/unmap_many.h"

#include <string.h>

static void move_key(struct op *from, struct op *to) {
        to->row.has_key = from->row.has_key;
        memcpy(to->row.key, from->row.key, sizeof to->row.key);
        to->row.request_hash = from->row.request_hash;
        from->row.has_key = false;
}

/* Of all of it, known before any of it is done. */
static void promise(struct op *many, const struct change *c) {
        many->answer.unmapped_mappings = c->n_gone;
        for (size_t i = 0; i < c->n_gone; i++)
                many->answer.unmapped_bytes += iova_range_length(c->gone[i]->range);
        op_answer_store(&many->row, &many->answer, NULL);
}

/* The key came to the op after it was admitted. */
static int take_key(struct op *first, struct refusal *r) {
        (void)r;
        move_key(first, first->many);
        return 0;
}

int many_begin(struct op *first, const struct unmap_request *req, struct refusal *r) {
        const struct change *c = first->of.change.change;
        struct ledger_range *ranges;

        if (first->of.change.n_rows == c->n_gone)
                return 0;
        first->many = op_new(c->session, LEDGER_OP_UNMAP_MANY, LINK_UNMAP, req->n * sizeof *ranges);
        if (!first->many)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        ranges = op_payload(first->many);
        for (size_t i = 0; i < req->n; i++)
                ranges[i] = (struct ledger_range){ req->iova[i], req->length[i] };
        first->many->message[0].count = (uint32_t)req->n;
        first->many->row.object = c->domain->id;
        promise(first->many, c);
        first->prepare = take_key;
        return 0;
}

int many_write_intent(struct op *part, struct ledger *ledger, struct refusal *r) {
        struct op *many = part->many;

        return many ? ledger_unmap_many_intend(ledger, &many->row, op_payload(many), many->message[0].count, r) : 0;
}

/* ---- settling ---- */

/* With the last part: the row of all has the key, and the answer as it came out. */
static int settle_many(struct op *last, struct ledger *ledger, struct refusal *r) {
        struct op *many = last->many;

        if (last->row.has_key) {
                many->row.answer_size = last->row.answer_size;
                memcpy(many->row.answer, last->row.answer, last->row.answer_size);
                move_key(last, many);
        }
        return ledger_op_settle(ledger, &many->row, last->applied, r);
}

/* The rows of this part go now: its intent is written for that, with what the holder was told, which is whole mappings. */
static int settle_part(struct op *part, struct ledger *ledger, struct refusal *r) {
        _Static_assert(sizeof(struct link_unmap_entry) == sizeof(struct ledger_range), "same layout");

        if (part->many && settle_many(part, ledger, r) < 0)
                return -1;
        return ledger_unmap_intend(ledger, &part->row, op_payload(part), part->message[0].count, NULL, 0, r);
}

void many_hand_on(struct op *done, struct op *next) {
        if (!done->many) {                      /* of a window that goes: its removal comes last, and has the key */
                move_key(done, next);
                return;
        }
        next->many = done->many;
        next->covered = true;
        next->write_settle = settle_part;
        done->many = NULL;
}

void many_end(struct op *part) {
        if (!part->many)
                return;
        move_key(part->many, part);
        if (!part->covered)
                part->write_settle = settle_many;
}
