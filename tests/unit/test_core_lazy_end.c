/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/*
 * A lazy domain that is destroyed while unmaps wait for their flush (I6): they go with it, settled and refunded once, and no
 * flush begins beside the destruction. When the holder refuses to destroy it they are flushed after all.
 */
#include "core/lazy.h"
#include "test_core_harness.h"

#define AT 0x100000ULL
#define LONG_MS 3600000ULL              /* longer than any unmap waits */

struct scene {
        struct holder *h;
        uint64_t domain;
        struct asked destroyed;
};

/* An unmap waits, and the holder has been told to destroy its domain. */
static void begin(struct scene *s) {
        struct destroy_domain_request request = { .force = true };
        struct asked a;

        core.options.lazy_ms = LONG_MS / 2;
        core.options.lazy_mappings = 100;
        core.options.lazy_bytes = UINT64_MAX;
        core_start();
        memory_is_unsealed = true;
        s->h = holder_open("alpha");
        request.domain = s->domain = make_domain_as(s->h, &(struct create_domain_request){ .label = "lazy", .lazy = true });
        map(s->h, s->domain, make_memory(s->h, 64 * PAGE), AT, PAGE);
        ask_unmap(s->h, s->domain, AT, PAGE, 0, &a);
        assert_done(&a);
        assert_int_equal(charged("alpha", RESOURCE_LOCKED_BYTES), PAGE);
        s->destroyed = asked_new();
        domain_destroy_request(s->h->session, &request, &s->destroyed.reply);
        holder_expect(s->h, LINK_DOMAIN_DESTROY);
}

static void time_passes(struct scene *s) {
        lazy_tick(s->h->session, monotonic_ms() + LONG_MS);
}

static void what_waits_goes_with_the_domain(void **state) {
        struct scene s;

        (void)state;
        begin(&s);
        time_passes(&s);
        holder_expect_silence(s.h);
        holder_done(s.h);
        assert_done(&s.destroyed);
        assert_int_equal(charged("alpha", RESOURCE_LOCKED_BYTES), 0);
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 0);
        assert_int_equal(charged("alpha", RESOURCE_DOMAINS), 0);
        EVENTUALLY(sql("SELECT count(*) FROM op WHERE settled = 0") == 0);
        assert_int_equal(sql("SELECT count(*) FROM mapping"), 0);
        assert_int_equal(sql("SELECT count(*) FROM domain"), 0);
}

static void a_domain_that_stays_is_flushed(void **state) {
        struct scene s;

        (void)state;
        begin(&s);
        holder_refuse(s.h, REFUSAL_INTERNAL, 0);
        assert_refused(&s.destroyed, REFUSAL_INTERNAL);
        time_passes(&s);
        holder_expect(s.h, LINK_UNMAP);
        assert_int_equal(s.h->got.header.count, 1);
        holder_done(s.h);
        EVENTUALLY(charged("alpha", RESOURCE_LOCKED_BYTES) == 0);
        EVENTUALLY(sql("SELECT count(*) FROM op WHERE settled = 0") == 0);
        assert_int_equal(sql("SELECT count(*) FROM mapping"), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)

int main(void) {
        const struct CMUnitTest tests[] = {
                T(what_waits_goes_with_the_domain),
                T(a_domain_that_stays_is_flushed),
        };

        return cmocka_run_group_tests_name("core: the end of a lazy domain", tests, NULL, NULL);
}
