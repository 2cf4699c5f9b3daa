/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Two threads create and remove windows while a third maps: every answer is one that the contract has, nothing is mapped outside
 * of a window, and at the end the counts are right.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/edu.h"
#include "lib/job.h"

#define MIB UINT64_C(0x100000)
#define ROUNDS 150

struct shared {
        struct iommud_domain *domain;
        struct iommud_memory *memory;
        atomic_ulong created, removed, mapped, refused;
        atomic_int makers;              /* still at it */
        atomic_bool failed;
        pthread_mutex_t lock;
        char text[512];
};

static void note_failure(struct shared *s, const char *what) {
        pthread_mutex_lock(&s->lock);
        if (!atomic_load(&s->failed))
                (void)snprintf(s->text, sizeof s->text, "%s: %s", what, iommud_last_error());
        pthread_mutex_unlock(&s->lock);
        atomic_store(&s->failed, true);
}

static enum iommud_reason last_reason(void) {
        struct iommud_error e = { .size = sizeof e };

        return iommud_error_detail(&e) == 0 ? e.reason : IOMMUD_REASON_UNSPECIFIED;
}

/* Creates one, and removes it with whatever the third has mapped there meanwhile. */
static bool make_one(struct shared *s, const struct iommud_window_options *options) {
        struct iommud_window w;

        if (iommud_window_create(s->domain, options, &w) < 0) {
                if (last_reason() != IOMMUD_REASON_WINDOW_LIMIT)
                        note_failure(s, "create");
                return !atomic_load(&s->failed);
        }
        atomic_fetch_add(&s->created, 1);
        while (iommud_window_remove(s->domain, w.id, 1) < 0)
                if (last_reason() != IOMMUD_REASON_IN_PROGRESS) {       /* a mapping is on its way in it */
                        note_failure(s, "remove");
                        return false;
                }
        atomic_fetch_add(&s->removed, 1);
        return true;
}

static void *make(void *arg) {
        const struct iommud_window_options options = { .size = sizeof options, .length = 16 * MIB };
        struct shared *s = arg;

        for (int i = 0; i < ROUNDS && make_one(s, &options); i++)
                ;
        atomic_fetch_sub(&s->makers, 1);
        return NULL;
}

static void *map(void *arg) {
        const struct iommud_map_options options = { .size = sizeof options, .flags = IOMMUD_MAP_ANYWHERE };
        struct shared *s = arg;
        const struct iommud_map_entry e = { .memory = s->memory, .length = PAGE, .access = IOMMUD_READ };

        while (atomic_load(&s->makers) > 0 && !atomic_load(&s->failed)) {
                enum iommud_reason reason;

                if (iommud_map_with(s->domain, &e, 1, &options, NULL) == 0) {
                        atomic_fetch_add(&s->mapped, 1);
                        continue;
                }
                reason = last_reason();
                if (reason != IOMMUD_REASON_NO_WINDOW && reason != IOMMUD_REASON_IN_PROGRESS &&
                    reason != IOMMUD_REASON_LIMIT_EXCEEDED && reason != IOMMUD_REASON_QUOTA_EXCEEDED)
                        note_failure(s, "map");
                atomic_fetch_add(&s->refused, 1);
        }
        return NULL;
}

static void run(const char *soft) {
        struct service *service = service_start(&(struct service_options){ .soft = soft, .defaults = "mappings = 5000\n" });
        struct shared s = { .lock = PTHREAD_MUTEX_INITIALIZER };
        pthread_t threads[3];
        struct job j;

        atomic_init(&s.makers, 2);
        job_begin(&j, service->client, "edu0", PAGE);
        s.domain = j.domain;
        s.memory = j.memory;
        if (job_windows(j.domain, NULL) == 1) {
                struct iommud_window *windows;
                size_t n;

                must(iommud_window_query(j.domain, &windows, &n, NULL));
                must(iommud_window_remove(j.domain, windows[0].id, 0));
                iommud_window_list_free(windows);
        }
        for (int i = 0; i < 3; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? make : map, &s), 0);
        for (int i = 0; i < 3; i++)
                pthread_join(threads[i], NULL);
        if (atomic_load(&s.failed))
                fail_msg("%s", s.text);
        print_message("%lu windows, %lu mappings, %lu refused\n", atomic_load(&s.created), atomic_load(&s.mapped),
                      atomic_load(&s.refused));
        assert_int_equal(atomic_load(&s.created), atomic_load(&s.removed));
        assert_true(atomic_load(&s.created) > ROUNDS);
        assert_int_equal(job_windows(j.domain, NULL), 0);
        assert_int_equal(job_mappings(j.domain), 0);            /* all went with their windows */
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_WINDOWS), 0);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        service_assert_ledger(service);
        job_end(&j);
        service_end(service);
}

static void test_ranges(void **state) {
        (void)state;
        run("devices = edu0\n");
}

static void test_power(void **state) {
        (void)state;
        run("windows = spapr\ndevices = edu0\n");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_ranges, harness_teardown),
                cmocka_unit_test_teardown(test_power, harness_teardown),
        };

        return cmocka_run_group_tests_name("windows from several threads", tests, NULL, NULL);
}
