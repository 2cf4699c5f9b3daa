/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <sys/types.h>

#include "model.h"

/*
 * The service under test and who runs it: one of the test's own (soft, spapr), or the installed one under systemd. Ends
 * the process with a message when what it needs cannot be had.
 */
struct host;

struct host *host_begin(const struct world *w);
/* Nothing is owned any more, and the ledger agrees; a service of our own ends. */
void host_end(struct host *h);

/* Where a client of that tenant finds the sockets, and which user it must be (0: as we are). */
const char *host_directory(const struct host *h, uint32_t tenant);
uid_t host_uid(const struct host *h, uint32_t tenant);

void host_set_limits(struct host *h, uint32_t tenant, const uint64_t limit[RESOURCES], bool allow_unsealed);
/* What the operator is told of a tenant. */
void host_balance(struct host *h, uint32_t tenant, uint64_t ret_limit[RESOURCES], uint64_t ret_used[RESOURCES]);

void host_kill_holder(struct host *h, pid_t client);
void host_kill_broker(struct host *h);
/* And wait until it serves; sessions may still be coming back. */
void host_start_broker(struct host *h);
/* Until there are that many sessions, and none of them is half way. */
void host_settle(struct host *h, unsigned sessions);
/* The service compares its ledger with itself and with the holders. */
void host_check(struct host *h);
