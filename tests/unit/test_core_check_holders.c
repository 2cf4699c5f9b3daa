/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/* `ledger check` compares what a holder says it has with what the broker thinks (I2): it finds nothing where they agree, and
 * every difference where they do not. */
#include "test_core_crash.h"

#include "core/check_holders.h"

#define AT 0x100000ULL

static struct holder *h;
static uint64_t domain, memory;
static struct link_map_entry there[4];

static struct {
        pthread_t thread;
        uint64_t holders;
        unsigned n;
        char found[2048];
} check;

static void note(const struct check_view *v, void *arg) {
        size_t used = strlen(check.found);

        (void)arg;
        check.n++;
        (void)snprintf(check.found + used, sizeof check.found - used, "%s %s\n", v->invariant, v->text);
}

static void *run_check(void *arg) {
        struct refusal r;

        (void)holders_check(core.broker, note, NULL, &check.holders, &r);
        return arg;
}

/* The holder is asked, and waits for what the test lets it say. */
static void begin_check(void) {
        memset(&check, 0, sizeof check);
        assert_int_equal(pthread_create(&check.thread, NULL, run_check, NULL), 0);
        holder_expect(h, LINK_DUMP);
}

static void end_check(unsigned n) {
        holder_done(h);
        pthread_join(check.thread, NULL);
        assert_int_equal(check.holders, 1);
        if (check.n != n)
                fail_msg("found %u, not %u: %s", check.n, n, check.found);
}

static void assert_found(const char *text) {
        if (!strstr(check.found, text))
                fail_msg("not found: '%s' in: %s", text, check.found);
}

static void begin(void) {
        core_start();
        h = holder_open("alpha");
        domain = make_domain(h);
        memory = make_memory(h, 64 * PAGE);
        for (size_t i = 0; i < 2; i++) {
                there[i] = (struct link_map_entry){ .iova = AT + 2 * i * PAGE, .length = PAGE, .memory = memory,
                                                    .access = BACKEND_ACCESS_READ };
                map(h, domain, memory, there[i].iova, PAGE);
        }
}

static void check_with(size_t n, unsigned found) {
        begin_check();
        dump_memory(h, memory, 64 * PAGE);
        dump_domain(h, domain, there, n);
        end_check(found);
}

static void nothing_is_found_where_they_agree(void **state) {
        (void)state;
        begin();
        check_with(2, 0);
}

static void what_no_row_explains_is_found(void **state) {
        (void)state;
        begin();
        there[2] = there[1];
        there[2].iova = AT + 8 * PAGE;
        check_with(3, 1);
        assert_found("I2 session ");
        assert_found("its holder has a mapping at 0x108000 that no row explains");
}

static void what_the_holder_does_not_have_is_found(void **state) {
        (void)state;
        begin();
        check_with(1, 1);
        assert_found("what is mapped at 0x102000 is in the ledger, and not, or otherwise, in its holder");
}

/* More access, another length, other memory: on both sides. */
static void what_is_there_in_another_way_is_found(void **state) {
        struct link_map_entry right;

        (void)state;
        begin();
        right = there[1];
        there[1].access |= BACKEND_ACCESS_WRITE;
        check_with(2, 2);
        assert_found("what is mapped at 0x102000 is in the ledger");
        assert_found("has a mapping at 0x102000 that no row explains");
        there[1] = right;
        there[1].length = 2 * PAGE;
        check_with(2, 2);
        there[1] = right;
        there[1].offset = PAGE;
        check_with(2, 2);
        there[1] = right;
        there[1].memory++;
        check_with(2, 2);
        there[1] = right;
        check_with(2, 0);
}

static void windows_that_differ_are_found(void **state) {
        const struct link_dump_domain d = { .mappings = 2, .has_windows = 1, .n_windows = 1 };
        const struct link_window w = { .start = 0x800000000000000, .size = 1 << 30, .page_shift = 12, .levels = 1 };

        (void)state;
        begin();
        begin_check();
        dump_memory(h, memory, 64 * PAGE);
        dump_send(h, LINK_DUMP_DOMAIN, domain, 0, &d, sizeof d);
        dump_send(h, LINK_DUMP_WINDOW, domain, 0, &w, sizeof w);
        dump_send(h, LINK_DUMP_MAPPINGS, domain, 2, there, 2 * sizeof there[0]);
        end_check(2);
        assert_found("its holder has a window at 0x800000000000000 that no row explains");
        assert_found("1 of its windows are not in its holder");
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(nothing_is_found_where_they_agree),
                T(what_no_row_explains_is_found),
                T(what_the_holder_does_not_have_is_found),
                T(what_is_there_in_another_way_is_found),
                T(windows_that_differ_are_found),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
