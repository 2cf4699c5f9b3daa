/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The process that keeps others from writing to the database at that path; 0: nobody, or it cannot be told. Opens neither the
 * database nor its companions: closing one would drop this process's own locks on it. */
long lock_owner_of(const char *path);
