/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "auth/peer.h"
#include "backend/backend.h"
#include "ledger.h"
#include "util/iova.h"
#include "util/refusal.h"

/*
 * What dispatch may ask of the core: one function per RPC, in domain words, without protobuf or gRPC.
 *
 * Mutations are asynchronous: they answer through struct reply, exactly once, possibly before the function returns,
 * possibly on another thread, never with a lock of the core held. Nothing of the request is used after the function has
 * returned, except the struct reply.
 * Queries answer at once and never wait for a holder.
 * A refusal fills struct refusal (reason, numbers, text); functions return 0 or -1 then.
 */
struct broker;
struct session;

struct window_view {
        uint64_t id, start, size;       /* size 0: 2^64 */
        uint64_t mappings, mapped_bytes, quota, table_bytes;
        uint32_t page_shift, levels;
        uint32_t is_default;
        uint32_t state;                 /* enum ledger_object_state */
};

struct answer {
        uint64_t id;                    /* domain, attachment or memory */
        uint64_t size, page_size;       /* RegisterMemory */
        bool sealed;
        uint64_t unmapped_bytes, unmapped_mappings;     /* Unmap, Sync, RemoveWindow, ResetWindows */
        uint64_t iova, mappings;        /* Map: where the first is; how many, after merging */
        uint64_t locked_bytes, table_bytes;     /* Map: what it was charged, or would be */
        struct window_view window;      /* CreateWindow */
        struct container_info info;     /* AttachDevice */
};

struct reply {
        /* refusal is NULL when the request was done; both pointers live only during the call */
        void (*done)(struct reply *reply, const struct refusal *refusal, const struct answer *answer);
};

struct request_key {
        bool present;
        uint8_t bytes[LEDGER_KEY_BYTES];
};

/* ---- sessions ---- */

/* The session of a call: by its token (lower-case hex) and only for the process that opened it. *ret is a reference:
 * session_unref(). UNKNOWN_SESSION otherwise, the same for a foreign token as for none. RECOVERING while the holder of a
 * session from before a restart has not come back. Marks an unclaimed session as claimed. */
int session_authenticate(struct broker *b, const char *token, const struct peer *peer, struct session **ret,
                         struct refusal *r);
struct session *session_unref(struct session *s);       /* NULL is fine; returns NULL */

uint64_t session_id(const struct session *s);
const char *session_tenant_name(const struct session *s);
void session_set_client_name(struct session *s, const char *name);

/* A new session connection (accepted, peer identified and mapped to a tenant): starts a holder and hands it over. Takes
 * the fd in every case, without ever being the last to close it (DESIGN, section 4); the client hears of a refusal on
 * the connection. */
void session_start(struct broker *b, int connection, const struct peer *peer);

/* The connection of a peer that is nobody: told why and closed by a disposable process. Takes the fd. */
void session_refuse_connection(struct broker *b, int connection, const struct refusal *r);

void session_close_request(struct session *s, struct reply *reply);

/* ---- client requests ---- */

struct create_domain_request {
        struct request_key key;
        const char *label;
        bool lazy;                      /* unmapped ranges are flushed later (core/lazy.h) */
};
void domain_create_request(struct session *s, const struct create_domain_request *req, struct reply *reply);

struct destroy_domain_request {
        struct request_key key;
        uint64_t domain;
        bool force;
};
void domain_destroy_request(struct session *s, const struct destroy_domain_request *req, struct reply *reply);

struct attach_request {
        struct request_key key;
        uint64_t domain;
        const char *device;
};
void device_attach_request(struct session *s, const struct attach_request *req, struct reply *reply);

struct detach_request {
        struct request_key key;
        uint64_t attachment;
};
void device_detach_request(struct session *s, const struct detach_request *req, struct reply *reply);

struct register_request {
        struct request_key key;
        uint64_t ticket, size;
        bool unsealed;                  /* do not seal; MEMORY_UNSEALED where the tenant's policy forbids that */
        bool read_only, populate;
};
void memory_register_request(struct session *s, const struct register_request *req, struct reply *reply);

struct unregister_request {
        struct request_key key;
        uint64_t memory;
};
void memory_unregister_request(struct session *s, const struct unregister_request *req, struct reply *reply);

#define REQUEST_BATCH_MAX 1024U

struct map_request {
        struct request_key key;
        uint64_t domain;
        size_t n;                       /* 1..REQUEST_BATCH_MAX; dispatch has checked that the arrays fit together */
        const uint64_t *iova, *length, *offset;
        const uint64_t *memory;         /* n_memory is 1 (stands for all) or n */
        size_t n_memory;
        const uint32_t *access;         /* likewise */
        size_t n_access;
        const uint64_t *chunk;          /* likewise; n_chunk 0: none */
        size_t n_chunk;
        bool expose_pages, merge, dry_run;
        bool anywhere;                  /* iova is NULL; the entries are laid out one after another */
        uint64_t window;                /* with anywhere; 0: the best one */
};
void map_request_start(struct session *s, const struct map_request *req, struct reply *reply);

enum split_policy {                     /* numbers of proto SplitPolicy */
        SPLIT_AT_CHUNKS = 0,
        SPLIT_REMAP = 1,
        SPLIT_HITLESS = 2,
};

struct unmap_request {
        struct request_key key;
        uint64_t domain;
        size_t n;                       /* 1..REQUEST_BATCH_MAX; 0: everything in the domain */
        const uint64_t *iova, *length;
        enum split_policy split;
};
void unmap_request_start(struct session *s, const struct unmap_request *req, struct reply *reply);

struct sync_request {
        struct request_key key;
        uint64_t domain;
};
void sync_request_start(struct session *s, const struct sync_request *req, struct reply *reply);

struct create_window_request {
        struct request_key key;
        uint64_t domain, min_page_size, size, quota;
        uint32_t page_shift, levels;
        bool dry_run;
};
void window_create_request(struct session *s, const struct create_window_request *req, struct reply *reply);

struct remove_window_request {
        struct request_key key;
        uint64_t domain, window;
        bool force;
};
void window_remove_request(struct session *s, const struct remove_window_request *req, struct reply *reply);

struct reset_windows_request {
        struct request_key key;
        uint64_t domain;
};
void windows_reset_request(struct session *s, const struct reset_windows_request *req, struct reply *reply);

/* ---- queries; NULL session: an operator asks, everything is visible ---- */

struct mapping_view {
        uint64_t domain, iova, length, memory, offset;
        uint32_t access;
        const char *state;              /* "intended", "live", "unmapping", "deferred"; static */
        uint64_t chunk;                 /* 0: whole only */
        struct iova_range exposed;      /* what the device sees because of it; first > last: the range itself */
        uint32_t exposed_access;
};

#define VIEW_ATTACHMENTS_MAX 64U

struct attachment_view {
        uint64_t id;
        char device[LEDGER_NAME_MAX];
        const char *state;
};

struct domain_view {
        uint64_t id, session, mappings, mapped_bytes;
        char label[LEDGER_NAME_MAX], tenant[LEDGER_NAME_MAX];
        const char *state;
        uint32_t client_pid;
        struct container_info info;     /* what would be true without a device, until one is attached */
        bool lazy;
        uint64_t deferred_mappings, deferred_bytes, kernel_mappings, table_bytes, shared_pages;
        size_t n_attachments;
        struct attachment_view attachments[VIEW_ATTACHMENTS_MAX];
};

int domain_describe(struct broker *b, struct session *s, uint64_t domain, struct domain_view *ret, struct refusal *r);

/* Calls each() for up to max domains with id > after, ascending; tenant "" or NULL: of every tenant. Returns how many. */
size_t domain_list(struct broker *b, const char *tenant, uint64_t after, size_t max,
                   void (*each)(const struct domain_view *v, void *arg), void *arg);

/* Up to max mappings that overlap range, ascending IOVA, into ret. *ret_n: how many; *ret_more: there are more, beyond the
 * last one. domain 0 with a NULL session is refused (UNKNOWN_DOMAIN): list per domain. */
int mapping_list(struct broker *b, struct session *s, uint64_t domain, struct iova_range range, size_t max,
                 struct mapping_view *ret, size_t *ret_n, bool *ret_more, struct refusal *r);

#define VIEW_WINDOWS_MAX 64U

struct windows_view {
        size_t n;                       /* ascending start */
        struct window_view windows[VIEW_WINDOWS_MAX];
        uint32_t can_create, levels_max;
        uint64_t page_sizes, largest;
        size_t n_free;                  /* where a created window can lie; 0: the platform chooses */
        struct iova_range free[IOVA_RANGES_MAX];
};
int window_query(struct broker *b, struct session *s, uint64_t domain, struct windows_view *ret, struct refusal *r);

struct quota_view {
        enum resource resource;
        uint64_t limit, used;           /* limit UINT64_MAX: unlimited */
};
/* ret has room for _RESOURCE_N; returns how many. */
size_t quota_list(struct session *s, struct quota_view *ret);

/* What a domain with that device will be like; device "" or NULL: without one. */
int constraints_query(struct broker *b, struct session *s, const char *device, struct container_info *ret,
                      struct refusal *r);

struct device_view {
        char name[LEDGER_NAME_MAX], driver[LEDGER_NAME_MAX], vendor_device[16], tenant[LEDGER_NAME_MAX];
        char original_driver[LEDGER_NAME_MAX];
        char why_not[256];
        char members[512];              /* names in the same group, separated by one space */
        uint32_t group;
        uint64_t session;
        bool usable;
        const char *state;              /* "free", "leased", "orphaned", "unbound", "busy"; static */
};
/* s NULL: operator. A client sees the devices that its tenant may lease; tenant and session only of its own. */
int device_list(struct broker *b, struct session *s, int (*each)(const struct device_view *v, void *arg), void *arg,
                struct refusal *r);

/* ---- operator requests; may block on disk or on the bind helper: not for the hot path ---- */

struct status_view {
        const char *version, *backend, *state, *ledger_path;
        uint64_t uptime_seconds, tenants, sessions, domains, mappings, mapped_bytes, devices, orphaned_devices;
};
void broker_status(struct broker *b, struct status_view *ret);

#define HOST_USE_MAX 2U
struct host_use_view {
        enum resource resource;
        uint64_t limit, used;           /* of all tenants together; limit UINT64_MAX: none */
        uint64_t promised;              /* the sum of their quotas; UINT64_MAX: one of them has no limit */
};
size_t host_use_list(struct broker *b, struct host_use_view *ret);      /* room for HOST_USE_MAX; returns how many */
const char *broker_backend_name(struct broker *b);      /* "soft", "vfio-type1" */
/* What this kernel cannot do, one sentence each, NULL-terminated, static for the broker's life. */
const char *const *broker_degraded(struct broker *b);

struct session_view {
        uint64_t id;
        char tenant[LEDGER_NAME_MAX], client_name[LEDGER_NAME_MAX];
        uint32_t uid, pid, holder_pid;
        const char *state;
};
void session_list(struct broker *b, void (*each)(const struct session_view *v, void *arg), void *arg);

/* Tenants: from the configuration file (origin "file", cannot be changed at run time: NOT_PERMITTED) or the ledger. */
#define TENANT_FIELD_QUOTAS 1U
#define TENANT_FIELD_RULES 2U
#define TENANT_FIELD_OWN_SOCKET 4U
#define TENANT_FIELD_ALLOW_UNSEALED 8U
#define TENANT_FIELD_DEVICES 16U

struct tenant_view {
        struct ledger_tenant config;
        uint64_t used[_RESOURCE_N];
        char socket_directory[256];     /* "" without own sockets */
        const char *origin;             /* "file" or "ledger" */
};
struct tenant_upsert {
        struct ledger_tenant config;    /* quota UINT64_MAX - 1: keep (or the default for a new tenant) */
        bool create_only, must_exist;
        uint32_t fields;                /* TENANT_FIELD_*, 0: all */
};
#define TENANT_QUOTA_KEEP (UINT64_MAX - 1)
int tenant_upsert(struct broker *b, const struct tenant_upsert *t, struct tenant_view *ret, struct refusal *r);
/* IN_USE while sessions are open. */
int tenant_delete(struct broker *b, const char *name, struct refusal *r);
void tenant_list(struct broker *b, void (*each)(const struct tenant_view *v, void *arg), void *arg);

/* Which tenant is this peer; fills peer->tenant. UNKNOWN_PEER (with the uid, gid, pid that were looked for), or
 * NOT_PERMITTED for a rule that this kernel cannot check. Called once per connection, by auth/policy.c. */
int tenant_of_peer(struct broker *b, struct peer *peer, struct refusal *r);

int device_bind(struct broker *b, const char *device, struct device_view *ret, struct refusal *r);
int device_unbind(struct broker *b, const char *device, struct device_view *ret, struct refusal *r);
/* *ret_state: as device_view.state afterwards. */
int device_release(struct broker *b, const char *device, const char **ret_state, struct refusal *r);

/* Ledger, then the ledger against every holder's dump. */
struct check_view {
        const char *invariant;
        const char *text;
};
int ledger_check_request(struct broker *b, void (*each)(const struct check_view *v, void *arg), void *arg,
                         uint64_t *ret_rows, uint64_t *ret_holders, struct refusal *r);
