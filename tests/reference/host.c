/* SPDX-License-Identifier: Apache-2.0 */
#include "host.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/harness.h"

struct host {
        const struct world *world;
        struct service *service;        /* ours, or what stands for the installed one */
        struct service installed;
        char directory[TENANTS][128];
};

static bool is_installed(const struct host *h) {
        return h->service == &h->installed;
}

/* Clients are as we are, and find their tenant's sockets; else each tenant is a user. */
static bool has_own_sockets(const struct host *h) {
        return h->world->kind == WORLD_SOFT;
}

static const char *const tenant_names[TENANTS] = { "red", "blue" };

/* ---- a tenant's configuration ---- */

static void upsert(struct host *h, uint32_t tenant, bool create, const uint64_t *limit, bool allow_unsealed) {
        Iommud__V1__UpsertTenantRequest request = IOMMUD__V1__UPSERT_TENANT_REQUEST__INIT;
        Iommud__V1__Tenant t = IOMMUD__V1__TENANT__INIT;
        Iommud__V1__Quota quotas[RESOURCES], *list[RESOURCES];
        Iommud__V1__Rule rule = IOMMUD__V1__RULE__INIT, *rules[] = { &rule };
        ProtobufCMessage *answer;
        char message[512];

        t.name = (char *)tenant_names[tenant];
        t.allow_unsealed = allow_unsealed;
        request.tenant = &t;
        request.create_only = create && !is_installed(h);       /* that one may have it from an earlier run */
        request.fields = IOMMUD__V1__TENANT_FIELD__TENANT_FIELD_QUOTAS | IOMMUD__V1__TENANT_FIELD__TENANT_FIELD_ALLOW_UNSEALED;
        if (create) {
                request.fields = 0;
                t.own_socket = has_own_sockets(h);
                rule.uid_set_case = IOMMUD__V1__RULE__UID_SET_UID;
                rule.uid = host_uid(h, tenant);
                t.rules = rules;
                t.n_rules = t.own_socket ? 0 : 1;
        }
        for (unsigned i = 1; limit && i < RESOURCES; i++) {
                iommud__v1__quota__init(&quotas[i]);
                quotas[i].resource = (Iommud__V1__Resource)i;
                quotas[i].limit = limit[i];
                list[i - 1] = &quotas[i];
                t.quotas = list;
                t.n_quotas = i;
        }
        if (service_operate(h->service, "UpsertTenant", &request.base, &iommud__v1__upsert_tenant_response__descriptor, &answer,
                            message, sizeof message) != 0)
                fail_msg("the tenant %s: %s", t.name, message);
        if (create)
                (void)snprintf(h->directory[tenant], sizeof h->directory[tenant], "%s",
                               t.own_socket ? ((Iommud__V1__UpsertTenantResponse *)answer)->tenant->socket_directory
                                            : h->service->client);
        protobuf_c_message_free_unpacked(answer, NULL);
}

void host_set_limits(struct host *h, uint32_t tenant, const uint64_t limit[RESOURCES], bool allow_unsealed) {
        upsert(h, tenant, false, limit, allow_unsealed);
}

const char *host_directory(const struct host *h, uint32_t tenant) {
        return h->directory[tenant];
}

uid_t host_uid(const struct host *h, uint32_t tenant) {
        return has_own_sockets(h) ? 0 : 1001 + tenant;
}

void host_balance(struct host *h, uint32_t tenant, uint64_t ret_limit[RESOURCES], uint64_t ret_used[RESOURCES]) {
        Iommud__V1__ListTenantsRequest request = IOMMUD__V1__LIST_TENANTS_REQUEST__INIT;
        Iommud__V1__ListTenantsResponse *list;
        ProtobufCMessage *answer;
        char message[512];

        if (service_operate(h->service, "ListTenants", &request.base, &iommud__v1__list_tenants_response__descriptor, &answer,
                            message, sizeof message) != 0)
                fail_msg("the list of tenants: %s", message);
        list = (Iommud__V1__ListTenantsResponse *)answer;
        for (size_t i = 0; i < list->n_tenants; i++)
                for (size_t k = 0; k < list->tenants[i]->n_quotas; k++) {
                        const Iommud__V1__Quota *q = list->tenants[i]->quotas[k];

                        if (strcmp(list->tenants[i]->name, tenant_names[tenant]) != 0 || (unsigned)q->resource >= RESOURCES)
                                continue;
                        ret_limit[q->resource] = q->limit;
                        ret_used[q->resource] = q->used;
                }
        protobuf_c_message_free_unpacked(answer, NULL);
}

/* ---- life ---- */

/* [soft], where that is the backend. */
static const char *write_soft(const struct world *w, char *soft, size_t size) {
        if (w->kind == WORLD_SOFT)
                (void)snprintf(soft, size,
                               "devices = edu0 edu1 edu2 edu3\ndma_delay_us = 1\npage_sizes = %s\nmax_mappings = %u\n"
                               "aperture = 0x%llx-0x%llx\nreserved = 0x%llx-0x%llx\n", w->page_sizes, w->max_mappings,
                               (unsigned long long)w->ranges[0].first, (unsigned long long)w->ranges[1].last,
                               (unsigned long long)w->ranges[0].last + 1, (unsigned long long)w->ranges[1].first - 1);
        return w->kind == WORLD_SOFT ? soft : NULL;
}

/* Where it is emulated, everything takes its time, and nothing may happen by itself meanwhile. */
static struct service *start_service(const struct world *w) {
        bool slow = w->kind != WORLD_SOFT;
        char soft[400], limits[300], host[200], cap[64] = "", tables[64] = "";

        (void)snprintf(limits, sizeof limits,
                       "session_starts_per_second = 10000\nrecover_seconds = %u\norphan_seconds = %u\nlazy_flush_ms = 60000\n"
                       "lazy_flush_mappings = %u\nlazy_flush_bytes = 4294967295\n%s", slow ? 120 : 5, slow ? 300 : 30,
                       w->lazy_mappings, slow ? "unclaimed_token_seconds = 300\nregister_deadline_ms = 120000\n" : "");
        if (w->host_locked != UINT64_MAX)
                (void)snprintf(cap, sizeof cap, "locked_bytes = %llu\n", (unsigned long long)w->host_locked);
        if (w->host_tables != UINT64_MAX)
                (void)snprintf(tables, sizeof tables, "table_bytes = %llu\n", (unsigned long long)w->host_tables);
        (void)snprintf(host, sizeof host, "[host]\n%s%s", cap, tables);
        return service_start(&(struct service_options){ .backend = w->kind == WORLD_SPAPR ? "vfio-spapr" : NULL,
                                                        .service = w->kind == WORLD_SPAPR ? "holder_group = 2000\n" : NULL,
                                                        .own_holder_uids = w->kind == WORLD_SPAPR, .limits = limits,
                                                        .soft = write_soft(w, soft, sizeof soft), .tenants = host });
}

static pid_t installed_pid(void) {
        FILE *f = popen("systemctl show -P MainPID iommud.service", "re");
        int pid = 0;

        if (!f || fscanf(f, "%d", &pid) != 1)
                pid = 0;
        if (f)
                (void)pclose(f);
        return (pid_t)pid;
}

/* What a container that is opened from now on takes: the kernel's own limit, unless the world has a smaller one. */
static void set_dma_entry_limit(const struct world *w) {
        FILE *f = fopen("/sys/module/vfio_iommu_type1/parameters/dma_entry_limit", "we");

        if (!f || fprintf(f, "%u", w->max_mappings ? w->max_mappings : 65535) < 0 || fclose(f) != 0)
                fail_msg("cannot set VFIO's dma_entry_limit");
}

struct host *host_begin(const struct world *w) {
        struct host *h = calloc(1, sizeof *h);

        assert_non_null(h);
        h->world = w;
        h->installed = (struct service){ .client = "/run/iommud/client", .operator_socket = "/run/iommud/operator/operator.sock",
                                         .pid = -1 };
        h->service = w->kind == WORLD_TYPE1 ? &h->installed : start_service(w);
        if (w->kind == WORLD_TYPE1) {
                set_dma_entry_limit(w);
                host_settle(h, 0);      /* what a run that failed has left ends by itself */
        }
        for (uint32_t i = 0; i < TENANTS; i++)
                upsert(h, i, true, NULL, i == 1);
        return h;
}

void host_end(struct host *h) {
        host_settle(h, 0);
        host_check(h);
        for (uint32_t i = 0; i < TENANTS; i++)
                service_assert_nothing_used(h->service, tenant_names[i]);
        if (!is_installed(h))
                service_end(h->service);
        free(h);
}

void host_kill_holder(struct host *h, pid_t client) {
        service_kill_holder(h->service, client);
}

void host_kill_broker(struct host *h) {
        pid_t pid;

        if (!is_installed(h)) {
                service_kill(h->service);
                return;
        }
        pid = installed_pid();
        assert_true(pid > 0);
        assert_int_equal(kill(pid, SIGKILL), 0);
        wait_for(!process_lives(pid));
}

static bool answers(struct host *h) {
        Iommud__V1__GetStatusRequest request = IOMMUD__V1__GET_STATUS_REQUEST__INIT;
        ProtobufCMessage *answer = NULL;
        int status = service_operate(h->service, "GetStatus", &request.base, &iommud__v1__get_status_response__descriptor,
                                     &answer, NULL, 0);

        protobuf_c_message_free_unpacked(answer, NULL);
        return status == 0;
}

void host_start_broker(struct host *h) {
        if (!is_installed(h))
                service_launch(h->service);
        else
                wait_for(installed_pid() > 0 && answers(h));
}

void host_settle(struct host *h, unsigned sessions) {
        service_wait_recovered(h->service);
        service_wait_sessions(h->service, sessions);
}

void host_check(struct host *h) {
        service_assert_ledger(h->service);
}
