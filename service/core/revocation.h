/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "util/refusal.h"

struct broker;
struct session;

/* Ends a session, whatever its state: the holder is killed, everything is unmapped through the keepers, leases are given up,
 * the charge is refunded and the rows go, in that order (DESIGN, section 4, Revocation). Begins a thread of its own and
 * returns; a session is revoked once, further calls do nothing. No lock of the core may be held. */
void revocation_begin(struct session *s, enum refusal_reason reason, const char *why);

/* Waits until no revocation is under way, at most so long. */
void revocation_wait_all(struct broker *b, unsigned timeout_ms);
