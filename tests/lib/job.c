/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"

#include "edu.h"

struct iommud_client *job_connect(const char *directory) {
        const struct iommud_connect_options o = { .size = sizeof o, .directory = directory };
        struct iommud_client *client;

        must(iommud_connect(&o, &client));
        return client;
}

void job_begin(struct job *j, const char *directory, const char *device, uint64_t bytes) {
        *j = (struct job){ .client = job_connect(directory) };
        must(iommud_domain_create(j->client, "test", &j->domain));
        must(iommud_memory_alloc(j->client, bytes, NULL, &j->memory));
        j->bytes = iommud_memory_addr(j->memory);
        if (!device)
                return;
        must(iommud_device_attach(j->domain, device, &j->device));
        must(edu_enable(j->device));
}

void job_map(struct job *j) {
        must(iommud_map(j->domain, JOB_IOVA, j->memory, 0, iommud_memory_size(j->memory), IOMMUD_READ_WRITE));
}

int job_map_part(struct job *j, uint64_t offset, uint64_t length, uint32_t flags, uint64_t chunk,
                 struct iommud_map_result *ret) {
        const struct iommud_map_entry entry = { .iova = JOB_IOVA + offset, .memory = j->memory, .offset = offset,
                                                .length = length, .access = IOMMUD_READ_WRITE };
        const struct iommud_map_options options = { .size = sizeof options, .flags = flags, .chunk = chunk };

        if (ret)
                ret->size = sizeof *ret;
        return iommud_map_with(j->domain, &entry, 1, &options, ret);
}

int job_unmap_part(struct job *j, uint64_t offset, uint64_t length, enum iommud_split_policy split) {
        const struct iommud_unmap_entry entry = { .iova = JOB_IOVA + offset, .length = length };
        const struct iommud_unmap_options options = { .size = sizeof options, .split = split };

        return iommud_unmap_with(j->domain, &entry, 1, &options, NULL);
}

void job_end(struct job *j) {
        iommud_close(j->client);
        *j = (struct job){ 0 };
}

void job_assert_dma(struct job *j, uint64_t iova, uint64_t from, uint64_t to) {
        static uint8_t seed;

        seed++;
        for (size_t i = 0; i < EDU_BLOCK; i++)
                j->bytes[from + i] = (uint8_t)(seed + i * 7 + i / 256);
        memset(j->bytes + to, 0xee, EDU_BLOCK);
        must(edu_transfer(j->device, iova + from, EDU_BLOCK, false));
        must(edu_transfer(j->device, iova + to, EDU_BLOCK, true));
        assert_memory_equal(j->bytes + to, j->bytes + from, EDU_BLOCK);
}

void job_assert_no_dma(struct job *j, uint64_t iova) {
        uint64_t size = iommud_memory_size(j->memory);

        memset(j->bytes, 0x77, size);
        must(edu_transfer(j->device, iova, EDU_BLOCK, true));
        for (uint64_t i = 0; i < size; i++)
                assert_int_equal(j->bytes[i], 0x77);
}

uint64_t job_used(struct iommud_client *client, enum iommud_resource resource) {
        struct iommud_quota quotas[16];
        size_t n = 16;

        must(iommud_quota_get(client, quotas, &n));
        for (size_t i = 0; i < n; i++)
                if (quotas[i].resource == resource)
                        return quotas[i].used;
        fail_msg("no quota for resource %d", (int)resource);
        return 0;
}

size_t job_mappings(struct iommud_domain *domain) {
        struct iommud_mapping *list;
        size_t n;

        must(iommud_mapping_list(domain, &list, &n));
        iommud_mapping_list_free(list);
        return n;
}

struct iommud_domain_info job_domain_info(struct iommud_domain *domain) {
        struct iommud_domain_info info = { .size = sizeof info };

        must(iommud_domain_info(domain, &info));
        return info;
}

struct iommud_window job_window(struct iommud_domain *domain, uint64_t length, uint32_t page_shift) {
        const struct iommud_window_options options = { .size = sizeof options, .length = length,
                                                       .page_shift = page_shift };
        struct iommud_window window;

        must(iommud_window_create(domain, &options, &window));
        return window;
}

size_t job_windows(struct iommud_domain *domain, struct iommud_window_limits *ret_limits) {
        struct iommud_window *windows;
        size_t n;

        if (ret_limits)
                ret_limits->size = sizeof *ret_limits;
        must(iommud_window_query(domain, &windows, &n, ret_limits));
        iommud_window_list_free(windows);
        return n;
}

void job_refused(int result, int error, enum iommud_reason reason, const char *call, struct iommud_error *ret) {
        struct iommud_error e = { .size = sizeof e };

        if (result >= 0)
                fail_msg("%s succeeded; refusal with %s expected", call, iommud_reason_name(reason));
        assert_int_equal(iommud_error_detail(&e), 0);
        if (result != -error || e.reason != reason)
                fail_msg("%s gave %d, %s (%s); %d, %s expected", call, result, iommud_reason_name(e.reason), e.text,
                         -error,
                         iommud_reason_name(reason));
        assert_int_equal(e.error, result);
        if (strlen(e.text) < 10)
                fail_msg("%s: the text '%s' helps nobody", call, e.text);
        if (ret)
                *ret = e;
}

void job_snapshot(struct job *j, struct job_snapshot *ret) {
        struct iommud_quota quotas[16];
        size_t n = 16;

        *ret = (struct job_snapshot){ .mappings = job_mappings(j->domain) };
        must(iommud_quota_get(j->client, quotas, &n));
        for (size_t i = 0; i < n; i++)
                if ((size_t)quotas[i].resource < sizeof ret->used / sizeof ret->used[0])
                        ret->used[quotas[i].resource] = quotas[i].used;
}

static void assert_used(struct job *j, const struct job_snapshot *before, bool with_tables) {
        struct job_snapshot now;

        job_snapshot(j, &now);
        assert_int_equal(now.mappings, before->mappings);
        for (size_t i = 0; i < sizeof now.used / sizeof now.used[0]; i++)
                if (now.used[i] != before->used[i] && (with_tables || i != IOMMUD_RESOURCE_TABLE_BYTES))
                        fail_msg("%llu of resource %zu are charged, %llu before", (unsigned long long)now.used[i], i,
                                 (unsigned long long)before->used[i]);
}

void job_assert_unchanged(struct job *j, const struct job_snapshot *before) {
        assert_used(j, before, true);
}

void job_assert_given_back(struct job *j, const struct job_snapshot *before) {
        assert_used(j, before, false);
}
