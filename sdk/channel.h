/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/*
 * The gRPC side of a client: one connection to grpc.sock that comes back by itself, and single attempts of unary calls
 * on it. What an outcome means, and whether to try again, is call.c's business. Thread-safe except open and close.
 */
struct sdk_channel;

/* Methods of service iommud.v1.Client: name, message of the answer. */
#define SDK_METHODS(X)                                                                                                 \
        X(OpenSession, open_session_response)                                                                          \
        X(CloseSession, close_session_response)                                                                        \
        X(GetCapabilities, get_capabilities_response)                                                                  \
        X(GetQuota, get_quota_response)                                                                                \
        X(ListDevices, list_devices_response)                                                                          \
        X(CreateDomain, create_domain_response)                                                                        \
        X(DescribeDomain, describe_domain_response)                                                                    \
        X(DestroyDomain, destroy_domain_response)                                                                      \
        X(AttachDevice, attach_device_response)                                                                        \
        X(DetachDevice, detach_device_response)                                                                        \
        X(RegisterMemory, register_memory_response)                                                                    \
        X(UnregisterMemory, unregister_memory_response)                                                                \
        X(Map, map_response)                                                                                           \
        X(Unmap, unmap_response)                                                                                       \
        X(UnmapAll, unmap_response)                                                                                    \
        X(Sync, sync_response)                                                                                         \
        X(ListMappings, list_mappings_response)                                                                        \
        X(QueryWindows, query_windows_response)                                                                        \
        X(CreateWindow, create_window_response)                                                                        \
        X(RemoveWindow, remove_window_response)                                                                        \
        X(ResetWindows, reset_windows_response)

enum sdk_method {
#define X(name, answer) METHOD_##name,
        SDK_METHODS(X)
#undef X
        _METHOD_N,
};

/* How one attempt ended. sdk_outcome_clear() frees what is in it; a zeroed one needs no clearing. */
struct sdk_outcome {
        int status;             /* grpc_status_code */
        char message[400];      /* text of the status */
        void *answer;           /* packed message, NULL unless status is OK */
        size_t n_answer;
        void *details;          /* grpc-status-details-bin, NULL if none came */
        size_t n_details;
};

void sdk_outcome_clear(struct sdk_outcome *o);

/* Connects lazily. token goes with every call. NULL when out of memory. */
struct sdk_channel *sdk_channel_open(const char *socket_path, const char *token);

/* One attempt; a missing connection is waited for until the deadline. Fills *ret (which may hold an earlier
 * outcome). */
void sdk_channel_attempt(struct sdk_channel *c, enum sdk_method method, const void *request, size_t n,
                         int64_t deadline, struct sdk_outcome *ret);

/* Attempts under way, and all later ones, end at once with the status CANCELLED. */
void sdk_channel_cancel(struct sdk_channel *c);

/* No attempt may be under way. NULL does nothing. */
void sdk_channel_close(struct sdk_channel *c);
