/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * Before a domain has a device its smallest page is the host's; the IOMMU that comes with one may have smaller ones. Pages that
 * were exposed until then are in it as a whole: nothing else is admitted there, in no size, and a dry run says so too.
 */
#include "test_core_harness.h"

#define AT 0x40000000ULL
#define SMALL 4096ULL                   /* the page of the device's IOMMU */
#define LARGE 65536ULL                  /* the smallest known before */

static struct holder *h;
static uint64_t domain, memory;

static void attach(void) {
        (void)attach_device(h, domain, &(struct container_info){ .page_sizes = SMALL | LARGE, .max_mappings = 1000, .n_ranges = 1,
                                                                 .ranges = { { 0, UINT64_MAX } } });
}

/* Of the memory what lies at the same place of it. */
static void ask(uint64_t from, uint64_t length, bool expose, bool dry_run, struct asked *a) {
        const uint64_t iova = AT + from;
        const uint32_t access = BACKEND_ACCESS_READ;
        const struct map_request request = { .domain = domain, .n = 1, .iova = &iova, .length = &length, .offset = &from,
                                             .memory = &memory, .n_memory = 1, .access = &access, .n_access = 1,
                                             .expose_pages = expose, .dry_run = dry_run };

        *a = asked_new();
        map_request_start(h->session, &request, &a->reply);
}

/* A part of a page that is exposed already, for devices that may do the same: the holder hears nothing. */
static void map_silently(uint64_t from, uint64_t length) {
        struct asked a;

        ask(from, length, true, false, &a);
        assert_done(&a);
}

static void map_part(uint64_t from, uint64_t length, bool expose) {
        struct asked a;

        ask(from, length, expose, false, &a);
        holder_expect(h, LINK_MAP);
        holder_done(h);
        assert_done(&a);
}

static void assert_taken(uint64_t from, uint64_t length, bool expose, uint64_t by, uint64_t by_length) {
        struct asked a;

        for (int dry_run = 0; dry_run < 2; dry_run++) {
                ask(from, length, expose, dry_run, &a);
                assert_refused(&a, REFUSAL_OVERLAP);
                assert_int_equal(a.refusal.element, 0);
                assert_int_equal(a.refusal.conflict_first, AT + by);
                assert_int_equal(a.refusal.conflict_last, AT + by + by_length - 1);
        }
        holder_expect_silence(h);
}

static void begin(void) {
        core.options.soft.page_sizes = LARGE;
        core_start_with_device();
        h = holder_open("alpha");
        domain = make_domain(h);
        memory = make_memory(h, 4 * LARGE);
}

static void an_exposed_page_is_taken_as_a_whole(void **state) {
        struct asked a;

        (void)state;
        begin();
        map_part(LARGE + SMALL, SMALL, true);
        attach();
        assert_taken(LARGE, SMALL, false, LARGE + SMALL, SMALL);
        assert_taken(LARGE + 2 * SMALL, SMALL, false, LARGE + SMALL, SMALL);
        assert_taken(LARGE + 3 * SMALL, 3 * SMALL, false, LARGE + SMALL, SMALL);
        assert_taken(0, LARGE + SMALL, false, LARGE + SMALL, SMALL);
        assert_taken(LARGE + 2 * SMALL + 16, 16, true, LARGE + SMALL, SMALL);
        assert_taken(LARGE + 16, 16, true, LARGE + SMALL, SMALL);
        map_part(0, LARGE, false);
        map_part(2 * LARGE, SMALL, false);
        map_part(2 * LARGE + SMALL + 16, 16, true);
        map_silently(2 * LARGE + SMALL + 64, 16);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 5);
        ask_unmap(h, domain, AT + LARGE + SMALL, SMALL, 0, &a);
        holder_expect(h, LINK_UNMAP);
        holder_done(h);
        assert_done(&a);
        map_part(LARGE + 2 * SMALL, SMALL, false);
}

/* Two that agreed on a page go one after the other. */
static void it_stays_taken_until_the_last_one_goes(void **state) {
        struct asked a;

        (void)state;
        begin();
        map_part(SMALL, SMALL, true);
        map_silently(2 * SMALL, SMALL);
        attach();
        ask_unmap(h, domain, AT + SMALL, SMALL, 0, &a);
        assert_done(&a);
        assert_taken(SMALL, SMALL, false, 2 * SMALL, SMALL);
        ask_unmap(h, domain, AT + 2 * SMALL, SMALL, 0, &a);
        holder_expect(h, LINK_UNMAP);
        holder_done(h);
        assert_done(&a);
        map_part(SMALL, SMALL, false);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(an_exposed_page_is_taken_as_a_whole, core_setup, core_teardown),
                cmocka_unit_test_setup_teardown(it_stays_taken_until_the_last_one_goes, core_setup, core_teardown),
        };

        return cmocka_run_group_tests_name("core: pages that were exposed before there was a device", tests, NULL, NULL);
}
