/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/broker_private.h"
#include "core/op.h"
#include "util/cleanup.h"

/*
 * Memory objects as the ledger sees them. What the object is, who may write it and whether it is populated is found out
 * by the holder (holder/object.c): the broker never touches a client's inode.
 */

static void row_of(const struct memory *m, uint64_t session, enum ledger_object_state state, struct ledger_memory *ret) {
        *ret = (struct ledger_memory){ .id = m->id, .session = session, .size = m->size, .page_size = m->page_size,
                                       .dev = m->dev, .ino = m->ino, .sealed = m->sealed, .writable = m->writable,
                                       .state = state };
}

/* ---- register ---- */

static int write_register_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        struct ledger_memory row;

        row_of(op->of.memory.memory, op->row.session, LEDGER_INTENDED, &row);
        return ledger_memory_put(ledger, &row, r) < 0 ? -1 : ledger_op_intend(ledger, &op->row, r);
}

/* The message is not needed any more by then: its payload keeps what the holder found out. */
static int write_register_settle(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct ledger_memory *row = op_payload(op);

        return op->applied ? ledger_memory_put(ledger, row, r) : ledger_memory_delete(ledger, op->row.object, r);
}

static void refund(struct session *s, uint64_t bytes) {
        const struct quota_amounts amounts = { .of[RESOURCE_MEMORY_OBJECTS] = 1, .of[RESOURCE_REGISTERED_BYTES] = bytes };

        quota_refund(&s->tenant->account, &amounts);
}

/* Only what is sealed keeps meaning the same page, and can be counted by it (DESIGN, section 6). */
void memory_identify(struct session *s, struct memory *m) {
        if (m->sealed && !m->file && m->page_size != 0)
                m->file = locked_file_ref(&s->tenant->account, m->dev, m->ino, m->page_size);
}

static void finish_register(struct op *op, struct link_result *result, int *fd) {
        struct session *s = op->session;
        struct memory *m = op->of.memory.memory;

        (void)fd;
        if (op_outcome_unknown(result))
                return;
        if (result->refusal.reason != REFUSAL_NONE) {
                HASH_DEL(s->memories, m);
                refund(s, m->charged_bytes);
                free(m);
                return;
        }
        m->page_size = result->memory.page_size;
        m->dev = result->memory.dev;
        m->ino = result->memory.ino;
        m->sealed = result->memory.sealed != 0;
        m->writable = result->memory.writable != 0;
        m->state = LEDGER_LIVE;
        memory_identify(s, m);
        row_of(m, s->id, LEDGER_LIVE, op_payload(op));
        op->answer.size = m->size;
        op->answer.page_size = m->page_size;
        op->answer.sealed = m->sealed;
}

static struct memory *memory_add(struct session *s, uint64_t size, bool writable) {
        struct memory *m = calloc(1, sizeof *m);

        if (!m)
                return NULL;
        m->id = ledger_next_id(s->broker->ledger);
        m->size = m->charged_bytes = size;
        m->page_size = 4096;
        m->writable = writable;
        m->state = LEDGER_INTENDED;
        HASH_ADD(hh, s->memories, id, sizeof m->id, m);
        return m;
}

static void fill_register(struct op *op, const struct session *s, const struct register_request *req, struct memory *m) {
        struct link_register *message = op_payload(op);

        message->memory = m->id;
        message->ticket = req->ticket;
        message->size = req->size;
        message->flags = req->unsealed ? LINK_REGISTER_ALLOW_UNSEALED : LINK_REGISTER_SEAL;
        if (req->populate)
                message->flags |= LINK_REGISTER_POPULATE;
        if (req->read_only)
                message->flags |= LINK_REGISTER_READ_ONLY;
        op->of.memory.memory = m;
        op->row.object = op->answer.id = m->id;
        op->message_size = sizeof(struct link_header) + sizeof *message;
        op->deadline_ms = monotonic_ms() + s->broker->options.register_deadline_ms;
        op->write_intent = write_register_intent;
        op->write_settle = write_register_settle;
        op->finish = finish_register;
}

static struct op *admit_register(struct session *s, const void *request, struct answer *ret, struct refusal *r) {
        const struct register_request *req = request;
        const struct quota_amounts amounts = { .of[RESOURCE_MEMORY_OBJECTS] = 1, .of[RESOURCE_REGISTERED_BYTES] = req->size };
        struct memory *m;
        struct op *op;

        (void)ret;
        if (req->size == 0) {
                refuse(r, REFUSAL_ZERO_LENGTH, "a memory object of 0 bytes cannot be registered");
                return NULL;
        }
        if (req->unsealed && !atomic_load(&s->tenant->allow_unsealed)) {
                refuse(r, REFUSAL_MEMORY_UNSEALED,
                       "tenant '%s' may not register memory that stays unsealed. Let the service seal it, or ask the operator: "
                       "iommuctl tenant set %s --allow-unsealed", s->tenant->name, s->tenant->name);
                return NULL;
        }
        if (quota_charge(&s->tenant->account, &amounts, r) < 0)
                return NULL;
        op = op_new(s, LEDGER_OP_REGISTER, LINK_REGISTER, sizeof(struct ledger_memory) + sizeof(struct link_register));
        m = op ? memory_add(s, req->size, !req->read_only) : NULL;
        if (!m) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                if (op)
                        op_unref(op);
                quota_refund(&s->tenant->account, &amounts);
                return NULL;
        }
        fill_register(op, s, req, m);
        return op;
}

void memory_register_request(struct session *s, const struct register_request *req, struct reply *reply) {
        const uint64_t same[] = { LEDGER_OP_REGISTER, req->ticket, req->size,
                                  (uint64_t)req->unsealed << 2 | (uint64_t)req->read_only << 1 | req->populate };
        uint64_t hash = request_hash(REQUEST_HASH_INIT, same, sizeof same);

        request_start(s, &req->key, hash, reply, admit_register, req);
}

/* ---- unregister ---- */

static int write_unregister_intent(struct op *op, struct ledger *ledger, struct refusal *r) {
        struct ledger_memory row;

        row_of(op->of.memory.memory, op->row.session, LEDGER_ENDING, &row);
        return ledger_memory_put(ledger, &row, r) < 0 ? -1 : ledger_op_intend(ledger, &op->row, r);
}

static int write_unregister_settle(struct op *op, struct ledger *ledger, struct refusal *r) {
        const struct ledger_memory *row = op_payload(op);

        return op->applied ? ledger_memory_delete(ledger, op->row.object, r) : ledger_memory_put(ledger, row, r);
}

static void finish_unregister(struct op *op, struct link_result *result, int *fd) {
        struct session *s = op->session;
        struct memory *m = op->of.memory.memory;

        (void)fd;
        if (op_outcome_unknown(result))
                return;
        if (result->refusal.reason != REFUSAL_NONE) {
                m->state = LEDGER_LIVE;
                row_of(m, s->id, LEDGER_LIVE, op_payload(op));
                return;
        }
        HASH_DEL(s->memories, m);
        locked_file_unref(&s->tenant->account, m->file);
        refund(s, m->charged_bytes);
        free(m);
}

static struct op *admit_unregister(struct session *s, const void *request, struct answer *ret, struct refusal *r) {
        const struct unregister_request *req = request;
        struct memory *m;
        struct op *op;

        (void)ret;
        if (!(m = session_find_memory(s, req->memory, r)))
                return NULL;
        if (m->mappings > 0) {
                refuse(r, REFUSAL_IN_USE,
                       "%" PRIu64 " mappings use memory object %" PRIu64 "; unmap them first (in a lazy domain: and sync)",
                       m->mappings, m->id);
                r->used = m->mappings;
                return NULL;
        }
        op = op_new(s, LEDGER_OP_UNREGISTER, LINK_UNREGISTER, sizeof(struct ledger_memory) + sizeof(struct link_memory));
        if (!op) {
                refuse(r, REFUSAL_INTERNAL, "out of memory");
                return NULL;
        }
        m->state = LEDGER_ENDING;
        ((struct link_memory *)op_payload(op))->memory = m->id;
        op->of.memory.memory = m;
        op->row.object = m->id;
        op->message_size = sizeof(struct link_header) + sizeof(struct link_memory);
        op->deadline_ms = monotonic_ms() + s->broker->options.register_deadline_ms;
        op->write_intent = write_unregister_intent;
        op->write_settle = write_unregister_settle;
        op->finish = finish_unregister;
        return op;
}

void memory_unregister_request(struct session *s, const struct unregister_request *req, struct reply *reply) {
        uint64_t hash = request_hash_u64(request_hash_u64(REQUEST_HASH_INIT, LEDGER_OP_UNREGISTER), req->memory);

        request_start(s, &req->key, hash, reply, admit_unregister, req);
}
