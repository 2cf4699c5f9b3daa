/* SPDX-License-Identifier: Apache-2.0 */
/* link: sdk proto broker */
/*
 * The library against a service that does what the test says: refusals, restarts, silence, a session that ends. (The
 * broker's layer is named above for -lgrpc alone.)
 */
#include "../lib/fakes/fake_service.c"

static void test_nobody_listens(void **state) {
        struct iommud_connect_options options = { .size = sizeof options, .directory = "/nowhere/at/all" };
        struct iommud_client *client = NULL;

        (void)state;
        assert_int_equal(iommud_connect(&options, &client), -ENOENT);
        assert_null(client);
        assert_non_null(strstr(iommud_last_error(), "/nowhere/at/all/session.sock"));
        assert_string_equal(detail().call, "iommud_connect");
}

static void test_session_refused(void **state) {
        struct iommud_client *client = NULL;

        (void)state;
        {
                LOCK_SCOPE(&service.lock);
                service.refuse_session = IOMMUD_REASON_UNKNOWN_PEER;
        }
        assert_int_equal(connect_to_it(&client), -EACCES);
        assert_int_equal(detail().reason, IOMMUD_REASON_UNKNOWN_PEER);
        assert_string_equal(iommud_last_error(), "no rule makes uid 1 a tenant");
}

/* gRPC takes its target for a URI. */
static void test_odd_directory(void **state) {
        struct iommud_connect_options options = { .size = sizeof options, .timeout_ms = TIMEOUT_MS };
        struct iommud_client *client;
        char odd[128];

        (void)state;
        snprintf(odd, sizeof odd, "%s/a %%41?b#c\xc3\xa4", directory);
        assert_int_equal(symlink(directory, odd), 0);
        options.directory = odd;
        assert_int_equal(iommud_connect(&options, &client), 0);
        iommud_close(client);
        assert_int_equal(unlink(odd), 0);
}

static void test_every_call(void **state) {
        struct fixture *f = *state;
        struct iommud_constraints constraints = { .size = sizeof constraints };
        struct iommud_domain_info info = { .size = sizeof info };
        struct iommud_attachment *attachment;
        struct iommud_mapping *mappings;
        struct iommud_device *devices;
        struct iommud_quota quotas[8];
        uint64_t value;
        size_t n;

        assert_int_equal(iommud_domain_id(f->domain), 7);
        assert_int_equal(iommud_capabilities(f->client, NULL, &constraints), 0);
        assert_int_equal(constraints.ranges[0].last, 0xfffff);
        assert_int_equal(iommud_domain_info(f->domain, &info), 0);
        assert_string_equal(info.label, "a label");
        n = ARRAY_SIZE(quotas);
        assert_int_equal(iommud_quota_get(f->client, quotas, &n), 0);
        assert_int_equal(n, 1);
        assert_int_equal(quotas[0].limit, 100);
        assert_int_equal(iommud_device_list(f->client, &devices, &n), 0);
        assert_string_equal(devices[0].name, "edu0");
        iommud_device_list_free(devices, n);
        assert_int_equal(iommud_device_attach(f->domain, "edu0", &attachment), 0);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ_WRITE), 0);
        assert_int_equal(iommud_mapping_list(f->domain, &mappings, &n), 0);
        assert_int_equal(mappings[0].iova, 0x1000);
        assert_int_equal(mappings[0].live, 1);
        iommud_mapping_list_free(mappings);
        assert_int_equal(iommud_unmap(f->domain, 0x1000, 4096), 0);
        assert_int_equal(iommud_unmap_all(f->domain, &value), 0);
        assert_int_equal(value, 4096);
        assert_int_equal(iommud_device_detach(attachment), 0);
        assert_int_equal(iommud_memory_close(f->memory), 0);
        assert_int_equal(iommud_domain_destroy(f->domain), 0);
}

static void test_device(void **state) {
        struct fixture *f = *state;
        struct iommud_attachment *a;
        uint64_t value = 0;
        int fd = -1;

        assert_int_equal(iommud_device_attach(f->domain, "edu0", &a), 0);
        assert_int_equal(iommud_device_region_size(a, 0, &value), 0);
        assert_int_equal(value, 128);
        assert_int_equal(iommud_device_region_read(a, 0, 0, 8, &value), 0);
        assert_int_equal(value, 0x010000ed);
        assert_int_equal(iommud_device_region_write(a, 0, 8, 8, 0x1122334455667788), 0);
        assert_int_equal(iommud_device_region_read(a, 0, 8, 8, &value), 0);
        assert_int_equal(value, 0x1122334455667788);
        assert_int_equal(iommud_device_region_read(a, 0, 2, 4, &value), -EINVAL);      /* not aligned */
        assert_int_equal(iommud_device_region_read(a, 0, 0, 3, &value), -EINVAL);
        assert_int_equal(iommud_device_region_read(a, 0, 0, 0, &value), -EINVAL);
        assert_int_equal(iommud_device_region_read(a, 0, 120, 8, &value), 0);          /* the last register ... */
        assert_int_equal(iommud_device_region_read(a, 0, 128, 8, &value), -EINVAL);    /* ... and beyond */
        assert_int_equal(iommud_device_region_read(a, 0, UINT64_MAX - 7, 8, &value), -EINVAL);
        assert_int_equal(iommud_device_region_read(a, 1, 0, 4, &value), -EINVAL);      /* no such region */
        assert_int_equal(iommud_device_region_read(a, 9, 0, 4, &value), -EINVAL);
        assert_int_equal(iommud_device_fd(a, &fd), -ENOTSUP);
        assert_int_equal(iommud_domain_destroy(f->domain), 0);
        /* the attachment went with its domain: the handle is still there, the device is not */
        assert_int_equal(iommud_device_region_read(a, 0, 0, 4, &value), -ENODEV);
        assert_int_equal(iommud_device_detach(a), 0);
}

static void test_refusal_tells_why(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entry = { .iova = 0x1000, .memory = f->memory, .length = 4096, .access = IOMMUD_READ };
        struct iommud_error e;

        refuse_next(2, GRPC_STATUS_RESOURCE_EXHAUSTED, IOMMUD_REASON_QUOTA_EXCEEDED);
        assert_int_equal(iommud_map_batch(f->domain, &entry, 1), -EDQUOT);
        e = detail();
        assert_int_equal(e.reason, IOMMUD_REASON_QUOTA_EXCEEDED);
        assert_int_equal(e.resource, IOMMUD_RESOURCE_LOCKED_BYTES);
        assert_int_equal(e.element, 3);
        assert_int_equal(e.limit, 100);
        assert_int_equal(e.error, -EDQUOT);
        assert_true(e.conflict_first > e.conflict_last);
        assert_string_equal(e.text, "too much");
        assert_string_equal(e.call, "iommud_map_batch");
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), -EDQUOT);
        assert_int_equal(detail().element, -1);
}

static void test_unreadable_refusal(void **state) {
        struct fixture *f = *state;

        refuse_next(1, GRPC_STATUS_INVALID_ARGUMENT, 0);
        {
                LOCK_SCOPE(&service.lock);
                service.details = "\xff\xff\xff\xff\xff";
                service.n_details = 5;
        }
        assert_int_equal(iommud_unmap(f->domain, 0, 4096), -EINVAL);
        assert_int_equal(detail().reason, 0);
}

static void test_mapped_memory_refuses_to_close(void **state) {
        struct fixture *f = *state;

        refuse_next(1, GRPC_STATUS_FAILED_PRECONDITION, IOMMUD_REASON_IN_USE);
        assert_int_equal(iommud_memory_close(f->memory), -EBUSY);
        memset(iommud_memory_addr(f->memory), 1, 8192);        /* still there */
        refuse_next(1, GRPC_STATUS_NOT_FOUND, IOMMUD_REASON_UNKNOWN_MEMORY);
        assert_int_equal(iommud_memory_close(f->memory), 0);   /* gone is gone */
}

static void test_failed_registration_drops_the_ticket(void **state) {
        struct fixture *f = *state;
        struct iommud_memory *m = NULL;
        int dropped = n_tickets_dropped;

        refuse_next(1, GRPC_STATUS_FAILED_PRECONDITION, IOMMUD_REASON_MEMORY_HOLES);
        assert_int_equal(iommud_memory_alloc(f->client, 4096, NULL, &m), -EFAULT);
        assert_null(m);
        for (int i = 0; i < 1000 && n_tickets_dropped == dropped; i++)
                clock_sleep(1);
        assert_int_equal(n_tickets_dropped, dropped + 1);
}

static void test_recovering_is_waited_for(void **state) {
        struct fixture *f = *state;

        refuse_next(3, GRPC_STATUS_UNAVAILABLE, IOMMUD_REASON_RECOVERING);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), 0);
        LOCK_SCOPE(&service.lock);
        assert_int_equal(service.n_keys, 4);
        for (size_t i = 1; i < 4; i++)
                assert_memory_equal(service.keys[i], service.keys[0], 16);
}

static void test_other_unavailability_is_told(void **state) {
        struct fixture *f = *state;

        refuse_next(1, GRPC_STATUS_UNAVAILABLE, IOMMUD_REASON_LEDGER_UNAVAILABLE);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), -EAGAIN);
        refuse_next(1, GRPC_STATUS_ABORTED, IOMMUD_REASON_IN_PROGRESS);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), -EAGAIN);
}

static void test_new_call_new_key(void **state) {
        struct fixture *f = *state;

        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), 0);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), 0);
        LOCK_SCOPE(&service.lock);
        assert_memory_not_equal(service.keys[0], service.keys[1], 16);
}

static void *restart_later(void *arg) {
        (void)arg;
        clock_sleep(100);
        stop_server();
        silent = false;
        clock_sleep(100);
        start_server();
        return NULL;
}

/* A call is under way, and unanswered, when the service goes; it is repeated with its key when the service is back. */
static void test_restart(void **state) {
        struct fixture *f = *state;
        int64_t begin = clock_now(), took;
        pthread_t t;

        silent = true;
        assert_int_equal(pthread_create(&t, NULL, restart_later, NULL), 0);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), 0);
        took = clock_now() - begin - 200;
        pthread_join(t, NULL);
        print_message("reconnected %lld ms after the service was back\n", (long long)took);
        assert_true(took < 1000);
        LOCK_SCOPE(&service.lock);
        assert_int_equal(service.n_keys, 1);    /* the silent service did not note its own */
}

static void test_restart_while_idle(void **state) {
        struct fixture *f = *state;
        struct iommud_quota quota;
        size_t n = 1;

        stop_server();
        start_server();
        assert_int_equal(iommud_quota_get(f->client, &quota, &n), 0);
}

static void test_deadline(void **state) {
        struct fixture *f = *state;
        int64_t begin = clock_now(), took;

        silent = true;
        assert_int_equal(iommud_unmap(f->domain, 0, 4096), -ETIMEDOUT);
        took = clock_now() - begin;
        assert_in_range(took, TIMEOUT_MS - 50, TIMEOUT_MS + 1000);
        assert_non_null(strstr(iommud_last_error(), "3000 ms"));
        silent = false;
        assert_int_equal(iommud_unmap(f->domain, 0, 4096), 0);
}

static void test_silent_holder(void **state) {
        struct fixture *f = *state;
        struct iommud_memory *m;

        deaf = true;
        assert_int_equal(iommud_memory_alloc(f->client, 4096, NULL, &m), -ETIMEDOUT);
}

static void *end_later(void *arg) {
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_ENDED,
                                 .reason = IOMMUD_REASON_NOT_PERMITTED, .text = "taken away by an operator" };
        int how = (int)(intptr_t)arg;

        clock_sleep(50);
        LOCK_SCOPE(&service.lock);
        if (how)
                send_with_fd(service.sessions[0], &m, -1);
        else
                shutdown(service.sessions[0], SHUT_RDWR);
        return NULL;
}

static void check_ended(struct fixture *f, int how, unsigned reason, const char *text) {
        int64_t begin = clock_now();
        struct iommud_memory *m;
        pthread_t t;

        silent = true;
        assert_int_equal(pthread_create(&t, NULL, end_later, (void *)(intptr_t)how), 0);
        assert_int_equal(iommud_unmap(f->domain, 0, 4096), -ECONNRESET);
        assert_int_equal(detail().reason, reason);
        assert_non_null(strstr(iommud_last_error(), text));
        assert_int_equal(iommud_memory_alloc(f->client, 4096, NULL, &m), -ECONNRESET);
        assert_int_equal(iommud_domain_destroy(f->domain), -ECONNRESET);
        assert_true(clock_now() - begin < TIMEOUT_MS / 2);
        pthread_join(t, NULL);
}

static void test_session_ended(void **state) {
        check_ended(*state, 1, IOMMUD_REASON_NOT_PERMITTED, "taken away");
}

static void test_session_hung_up(void **state) {
        check_ended(*state, 0, IOMMUD_REASON_HOLDER_LOST, "holder");
}

static void test_close_keeps_the_error(void **state) {
        struct fixture *f = *state;
        struct iommud_client *second;

        assert_int_equal(connect_to_it(&second), 0);
        refuse_next(2, GRPC_STATUS_INVALID_ARGUMENT, IOMMUD_REASON_UNALIGNED);
        assert_int_equal(iommud_unmap(f->domain, 1, 1), -EINVAL);
        iommud_close(second);   /* its farewell is refused */
        assert_string_equal(detail().call, "iommud_unmap");
        assert_int_equal(detail().reason, IOMMUD_REASON_UNALIGNED);
}

static void test_objects_of_two_clients(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entries[2] = { { .memory = f->memory, .length = 4096, .access = IOMMUD_READ } };
        struct iommud_client *second;
        struct iommud_memory *foreign;

        assert_int_equal(connect_to_it(&second), 0);
        assert_int_equal(iommud_memory_alloc(second, 4096, NULL, &foreign), 0);
        n_calls = 0;
        assert_int_equal(iommud_map(f->domain, 0x1000, foreign, 0, 4096, IOMMUD_READ), -EINVAL);
        entries[1] = entries[0];
        entries[1].memory = foreign;
        assert_int_equal(iommud_map_batch(f->domain, entries, 2), -EINVAL);
        assert_int_equal(detail().element, 1);
        assert_int_equal(n_calls, 0);
        iommud_close(second);
}

static void test_batch_sizes(void **state) {
        struct fixture *f = *state;
        struct iommud_unmap_entry *entries = calloc(1025, sizeof *entries);

        assert_int_equal(iommud_unmap_batch(f->domain, entries, 1025), -EINVAL);
        assert_int_equal(detail().reason, IOMMUD_REASON_BATCH_TOO_LARGE);
        assert_int_equal(iommud_unmap_batch(f->domain, entries, 1024), 0);
        n_calls = 0;
        assert_int_equal(iommud_map_batch(f->domain, NULL, 0), 0);
        assert_int_equal(n_calls, 0);
        free(entries);
}

static void test_bad_arguments(void **state) {
        struct fixture *f = *state;
        struct iommud_memory_options odd = { .size = sizeof odd, .huge_page_size = 12345 }, unset = { .name = "x" };
        struct iommud_memory *m;

        assert_int_equal(iommud_memory_alloc(f->client, 0, NULL, &m), -EINVAL);
        assert_int_equal(iommud_memory_alloc(f->client, UINT64_MAX, NULL, &m), -EINVAL);
        assert_int_equal(iommud_memory_alloc(f->client, 4096, &odd, &m), -EINVAL);
        assert_int_equal(iommud_memory_alloc(f->client, 4096, &unset, &m), -EINVAL);
        assert_int_equal(iommud_memory_import(f->client, -1, 4096, NULL, &m), -EBADF);
        assert_int_equal(iommud_memory_import(f->client, 12345, 4096, NULL, &m), -EBADF);
        assert_int_equal(iommud_map(NULL, 0, f->memory, 0, 4096, IOMMUD_READ), -EINVAL);
        assert_int_equal(iommud_map(f->domain, 0, NULL, 0, 4096, IOMMUD_READ), -EINVAL);
        assert_int_equal(iommud_domain_destroy(NULL), 0);
        assert_int_equal(iommud_device_detach(NULL), 0);
        assert_int_equal(iommud_memory_close(NULL), 0);
        iommud_close(NULL);
}

static void *call_often(void *arg) {
        struct fixture *f = arg;
        intptr_t failed = 0;

        for (int i = 0; i < 200; i++) {
                failed += iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ) != 0;
                if (i % 50 == 0) {
                        struct iommud_memory *m;

                        failed += iommud_memory_alloc(f->client, 4096, NULL, &m) != 0 || iommud_memory_close(m) != 0;
                }
        }
        return (void *)failed;
}

static void test_many_threads(void **state) {
        int64_t begin = clock_now();
        pthread_t threads[24];
        void *failed;

        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
                assert_int_equal(pthread_create(&threads[i], NULL, call_often, *state), 0);
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
                pthread_join(threads[i], &failed);
                assert_null(failed);
        }
        print_message("%zu calls of 24 threads: %.1f us each\n", ARRAY_SIZE(threads) * 200,
                      (double)(clock_now() - begin) * 1000 / (double)(ARRAY_SIZE(threads) * 200));
        begin = clock_now();
        assert_null(call_often(*state));
        print_message("200 calls of one thread: %.1f us each\n", (double)(clock_now() - begin) * 1000 / 200);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nobody_listens),
                cmocka_unit_test(test_session_refused),
                T(test_odd_directory),
                T(test_every_call),
                T(test_device),
                T(test_refusal_tells_why),
                T(test_unreadable_refusal),
                T(test_mapped_memory_refuses_to_close),
                T(test_failed_registration_drops_the_ticket),
                T(test_recovering_is_waited_for),
                T(test_other_unavailability_is_told),
                T(test_new_call_new_key),
                T(test_restart),
                T(test_restart_while_idle),
                T(test_deadline),
                T(test_silent_holder),
                T(test_session_ended),
                T(test_session_hung_up),
                T(test_close_keeps_the_error),
                T(test_objects_of_two_clients),
                T(test_batch_sizes),
                T(test_bad_arguments),
                T(test_many_threads),
        };
#undef T
        return cmocka_run_group_tests(tests, start_service, stop_service);
}
