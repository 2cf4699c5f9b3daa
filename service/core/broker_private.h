/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <uthash.h>

#include "core/broker.h"
#include "core/journal.h"
#include "core/lease.h"
#include "core/loop.h"
#include "core/session.h"
#include "core/tenant.h"

/* The inside of the root object, for the files of core/ alone. Locks: core/broker.h. */
struct broker {
        struct broker_options options;
        struct ledger *ledger;
        struct journal *journal;
        struct loop *loop;
        int link_listener;              /* where holders come back */
        uint64_t started_ms;
        _Atomic uint64_t recover_until_ms;
        atomic_bool recovering;         /* sessions of a former life are still out: no new lease */
        atomic_bool stopping;
        atomic_uint revocations;        /* threads under way (core/revocation.c) */
        atomic_uint lingering;          /* those of them that wait for nobody of ours: orphans to be let go */
        struct discarder *discarder;    /* refused connections (core/discarder.c) */
        const char *degraded[8];
        struct quota_account host;      /* of all tenants together: their accounts' host */

        pthread_mutex_t lock;           /* protects what follows */
        struct tenant *tenants;         /* uthash by name */
        struct session *sessions_by_id, *sessions_by_token;
        unsigned n_sessions;

        pthread_mutex_t lease_lock;     /* protects what follows */
        struct lease *leases;           /* uthash by group */

        pthread_t housekeeping;
        bool housekeeping_started;
        atomic_bool housekeeping_stop;
};

/* op.c */
void op_keys_clear(struct session *s);

/* A snapshot of all sessions, each a reference; the caller frees the array. */
struct session **broker_sessions(struct broker *b, size_t *ret_n);
