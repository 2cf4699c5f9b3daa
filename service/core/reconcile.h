/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

struct session;

/* The ledger is the authority on intent, the holder on what was applied (DESIGN, section 5): brings the session's objects to
 * what the holder has, settles every open operation accordingly, undoes what no row explains, and makes the session live.
 * -1: that was not possible, and the session is being revoked. */
int reconcile_session(struct session *s);
