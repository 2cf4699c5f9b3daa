/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>

/*
 * The seccomp filter of the holder: an allow-list; what is not in it kills the process, except what the C library tries
 * on its own and can do without (EPERM).
 */

/* False in builds whose instrumentation makes calls of its own: sanitizers, coverage (-DIOMMUD_NO_SANDBOX). */
bool sandbox_is_possible(void);

/* Closes the sandbox for this thread and all that it starts. Call while there is one thread and no privilege left
 * (PR_SET_NO_NEW_PRIVS). 0 or -errno; -EOPNOTSUPP when this build cannot. */
int sandbox_enter(void);

/* The same, and says whether the process that revokes on sPAPR can be started (backend/spapr_revoker.h). sandbox_enter()
 * allows that on POWER alone: elsewhere a holder has threads and no processes. */
int sandbox_enter_with(bool revoker);
