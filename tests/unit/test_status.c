/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util testlib */
/* A refusal as gRPC status and details: the code of every reason, every field, and texts of any length and content. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../lib/fakes/fake_core.c"
#include "dispatch/dispatch.h"
#include "dispatch/text.h"
#include "iommud.pb-c.h"
#include "transport/status.h"

/* The Refusal inside; status message in *ret_status. */
static Iommud__V1__Refusal *unpack(const struct status *s, Iommud__V1__StatusDetails **ret_status) {
        Iommud__V1__StatusDetails *d;
        Iommud__V1__Refusal *r;

        assert_int_equal(s->n_trailers, 1);
        assert_int_equal(grpc_slice_str_cmp(s->trailer.key, "grpc-status-details-bin"), 0);
        d = iommud__v1__status_details__unpack(NULL, GRPC_SLICE_LENGTH(s->trailer.value),
                                               GRPC_SLICE_START_PTR(s->trailer.value));
        assert_non_null(d);
        assert_int_equal(d->code, s->code);
        assert_int_equal(grpc_slice_str_cmp(s->message, d->message), 0);
        assert_int_equal(d->n_details, 1);
        assert_string_equal(d->details[0]->type_url, "type.googleapis.com/iommud.v1.Refusal");
        r = iommud__v1__refusal__unpack(NULL, d->details[0]->value.len, d->details[0]->value.data);
        assert_non_null(r);
        *ret_status = d;
        return r;
}

static void free_both(Iommud__V1__Refusal *r, Iommud__V1__StatusDetails *d) {
        iommud__v1__refusal__free_unpacked(r, NULL);
        iommud__v1__status_details__free_unpacked(d, NULL);
}

static void test_every_reason_has_its_code(void **state) {
        static const struct {
                enum refusal_reason reason;
                int code;
        } reasons[] = {
#define X(name, number, code) { REFUSAL_##name, code },
                REFUSAL_REASONS(X)
#undef X
        };

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(reasons); i++) {
                Iommud__V1__StatusDetails *d;
                Iommud__V1__Refusal *got;
                struct refusal r;
                struct status s;

                (void)refuse(&r, reasons[i].reason, "text %zu", i);
                status_refusal(&s, &r);
                assert_int_equal(s.code, reasons[i].code);
                assert_int_not_equal(s.code, 0);
                got = unpack(&s, &d);
                assert_int_equal(got->reason, reasons[i].reason);
                assert_string_equal(got->text, r.text);
                assert_null(got->conflict);
                assert_int_equal(got->batch_case, IOMMUD__V1__REFUSAL__BATCH__NOT_SET);
                free_both(got, d);
                status_clear(&s);
        }
}

static void test_every_field(void **state) {
        struct refusal r;
        struct status s;
        Iommud__V1__StatusDetails *d;
        Iommud__V1__Refusal *got;

        (void)state;
        (void)refuse(&r, REFUSAL_QUOTA_EXCEEDED, "no more");
        r.resource = RESOURCE_MAPPINGS;
        r.element = 1023;
        r.errnum = 12;
        r.limit = 1;
        r.used = 2;
        r.asked = UINT64_MAX;
        r.conflict_first = r.conflict_last = 0;         /* one byte at 0 is a range, not none */
        r.nearest_below = 5;
        r.nearest_above = UINT64_MAX;
        status_refusal(&s, &r);
        got = unpack(&s, &d);
        assert_int_equal(got->resource, RESOURCE_MAPPINGS);
        assert_int_equal(got->batch_case, IOMMUD__V1__REFUSAL__BATCH_ELEMENT);
        assert_int_equal(got->element, 1023);
        assert_int_equal(got->system_errno, 12);
        assert_int_equal(got->limit, 1);
        assert_int_equal(got->used, 2);
        assert_true(got->asked == UINT64_MAX);
        assert_non_null(got->conflict);
        assert_int_equal(got->conflict->last, 0);
        assert_int_equal(got->nearest_below, 5);
        assert_true(got->nearest_above == UINT64_MAX);
        free_both(got, d);
        status_clear(&s);
}

/* The longest text with the largest numbers fits, and stays printable. */
static void test_largest(void **state) {
        struct refusal r;
        struct status s;
        Iommud__V1__StatusDetails *d;
        Iommud__V1__Refusal *got;

        (void)state;
        memset(&r, 0xff, sizeof r);
        r.reason = REFUSAL_INTERNAL;
        r.resource = RESOURCE_DEVICES;
        r.element = INT32_MAX;
        r.errnum = -1;
        r.conflict_first = UINT64_MAX - 1;
        for (size_t i = 0; i < sizeof r.text; i++)
                r.text[i] = (char)(i % 255 + 1);
        r.text[sizeof r.text - 1] = '\0';
        status_refusal(&s, &r);
        got = unpack(&s, &d);
        assert_true(text_is_printable(got->text));
        assert_int_equal(strlen(got->text), sizeof r.text - 1);
        assert_int_equal(got->system_errno, -1);
        free_both(got, d);
        status_clear(&s);
}

/* Never done when it was refused, even where the refusal forgot to say why. */
static void test_refused_without_reason(void **state) {
        struct refusal r = { .reason = REFUSAL_NONE, .element = -1, .conflict_first = 1 };
        struct status s;

        (void)state;
        status_refusal(&s, &r);
        assert_int_equal(s.code, 13);
        status_clear(&s);
        r.reason = (enum refusal_reason)9999;
        status_refusal(&s, &r);
        assert_int_not_equal(s.code, 0);
        status_clear(&s);
}

static void test_done(void **state) {
        struct status s;
        grpc_op op;

        (void)state;
        status_refusal(&s, NULL);
        assert_int_equal(s.code, 0);
        assert_int_equal(s.n_trailers, 0);
        status_to_op(&s, &op);
        assert_int_equal(op.op, GRPC_OP_SEND_STATUS_FROM_SERVER);
        assert_int_equal(op.data.send_status_from_server.trailing_metadata_count, 0);
        assert_null(op.data.send_status_from_server.status_details);
        status_clear(&s);
        status_clear(&s);
        status_plain(&s, 5, "no such service");
        assert_int_equal(s.code, 5);
        assert_int_equal(s.n_trailers, 0);
        assert_int_equal(grpc_slice_str_cmp(s.message, "no such service"), 0);
        status_clear(&s);
}

static int start(void **state) {
        (void)state;
        grpc_init();
        return 0;
}

static int stop(void **state) {
        (void)state;
        grpc_shutdown();
        return 0;
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_reason_has_its_code), cmocka_unit_test(test_every_field),
                cmocka_unit_test(test_largest),                   cmocka_unit_test(test_refused_without_reason),
                cmocka_unit_test(test_done),
        };
        return cmocka_run_group_tests(tests, start, stop);
}
