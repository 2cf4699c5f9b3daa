/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * A refusal names an element of the request, also where it is the holder that refuses: what that is told has other entries when
 * neighbours are merged or pages are shared.
 */
#include "test_core_harness.h"

#define AT 0x40000000ULL
#define N 3

static struct holder *h;
static uint64_t domain, memory;

static void begin(void) {
        core_start();
        h = holder_open("alpha");
        domain = make_domain(h);
        memory = make_memory(h, 16 * PAGE);
}

/* Of the memory what lies at the same place of it. */
static void ask(const uint64_t from[N], const uint64_t length[N], uint32_t access, bool merge, bool expose, struct asked *a) {
        const uint64_t iova[N] = { AT + from[0], AT + from[1], AT + from[2] };
        const struct map_request request = { .domain = domain, .n = N, .iova = iova, .length = length, .offset = from,
                                             .memory = &memory, .n_memory = 1, .access = &access, .n_access = 1,
                                             .merge = merge, .expose_pages = expose };

        *a = asked_new();
        map_request_start(h->session, &request, &a->reply);
}

static void refuse_entry(int32_t entry, struct asked *a, int32_t element) {
        struct link_result result = { 0 };

        refuse(&result.refusal, REFUSAL_BACKEND_REFUSED, "the holder says no");
        result.refusal.element = entry;
        holder_answer(h, &result);
        assert_refused(a, REFUSAL_BACKEND_REFUSED);
        assert_int_equal(a->refusal.element, element);
}

static void merged_ones_are_named_by_their_first(void **state) {
        const uint64_t from[N] = { 0, PAGE, 4 * PAGE }, length[N] = { PAGE, PAGE, PAGE };
        static const int32_t elements[] = { 0, 2 };
        struct asked a;

        (void)state;
        begin();
        for (int32_t entry = 0; entry < 2; entry++) {
                ask(from, length, BACKEND_ACCESS_READ, true, false, &a);
                holder_expect(h, LINK_MAP);
                assert_int_equal(h->got.header.count, 2);
                refuse_entry(entry, &a, elements[entry]);
        }
}

/* The holder is told of pages that are shared at last. */
static void a_shared_page_is_named_by_who_brought_it(void **state) {
        const uint64_t from[N] = { 100, 2 * PAGE, 4 * PAGE }, length[N] = { 8, PAGE, PAGE };
        static const int32_t elements[] = { 1, 2, 0 };
        struct asked a;

        (void)state;
        begin();
        for (int32_t entry = 0; entry < N; entry++) {
                ask(from, length, BACKEND_ACCESS_READ, false, true, &a);
                holder_expect(h, LINK_MAP);
                assert_int_equal(h->got.header.count, N);
                refuse_entry(entry, &a, elements[entry]);
        }
}

/* The page goes, to come back for writing: of no element is what was there before. */
static void what_goes_is_no_element(void **state) {
        const uint64_t from[N] = { 100, 200, 300 }, others[N] = { 4 * PAGE, 400, 500 }, length[N] = { 8, 8, 8 };
        const uint64_t lengths[N] = { PAGE, 8, 8 };
        static const int32_t elements[] = { -1, 0, 1 };
        struct asked a;

        (void)state;
        begin();
        ask(from, length, BACKEND_ACCESS_READ, false, true, &a);
        holder_expect(h, LINK_MAP);
        holder_done(h);
        assert_done(&a);
        for (int32_t entry = 0; entry < N; entry++) {
                ask(others, lengths, BACKEND_ACCESS_WRITE, false, true, &a);
                holder_expect(h, LINK_REPLACE);
                assert_int_equal(h->got.header.count, N);
                refuse_entry(entry, &a, elements[entry]);
        }
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(merged_ones_are_named_by_their_first),
                T(a_shared_page_is_named_by_who_brought_it),
                T(what_goes_is_no_element),
        };

        return cmocka_run_group_tests_name("core: the element that a refusal names", tests, NULL, NULL);
}
