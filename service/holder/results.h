/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "holder/protocol.h"

/*
 * What became of each operation, by seq, until the broker has settled it: the memory that makes a repeated operation
 * harmless (I6). Thread-safe. Bounded: of LINK_RESULTS_MAX operations it is known that they were done, settled or not,
 * and what is older than those counts as done. A seq whose answer was forgotten is never executed again: it is refused.
 */
struct results;

enum results_state {
        RESULTS_NEW,            /* never seen: now running, finish it with results_finish() */
        RESULTS_RUNNING,        /* seen and not finished: its answer is on the way */
        RESULTS_FINISHED,       /* seen: the first answer is the answer */
        RESULTS_FORGOTTEN,      /* seen, or older than what is known; do nothing */
};

struct results *results_new(void);      /* NULL when memory is out */
struct results *results_free(struct results *r);

/* Looks a seq up and, if it is new, notes that it runs. -1: no memory to note it, nothing was noted. On FINISHED *ret
 * is the answer, and *ret_fd a copy of the fd that went with it (-1: none), the caller's. */
int results_begin(struct results *r, uint64_t seq, enum results_state *ret_state, struct link_result *ret, int *ret_fd);

/* Remembers the answer of a running seq. fd: goes with it, stays the caller's; -1: none. */
void results_finish(struct results *r, uint64_t seq, const struct link_result *result, int fd);

/* Forgets the fd of an answer: a device that is detached must not be kept busy by what is remembered of it. */
void results_drop_fd(struct results *r, uint64_t seq);

void results_settle(struct results *r, uint64_t seq);           /* forgets the answers up to seq */
uint64_t results_last_seq(struct results *r);
