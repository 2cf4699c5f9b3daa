/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * The main job on the software IOMMU: connect, domain, device, memory, map, DMA both ways with every byte compared, unmap, and
 * then no DMA any more.
 */
#include <stdio.h>
#include <string.h>

#include "edu.h"
#include "harness.h"

#define PAGE 4096U
#define FROM 0x100000U
#define TO (FROM + PAGE)

struct job {
        struct service *service;
        struct iommud_client *client;
        struct iommud_domain *domain;
        struct iommud_attachment *device;
        struct iommud_memory *memory;
        uint8_t *from, *to;
};

#define must(call)                                                                                                     \
        do {                                                                                                           \
                if ((call) < 0)                                                                                        \
                        fail_msg("%s: %s", #call, iommud_last_error());                                                \
        } while (0)

static void begin(struct job *j) {
        struct iommud_connect_options o = { .size = sizeof o };

        j->service = service_start(&(struct service_options){ 0 });
        o.directory = j->service->client;
        must(iommud_connect(&o, &j->client));
        must(iommud_domain_create(j->client, "main job", &j->domain));
        must(iommud_memory_alloc(j->client, (uint64_t)2 * PAGE, NULL, &j->memory));
        j->from = iommud_memory_addr(j->memory);
        j->to = j->from + PAGE;
}

static void attach(struct job *j) {
        must(iommud_device_attach(j->domain, "edu0", &j->device));
        must(edu_enable(j->device));
}

static void map_both(struct job *j) {
        const struct iommud_map_entry entries[] = { { FROM, j->memory, 0, PAGE, IOMMUD_READ },
                                                    { TO, j->memory, PAGE, PAGE, IOMMUD_WRITE } };

        must(iommud_map_batch(j->domain, entries, 2));
}

static void end(struct job *j) {
        iommud_close(j->client);
        service_end(j->service);
}

/* Every byte of a block goes memory -> device -> other memory, and nothing beside it changes. */
static void assert_copies(struct job *j, unsigned seed) {
        for (size_t i = 0; i < PAGE; i++)
                j->from[i] = (uint8_t)(seed + i * 7 + i / 256);
        memset(j->to, 0xee, PAGE);
        must(edu_transfer(j->device, FROM, EDU_BLOCK, false));
        must(edu_transfer(j->device, TO, EDU_BLOCK, true));
        assert_memory_equal(j->to, j->from, EDU_BLOCK);
        for (size_t i = EDU_BLOCK; i < PAGE; i++)
                assert_int_equal(j->to[i], 0xee);
}

static void test_bytes_go_both_ways(void **state) {
        struct job j = { 0 };

        (void)state;
        begin(&j);
        attach(&j);
        map_both(&j);
        for (unsigned i = 1; i < 5; i++)
                assert_copies(&j, i * 31);
        end(&j);
}

static void test_mapped_before_attach(void **state) {
        struct job j = { 0 };

        (void)state;
        begin(&j);
        map_both(&j);
        attach(&j);
        assert_copies(&j, 3);
        end(&j);
}

static void test_after_unmap_nothing_is_reached(void **state) {
        struct iommud_mapping *list;
        struct job j = { 0 };
        size_t n;

        (void)state;
        begin(&j);
        attach(&j);
        map_both(&j);
        assert_copies(&j, 1);
        must(iommud_unmap(j.domain, FROM, (uint64_t)2 * PAGE));
        must(iommud_mapping_list(j.domain, &list, &n));
        iommud_mapping_list_free(list);
        assert_int_equal(n, 0);
        memset(j.from, 0x11, (size_t)2 * PAGE);
        must(edu_transfer(j.device, TO, EDU_BLOCK, true));
        must(edu_transfer(j.device, FROM, EDU_BLOCK, true));
        for (size_t i = 0; i < (size_t)2 * PAGE; i++)
                assert_int_equal(j.from[i], 0x11);
        map_both(&j);                   /* and the same again works */
        assert_copies(&j, 9);
        end(&j);
}

/* The device reads and writes no more than the access that was given (I2). */
static void test_access_is_enforced(void **state) {
        struct job j = { 0 };

        (void)state;
        begin(&j);
        attach(&j);
        map_both(&j);
        memset(j.from, 0x22, PAGE);
        memset(j.to, 0x33, PAGE);
        must(edu_transfer(j.device, FROM, EDU_BLOCK, false));   /* the device's buffer has 0x22 */
        must(edu_transfer(j.device, TO, EDU_BLOCK, false));     /* may not be read: the buffer keeps it */
        must(edu_transfer(j.device, TO, EDU_BLOCK, true));
        for (size_t i = 0; i < EDU_BLOCK; i++)
                assert_int_equal(j.to[i], 0x22);
        memset(j.from, 0x44, PAGE);
        must(edu_transfer(j.device, FROM, EDU_BLOCK, true));    /* may not be written */
        for (size_t i = 0; i < PAGE; i++)
                assert_int_equal(j.from[i], 0x44);
        end(&j);
}

static void test_objects_close_one_by_one(void **state) {
        struct job j = { 0 };

        (void)state;
        begin(&j);
        attach(&j);
        map_both(&j);
        assert_copies(&j, 5);
        must(iommud_device_detach(j.device));
        must(iommud_unmap_all(j.domain, NULL));
        must(iommud_domain_destroy(j.domain));
        must(iommud_memory_close(j.memory));
        assert_int_equal(service_used(j.service, "me", IOMMUD_RESOURCE_LOCKED_BYTES), 0);
        assert_int_equal(service_used(j.service, "me", IOMMUD_RESOURCE_DOMAINS), 0);
        assert_int_equal(service_used(j.service, "me", IOMMUD_RESOURCE_DEVICES), 0);
        assert_int_equal(service_used(j.service, "me", IOMMUD_RESOURCE_REGISTERED_BYTES), 0);
        assert_int_equal(service_used(j.service, "me", IOMMUD_RESOURCE_SESSIONS), 1);
        end(&j);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_bytes_go_both_ways, harness_teardown),
                cmocka_unit_test_teardown(test_mapped_before_attach, harness_teardown),
                cmocka_unit_test_teardown(test_after_unmap_nothing_is_reached, harness_teardown),
                cmocka_unit_test_teardown(test_access_is_enforced, harness_teardown),
                cmocka_unit_test_teardown(test_objects_close_one_by_one, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
