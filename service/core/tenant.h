/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include "core/quota.h"
#include "core/requests.h"
#include "ledger.h"

/*
 * A tenant: who is charged. Lives until it was deleted and its last session is gone.
 */
struct tenant {
        UT_hash_handle hh;              /* broker->lock, as everything here but name, account and the atomics */
        char name[LEDGER_NAME_MAX];     /* never changes */
        struct quota_account account;
        atomic_bool allow_unsealed;     /* config's, for those who hold a lock further down */
        _Atomic uint64_t explained;     /* refusals, this second (core/quota_explain.c) */
        struct ledger_tenant config;
        bool from_file;
        bool retired;                   /* deleted, or gone from the file: no new sessions */
        bool had_sockets;               /* scratch of tenant_reload() */
        unsigned sessions;              /* open ones */
        double start_tokens;            /* token bucket: starts of holders per second */
        uint64_t start_refilled_ms;
};

/* With broker->lock held. */
struct tenant *tenant_find(struct broker *b, const char *name);

/* File and ledger -> registry. Called at start, and by the other one. */
int tenant_load_all(struct broker *b, const struct ledger_tenant *file, size_t n, struct refusal *r);
/* The same while serving: own sockets are made and removed as well. */
int tenant_reload(struct broker *b, const struct ledger_tenant *file, size_t n, struct refusal *r);
void tenant_free_all(struct broker *b);

/* Takes one start from the bucket (broker->lock held). False: too many in this second. */
bool tenant_may_start(struct broker *b, struct tenant *t);

bool tenant_name_is_valid(const char *name);

/* Quotas that are TENANT_QUOTA_KEEP become the defaults. A default of table bytes that is TENANT_QUOTA_KEEP itself goes by the
 * tenant's locked bytes: TENANT_TABLE_BYTES, or 1/128 of them (four times what mapping them densely needs) if that is more. */
#define TENANT_TABLE_BYTES (64ULL << 20)
#define TENANT_TABLE_SHARE 128U
void tenant_fill_quotas(uint64_t quota[_RESOURCE_N], const uint64_t defaults[_RESOURCE_N]);
/* May it lease that device: by its name or vendor:device. Takes broker->lock. */
bool tenant_may_lease(struct broker *b, struct tenant *t, const char *device, const char *vendor_device);
