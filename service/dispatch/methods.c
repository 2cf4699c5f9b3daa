/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/rpc.h"
#include "util/cleanup.h"

/*
 * One row per RPC. tests/unit/test_dispatch_methods.c compares the rows with the .proto files, streaming included,
 * which protoc-c's descriptors do not tell.
 */
#define CLIENT(name, handler)                                                                                          \
        { .path = "/iommud.v1.Client/" name, .permission = PERMISSION_CLIENT, .session = true, .handle = handler }
#define CLIENT_ASYNC(name, handler)                                                                                    \
        { .path = "/iommud.v1.Client/" name, .permission = PERMISSION_CLIENT, .session = true, .handle = handler,      \
          .answer = handler##_answer }
#define OPERATOR(name, handler)                                                                                        \
        { .path = "/iommud.v1.Operator/" name, .permission = PERMISSION_OPERATOR, .blocks = true, .handle = handler }
#define HEALTH(name, handler, stream)                                                                                  \
        { .path = "/grpc.health.v1.Health/" name, .permission = PERMISSION_ANYONE, .streams = stream,         \
          .handle = handler }

struct method method_table[] = {
        CLIENT("OpenSession", rpc_open_session),
        CLIENT_ASYNC("CloseSession", rpc_close_session),
        CLIENT("GetCapabilities", rpc_get_capabilities),
        CLIENT("GetQuota", rpc_get_quota),
        CLIENT("ListDevices", rpc_list_devices),
        CLIENT_ASYNC("CreateDomain", rpc_create_domain),
        CLIENT("DescribeDomain", rpc_describe_domain),
        CLIENT_ASYNC("DestroyDomain", rpc_destroy_domain),
        CLIENT_ASYNC("AttachDevice", rpc_attach_device),
        CLIENT_ASYNC("DetachDevice", rpc_detach_device),
        CLIENT_ASYNC("RegisterMemory", rpc_register_memory),
        CLIENT_ASYNC("UnregisterMemory", rpc_unregister_memory),
        CLIENT_ASYNC("Map", rpc_map),
        CLIENT_ASYNC("Unmap", rpc_unmap),
        { .path = "/iommud.v1.Client/UnmapAll", .permission = PERMISSION_CLIENT, .session = true,
          .handle = rpc_unmap_all, .answer = rpc_unmap_answer },
        CLIENT_ASYNC("Sync", rpc_sync),
        CLIENT("ListMappings", rpc_list_mappings),
        CLIENT("QueryWindows", rpc_query_windows),
        CLIENT_ASYNC("CreateWindow", rpc_create_window),
        CLIENT_ASYNC("RemoveWindow", rpc_remove_window),
        CLIENT_ASYNC("ResetWindows", rpc_reset_windows),

        OPERATOR("GetStatus", rpc_get_status),
        OPERATOR("UpsertTenant", rpc_upsert_tenant),
        OPERATOR("DeleteTenant", rpc_delete_tenant),
        OPERATOR("ListTenants", rpc_list_tenants),
        OPERATOR("ListAllDevices", rpc_list_devices),
        OPERATOR("BindDevice", rpc_bind_device),
        OPERATOR("UnbindDevice", rpc_unbind_device),
        OPERATOR("ReleaseLease", rpc_release_lease),
        OPERATOR("ListDomains", rpc_list_domains),
        OPERATOR("ShowDomain", rpc_describe_domain),
        OPERATOR("ListAllMappings", rpc_list_mappings),
        OPERATOR("ListWindows", rpc_query_windows),
        OPERATOR("CheckLedger", rpc_check_ledger),

        HEALTH("Check", rpc_health_check, false),
        HEALTH("Watch", rpc_health_watch, true),
};
const size_t method_table_size = ARRAY_SIZE(method_table);
