/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "auth/peer.h"
#include "backend/backend.h"
#include "core/requests.h"
#include "ledger.h"

/*
 * The root object. Lock order, outermost first; a lock further down may be taken while one above is held, never the
 * other way round:
 *
 *   broker->lock      registries: tenants, sessions, tokens
 *   session->lock     everything that a session owns (domains, mappings, memory, attachments, operations)
 *   broker->lease_lock  which device is lent to whom, keepers
 *   holder_link->lock   operations in flight on one link
 *   quota_account->lock of a tenant, then of the host; journal->lock    leaves
 *
 * No lock is held across I/O, an ioctl, or a reply. holder_link->read_lock (who reads a link) is taken with none of the
 * above held, and the others may be taken below it.
 */
#define BROKER_SOFT_DEVICES_MAX 64U
#define BROKER_SOFT_GROUP_BASE 0x80000000U      /* group numbers of soft devices: beyond the kernel's */

struct broker_options {
        enum backend_kind backend;
        const char *vfio_directory, *sysfs;
        const char *holder_program;     /* forked directly where holder_socket is NULL */
        const char *holder_socket;      /* the service manager's Accept=yes socket, NULL without one */
        const char *link_socket;        /* where holders come back to; created by the broker */
        const char *bind_socket;        /* of iommud-bind; NULL: no binding */
        const char *tenant_directory;   /* tenants' own sockets: DIRECTORY/NAME/ */
        const char *ledger_path;        /* for status */
        uint32_t holder_uid_first, holder_uid_last;     /* first > last: holders keep our uid */
        uint32_t holder_gid;            /* group of link_socket and of holders; UINT32_MAX: none */
        uint32_t max_sessions, starts_per_second;
        uint32_t register_deadline_ms, operation_deadline_ms, unclaimed_seconds, recover_seconds, orphan_seconds;
        uint64_t lazy_mappings, lazy_bytes, lazy_ms;    /* a lazy domain is flushed when so much waits, or so long */
        struct soft_personality soft;
        uint64_t default_quota[_RESOURCE_N];
        const uint64_t *host_limit;     /* _RESOURCE_N limits of all tenants together, copied; NULL: none */
        size_t n_soft_devices;
        char soft_devices[BROKER_SOFT_DEVICES_MAX][BACKEND_DEVICE_NAME_MAX];
        size_t n_file_tenants;
        const struct ledger_tenant *file_tenants;       /* copied */
        /* own sockets of a tenant come and go at run time: the transport makes and unmakes them. 0 or -errno. */
        int (*tenant_sockets)(void *arg, const char *tenant, bool present);
        void *tenant_sockets_arg;
};

/* options' strings must live as long as the broker. The ledger stays the caller's. */
int broker_new(struct ledger *ledger, const struct broker_options *options, struct broker **ret, struct refusal *r);

/* Loads the ledger, listens for holders that come back, starts the loop thread. */
int broker_start(struct broker *b, struct refusal *r);

/* SIGHUP: tenants of the configuration file may have changed. Tenants that are gone from it refuse new sessions. */
int broker_reload(struct broker *b, const struct ledger_tenant *file_tenants, size_t n, struct refusal *r);
void broker_set_host_limits(struct broker *b, const uint64_t limit[_RESOURCE_N]);

/* Stops the threads. Holders and their DMA go on: the next broker takes over. end_sessions: end them all first (the
 * embedded default, where nobody comes after us). */
void broker_stop(struct broker *b, bool end_sessions);
struct broker *broker_free(struct broker *b);

/* Before broker_start(): something that this kernel or this way of running cannot do; static text. Shown by status. */
void broker_note_degraded(struct broker *b, const char *sentence);

bool broker_is_recovering(struct broker *b);

/* One audit line about a peer (NULL: about nobody). */
void broker_audit(struct broker *b, const char *event, const struct peer *peer, const char *text);
