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
 *   test_reference --world=type1 --operations=60 1 2 random
 *                          these seeds, so many operations each, against the installed service, in the lab
 *                          (tests/vm/lanes/reference.sh); --world=spapr: on POWER's windows (tests/vm/lanes/power_reference.sh)
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
#define SEEDS 16U

/* How slow a world is. */
static const struct {
        const char *option;
        unsigned play_timeout_ms, shrink_seconds;
} of_kind[] = {
        [WORLD_SOFT] = { "--world=soft", 120000, 90 },
        [WORLD_TYPE1] = { "--world=type1", 900000, 240 },
        [WORLD_SPAPR] = { "--world=spapr", 900000, 240 },
};

static enum world_kind kind = WORLD_SOFT;
static unsigned operations = OPERATIONS;
static struct {
        size_t n;
        uint64_t of[SEEDS];
} seeds;                                /* asked for; none: whatever there is time for */

/* ---- one list, in this process ---- */

static int play_list(const struct list *list) {
        static struct run r;
        bool good = true;
        struct world w;
        size_t i = 0;

        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
        world_make(kind, list->seed, &w);
        run_begin(&r, &w);
        while (good && i < list->n)
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
        list.n = generate(&w, list.ops, operations);
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
        char program[512], file[] = "/tmp/iommud-reference-XXXXXX", out[sizeof file + 4];
        char *argv[] = { program, (char *)of_kind[kind].option, (char *)"--play", file, NULL };
        int fd = mkstemp(file), code;
        FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
        pid_t pid;

        assert_non_null(f);
        list_print(list, f);
        assert_int_equal(fclose(f), 0);
        harness_program("tests/reference/test_reference", program, sizeof program);
        (void)snprintf(out, sizeof out, "%s.out", file);
        pid = harness_spawn(argv, -1, -1, out);
        code = harness_wait(pid, of_kind[kind].play_timeout_ms);
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
        list.n = generate(&w, list.ops, operations);
        if (play_elsewhere(&list, true, &outcome)) {
                t->seeds++;
                t->operations += outcome.played;
                t->refused += outcome.refused;
                t->translations += outcome.translations;
                return true;
        }
        printf("seed: IOMMUD_TEST_SEED=%" PRIu64 " disagreed at operation %zu; leaving operations out of it\n", seed,
               outcome.index);
        shrink_and_show(&list, &outcome, of_kind[kind].shrink_seconds);
        return false;
}

/* False: there is no other. */
static bool next_seed(uint64_t i, uint64_t first, uint64_t until, uint64_t *ret) {
        const char *one = getenv("IOMMUD_TEST_SEED"), *rounds = getenv("IOMMUD_TEST_ROUNDS");

        *ret = seeds.n > 0 ? seeds.of[i % seeds.n] : first + i;
        if (seeds.n > 0)
                return i < seeds.n;
        if (one || rounds)
                return i < (one ? 1 : strtoull(rounds, NULL, 0));
        return i == 0 || harness_ms() < until;
}

static void test_agrees_with_the_model(void **state) {
        uint64_t until = harness_ms() + SECONDS * 1000U, first = seeds.n > 0 ? 0 : harness_seed(), seed;
        struct totals t = { 0 };

        (void)state;
        assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), 0);
        while (next_seed(t.seeds, first, until, &seed)) {
                struct totals before = t;

                if (!try_seed(seed, &t))
                        fail_msg("seed %" PRIu64 " disagreed", seed);
                if (seeds.n > 0)
                        print_message("seed %" PRIu64 ": %" PRIu64 " operations, %" PRIu64 " transfers: agreed\n", seed,
                                      t.operations - before.operations, t.translations - before.translations);
        }
        print_message("%" PRIu64 " seeds, %" PRIu64 " operations (%" PRIu64 " refused), %" PRIu64 " transfers: agreed\n", t.seeds,
                      t.operations, t.refused, t.translations);
}

static bool add_seed(const char *word) {
        char *end;

        if (seeds.n == SEEDS)
                return false;
        if (strcmp(word, "random") == 0) {
                seeds.of[seeds.n++] = harness_seed();
                return true;
        }
        seeds.of[seeds.n++] = strtoull(word, &end, 0);
        return *word != '\0' && *end == '\0';
}

static bool pick_world(const char *word) {
        for (unsigned i = 0; i < sizeof of_kind / sizeof of_kind[0]; i++)
                if (strcmp(word, of_kind[i].option) == 0) {
                        kind = (enum world_kind)i;
                        return true;
                }
        return false;
}

int main(int argc, char **argv) {
        const struct CMUnitTest tests[] = { cmocka_unit_test_teardown(test_agrees_with_the_model, harness_teardown) };
        static struct list list;
        const char *file = NULL;

        for (int i = 1; i < argc; i++) {
                if (pick_world(argv[i]))
                        continue;
                if (strncmp(argv[i], "--operations=", 13) == 0)
                        operations = (unsigned)strtoul(argv[i] + 13, NULL, 10);
                else if (strcmp(argv[i], "--shrink") == 0 && i + 1 < argc)
                        return shrink_file(argv[i + 1]);
                else if (strcmp(argv[i], "--list") == 0 && i + 1 < argc)
                        return show_list(strtoull(argv[i + 1], NULL, 0));
                else if (strcmp(argv[i], "--play") == 0 && i + 1 < argc)
                        file = argv[++i];
                else if (!add_seed(argv[i])) {
                        fprintf(stderr, "%s: neither an option nor a seed\n", argv[i]);
                        return 2;
                }
        }
        if (operations > LIST_MAX)
                operations = LIST_MAX;
        if (!file)
                return cmocka_run_group_tests(tests, NULL, NULL);
        if (!list_read(file, &list)) {
                fprintf(stderr, "%s: not a list of operations\n", file);
                return 2;
        }
        return play_list(&list);
}
