/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/change.h"
#include "core/op.h"

/*
 * An unmap of more mappings than a message to the holder names goes in parts, each an operation of its own. One more row
 * holds them together (LEDGER_OP_UNMAP_MANY): written with the first part's intent, it has the request's key, its ranges and its
 * answer, and is settled with the last part. While it is open, all mappings in its ranges that operations before it have made
 * are on their way out: recovery unmaps what is left of them (core/reconcile_mappings.c). So it happens wholly, or, when not
 * even that row was written, not at all; and the parts after the first need no intents of their own.
 *
 * Session's lock held, except where the journal calls.
 */

/* Ties the first part to such a row if the change needs one. -1: no memory. */
int many_begin(struct op *first, const struct unmap_request *req, struct refusal *r);
/* The next part takes over from the one that is done. */
void many_hand_on(struct op *done, struct op *next);
/* This part was the last, or nothing was done: the key and its answer are the op's again, and its settle is that of all. */
void many_end(struct op *part);
/* [journal] With the first part's intent. */
int many_write_intent(struct op *part, struct ledger *ledger, struct refusal *r);
