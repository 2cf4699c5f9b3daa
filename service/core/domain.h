/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/session.h"

/* Session's lock held throughout. */

struct domain *domain_add(struct session *s, uint64_t id, const char *label, bool lazy, enum ledger_object_state state);

/* Takes it out of the session: mappings give back their references on memory; nothing is refunded. */
void domain_remove(struct domain *d);

/* Frees what is in it; nothing is counted or refunded. */
void domain_clear(struct domain *d);

/* What is true for mappings in it now: the containers' common constraints, or the backend's without a device. */
const struct container_info *domain_constraints(const struct domain *d);

/* May it take new work: DOMAIN_QUARANTINED otherwise. */
int domain_is_usable(const struct domain *d, struct refusal *r);

/* What a domain without a device is like on this backend. */
void constraints_default(struct broker *b, struct container_info *ret);

/* The session that owns a domain: s, or an operator asks without one. A reference; NULL: there is no such domain. Takes locks. */
struct session *domain_owner(struct broker *b, struct session *s, uint64_t domain);

const char *object_state_name(enum ledger_object_state state);
