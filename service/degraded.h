/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "config.h"

struct broker;

/* Finds out what this kernel, and this way of running, cannot do, and notes it with the broker: one sentence each, shown by
 * `iommuctl status` and written to the log at start. README.md ("What degrades on Debian 12's own kernel") lists them. */
void degraded_note(struct broker *b, const struct config *config);
