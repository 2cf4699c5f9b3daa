/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "holder/protocol.h"

/*
 * The broker's end of a holder's link: sends operations, matches results, notices loss.
 *
 * Who reads: a thread that waits for its own operation reads the link itself for a moment (holder_link_exchange),
 * which saves a hand-over between threads; otherwise the loop thread does (core/loop.h). Only one at a time:
 * link->read_lock. Results are completed by whoever reads.
 */
struct holder_link;
struct loop;
struct op;
struct session;

/* Takes the fd and a reference on the session; ends with holder_link_close(). *ret is one reference. */
int holder_link_new(struct loop *loop, struct session *s, int fd, struct holder_link **ret);
struct holder_link *holder_link_ref(struct holder_link *l);
struct holder_link *holder_link_unref(struct holder_link *l);

/* From now on nothing is sent or received; operations in flight are completed with reason (HOLDER_LOST, MEMORY_STALLED).
 * Idempotent. Never frees under the feet of a reader. */
void holder_link_close(struct holder_link *l, enum refusal_reason reason, const char *why);

/* Sends an operation and remembers it until its result; then reads results for a moment, until none are in flight or they
 * take their time. Closes the op's fds. If the link is closed or full the op is completed with HOLDER_LOST. */
void holder_link_exchange(struct holder_link *l, struct op *op);

/* A message without result. fds stay the caller's. 0 or -errno. */
int holder_link_post(struct holder_link *l, enum link_type type, uint64_t seq, uint64_t domain, const void *payload,
                     size_t size, const int *fds, size_t n_fds);

/* Called by the loop: readable or hung up. */
void holder_link_readable(struct holder_link *l);

/* Watched by housekeeping: what an operation that passed its deadline is to answer (REFUSAL_NONE: none did), and the smallest
 * seq still in flight (UINT64_MAX: none). */
enum refusal_reason holder_link_overdue(struct holder_link *l, uint64_t now_ms);
uint64_t holder_link_oldest(struct holder_link *l);

int holder_link_fd(const struct holder_link *l);
