/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/op.h"

/* What core/window_op.c and core/window_remove.c share. Session's lock held. */

/* UNSUPPORTED: windows live in a container of which there is none yet. */
int window_check_container(const struct domain *d, struct refusal *r);
/* IN_PROGRESS while all windows of the domain are being reset. */
int window_check_resetting(const struct domain *d, struct refusal *r);

/* The operation is about a window of the domain (NULL: about all), as recovery will read it. */
void window_op_about(struct op *op, struct domain *d, const struct window *w);
