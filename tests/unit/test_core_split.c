/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * Parts of mappings are unmapped: what the holder is told, in one message, and what stays charged. Memory that is not sealed
 * pays for whole pages of its own, whatever is mapped of them, so it is cut between those only.
 */
#include "test_core_harness.h"

#define AT 0x40000000ULL
#define HUGE_PAGE (2ULL << 20)

static struct holder *h;
static uint64_t domain;

static uint64_t memory_of(uint64_t size, uint64_t page_size, bool sealed) {
        struct link_result result = { .refusal = { .element = -1, .conflict_first = 1 },
                                      .memory = { .size = size, .page_size = page_size, .dev = 1, .ino = 1, .sealed = sealed,
                                                  .writable = 1 } };
        struct asked a;

        ask_register(h, size, &a);
        holder_expect(h, LINK_REGISTER);
        holder_answer(h, &result);
        assert_done(&a);
        return a.answer.id;
}

static void map_chunks(uint64_t memory, uint64_t offset, uint64_t length, uint64_t chunk) {
        const uint64_t iova = AT;
        const uint32_t access = BACKEND_ACCESS_READ;
        const struct map_request request = { .domain = domain, .n = 1, .iova = &iova, .length = &length, .offset = &offset,
                                             .memory = &memory, .n_memory = 1, .access = &access, .n_access = 1,
                                             .chunk = &chunk, .n_chunk = 1 };
        struct asked a = asked_new();

        map_request_start(h->session, &request, &a.reply);
        holder_expect(h, LINK_MAP);
        holder_done(h);
        assert_done(&a);
}

static void ask_part(uint64_t from, uint64_t length, enum split_policy policy, struct asked *a) {
        const uint64_t iova = AT + from;
        const struct unmap_request request = { .domain = domain, .n = 1, .iova = &iova, .length = &length, .split = policy };

        *a = asked_new();
        unmap_request_start(h->session, &request, &a->reply);
}

static void begin(void) {
        core_start();
        h = holder_open("alpha");
        domain = make_domain(h);
}

static uint64_t locked(void) {
        return charged("alpha", RESOURCE_LOCKED_BYTES);
}

/* The whole goes and its rests come, as one operation. */
static void a_hole_is_one_replacement(void **state) {
        const struct link_replace *told;
        const struct link_unmap_entry *gone;
        const struct link_map_entry *made;
        uint64_t memory;
        struct asked a;

        (void)state;
        begin();
        memory = memory_of(64 * PAGE, PAGE, true);
        map_chunks(memory, 8 * PAGE, 16 * PAGE, 2 * PAGE);
        ask_part(4 * PAGE, 6 * PAGE, SPLIT_AT_CHUNKS, &a);
        holder_expect(h, LINK_REPLACE);
        told = (const struct link_replace *)h->got.payload;
        gone = (const struct link_unmap_entry *)(told + 1);
        made = (const struct link_map_entry *)(gone + 1);
        assert_int_equal(h->got.header.count, 3);
        assert_int_equal(gone->iova, AT);
        assert_int_equal(gone->length, 16 * PAGE);
        assert_int_equal(made[0].iova, AT);
        assert_int_equal(made[0].length, 4 * PAGE);
        assert_int_equal(made[0].offset, 8 * PAGE);
        assert_int_equal(made[1].iova, AT + 10 * PAGE);
        assert_int_equal(made[1].length, 6 * PAGE);
        assert_int_equal(made[1].offset, 18 * PAGE);
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(made[i].memory, memory);
                assert_int_equal(made[i].access, BACKEND_ACCESS_READ);
                assert_int_equal(made[i].chunk_shift, 13);
        }
        assert_int_equal(locked(), 16 * PAGE);
        holder_done(h);
        assert_done(&a);
        assert_int_equal(a.answer.unmapped_bytes, 6 * PAGE);
        assert_int_equal(locked(), 10 * PAGE);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 2);
}

/* What the holder refuses leaves the mapping and its charge as they were. */
static void a_refused_cut_leaves_the_mapping_whole(void **state) {
        uint64_t tables;
        struct asked a;

        (void)state;
        begin();
        map_chunks(memory_of(64 * PAGE, PAGE, true), 0, 16 * PAGE, PAGE);
        tables = charged("alpha", RESOURCE_TABLE_BYTES);
        ask_part(4 * PAGE, PAGE, SPLIT_AT_CHUNKS, &a);
        holder_expect(h, LINK_REPLACE);
        holder_refuse(h, REFUSAL_BACKEND_REFUSED, 0);
        assert_refused(&a, REFUSAL_BACKEND_REFUSED);
        assert_int_equal(locked(), 16 * PAGE);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 1);
        assert_int_equal(charged("alpha", RESOURCE_TABLE_BYTES), tables);
        ask_part(0, 16 * PAGE, SPLIT_AT_CHUNKS, &a);
        holder_expect(h, LINK_UNMAP);
        holder_done(h);
        assert_done(&a);
        assert_int_equal(locked(), 0);
}

/* Or the huge page at the cut would be paid for by both parts of what stays. */
static void unsealed_huge_pages_are_not_cut(void **state) {
        struct asked a;

        (void)state;
        begin();
        map_chunks(memory_of(4 * HUGE_PAGE, HUGE_PAGE, false), PAGE, 4 * HUGE_PAGE - 2 * PAGE, 0);
        assert_int_equal(locked(), 4 * HUGE_PAGE);
        ask_part(HUGE_PAGE, HUGE_PAGE, SPLIT_REMAP, &a);
        assert_refused(&a, REFUSAL_PARTIAL_UNMAP);
        assert_int_equal(a.refusal.nearest_below, AT + HUGE_PAGE - PAGE);       /* the pages of memory begin one later */
        assert_int_equal(a.refusal.nearest_above, AT + 2 * HUGE_PAGE - PAGE);
        ask_part(HUGE_PAGE - PAGE, HUGE_PAGE, SPLIT_REMAP, &a);
        holder_expect(h, LINK_REPLACE);
        holder_done(h);
        assert_done(&a);
        assert_int_equal(locked(), 3 * HUGE_PAGE);
}

/* Chunks that are smaller than that are no borders either. */
static void nor_in_chunks(void **state) {
        struct asked a;

        (void)state;
        begin();
        map_chunks(memory_of(2 * HUGE_PAGE, HUGE_PAGE, false), 0, 2 * HUGE_PAGE, PAGE);
        ask_part(0, PAGE, SPLIT_AT_CHUNKS, &a);
        assert_refused(&a, REFUSAL_PARTIAL_UNMAP);
        assert_int_equal(locked(), 2 * HUGE_PAGE);
}

/* Sealed, the page is counted once: it is cut anywhere, and stays charged whole. */
static void sealed_ones_are(void **state) {
        struct asked a;

        (void)state;
        begin();
        map_chunks(memory_of(2 * HUGE_PAGE, HUGE_PAGE, true), 0, 2 * HUGE_PAGE, 0);
        ask_part(PAGE, HUGE_PAGE, SPLIT_REMAP, &a);
        holder_expect(h, LINK_REPLACE);
        holder_done(h);
        assert_done(&a);
        assert_int_equal(a.answer.unmapped_bytes, HUGE_PAGE);
        assert_int_equal(locked(), 2 * HUGE_PAGE);
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(a_hole_is_one_replacement),
                T(a_refused_cut_leaves_the_mapping_whole),
                T(unsealed_huge_pages_are_not_cut),
                T(nor_in_chunks),
                T(sealed_ones_are),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
