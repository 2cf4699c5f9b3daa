/* SPDX-License-Identifier: Apache-2.0 */
/* link: testlib sdk proto util */
/*
 * Limits that are not a tenant's quota: sessions of the host, mappings that the IOMMU takes. (Quotas:
 * tests/e2e/test_quota.c.)
 */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "lib/job.h"

static void test_sessions_of_the_host(void **state) {
        struct service *s = service_start(&(struct service_options){ .limits = "sessions = 2\n" });
        const struct iommud_connect_options o = { .size = sizeof o, .directory = s->client };
        struct iommud_client *a = job_connect(s->client), *b = job_connect(s->client), *c;
        struct iommud_error e;

        (void)state;
        refused(iommud_connect(&o, &c), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, &e);
        assert_non_null(strstr(e.text, "at most 2 sessions"));
        assert_non_null(strstr(e.text, "limits.sessions"));     /* what the operator can change */
        iommud_close(a);
        service_wait_sessions(s, 1);
        must(iommud_connect(&o, &c));
        iommud_close(b);
        iommud_close(c);
        service_end(s);
}

/* The budget of the IOMMU, like type1's 65535: exactly so many, over all batches. */
static void test_mappings_of_the_iommu(void **state) {
        struct service *s = service_start(&(struct service_options){ .soft = "max_mappings = 4\n" });
        struct iommud_map_entry entries[5];
        struct iommud_error e;
        struct job j;

        (void)state;
        job_begin(&j, s->client, "edu0", PAGE);
        for (uint64_t i = 0; i < 5; i++)
                entries[i] = (struct iommud_map_entry){ JOB_IOVA + i * PAGE, j.memory, 0, PAGE, IOMMUD_READ };
        refused(iommud_map_batch(j.domain, entries, 5), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, &e);
        assert_int_equal(e.limit, 4);
        assert_int_equal(e.used, 0);
        assert_int_equal(e.asked, 5);
        must(iommud_map_batch(j.domain, entries, 4));
        refused(iommud_map_batch(j.domain, entries + 4, 1), EDQUOT, IOMMUD_REASON_LIMIT_EXCEEDED, &e);
        assert_int_equal(e.used, 4);
        assert_int_equal(job_used(j.client, IOMMUD_RESOURCE_MAPPINGS), 4);
        must(iommud_unmap(j.domain, JOB_IOVA, PAGE));
        must(iommud_map_batch(j.domain, entries + 4, 1));
        job_end(&j);
        service_end(s);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_sessions_of_the_host, harness_teardown),
                cmocka_unit_test_teardown(test_mappings_of_the_iommu, harness_teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
