/* SPDX-License-Identifier: Apache-2.0 */
/* link: sdk proto broker */
/*
 * Calls of the library that take options: what of them reaches the service, in which form, and what comes back; what a
 * service cannot know is not asked of it. (The broker's layer is named above for -lgrpc alone.)
 */
#include "../lib/fakes/fake_service.c"

static struct iommud_map_entry entry_of(struct fixture *f, uint64_t iova) {
        return (struct iommud_map_entry){ .iova = iova, .memory = f->memory, .offset = 0, .length = 4096,
                                          .access = IOMMUD_READ };
}

static void test_map_without_options(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entries[2] = { entry_of(f, 0x1000), entry_of(f, 0x5000) };
        struct iommud_map_result result = { .size = sizeof result };
        Iommud__V1__MapRequest *q;

        assert_int_equal(iommud_map_with(f->domain, entries, 2, NULL, NULL), 0);
        assert_int_equal(iommud_map_with(f->domain, entries, 2, NULL, &result), 0);
        q = ASKED(Map, map);
        assert_int_equal(q->n_iova, 2);
        assert_int_equal(q->iova[1], 0x5000);
        assert_int_equal(q->n_chunk, 0);
        assert_false(q->expose_pages || q->merge || q->dry_run || q->anywhere || q->window);
        assert_int_equal(q->request_key.len, 16);
        iommud__v1__map_request__free_unpacked(q, NULL);
        assert_int_equal(result.iova, 0x1000);  /* that is where it was asked for */
        assert_int_equal(result.mappings, 2);
        assert_int_equal(result.locked_bytes, 8192);
        assert_int_equal(result.table_bytes, 4224);
        assert_int_equal(result.size, sizeof result);
}

static void test_map_flags(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entry = entry_of(f, 0x1000);
        struct iommud_map_options o = { .size = sizeof o };
        Iommud__V1__MapRequest *q;

        for (uint32_t flag = 1; flag <= 8; flag <<= 1) {
                o.flags = flag;
                assert_int_equal(iommud_map_with(f->domain, &entry, 1, &o, NULL), 0);
                q = ASKED(Map, map);
                assert_int_equal(q->expose_pages, flag == IOMMUD_MAP_EXPOSE_PAGES);
                assert_int_equal(q->merge, flag == IOMMUD_MAP_MERGE);
                assert_int_equal(q->dry_run, flag == IOMMUD_MAP_DRY_RUN);
                assert_int_equal(q->anywhere, flag == IOMMUD_MAP_ANYWHERE);
                iommud__v1__map_request__free_unpacked(q, NULL);
        }
        n_calls = 0;
        o.flags = 16;
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &o, NULL), -EINVAL);
        o.flags = 0x80000001;
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &o, NULL), -EINVAL);
        assert_int_equal(n_calls, 0);
}

static void test_map_chunks(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entries[2] = { entry_of(f, 0x1000), entry_of(f, 0x5000) };
        struct iommud_map_options o = { .size = sizeof o, .chunk = 0x1000 };
        Iommud__V1__MapRequest *q;

        assert_int_equal(iommud_map_with(f->domain, entries, 2, &o, NULL), 0);
        q = ASKED(Map, map);
        assert_int_equal(q->n_chunk, 1);        /* stands for all */
        assert_int_equal(q->chunk[0], 0x1000);
        iommud__v1__map_request__free_unpacked(q, NULL);
}

static void test_map_anywhere(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entry = entry_of(f, 0x1000);
        struct iommud_map_options o = { .size = sizeof o, .flags = IOMMUD_MAP_ANYWHERE, .window = 21 };
        struct iommud_map_result result = { .size = sizeof result };
        Iommud__V1__MapRequest *q;

        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &o, &result), 0);
        q = ASKED(Map, map);
        assert_true(q->anywhere);
        assert_int_equal(q->n_iova, 0);
        assert_int_equal(q->n_length, 1);
        assert_int_equal(q->window, 21);
        iommud__v1__map_request__free_unpacked(q, NULL);
        assert_int_equal(result.iova, 0x7700000);
        n_calls = 0;
        o.flags = 0;                            /* a window that nothing is looked for in */
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &o, &result), -EINVAL);
        assert_int_equal(n_calls, 0);
}

/* What has no effect needs no memory of the service's. */
static void test_dry_run_has_no_key(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entry = entry_of(f, 0x1000);
        struct iommud_map_options o = { .size = sizeof o, .flags = IOMMUD_MAP_DRY_RUN };
        Iommud__V1__MapRequest *q;

        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &o, NULL), 0);
        q = ASKED(Map, map);
        assert_int_equal(q->request_key.len, 0);
        iommud__v1__map_request__free_unpacked(q, NULL);
}

static void test_struct_sizes(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entry = entry_of(f, 0x1000);
        struct {
                struct iommud_map_options o;
                uint64_t newer;
        } larger = { .o = { .size = sizeof larger, .flags = IOMMUD_MAP_MERGE } };
        struct iommud_map_result result;

        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &larger.o, NULL), 0);
        n_calls = 0;
        larger.newer = 1;                       /* asks for what we do not know */
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &larger.o, NULL), -EINVAL);
        larger.o.size = 0;
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &larger.o, NULL), -EINVAL);
        result.size = 0;                        /* known before anything is mapped */
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, NULL, &result), -EINVAL);
        assert_int_equal(n_calls, 0);
        memset(&result, 0x55, sizeof result);
        result.size = offsetof(struct iommud_map_result, mappings);     /* of an older program */
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, NULL, &result), 0);
        assert_int_equal(result.iova, 0x1000);
        assert_int_equal(result.mappings, 0x5555555555555555);
}

static void test_refused_map_leaves_the_result(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entry = entry_of(f, 0x1000);
        struct iommud_map_result result = { .size = sizeof result, .iova = 42 };

        refuse_next(1, GRPC_STATUS_OUT_OF_RANGE, IOMMUD_REASON_NO_WINDOW);
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, NULL, &result), -ERANGE);
        assert_int_equal(detail().element, 3);
        assert_string_equal(detail().call, "iommud_map_with");
        assert_int_equal(result.iova, 42);
        n_calls = 0;
        assert_int_equal(iommud_map_with(f->domain, NULL, 0, NULL, &result), 0);        /* none is no call at all */
        assert_int_equal(n_calls, 0);
        assert_int_equal(result.mappings, 0);
}

static void test_unmap_with(void **state) {
        struct fixture *f = *state;
        struct iommud_unmap_entry entry = { .iova = 0x2000, .length = 0x3000 };
        struct iommud_unmap_options o = { .size = sizeof o, .split = IOMMUD_SPLIT_REMAP };
        Iommud__V1__UnmapRequest *q;
        uint64_t bytes = 0;

        assert_int_equal(iommud_unmap_with(f->domain, &entry, 1, &o, &bytes), 0);
        assert_int_equal(bytes, 12288);
        q = ASKED(Unmap, unmap);
        assert_int_equal(q->split_policy, IOMMUD__V1__SPLIT_POLICY__SPLIT_REMAP);
        assert_int_equal(q->iova[0], 0x2000);
        iommud__v1__unmap_request__free_unpacked(q, NULL);
        assert_int_equal(iommud_unmap_with(f->domain, &entry, 1, NULL, NULL), 0);
        q = ASKED(Unmap, unmap);
        assert_int_equal(q->split_policy, IOMMUD__V1__SPLIT_POLICY__SPLIT_AT_CHUNKS);
        iommud__v1__unmap_request__free_unpacked(q, NULL);
        refuse_next(1, GRPC_STATUS_FAILED_PRECONDITION, IOMMUD_REASON_PARTIAL_UNMAP);
        bytes = 42;
        assert_int_equal(iommud_unmap_with(f->domain, &entry, 1, &o, &bytes), -EBUSY);
        assert_int_equal(bytes, 42);
        assert_string_equal(detail().call, "iommud_unmap_with");
}

static void test_lazy_domain(void **state) {
        struct fixture *f = *state;
        struct iommud_domain_options o = { .size = sizeof o, .label = "lazy one", .flush_mode = IOMMUD_FLUSH_LAZY };
        struct iommud_domain_info info = { .size = sizeof info };
        Iommud__V1__CreateDomainRequest *q;
        struct iommud_domain *d;
        uint64_t bytes = 0;

        assert_int_equal(iommud_domain_create_with(f->client, &o, &d), 0);
        q = ASKED(CreateDomain, create_domain);
        assert_string_equal(q->label, "lazy one");
        assert_int_equal(q->flush_mode, IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY);
        iommud__v1__create_domain_request__free_unpacked(q, NULL);
        assert_int_equal(iommud_domain_sync(d, &bytes), 0);
        assert_int_equal(bytes, 16384);
        assert_int_equal(iommud_domain_sync(d, NULL), 0);
        assert_int_equal(iommud_domain_info(d, &info), 0);
        assert_int_equal(info.flush_mode, IOMMUD_FLUSH_LAZY);
        assert_int_equal(info.deferred_mappings, 31);
        assert_int_equal(info.deferred_bytes, 32);
        assert_int_equal(info.kernel_mappings, 33);
        assert_int_equal(info.table_bytes, 34);
        assert_int_equal(info.shared_pages, 35);
        assert_int_equal(iommud_domain_create_with(f->client, NULL, &d), 0);
        q = ASKED(CreateDomain, create_domain);
        assert_int_equal(q->flush_mode, IOMMUD__V1__FLUSH_MODE__FLUSH_STRICT);
        iommud__v1__create_domain_request__free_unpacked(q, NULL);
        o.size = 3;
        assert_int_equal(iommud_domain_create_with(f->client, &o, &d), -EINVAL);
        assert_int_equal(iommud_domain_sync(NULL, NULL), -EINVAL);
}

static void test_exposed_ranges_are_listed(void **state) {
        struct fixture *f = *state;
        struct iommud_mapping *m;
        size_t n;

        assert_int_equal(iommud_mapping_list(f->domain, &m, &n), 0);
        assert_int_equal(n, 2);
        assert_int_equal(m[0].live, 1);
        assert_int_equal(m[0].chunk, 0);
        assert_true(m[0].exposed_first > m[0].exposed_last);
        assert_int_equal(m[1].live, 0);
        assert_int_equal(m[1].chunk, 0x100);
        assert_int_equal(m[1].exposed_first, 0);
        assert_int_equal(m[1].exposed_last, 0xfffff);
        assert_int_equal(m[1].exposed_access, 3);
        iommud_mapping_list_free(m);
}

static void unsupported(int r) {
        assert_int_equal(r, -ENOTSUP);
        assert_int_equal(detail().reason, IOMMUD_REASON_UNSUPPORTED);
}

/* It would ignore what it does not know, and so map where only a question was asked. */
static void test_older_service(void **state) {
        struct fixture *f = *state;
        struct iommud_domain_options lazy = { .size = sizeof lazy, .flush_mode = IOMMUD_FLUSH_LAZY };
        struct iommud_unmap_options split = { .size = sizeof split, .split = IOMMUD_SPLIT_REMAP };
        struct iommud_unmap_entry range = { .iova = 0x1000, .length = 4096 };
        struct iommud_map_options o = { .size = sizeof o };
        struct fixture old = { 0 };
        struct iommud_map_entry entry;
        uint64_t bytes = 42;

        (void)f;
        have_capabilities(1 | 2 | 4 | 8);
        assert_int_equal(connect_to_it(&old.client), 0);
        assert_int_equal(iommud_domain_create(old.client, NULL, &old.domain), 0);
        assert_int_equal(iommud_memory_alloc(old.client, 8192, NULL, &old.memory), 0);
        entry = entry_of(&old, 0x1000);
        n_calls = 0;
        for (uint32_t flag = 1; flag <= 8; flag <<= 1) {
                o.flags = flag;
                unsupported(iommud_map_with(old.domain, &entry, 1, &o, NULL));
        }
        o = (struct iommud_map_options){ .size = sizeof o, .chunk = 4096 };
        unsupported(iommud_map_with(old.domain, &entry, 1, &o, NULL));
        unsupported(iommud_unmap_with(old.domain, &range, 1, &split, NULL));
        unsupported(iommud_domain_create_with(old.client, &lazy, &old.domain));
        assert_int_equal(iommud_domain_sync(old.domain, &bytes), 0);    /* all its domains are strict */
        assert_int_equal(bytes, 0);
        assert_int_equal(n_calls, 0);
        assert_int_equal(iommud_map_with(old.domain, &entry, 1, NULL, NULL), 0);
        assert_int_equal(iommud_unmap_with(old.domain, &range, 1, NULL, NULL), 0);
        iommud_close(old.client);
}

/* A page that ranges share is being changed by another thread's call. Nobody can avoid that, so the library waits. */
static void test_shared_pages_are_waited_for(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entry = entry_of(f, 0x1100);
        struct iommud_map_options o = { .size = sizeof o, .flags = IOMMUD_MAP_EXPOSE_PAGES };

        refuse_next(3, GRPC_STATUS_ABORTED, IOMMUD_REASON_IN_PROGRESS);
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &o, NULL), 0);
        {
                LOCK_SCOPE(&service.lock);
                assert_int_equal(service.n_keys, 4);
                for (size_t i = 1; i < 4; i++)
                        assert_memory_equal(service.keys[i], service.keys[0], 16);
        }
        refuse_next(3, GRPC_STATUS_ABORTED, IOMMUD_REASON_IN_PROGRESS);
        assert_int_equal(iommud_unmap(f->domain, 0x1100, 4096), 0);
        refuse_next(3, GRPC_STATUS_ABORTED, IOMMUD_REASON_IN_PROGRESS);
        assert_int_equal(iommud_unmap_all(f->domain, NULL), 0);
}

/* Not for ever, and the refusal is told then; other domains hear of it at once, as ever. */
static void test_waiting_ends_with_the_timeout(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entry = entry_of(f, 0x1100);
        struct iommud_map_options o = { .size = sizeof o, .flags = IOMMUD_MAP_EXPOSE_PAGES };
        int64_t begin, took;

        refuse_next(1, GRPC_STATUS_ABORTED, IOMMUD_REASON_IN_PROGRESS);
        assert_int_equal(iommud_unmap(f->domain, 0x1100, 4096), -EAGAIN);       /* no page is shared yet */
        refuse_next(1000000, GRPC_STATUS_ABORTED, IOMMUD_REASON_IN_PROGRESS);
        begin = clock_now();
        assert_int_equal(iommud_map_with(f->domain, &entry, 1, &o, NULL), -EAGAIN);
        took = clock_now() - begin;
        assert_int_equal(detail().reason, IOMMUD_REASON_IN_PROGRESS);
        assert_in_range(took, TIMEOUT_MS / 2, TIMEOUT_MS + 1000);
        refuse_next(0, 0, 0);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        const struct CMUnitTest tests[] = {
                T(test_map_without_options),
                T(test_map_flags),
                T(test_map_chunks),
                T(test_map_anywhere),
                T(test_dry_run_has_no_key),
                T(test_struct_sizes),
                T(test_refused_map_leaves_the_result),
                T(test_unmap_with),
                T(test_lazy_domain),
                T(test_exposed_ranges_are_listed),
                T(test_older_service),
                T(test_shared_pages_are_waited_for),
                T(test_waiting_ends_with_the_timeout),
        };
#undef T
        return cmocka_run_group_tests(tests, start_service, stop_service);
}
