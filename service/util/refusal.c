/* SPDX-License-Identifier: Apache-2.0 */
#include "util/refusal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int refuse(struct refusal *r, enum refusal_reason reason, const char *format, ...) {
        va_list args;

        memset(r, 0, offsetof(struct refusal, text));
        r->reason = reason;
        r->element = -1;
        r->conflict_first = 1;          /* first > last: no conflicting range */
        va_start(args, format);
        (void)vsnprintf(r->text, sizeof r->text, format, args);
        va_end(args);
        return -1;
}

const char *refusal_reason_name(enum refusal_reason reason) {
        switch (reason) {
#define X(name, number, status)                                                                                        \
        case REFUSAL_##name:                                                                                           \
                return #name;
                REFUSAL_REASONS(X)
#undef X
        case REFUSAL_NONE:
        default:
                return "UNSPECIFIED";
        }
}

int refusal_grpc_status(enum refusal_reason reason) {
        switch (reason) {
#define X(name, number, status)                                                                                        \
        case REFUSAL_##name:                                                                                           \
                return status;
                REFUSAL_REASONS(X)
#undef X
        case REFUSAL_NONE:
                return 0;
        default:
                return 2;               /* UNKNOWN */
        }
}

const char *resource_name(enum resource resource) {
        static const char *const names[_RESOURCE_N] = {
                [RESOURCE_NONE] = "none",
                [RESOURCE_LOCKED_BYTES] = "locked-bytes",
                [RESOURCE_MAPPINGS] = "mappings",
                [RESOURCE_DOMAINS] = "domains",
                [RESOURCE_MEMORY_OBJECTS] = "memory-objects",
                [RESOURCE_REGISTERED_BYTES] = "registered-bytes",
                [RESOURCE_SESSIONS] = "sessions",
                [RESOURCE_DEVICES] = "devices",
                [RESOURCE_TABLE_BYTES] = "table-bytes",
                [RESOURCE_WINDOWS] = "windows",
        };
        return (unsigned)resource < _RESOURCE_N ? names[resource] : "none";
}
