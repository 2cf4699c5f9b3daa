/* SPDX-License-Identifier: Apache-2.0 */
/* link: sdkparts proto */
/* Which errno a status and a reason become, whose error is whose, and structs of other versions' sizes. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <grpc/status.h>

#include "../../sdk/device.h"
#include "../../sdk/error.h"
#include "../../sdk/sized.h"
#include "backend/backend.h"
#include "util/cleanup.h"
#include "util/refusal.h"

/* What iommud.h promises, reason by reason. */
static const struct {
        unsigned reason;
        int error;
} promises[] = {
        { REFUSAL_ZERO_LENGTH, -EINVAL },
        { REFUSAL_UNALIGNED, -EINVAL },
        { REFUSAL_RANGE_WRAPS, -EINVAL },
        { REFUSAL_OUTSIDE_APERTURE, -EINVAL },
        { REFUSAL_RESERVED_REGION, -EINVAL },
        { REFUSAL_OVERLAP, -EEXIST },
        { REFUSAL_BEYOND_OBJECT, -EINVAL },
        { REFUSAL_BAD_ACCESS, -EINVAL },
        { REFUSAL_BATCH_TOO_LARGE, -EINVAL },
        { REFUSAL_BAD_MESSAGE, -EINVAL },
        { REFUSAL_BAD_NAME, -EINVAL },
        { REFUSAL_KEY_REUSED, -EINVAL },
        { REFUSAL_MEMORY_NOT_REGULAR, -EINVAL },
        { REFUSAL_MEMORY_BAD_FILESYSTEM, -EINVAL },
        { REFUSAL_MEMORY_O_PATH, -EINVAL },
        { REFUSAL_MEMORY_EMPTY, -EINVAL },
        { REFUSAL_MEMORY_TRUNCATED, -EFAULT },
        { REFUSAL_MEMORY_READ_ONLY, -EACCES },
        { REFUSAL_MEMORY_WRITE_SEALED, -EACCES },
        { REFUSAL_MEMORY_HOLES, -EFAULT },
        { REFUSAL_MEMORY_UNSEALED, -EBUSY },
        { REFUSAL_MEMORY_STALLED, -ETIMEDOUT },
        { REFUSAL_UNKNOWN_TICKET, -ENOENT },
        { REFUSAL_UNKNOWN_DOMAIN, -ENOENT },
        { REFUSAL_UNKNOWN_MEMORY, -ENOENT },
        { REFUSAL_UNKNOWN_DEVICE, -ENODEV },
        { REFUSAL_UNKNOWN_ATTACHMENT, -ENOENT },
        { REFUSAL_UNKNOWN_TENANT, -ENOENT },
        { REFUSAL_UNKNOWN_SESSION, -ECONNRESET },
        { REFUSAL_NOT_MAPPED, -ENOENT },
        { REFUSAL_PARTIAL_UNMAP, -EBUSY },
        { REFUSAL_QUOTA_EXCEEDED, -EDQUOT },
        { REFUSAL_LIMIT_EXCEEDED, -EDQUOT },
        { REFUSAL_IN_USE, -EBUSY },
        { REFUSAL_IN_PROGRESS, -EAGAIN },
        { REFUSAL_DEVICE_BUSY, -EBUSY },
        { REFUSAL_DEVICE_ORPHANED, -EBUSY },
        { REFUSAL_GROUP_NOT_VIABLE, -ENODEV },
        { REFUSAL_DOMAIN_QUARANTINED, -EBUSY },
        { REFUSAL_HOLDER_LOST, -ECONNRESET },
        { REFUSAL_RECOVERING, -EAGAIN },
        { REFUSAL_UNKNOWN_PEER, -EACCES },
        { REFUSAL_NOT_PERMITTED, -EACCES },
        { REFUSAL_DEVICE_NODE_MISSING, -EBUSY },
        { REFUSAL_DEVICE_NODE_FORBIDDEN, -EBUSY },
        { REFUSAL_BACKEND_REFUSED, -EBUSY },
        { REFUSAL_UNSUPPORTED, -ENOTSUP },
        { REFUSAL_LEDGER_UNAVAILABLE, -EAGAIN },
        { REFUSAL_INTERNAL, -EIO },
        { REFUSAL_NO_WINDOW, -ERANGE },
        { REFUSAL_WINDOW_SIZE, -E2BIG },
        { REFUSAL_WINDOW_PAGE, -EINVAL },
        { REFUSAL_WINDOW_LEVELS, -EINVAL },
        { REFUSAL_WINDOW_LIMIT, -ENOSPC },
        { REFUSAL_UNKNOWN_WINDOW, -ENOENT },
        { REFUSAL_MEMORY_PAGE_SIZE, -EINVAL },
};

static void test_every_reason(void **state) {
        unsigned reasons = 0;

        (void)state;
#define X(name, number, status) reasons++;
        REFUSAL_REASONS(X)
#undef X
        assert_int_equal(reasons, ARRAY_SIZE(promises));
        for (size_t i = 0; i < ARRAY_SIZE(promises); i++)
                assert_int_equal(sdk_errno_of_reason(promises[i].reason), promises[i].error);
}

static void test_status_without_reason(void **state) {
        (void)state;
        assert_int_equal(sdk_errno(GRPC_STATUS_OK, 0), 0);
        assert_int_equal(sdk_errno(GRPC_STATUS_UNAVAILABLE, 0), -EAGAIN);
        assert_int_equal(sdk_errno(GRPC_STATUS_DEADLINE_EXCEEDED, 0), -ETIMEDOUT);
        assert_int_equal(sdk_errno(GRPC_STATUS_UNIMPLEMENTED, 0), -ENOTSUP);
        assert_int_equal(sdk_errno(GRPC_STATUS_UNKNOWN, 0), -EIO);
        for (int status = 1; status < 20; status++)
                assert_true(sdk_errno(status, 0) < 0);
        assert_int_equal(sdk_errno(-1, 0), -EIO);
        assert_int_equal(sdk_errno(1000000, 0), -EIO);
}

static void test_reasons_of_a_newer_service(void **state) {
        (void)state;
        assert_int_equal(sdk_errno(GRPC_STATUS_RESOURCE_EXHAUSTED, 4711), -EDQUOT);    /* its class still says enough */
        assert_int_equal(sdk_errno_of_reason(4711), -EIO);
        assert_int_equal(sdk_errno_of_reason(0), -EIO);
}

static void *fail_in_thread(void *arg) {
        struct iommud_error e = { .size = sizeof e };

        (void)arg;
        assert_int_equal(iommud_error_detail(&e), -ENOENT);     /* nothing failed in this thread */
        assert_string_equal(iommud_last_error(), "");
        sdk_enter("iommud_unmap");
        sdk_fail(-EIO, 0, "of the other thread");
        return NULL;
}

static void test_error_is_of_the_thread(void **state) {
        struct iommud_error e = { .size = sizeof e };
        pthread_t t;

        (void)state;
        sdk_enter("iommud_map");
        assert_int_equal(sdk_fail(-EBUSY, IOMMUD_REASON_IN_USE, "%s %d", "number", 7), -EBUSY);
        assert_int_equal(pthread_create(&t, NULL, fail_in_thread, NULL), 0);
        pthread_join(t, NULL);
        assert_string_equal(iommud_last_error(), "number 7");
        assert_int_equal(iommud_error_detail(&e), 0);
        assert_int_equal(e.error, -EBUSY);
        assert_int_equal(e.reason, IOMMUD_REASON_IN_USE);
        assert_int_equal(e.element, -1);
        assert_true(e.conflict_first > e.conflict_last);
        assert_string_equal(e.call, "iommud_map");
}

static void test_long_text_is_cut(void **state) {
        char text[1000];

        (void)state;
        memset(text, 'x', sizeof text - 1);
        text[sizeof text - 1] = '\0';
        sdk_fail(-EIO, 0, "%s", text);
        assert_int_equal(strlen(iommud_last_error()), sizeof((struct iommud_error *)NULL)->text - 1);
}

static void test_detail_sizes(void **state) {
        struct {
                struct iommud_error e;
                char more[16];
        } larger;
        struct iommud_error e;

        (void)state;
        sdk_fail(-EIO, IOMMUD_REASON_INTERNAL, "text");
        assert_int_equal(iommud_error_detail(NULL), -EINVAL);
        e.size = 0;
        assert_int_equal(iommud_error_detail(&e), -EINVAL);
        e.size = SIZE_MAX;
        assert_int_equal(iommud_error_detail(&e), -EINVAL);
        memset(&e, 0x55, sizeof e);
        e.size = offsetof(struct iommud_error, element);        /* an older program: no byte beyond is touched */
        assert_int_equal(iommud_error_detail(&e), 0);
        assert_int_equal(e.error, -EIO);
        assert_int_equal(e.element, 0x5555555555555555);
        memset(&larger, 0x55, sizeof larger);
        larger.e.size = sizeof larger;                          /* a newer one: what we do not know is 0 */
        assert_int_equal(iommud_error_detail(&larger.e), 0);
        assert_string_equal(larger.e.text, "text");
        assert_int_equal(larger.e.size, sizeof larger);
        for (size_t i = 0; i < sizeof larger.more; i++)
                assert_int_equal(larger.more[i], 0);
}

static void test_option_sizes(void **state) {
        struct {
                struct iommud_memory_options o;
                uint64_t newer;
        } larger = { .o = { .size = sizeof larger, .read_only = 1 } };
        struct iommud_memory_options o;

        (void)state;
        assert_int_equal(sdk_options_in(&o, sizeof o, NULL), 0);
        assert_int_equal(o.read_only, 0);
        assert_int_equal(sdk_options_in(&o, sizeof o, &larger), 0);     /* newer, but asks for nothing that we lack */
        assert_int_equal(o.read_only, 1);
        larger.newer = 1;
        assert_int_equal(sdk_options_in(&o, sizeof o, &larger), -E2BIG);
        larger.newer = 0;
        larger.o.size = offsetof(struct iommud_memory_options, read_only);
        assert_int_equal(sdk_options_in(&o, sizeof o, &larger), 0);     /* older: the field is not there */
        assert_int_equal(o.read_only, 0);
        larger.o.size = sizeof(size_t);
        assert_int_equal(sdk_options_in(&o, sizeof o, &larger), -EINVAL);
}

static void test_kinds_of_devices(void **state) {
        (void)state;
        assert_int_equal(DEVICE_KIND_VFIO, DEVICE_FD_VFIO);
        assert_int_equal(DEVICE_KIND_SOFT, DEVICE_FD_SOFT);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_reason),
                cmocka_unit_test(test_status_without_reason),
                cmocka_unit_test(test_reasons_of_a_newer_service),
                cmocka_unit_test(test_error_is_of_the_thread),
                cmocka_unit_test(test_long_text_is_cut),
                cmocka_unit_test(test_detail_sizes),
                cmocka_unit_test(test_option_sizes),
                cmocka_unit_test(test_kinds_of_devices),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
