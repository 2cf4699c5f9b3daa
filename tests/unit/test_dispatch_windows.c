/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util testlib */
/* Windows between the wire and the core: every field arrives, and every answer says what the core said. */
#include "test_dispatch_harness.h"

static void test_query(void **state) {
        Iommud__V1__QueryWindowsRequest q = IOMMUD__V1__QUERY_WINDOWS_REQUEST__INIT;
        Iommud__V1__QueryWindowsResponse *r;

        (void)state;
        fake.n_windows = 2;
        fake.n_free = 3;
        q.domain = 12;
        assert_int_equal(call(CLIENT "QueryWindows", &q), 0);
        assert_int_equal(fake.domain, 12);
        r = iommud__v1__query_windows_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->n_windows, 2);
        assert_int_equal(r->windows[0]->id, 1);
        assert_true(r->windows[0]->is_default && !r->windows[1]->is_default);
        assert_int_equal(r->windows[1]->start, 2ULL << 32);
        assert_int_equal(r->windows[1]->size, 1 << 30);
        assert_int_equal(r->windows[1]->page_shift, 16);
        assert_int_equal(r->windows[1]->levels, 2);
        assert_int_equal(r->windows[1]->mappings, 2);
        assert_int_equal(r->windows[1]->mapped_bytes, 0x20000);
        assert_int_equal(r->windows[1]->quota, 0x100000);
        assert_int_equal(r->windows[1]->table_bytes, 0x3000);
        assert_string_equal(r->windows[1]->state, "live");
        assert_int_equal(r->can_create, 3);
        assert_int_equal(r->page_sizes, 0x11000);
        assert_true(r->largest == 1ULL << 43);
        assert_int_equal(r->levels_max, 5);
        assert_int_equal(r->n_free, 3);
        assert_int_equal(r->free[2]->first, 2ULL << 40);
        assert_int_equal(r->free[2]->last, (2ULL << 40) + 0xfff);
        iommud__v1__query_windows_response__free_unpacked(r, NULL);
}

/* The operator's question goes without a session: the fake answers it with one more. */
static void test_the_operator_sees_any_domain(void **state) {
        Iommud__V1__QueryWindowsRequest q = IOMMUD__V1__QUERY_WINDOWS_REQUEST__INIT;
        Iommud__V1__QueryWindowsResponse *r;

        (void)state;
        q.domain = 12;
        assert_int_equal(call(OPERATOR "ListWindows", &q), 0);
        r = iommud__v1__query_windows_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->can_create, 4);
        assert_int_equal(r->n_windows, 0);
        assert_int_equal(r->n_free, 0);
        iommud__v1__query_windows_response__free_unpacked(r, NULL);
}

static void test_as_many_as_there_can_be(void **state) {
        Iommud__V1__QueryWindowsRequest q = IOMMUD__V1__QUERY_WINDOWS_REQUEST__INIT;
        Iommud__V1__QueryWindowsResponse *r;

        (void)state;
        fake.n_windows = VIEW_WINDOWS_MAX;
        fake.n_free = IOVA_RANGES_MAX;
        assert_int_equal(call(CLIENT "QueryWindows", &q), 0);
        r = iommud__v1__query_windows_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->n_windows, VIEW_WINDOWS_MAX);
        assert_int_equal(r->n_free, IOVA_RANGES_MAX);
        iommud__v1__query_windows_response__free_unpacked(r, NULL);
}

static void test_query_refused(void **state) {
        Iommud__V1__QueryWindowsRequest q = IOMMUD__V1__QUERY_WINDOWS_REQUEST__INIT;
        struct refusal refusal;

        (void)state;
        (void)refuse(&refusal, REFUSAL_UNKNOWN_DOMAIN, "no domain 12");
        fake_refuse(&refusal);
        assert_int_equal(call(CLIENT "QueryWindows", &q), REFUSAL_UNKNOWN_DOMAIN);
        assert_int_equal(call(OPERATOR "ListWindows", &q), REFUSAL_UNKNOWN_DOMAIN);
}

static void test_create(void **state) {
        Iommud__V1__CreateWindowRequest q = IOMMUD__V1__CREATE_WINDOW_REQUEST__INIT;
        Iommud__V1__CreateWindowResponse *r;
        static uint8_t key[16] = { 3 };

        (void)state;
        q.request_key = (ProtobufCBinaryData){ 16, key };
        q.domain = 12;
        q.page_shift = 24;
        q.min_page_size = 0x10000;
        q.size = 1ULL << 36;
        q.levels = 3;
        q.quota = 1 << 20;
        assert_int_equal(call(CLIENT "CreateWindow", &q), 0);
        assert_true(fake.key.present && fake.key.bytes[0] == 3);
        assert_int_equal(fake.window.domain, 12);
        assert_int_equal(fake.window.page_shift, 24);
        assert_int_equal(fake.window.min_page_size, 0x10000);
        assert_true(fake.window.size == 1ULL << 36);
        assert_int_equal(fake.window.levels, 3);
        assert_int_equal(fake.window.quota, 1 << 20);
        assert_false(fake.window.dry_run);
        r = iommud__v1__create_window_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->window->id, 5);
        assert_int_equal(r->window->start, 5ULL << 32);
        assert_int_equal(r->window->table_bytes, 0x3000);
        assert_string_equal(r->window->state, "live");
        iommud__v1__create_window_response__free_unpacked(r, NULL);
        q.dry_run = true;
        assert_int_equal(call(CLIENT "CreateWindow", &q), 0);
        assert_true(fake.window.dry_run);
        q.request_key.len = 7;
        assert_int_equal(call(CLIENT "CreateWindow", &q), REFUSAL_BAD_MESSAGE);
}

static void test_remove(void **state) {
        Iommud__V1__RemoveWindowRequest q = IOMMUD__V1__REMOVE_WINDOW_REQUEST__INIT;
        Iommud__V1__RemoveWindowResponse *r;
        static uint8_t key[16];

        (void)state;
        q.domain = 12;
        q.window = 99;
        assert_int_equal(call(CLIENT "RemoveWindow", &q), 0);
        assert_int_equal(fake.domain, 12);
        assert_int_equal(fake.object, 99);
        assert_false(fake.force);
        r = iommud__v1__remove_window_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->unmapped_bytes, 0x8000);
        assert_int_equal(r->mappings, 8);
        iommud__v1__remove_window_response__free_unpacked(r, NULL);
        q.force = true;
        assert_int_equal(call(CLIENT "RemoveWindow", &q), 0);
        assert_true(fake.force);
        q.request_key = (ProtobufCBinaryData){ 1, key };
        assert_int_equal(call(CLIENT "RemoveWindow", &q), REFUSAL_BAD_MESSAGE);
}

static void test_reset(void **state) {
        Iommud__V1__ResetWindowsRequest q = IOMMUD__V1__RESET_WINDOWS_REQUEST__INIT;
        Iommud__V1__ResetWindowsResponse *r;
        static uint8_t key[16];

        (void)state;
        q.domain = 12;
        assert_int_equal(call(CLIENT "ResetWindows", &q), 0);
        assert_int_equal(fake.domain, 12);
        assert_string_equal(fake.last, "windows_reset_request");
        r = iommud__v1__reset_windows_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->unmapped_bytes, 0x9000);
        assert_int_equal(r->mappings, 9);
        iommud__v1__reset_windows_response__free_unpacked(r, NULL);
        q.request_key = (ProtobufCBinaryData){ 1, key };
        assert_int_equal(call(CLIENT "ResetWindows", &q), REFUSAL_BAD_MESSAGE);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_query, fresh),
                cmocka_unit_test_setup(test_the_operator_sees_any_domain, fresh),
                cmocka_unit_test_setup(test_as_many_as_there_can_be, fresh),
                cmocka_unit_test_setup(test_query_refused, fresh),
                cmocka_unit_test_setup(test_create, fresh),
                cmocka_unit_test_setup(test_remove, fresh),
                cmocka_unit_test_setup(test_reset, fresh),
        };
        return cmocka_run_group_tests(tests, start, stop);
}
