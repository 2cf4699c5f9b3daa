/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Life of one call:
 *
 *   requested -> new (authorised by its path, before anything of it is read) -> its message -> dispatch, here or on the
 *   thread for slow calls -> the outcome, from any thread -> sent -> released into the pool
 *
 * A call that is refused on the way goes straight to its outcome. A client that cancels changes nothing: what was asked
 * of the core goes on, its outcome reaches nobody.
 */
struct connection;
struct call_pool;

/* Asks gRPC for one more call of the connection. Out of memory: the connection ends. */
void call_request(struct connection *c);

struct call_pool *call_pool_new(void);
struct call_pool *call_pool_free(struct call_pool *p);  /* no call is out; NULL is fine */
