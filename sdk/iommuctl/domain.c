/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "ctl.h"
#include "json.h"
#include "table.h"
#include "util/cleanup.h"
#include "util/size.h"

#define OPTION_TENANT 256
#define OPTION_DOMAIN 257

bool ctl_domain_id(const char *text, uint64_t *ret) {
        if (size_parse(text, ret) && *ret != 0)
                return true;
        ctl_usage(NULL, "'%s' is not the id of a domain; see: iommuctl domain list", text);
        return false;
}

/* ---- domain list ---- */

static const char *devices_of(const Iommud__V1__Domain *d) {
        char *names[16];
        size_t n = 0;

        while (n < d->n_attachments && n < ARRAY_SIZE(names)) {
                names[n] = d->attachments[n]->device;
                n++;
        }
        return cell_words(names, n);
}

static const char *flush_name(Iommud__V1__FlushMode mode) {
        switch (mode) {
        case IOMMUD__V1__FLUSH_MODE__FLUSH_STRICT:
                return "strict";
        case IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY:
                return "lazy";
        default:                        /* of a newer service */
                return "?";
        }
}

static void add_domain(const ProtobufCMessage *element, void *table) {
        const Iommud__V1__Domain *d = (const Iommud__V1__Domain *)element;

        if (!table) {
                json_list_add(element);
                return;
        }
        table_row(table, (const char *const[]){ cell_number(d->id), d->label, d->tenant, cell_number(d->session),
                                                cell_number(d->client_pid), d->state, cell_number(d->mappings),
                                                cell_size(d->mapped_bytes), cell_size(d->table_bytes),
                                                flush_name(d->flush_mode), cell_size(d->deferred_bytes),
                                                devices_of(d) });
}

static bool set_tenant(void *userdata, int option, const char *value) {
        (void)option;
        *(const char **)userdata = value;
        return true;
}

static int run_list(struct ctl *c, int argc, char **argv) {
        static const char *const titles[] = { ">DOMAIN", "LABEL",  "TENANT",  ">SESSION", ">PID",      "STATE",
                                              ">MAPPINGS", ">BYTES", ">TABLES", "FLUSH",    ">DEFERRED", "DEVICES" };
        static const struct option options[] = { { "tenant", required_argument, NULL, OPTION_TENANT }, { 0 } };
        Iommud__V1__ListDomainsRequest request = IOMMUD__V1__LIST_DOMAINS_REQUEST__INIT;
        struct libscols_table *t = NULL;
        int n, code = ctl_arguments(c, argc, argv, options, set_tenant, &request.tenant, &n, &argv);

        if (code < 0 && n > 0)
                return ctl_usage(c, "'%s' is too much", argv[0]);
        if (code >= 0)
                return code;
        if (c->json)
                json_list_begin("domains");
        else
                t = table_new(titles, ARRAY_SIZE(titles));
        code = ctl_list(c, "ListDomains", &request.base, &iommud__v1__list_domains_response__descriptor, add_domain, t);
        if (c->json)
                json_list_end();
        else
                table_print(t, code == CTL_OK ? "no domains" : NULL);
        return code;
}

/* ---- domain show ---- */

static void add_constraints(struct libscols_table *t, const Iommud__V1__Constraints *k) {
        table_pair(t, "page sizes", "%s", cell_page_sizes(k->page_sizes));
        if (k->max_mappings != 0)
                table_pair(t, "mappings at most", "%" PRIu32, k->max_mappings);
        for (size_t i = 0; i < k->n_ranges; i++)
                table_pair(t, i == 0 ? "usable" : "", "0x%" PRIx64 "-0x%" PRIx64, k->ranges[i]->first,
                           k->ranges[i]->last);
}

static void print_domain(const Iommud__V1__Domain *d) {
        struct libscols_table *t = table_new(NULL, 2);

        table_pair(t, "domain", "%" PRIu64, d->id);
        table_pair(t, "label", "%s", d->label);
        table_pair(t, "state", "%s", d->state);
        table_pair(t, "tenant", "%s", d->tenant);
        table_pair(t, "session", "%" PRIu64 " (client pid %" PRIu32 ")", d->session, d->client_pid);
        table_pair(t, "mappings", "%" PRIu64 " (%s)", d->mappings, cell_size(d->mapped_bytes));
        table_pair(t, "in the IOMMU", "%" PRIu64, d->kernel_mappings);
        table_pair(t, "shared pages", "%" PRIu64, d->shared_pages);
        table_pair(t, "table memory", "%s", cell_size(d->table_bytes));
        if (d->flush_mode == IOMMUD__V1__FLUSH_MODE__FLUSH_STRICT)
                table_pair(t, "flush", "strict");
        else
                table_pair(t, "flush", "%s (%" PRIu64 " mappings wait, %s)", flush_name(d->flush_mode),
                           d->deferred_mappings, cell_size(d->deferred_bytes));
        for (size_t i = 0; i < d->n_attachments; i++)
                table_pair(t, i == 0 ? "attachments" : "", "%" PRIu64 ": %s, %s", d->attachments[i]->id,
                           d->attachments[i]->device, d->attachments[i]->state);
        if (d->constraints)
                add_constraints(t, d->constraints);
        table_print(t, NULL);
}

static int run_show(struct ctl *c, int argc, char **argv) {
        Iommud__V1__DescribeDomainRequest request = IOMMUD__V1__DESCRIBE_DOMAIN_REQUEST__INIT;
        _cleanup_message_ ProtobufCMessage *answer = NULL;
        const Iommud__V1__Domain *d;
        int code = ctl_plain_arguments(c, argc, argv, 1, &argv);

        if (code >= 0)
                return code;
        if (!ctl_domain_id(argv[0], &request.domain))
                return CTL_USAGE;
        code = ctl_call(c, "ShowDomain", &request.base, &iommud__v1__describe_domain_response__descriptor, &answer);
        if (!answer)
                return code;
        d = ((const Iommud__V1__DescribeDomainResponse *)answer)->domain;
        if (d && c->json)
                json_print(&d->base);
        else if (d)
                print_domain(d);
        return CTL_OK;
}

/* ---- mapping list ---- */

struct mapping_listing {
        uint64_t domain;                /* 0: of all */
        struct libscols_table *table;   /* NULL: JSON */
        uint64_t *domains;
        size_t n_domains;
};

static bool set_domain(void *userdata, int option, const char *value) {
        (void)option;
        return ctl_domain_id(value, &((struct mapping_listing *)userdata)->domain);
}

/* What devices see beyond the mapping itself: "0x1000-0x1fff rw". */
static const char *exposed_of(const Iommud__V1__Mapping *m) {
        char access[4], *words[2];
        char range[48];

        if (!m->exposed)
                return "";
        (void)snprintf(range, sizeof range, "0x%" PRIx64 "-0x%" PRIx64, m->exposed->first, m->exposed->last);
        (void)snprintf(access, sizeof access, "%s", json_access_name(m->exposed_access));
        words[0] = range;
        words[1] = access;
        return cell_words(words, access[0] ? 2 : 1);
}

static void add_mapping(const ProtobufCMessage *element, void *userdata) {
        struct mapping_listing *l = userdata;
        const Iommud__V1__Mapping *m = (const Iommud__V1__Mapping *)element;

        if (!l->table) {
                json_list_add(element);
                return;
        }
        table_row(l->table, (const char *const[]){ cell_number(m->domain), cell_address(m->iova),
                                                   cell_address(m->iova + m->length - 1), cell_size(m->length),
                                                   cell_number(m->memory), cell_address(m->offset),
                                                   json_access_name(m->access),
                                                   m->chunk != 0 ? cell_size(m->chunk) : "", exposed_of(m),
                                                   m->state });
}

static void note_domain(const ProtobufCMessage *element, void *userdata) {
        struct mapping_listing *l = userdata;
        uint64_t *more = reallocarray(l->domains, l->n_domains + 1, sizeof *more);

        if (!more)
                return;
        l->domains = more;
        more[l->n_domains++] = ((const Iommud__V1__Domain *)element)->id;
}

static int list_mappings(struct ctl *c, struct mapping_listing *l, uint64_t domain) {
        Iommud__V1__ListMappingsRequest request = IOMMUD__V1__LIST_MAPPINGS_REQUEST__INIT;

        request.domain = domain;
        return ctl_list(c, "ListAllMappings", &request.base, &iommud__v1__list_mappings_response__descriptor,
                        add_mapping, l);
}

/* The service lists mappings of one domain at a time. One that ends meanwhile ends this with its refusal. */
static int list_all_mappings(struct ctl *c, struct mapping_listing *l) {
        Iommud__V1__ListDomainsRequest request = IOMMUD__V1__LIST_DOMAINS_REQUEST__INIT;
        int code = ctl_list(c, "ListDomains", &request.base, &iommud__v1__list_domains_response__descriptor,
                            note_domain, l);

        for (size_t i = 0; i < l->n_domains && code == CTL_OK; i++)
                code = list_mappings(c, l, l->domains[i]);
        free(l->domains);
        return code;
}

static int run_mappings(struct ctl *c, int argc, char **argv) {
        static const char *const titles[] = { ">DOMAIN", ">FIRST", ">LAST",  ">LENGTH", ">MEMORY",
                                              ">OFFSET", "ACCESS", ">CHUNK", "EXPOSED", "STATE" };
        static const struct option options[] = { { "domain", required_argument, NULL, OPTION_DOMAIN }, { 0 } };
        struct mapping_listing l = { 0 };
        int n, code = ctl_arguments(c, argc, argv, options, set_domain, &l, &n, &argv);

        if (code < 0 && n > 0)
                return ctl_usage(c, "'%s' is too much", argv[0]);
        if (code >= 0)
                return code;
        if (c->json)
                json_list_begin("mappings");
        else
                l.table = table_new(titles, ARRAY_SIZE(titles));
        code = l.domain != 0 ? list_mappings(c, &l, l.domain) : list_all_mappings(c, &l);
        if (c->json)
                json_list_end();
        else
                table_print(l.table, code == CTL_OK ? "no mappings" : NULL);
        return code;
}

const struct verb domain_verbs[] = {
        { "domain", "list", "[--tenant=NAME]", "IOVA address spaces and whose they are",
          "  --tenant=NAME          only of that tenant\n", run_list },
        { "domain", "show", "DOMAIN", "one domain: devices, page sizes, usable addresses, what it costs", "", run_show },
        { "mapping", "list", "[--domain=DOMAIN]", "what devices can reach",
          "  --domain=DOMAIN        only of that domain\n", run_mappings },
        { 0 },
};
