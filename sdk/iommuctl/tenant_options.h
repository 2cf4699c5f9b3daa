/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <getopt.h>
#include <stdbool.h>

#include "iommud.pb-c.h"
#include "ledger.h"

/*
 * The options of tenant add and tenant set, collected into a request.
 */
struct tenant_options {
        Iommud__V1__UpsertTenantRequest request;        /* points into this struct: do not copy it */
        Iommud__V1__Tenant tenant;
        Iommud__V1__Quota quota[_RESOURCE_N], *quotas[_RESOURCE_N];
        Iommud__V1__Rule rule[LEDGER_RULES_MAX], *rules[LEDGER_RULES_MAX];
        Iommud__V1__Rule single;        /* of --uid, --gid and --cgroup together */
        char *devices[LEDGER_DEVICES_MAX];
        bool or_replace;
};

extern const struct option tenant_option_list[];
extern const char tenant_options_help[];

void tenant_options_init(struct tenant_options *o);

/* For ctl_arguments(): says what is wrong and returns false. userdata: struct tenant_options. */
bool tenant_options_set(void *userdata, int option, const char *value);

/* When all options have been seen. False: said why. */
bool tenant_options_finish(struct tenant_options *o);
