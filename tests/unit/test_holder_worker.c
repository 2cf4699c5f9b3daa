/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* A worker runs one thing at a time and keeps the order, whoever runs it. */
#include "test_object_helpers.h"

#include <semaphore.h>

#include "holder/worker.h"

struct numbered {
        struct job job;
        int number;
};

static int order[WORKER_QUEUE_MAX + 8];
static size_t n_run;
static sem_t gate, entered;

static void note(struct job *j) {
        struct numbered *n = (struct numbered *)j;

        order[n_run++] = n->number;     /* no lock: that is the worker's promise, which the thread sanitizer checks */
}

static void wait_at_gate(struct job *j) {
        sem_post(&entered);
        sem_wait(&gate);
        note(j);
}

static void init(void) {
        n_run = 0;
        sem_init(&gate, 0, 0);
        sem_init(&entered, 0, 0);
}

static void test_order(void **state) {
        struct numbered jobs[] = { { { .run = wait_at_gate }, 1 }, { { .run = note }, 2 }, { { .run = note }, 3 },
                                   { { .run = note }, 4 } };
        struct worker w;

        (void)state;
        init();
        assert_int_equal(worker_start(&w), 0);
        assert_true(worker_post(&w, &jobs[0].job));
        sem_wait(&entered);
        assert_true(worker_post(&w, &jobs[1].job));
        assert_true(worker_post(&w, &jobs[2].job));
        worker_post_front(&w, &jobs[3].job);
        assert_false(worker_try_enter(&w));
        sem_post(&gate);
        worker_stop(&w);
        assert_int_equal(n_run, 4);
        assert_int_equal(order[0], 1);
        assert_int_equal(order[1], 4);
        assert_int_equal(order[2], 2);
        assert_int_equal(order[3], 3);
}

static void test_front_of_nothing(void **state) {
        struct numbered jobs[] = { { { .run = wait_at_gate }, 1 }, { { .run = note }, 2 }, { { .run = note }, 3 } };
        struct worker w;

        (void)state;
        init();
        assert_int_equal(worker_start(&w), 0);
        worker_post_front(&w, &jobs[0].job);
        sem_wait(&entered);
        worker_post_front(&w, &jobs[1].job);
        assert_true(worker_post(&w, &jobs[2].job));
        sem_post(&gate);
        worker_stop(&w);
        assert_int_equal(n_run, 3);
        assert_int_equal(order[1], 2);
        assert_int_equal(order[2], 3);
}

/* Who enters is alone inside; what is posted meanwhile comes after. */
static void test_enter(void **state) {
        struct numbered job = { { .run = note }, 2 };
        struct worker w;

        (void)state;
        init();
        assert_int_equal(worker_start(&w), 0);
        for (int i = 0; i < 100; i++) {
                n_run = 0;
                while (!worker_try_enter(&w))
                        usleep(10);
                assert_false(worker_try_enter(&w));
                assert_true(worker_post(&w, &job.job));
                assert_false(worker_try_enter(&w));
                order[n_run++] = 1;
                worker_leave(&w);
                while (!worker_try_enter(&w))
                        usleep(10);
                assert_int_equal(n_run, 2);
                assert_int_equal(order[0], 1);
                assert_int_equal(order[1], 2);
                worker_leave(&w);
        }
        worker_stop(&w);
}

static void test_bounded(void **state) {
        static struct numbered jobs[WORKER_QUEUE_MAX + 3];
        struct worker w;

        (void)state;
        init();
        assert_int_equal(worker_start(&w), 0);
        for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
                jobs[i] = (struct numbered){ { .run = i ? note : wait_at_gate }, (int)i };
        assert_true(worker_post(&w, &jobs[0].job));
        sem_wait(&entered);
        for (size_t i = 1; i <= WORKER_QUEUE_MAX; i++)
                assert_true(worker_post(&w, &jobs[i].job));
        assert_false(worker_post(&w, &jobs[WORKER_QUEUE_MAX + 1].job));
        worker_post_always(&w, &jobs[WORKER_QUEUE_MAX + 2].job);
        sem_post(&gate);
        worker_stop(&w);
        assert_int_equal(n_run, WORKER_QUEUE_MAX + 2);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_front_of_nothing),
                cmocka_unit_test(test_enter),
                cmocka_unit_test(test_bounded),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
