/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "ctl.h"
#include "json.h"
#include "table.h"
#include "tenant_options.h"
#include "util/cleanup.h"
#include "util/refusal.h"

/* ---- tenant list ---- */

static bool is_bytes(Iommud__V1__Resource resource) {
        return resource == IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES ||
               resource == IOMMUD__V1__RESOURCE__RESOURCE_REGISTERED_BYTES ||
               resource == IOMMUD__V1__RESOURCE__RESOURCE_TABLE_BYTES;
}

/* "12M/64M", "3/16" for a resource; "" if the service does not know it. */
static const char *quota_cell(const Iommud__V1__Tenant *t, Iommud__V1__Resource resource) {
        for (size_t i = 0; i < t->n_quotas; i++)
                if (t->quotas[i]->resource == resource)
                        return (is_bytes(resource) ? cell_used_size : cell_used)(t->quotas[i]->used, t->quotas[i]->limit);
        return "";
}

/* "locked-bytes by 4M, domains by 1": what is in use above a limit that was lowered. */
static const char *over_cell(const Iommud__V1__Tenant *t, char *text, size_t size) {
        size_t used = 0;

        text[0] = '\0';
        for (size_t i = 0; i < t->n_quotas && used < size; i++) {
                const Iommud__V1__Quota *q = t->quotas[i];

                if (q->over > 0)
                        used += (size_t)snprintf(text + used, size - used, "%s%s by %s", used > 0 ? ", " : "",
                                                 resource_name((enum resource)q->resource),
                                                 is_bytes(q->resource) ? cell_size(q->over) : cell_number(q->over));
        }
        return text;
}

/* "uid:1000 gid:100, cgroup:/a, own socket" */
static const char *who_cell(const Iommud__V1__Tenant *t, char *text, size_t size) {
        size_t used = 0;

        text[0] = '\0';
        for (size_t i = 0; i < t->n_rules && used < size; i++) {
                const Iommud__V1__Rule *r = t->rules[i];
                char uid[16] = "", gid[16] = "";

                if (r->uid_set_case == IOMMUD__V1__RULE__UID_SET_UID)
                        (void)snprintf(uid, sizeof uid, "uid:%" PRIu32, r->uid);
                if (r->gid_set_case == IOMMUD__V1__RULE__GID_SET_GID)
                        (void)snprintf(gid, sizeof gid, "gid:%" PRIu32, r->gid);
                used += (size_t)snprintf(text + used, size - used, "%s%s%s%s%s%s%s", i > 0 ? ", " : "", uid,
                                         uid[0] && gid[0] ? " " : "", gid,
                                         (uid[0] || gid[0]) && r->cgroup_prefix[0] ? " " : "",
                                         r->cgroup_prefix[0] ? "cgroup:" : "", r->cgroup_prefix);
        }
        if (t->own_socket && used < size)
                (void)snprintf(text + used, size - used, "%s%s", used > 0 ? ", " : "", t->socket_directory);
        return text;
}

static void add_tenant(const ProtobufCMessage *element, void *table) {
        const Iommud__V1__Tenant *t = (const Iommud__V1__Tenant *)element;
        char who[512], over[256];

        if (!table) {
                json_list_add(element);
                return;
        }
        table_row(table, (const char *const[]){
                                 t->name, t->origin, quota_cell(t, IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES),
                                 quota_cell(t, IOMMUD__V1__RESOURCE__RESOURCE_MAPPINGS),
                                 quota_cell(t, IOMMUD__V1__RESOURCE__RESOURCE_DOMAINS),
                                 quota_cell(t, IOMMUD__V1__RESOURCE__RESOURCE_SESSIONS),
                                 quota_cell(t, IOMMUD__V1__RESOURCE__RESOURCE_DEVICES),
                                 quota_cell(t, IOMMUD__V1__RESOURCE__RESOURCE_TABLE_BYTES),
                                 over_cell(t, over, sizeof over), who_cell(t, who, sizeof who) });
}

static struct libscols_table *new_table(void) {
        static const char *const titles[] = { "TENANT",   "FROM",      ">LOCKED",  ">MAPPINGS",
                                              ">DOMAINS", ">SESSIONS", ">DEVICES", ">TABLES", "OVER", "WHO" };

        return table_new(titles, ARRAY_SIZE(titles));
}

static int run_list(struct ctl *c, int argc, char **argv) {
        Iommud__V1__ListTenantsRequest request = IOMMUD__V1__LIST_TENANTS_REQUEST__INIT;
        struct libscols_table *t = NULL;
        int code = ctl_plain_arguments(c, argc, argv, 0, &argv);

        if (code >= 0)
                return code;
        if (c->json)
                json_list_begin("tenants");
        else
                t = new_table();
        code = ctl_list(c, "ListTenants", &request.base, &iommud__v1__list_tenants_response__descriptor, add_tenant, t);
        if (c->json)
                json_list_end();
        else
                table_print(t, code == CTL_OK ? "no tenants; see: iommuctl tenant add --help" : NULL);
        return code;
}

/* ---- tenant add, set, remove ---- */

static int upsert(struct ctl *c, const struct tenant_options *o) {
        _cleanup_message_ ProtobufCMessage *answer = NULL;
        const Iommud__V1__Tenant *tenant;
        struct libscols_table *t;
        int code = ctl_call(c, "UpsertTenant", &o->request.base, &iommud__v1__upsert_tenant_response__descriptor,
                            &answer);

        tenant = answer ? ((const Iommud__V1__UpsertTenantResponse *)answer)->tenant : NULL;
        if (!tenant)
                return code;
        if (c->json) {
                json_print(&tenant->base);
                return code;
        }
        t = new_table();
        add_tenant(&tenant->base, t);
        table_print(t, NULL);
        return code;
}

/* One name and the options; -1 to go on, or the exit code. */
static int parse(struct ctl *c, int argc, char **argv, struct tenant_options *o) {
        int n, code;

        tenant_options_init(o);
        code = ctl_arguments(c, argc, argv, tenant_option_list, tenant_options_set, o, &n, &argv);
        if (code >= 0)
                return code;
        if (n != 1)
                return n == 0 ? ctl_usage(c, "which tenant?") : ctl_usage(c, "'%s' is too much", argv[1]);
        if (!tenant_options_finish(o))
                return CTL_USAGE;
        o->tenant.name = argv[0];
        return -1;
}

static int run_add(struct ctl *c, int argc, char **argv) {
        struct tenant_options o;
        int code = parse(c, argc, argv, &o);

        if (code >= 0)
                return code;
        if (o.tenant.n_rules == 0 && !o.tenant.own_socket)
                return ctl_usage(
                        c, "nobody could be the tenant '%s': give it --uid, --gid, --cgroup, --rule or --own-socket",
                        o.tenant.name);
        o.request.create_only = !o.or_replace;
        o.request.fields = 0;           /* all */
        return upsert(c, &o);
}

static int run_set(struct ctl *c, int argc, char **argv) {
        struct tenant_options o;
        int code = parse(c, argc, argv, &o);

        if (code >= 0)
                return code;
        if (o.or_replace)
                return ctl_usage(c, "--or-replace belongs to tenant add");
        if (o.request.fields == 0)
                return ctl_usage(c, "what of the tenant '%s' shall change?", o.tenant.name);
        o.request.must_exist = true;
        return upsert(c, &o);
}

static int run_remove(struct ctl *c, int argc, char **argv) {
        Iommud__V1__DeleteTenantRequest request = IOMMUD__V1__DELETE_TENANT_REQUEST__INIT;
        _cleanup_message_ ProtobufCMessage *answer = NULL;
        int code = ctl_plain_arguments(c, argc, argv, 1, &argv);

        if (code >= 0)
                return code;
        request.name = argv[0];
        return ctl_call(c, "DeleteTenant", &request.base, &iommud__v1__delete_tenant_response__descriptor, &answer);
}

const struct verb tenant_verbs[] = {
        { "tenant", "list", "", "tenants, what they use and who they are", "", run_list },
        { "tenant", "add", "NAME OPTION...", "make a tenant; quotas not given are the configured defaults",
          tenant_options_help, run_add },
        { "tenant", "set", "NAME OPTION...", "change what is given of a tenant; rules and devices as a whole",
          tenant_options_help, run_set },
        { "tenant", "remove", "NAME", "delete a tenant that has no sessions", "", run_remove },
        { 0 },
};
