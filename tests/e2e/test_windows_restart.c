/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * I6 for windows: the service is killed at any moment, and windows are what they were; what was under way is there wholly or
 * not at all, and the client learns which. IOMMUD_TEST_SEED replays the moments, IOMMUD_TEST_ROUNDS asks for more of them.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/edu.h"
#include "lib/job.h"
#include "lib/raw_client.h"
#include "lib/window_life.h"

#define GIB UINT64_C(0x40000000)

static const struct service_options ranges = { .soft = "devices = edu0\ndma_delay_us = 1\n" };
static const struct service_options power = { .soft = "windows = spapr\ndevices = edu0\ndma_delay_us = 1\n" };

static void restart(struct service *s) {
        service_kill(s);
        service_launch(s);
        service_wait_recovered(s);
        service_assert_ledger(s);
}

static size_t list(struct iommud_domain *domain, struct iommud_window *ret) {
        struct iommud_window *windows;
        size_t n;

        must(iommud_window_query(domain, &windows, &n, NULL));
        assert_in_range(n, 0, 64);
        if (n > 0)
                memcpy(ret, windows, n * sizeof *ret);
        iommud_window_list_free(windows);
        return n;
}

static void assert_same(struct job *j, const struct iommud_window *before, size_t n, const struct job_snapshot *used) {
        struct iommud_window after[64];

        job_assert_unchanged(j, used);          /* waits for the recovery by itself */
        assert_int_equal(list(j->domain, after), n);
        assert_memory_equal(after, before, n * sizeof *after);
}

static void remove_default(struct iommud_domain *domain) {
        struct iommud_window windows[64];
        size_t n = list(domain, windows);

        for (size_t i = 0; i < n; i++)
                if (windows[i].is_default)
                        must(iommud_window_remove(domain, windows[i].id, 1));
}

static void windows_are_what_they_were(const struct service_options *o) {
        const struct iommud_window_options quota = { .size = sizeof quota, .length = 2 * GIB, .quota = 16 * PAGE };
        struct service *s = service_start(o);
        struct iommud_window before[64], w;
        struct job_snapshot used;
        struct job j;
        size_t n;

        job_begin(&j, s->client, "edu0", (uint64_t)32 * PAGE);
        job_snapshot(&j, &used);
        n = list(j.domain, before);
        restart(s);
        assert_same(&j, before, n, &used);
        remove_default(j.domain);
        must(iommud_window_create(j.domain, &quota, &w));
        must(iommud_map(j.domain, w.start + GIB, j.memory, 0, 8 * PAGE, IOMMUD_READ_WRITE));
        n = list(j.domain, before);
        assert_int_equal(n, 1);
        assert_int_equal(before[0].mappings, 1);
        job_snapshot(&j, &used);
        for (int i = 0; i < 2; i++) {
                restart(s);
                assert_same(&j, before, n, &used);
                memset(j.bytes, 0x40 + i, EDU_BLOCK);
                must(edu_transfer(j.device, w.start + GIB, EDU_BLOCK, false));
                must(edu_transfer(j.device, w.start + GIB + 7 * PAGE, EDU_BLOCK, true));
                assert_int_equal(j.bytes[7 * PAGE], 0x40 + i);
        }
        refused(iommud_map(j.domain, w.start, j.memory, 0, 9 * PAGE, IOMMUD_READ), EDQUOT, IOMMUD_REASON_QUOTA_EXCEEDED, NULL);
        refused(iommud_window_remove(j.domain, w.id, 0), EBUSY, IOMMUD_REASON_IN_USE, NULL);
        must(iommud_window_reset(j.domain));
        job_assert_no_dma(&j, w.start + GIB);
        restart(s);
        n = list(j.domain, before);
        assert_int_equal(n, 1);
        assert_true(before[0].is_default);
        job_map(&j);
        job_assert_dma(&j, JOB_IOVA, 0, 16 * PAGE);
        job_end(&j);
        service_end(s);
}

static void test_ranges(void **state) {
        (void)state;
        windows_are_what_they_were(&ranges);
}

static void test_power(void **state) {
        (void)state;
        windows_are_what_they_were(&power);
}

/* ---- repeated requests ---- */

static unsigned create(struct raw_client *c, uint8_t *key, uint64_t domain, Iommud__V1__CreateWindowResponse **ret) {
        Iommud__V1__CreateWindowRequest request = IOMMUD__V1__CREATE_WINDOW_REQUEST__INIT;
        struct raw_refusal r;

        request.request_key = (ProtobufCBinaryData){ 16, key };
        request.domain = domain;
        request.size = GIB;
        if (raw_call(c, "CreateWindow", &request.base, &iommud__v1__create_window_response__descriptor,
                     (ProtobufCMessage **)ret, &r) == 0)
                return 0;
        return r.reason;
}

static unsigned reset(struct raw_client *c, uint8_t *key, uint64_t domain, uint64_t *ret_mappings) {
        Iommud__V1__ResetWindowsRequest request = IOMMUD__V1__RESET_WINDOWS_REQUEST__INIT;
        Iommud__V1__ResetWindowsResponse *answer;
        struct raw_refusal r;

        request.request_key = (ProtobufCBinaryData){ 16, key };
        request.domain = domain;
        if (raw_call(c, "ResetWindows", &request.base, &iommud__v1__reset_windows_response__descriptor,
                     (ProtobufCMessage **)&answer, &r) != 0)
                return r.reason;
        *ret_mappings = answer->mappings;
        iommud__v1__reset_windows_response__free_unpacked(answer, NULL);
        return 0;
}

static void test_repeated_keys_have_one_effect(void **state) {
        struct service *s = service_start(&power);
        Iommud__V1__CreateWindowResponse *first, *again;
        uint64_t domain, memory, attachment, n;
        uint8_t key[16] = { 1 }, reset_key[16] = { 2 };
        int fd = raw_memfd(PAGE);
        struct raw_client c;

        (void)state;
        raw_open(&c, s->client);
        raw_must(raw_create_domain(&c, NULL, &domain));
        raw_must(raw_register(&c, NULL, fd, PAGE, &memory));
        raw_must(raw_attach(&c, NULL, domain, "edu0", &attachment));
        raw_must(create(&c, key, domain, &first));
        raw_must(raw_map(&c, NULL, domain, JOB_IOVA, memory, PAGE));
        restart(s);
        raw_reconnect(&c);
        raw_must(create(&c, key, domain, &again));
        assert_int_equal(again->window->id, first->window->id);
        assert_int_equal(again->window->start, first->window->start);
        assert_int_equal(again->window->size, GIB);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_WINDOWS), 1);
        iommud__v1__create_window_response__free_unpacked(again, NULL);
        raw_must(reset(&c, reset_key, domain, &n));
        assert_int_equal(n, 1);
        raw_must(raw_map(&c, NULL, domain, JOB_IOVA, memory, PAGE));
        restart(s);
        raw_reconnect(&c);
        raw_must(reset(&c, reset_key, domain, &n));     /* the first answer, and no second effect */
        assert_int_equal(n, 1);
        assert_int_equal(service_used(s, "me", IOMMUD_RESOURCE_MAPPINGS), 1);
        assert_int_equal(reset(&c, key, domain, &n), IOMMUD_REASON_KEY_REUSED);
        iommud__v1__create_window_response__free_unpacked(first, NULL);
        raw_close(&c);
        close(fd);
        service_end(s);
}

/* ---- under way ---- */

static void killed_at_any_moment(const struct service_options *o) {
        const char *more = getenv("IOMMUD_TEST_ROUNDS");
        int rounds = more ? atoi(more) : 12;
        uint64_t seed = harness_seed();
        struct service *s = service_start(o);
        struct window_life life;
        struct job j;

        job_begin(&j, s->client, "edu0", PAGE);
        window_life_start(&life, &j);
        for (int i = 0; i < rounds && !atomic_load(&life.failed); i++) {
                unsigned long before = atomic_load(&life.rounds);
                const struct timespec t = { .tv_nsec = (long)(harness_random(&seed) % 20000000) };

                nanosleep(&t, NULL);
                restart(s);
                wait_for(atomic_load(&life.rounds) > before + 1 || atomic_load(&life.failed));
        }
        window_life_stop(&life);
        if (atomic_load(&life.failed))
                fail_msg("%s", life.text);
        assert_int_equal(job_mappings(j.domain), 0);
        assert_int_equal(job_windows(j.domain, NULL), 1);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_WINDOWS), 0);
        job_end(&j);
        service_end(s);
}

static void test_ranges_at_any_moment(void **state) {
        (void)state;
        killed_at_any_moment(&ranges);
}

static void test_power_at_any_moment(void **state) {
        (void)state;
        killed_at_any_moment(&power);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_ranges, harness_teardown),
                cmocka_unit_test_teardown(test_power, harness_teardown),
                cmocka_unit_test_teardown(test_repeated_keys_have_one_effect, harness_teardown),
                cmocka_unit_test_teardown(test_ranges_at_any_moment, harness_teardown),
                cmocka_unit_test_teardown(test_power_at_any_moment, harness_teardown),
        };

        return cmocka_run_group_tests_name("windows and restarts", tests, NULL, NULL);
}
