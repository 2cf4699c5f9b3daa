/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

struct session;

/* The ledger is the authority on intent, the holder on what was applied (DESIGN, section 5): brings the session's objects to
 * what the holder has, and undoes what no row explains. */
void reconcile_session(struct session *s);

/* Then the ledger follows: every open operation is settled accordingly, and the session is live. -1: the ledger cannot be
 * written now; to be tried again. */
int reconcile_record(struct session *s);
