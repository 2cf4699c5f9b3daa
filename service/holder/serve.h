/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "holder/link.h"
#include "holder/protocol.h"

/*
 * Serving the broker: which thread does an operation, in what order, and what becomes of its result.
 *
 * Threads: the link's (receives; does small operations at once), one for each domain, one for memory, the client's two.
 * Lock order: serve->lock > worker->lock > the rest, of which no two are held together (results, objects, tickets,
 * link's send lock, client's send lock). Nothing is done to a domain outside its worker.
 */
struct serve;

/* Starts the memory worker. link and facts outlive it. 0 or -errno. */
int serve_new(struct link *link, const struct link_setup *setup, struct serve **ret);

/* Says hello and serves to the end: of the session, of the link before there was a client, or of patience without a
 * broker. Everything has been unmapped then. 0 or -errno (the hello could not be said). */
int serve_run(struct serve *s, const struct link_facts *facts);

struct serve *serve_free(struct serve *s);
