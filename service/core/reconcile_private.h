/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

#include "core/recovery.h"
#include "core/session.h"

/* Session's lock held, recovery sorted. `differs` counts what no open operation explains. */

/* Open maps and unmaps first: which of them happened, by the one range that tells; what an unmap that did has left. */
void reconcile_open_changes(struct session *s, struct recovery *rec);

/* Then each mapping of a domain against what the holder has: what it has not is gone. */
void reconcile_mappings(struct domain *d, struct recovery *rec, unsigned *differs);

/* Windows: whether an open operation on them happened, when nothing of the domain has been changed yet; what there is then, when
 * mappings have been reconciled; and what of the holder nothing explains. */
bool window_op_happened(struct domain *d, const struct recovery *rec, const struct noted_op *op);
void reconcile_windows(struct session *s, struct domain *d, struct recovery *rec, unsigned *differs);
void remove_unknown_windows(struct session *s, struct recovery *rec);

/* A mapping of the holder that a large unmap, begun and not finished, was to take away. */
bool was_to_go(const struct recovery *rec, const struct dumped_mapping *m);
