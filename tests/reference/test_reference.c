/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service and a reference model of it (model.h) are given the same random operations, and must agree on every answer, every
 * number and every translation. Each seed is played by a process of its own. One that fails is shrunk: operations and elements are
 * left out as long as it still fails, and what remains is printed; `test_reference --play FILE` plays such a list.
 *
 *   test_reference --shrink FILE                       leaves more out of such a list, for ten minutes
 *   test_reference --list SEED                         what a seed is made of, and what the model says to each; nothing is played
 *
 *   IOMMUD_TEST_SEED=N     that seed and no other      IOMMUD_TEST_ROUNDS=N    so many, however long it takes
 *
 *   test_reference --world=type1 --seconds=45          against the installed service, in the lab (tests/vm/lanes/reference.sh)
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "generate.h"
#include "lib/harness.h"
#include "run.h"
#include "shrink.h"

#define OPERATIONS 200U
#define SECONDS 30U
#define SHRINK_SECONDS 90U
#define PLAY_TIMEOUT_MS 120000U

static enum world_kind kind = WORLD_SOFT;
static unsigned seconds = SECONDS;

/* ---- one list, in this process ---- */

static int play_list(const struct list *list) {
        static struct run r;
        uint64_t until = harness_ms() + seconds * 1000U;
        bool good = true;
        struct world w;
        size_t i = 0;

        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
        world_make(kind, list->seed, &w);
        run_begin(&r, &w);
        while (good && i < list->n && (kind == WORLD_SOFT || harness_ms() < until))
                good = run_play(&r, &list->ops[i++]);
        if (good)
                good = run_end(&r);
        printf("%s %zu %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", good ? "agreed" : "disagreed", i, r.played, r.refused,
               r.translations);
        if (good)
                return 0;
        printf("%s\n", r.why);
        fflush(stdout);
        (void)harness_teardown(NULL);
        return 1;
}

static int show_list(uint64_t seed) {
        static struct list list;
        static struct model m;
        struct world w;

        world_make(kind, seed, &w);
        list.n = generate(&w, list.ops, OPERATIONS);
        begin_model(&m, &w);
        for (size_t i = 0; i < list.n; i++) {
                struct verdict v;

                model_play(&m, &list.ops[i], &v);
                op_print(&list.ops[i], stdout);
                printf(" -> %s", v.n == 0 ? "done" : "refused");
                for (uint32_t k = 0; k < v.n; k++)
                        printf(" %s", iommud_reason_name(v.of[k].reason));
                putchar('\n');
        }
        return 0;
}

/* ---- many, each in a process of its own ---- */

struct totals {
        uint64_t seeds, operations, refused, translations;
};

static bool play_elsewhere(const struct list *list, bool loud, struct outcome *ret) {
        static const char *const worlds[] = { [WORLD_SOFT] = "--world=soft", [WORLD_TYPE1] = "--world=type1" };
        char program[512], file[] = "/tmp/iommud-reference-XXXXXX", out[sizeof file + 4], bound[32];
        char *argv[] = { program, (char *)worlds[kind], bound, (char *)"--play", file, NULL };
        int fd = mkstemp(file), code;
        FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
        pid_t pid;

        assert_non_null(f);
        list_print(list, f);
        assert_int_equal(fclose(f), 0);
        harness_program("tests/reference/test_reference", program, sizeof program);
        (void)snprintf(out, sizeof out, "%s.out", file);
        (void)snprintf(bound, sizeof bound, "--seconds=%u", seconds);
        pid = harness_spawn(argv, -1, -1, out);
        code = harness_wait(pid, kind == WORLD_SOFT ? PLAY_TIMEOUT_MS : PLAY_TIMEOUT_MS + seconds * 1000U);
        if (code < 0) {
                (void)kill(pid, SIGKILL);
                code = harness_wait(pid, HARNESS_PATIENCE_MS);
        }
        outcome_read(out, code, loud, ret);
        (void)remove(file);
        (void)remove(out);
        return code == 0;
}

static bool fails(const struct list *list, struct outcome *ret) {
        return !play_elsewhere(list, false, ret);
}

/* It fails, as was just seen. */
static void shrink_and_show(struct list *list, struct outcome *outcome, unsigned patience) {
        shrink(list, outcome, fails, patience);
        printf("---- the shortest list that still fails (%zu operations); play it with: test_reference --play FILE\n", list->n);
        list_print(list, stdout);
        printf("----\n%s\n", outcome->why);
        fflush(stdout);
        (void)play_elsewhere(list, true, outcome);
}

static int shrink_file(const char *file) {
        static struct list list;
        struct outcome outcome;

        if (!list_read(file, &list) || !fails(&list, &outcome))
                return 2;
        shrink_and_show(&list, &outcome, 600);
        return 0;
}

/* False: they disagreed; all about it has been printed. */
static bool try_seed(uint64_t seed, struct totals *t) {
        static struct list list;
        struct outcome outcome;
        struct world w;

        world_make(kind, seed, &w);
        list.seed = seed;
        list.n = generate(&w, list.ops, OPERATIONS);
        if (play_elsewhere(&list, true, &outcome)) {
                t->seeds++;
                t->operations += outcome.played;
                t->refused += outcome.refused;
                t->translations += outcome.translations;
                return true;
        }
        printf("seed: IOMMUD_TEST_SEED=%" PRIu64 " disagreed at operation %zu; leaving operations out of it\n", seed,
               outcome.index);
        shrink_and_show(&list, &outcome, SHRINK_SECONDS);
        return false;
}

static void test_agrees_with_the_model(void **state) {
        const char *one = getenv("IOMMUD_TEST_SEED"), *more = getenv("IOMMUD_TEST_ROUNDS");
        uint64_t until = harness_ms() + seconds * 1000U, seed = one ? strtoull(one, NULL, 0) : harness_seed();
        uint64_t rounds = more ? strtoull(more, NULL, 0) : UINT64_MAX;
        struct totals t = { 0 };

        (void)state;
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
        for (; t.seeds < rounds && (more || t.seeds == 0 || harness_ms() < until); seed++) {
                if (!try_seed(seed, &t))
                        fail_msg("seed %" PRIu64 " disagreed", seed);
                if (one)
                        break;
        }
        print_message("%" PRIu64 " seeds up to %" PRIu64 ", %" PRIu64 " operations (%" PRIu64 " refused), %" PRIu64
                      " transfers: agreed\n",
                      t.seeds, seed, t.operations, t.refused, t.translations);
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = { cmocka_unit_test_teardown(test_agrees_with_the_model, harness_teardown) };
        static struct list list;
        const char *file = NULL;

        for (int i = 1; i < argc; i++) {
                if (strcmp(argv[i], "--world=type1") == 0)
                        kind = WORLD_TYPE1;
                else if (strncmp(argv[i], "--seconds=", 10) == 0)
                        seconds = (unsigned)strtoul(argv[i] + 10, NULL, 10);
                else if (strcmp(argv[i], "--shrink") == 0 && i + 1 < argc)
                        return shrink_file(argv[i + 1]);
                else if (strcmp(argv[i], "--list") == 0 && i + 1 < argc)
                        return show_list(strtoull(argv[i + 1], NULL, 0));
                else if (strcmp(argv[i], "--play") == 0 && i + 1 < argc)
                        file = argv[++i];
        }
        if (!file)
                return cmocka_run_group_tests(tests, NULL, NULL);
        if (!list_read(file, &list)) {
                fprintf(stderr, "%s: not a list of operations\n", file);
                return 2;
        }
        return play_list(&list);
}
