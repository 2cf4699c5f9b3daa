/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/session.h"
#include "holder/protocol.h"
#include "ledger.h"

/*
 * What one request changes in a domain: mappings that go, mappings that come, and what both mean for the holder, which knows
 * nothing of pages that are shared or of who asked for what: exact ranges that go, others that come.
 *
 *      change_new -> change_add / change_remove ... -> change_settle_pages -> change_charge     admission, or change_undo
 *      change_apply (the holder did it), change_undo (it did nothing), change_abandon (nobody knows)
 *
 * Everything with the session's lock held. Between admission and its end the mappings that come are INTENDED (or not in the
 * tree yet, where they take the place of one that goes), those that go are UNMAPPING, and the shared pages that are touched
 * belong to the change: nobody else is admitted to any of them.
 */
struct change_page {
        struct shared_page *page;
        int32_t readers, writers;       /* what this change counts on it, to be taken back */
};

struct op;

struct change {
        struct session *session;
        struct domain *domain;
        struct mapping **gone, **made;
        size_t n_gone, room_gone, n_made, room_made;
        size_t n_rests;                 /* the last ones of made: what stays of the gone; not in the tree */
        struct change_page *pages;
        size_t n_pages, room_pages;
        struct link_unmap_entry *old;   /* for the holder */
        size_t n_old, room_old;
        struct link_map_entry *new;
        size_t n_new, room_new;
        struct ledger_effect effect;    /* how recovery can tell whether it happened, where the rows do not say */
        bool uses_pages;                /* effect is needed */
        /* Where unmapping is only a part of what is to be done (core/window_op.c): makes the operation for the last LINK_BATCH_MAX
         * of the gone, with the rest of it (NULL: refused), and says that nothing more comes of it. */
        struct op *(*last)(struct change *c, struct refusal *r);
        void (*undone)(struct change *c);
        struct window *window;
        uint64_t new_pieces, old_pieces;/* mappings of the IOMMU that come and go */
        bool is_charged, tables_pending;
        uint64_t locked_bytes;          /* that were charged: for the answer */
        uint64_t table_bytes;           /* the same, in each container of the domain */
        uint64_t tables;                /* of table_bytes, what is for tables: stays charged with the domain */
};

struct change *change_new(struct session *s, struct domain *d);        /* NULL: out of memory */
void change_free(struct change *c);     /* the record alone; NULL is fine */

/* A mapping comes: its node is in the tree (or is a rest, and is not), INTENDED, its memory counted. Refused when a page that
 * it shares is in use by another operation (IN_PROGRESS) or when others see something else there (OVERLAP, with both
 * ranges named: I4). The node is the change's from then on, also when it is refused. */
int change_add(struct change *c, struct mapping *m, bool rest, struct refusal *r);

/* The holder refused an entry of the message for a map, of which the first n_old are unmaps: r->element becomes the element of the
 * request that the entry is for. */
void change_name_element(const struct change *c, size_t n_old, struct refusal *r);

/* A live mapping goes: becomes UNMAPPING. IN_PROGRESS as above. */
int change_remove(struct change *c, struct mapping *m, struct refusal *r);

/* All are there: what the pages that are shared mean for the holder. Then the budget of the IOMMU (LIMIT_EXCEEDED). */
int change_settle_pages(struct change *c, struct refusal *r);

/* Charges what comes: locked pages, mappings, tables, records. change_undo() gives all of it back until change_commit() has
 * said that the holder will hear of it; from then on the tables stay charged, as the kernel keeps them too. */
int change_charge(struct change *c, struct refusal *r);
void change_commit(struct change *c);

/* How it ended. apply: gone are gone and refunded, made are live. undo: as if it had never been asked for. abandon: all stays
 * as it is, and charged, until the revocation. */
void change_apply(struct change *c, uint64_t *ret_bytes, uint64_t *ret_mappings);
void change_undo(struct change *c);
void change_abandon(struct change *c);

/* The operation that unmaps what goes, or the first LINK_BATCH_MAX of it; the next follow it by themselves. It takes over the
 * change when it is submitted; the caller has set domain->busy. NULL: refused. (core/unmap_op.c) */
struct op *change_unmap_op(struct change *c, struct refusal *r);
/* A part failed after others were done. Those cannot be taken back, and all was asked for as one thing (I9): then only the end
 * of the domain or the session clears it. Fills the answer; the change stays as far as it came. */
void change_quarantine(struct op *op, struct change *c, struct link_result *result);

/* apply() for the first n of the gone alone, which share no pages and have no rests (a long unmap, batch by batch). */
void change_apply_gone(struct change *c, size_t n, uint64_t *ret_bytes, uint64_t *ret_mappings);

/* The pages that a mapping locks: whole IOMMU pages, and of huge pages all of it (locked_set rounds those). */
struct locked_run mapping_run(const struct mapping *m);

/* Of what is charged to the domain and is not of a change: windows. Never locked bytes. */
int domain_charge(struct domain *d, const struct quota_amounts *amounts, struct refusal *r);
void domain_uncharge(struct domain *d, const struct quota_amounts *amounts);

/* Gives back all that the domain was charged, with everything in it (its end). */
void domain_refund(struct domain *d);
