/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "holder/protocol.h"
#include "ledger.h"

/*
 * What is known about one session between a restart of the broker and the return of its holder: the ledger's unsettled
 * operations on one side, the holder's dump on the other. Belongs to the session, under its lock.
 */
struct dumped_attachment {
        uint64_t domain;
        struct link_dump_attachment a;
};

struct dumped_domain {
        uint64_t domain;
        struct link_dump_domain d;
};

struct dumped_mapping {
        uint64_t domain;
        struct link_map_entry m;
        bool explained;                 /* the ledger has it too */
};

struct dumped_window {
        uint64_t domain;
        struct link_window w;
        bool explained, unknown;        /* the ledger has it too; it has not, and it is to go */
};

struct noted_mapping {                  /* which operation made a row */
        uint64_t domain, iova, op;
};

struct noted_op {
        struct ledger_op row;
        struct ledger_range *ranges;    /* of an UNMAP: what goes */
        struct ledger_mapping *rests;   /* and what stays of it */
        size_t n_ranges, n_rests;
        bool applied;
        bool open;                      /* not to be settled: a lazy unmap that waits again, or a domain in quarantine */
};

enum lost_kind { LOST_MAPPING, LOST_ATTACHMENT, LOST_MEMORY, LOST_DOMAIN, LOST_WINDOW };

struct lost_object {                    /* in the ledger, and not in the holder: its row goes */
        enum lost_kind kind;
        uint64_t id, iova;              /* LOST_MAPPING: id is the domain's */
};

#define RECOVERY_ARRAY(type, name)                                                                                     \
        type *name;                                                                                                    \
        size_t n_##name, room_##name

struct recovery {
        uint64_t dump_seq;              /* of the LINK_DUMP */
        bool client_gone;
        unsigned differs;               /* places where ledger and holder differ, and no operation explains it */
        bool unrecorded;                /* reconciled, and the ledger could not be written: tried again */
        RECOVERY_ARRAY(struct noted_mapping, rows);
        RECOVERY_ARRAY(struct noted_op, ops);
        RECOVERY_ARRAY(struct link_dump_memory, memories);
        RECOVERY_ARRAY(struct dumped_domain, domains);
        RECOVERY_ARRAY(struct dumped_attachment, attachments);
        RECOVERY_ARRAY(struct dumped_mapping, mappings);
        RECOVERY_ARRAY(struct dumped_window, windows);
        RECOVERY_ARRAY(struct lost_object, lost);
        bool out_of_memory;             /* something could not be noted */
        uint64_t told, told_max;        /* elements of the dump */
};

struct recovery *recovery_new(void);
/* How many mappings the ledger has: a holder that tells of very many more makes no sense. */
void recovery_allow(struct recovery *r, uint64_t mappings);
int recovery_note_mapping(struct recovery *r, const struct ledger_mapping *row);
int recovery_note_op(struct recovery *r, const struct ledger_op *row, const struct ledger_op_parts *parts);

/* What the holder does not have; found out while reconciling. */
void recovery_note_lost(struct recovery *r, enum lost_kind kind, uint64_t id, uint64_t iova);

/* One message of the dump (not the fds). -1: it does not fit, or there is no memory. */
int recovery_note_message(struct recovery *r, const struct link_header *h, size_t size);

const struct link_dump_memory *recovery_find_memory(const struct recovery *r, uint64_t id);
const struct dumped_domain *recovery_find_domain(const struct recovery *r, uint64_t id);
const struct dumped_attachment *recovery_find_attachment(const struct recovery *r, uint64_t id);
/* By domain and exact IOVA; sorted by then (recovery_sort). */
struct dumped_mapping *recovery_find_mapping(const struct recovery *r, uint64_t domain, uint64_t iova);
/* The same, if it is just this one. */
struct dumped_mapping *recovery_find_exact(const struct recovery *r, uint64_t domain, const struct link_map_entry *e);
void recovery_sort(struct recovery *r);
/* The unsettled operation that made that row; NULL: it was settled. */
struct noted_op *recovery_op_of_row(const struct recovery *r, uint64_t domain, uint64_t iova);
