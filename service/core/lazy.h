/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/*
 * Lazy unmapping (DESIGN, section 7; the non-strict mode of io-pgtable). In a lazy domain an Unmap of whole mappings is
 * answered when the ledger has it: the mappings are DEFERRED then, still translated, still charged, their range and their
 * memory not free. A flush tells the holder of all that wait, in one message where they fit: when there are many, when they
 * are much, when the oldest has waited long enough, and when a client asks for it (Sync). After a crash recovery flushes.
 *
 * What is cut, or shares pages, is unmapped strictly, in a lazy domain too.
 */
struct broker;
struct change;
struct domain;
struct noted_op;
struct op;
struct refusal;
struct session;

struct sync_waiter;

struct lazy {                           /* of one domain; session's lock */
        bool enabled;
        struct op *first, **end;        /* unmaps that were answered and wait, oldest first (op->waiting_next) */
        uint64_t mappings, bytes;       /* that wait, or are being flushed */
        uint64_t taken, flushed;        /* requests, ever */
        uint64_t oldest_ms;             /* since when the oldest waits, or was tried last */
        struct op *flush;               /* under way */
        struct sync_waiter *syncs;
};

void lazy_init(struct domain *d, bool enabled);

/* The op of such a change, which has been admitted, can wait for a flush; and is marked for it. Session's lock held. */
bool lazy_accepts(const struct domain *d, const struct change *c);
void lazy_prepare(struct op *op);
/* Its intent is in the ledger: it waits from now on. Session's lock held; the list has a reference on it. */
void lazy_take(struct op *op);

/* Recovery: an unmap that was answered in a former life, and that the holder has not heard of, waits again. False: no memory, or
 * its mappings are not there. Session's lock held. */
bool lazy_resume(struct domain *d, const struct noted_op *noted);

/* Now and then, no lock held: flushes what has waited long enough. */
void lazy_tick(struct session *s, uint64_t now_ms);

/* The domain is gone at the holder, and all that waited with it. Session's lock held. */
void lazy_settle(struct domain *d);
/* The session ends, or the service does: what waits is forgotten here, and explained by the ledger. */
void lazy_drop_session(struct session *s);
