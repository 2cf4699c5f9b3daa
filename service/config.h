/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/un.h>

#include "backend/backend.h"
#include "core/broker.h"
#include "ledger.h"
#include "util/refusal.h"

/*
 * The configuration: iommud.conf(5) as a struct, parsed and range-checked. Every value has a default; what a file says is
 * checked when it is read, so that nothing after this has to doubt a value.
 *
 * Not thread-safe while loading (the INI library has global settings): the service loads at start and on SIGHUP, from one
 * thread.
 */
#define CONFIG_FILE "/etc/iommud/iommud.conf"
#define CONFIG_PATH_MAX 256U
#define CONFIG_SOCKET_MAX sizeof(((struct sockaddr_un *)NULL)->sun_path)
/* so that the longest path of a socket below it fits */
#define CONFIG_RUNTIME_MAX (CONFIG_SOCKET_MAX - (sizeof "/operator/operator.sock" - 1))
#define CONFIG_GID_NONE ((gid_t)-1)

enum config_backend {
        CONFIG_BACKEND_AUTO,            /* the kernel's VFIO where the machine has IOMMU groups, else soft */
        CONFIG_BACKEND_SOFT,
        CONFIG_BACKEND_VFIO_TYPE1,
        CONFIG_BACKEND_VFIO_SPAPR,
};

struct config {
        char path[CONFIG_PATH_MAX];     /* the file, for a reload; "" of the embedded default */

        /* [service] */
        char state_directory[CONFIG_PATH_MAX];
        char runtime_directory[CONFIG_RUNTIME_MAX];
        char vfio_directory[CONFIG_PATH_MAX];
        char sysfs[CONFIG_PATH_MAX];
        char holder[CONFIG_PATH_MAX];
        enum config_backend backend;
        uint32_t threads;
        uint32_t holder_uid_first, holder_uid_last;     /* first > last: holders keep our uid */
        gid_t holder_gid;               /* group of holders and of the socket they come back to, or CONFIG_GID_NONE */
        gid_t client_gid, operator_gid; /* group of the sockets that we make, or CONFIG_GID_NONE: leave */
        uint32_t log_level;             /* syslog priority: LOG_ERR .. LOG_DEBUG */

        /* below runtime_directory */
        char client_grpc_socket[CONFIG_SOCKET_MAX], client_session_socket[CONFIG_SOCKET_MAX];
        char operator_socket[CONFIG_SOCKET_MAX];
        char holder_socket[CONFIG_SOCKET_MAX], link_socket[CONFIG_SOCKET_MAX], bind_socket[CONFIG_SOCKET_MAX];
        char tenant_directory[CONFIG_SOCKET_MAX];       /* TENANT/NAME/{grpc,session}.sock */

        /* [limits] */
        uint32_t sessions;              /* of all tenants */
        uint32_t starts_per_second;     /* new sessions, per tenant */
        uint32_t connections_per_uid;
        uint32_t message_bytes;         /* largest gRPC message */
        uint32_t register_deadline_ms, operation_deadline_ms;
        uint32_t unclaimed_token_seconds, recover_seconds, orphan_seconds;
        uint32_t lazy_mappings, lazy_bytes, lazy_ms;    /* a lazy domain is flushed when so much waits, or so long */

        /* [soft] */
        struct soft_personality soft;
        size_t n_soft_devices;
        char soft_devices[BROKER_SOFT_DEVICES_MAX][BACKEND_DEVICE_NAME_MAX];

        /* [host]: of all tenants together; UINT64_MAX: unlimited. Of the rest of them nothing has a limit. */
        uint64_t host_limit[_RESOURCE_N];

        /* [defaults], [tenant NAME] */
        uint64_t default_quota[_RESOURCE_N];    /* UINT64_MAX: unlimited; TENANT_QUOTA_KEEP: by locked bytes */
        size_t n_tenants;
        struct ledger_tenant *tenants;          /* owned; complete, defaults filled in */
};

/* Reads the file. The refusal's text is "FILE:LINE: what is wrong" (FILE alone when it cannot be read; errnum has the
 * reason then). *ret is untouched on failure, the caller's on success: config_clear(). */
int config_load(const char *path, struct config *ret, struct refusal *r);

/* What `iommud` without a configuration is for one person: everything below directory, which must exist, the software
 * IOMMU, the tenant "me" for our own uid, no change of uid. *ret is the caller's: config_clear(). */
int config_embedded(const char *directory, struct config *ret, struct refusal *r);

void config_clear(struct config *c);    /* NULL and a zeroed struct are fine */
