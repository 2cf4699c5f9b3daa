/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * A refusal: why a request was not done, in a form that survives every hop (holder -> broker -> gRPC detail -> SDK).
 *
 * Functions that can refuse return 0, or -1 after filling a struct refusal. They never return -1 without a reason.
 * The list below is the single place where a reason is declared inside the service; proto/iommud.proto (enum Reason)
 * and sdk/include/iommud/iommud.h (enum iommud_reason) repeat name and number, and tests/unit/test_reasons.c compares
 * the three. Numbers are wire contract: append, never renumber.
 *
 *        name                 number  gRPC status (numbers of grpc/status.h)
 */
#define REFUSAL_REASONS(X)                                                                                             \
        X(ZERO_LENGTH, 1, 3)                                                                                           \
        X(UNALIGNED, 2, 3)                                                                                             \
        X(RANGE_WRAPS, 3, 3)                                                                                           \
        X(OUTSIDE_APERTURE, 4, 11)                                                                                     \
        X(RESERVED_REGION, 5, 11)                                                                                      \
        X(OVERLAP, 6, 6)                                                                                               \
        X(BEYOND_OBJECT, 7, 11)                                                                                        \
        X(BAD_ACCESS, 8, 3)                                                                                            \
        X(BATCH_TOO_LARGE, 9, 3)                                                                                       \
        X(BAD_MESSAGE, 10, 3)                                                                                          \
        X(BAD_NAME, 11, 3)                                                                                             \
        X(KEY_REUSED, 12, 3)                                                                                           \
        X(MEMORY_NOT_REGULAR, 20, 3)                                                                                   \
        X(MEMORY_BAD_FILESYSTEM, 21, 3)                                                                                \
        X(MEMORY_O_PATH, 22, 3)                                                                                        \
        X(MEMORY_EMPTY, 23, 3)                                                                                         \
        X(MEMORY_TRUNCATED, 24, 9)                                                                                     \
        X(MEMORY_READ_ONLY, 25, 9)                                                                                     \
        X(MEMORY_WRITE_SEALED, 26, 9)                                                                                  \
        X(MEMORY_HOLES, 27, 9)                                                                                         \
        X(MEMORY_UNSEALED, 28, 9)                                                                                      \
        X(MEMORY_STALLED, 29, 4)                                                                                       \
        X(UNKNOWN_TICKET, 30, 5)                                                                                       \
        X(UNKNOWN_DOMAIN, 40, 5)                                                                                       \
        X(UNKNOWN_MEMORY, 41, 5)                                                                                       \
        X(UNKNOWN_DEVICE, 42, 5)                                                                                       \
        X(UNKNOWN_ATTACHMENT, 43, 5)                                                                                   \
        X(UNKNOWN_TENANT, 44, 5)                                                                                       \
        X(UNKNOWN_SESSION, 45, 16)                                                                                     \
        X(NOT_MAPPED, 46, 5)                                                                                           \
        X(PARTIAL_UNMAP, 47, 9)                                                                                        \
        X(QUOTA_EXCEEDED, 60, 8)                                                                                       \
        X(LIMIT_EXCEEDED, 61, 8)                                                                                       \
        X(IN_USE, 62, 9)                                                                                               \
        X(IN_PROGRESS, 63, 10)                                                                                         \
        X(DEVICE_BUSY, 64, 9)                                                                                          \
        X(DEVICE_ORPHANED, 65, 9)                                                                                      \
        X(GROUP_NOT_VIABLE, 66, 9)                                                                                     \
        X(DOMAIN_QUARANTINED, 67, 9)                                                                                   \
        X(HOLDER_LOST, 68, 10)                                                                                         \
        X(RECOVERING, 69, 14)                                                                                          \
        X(UNKNOWN_PEER, 80, 7)                                                                                         \
        X(NOT_PERMITTED, 81, 7)                                                                                        \
        X(DEVICE_NODE_MISSING, 82, 9)                                                                                  \
        X(DEVICE_NODE_FORBIDDEN, 83, 9)                                                                                \
        X(BACKEND_REFUSED, 84, 9)                                                                                      \
        X(UNSUPPORTED, 85, 12)                                                                                         \
        X(LEDGER_UNAVAILABLE, 86, 14)                                                                                  \
        X(INTERNAL, 87, 13)                                                                                            \
        X(NO_WINDOW, 100, 11)                                                                                          \
        X(WINDOW_SIZE, 101, 3)                                                                                         \
        X(WINDOW_PAGE, 102, 3)                                                                                         \
        X(WINDOW_LEVELS, 103, 3)                                                                                       \
        X(WINDOW_LIMIT, 104, 8)                                                                                        \
        X(UNKNOWN_WINDOW, 105, 5)                                                                                      \
        X(MEMORY_PAGE_SIZE, 106, 9)

enum refusal_reason {
        REFUSAL_NONE = 0,
#define X(name, number, status) REFUSAL_##name = number,
        REFUSAL_REASONS(X)
#undef X
};

/* What a limit counts. Numbers are wire contract (proto enum Resource). */
enum resource {
        RESOURCE_NONE = 0,
        RESOURCE_LOCKED_BYTES = 1,
        RESOURCE_MAPPINGS = 2,
        RESOURCE_DOMAINS = 3,
        RESOURCE_MEMORY_OBJECTS = 4,
        RESOURCE_REGISTERED_BYTES = 5,
        RESOURCE_SESSIONS = 6,
        RESOURCE_DEVICES = 7,
        RESOURCE_TABLE_BYTES = 8,       /* kernel memory that mappings cause: page tables, records */
        RESOURCE_WINDOWS = 9,
        _RESOURCE_N = 10,
};

#define REFUSAL_TEXT_MAX 384

struct refusal {
        enum refusal_reason reason;
        enum resource resource;         /* which quota or limit, RESOURCE_NONE if none */
        int32_t element;                /* index in a batch, -1 if the request has no elements */
        int32_t errnum;                 /* the kernel's answer where it was the kernel that refused, else 0 */
        uint64_t limit, used, asked;    /* for quotas, limits, sizes, alignments; 0 if meaningless */
        uint64_t conflict_first;        /* the range or object in the way; first > last means none */
        uint64_t conflict_last;         /* inclusive */
        uint64_t nearest_below;         /* nearest acceptable values, both 0 if there are none to offer */
        uint64_t nearest_above;
        char text[REFUSAL_TEXT_MAX];    /* one sentence a person can act on: asked, limit, who holds it, what to do */
};

/* Fills *r afresh (no element, no conflict) and returns -1, so that a check reads `return refuse(r, ...)`. */
int refuse(struct refusal *r, enum refusal_reason reason, const char *format, ...)
        __attribute__((format(printf, 3, 4)));

const char *refusal_reason_name(enum refusal_reason reason);   /* "ZERO_LENGTH"; "UNSPECIFIED" for 0 or unknown */
int refusal_grpc_status(enum refusal_reason reason);            /* grpc_status_code for a reason */
const char *resource_name(enum resource resource);              /* "locked-bytes" */
