/* SPDX-License-Identifier: Apache-2.0 */
/* link: brokenledger testlib sdk proto util */
/* The disk under the ledger fails. */
#include <stdlib.h>
#include <string.h>

#include "fault/broken_ledger.h"

static void test_writes_fail(void **state) {
        (void)state;
        broken_passes(FAULT_WRITE, FAULT_STATE, 0, "Input/output error");
}

static void test_writes_end_in_their_middle(void **state) {
        (void)state;
        broken_passes(FAULT_SHORT, FAULT_STATE, 2, "Input/output error");
}

/* What is read is remembered by sqlite: a running service need not notice. One that starts does, and another try may help. */
static void test_reads_fail(void **state) {
        struct broken b;
        int code = 0;

        (void)state;
        broken_begin(&b);
        faults_ledger(b.f, FAULT_READ, FAULT_BOTH, 0);
        service_kill(b.s);
        assert_false(service_try_launch(b.s, &code));
        assert_int_equal(code, EXIT_FAILURE);
        assert_true(service_logged(b.s, "Input/output error"));
        broken_assert_dma(&b);
        faults_clear(b.f);
        broken_assert_restored(&b);
        broken_end(&b);
}

static int put_tenant(struct broken *b, const char *name, char *message, size_t size) {
        Iommud__V1__UpsertTenantRequest request = IOMMUD__V1__UPSERT_TENANT_REQUEST__INIT;
        Iommud__V1__Tenant tenant = IOMMUD__V1__TENANT__INIT;

        tenant.name = (char *)name;
        tenant.own_socket = true;
        request.tenant = &tenant;
        request.create_only = true;
        return service_operate(b->s, "UpsertTenant", &request.base, NULL, NULL, message, size);
}

/* The configuration is on the disk or not acknowledged; the audit's lines wait. */
static void test_the_configuration_cannot_be_synced(void **state) {
        struct broken b;
        char message[512];

        (void)state;
        broken_begin(&b);
        faults_ledger(b.f, FAULT_SYNC, FAULT_CONFIG, 0);
        assert_int_not_equal(put_tenant(&b, "late", message, sizeof message), 0);
        assert_non_null(strstr(message, "The ledger (config.db) cannot be used"));
        assert_int_equal(service_used(b.s, "late", 1), UINT64_MAX);            /* there is none */
        raw_must(raw_unmap_all(&b.c, NULL, b.domain));                          /* state.db is well */
        raw_must(raw_map(&b.c, NULL, b.domain, BROKEN_IOVA, b.memory, (uint64_t)2 * BROKEN_PAGE));
        faults_clear(b.f);
        assert_int_equal(put_tenant(&b, "late", message, sizeof message), 0);
        broken_assert_works(&b);
        broken_end(&b);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_writes_fail, harness_teardown),
                cmocka_unit_test_teardown(test_writes_end_in_their_middle, harness_teardown),
                cmocka_unit_test_teardown(test_reads_fail, harness_teardown),
                cmocka_unit_test_teardown(test_the_configuration_cannot_be_synced, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
