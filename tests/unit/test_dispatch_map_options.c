/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util testlib */
/* The options of Map, Unmap and CreateDomain reach the core as they were meant, or not at all; and what is said of
 * domains and mappings reaches the client. */
#include "test_dispatch_harness.h"

static uint64_t four[] = { 0x1000, 0x2000, 0x3000, 0x4000 };
static uint32_t access_rw[] = { 3 };

/* Four entries with everything but chunks. */
static Iommud__V1__MapRequest map_of_four(void) {
        Iommud__V1__MapRequest q = IOMMUD__V1__MAP_REQUEST__INIT;

        q.iova = q.length = q.offset = q.memory = four;
        q.n_iova = q.n_length = q.n_offset = q.n_memory = 4;
        q.access = access_rw;
        q.n_access = 1;
        return q;
}

static void test_plain_map_asks_for_nothing_more(void **state) {
        Iommud__V1__MapRequest q = map_of_four();

        (void)state;
        assert_int_equal(call(CLIENT "Map", &q), 0);
        assert_int_equal(fake.map.n, 4);
        assert_non_null(fake.map.iova);
        assert_int_equal(fake.map.n_chunk, 0);
        assert_false(fake.map.expose_pages || fake.map.merge || fake.map.dry_run || fake.map.anywhere);
        assert_int_equal(fake.map.window, 0);
}

static void test_each_option_arrives_alone(void **state) {
        Iommud__V1__MapRequest q = map_of_four();

        (void)state;
        q.expose_pages = true;
        assert_int_equal(call(CLIENT "Map", &q), 0);
        assert_true(fake.map.expose_pages && !fake.map.merge && !fake.map.dry_run);
        q = map_of_four();
        q.merge = true;
        assert_int_equal(call(CLIENT "Map", &q), 0);
        assert_true(!fake.map.expose_pages && fake.map.merge && !fake.map.dry_run);
        q = map_of_four();
        q.dry_run = true;
        assert_int_equal(call(CLIENT "Map", &q), 0);
        assert_true(!fake.map.expose_pages && !fake.map.merge && fake.map.dry_run);
}

static void test_chunks(void **state) {
        static uint64_t chunks[1025] = { 0x1000, 0, 0x2000, 0x4000 };
        Iommud__V1__MapRequest q = map_of_four();

        (void)state;
        q.chunk = chunks;
        q.n_chunk = 1;                  /* stands for all */
        assert_int_equal(call(CLIENT "Map", &q), 0);
        assert_int_equal(fake.n_chunk, 1);
        assert_int_equal(fake.chunk[0], 0x1000);
        q.n_chunk = 4;
        assert_int_equal(call(CLIENT "Map", &q), 0);
        assert_int_equal(fake.n_chunk, 4);
        assert_memory_equal(fake.chunk, chunks, 4 * sizeof *chunks);
        fake_set(FAKE_NOW, 0);
        for (size_t n = 2; n <= 5; n++) {
                if (n == 4)
                        continue;
                q.n_chunk = n;
                assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BAD_MESSAGE);
                assert_int_equal(one.refusal.element, n < 4 ? n : 4);
                assert_int_equal(one.refusal.used, n);
                assert_int_equal(one.refusal.asked, 4);
        }
        q.n_chunk = 1025;
        assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BATCH_TOO_LARGE);
        assert_string_equal(fake.last, "");
}

/* The number of entries comes from length then: an empty iova is not an empty request. */
static void test_anywhere(void **state) {
        Iommud__V1__MapRequest q = map_of_four();

        (void)state;
        q.anywhere = true;
        assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BAD_MESSAGE);          /* addresses, and yet anywhere */
        q.n_iova = 0;
        q.window = 77;
        assert_int_equal(call(CLIENT "Map", &q), 0);
        assert_true(fake.map.anywhere);
        assert_null(fake.map.iova);
        assert_int_equal(fake.map.n, 4);
        assert_int_equal(fake.map.window, 77);
        assert_memory_equal(fake.length, four, sizeof four);
        fake_set(FAKE_NOW, 0);
        q.n_offset = 3;
        assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BAD_MESSAGE);
        assert_int_equal(one.refusal.asked, 4);
        q.n_length = q.n_offset = q.n_memory = 0;
        assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BAD_MESSAGE);          /* nothing at all */
        assert_string_equal(fake.last, "");
}

static void test_no_place(void **state) {
        Iommud__V1__MapRequest q = map_of_four();

        (void)state;
        q.n_iova = 0;                   /* and anywhere is not set */
        assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BAD_MESSAGE);
        q = map_of_four();
        q.window = 77;                  /* chosen for nothing */
        assert_int_equal(call(CLIENT "Map", &q), REFUSAL_BAD_MESSAGE);
        assert_string_equal(fake.last, "");
}

static void test_map_answer(void **state) {
        Iommud__V1__MapRequest q = map_of_four();
        Iommud__V1__MapResponse *r;

        (void)state;
        assert_int_equal(call(CLIENT "Map", &q), 0);
        r = iommud__v1__map_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->iova, 0xabc000);
        assert_int_equal(r->mappings, 4);
        assert_int_equal(r->locked_bytes, 0x5000);
        assert_int_equal(r->table_bytes, 0x1080);
        iommud__v1__map_response__free_unpacked(r, NULL);
}

/* A policy that we do not know must not become one that does more. */
static void test_split_policies(void **state) {
        Iommud__V1__UnmapRequest q = IOMMUD__V1__UNMAP_REQUEST__INIT;

        (void)state;
        q.iova = q.length = four;
        q.n_iova = q.n_length = 1;
        for (int policy = 0; policy <= 2; policy++) {
                q.split_policy = (Iommud__V1__SplitPolicy)policy;
                assert_int_equal(call(CLIENT "Unmap", &q), 0);
                assert_int_equal(fake.split, policy);
        }
        fake_set(FAKE_NOW, 0);
        q.split_policy = (Iommud__V1__SplitPolicy)3;
        assert_int_equal(call(CLIENT "Unmap", &q), REFUSAL_BAD_MESSAGE);
        q.split_policy = (Iommud__V1__SplitPolicy)-1;
        assert_int_equal(call(CLIENT "Unmap", &q), REFUSAL_BAD_MESSAGE);
        assert_string_equal(fake.last, "");
}

static void test_flush_modes(void **state) {
        Iommud__V1__CreateDomainRequest q = IOMMUD__V1__CREATE_DOMAIN_REQUEST__INIT;

        (void)state;
        assert_int_equal(call(CLIENT "CreateDomain", &q), 0);
        assert_false(fake.lazy);
        q.flush_mode = IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY;
        assert_int_equal(call(CLIENT "CreateDomain", &q), 0);
        assert_true(fake.lazy);
        fake_set(FAKE_NOW, 0);
        q.flush_mode = (Iommud__V1__FlushMode)2;
        assert_int_equal(call(CLIENT "CreateDomain", &q), REFUSAL_BAD_MESSAGE);
        assert_string_equal(fake.last, "");
}

static void test_sync(void **state) {
        Iommud__V1__SyncRequest q = IOMMUD__V1__SYNC_REQUEST__INIT;
        static uint8_t key[16] = { 9 };
        Iommud__V1__SyncResponse *r;

        (void)state;
        q.domain = 31;
        q.request_key = (ProtobufCBinaryData){ 16, key };
        assert_int_equal(call(CLIENT "Sync", &q), 0);
        assert_int_equal(fake.domain, 31);
        assert_true(fake.key.present && fake.key.bytes[0] == 9);
        r = iommud__v1__sync_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->flushed_bytes, 0x7000);
        assert_int_equal(r->flushed_mappings, 7);
        iommud__v1__sync_response__free_unpacked(r, NULL);
        q.request_key.len = 15;
        assert_int_equal(call(CLIENT "Sync", &q), REFUSAL_BAD_MESSAGE);
}

static void test_what_is_said_of_a_domain(void **state) {
        Iommud__V1__DescribeDomainRequest q = IOMMUD__V1__DESCRIBE_DOMAIN_REQUEST__INIT;
        Iommud__V1__DescribeDomainResponse *r;

        (void)state;
        for (uint64_t id = 1; id <= 2; id++) {
                q.domain = id;
                assert_int_equal(call(CLIENT "DescribeDomain", &q), 0);
                r = iommud__v1__describe_domain_response__unpack(NULL, one.body_size, one.body);
                assert_int_equal(r->domain->flush_mode, id == 2 ? IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY
                                                                : IOMMUD__V1__FLUSH_MODE__FLUSH_STRICT);
                assert_int_equal(r->domain->deferred_mappings, 11);
                assert_int_equal(r->domain->deferred_bytes, 12);
                assert_int_equal(r->domain->kernel_mappings, 13);
                assert_int_equal(r->domain->table_bytes, 14);
                assert_int_equal(r->domain->shared_pages, 15);
                iommud__v1__describe_domain_response__free_unpacked(r, NULL);
        }
}

static void test_what_is_said_of_a_mapping(void **state) {
        Iommud__V1__ListMappingsRequest q = IOMMUD__V1__LIST_MAPPINGS_REQUEST__INIT;
        Iommud__V1__ListMappingsResponse *r;

        (void)state;
        fake.n_mappings = 2;
        q.domain = 3;
        assert_int_equal(call(CLIENT "ListMappings", &q), 0);
        r = iommud__v1__list_mappings_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->mappings[1]->chunk, 0);
        assert_null(r->mappings[1]->exposed);
        iommud__v1__list_mappings_response__free_unpacked(r, NULL);
        fake.exposed = true;
        assert_int_equal(call(CLIENT "ListMappings", &q), 0);
        fake.exposed = false;
        r = iommud__v1__list_mappings_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->mappings[1]->chunk, 0x400);
        assert_int_equal(r->mappings[1]->exposed->first, 0x2000);
        assert_int_equal(r->mappings[1]->exposed->last, 0x3fff);
        assert_int_equal(r->mappings[1]->exposed_access, 1);
        iommud__v1__list_mappings_response__free_unpacked(r, NULL);
}

/* Rule 3 of proto/README.md: a client looks here before it relies on what an older service would ignore. */
static void test_capabilities(void **state) {
        Iommud__V1__OpenSessionRequest q = IOMMUD__V1__OPEN_SESSION_REQUEST__INIT;
        Iommud__V1__OpenSessionResponse *r;
        uint64_t all = 0;

        (void)state;
        for (unsigned i = 0; i < iommud__v1__capability__descriptor.n_values; i++)
                all |= (uint64_t)iommud__v1__capability__descriptor.values[i].value;
        assert_int_equal(call(CLIENT "OpenSession", &q), 0);
        r = iommud__v1__open_session_response__unpack(NULL, one.body_size, one.body);
        assert_int_equal(r->capabilities, all);
        iommud__v1__open_session_response__free_unpacked(r, NULL);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_plain_map_asks_for_nothing_more, fresh),
                cmocka_unit_test_setup(test_each_option_arrives_alone, fresh),
                cmocka_unit_test_setup(test_chunks, fresh),
                cmocka_unit_test_setup(test_anywhere, fresh),
                cmocka_unit_test_setup(test_no_place, fresh),
                cmocka_unit_test_setup(test_map_answer, fresh),
                cmocka_unit_test_setup(test_split_policies, fresh),
                cmocka_unit_test_setup(test_flush_modes, fresh),
                cmocka_unit_test_setup(test_sync, fresh),
                cmocka_unit_test_setup(test_what_is_said_of_a_domain, fresh),
                cmocka_unit_test_setup(test_what_is_said_of_a_mapping, fresh),
                cmocka_unit_test_setup(test_capabilities, fresh),
        };
        return cmocka_run_group_tests(tests, start, stop);
}
