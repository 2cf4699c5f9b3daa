/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "util/failpoint.h"

/*
 * What a test says to the programs in $BUILD/failpoints/, and hears of them: one shared file, named by the environment
 * variable below, which a broker hands on to the holders that it forks. It outlives them all.
 */
#define FAILPOINTS_VARIABLE "IOMMUD_FAILPOINTS_FILE"
#define FAILPOINTS_MAGIC 0x6c696166U

enum failpoint_victims {
        KILL_SELF = 0,
        KILL_ALL = 1,           /* whoever passes any failpoint after the first has died there dies as well */
};

/* What happens to the ledger's files (fault_vfs.c). The file name decides: config.db, state.db, or both. */
enum ledger_fault {
        FAULT_NONE = 0,
        FAULT_FULL,             /* writes answer ENOSPC */
        FAULT_WRITE,            /* writes and syncs answer EIO */
        FAULT_READ,             /* reads answer EIO */
        FAULT_SYNC,             /* syncs answer EIO, writes work */
        FAULT_READ_ONLY,        /* writes answer EROFS, as after a remount */
        FAULT_SHORT,            /* a write ends in its middle, then EIO */
        FAULT_LOCKED,           /* nobody gets a lock that writes */
};

#define FAULT_CONFIG 1U
#define FAULT_STATE 2U
#define FAULT_BOTH 3U

struct failpoints {
        uint32_t magic;
        atomic_uint kill_at[_FAILPOINT_N];      /* at the hit of this number or the next; 0: never */
        atomic_uint hits[_FAILPOINT_N];
        atomic_uint victims;                    /* enum failpoint_victims */
        atomic_uint fired;                      /* number of the failpoint + 1 where somebody died; 0: nobody */
        atomic_int victim;                      /* his pid */

        atomic_uint fault, fault_files;         /* enum ledger_fault, FAULT_CONFIG | FAULT_STATE */
        atomic_uint fault_after;                /* so many calls of the kind still work */
        atomic_uint faults;                     /* how many calls were refused */
        atomic_ullong bytes_written;            /* of the ledger's files: to prove that nothing is */
};
