/* SPDX-License-Identifier: Apache-2.0 */
/* link: sdk proto broker */
/* The library's calls for windows: what reaches the service, what comes back, and the errors that are theirs alone. (The
 * broker's layer is named above for -lgrpc alone.) */
#include "../lib/fakes/fake_service.c"

static void check_window(const struct iommud_window *w) {
        assert_int_equal(w->id, 21);
        assert_true(w->start == 1ULL << 59);
        assert_true(w->length == 1ULL << 36);
        assert_int_equal(w->page_shift, 16);
        assert_int_equal(w->levels, 2);
        assert_int_equal(w->mappings, 3);
        assert_int_equal(w->mapped_bytes, 0x30000);
        assert_int_equal(w->quota, 0x100000);
        assert_int_equal(w->table_bytes, 0x8000);
        assert_int_equal(w->is_default, 0);
}

static void test_query(void **state) {
        struct fixture *f = *state;
        struct iommud_window_limits limits = { .size = sizeof limits };
        Iommud__V1__QueryWindowsRequest *q;
        struct iommud_window *windows;
        size_t n;

        assert_int_equal(iommud_window_query(f->domain, &windows, &n, NULL), 0);
        iommud_window_list_free(windows);
        assert_int_equal(iommud_window_query(f->domain, &windows, &n, &limits), 0);
        q = ASKED(QueryWindows, query_windows);
        assert_int_equal(q->domain, 7);
        iommud__v1__query_windows_request__free_unpacked(q, NULL);
        assert_int_equal(n, 1);
        check_window(&windows[0]);
        iommud_window_list_free(windows);
        assert_int_equal(limits.can_create, 4);
        assert_int_equal(limits.page_sizes, 0x11000);
        assert_true(limits.largest == 1ULL << 43);
        assert_int_equal(limits.levels_max, 5);
        iommud_window_list_free(NULL);
}

static void test_create(void **state) {
        struct fixture *f = *state;
        struct iommud_window_options o = { .size = sizeof o, .length = 1ULL << 36, .page_shift = 16, .levels = 2,
                                           .min_page_size = 0x8000, .quota = 0x100000 };
        Iommud__V1__CreateWindowRequest *q;
        struct iommud_window w;

        assert_int_equal(iommud_window_create(f->domain, &o, &w), 0);
        check_window(&w);
        q = ASKED(CreateWindow, create_window);
        assert_int_equal(q->domain, 7);
        assert_true(q->size == 1ULL << 36);
        assert_int_equal(q->page_shift, 16);
        assert_int_equal(q->levels, 2);
        assert_int_equal(q->min_page_size, 0x8000);
        assert_int_equal(q->quota, 0x100000);
        assert_false(q->dry_run);
        assert_int_equal(q->request_key.len, 16);
        iommud__v1__create_window_request__free_unpacked(q, NULL);
        assert_int_equal(iommud_window_create(f->domain, &o, NULL), 0);
}

static void test_remove_and_reset(void **state) {
        struct fixture *f = *state;
        Iommud__V1__RemoveWindowRequest *r;
        Iommud__V1__ResetWindowsRequest *q;

        assert_int_equal(iommud_window_remove(f->domain, 21, 0), 0);
        r = ASKED(RemoveWindow, remove_window);
        assert_true(r->domain == 7 && r->window == 21 && !r->force && r->request_key.len == 16);
        iommud__v1__remove_window_request__free_unpacked(r, NULL);
        assert_int_equal(iommud_window_remove(f->domain, 21, 2), 0);
        r = ASKED(RemoveWindow, remove_window);
        assert_true(r->force);
        iommud__v1__remove_window_request__free_unpacked(r, NULL);
        assert_int_equal(iommud_window_reset(f->domain), 0);
        q = ASKED(ResetWindows, reset_windows);
        assert_true(q->domain == 7 && q->request_key.len == 16);
        iommud__v1__reset_windows_request__free_unpacked(q, NULL);
}

static void test_errors_of_windows(void **state) {
        struct fixture *f = *state;
        struct iommud_window_options o = { .size = sizeof o, .length = 12345 };
        struct iommud_window w = { .id = 42 };

        refuse_next(1, GRPC_STATUS_INVALID_ARGUMENT, IOMMUD_REASON_WINDOW_SIZE);
        assert_int_equal(iommud_window_create(f->domain, &o, &w), -E2BIG);
        assert_int_equal(w.id, 42);
        assert_string_equal(detail().call, "iommud_window_create");
        refuse_next(1, GRPC_STATUS_RESOURCE_EXHAUSTED, IOMMUD_REASON_WINDOW_LIMIT);
        assert_int_equal(iommud_window_create(f->domain, &o, &w), -ENOSPC);
        refuse_next(1, GRPC_STATUS_INVALID_ARGUMENT, IOMMUD_REASON_WINDOW_PAGE);
        assert_int_equal(iommud_window_create(f->domain, &o, &w), -EINVAL);
        refuse_next(1, GRPC_STATUS_NOT_FOUND, IOMMUD_REASON_UNKNOWN_WINDOW);
        assert_int_equal(iommud_window_remove(f->domain, 21, 0), -ENOENT);
        refuse_next(1, GRPC_STATUS_FAILED_PRECONDITION, IOMMUD_REASON_IN_USE);
        assert_int_equal(iommud_window_remove(f->domain, 21, 0), -EBUSY);
}

static void test_bad_arguments(void **state) {
        struct fixture *f = *state;
        struct iommud_window_limits unset = { .size = 0 };
        struct iommud_window_options o = { .size = sizeof o, .length = 1 << 20 }, wrong = { .length = 1 << 20 };
        struct iommud_window *windows;
        struct iommud_window w;
        size_t n;

        n_calls = 0;
        assert_int_equal(iommud_window_query(NULL, &windows, &n, NULL), -EINVAL);
        assert_int_equal(iommud_window_query(f->domain, NULL, &n, NULL), -EINVAL);
        assert_int_equal(iommud_window_query(f->domain, &windows, NULL, NULL), -EINVAL);
        assert_int_equal(iommud_window_query(f->domain, &windows, &n, &unset), -EINVAL);
        assert_int_equal(iommud_window_create(NULL, &o, &w), -EINVAL);
        assert_int_equal(iommud_window_create(f->domain, NULL, &w), -EINVAL);
        assert_int_equal(iommud_window_create(f->domain, &wrong, &w), -EINVAL);
        assert_int_equal(iommud_window_remove(NULL, 1, 0), -EINVAL);
        assert_int_equal(iommud_window_reset(NULL), -EINVAL);
        assert_int_equal(n_calls, 0);
}

static void test_service_without_windows(void **state) {
        struct iommud_window_options o = { .size = sizeof o, .length = 1 << 20 };
        struct iommud_client *client;
        struct iommud_domain *domain;
        struct iommud_window *windows;
        size_t n;

        (void)state;
        have_capabilities(0x1ff);
        assert_int_equal(connect_to_it(&client), 0);
        assert_int_equal(iommud_domain_create(client, NULL, &domain), 0);
        n_calls = 0;
        assert_int_equal(iommud_window_query(domain, &windows, &n, NULL), -ENOTSUP);
        assert_int_equal(iommud_window_create(domain, &o, NULL), -ENOTSUP);
        assert_int_equal(iommud_window_remove(domain, 1, 0), -ENOTSUP);
        assert_int_equal(iommud_window_reset(domain), -ENOTSUP);
        assert_int_equal(n_calls, 0);
        iommud_close(client);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        const struct CMUnitTest tests[] = {
                T(test_query),
                T(test_create),
                T(test_remove_and_reset),
                T(test_errors_of_windows),
                T(test_bad_arguments),
                T(test_service_without_windows),
        };
#undef T
        return cmocka_run_group_tests(tests, start_service, stop_service);
}
