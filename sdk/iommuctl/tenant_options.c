/* SPDX-License-Identifier: Apache-2.0 */
#include "tenant_options.h"

#include <grp.h>
#include <pwd.h>
#include <string.h>

#include "ctl.h"
#include "util/size.h"

/* Quotas have 256 + their number in enum resource. */
enum {
        OPTION_QUOTA = 256,
        OPTION_RULE = OPTION_QUOTA + _RESOURCE_N,
        OPTION_UID,
        OPTION_GID,
        OPTION_CGROUP,
        OPTION_OWN_SOCKET,
        OPTION_ALLOW_UNSEALED,
        OPTION_DEVICE,
        OPTION_OR_REPLACE,
};

const struct option tenant_option_list[] = {
        { "locked-bytes", required_argument, NULL, OPTION_QUOTA + RESOURCE_LOCKED_BYTES },
        { "mappings", required_argument, NULL, OPTION_QUOTA + RESOURCE_MAPPINGS },
        { "domains", required_argument, NULL, OPTION_QUOTA + RESOURCE_DOMAINS },
        { "memory-objects", required_argument, NULL, OPTION_QUOTA + RESOURCE_MEMORY_OBJECTS },
        { "registered-bytes", required_argument, NULL, OPTION_QUOTA + RESOURCE_REGISTERED_BYTES },
        { "sessions", required_argument, NULL, OPTION_QUOTA + RESOURCE_SESSIONS },
        { "devices", required_argument, NULL, OPTION_QUOTA + RESOURCE_DEVICES },
        { "table-bytes", required_argument, NULL, OPTION_QUOTA + RESOURCE_TABLE_BYTES },
        { "windows", required_argument, NULL, OPTION_QUOTA + RESOURCE_WINDOWS },
        { "rule", required_argument, NULL, OPTION_RULE },
        { "uid", required_argument, NULL, OPTION_UID },
        { "gid", required_argument, NULL, OPTION_GID },
        { "cgroup", required_argument, NULL, OPTION_CGROUP },
        { "own-socket", optional_argument, NULL, OPTION_OWN_SOCKET },
        { "allow-unsealed", optional_argument, NULL, OPTION_ALLOW_UNSEALED },
        { "device", required_argument, NULL, OPTION_DEVICE },
        { "or-replace", no_argument, NULL, OPTION_OR_REPLACE },
        { 0 },
};

const char tenant_options_help[] =
        "Quotas, each a number with K, M, G or T, or unlimited:\n"
        "  --locked-bytes=SIZE    memory that devices can reach\n"
        "  --registered-bytes=SIZE\n"
        "  --table-bytes=SIZE     kernel memory that its mappings cause\n"
        "  --mappings=N --domains=N --windows=N --memory-objects=N --sessions=N --devices=N\n"
        "Who the tenant is:\n"
        "  --uid=UID --gid=GID --cgroup=PREFIX\n"
        "                         one rule; what is given must all fit\n"
        "  --rule=RULE            more of them: 'uid:1000 gid:100 cgroup:/a.slice', each part optional\n"
        "  --own-socket[=yes|no]  sockets of its own; whoever can reach them is the tenant\n"
        "What it may:\n"
        "  --device=DEVICE        lease this device (name or vendor:device; can be repeated; none: no device,\n"
        "                         any: every usable one)\n"
        "  --allow-unsealed[=yes|no]\n"
        "                         map memory that is not sealed\n"
        "Besides:\n"
        "  --or-replace           tenant add: change the tenant to this if it exists\n";

void tenant_options_init(struct tenant_options *o) {
        memset(o, 0, sizeof *o);
        iommud__v1__upsert_tenant_request__init(&o->request);
        iommud__v1__tenant__init(&o->tenant);
        iommud__v1__rule__init(&o->single);
        o->request.tenant = &o->tenant;
        o->tenant.quotas = o->quotas;
        o->tenant.rules = o->rules;
        o->tenant.devices = o->devices;
}

static bool complain(const char *what, const char *value) {
        ctl_usage(NULL, "'%s' is not %s", value, what);
        return false;
}

static bool add_quota(struct tenant_options *o, int resource, const char *value) {
        size_t n = o->tenant.n_quotas;
        Iommud__V1__Quota *q = &o->quota[n];

        for (size_t i = 0; i < n; i++)
                if ((int)o->quota[i].resource == resource)
                        return complain("needed: that quota is given already", value);
        iommud__v1__quota__init(q);
        q->resource = (Iommud__V1__Resource)resource;
        if (!size_parse_limit(value, &q->limit) || (q->limit > INT64_MAX && q->limit != SIZE_UNLIMITED))
                return complain("a quota like 4096, 64K, 1G or unlimited", value);
        o->quotas[o->tenant.n_quotas++] = q;
        o->request.fields |= IOMMUD__V1__TENANT_FIELD__TENANT_FIELD_QUOTAS;
        return true;
}

static bool set_uid(Iommud__V1__Rule *r, const char *value) {
        const struct passwd *p;
        uint64_t number;

        if (r->uid_set_case != IOMMUD__V1__RULE__UID_SET__NOT_SET)
                return complain("possible: one rule has one uid; more rules with --rule", value);
        if (!size_parse(value, &number)) {
                p = getpwnam(value);
                if (!p)
                        return complain("a user of this machine", value);
                number = p->pw_uid;
        }
        if (number >= UINT32_MAX)
                return complain("a uid", value);
        r->uid_set_case = IOMMUD__V1__RULE__UID_SET_UID;
        r->uid = (uint32_t)number;
        return true;
}

static bool set_gid(Iommud__V1__Rule *r, const char *value) {
        const struct group *g;
        uint64_t number;

        if (r->gid_set_case != IOMMUD__V1__RULE__GID_SET__NOT_SET)
                return complain("possible: one rule has one gid; more rules with --rule", value);
        if (!size_parse(value, &number)) {
                g = getgrnam(value);
                if (!g)
                        return complain("a group of this machine", value);
                number = g->gr_gid;
        }
        if (number >= UINT32_MAX)
                return complain("a gid", value);
        r->gid_set_case = IOMMUD__V1__RULE__GID_SET_GID;
        r->gid = (uint32_t)number;
        return true;
}

static bool set_cgroup(Iommud__V1__Rule *r, const char *value) {
        if (r->cgroup_prefix[0] != '\0')
                return complain("possible: one rule has one cgroup; more rules with --rule", value);
        if (value[0] != '/')
                return complain("a cgroup path: it begins with '/', below the cgroup root", value);
        r->cgroup_prefix = (char *)value;
        return true;
}

static bool is_empty(const Iommud__V1__Rule *r) {
        return r->uid_set_case == 0 && r->gid_set_case == 0 && r->cgroup_prefix[0] == '\0';
}

static bool add_rule(struct tenant_options *o, const Iommud__V1__Rule *r) {
        size_t n = o->tenant.n_rules;

        if (n == LEDGER_RULES_MAX) {
                ctl_usage(NULL, "a tenant can have %u rules", LEDGER_RULES_MAX);
                return false;
        }
        o->rule[n] = *r;
        o->rules[n] = &o->rule[n];
        o->tenant.n_rules++;
        o->request.fields |= IOMMUD__V1__TENANT_FIELD__TENANT_FIELD_RULES;
        return true;
}

/* "uid:1000 gid:100 cgroup:/a"; cut up in place (an element of argv). */
static bool parse_rule(struct tenant_options *o, char *value) {
        Iommud__V1__Rule r = IOMMUD__V1__RULE__INIT;
        char *rest = value, *word;

        while ((word = strtok_r(rest, " \t", &rest))) {
                bool good = strncmp(word, "uid:", 4) == 0    ? set_uid(&r, word + 4) :
                            strncmp(word, "gid:", 4) == 0    ? set_gid(&r, word + 4) :
                            strncmp(word, "cgroup:", 7) == 0 ? set_cgroup(&r, word + 7) :
                                                               complain("one of uid:ID, gid:ID, cgroup:/PATH", word);
                if (!good)
                        return false;
        }
        return is_empty(&r) ? complain("a rule like 'uid:1000 gid:100 cgroup:/a.slice'", value) : add_rule(o, &r);
}

static bool parse_boolean(const char *value, protobuf_c_boolean *ret) {
        if (value && strcmp(value, "yes") != 0 && strcmp(value, "no") != 0)
                return complain("yes or no", value);
        *ret = !value || strcmp(value, "yes") == 0;
        return true;
}

static bool add_device(struct tenant_options *o, const char *value) {
        o->request.fields |= IOMMUD__V1__TENANT_FIELD__TENANT_FIELD_DEVICES;
        if (strcmp(value, "any") == 0)
                return true;
        if (o->tenant.n_devices == LEDGER_DEVICES_MAX || strlen(value) >= LEDGER_NAME_MAX)
                return complain("possible: 32 devices with names of up to 63 bytes are", value);
        o->devices[o->tenant.n_devices++] = (char *)value;
        return true;
}

bool tenant_options_set(void *userdata, int option, const char *value) {
        struct tenant_options *o = userdata;

        switch (option) {
        case OPTION_RULE:
                return parse_rule(o, (char *)value);
        case OPTION_UID:
                return set_uid(&o->single, value);
        case OPTION_GID:
                return set_gid(&o->single, value);
        case OPTION_CGROUP:
                return set_cgroup(&o->single, value);
        case OPTION_OWN_SOCKET:
                o->request.fields |= IOMMUD__V1__TENANT_FIELD__TENANT_FIELD_OWN_SOCKET;
                return parse_boolean(value, &o->tenant.own_socket);
        case OPTION_ALLOW_UNSEALED:
                o->request.fields |= IOMMUD__V1__TENANT_FIELD__TENANT_FIELD_ALLOW_UNSEALED;
                return parse_boolean(value, &o->tenant.allow_unsealed);
        case OPTION_DEVICE:
                return add_device(o, value);
        case OPTION_OR_REPLACE:
                o->or_replace = true;
                return true;
        default:
                return add_quota(o, option - OPTION_QUOTA, value);
        }
}

bool tenant_options_finish(struct tenant_options *o) {
        return is_empty(&o->single) || add_rule(o, &o->single);
}
