/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "core/session.h"

/*
 * What recovery does with mappings, outside of any request: they exist, so that nobody asks the limits. Locked pages are
 * charged and given back at once; the rest is noted in domain->charged, and the caller settles the difference with the
 * account (session_charges). Session's lock held.
 */

/* A mapping that is in the tree, with its pages and tables. False: no memory, or what it is charged passes 2^64. */
bool mapping_adopt(struct domain *d, struct mapping *m);
/* The opposite; it is out of the tree and gone. */
void mapping_release(struct domain *d, struct mapping *m);

/* Everything of the session back to its tenant: it ends here, or the next service charges it again. */
void session_refund(struct session *s);
