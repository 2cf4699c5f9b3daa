/* SPDX-License-Identifier: Apache-2.0 */
#include "client_agent_with.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "edu.h"

#define ENTRIES_MAX 1024U               /* of one call */

/* One command: what it was given, and where its answer goes. */
struct command {
        const char *args;
        const struct agent_objects *objects;
        char *answer;
};

bool agent_failed(int r, char answer[AGENT_ANSWER_MAX]) {
        struct iommud_error e = { .size = sizeof e };

        if (r >= 0)
                return false;
        if (iommud_error_detail(&e) < 0)
                snprintf(answer, AGENT_ANSWER_MAX, "err %d 0", -r);
        else
                snprintf(answer, AGENT_ANSWER_MAX, "err %d %d %s", -r, (int)e.reason, e.text);
        return true;
}

static bool failed(const struct command *c, int r) {
        return agent_failed(r, c->answer);
}

/* A domain by its number, which the first argument is; NULL, and answered, when there is none. */
static struct iommud_domain *domain_of(const struct command *c, bool parsed, unsigned d) {
        if (parsed && d < c->objects->n_domains)
                return c->objects->domains[d];
        snprintf(c->answer, AGENT_ANSWER_MAX, "err %d 0", EINVAL);
        return NULL;
}

static void do_sync(const struct command *c) {
        struct iommud_domain *domain;
        uint64_t bytes = 0;
        unsigned d = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u", &d) == 1;
        domain = domain_of(c, parsed, d);
        if (domain && !failed(c, iommud_domain_sync(domain, &bytes)))
                snprintf(c->answer, AGENT_ANSWER_MAX, "ok %" PRIu64, bytes);
}

static void do_map(const struct command *c) {
        struct iommud_map_options options = { .size = sizeof options };
        struct iommud_map_result result = { .size = sizeof result };
        struct iommud_map_entry entry = { 0 };
        struct iommud_domain *domain;
        unsigned d = 0, m = 0, access = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u %" SCNi64 " %u %" SCNi64 " %" SCNi64 " %u %" SCNu32 " %" SCNi64 " %" SCNu64, &d,
                        &entry.iova, &m, &entry.offset, &entry.length, &access, &options.flags, &options.chunk,
                        &options.window) == 9;
        domain = domain_of(c, parsed && m < c->objects->n_memories, d);
        if (!domain)
                return;
        entry.memory = c->objects->memories[m];
        entry.access = (enum iommud_access)access;
        if (!failed(c, iommud_map_with(domain, &entry, 1, &options, &result)))
                snprintf(c->answer, AGENT_ANSWER_MAX, "ok 0x%" PRIx64 " %" PRIu64 " %" PRIu64 " %" PRIu64, result.iova,
                         result.mappings, result.locked_bytes, result.table_bytes);
}

static void do_unmap(const struct command *c) {
        struct iommud_unmap_options options = { .size = sizeof options };
        struct iommud_unmap_entry entry;
        struct iommud_domain *domain;
        unsigned d = 0, split = 0;
        uint64_t bytes = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u %" SCNi64 " %" SCNi64 " %u", &d, &entry.iova, &entry.length, &split) == 4;
        domain = domain_of(c, parsed, d);
        if (!domain)
                return;
        options.split = (enum iommud_split_policy)split;
        if (!failed(c, iommud_unmap_with(domain, &entry, 1, &options, &bytes)))
                snprintf(c->answer, AGENT_ANSWER_MAX, "ok %" PRIu64, bytes);
}

/* ---- many at once: in calls of as many as fit, of which the first that is refused ends it ---- */

static void do_map_many(const struct command *c) {
        struct iommud_map_options options = { .size = sizeof options };
        uint64_t count = 0, stride = 0, offset_stride = 0, sums[3] = { 0 };
        struct iommud_map_entry entry = { 0 }, entries[ENTRIES_MAX];
        struct iommud_domain *domain;
        unsigned d = 0, m = 0, access = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u %" SCNi64 " %u %" SCNi64 " %" SCNi64 " %u %" SCNu32 " %" SCNu64 " %" SCNi64 " %" SCNi64,
                        &d, &entry.iova, &m, &entry.offset, &entry.length, &access, &options.flags, &count, &stride,
                        &offset_stride) == 10;
        domain = domain_of(c, parsed && m < c->objects->n_memories, d);
        if (!domain)
                return;
        entry.memory = c->objects->memories[m];
        entry.access = (enum iommud_access)access;
        while (count > 0) {
                struct iommud_map_result result = { .size = sizeof result };
                size_t n = 0;

                for (; n < ENTRIES_MAX && count > 0; n++, count--, entry.iova += stride, entry.offset += offset_stride)
                        entries[n] = entry;
                if (failed(c, iommud_map_with(domain, entries, n, &options, &result)))
                        return;
                sums[0] += result.mappings;
                sums[1] += result.locked_bytes;
                sums[2] += result.table_bytes;
        }
        snprintf(c->answer, AGENT_ANSWER_MAX, "ok %" PRIu64 " %" PRIu64 " %" PRIu64, sums[0], sums[1], sums[2]);
}

static void do_unmap_many(const struct command *c) {
        struct iommud_unmap_entry entry, entries[ENTRIES_MAX];
        struct iommud_domain *domain;
        uint64_t count = 0, stride = 0, sum = 0;
        unsigned d = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u %" SCNi64 " %" SCNi64 " %" SCNu64 " %" SCNi64, &d, &entry.iova, &entry.length, &count,
                        &stride) == 5;
        domain = domain_of(c, parsed, d);
        if (!domain)
                return;
        while (count > 0) {
                uint64_t bytes = 0;
                size_t n = 0;

                for (; n < ENTRIES_MAX && count > 0; n++, count--, entry.iova += stride)
                        entries[n] = entry;
                if (failed(c, iommud_unmap_with(domain, entries, n, NULL, &bytes)))
                        return;
                sum += bytes;
        }
        snprintf(c->answer, AGENT_ANSWER_MAX, "ok %" PRIu64, sum);
}

/* ---- what there is ---- */

static void do_domain_info(const struct command *c) {
        struct iommud_domain_info i = { .size = sizeof i };
        struct iommud_domain *domain;
        unsigned d = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u", &d) == 1;
        domain = domain_of(c, parsed, d);
        if (domain && !failed(c, iommud_domain_info(domain, &i)))
                snprintf(c->answer, AGENT_ANSWER_MAX,
                         "ok mappings=%" PRIu64 " bytes=%" PRIu64 " kernel=%" PRIu64 " shared=%" PRIu64 " deferred=%" PRIu64
                         " limit=%" PRIu32 " tables=%" PRIu64, i.mappings, i.mapped_bytes, i.kernel_mappings, i.shared_pages,
                         i.deferred_mappings, i.constraints.max_mappings, i.table_bytes);
}

static void do_used(const struct command *c) {
        struct iommud_quota quotas[32];
        size_t n = sizeof quotas / sizeof quotas[0];
        unsigned resource = 0;

        if (sscanf(c->args, "%u", &resource) != 1 || failed(c, iommud_quota_get(c->objects->client, quotas, &n)))
                return;
        for (size_t i = 0; i < n; i++)
                if ((unsigned)quotas[i].resource == resource)
                        snprintf(c->answer, AGENT_ANSWER_MAX, "ok %" PRIu64 " %" PRIu64, quotas[i].used, quotas[i].limit);
}

static void do_window_create(const struct command *c) {
        struct iommud_window_options options = { .size = sizeof options };
        struct iommud_domain *domain;
        struct iommud_window w;
        unsigned d = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u %" SCNi64 " %" SCNu32 " %" SCNu32 " %" SCNi64, &d, &options.length,
                        &options.page_shift, &options.levels, &options.quota) == 5;
        domain = domain_of(c, parsed, d);
        if (domain && !failed(c, iommud_window_create(domain, &options, &w)))
                snprintf(c->answer, AGENT_ANSWER_MAX, "ok %" PRIu64 " 0x%" PRIx64 " 0x%" PRIx64 " %u %u", w.id, w.start,
                         w.length, w.page_shift, w.levels);
}

static void do_window_remove(const struct command *c) {
        struct iommud_domain *domain;
        uint64_t window = 0;
        unsigned d = 0;
        int force = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u %" SCNu64 " %d", &d, &window, &force) == 3;
        domain = domain_of(c, parsed, d);
        if (domain && !failed(c, iommud_window_remove(domain, window, force)))
                strcpy(c->answer, "ok");
}

static void do_window_reset(const struct command *c) {
        struct iommud_domain *domain;
        unsigned d = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u", &d) == 1;
        domain = domain_of(c, parsed, d);
        if (domain && !failed(c, iommud_window_reset(domain)))
                strcpy(c->answer, "ok");
}

static void do_window_query(const struct command *c) {
        struct iommud_window_limits limits = { .size = sizeof limits };
        struct iommud_window *windows;
        struct iommud_domain *domain;
        size_t n, used;
        unsigned d = 0;
        bool parsed;

        parsed = sscanf(c->args, "%u", &d) == 1;
        domain = domain_of(c, parsed, d);
        if (!domain || failed(c, iommud_window_query(domain, &windows, &n, &limits)))
                return;
        used = (size_t)snprintf(c->answer, AGENT_ANSWER_MAX, "ok %zu %u 0x%" PRIx64 " 0x%" PRIx64 " %u", n,
                                limits.can_create, limits.page_sizes, limits.largest, limits.levels_max);
        for (size_t i = 0; i < n && used < AGENT_ANSWER_MAX; i++)
                used += (size_t)snprintf(c->answer + used, AGENT_ANSWER_MAX - used,
                                         " %" PRIu64 ":0x%" PRIx64 ":0x%" PRIx64 ":%u:%" PRIu64 ":%" PRIu64, windows[i].id,
                                         windows[i].start, windows[i].length, windows[i].page_shift,
                                         windows[i].mappings, windows[i].mapped_bytes);
        iommud_window_list_free(windows);
}

/* The device reads a block of memory at iova and writes it back there: what has come of that in the memory itself. The
 * bytes are others each time, so that nothing of an earlier transfer passes for them. */
static int reach(struct iommud_attachment *a, uint64_t iova, uint8_t *block, const char **ret) {
        static uint8_t round;
        uint8_t sent[EDU_BLOCK], wiped[EDU_BLOCK];
        int r;

        round++;
        for (size_t i = 0; i < EDU_BLOCK; i++) {
                sent[i] = (uint8_t)(i * 3 + round);
                wiped[i] = (uint8_t)~sent[i];
        }
        memcpy(block, sent, sizeof sent);
        r = edu_transfer(a, iova, EDU_BLOCK, false);
        memcpy(block, wiped, sizeof wiped);
        if (r == 0)
                r = edu_transfer(a, iova, EDU_BLOCK, true);
        *ret = memcmp(block, wiped, sizeof wiped) == 0 ? "no-write" : memcmp(block, sent, sizeof sent) == 0 ? "both" : "write";
        return r;
}

static void do_reach(const struct command *c) {
        const struct agent_objects *o = c->objects;
        uint64_t iova = 0, offset = 0;
        unsigned a = 0, m = 0;
        const char *how;

        if (sscanf(c->args, "%u %" SCNi64 " %u %" SCNi64, &a, &iova, &m, &offset) != 4 || a >= o->n_attachments ||
            m >= o->n_memories || offset + EDU_BLOCK > iommud_memory_size(o->memories[m]))
                snprintf(c->answer, AGENT_ANSWER_MAX, "err %d 0", EINVAL);
        else if (!failed(c, reach(o->attachments[a], iova, (uint8_t *)iommud_memory_addr(o->memories[m]) + offset, &how)))
                snprintf(c->answer, AGENT_ANSWER_MAX, "ok %s", how);
}

bool agent_with(const char *name, const char *args, const struct agent_objects *objects, char answer[AGENT_ANSWER_MAX]) {
        static const struct {
                const char *name;
                void (*run)(const struct command *c);
        } commands[] = {
                { "sync", do_sync },
                { "map-with", do_map },
                { "unmap-with", do_unmap },
                { "map-many", do_map_many },
                { "unmap-many", do_unmap_many },
                { "domain-info", do_domain_info },
                { "used", do_used },
                { "window-create", do_window_create },
                { "window-remove", do_window_remove },
                { "window-reset", do_window_reset },
                { "window-query", do_window_query },
                { "reach", do_reach },
        };
        const struct command c = { .args = args, .objects = objects, .answer = answer };

        snprintf(answer, AGENT_ANSWER_MAX, "err %d 0", EINVAL);
        for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
                if (strcmp(name, commands[i].name) == 0) {
                        commands[i].run(&c);
                        return true;
                }
        return false;
}
