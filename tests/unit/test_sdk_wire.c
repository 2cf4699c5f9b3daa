/* SPDX-License-Identifier: Apache-2.0 */
/* link: sdkparts proto */
/* The library reads refusals and constraints from bytes that it does not trust. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../sdk/wire.h"
#include "util/cleanup.h"

#define TYPE_URL "type.googleapis.com/iommud.v1.Refusal"

static Iommud__V1__Range conflict;

static Iommud__V1__Refusal full_refusal(void) {
        Iommud__V1__Refusal r = IOMMUD__V1__REFUSAL__INIT;

        conflict = (Iommud__V1__Range)IOMMUD__V1__RANGE__INIT;
        conflict.first = 0x1000;
        conflict.last = UINT64_MAX;
        r.reason = IOMMUD__V1__REASON__REASON_OVERLAP;
        r.resource = IOMMUD__V1__RESOURCE__RESOURCE_MAPPINGS;
        r.batch_case = IOMMUD__V1__REFUSAL__BATCH_ELEMENT;
        r.element = UINT32_MAX;
        r.limit = 1;
        r.used = 2;
        r.asked = 3;
        r.conflict = &conflict;
        r.nearest_below = 4;
        r.nearest_above = UINT64_MAX;
        r.system_errno = 16;
        r.text = (char *)"a mapping is in the way";
        return r;
}

/* A packed StatusDetails with two details, of which the second holds the refusal. The bytes are the caller's. */
static uint8_t *pack(const Iommud__V1__Refusal *r, const char *url, size_t *ret_n) {
        Iommud__V1__StatusDetails status = IOMMUD__V1__STATUS_DETAILS__INIT;
        Iommud__V1__StatusDetail other = IOMMUD__V1__STATUS_DETAIL__INIT, detail = IOMMUD__V1__STATUS_DETAIL__INIT;
        Iommud__V1__StatusDetail *details[] = { &other, &detail };
        size_t n = iommud__v1__refusal__get_packed_size(r);
        _cleanup_free_ uint8_t *value = malloc(n + 1);
        uint8_t *bytes;

        iommud__v1__refusal__pack(r, value);
        other.type_url = (char *)"type.googleapis.com/google.rpc.ErrorInfo";
        detail.type_url = (char *)url;
        detail.value = (ProtobufCBinaryData){ .len = n, .data = value };
        status.code = 6;
        status.message = (char *)"message";
        status.details = details;
        status.n_details = 2;
        *ret_n = iommud__v1__status_details__get_packed_size(&status);
        bytes = malloc(*ret_n);
        iommud__v1__status_details__pack(&status, bytes);
        return bytes;
}

static void test_all_fields(void **state) {
        Iommud__V1__Refusal r = full_refusal();
        size_t n;
        _cleanup_free_ uint8_t *bytes = pack(&r, TYPE_URL, &n);
        struct iommud_error e = { .error = 0 };

        (void)state;
        assert_true(wire_refusal(bytes, n, &e));
        assert_int_equal(e.reason, IOMMUD_REASON_OVERLAP);
        assert_int_equal(e.resource, IOMMUD_RESOURCE_MAPPINGS);
        assert_true(e.element == UINT32_MAX);
        assert_int_equal(e.limit, 1);
        assert_int_equal(e.used, 2);
        assert_int_equal(e.asked, 3);
        assert_int_equal(e.conflict_first, 0x1000);
        assert_true(e.conflict_last == UINT64_MAX);
        assert_int_equal(e.nearest_below, 4);
        assert_true(e.nearest_above == UINT64_MAX);
        assert_int_equal(e.system_errno, 16);
        assert_string_equal(e.text, "a mapping is in the way");
}

static void test_absent_fields(void **state) {
        Iommud__V1__Refusal r = IOMMUD__V1__REFUSAL__INIT;
        size_t n;
        _cleanup_free_ uint8_t *bytes = pack(&r, TYPE_URL, &n);
        struct iommud_error e = { .element = 5 };

        (void)state;
        assert_true(wire_refusal(bytes, n, &e));
        assert_int_equal(e.element, -1);
        assert_true(e.conflict_first > e.conflict_last);
        assert_string_equal(e.text, "");
}

static void test_other_type(void **state) {
        Iommud__V1__Refusal r = full_refusal();
        size_t n;
        _cleanup_free_ uint8_t *bytes = pack(&r, "type.googleapis.com/iommud.v2.Refusal", &n);
        struct iommud_error e = { .limit = 4711 };

        (void)state;
        assert_false(wire_refusal(bytes, n, &e));
        assert_int_equal(e.limit, 4711);
        assert_false(wire_refusal(NULL, 0, &e));
        assert_false(wire_refusal(bytes, 0, &e));
}

/* However the bytes are cut or changed: an answer or none, never a read beyond (the sanitizers watch). */
static void test_cut_and_changed(void **state) {
        Iommud__V1__Refusal r = full_refusal();
        struct iommud_error e;
        size_t n;
        _cleanup_free_ uint8_t *bytes = pack(&r, TYPE_URL, &n);

        (void)state;
        for (size_t i = 0; i < n; i++) {
                _cleanup_free_ uint8_t *copy = malloc(i + 1);   /* a block of its own: its end is watched */

                memcpy(copy, bytes, i);
                wire_refusal(copy, i, &e);
        }
        for (size_t i = 0; i < n; i++)
                for (unsigned bit = 0; bit < 8; bit++) {
                        bytes[i] ^= (uint8_t)(1U << bit);
                        wire_refusal(bytes, n, &e);
                        bytes[i] ^= (uint8_t)(1U << bit);
                }
        assert_true(wire_refusal(bytes, n, &e));
}

static void test_garbage(void **state) {
        uint32_t random = 1;
        uint8_t bytes[300];
        struct iommud_error e;

        (void)state;
        for (int round = 0; round < 20000; round++) {
                size_t n = random % sizeof bytes;

                for (size_t i = 0; i < n; i++) {
                        random = random * 1664525 + 1013904223;
                        bytes[i] = (uint8_t)(random >> 24);
                }
                random = random * 1664525 + 1013904223;
                wire_refusal(bytes, n, &e);
        }
}

static void test_huge(void **state) {
        Iommud__V1__Refusal r = full_refusal();
        _cleanup_free_ char *text = malloc(1 << 20);
        _cleanup_free_ uint8_t *small = NULL, *large = NULL;
        struct iommud_error e;
        size_t n;

        (void)state;
        memset(text, 'x', 1 << 20);
        text[10000] = '\0';
        r.text = text;
        small = pack(&r, TYPE_URL, &n);
        assert_true(wire_refusal(small, n, &e));
        assert_int_equal(strlen(e.text), sizeof e.text - 1);
        text[10000] = 'x';
        text[(1 << 20) - 1] = '\0';
        large = pack(&r, TYPE_URL, &n);
        assert_false(wire_refusal(large, n, &e));
}

static void test_text(void **state) {
        char text[8];

        (void)state;
        wire_text(text, sizeof text, NULL);
        assert_string_equal(text, "");
        wire_text(text, sizeof text, "1234567");
        assert_string_equal(text, "1234567");
        wire_text(text, sizeof text, "12345678");
        assert_string_equal(text, "1234567");
        wire_text(text, sizeof text, "12345\xe2\x82\xac");      /* a euro sign does not fit: not half of it */
        assert_string_equal(text, "12345");
        wire_text(text, sizeof text, "1234\xe2\x82\xac");
        assert_string_equal(text, "1234\xe2\x82\xac");
        wire_text(text, sizeof text, "a\nb\x1b[m");             /* nothing that a terminal obeys */
        assert_string_equal(text, "a b [m");
}

static void test_constraints(void **state) {
        Iommud__V1__Constraints c = IOMMUD__V1__CONSTRAINTS__INIT;
        Iommud__V1__Range ranges[40], *pointers[40];
        struct iommud_constraints got;

        (void)state;
        wire_constraints(NULL, &got);
        assert_int_equal(got.n_ranges, 0);
        assert_int_equal(got.page_sizes, 0);
        for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
                iommud__v1__range__init(&ranges[i]);
                ranges[i].first = i * 16;
                ranges[i].last = i * 16 + 7;
                pointers[i] = &ranges[i];
        }
        c.page_sizes = 4096;
        c.ranges = pointers;
        c.n_ranges = 2;
        wire_constraints(&c, &got);
        assert_int_equal(got.size, sizeof got);
        assert_int_equal(got.page_sizes, 4096);
        assert_int_equal(got.n_ranges, 2);
        assert_int_equal(got.ranges[1].last, 23);
        assert_true(got.max_mappings == UINT32_MAX);
        c.max_mappings = 65535;
        c.n_ranges = ARRAY_SIZE(ranges);                        /* more than fit: the rest is not usable */
        wire_constraints(&c, &got);
        assert_int_equal(got.max_mappings, 65535);
        assert_int_equal(got.n_ranges, ARRAY_SIZE(got.ranges));
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_all_fields),
                cmocka_unit_test(test_absent_fields),
                cmocka_unit_test(test_other_type),
                cmocka_unit_test(test_cut_and_changed),
                cmocka_unit_test(test_garbage),
                cmocka_unit_test(test_huge),
                cmocka_unit_test(test_text),
                cmocka_unit_test(test_constraints),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
