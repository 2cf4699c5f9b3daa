/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>

#include "ctl.h"
#include "json.h"
#include "table.h"
#include "util/cleanup.h"

static void print_sessions(const Iommud__V1__GetStatusResponse *s) {
        static const char *const titles[] = { ">SESSION", "TENANT", "CLIENT", ">UID", ">PID", ">HOLDER", "STATE" };
        struct libscols_table *t = table_new(titles, ARRAY_SIZE(titles));

        for (size_t i = 0; i < s->n_session_list; i++) {
                const Iommud__V1__Session *e = s->session_list[i];

                table_row(t, (const char *const[]){ cell_number(e->id), e->tenant, e->client_name, cell_number(e->uid),
                                                    cell_number(e->pid), cell_number(e->holder_pid), e->state });
        }
        table_print(t, NULL);
}

/* "12M of 28G; quotas promise 40G" */
static void print_host(struct libscols_table *t, const Iommud__V1__HostUse *h) {
        bool tables = h->resource == IOMMUD__V1__RESOURCE__RESOURCE_TABLE_BYTES;

        table_pair(t, tables ? "tables" : "locked", "%s of %s for all tenants; their quotas promise %s%s", cell_size(h->used),
                   cell_size(h->limit), cell_size(h->promised), h->promised > h->limit ? ", which is more" : "");
}

static void print_status(const Iommud__V1__GetStatusResponse *s) {
        struct libscols_table *t = table_new(NULL, 2);
        uint64_t up = s->uptime_seconds;

        table_pair(t, "state", "%s", s->state);
        table_pair(t, "version", "%s (pid %" PRIu32 ")", s->version, s->pid);
        table_pair(t, "up", "%" PRIu64 "d %02u:%02u:%02u", up / 86400, (unsigned)(up / 3600 % 24),
                   (unsigned)(up / 60 % 60), (unsigned)(up % 60));
        table_pair(t, "backend", "%s", s->backend);
        table_pair(t, "ledger", "%s", s->ledger);
        table_pair(t, "tenants", "%" PRIu64, s->tenants);
        table_pair(t, "sessions", "%" PRIu64, s->sessions);
        table_pair(t, "domains", "%" PRIu64, s->domains);
        table_pair(t, "mappings", "%" PRIu64 " (%s)", s->mappings, cell_size(s->mapped_bytes));
        table_pair(t, "devices", "%" PRIu64 " (%" PRIu64 " orphaned)", s->devices, s->orphaned_devices);
        for (size_t i = 0; i < s->n_host; i++)
                print_host(t, s->host[i]);
        for (size_t i = 0; i < s->n_degraded; i++)
                table_pair(t, i == 0 ? "degraded" : "", "%s", s->degraded[i]);
        table_print(t, NULL);
        if (s->n_session_list > 0)
                putchar('\n');
        print_sessions(s);
}

static int run_status(struct ctl *c, int argc, char **argv) {
        const Iommud__V1__GetStatusRequest request = IOMMUD__V1__GET_STATUS_REQUEST__INIT;
        _cleanup_message_ ProtobufCMessage *answer = NULL;
        int code = ctl_plain_arguments(c, argc, argv, 0, &argv);

        if (code < 0)
                code = ctl_call(c, "GetStatus", &request.base, &iommud__v1__get_status_response__descriptor, &answer);
        if (!answer)
                return code;
        if (c->json)
                json_print(answer);
        else
                print_status((const Iommud__V1__GetStatusResponse *)answer);
        return CTL_OK;
}

const struct verb status_verbs[] = {
        { "status", "", "", "how the service is, and who uses it", "", run_status },
        { 0 },
};
