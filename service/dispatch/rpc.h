/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the handlers, private to dispatch: the only header that brings in generated protobuf-c. */
#include "dispatch/dispatch.h"
#include "health.pb-c.h"
#include "iommud.pb-c.h"

struct rpc_constraints {
        Iommud__V1__Constraints message;
        Iommud__V1__Range ranges[IOVA_RANGES_MAX], *pointers[IOVA_RANGES_MAX];
};

struct rpc_created_window {
        Iommud__V1__CreateWindowResponse response;
        Iommud__V1__Window window;
};

/* Room for the answer to any mutation. */
struct rpc_response {
        union {
                ProtobufCMessage base;
                Iommud__V1__CloseSessionResponse close_session;
                Iommud__V1__CreateDomainResponse create_domain;
                Iommud__V1__DestroyDomainResponse destroy_domain;
                Iommud__V1__AttachDeviceResponse attach_device;
                Iommud__V1__DetachDeviceResponse detach_device;
                Iommud__V1__RegisterMemoryResponse register_memory;
                Iommud__V1__UnregisterMemoryResponse unregister_memory;
                Iommud__V1__MapResponse map;
                Iommud__V1__UnmapResponse unmap;
                Iommud__V1__SyncResponse sync;
                struct rpc_created_window create_window;
                Iommud__V1__RemoveWindowResponse remove_window;
                Iommud__V1__ResetWindowsResponse reset_windows;
        };
        struct rpc_constraints constraints;
};

extern struct method method_table[];
extern const size_t method_table_size;

/* End a call. */
void rpc_refuse(struct rpc *rpc, const struct refusal *r);
void rpc_answer(struct rpc *rpc, const void *message, struct arena *arena);
void rpc_answer_too_large(struct rpc *rpc);

/* Checks of fields; 0, or -1 with *r filled. what: the field, for the text. */
int rpc_key(const ProtobufCBinaryData *key, struct request_key *ret, struct refusal *r);
int rpc_name(const char *s, const char *what, struct refusal *r);               /* printable, below LEDGER_NAME_MAX */
int rpc_name_needed(const char *s, const char *what, struct refusal *r);        /* likewise, not empty */
int rpc_text(const char *s, size_t size, const char *what, struct refusal *r);  /* printable, below size */

/* Fills *to from info and returns its message. */
Iommud__V1__Constraints *rpc_constraints(const struct container_info *info, struct rpc_constraints *to);

/* A string or array field of an answer that is borrowed from a const view. */
static inline char *rpc_borrow(const char *s) {
        return (char *)(uintptr_t)s;
}

/* How much is in use above a limit that was lowered. */
static inline uint64_t rpc_over(uint64_t limit, uint64_t used) {
        return used > limit ? used - limit : 0;
}

/* What this version can do, as Capability bits. */
#define RPC_CAPABILITIES                                                                                               \
        ((uint64_t)(IOMMUD__V1__CAPABILITY__CAPABILITY_MAP_BATCH | IOMMUD__V1__CAPABILITY__CAPABILITY_REQUEST_KEYS |   \
                    IOMMUD__V1__CAPABILITY__CAPABILITY_HUGETLB |                                                       \
                    IOMMUD__V1__CAPABILITY__CAPABILITY_MAP_BEFORE_ATTACH |                                             \
                    IOMMUD__V1__CAPABILITY__CAPABILITY_PARTIAL_UNMAP | IOMMUD__V1__CAPABILITY__CAPABILITY_SUBPAGE |    \
                    IOMMUD__V1__CAPABILITY__CAPABILITY_LAZY_FLUSH | IOMMUD__V1__CAPABILITY__CAPABILITY_DRY_RUN |       \
                    IOMMUD__V1__CAPABILITY__CAPABILITY_MERGE | IOMMUD__V1__CAPABILITY__CAPABILITY_WINDOWS))

#define RPC_HANDLER(name) void name(struct rpc *rpc, const void *request, struct arena *arena)
#define RPC_ANSWER(name) const void *name(const struct answer *a, struct rpc_response *out)

RPC_HANDLER(rpc_open_session);
RPC_HANDLER(rpc_close_session);
RPC_HANDLER(rpc_get_capabilities);
RPC_HANDLER(rpc_get_quota);
RPC_HANDLER(rpc_list_devices);
RPC_HANDLER(rpc_create_domain);
RPC_HANDLER(rpc_describe_domain);
RPC_HANDLER(rpc_destroy_domain);
RPC_HANDLER(rpc_attach_device);
RPC_HANDLER(rpc_detach_device);
RPC_HANDLER(rpc_register_memory);
RPC_HANDLER(rpc_unregister_memory);
RPC_HANDLER(rpc_map);
RPC_HANDLER(rpc_unmap);
RPC_HANDLER(rpc_unmap_all);
RPC_HANDLER(rpc_sync);
RPC_HANDLER(rpc_list_mappings);
RPC_HANDLER(rpc_query_windows);
RPC_HANDLER(rpc_create_window);
RPC_HANDLER(rpc_remove_window);
RPC_HANDLER(rpc_reset_windows);
RPC_HANDLER(rpc_get_status);
RPC_HANDLER(rpc_upsert_tenant);
RPC_HANDLER(rpc_delete_tenant);
RPC_HANDLER(rpc_list_tenants);
RPC_HANDLER(rpc_bind_device);
RPC_HANDLER(rpc_unbind_device);
RPC_HANDLER(rpc_release_lease);
RPC_HANDLER(rpc_list_domains);
RPC_HANDLER(rpc_check_ledger);
RPC_HANDLER(rpc_health_check);
RPC_HANDLER(rpc_health_watch);

RPC_ANSWER(rpc_close_session_answer);
RPC_ANSWER(rpc_create_domain_answer);
RPC_ANSWER(rpc_destroy_domain_answer);
RPC_ANSWER(rpc_attach_device_answer);
RPC_ANSWER(rpc_detach_device_answer);
RPC_ANSWER(rpc_register_memory_answer);
RPC_ANSWER(rpc_unregister_memory_answer);
RPC_ANSWER(rpc_map_answer);
RPC_ANSWER(rpc_unmap_answer);
RPC_ANSWER(rpc_sync_answer);
RPC_ANSWER(rpc_create_window_answer);
RPC_ANSWER(rpc_remove_window_answer);
RPC_ANSWER(rpc_reset_windows_answer);

/* rpc_device.c, also for rpc_admin.c: a device with its group's members, in the arena; NULL without room. */
Iommud__V1__Device *rpc_device_view(const struct device_view *v, struct arena *arena);
/* rpc_domain.c: likewise. operator_view: with what only operators see. */
Iommud__V1__Domain *rpc_domain_view(const struct domain_view *v, bool operator_view, struct arena *arena);

void rpc_health_reset(void);
