/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "util/refusal.h"

/*
 * Is all that was committed still in the WAL? sqlite takes a WAL up to the first frame that does not fit and forgets the rest
 * without a word, which is right after a power loss and wrong after a mere kill: then the index beside it (-shm), which no crash
 * of a process can harm, says how far it went. To be asked before sqlite opens the file, and only when the machine has not been
 * rebooted since the index was written. -1: frames are missing or changed; errnum is EUCLEAN, nothing was touched.
 */
int wal_check(const char *directory, const char *file, struct refusal *r);
