/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "clock.h"
#include "iommud/iommud.h"

struct sdk_channel;
struct sdk_session;

/*
 * A client, and what all handles have in common: each knows its client and is in its list, so that iommud_close() frees
 * what the program forgot, and so that handles of two clients cannot be mixed.
 */
struct sdk_object {
        struct iommud_client *client;
        uint64_t id;                    /* the service's, constant once the handle is out */
        void (*free)(struct sdk_object *o);     /* frees the handle and what is local of it; not in the list any more */
        struct sdk_object *previous, *next;     /* under the client's lock */
};

struct iommud_client {
        struct sdk_session *session;
        struct sdk_channel *channel;
        uint32_t timeout_ms;
        uint64_t capabilities;          /* of the service, Capability bits; constant once the client is out */

        pthread_mutex_t lock;           /* what follows; nothing waits while it is held */
        struct sdk_object *objects;
};

static inline int64_t client_deadline(const struct iommud_client *client) {
        return clock_now() + client->timeout_ms;
}

/* Has the service a capability (a bit of proto's enum). */
static inline bool client_has(const struct iommud_client *client, uint64_t capability) {
        return (client->capabilities & capability) == capability;
}

/* 0 if the service has it, else -ENOTSUP with the error recorded. For whatever an older
 * service would ignore, and so do more, or something else, than it was asked for. what: "windows". */
int client_needs(const struct iommud_client *client, uint64_t capability, const char *what);

/* Puts a finished handle into its client's list, or takes it out and frees it. */
void client_add(struct iommud_client *client, struct sdk_object *o);
void client_remove(struct sdk_object *o);

/* Calls visit for every handle in the list, under the client's lock. */
void client_visit(struct iommud_client *client, void (*visit)(struct sdk_object *o, void *arg), void *arg);
