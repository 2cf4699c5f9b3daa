/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

#include "holder/protocol.h"

struct broker;
struct session;
struct recovery;        /* what one holder has told so far */

/* Start: everything from the ledger, sessions DETACHED. */
int recover_load(struct broker *b, struct refusal *r);

/* The loop: somebody has connected to the link socket and said something. Takes the fd, which does not block. */
void recover_greet(void *broker, int connection);

/* What was reconciled goes to the ledger, now or at a later tick. */
void recover_record(struct session *s);

/* Messages of a dump. */
void recovery_message(struct session *s, const struct link_header *h, size_t size, int *fds);
struct recovery *recovery_free(struct recovery *r);

/* The loop's tick: has everybody come back, or has the time passed. */
void recover_tick(struct broker *b);
