/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util testlib */
/* What dispatch checks before the core hears of a request, and how it pages; without gRPC. */
#include "test_dispatch_harness.h"

static uint64_t numbers[4096];
static uint32_t accesses[4096];

static Iommud__V1__MapRequest map_of(size_t n) {
        Iommud__V1__MapRequest q = IOMMUD__V1__MAP_REQUEST__INIT;

        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
                numbers[i] = UINT64_MAX - i;    /* the longest on the wire */
                accesses[i] = 3;
        }
        q.n_iova = q.n_length = q.n_offset = q.n_memory = q.n_access = n;
        q.iova = q.length = q.offset = q.memory = numbers;
        q.access = accesses;
        return q;
}

static void test_map_batch_sizes(void **state) {
        Iommud__V1__MapRequest q = map_of(1024);

        (void)state;
        assert_int_equal(call(CLIENT "Map", &q), 0);
        assert_int_equal(fake.n, 1024);
        q = map_of(1025);
        assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BATCH_TOO_LARGE);
        assert_int_equal(one.refusal.limit, 1024);
        assert_int_equal(one.refusal.asked, 1025);
        q = map_of(1);
        q.n_access = 1025;              /* whichever it is */
        assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BATCH_TOO_LARGE);
        q = map_of(0);
        assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BAD_MESSAGE);
        assert_string_equal(fake.last, "map_request_start");
}

/* The hot path allocates nothing: what it needs fits the first block. */
static void test_largest_map_needs_no_further_memory(void **state) {
        Iommud__V1__MapRequest q = map_of(1024);
        static uint8_t packed[1U << 17];

        (void)state;
        assert_int_equal(call_bytes(CLIENT "Map", packed, iommud__v1__map_request__pack(&q, packed)), 0);
        assert_null(one.arena.blocks);
        arena_reset(&one.arena);
}

static void assert_misfit(const Iommud__V1__MapRequest *q, int element, uint64_t used, uint64_t asked) {
        assert_int_equal(call(CLIENT "Map", q), REFUSAL_BAD_MESSAGE);
        assert_int_equal(one.refusal.element, element);
        assert_int_equal(one.refusal.used, used);
        assert_int_equal(one.refusal.asked, asked);
        assert_string_equal(fake.last, "");     /* the core heard nothing */
}

static void test_map_arrays_fit_together(void **state) {
        Iommud__V1__MapRequest q = map_of(4);

        (void)state;
        q.n_length = 3;
        assert_misfit(&q, 3, 3, 4);
        q.n_length = 5;
        assert_misfit(&q, 4, 5, 4);
        q = map_of(4);
        q.n_offset = 0;
        assert_misfit(&q, 0, 0, 4);
        q = map_of(4);
        q.n_offset = 1;                 /* only memory and access may stand for all */
        assert_misfit(&q, 1, 1, 4);
        q = map_of(4);
        q.n_memory = 2;
        assert_misfit(&q, 2, 2, 4);
        q = map_of(4);
        q.n_access = 0;
        assert_misfit(&q, 0, 0, 4);
        q = map_of(4);
        q.n_memory = q.n_access = 1;
        assert_int_equal(call(CLIENT "Map", &q), 0);
        assert_int_equal(fake.n_memory, 1);
        assert_int_equal(fake.n_access, 1);
        q = map_of(1);
        q.n_memory = 2;
        fresh(NULL);
        assert_misfit(&q, 1, 2, 1);
}

static void test_unmap_arrays(void **state) {
        Iommud__V1__UnmapRequest q = IOMMUD__V1__UNMAP_REQUEST__INIT;

        (void)state;
        (void)map_of(1);
        q.iova = q.length = numbers;
        /* an empty Unmap must never become the core's "everything" */
        assert_int_equal(call(CLIENT "Unmap", &q), REFUSAL_BAD_MESSAGE);
        q.n_length = 1;
        assert_int_equal(call(CLIENT "Unmap", &q), REFUSAL_BAD_MESSAGE);
        q.n_iova = 2;
        assert_int_equal(call(CLIENT "Unmap", &q), REFUSAL_BAD_MESSAGE);
        assert_int_equal(one.refusal.element, 1);
        assert_string_equal(fake.last, "");
        q.n_length = 2;
        assert_int_equal(call(CLIENT "Unmap", &q), 0);
        q.n_iova = q.n_length = 1025;
        assert_int_equal(call(CLIENT "Unmap", &q), REFUSAL_BATCH_TOO_LARGE);
}

static void test_request_keys(void **state) {
        static uint8_t bytes[20] = { 1, 2, 3 };
        Iommud__V1__UnmapAllRequest q = IOMMUD__V1__UNMAP_ALL_REQUEST__INIT;

        (void)state;
        q.request_key.data = bytes;
        for (size_t n = 0; n <= sizeof bytes; n++) {
                q.request_key.len = n;
                assert_int_equal(call(CLIENT "UnmapAll", &q), n == 0 || n == 16 ? 0 : REFUSAL_BAD_MESSAGE);
                if (n == 0 || n == 16)
                        assert_int_equal(fake.key.present, n == 16);
                else
                        assert_int_equal(one.refusal.asked, n);
        }
}

static void test_names(void **state) {
        char name[65];
        Iommud__V1__CreateDomainRequest q = IOMMUD__V1__CREATE_DOMAIN_REQUEST__INIT;
        Iommud__V1__AttachDeviceRequest attach = IOMMUD__V1__ATTACH_DEVICE_REQUEST__INIT;
        static const uint8_t with_nul[] = { 0x12, 5, 'a', 0, 'b', 'c', 'd' };   /* label */

        (void)state;
        assert_int_equal(call(CLIENT "CreateDomain", &q), 0);   /* none is fine */
        memset(name, 'x', sizeof name);
        name[63] = '\0';
        q.label = name;
        assert_int_equal(call(CLIENT "CreateDomain", &q), 0);
        assert_string_equal(fake.name, name);
        name[63] = 'x';
        name[64] = '\0';
        assert_int_equal(call(CLIENT "CreateDomain", &q), REFUSAL_BAD_NAME);
        assert_int_equal(one.refusal.limit, 63);
        assert_int_equal(one.refusal.asked, 64);
        q.label = text("a\nb");
        assert_int_equal(call(CLIENT "CreateDomain", &q), REFUSAL_BAD_NAME);
        q.label = text("\xff");
        assert_int_equal(call(CLIENT "CreateDomain", &q), REFUSAL_BAD_NAME);
        assert_int_equal(call_bytes(CLIENT "CreateDomain", with_nul, sizeof with_nul), REFUSAL_BAD_NAME);
        assert_int_equal(call(CLIENT "AttachDevice", &attach), REFUSAL_BAD_NAME);       /* needed */
        attach.device = text("edu0");
        assert_int_equal(call(CLIENT "AttachDevice", &attach), 0);
}

static void test_bytes_that_are_no_message(void **state) {
        static const uint8_t cut[] = { 0x1a, 200, 1, 2 }, group[] = { 0x0b, 0x0c };
        static const uint8_t bad_tag[] = { 0xff, 0xff, 0xff, 0xff, 0xff, 1 };
        uint8_t random[512];
        unsigned seed = 7;

        (void)state;
        assert_int_equal(call_bytes(CLIENT "Map", cut, sizeof cut), REFUSAL_BAD_MESSAGE);
        assert_int_equal(call_bytes(CLIENT "Map", group, sizeof group), REFUSAL_BAD_MESSAGE);
        assert_int_equal(call_bytes(CLIENT "Map", bad_tag, sizeof bad_tag), REFUSAL_BAD_MESSAGE);
        for (int i = 0; i < 20000; i++) {       /* any answer will do, exactly one */
                size_t n = (size_t)rand_r(&seed) % sizeof random;

                for (size_t b = 0; b < n; b++)
                        random[b] = (uint8_t)rand_r(&seed);
                (void)call_bytes(i % 2 ? CLIENT "Map" : OPERATOR "UpsertTenant", random, n);
                arena_reset(&one.arena);
        }
}

/* Two bytes on the wire that become forty in memory, half a million times: refused, not obeyed. */
static void test_message_of_many_small_parts(void **state) {
        static uint8_t parts[1U << 20];

        (void)state;
        for (size_t i = 0; i < sizeof parts; i += 2)
                parts[i] = 0x18;        /* iova, one at a time */
        assert_int_equal(call_bytes(CLIENT "Map", parts, sizeof parts), REFUSAL_BAD_MESSAGE);
        assert_true(one.arena.total <= one.arena.limit);
        arena_reset(&one.arena);
        /* unpacked arrays are arrays */
        assert_int_equal(call_bytes(CLIENT "Map", parts, 2048 * 2), REFUSAL_BATCH_TOO_LARGE);
        arena_reset(&one.arena);
}

static void test_seal_policy(void **state) {
        Iommud__V1__RegisterMemoryRequest q = IOMMUD__V1__REGISTER_MEMORY_REQUEST__INIT;

        (void)state;
        assert_int_equal(call(CLIENT "RegisterMemory", &q), 0);
        assert_false(fake.unsealed);
        q.seal_policy = (Iommud__V1__SealPolicy)2;      /* of a later version: never guess the weaker one */
        assert_int_equal(call(CLIENT "RegisterMemory", &q), REFUSAL_BAD_MESSAGE);
}

/* ---- pages ---- */

static void test_mappings_page_by_page(void **state) {
        Iommud__V1__ListMappingsRequest q = IOMMUD__V1__LIST_MAPPINGS_REQUEST__INIT;
        char token[64] = "";
        size_t seen = 0, pages = 0;

        (void)state;
        fake.n_mappings = 2500;
        q.domain = 3;
        q.page_size = 5000;             /* capped */
        for (;;) {
                Iommud__V1__ListMappingsResponse *r;

                q.page_token = token;
                assert_int_equal(call(CLIENT "ListMappings", &q), 0);
                r = iommud__v1__list_mappings_response__unpack(NULL, one.body_size, one.body);
                assert_in_range(r->n_mappings, 1, 1000);
                for (size_t i = 0; i < r->n_mappings; i++)
                        assert_int_equal(r->mappings[i]->iova, seen++ * 0x2000);
                (void)snprintf(token, sizeof token, "%s", r->next_page_token);
                iommud__v1__list_mappings_response__free_unpacked(r, NULL);
                pages++;
                if (!token[0])
                        break;
        }
        assert_int_equal(seen, 2500);
        assert_int_equal(pages, 3);
}

static void test_mappings_of_a_range(void **state) {
        Iommud__V1__ListMappingsRequest q = IOMMUD__V1__LIST_MAPPINGS_REQUEST__INIT;
        Iommud__V1__Range range = IOMMUD__V1__RANGE__INIT;

        (void)state;
        fake.n_mappings = 5;
        q.range = &range;
        range.first = 0x2000;
        range.last = UINT64_MAX;
        assert_int_equal(call(CLIENT "ListMappings", &q), 0);
        assert_int_equal(fake.range.first, 0x2000);
        assert_true(fake.range.last == UINT64_MAX);
        q.page_token = text("0000000000004fff");
        assert_int_equal(call(CLIENT "ListMappings", &q), 0);
        assert_int_equal(fake.range.first, 0x5000);
        q.page_token = text("0000000000000fff");        /* before the range: the range's own begin counts */
        assert_int_equal(call(CLIENT "ListMappings", &q), 0);
        assert_int_equal(fake.range.first, 0x2000);
        q.page_token = text("ffffffffffffffff");        /* nothing can follow, and 2^64 is not 0 */
        (void)fake_set(FAKE_NOW, 0);
        assert_int_equal(call(CLIENT "ListMappings", &q), 0);
        assert_string_equal(fake.last, "");
        assert_int_equal(one.body_size, 0);
        q.page_token = text("nonsense");
        assert_int_equal(call(CLIENT "ListMappings", &q), REFUSAL_BAD_MESSAGE);
        q.page_token = text("");
        range.first = 2;
        range.last = 1;
        assert_int_equal(call(CLIENT "ListMappings", &q), REFUSAL_BAD_MESSAGE);
}

static void test_domains_page_by_page(void **state) {
        Iommud__V1__ListDomainsRequest q = IOMMUD__V1__LIST_DOMAINS_REQUEST__INIT;
        char token[64] = "";
        uint64_t seen = 0;

        (void)state;
        fake.n_domains = 600;
        q.page_size = 1000;
        do {
                Iommud__V1__ListDomainsResponse *r;

                q.page_token = token;
                assert_int_equal(call(OPERATOR "ListDomains", &q), 0);
                r = iommud__v1__list_domains_response__unpack(NULL, one.body_size, one.body);
                assert_in_range(r->n_domains, 1, 250);
                for (size_t i = 0; i < r->n_domains; i++)
                        assert_int_equal(r->domains[i]->id, ++seen);
                (void)snprintf(token, sizeof token, "%s", r->next_page_token);
                iommud__v1__list_domains_response__free_unpacked(r, NULL);
        } while (token[0]);
        assert_int_equal(seen, 600);
}

static void test_tenants_page_by_page(void **state) {
        Iommud__V1__ListTenantsRequest q = IOMMUD__V1__LIST_TENANTS_REQUEST__INIT;
        char token[256] = "", expected[16];
        unsigned seen = 0;

        (void)state;
        fake.n_tenants = 250;
        q.page_size = 1000;
        do {
                Iommud__V1__ListTenantsResponse *r;

                q.page_token = token;
                assert_int_equal(call(OPERATOR "ListTenants", &q), 0);
                r = iommud__v1__list_tenants_response__unpack(NULL, one.body_size, one.body);
                assert_in_range(r->n_tenants, 1, 100);
                for (size_t i = 0; i < r->n_tenants; i++) {
                        (void)snprintf(expected, sizeof expected, "t%03u", seen++);
                        assert_string_equal(r->tenants[i]->name, expected);
                }
                (void)snprintf(token, sizeof token, "%s", r->next_page_token);
                iommud__v1__list_tenants_response__free_unpacked(r, NULL);
        } while (token[0]);
        assert_int_equal(seen, 250);
}

/* ---- tenants ---- */

static int upsert(Iommud__V1__Tenant *t) {
        Iommud__V1__UpsertTenantRequest q = IOMMUD__V1__UPSERT_TENANT_REQUEST__INIT;

        q.tenant = t;
        return call(OPERATOR "UpsertTenant", &q);
}

static void test_tenant_names(void **state) {
        static const char *const good[] = { "a", "0", "red-1", "a.b_c-d",
                                            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" };
        static const char *const bad[] = { "", ".", "..", ".a", "-a", "_a", "A", "a/b", "a b", "\xc3\xa4", "a\n",
                                           "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" };
        Iommud__V1__DeleteTenantRequest d = IOMMUD__V1__DELETE_TENANT_REQUEST__INIT;
        Iommud__V1__Tenant t = IOMMUD__V1__TENANT__INIT;

        (void)state;
        for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
                t.name = text(good[i]);
                assert_int_equal(upsert(&t), 0);
        }
        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                t.name = d.name = text(bad[i]);
                if (upsert(&t) != REFUSAL_BAD_NAME || call(OPERATOR "DeleteTenant", &d) != REFUSAL_BAD_NAME)
                        fail_msg("\"%s\"", bad[i]);
        }
}

static void test_tenant_rules(void **state) {
        Iommud__V1__Tenant t = IOMMUD__V1__TENANT__INIT;
        Iommud__V1__Rule rule = IOMMUD__V1__RULE__INIT, fine = IOMMUD__V1__RULE__INIT, *rules[40];
        char prefix[300];

        (void)state;
        fine.gid_set_case = IOMMUD__V1__RULE__GID_SET_GID;
        fine.gid = 7;
        rules[0] = &fine;
        rules[1] = &rule;
        t.name = text("a");
        t.rules = rules;
        t.n_rules = 2;
        assert_int_equal(upsert(&t), REFUSAL_BAD_MESSAGE);      /* a rule that fits everybody */
        assert_int_equal(one.refusal.element, 1);
        rule.cgroup_prefix = text("relative");
        assert_int_equal(upsert(&t), REFUSAL_BAD_NAME);
        assert_int_equal(one.refusal.element, 1);
        memset(prefix, 'x', sizeof prefix);
        prefix[0] = '/';
        prefix[256] = '\0';
        rule.cgroup_prefix = prefix;
        assert_int_equal(upsert(&t), REFUSAL_BAD_NAME);
        prefix[255] = '\0';
        assert_int_equal(upsert(&t), 0);
        assert_string_equal(fake.upsert.config.rules[1].cgroup_prefix, prefix);
        assert_true(fake.upsert.config.rules[0].has_gid && fake.upsert.config.rules[0].gid == 7);
        assert_false(fake.upsert.config.rules[0].has_uid);
        for (size_t i = 0; i < 40; i++)
                rules[i] = &fine;
        t.n_rules = 32;
        assert_int_equal(upsert(&t), 0);
        assert_int_equal(fake.upsert.config.n_rules, 32);
        t.n_rules = 33;
        assert_int_equal(upsert(&t), REFUSAL_LIMIT_EXCEEDED);
        assert_int_equal(one.refusal.limit, 32);
}

static void test_tenant_quotas(void **state) {
        Iommud__V1__Tenant t = IOMMUD__V1__TENANT__INIT;
        Iommud__V1__Quota a = IOMMUD__V1__QUOTA__INIT, b = IOMMUD__V1__QUOTA__INIT, *quotas[] = { &a, &b };

        (void)state;
        t.name = text("a");
        t.quotas = quotas;
        t.n_quotas = 1;
        assert_int_equal(upsert(&t), REFUSAL_BAD_MESSAGE);      /* of nothing */
        a.resource = (Iommud__V1__Resource)_RESOURCE_N;
        assert_int_equal(upsert(&t), REFUSAL_BAD_MESSAGE);
        a.resource = (Iommud__V1__Resource)-1;
        assert_int_equal(upsert(&t), REFUSAL_BAD_MESSAGE);
        a.resource = b.resource = IOMMUD__V1__RESOURCE__RESOURCE_DEVICES;
        a.limit = UINT64_MAX - 1;
        assert_int_equal(upsert(&t), 0);
        assert_true(fake.upsert.config.quota[RESOURCE_DEVICES] == UINT64_MAX - 2);      /* not "keep" */
        a.limit = 0;
        assert_int_equal(upsert(&t), 0);
        assert_true(fake.upsert.config.quota[RESOURCE_DEVICES] == 0);
        assert_true(fake.upsert.config.quota[RESOURCE_DOMAINS] == TENANT_QUOTA_KEEP);
        t.n_quotas = 2;
        assert_int_equal(upsert(&t), REFUSAL_BAD_MESSAGE);      /* twice */
}

static void test_upsert_flags(void **state) {
        Iommud__V1__UpsertTenantRequest q = IOMMUD__V1__UPSERT_TENANT_REQUEST__INIT;
        Iommud__V1__Tenant t = IOMMUD__V1__TENANT__INIT;

        (void)state;
        assert_int_equal(call(OPERATOR "UpsertTenant", &q), REFUSAL_BAD_MESSAGE);       /* no tenant */
        t.name = text("a");
        q.tenant = &t;
        q.create_only = q.must_exist = true;
        assert_int_equal(call(OPERATOR "UpsertTenant", &q), REFUSAL_BAD_MESSAGE);
        q.create_only = false;
        q.fields = 32;
        assert_int_equal(call(OPERATOR "UpsertTenant", &q), REFUSAL_BAD_MESSAGE);
        q.fields = 31;
        assert_int_equal(call(OPERATOR "UpsertTenant", &q), 0);
        assert_int_equal(fake.upsert.fields, 31);
        assert_true(fake.upsert.must_exist && !fake.upsert.create_only);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_map_batch_sizes, fresh),
                cmocka_unit_test_setup(test_largest_map_needs_no_further_memory, fresh),
                cmocka_unit_test_setup(test_map_arrays_fit_together, fresh),
                cmocka_unit_test_setup(test_unmap_arrays, fresh),
                cmocka_unit_test_setup(test_request_keys, fresh),
                cmocka_unit_test_setup(test_names, fresh),
                cmocka_unit_test_setup(test_bytes_that_are_no_message, fresh),
                cmocka_unit_test_setup(test_message_of_many_small_parts, fresh),
                cmocka_unit_test_setup(test_seal_policy, fresh),
                cmocka_unit_test_setup(test_mappings_page_by_page, fresh),
                cmocka_unit_test_setup(test_mappings_of_a_range, fresh),
                cmocka_unit_test_setup(test_domains_page_by_page, fresh),
                cmocka_unit_test_setup(test_tenants_page_by_page, fresh),
                cmocka_unit_test_setup(test_tenant_names, fresh),
                cmocka_unit_test_setup(test_tenant_rules, fresh),
                cmocka_unit_test_setup(test_tenant_quotas, fresh),
                cmocka_unit_test_setup(test_upsert_flags, fresh),
        };
        return cmocka_run_group_tests(tests, start, stop);
}
