/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker db proto backend util */
/* The check of balances (I1): it finds nothing where nothing is wrong, and every kind of difference where there is one. */
#include "test_core_harness.h"

#include "core/check_balance.h"

#define AT 0x100000ULL

static struct holder *h;
static uint64_t domain, memory;
static char found[4096];

static void note(const struct check_view *v, void *arg) {
        size_t used = strlen(found);

        (void)arg;
        assert_string_equal(v->invariant, "I1");
        (void)snprintf(found + used, sizeof found - used, "%s\n", v->text);
}

static bool fits(void) {
        found[0] = '\0';
        return balances_fit(core.broker, note, NULL);
}

static struct tenant *alpha(void) {
        struct tenant *t;

        pthread_mutex_lock(&core.broker->lock);
        t = tenant_find(core.broker, "alpha");
        pthread_mutex_unlock(&core.broker->lock);
        return t;
}

/* Two sessions of a tenant, one page of four in two places. */
static void begin(void) {
        struct holder *other;

        core_start();
        h = holder_open("alpha");
        domain = make_domain(h);
        memory = make_memory(h, 64 * PAGE);
        map(h, domain, memory, AT, 3 * PAGE);
        map(h, domain, memory, AT + 16 * PAGE, PAGE);
        other = holder_open("alpha");
        map(other, make_domain(other), make_memory(other, 64 * PAGE), AT, 4 * PAGE);
        holder_open("beta");
}

static struct domain *the_domain(void) {
        struct domain *d;

        HASH_FIND(hh, h->session->domains, &domain, sizeof domain, d);
        return d;
}

static void nothing_is_found_where_nothing_is_wrong(void **state) {
        struct asked a;

        (void)state;
        begin();
        assert_true(fits());
        assert_int_equal(charged("alpha", RESOURCE_MAPPINGS), 3);
        /* in the middle of a map, of an unmap, and after both */
        ask_map(h, domain, memory, AT + (1U << 30), 8 * PAGE, 0, &a);
        holder_expect(h, LINK_MAP);
        assert_true(fits());
        holder_done(h);
        assert_done(&a);
        assert_true(fits());
        ask_unmap(h, domain, AT, 3 * PAGE, 0, &a);
        holder_expect(h, LINK_UNMAP);
        assert_true(fits());
        holder_done(h);
        assert_done(&a);
        assert_true(fits());
        assert_true(balances_fit(core.broker, NULL, NULL));
}

/* One thing is made wrong, seen, and put right. */
#define SEEN(wrong, right, words)                                                                                      \
        do {                                                                                                           \
                wrong;                                                                                                 \
                assert_false(fits());                                                                                  \
                if (!strstr(found, words))                                                                             \
                        fail_msg("'%s' is not in: %s", words, found);                                                  \
                assert_false(balances_fit(core.broker, NULL, NULL));                                                   \
                right;                                                                                                 \
                assert_true(fits());                                                                                   \
        } while (0)

static void every_difference_is_found(void **state) {
        struct quota_account *account;
        struct mapping *m;
        struct domain *d;

        (void)state;
        begin();
        d = the_domain();
        account = &alpha()->account;
        SEEN(account->used[RESOURCE_LOCKED_BYTES] += PAGE, account->used[RESOURCE_LOCKED_BYTES] -= PAGE,
             "tenant 'alpha' is charged 20480 locked-bytes, and has 16384");
        for (unsigned i = 1; i < _RESOURCE_N; i++)
                SEEN(account->used[i]++, account->used[i]--, resource_name((enum resource)i));
        SEEN(core.broker->host.used[RESOURCE_LOCKED_BYTES] += 5, core.broker->host.used[RESOURCE_LOCKED_BYTES] -= 5,
             "the host counts 16389 locked-bytes, its tenants are charged 16384");
        SEEN(core.broker->host.used[RESOURCE_TABLE_BYTES]--, core.broker->host.used[RESOURCE_TABLE_BYTES]++,
             "table-bytes, its tenants are charged");
        SEEN(d->charged.of[RESOURCE_MAPPINGS]++, d->charged.of[RESOURCE_MAPPINGS]--, "is charged 3 mappings, and has 2");
        SEEN(d->charged.of[RESOURCE_TABLE_BYTES] -= PAGE, d->charged.of[RESOURCE_TABLE_BYTES] += PAGE, "its tables have");
        SEEN(d->kernel_mappings++, d->kernel_mappings--, "counts 3 mappings of the IOMMU, and has 2");
        /* a mapping that grew: its pages are counted from the mapping, not from what the account keeps of them */
        m = mapping_set_find(&d->mappings, (struct iova_range){ AT, AT });
        SEEN(m->offset += 4 * PAGE, m->offset -= 4 * PAGE, "tenant 'alpha' is charged 16384 locked-bytes, and has 28672");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, core_setup, core_teardown)
        const struct CMUnitTest tests[] = {
                T(nothing_is_found_where_nothing_is_wrong),
                T(every_difference_is_found),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
