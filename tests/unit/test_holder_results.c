/* SPDX-License-Identifier: Apache-2.0 */
/* link: holder backend util */
/* I6: an operation has one effect and one answer, for as long as anybody can ask. */
#include "test_object_helpers.h"

#include "holder/results.h"

static struct link_result answer;

static enum results_state begin(struct results *r, uint64_t seq) {
        enum results_state state;
        int fd = -1;

        memset(&answer, 0xff, sizeof answer);
        assert_int_equal(results_begin(r, seq, &state, &answer, &fd), 0);
        fd_close(fd);
        return state;
}

static void finish(struct results *r, uint64_t seq, enum refusal_reason reason) {
        struct link_result l = { .refusal = { .reason = reason, .element = 3, .text = "why" } };

        results_finish(r, seq, &l, -1);
}

static void test_first_answer_is_the_answer(void **state) {
        struct results *r = results_new();

        (void)state;
        assert_int_equal(begin(r, 7), RESULTS_NEW);
        assert_int_equal(begin(r, 7), RESULTS_RUNNING);
        finish(r, 7, REFUSAL_OVERLAP);
        for (int i = 0; i < 2; i++) {
                assert_int_equal(begin(r, 7), RESULTS_FINISHED);
                assert_refused(answer.refusal.reason, OVERLAP);
                assert_int_equal(answer.refusal.element, 3);
                assert_string_equal(answer.refusal.text, "why");
        }
        assert_int_equal(begin(r, 8), RESULTS_NEW);
        finish(r, 8, REFUSAL_NONE);
        assert_int_equal(begin(r, 8), RESULTS_FINISHED);
        assert_done(answer.refusal.reason);
        assert_int_equal(answer.refusal.element, -1);
        assert_int_equal(results_last_seq(r), 8);
        results_free(r);
}

static void test_facts_are_remembered(void **state) {
        struct link_result l = { .flags = LINK_RESULT_UNDO_FAILED, .info = { .page_sizes = PAGE },
                                 .memory = { .size = 5 } };
        struct results *r = results_new();

        (void)state;
        assert_int_equal(begin(r, 1), RESULTS_NEW);
        results_finish(r, 1, &l, -1);
        assert_int_equal(begin(r, 1), RESULTS_FINISHED);
        assert_memory_equal(&answer, &l, sizeof l);
        results_free(r);
}

static void test_settled_is_not_done_again(void **state) {
        struct results *r = results_new();

        (void)state;
        for (uint64_t i = 1; i <= 4; i++) {
                assert_int_equal(begin(r, i), RESULTS_NEW);
                if (i != 2)
                        finish(r, i, REFUSAL_NONE);
        }
        results_settle(r, 3);
        assert_int_equal(begin(r, 1), RESULTS_FORGOTTEN);
        assert_int_equal(begin(r, 2), RESULTS_RUNNING);         /* never lost while it runs */
        assert_int_equal(begin(r, 3), RESULTS_FORGOTTEN);
        assert_int_equal(begin(r, 4), RESULTS_FINISHED);
        finish(r, 2, REFUSAL_OVERLAP);
        assert_int_equal(begin(r, 2), RESULTS_FINISHED);
        assert_int_equal(begin(r, 5), RESULTS_NEW);
        results_free(r);
}

/* Sent by two threads of the broker, it may be overtaken on the way, and even by the other's settling. */
static void test_late_is_not_seen_before(void **state) {
        struct results *r = results_new();

        (void)state;
        assert_int_equal(begin(r, 5), RESULTS_NEW);
        assert_int_equal(begin(r, 8), RESULTS_NEW);
        finish(r, 8, REFUSAL_NONE);
        results_settle(r, 8);
        assert_int_equal(begin(r, 7), RESULTS_NEW);
        assert_int_equal(begin(r, 5), RESULTS_RUNNING);
        assert_int_equal(begin(r, 8), RESULTS_FORGOTTEN);
        assert_int_equal(results_last_seq(r), 8);
        results_free(r);
}

/* What is settled makes room, but not so much that it could be done again. */
static void test_settled_is_bounded(void **state) {
        struct results *r = results_new();
        uint64_t n = LINK_RESULTS_MAX;

        (void)state;
        for (uint64_t i = 10; i < 10 + 3 * n; i++) {
                assert_int_equal(begin(r, i), RESULTS_NEW);
                finish(r, i, REFUSAL_OVERLAP);
                results_settle(r, i);
        }
        for (uint64_t i = 1; i < 10 + 3 * n; i++)
                assert_int_equal(begin(r, i), RESULTS_FORGOTTEN);
        results_free(r);
}

static void test_bounded(void **state) {
        struct results *r = results_new();
        uint64_t n = LINK_RESULTS_MAX;

        (void)state;
        assert_int_equal(begin(r, 1), RESULTS_NEW);             /* runs on and on */
        for (uint64_t i = 2; i <= n + 1; i++) {
                assert_int_equal(begin(r, i), RESULTS_NEW);
                finish(r, i, REFUSAL_OVERLAP);
        }
        assert_int_equal(begin(r, 1), RESULTS_RUNNING);
        assert_int_equal(begin(r, 2), RESULTS_FORGOTTEN);
        assert_int_equal(begin(r, 3), RESULTS_FINISHED);
        assert_int_equal(begin(r, n + 1), RESULTS_FINISHED);
        results_free(r);
}

/* The fd of an answer is given again, until it is dropped. */
static void test_fd_goes_with_the_answer(void **state) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC), got = -1;
        struct results *r = results_new();
        struct link_result l = { .info = { .page_sizes = PAGE } };
        enum results_state s;
        struct stat a, b;

        (void)state;
        assert_int_equal(begin(r, 1), RESULTS_NEW);
        results_finish(r, 1, &l, fd);
        assert_int_equal(fstat(fd, &a), 0);
        close(fd);
        assert_int_equal(results_begin(r, 1, &s, &l, &got), 0);
        assert_int_equal(fstat(got, &b), 0);
        assert_true(a.st_rdev == b.st_rdev);
        close(got);
        results_drop_fd(r, 1);
        assert_int_equal(results_begin(r, 1, &s, &l, &got), 0);
        assert_int_equal(got, -1);
        assert_int_equal(l.info.page_sizes, PAGE);
        results_free(r);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_first_answer_is_the_answer),
                cmocka_unit_test(test_facts_are_remembered),
                cmocka_unit_test(test_settled_is_not_done_again),
                cmocka_unit_test(test_late_is_not_seen_before),
                cmocka_unit_test(test_settled_is_bounded),
                cmocka_unit_test(test_bounded),
                cmocka_unit_test(test_fd_goes_with_the_answer),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
