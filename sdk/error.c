/* SPDX-License-Identifier: Apache-2.0 */
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <threads.h>

#include <grpc/status.h>

#include "sized.h"
#include "util/cleanup.h"
#include "util/refusal.h"

static thread_local const char *current_call = "";
static thread_local struct iommud_error last;   /* last.error is 0 until something failed */

void sdk_enter(const char *call) {
        current_call = call;
}

int sdk_fail_with(int error, const struct iommud_error *details) {
        last = *details;
        last.size = sizeof last;
        last.error = error;
        snprintf(last.call, sizeof last.call, "%s", current_call);
        return error;
}

int sdk_fail(int error, enum iommud_reason reason, const char *format, ...) {
        struct iommud_error details = { .reason = reason, .element = -1, .conflict_first = 1 };
        va_list args;

        va_start(args, format);
        vsnprintf(details.text, sizeof details.text, format, args);
        va_end(args);
        return sdk_fail_with(error, &details);
}

struct iommud_error sdk_error_keep(void) {
        return last;
}

void sdk_error_restore(const struct iommud_error *kept) {
        last = *kept;
}

unsigned sdk_error_reason(void) {
        return (unsigned)last.reason;
}

void sdk_error_not_batch(void) {
        last.element = -1;
}

/* A few reasons say more than the status of their class. */
static int errno_of_special_reason(unsigned reason) {
        switch (reason) {
        case IOMMUD_REASON_GROUP_NOT_VIABLE:
        case IOMMUD_REASON_UNKNOWN_DEVICE:
                return -ENODEV;
        case IOMMUD_REASON_MEMORY_READ_ONLY:
        case IOMMUD_REASON_MEMORY_WRITE_SEALED:
                return -EACCES;
        case IOMMUD_REASON_MEMORY_HOLES:
        case IOMMUD_REASON_MEMORY_TRUNCATED:
                return -EFAULT;
        case IOMMUD_REASON_HOLDER_LOST:
                return -ECONNRESET;
        case IOMMUD_REASON_NO_WINDOW:
                return -ERANGE;
        case IOMMUD_REASON_WINDOW_SIZE:
                return -E2BIG;
        case IOMMUD_REASON_WINDOW_LIMIT:
                return -ENOSPC;
        case IOMMUD_REASON_MEMORY_PAGE_SIZE:    /* nothing that may change is in the way: it will never do */
                return -EINVAL;
        default:
                return 0;
        }
}

int sdk_errno(int status, unsigned reason) {
        static const int of_status[] = {
                [GRPC_STATUS_OK] = 0,
                [GRPC_STATUS_CANCELLED] = -EAGAIN,
                [GRPC_STATUS_UNKNOWN] = -EIO,
                [GRPC_STATUS_INVALID_ARGUMENT] = -EINVAL,
                [GRPC_STATUS_DEADLINE_EXCEEDED] = -ETIMEDOUT,
                [GRPC_STATUS_NOT_FOUND] = -ENOENT,
                [GRPC_STATUS_ALREADY_EXISTS] = -EEXIST,
                [GRPC_STATUS_PERMISSION_DENIED] = -EACCES,
                [GRPC_STATUS_RESOURCE_EXHAUSTED] = -EDQUOT,
                [GRPC_STATUS_FAILED_PRECONDITION] = -EBUSY,
                [GRPC_STATUS_ABORTED] = -EAGAIN,
                [GRPC_STATUS_OUT_OF_RANGE] = -EINVAL,
                [GRPC_STATUS_UNIMPLEMENTED] = -ENOTSUP,
                [GRPC_STATUS_INTERNAL] = -EIO,
                [GRPC_STATUS_UNAVAILABLE] = -EAGAIN,
                [GRPC_STATUS_DATA_LOSS] = -EIO,
                [GRPC_STATUS_UNAUTHENTICATED] = -ECONNRESET,
        };
        int special = errno_of_special_reason(reason);

        if (status == GRPC_STATUS_OK)
                return 0;
        if (special)
                return special;
        if (status < 0 || (size_t)status >= ARRAY_SIZE(of_status))
                return -EIO;
        return of_status[status];
}

int sdk_errno_of_reason(unsigned reason) {
        switch (reason) {
#define X(name, number, status)                                                                                        \
        case number:                                                                                                   \
                return sdk_errno(status, number);
                REFUSAL_REASONS(X)
#undef X
        default:
                return -EIO;
        }
}

const char *iommud_last_error(void) {
        return last.text;
}

int iommud_error_detail(struct iommud_error *error) {
        if (!error)
                return -EINVAL;
        if (!last.error)
                return -ENOENT;
        /* This call does not touch what it reports, not even when it fails itself. */
        return sdk_struct_out(error, &last, sizeof last);
}

const char *iommud_reason_name(enum iommud_reason reason) {
        switch ((int)reason) {
#define X(name, number, status)                                                                                        \
        case number:                                                                                                   \
                return #name;
                REFUSAL_REASONS(X)
#undef X
        default:
                return "UNSPECIFIED";
        }
}
