/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util testlib */
/* Calls over real sockets: every method, where it may be called, refusals, streams, answers from elsewhere,
 * cancellation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "../lib/fakes/fake_core.c"
#include "../lib/fakes/served.c"
#include "health.pb-c.h"
#include "iommud.pb-c.h"

#define CLIENT_PATH "/iommud.v1.Client/"
#define OPERATOR_PATH "/iommud.v1.Operator/"

static char token[2 * SESSION_TOKEN_BYTES + 1];

static int start(void **state) {
        (void)state;
        fake_token(getpid(), token);
        served_start(&(struct transport_options){ 0 });
        return 0;
}

static int stop(void **state) {
        (void)state;
        fake_release();
        served_stop();
        fake_end();
        return fake.sessions_live == 0 ? 0 : -1;
}

static int fresh(void **state) {
        (void)state;
        fake_set(FAKE_NOW, 0);
        LOCK_SCOPE(&fake.lock);
        fake.n_devices = fake.n_mappings = fake.n_domains = fake.n_tenants = fake.n_sessions = fake.n_violations = 0;
        return 0;
}

/* One call on a connection of its own; the unpacked response or NULL. */
static void *call(const char *path, const char *method, const char *with_token, const void *request,
                  const ProtobufCMessageDescriptor *response, struct grpc_client_answer *a) {
        struct grpc_client *c = grpc_client_connect(path);
        uint8_t packed[65536];
        void *unpacked = NULL;
        size_t size = protobuf_c_message_get_packed_size(request);

        assert_non_null(c);
        assert_true(size <= sizeof packed);
        (void)protobuf_c_message_pack(request, packed);
        fake_sync();
        grpc_client_unary(c, method, with_token, packed, size, 10000, a);
        fake_sync();
        if (a->status == 0) {
                assert_non_null(a->body);
                unpacked = protobuf_c_message_unpack(response, NULL, a->body_size, a->body);
                assert_non_null(unpacked);
        }
        grpc_client_answer_clear(a);
        (void)grpc_client_free(c);
        return unpacked;
}

#define FREE(m) protobuf_c_message_free_unpacked((ProtobufCMessage *)(m), NULL)

/* call() of a Client method on the client socket. */
#define CLIENT(name, type_request, type_response, ...)                                                                 \
        ({                                                                                                             \
                struct grpc_client_answer a_;                                                                          \
                Iommud__V1__##type_request q_ = { __VA_ARGS__ };                                                       \
                Iommud__V1__##type_response *r_ = call(served.client, CLIENT_PATH name, token, &q_,                    \
                                                       descriptor_of(#type_response), &a_);                            \
                if (!r_)                                                                                               \
                        fail_msg("%s: status %d %s", name, a_.status, a_.message);                                     \
                r_;                                                                                                    \
        })
#define OPERATOR(name, type_request, type_response, ...)                                                               \
        ({                                                                                                             \
                struct grpc_client_answer a_;                                                                          \
                Iommud__V1__##type_request q_ = { __VA_ARGS__ };                                                       \
                Iommud__V1__##type_response *r_ = call(served.operator, OPERATOR_PATH name, NULL, &q_,                 \
                                                       descriptor_of(#type_response), &a_);                            \
                if (!r_)                                                                                               \
                        fail_msg("%s: status %d %s", name, a_.status, a_.message);                                     \
                r_;                                                                                                    \
        })
#define BASE(type) .base = PROTOBUF_C_MESSAGE_INIT(descriptor_of(#type))

/* The descriptor of iommud.v1.NAME, found through the services that use it. */
static const ProtobufCMessageDescriptor *descriptor_of(const char *name) {
        static const ProtobufCServiceDescriptor *const services[] = { &iommud__v1__client__descriptor,
                                                                      &iommud__v1__operator__descriptor };

        for (size_t i = 0; i < ARRAY_SIZE(services); i++) {
                for (unsigned m = 0; m < services[i]->n_methods; m++) {
                        if (strcmp(services[i]->methods[m].input->short_name, name) == 0)
                                return services[i]->methods[m].input;
                        if (strcmp(services[i]->methods[m].output->short_name, name) == 0)
                                return services[i]->methods[m].output;
                }
        }
        fail_msg("no message %s", name);
        return NULL;
}

static char *text(const char *s) {
        return (char *)(uintptr_t)s;
}

static uint8_t key_bytes[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
#define KEY .request_key = { sizeof key_bytes, key_bytes }

static void assert_key(void) {
        assert_true(fake.key.present);
        assert_memory_equal(fake.key.bytes, key_bytes, sizeof key_bytes);
}

static void test_session_methods(void **state) {
        Iommud__V1__OpenSessionResponse *open = CLIENT("OpenSession", OpenSessionRequest, OpenSessionResponse,
                                                       BASE(OpenSessionRequest), .client_name = text("vm one"));

        (void)state;
        assert_int_equal(open->session, getpid());
        assert_int_equal(open->capabilities, 0x3ff);          /* all of them */
        assert_string_equal(open->service_version, IOMMUD_VERSION);
        assert_string_equal(fake.client_name, "vm one");
        FREE(open);
        FREE(CLIENT("CloseSession", CloseSessionRequest, CloseSessionResponse, BASE(CloseSessionRequest)));
        assert_string_equal(fake.last, "session_close_request");
}

static void test_domain_methods(void **state) {
        Iommud__V1__CreateDomainResponse *created = CLIENT("CreateDomain", CreateDomainRequest, CreateDomainResponse,
                                                           BASE(CreateDomainRequest), KEY,
                                                           .label = text("pl\xc3\xa4tte"));
        Iommud__V1__DescribeDomainResponse *described;

        (void)state;
        assert_int_equal(created->domain, getpid());
        assert_string_equal(fake.name, "pl\xc3\xa4tte");
        assert_key();
        FREE(created);
        described = CLIENT("DescribeDomain", DescribeDomainRequest, DescribeDomainResponse, BASE(DescribeDomainRequest),
                           .domain = 77);
        assert_int_equal(described->domain->id, 77);
        assert_string_equal(described->domain->label, "disk");
        assert_int_equal(described->domain->n_attachments, 1);
        assert_string_equal(described->domain->attachments[0]->device, "edu0");
        assert_int_equal(described->domain->attachments[0]->domain, 77);
        assert_int_equal(described->domain->constraints->n_ranges, 2);
        assert_true(described->domain->constraints->ranges[1]->last == UINT64_MAX);
        assert_int_equal(described->domain->constraints->max_mappings, 0);
        assert_string_equal(described->domain->tenant, "");     /* operators only */
        assert_int_equal(described->domain->client_pid, 0);
        FREE(described);
        FREE(CLIENT("DestroyDomain", DestroyDomainRequest, DestroyDomainResponse, BASE(DestroyDomainRequest), KEY,
                    .domain = 78, .force = true));
        assert_int_equal(fake.domain, 78);
        assert_true(fake.force);
        assert_key();
}

static void test_device_methods(void **state) {
        Iommud__V1__AttachDeviceResponse *attached = CLIENT("AttachDevice", AttachDeviceRequest, AttachDeviceResponse,
                                                            BASE(AttachDeviceRequest), KEY, .domain = 5,
                                                            .device = text("edu0"));
        Iommud__V1__ListDevicesResponse *devices;

        (void)state;
        assert_true(attached->attachment > 0);
        assert_int_equal(attached->constraints->page_sizes, 0x40201000);
        assert_int_equal(attached->constraints->ranges[0]->last, 0xfedfffff);
        assert_string_equal(fake.name, "edu0");
        assert_int_equal(fake.domain, 5);
        FREE(attached);
        FREE(CLIENT("DetachDevice", DetachDeviceRequest, DetachDeviceResponse, BASE(DetachDeviceRequest), KEY,
                    .attachment = 8));
        assert_int_equal(fake.object, 8);
        fake.n_devices = 3;
        devices = CLIENT("ListDevices", ListDevicesRequest, ListDevicesResponse, BASE(ListDevicesRequest),
                         .page_size = 2,
                         .page_token = text(""));
        assert_int_equal(devices->n_devices, 2);
        assert_string_equal(devices->devices[0]->name, "0000:00:00.0");
        assert_string_equal(devices->devices[1]->name, "0000:00:01.0");
        assert_int_equal(devices->devices[1]->n_group_members, 2);
        assert_string_equal(devices->devices[1]->group_members[1], "0000:00:01.1");
        {
                Iommud__V1__ListDevicesResponse *rest = CLIENT("ListDevices", ListDevicesRequest, ListDevicesResponse,
                                                               BASE(ListDevicesRequest), .page_size = 2,
                                                               .page_token = devices->next_page_token);

                assert_int_equal(rest->n_devices, 1);
                assert_string_equal(rest->devices[0]->name, "0000:00:02.0");
                assert_string_equal(rest->next_page_token, "");
                FREE(rest);
        }
        FREE(devices);
}

static void test_memory_methods(void **state) {
        Iommud__V1__RegisterMemoryResponse *m = CLIENT(
                "RegisterMemory", RegisterMemoryRequest, RegisterMemoryResponse, BASE(RegisterMemoryRequest), KEY,
                .ticket = 4,
                .size = 1U << 20, .seal_policy = IOMMUD__V1__SEAL_POLICY__SEAL_NONE, .read_only = true,
                .populate = true);

        (void)state;
        assert_true(m->memory > 0 && m->sealed);
        assert_int_equal(m->size, 1U << 20);
        assert_int_equal(m->page_size, 4096);
        assert_true(fake.unsealed && fake.read_only && fake.populate);
        assert_key();
        FREE(m);
        FREE(CLIENT("UnregisterMemory", UnregisterMemoryRequest, UnregisterMemoryResponse,
                    BASE(UnregisterMemoryRequest), KEY,
                    .memory = 6));
        assert_int_equal(fake.object, 6);
}

static void test_map_methods(void **state) {
        uint64_t iova[] = { 0x1000, UINT64_MAX - 0xfff }, length[] = { 0x1000, 0x1000 }, offset[] = { 0, 0x5000 };
        uint64_t memory[] = { 3 };
        uint32_t access[] = { 1, 3 };
        Iommud__V1__UnmapResponse *u;
        Iommud__V1__ListMappingsResponse *l;

        (void)state;
        FREE(CLIENT("Map", MapRequest, MapResponse, BASE(MapRequest), KEY, .domain = 9, .n_iova = 2, .iova = iova,
                    .n_length = 2,
                    .length = length, .n_offset = 2, .offset = offset, .n_memory = 1, .memory = memory, .n_access = 2,
                    .access = access));
        assert_int_equal(fake.domain, 9);
        assert_int_equal(fake.n, 2);
        assert_int_equal(fake.n_memory, 1);
        assert_int_equal(fake.n_access, 2);
        assert_memory_equal(fake.iova, iova, sizeof iova);
        assert_memory_equal(fake.length, length, sizeof length);
        assert_memory_equal(fake.offset, offset, sizeof offset);
        assert_memory_equal(fake.access, access, sizeof access);
        assert_int_equal(fake.memory[0], 3);
        assert_key();
        u = CLIENT("Unmap", UnmapRequest, UnmapResponse, BASE(UnmapRequest), .domain = 9, .n_iova = 2, .iova = iova,
                   .n_length = 2, .length = length);
        assert_int_equal(u->unmapped_bytes, 0x3000);
        assert_int_equal(u->mappings, 3);
        assert_int_equal(fake.n, 2);
        assert_false(fake.key.present);
        FREE(u);
        FREE(CLIENT("UnmapAll", UnmapAllRequest, UnmapResponse, BASE(UnmapAllRequest), KEY, .domain = 10));
        assert_int_equal(fake.n, 0);
        assert_int_equal(fake.domain, 10);
        fake.n_mappings = 5;
        l = CLIENT("ListMappings", ListMappingsRequest, ListMappingsResponse, BASE(ListMappingsRequest), .domain = 10,
                   .page_token = text(""));
        assert_int_equal(l->n_mappings, 5);
        assert_int_equal(l->mappings[4]->iova, 0x8000);
        assert_string_equal(l->mappings[4]->state, "live");
        assert_string_equal(l->next_page_token, "");
        FREE(l);
}

static void test_query_methods(void **state) {
        Iommud__V1__GetCapabilitiesResponse *c = CLIENT("GetCapabilities", GetCapabilitiesRequest,
                                                        GetCapabilitiesResponse,
                                                        BASE(GetCapabilitiesRequest), .device = text("edu0"));
        Iommud__V1__GetQuotaResponse *q;

        (void)state;
        assert_string_equal(c->backend, "soft");
        assert_int_equal(c->max_batch, 1024);
        assert_int_equal(c->n_degraded, 1);
        assert_string_equal(c->degraded[0], "no something");
        assert_int_equal(c->constraints->n_ranges, 2);
        FREE(c);
        q = CLIENT("GetQuota", GetQuotaRequest, GetQuotaResponse, BASE(GetQuotaRequest));
        assert_int_equal(q->n_quotas, 3);
        assert_int_equal(q->quotas[0]->resource, 1);
        assert_int_equal(q->quotas[0]->used, 4096);
        assert_true(q->quotas[1]->limit == UINT64_MAX);
        assert_int_equal(q->quotas[0]->over, 0);
        assert_int_equal(q->quotas[2]->over, 3);
        FREE(q);
}

static void test_operator_methods(void **state) {
        Iommud__V1__GetStatusResponse *s;
        Iommud__V1__ListDomainsResponse *d;
        Iommud__V1__DescribeDomainResponse *shown;
        Iommud__V1__ReleaseLeaseResponse *released;
        Iommud__V1__CheckLedgerResponse *checked;
        Iommud__V1__ListMappingsResponse *l;
        Iommud__V1__ListDevicesResponse *all;

        (void)state;
        fake.n_sessions = 200;
        fake.n_domains = 5;
        fake.n_violations = 1500;
        fake.n_mappings = 1;
        fake.n_devices = 1;
        s = OPERATOR("GetStatus", GetStatusRequest, GetStatusResponse, BASE(GetStatusRequest));
        assert_int_equal(s->n_session_list, 200);
        assert_string_equal(s->session_list[199]->client_name, "vm");
        assert_int_equal(s->orphaned_devices, 7);
        assert_int_equal(s->pid, getpid());
        assert_int_equal(s->n_host, 2);
        assert_int_equal(s->host[0]->resource, IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES);
        assert_int_equal(s->host[0]->limit, 1 << 30);
        assert_int_equal(s->host[0]->used, 1 << 20);
        assert_true(s->host[0]->promised == UINT64_MAX);
        assert_int_equal(s->host[1]->resource, IOMMUD__V1__RESOURCE__RESOURCE_TABLE_BYTES);
        assert_true(s->host[1]->limit == UINT64_MAX);
        assert_int_equal(s->host[1]->promised, 1 << 26);
        FREE(s);
        d = OPERATOR("ListDomains", ListDomainsRequest, ListDomainsResponse, BASE(ListDomainsRequest), .page_size = 2,
                     .tenant = text(""), .page_token = text(""));
        assert_int_equal(d->n_domains, 2);
        assert_int_equal(d->domains[1]->id, 2);
        assert_string_equal(d->domains[1]->tenant, "tenant-0");
        assert_int_equal(d->domains[1]->client_pid, 42);
        assert_string_equal(d->next_page_token, "0000000000000002");
        FREE(d);
        shown = OPERATOR("ShowDomain", DescribeDomainRequest, DescribeDomainResponse, BASE(DescribeDomainRequest),
                         .domain = 3);
        assert_int_equal(shown->domain->client_pid, 42);
        FREE(shown);
        l = OPERATOR("ListAllMappings", ListMappingsRequest, ListMappingsResponse, BASE(ListMappingsRequest),
                     .domain = 3,
                     .page_token = text(""));
        assert_int_equal(l->n_mappings, 1);
        FREE(l);
        all = OPERATOR("ListAllDevices", ListDevicesRequest, ListDevicesResponse, BASE(ListDevicesRequest),
                       .page_token = text(""));
        assert_int_equal(all->n_devices, 1);
        FREE(all);
        FREE(OPERATOR("BindDevice", BindDeviceRequest, BindDeviceResponse, BASE(BindDeviceRequest),
                      .device = text("a")));
        FREE(OPERATOR("UnbindDevice", UnbindDeviceRequest, UnbindDeviceResponse, BASE(UnbindDeviceRequest),
                      .device = text("b")));
        assert_string_equal(fake.name, "b");
        released = OPERATOR("ReleaseLease", ReleaseLeaseRequest, ReleaseLeaseResponse, BASE(ReleaseLeaseRequest),
                            .device = text("c"));
        assert_string_equal(released->state, "free");
        FREE(released);
        checked = OPERATOR("CheckLedger", CheckLedgerRequest, CheckLedgerResponse, BASE(CheckLedgerRequest));
        assert_int_equal(checked->n_violations, 1000);
        assert_int_equal(checked->checked_rows, 12);
        FREE(checked);
}

static void test_tenant_methods(void **state) {
        Iommud__V1__Quota quota = IOMMUD__V1__QUOTA__INIT;
        Iommud__V1__Quota *quotas[] = { &quota };
        Iommud__V1__Rule rule = IOMMUD__V1__RULE__INIT, *rules[] = { &rule };
        Iommud__V1__Tenant tenant = IOMMUD__V1__TENANT__INIT;
        Iommud__V1__UpsertTenantResponse *u;
        Iommud__V1__ListTenantsResponse *l;
        char *devices[] = { text("1234:11e8") };

        (void)state;
        quota.resource = IOMMUD__V1__RESOURCE__RESOURCE_DOMAINS;
        quota.limit = 3;
        rule.uid_set_case = IOMMUD__V1__RULE__UID_SET_UID;      /* uid 0 is a uid, not an absent one */
        rule.cgroup_prefix = text("/kube/");
        tenant.name = text("red-1");
        tenant.n_quotas = tenant.n_rules = tenant.n_devices = 1;
        tenant.quotas = quotas;
        tenant.rules = rules;
        tenant.devices = devices;
        u = OPERATOR("UpsertTenant", UpsertTenantRequest, UpsertTenantResponse, BASE(UpsertTenantRequest),
                     .tenant = &tenant,
                     .must_exist = true, .fields = 3);
        assert_string_equal(fake.upsert.config.name, "red-1");
        assert_true(fake.upsert.must_exist && !fake.upsert.create_only);
        assert_int_equal(fake.upsert.fields, 3);
        assert_int_equal(fake.upsert.config.quota[RESOURCE_DOMAINS], 3);
        assert_true(fake.upsert.config.quota[RESOURCE_SESSIONS] == TENANT_QUOTA_KEEP);
        assert_true(fake.upsert.config.rules[0].has_uid && !fake.upsert.config.rules[0].has_gid);
        assert_string_equal(fake.upsert.config.rules[0].cgroup_prefix, "/kube/");
        assert_string_equal(u->tenant->devices[0], "1234:11e8");
        assert_int_equal(u->tenant->rules[0]->uid_set_case, IOMMUD__V1__RULE__UID_SET_UID);
        assert_string_equal(u->tenant->origin, "ledger");
        FREE(u);
        fake.n_tenants = 5;
        l = OPERATOR("ListTenants", ListTenantsRequest, ListTenantsResponse, BASE(ListTenantsRequest), .page_size = 4,
                     .page_token = text(""));
        assert_int_equal(l->n_tenants, 4);
        assert_string_equal(l->tenants[0]->name, "t000");
        assert_string_equal(l->tenants[3]->name, "t003");
        assert_true(l->next_page_token[0] != '\0');
        FREE(l);
        FREE(OPERATOR("DeleteTenant", DeleteTenantRequest, DeleteTenantResponse, BASE(DeleteTenantRequest),
                      .name = text("red-1")));
        assert_string_equal(fake.name, "red-1");
}

/* ---- refusals ---- */

/* The status of a call with an empty message; its Refusal's reason in *ret_reason (0 without details). */
static int status_of(const char *path, const char *method, const char *with_token, int *ret_reason) {
        struct grpc_client *c = grpc_client_connect(path);
        struct grpc_client_answer a;

        assert_non_null(c);
        grpc_client_unary(c, method, with_token, "", 0, 10000, &a);
        fake_sync();
        *ret_reason = 0;
        if (a.details_size > 0) {
                Iommud__V1__StatusDetails *s = iommud__v1__status_details__unpack(NULL, a.details_size, a.details);
                Iommud__V1__Refusal *r;

                assert_non_null(s);
                assert_int_equal(s->code, a.status);
                assert_string_equal(s->message, a.message);
                assert_int_equal(s->n_details, 1);
                assert_string_equal(s->details[0]->type_url, "type.googleapis.com/iommud.v1.Refusal");
                r = iommud__v1__refusal__unpack(NULL, s->details[0]->value.len, s->details[0]->value.data);
                assert_non_null(r);
                *ret_reason = (int)r->reason;
                FREE(r);
                FREE(s);
        }
        grpc_client_answer_clear(&a);
        (void)grpc_client_free(c);
        return a.status;
}

static void test_unknown_method(void **state) {
        int reason;

        (void)state;
        assert_int_equal(status_of(served.client, CLIENT_PATH "Nothing", token, &reason), 12);
        assert_int_equal(reason, REFUSAL_UNSUPPORTED);
        assert_int_equal(status_of(served.client, CLIENT_PATH, token, &reason), 12);
        assert_int_equal(status_of(served.client, "/", token, &reason), 12);
}

static void test_services_keep_to_their_sockets(void **state) {
        int reason;

        (void)state;
        assert_int_equal(status_of(served.client, OPERATOR_PATH "GetStatus", NULL, &reason), 7);
        assert_int_equal(reason, REFUSAL_NOT_PERMITTED);
        assert_int_equal(status_of(served.tenant, OPERATOR_PATH "GetStatus", NULL, &reason), 7);
        assert_int_equal(status_of(served.operator, CLIENT_PATH "GetQuota", token, &reason), 7);
        assert_int_equal(reason, REFUSAL_NOT_PERMITTED);
        assert_int_equal(status_of(served.operator, OPERATOR_PATH "GetStatus", NULL, &reason), 0);
        assert_int_equal(status_of(served.tenant, CLIENT_PATH "GetQuota", token, &reason), 0);
        assert_int_equal(status_of(served.client, "/grpc.health.v1.Health/Check", NULL, &reason), 0);
        assert_int_equal(status_of(served.tenant, "/grpc.health.v1.Health/Check", NULL, &reason), 0);
        assert_int_equal(status_of(served.operator, "/grpc.health.v1.Health/Check", NULL, &reason), 0);
}

static void test_client_methods_need_the_session(void **state) {
        size_t n;
        const struct method *methods = dispatch_methods(&n);
        char foreign[2 * SESSION_TOKEN_BYTES + 1];
        int reason;

        (void)state;
        fake_token(getpid() + 1, foreign);
        for (size_t i = 0; i < n; i++) {
                if (methods[i].permission != PERMISSION_CLIENT)
                        continue;
                assert_int_equal(status_of(served.client, methods[i].path, NULL, &reason), 16);
                assert_int_equal(reason, REFUSAL_UNKNOWN_SESSION);
        }
        assert_int_equal(status_of(served.client, CLIENT_PATH "GetQuota", foreign, &reason), 16);
        assert_int_equal(status_of(served.client, CLIENT_PATH "GetQuota", "short", &reason), 16);
        assert_int_equal(status_of(served.client, CLIENT_PATH "GetQuota", "", &reason), 16);
        assert_int_equal(status_of(served.client, CLIENT_PATH "GetQuota", token, &reason), 0);
}

static void test_peer_that_is_nobody(void **state) {
        unsigned audits = fake.audits;
        struct grpc_client *c;
        struct grpc_client_answer a;
        int reason;

        (void)state;
        fake_refuse_peers();
        assert_int_equal(status_of(served.client, CLIENT_PATH "GetQuota", token, &reason), 7);
        assert_int_equal(reason, REFUSAL_UNKNOWN_PEER);
        assert_int_equal(fake.audits, audits + 1);
        c = grpc_client_connect(served.client);
        for (int i = 0; i < 3; i++) {   /* every call, and one audit line for all */
                grpc_client_unary(c, "/grpc.health.v1.Health/Check", NULL, "", 0, 10000, &a);
                assert_int_equal(a.status, 7);
                grpc_client_answer_clear(&a);
        }
        (void)grpc_client_free(c);
        assert_int_equal(fake.audits, audits + 2);
        /* a tenant's own socket asks no rule */
        assert_int_equal(status_of(served.tenant, CLIENT_PATH "GetQuota", token, &reason), 0);
}

static void test_refusal_of_the_core(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        struct grpc_client_answer a;
        struct refusal r;
        Iommud__V1__StatusDetails *s;
        Iommud__V1__Refusal *got;

        (void)state;
        (void)refuse(&r, REFUSAL_OVERLAP, "0x1000 is taken\n by \xff");
        r.element = 0;
        r.conflict_first = 0x1000;
        r.conflict_last = UINT64_MAX;
        r.limit = 5;
        fake_refuse(&r);
        grpc_client_unary(c, CLIENT_PATH "UnmapAll", token, "", 0, 10000, &a);
        assert_int_equal(a.status, 6);
        assert_string_equal(a.message, "0x1000 is taken? by ?");
        s = iommud__v1__status_details__unpack(NULL, a.details_size, a.details);
        assert_non_null(s);
        got = iommud__v1__refusal__unpack(NULL, s->details[0]->value.len, s->details[0]->value.data);
        assert_int_equal(got->reason, REFUSAL_OVERLAP);
        assert_int_equal(got->batch_case, IOMMUD__V1__REFUSAL__BATCH_ELEMENT);
        assert_int_equal(got->element, 0);
        assert_int_equal(got->conflict->first, 0x1000);
        assert_true(got->conflict->last == UINT64_MAX);
        assert_int_equal(got->limit, 5);
        FREE(got);
        FREE(s);
        grpc_client_answer_clear(&a);
        (void)grpc_client_free(c);
}

static void test_message_over_the_limit(void **state) {
        size_t size = 300U * 1024;
        uint8_t *large = calloc(1, size);
        struct grpc_client *c = grpc_client_connect(served.client);
        struct grpc_client_answer a;
        unsigned calls = fake.calls;

        (void)state;
        grpc_client_unary(c, CLIENT_PATH "UnmapAll", token, large, size, 10000, &a);
        assert_int_equal(a.status, 8);
        assert_int_equal(fake.calls, calls);
        grpc_client_answer_clear(&a);
        /* the connection is as good as before */
        grpc_client_unary(c, CLIENT_PATH "UnmapAll", token, "", 0, 10000, &a);
        assert_int_equal(a.status, 0);
        grpc_client_answer_clear(&a);
        (void)grpc_client_free(c);
        free(large);
}

/* In many pieces: not one slice. */
static void test_large_message_arrives_whole(void **state) {
        static uint64_t iova[1024], length[1024];
        Iommud__V1__UnmapResponse *u;

        (void)state;
        for (size_t i = 0; i < 1024; i++) {
                iova[i] = UINT64_MAX - i * 4096;
                length[i] = UINT64_MAX - i;
        }
        u = CLIENT("Unmap", UnmapRequest, UnmapResponse, BASE(UnmapRequest), .n_iova = 1024, .iova = iova,
                   .n_length = 1024,
                   .length = length);
        FREE(u);
        assert_int_equal(fake.n, 1024);
        assert_memory_equal(fake.iova, iova, sizeof iova);
        assert_memory_equal(fake.length, length, sizeof length);
}

/* ---- answers from elsewhere ---- */

static void test_answer_from_another_thread(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        struct grpc_client_call *calls[32];
        struct grpc_client_answer a;

        (void)state;
        fake_set(FAKE_LATER, 5);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                calls[i] = grpc_client_start(c, CLIENT_PATH "UnmapAll", token, "", 0, 10000, false);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
                grpc_client_wait(calls[i], &a);
                assert_int_equal(a.status, 0);
                assert_int_equal(a.body_size, 5);
                grpc_client_answer_clear(&a);
        }
        (void)grpc_client_free(c);
}

static void wait_pending(size_t n) {
        for (int i = 0; i < 500; i++) {
                size_t now;

                pthread_mutex_lock(&fake.lock);
                now = fake.n_pending;
                pthread_mutex_unlock(&fake.lock);
                if (now == n)
                        return;
                sleep_ms(10);
        }
        fail_msg("the core was not asked %zu times", n);
}

static void test_client_cancels_before_the_answer(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        struct grpc_client_call *one, *other;
        struct grpc_client_answer a;

        (void)state;
        fake_set(FAKE_HELD, 0);
        one = grpc_client_start(c, CLIENT_PATH "UnmapAll", token, "", 0, 10000, false);
        other = grpc_client_start(c, CLIENT_PATH "UnmapAll", token, "", 0, 10000, false);
        wait_pending(2);
        grpc_client_cancel(one);
        grpc_client_wait(one, &a);
        assert_int_equal(a.status, 1);
        grpc_client_answer_clear(&a);
        fake_release();                 /* both; nobody waits for the first */
        grpc_client_wait(other, &a);
        assert_int_equal(a.status, 0);
        grpc_client_answer_clear(&a);
        (void)grpc_client_free(c);
}

static void test_client_leaves_before_the_answer(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        struct grpc_client_call *one = grpc_client_start(c, CLIENT_PATH "GetQuota", token, "", 0, 10000, false);
        struct grpc_client_answer a;

        (void)state;
        grpc_client_wait(one, &a);
        grpc_client_answer_clear(&a);
        fake_set(FAKE_HELD, 0);
        one = grpc_client_start(c, CLIENT_PATH "UnmapAll", token, "", 0, 10000, false);
        wait_pending(1);
        grpc_client_cancel(one);
        grpc_client_wait(one, &a);
        grpc_client_answer_clear(&a);
        (void)grpc_client_free(c);      /* the connection goes, its call is still with the core */
        sleep_ms(50);
        assert_true(transport_connections(served.transport) >= 1);
        fake_release();
        for (int i = 0; i < 500 && transport_connections(served.transport) > 0; i++)
                sleep_ms(10);
        assert_int_equal(transport_connections(served.transport), 0);
}

/* ---- health ---- */

static int next_status(struct grpc_client_call *call) {
        uint8_t bytes[64];
        size_t size = sizeof bytes;
        Grpc__Health__V1__HealthCheckResponse *r;
        int status;

        if (!grpc_client_read(call, bytes, &size))
                return -1;
        r = grpc__health__v1__health_check_response__unpack(NULL, size, bytes);
        assert_non_null(r);
        status = (int)r->status;
        FREE(r);
        return status;
}

static size_t health_request(const char *service, uint8_t packed[128]) {
        Grpc__Health__V1__HealthCheckRequest q = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;

        q.service = text(service);
        return grpc__health__v1__health_check_request__pack(&q, packed);
}

static void test_health_check(void **state) {
        Grpc__Health__V1__HealthCheckRequest q = GRPC__HEALTH__V1__HEALTH_CHECK_REQUEST__INIT;
        static const char *const known[] = { "", "iommud.v1.Client", "iommud.v1.Operator" };
        struct grpc_client_answer a;

        (void)state;
        for (int serving = 0; serving < 2; serving++) {
                dispatch_set_serving(serving);
                for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
                        Grpc__Health__V1__HealthCheckResponse *r;

                        q.service = text(known[i]);
                        r = call(served.client, "/grpc.health.v1.Health/Check", NULL, &q,
                                 &grpc__health__v1__health_check_response__descriptor, &a);
                        assert_non_null(r);
                        assert_int_equal(r->status, serving ? 1 : 2);
                        FREE(r);
                }
        }
        q.service = text("iommud.v2.Client");
        assert_null(call(served.client, "/grpc.health.v1.Health/Check", NULL, &q,
                         &grpc__health__v1__health_check_response__descriptor, &a));
        assert_int_equal(a.status, 5);
}

static void test_health_watch(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        uint8_t q[128];
        struct grpc_client_call *known = grpc_client_start(c, "/grpc.health.v1.Health/Watch", NULL, q,
                                                           health_request("iommud.v1.Client", q), 10000, true);
        struct grpc_client_call *unknown = grpc_client_start(c, "/grpc.health.v1.Health/Watch", NULL, q,
                                                             health_request("no such", q), 10000, true);
        struct grpc_client_answer a;

        (void)state;
        assert_int_equal(next_status(known), 1);
        assert_int_equal(next_status(unknown), 3);
        dispatch_set_serving(false);
        assert_int_equal(next_status(known), 2);
        dispatch_set_serving(false);    /* no change, no message */
        dispatch_set_serving(true);
        assert_int_equal(next_status(known), 1);
        grpc_client_cancel(known);
        assert_int_equal(next_status(known), -1);
        grpc_client_wait(known, &a);
        assert_int_equal(a.status, 1);
        grpc_client_answer_clear(&a);
        dispatch_end_streams();
        assert_int_equal(next_status(unknown), -1);
        grpc_client_wait(unknown, &a);
        assert_int_equal(a.status, 14);
        grpc_client_answer_clear(&a);
        (void)dispatch_start();
        dispatch_set_serving(true);
        (void)grpc_client_free(c);
}

/* A stream that its client gave up leaves nothing behind: no watcher, no connection. */
static void test_watcher_that_leaves(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        struct grpc_client_call *call = grpc_client_start(c, "/grpc.health.v1.Health/Watch", NULL, "", 0, 10000, true);
        struct grpc_client_answer a;

        (void)state;
        assert_int_equal(next_status(call), 1);
        grpc_client_cancel(call);
        grpc_client_wait(call, &a);
        assert_int_equal(a.status, 1);
        grpc_client_answer_clear(&a);
        (void)grpc_client_free(c);
        for (int i = 0; i < 500 && transport_connections(served.transport) > 0; i++)
                sleep_ms(10);
        assert_int_equal(transport_connections(served.transport), 0);
}

/* A client that does not read its stream is dropped; nobody waits for it. */
static void test_watcher_that_does_not_read(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        struct grpc_client_call *call = grpc_client_start(c, "/grpc.health.v1.Health/Watch", NULL, "", 0, 60000, true);
        struct grpc_client_answer a;
        int ended = 0;

        (void)state;
        assert_int_equal(next_status(call), 1);
        for (int i = 0; i < 200000; i++)
                dispatch_set_serving(i % 2 != 0);
        while (next_status(call) >= 0)
                ended++;
        assert_true(ended < 200000);
        grpc_client_wait(call, &a);
        assert_int_equal(a.status, 8);
        grpc_client_answer_clear(&a);
        (void)grpc_client_free(c);
        dispatch_set_serving(true);
}

static void test_stop_ends_streams_and_waits_for_calls(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        struct grpc_client_call *watch = grpc_client_start(c, "/grpc.health.v1.Health/Watch", NULL, "", 0, 10000, true);
        struct grpc_client_call *mutation;
        struct grpc_client_answer a;
        struct timespec began, ended;

        (void)state;
        assert_int_equal(next_status(watch), 1);
        fake_set(FAKE_LATER, 50);
        mutation = grpc_client_start(c, CLIENT_PATH "UnmapAll", token, "", 0, 10000, false);
        wait_pending(1);
        clock_gettime(CLOCK_MONOTONIC, &began);
        assert_int_equal(transport_stop(served.transport, 8000), 0);
        clock_gettime(CLOCK_MONOTONIC, &ended);
        assert_true(ended.tv_sec - began.tv_sec < 6);   /* streams do not use up the time for calls */
        assert_int_equal(next_status(watch), 2);
        assert_int_equal(next_status(watch), -1);
        grpc_client_wait(watch, &a);
        assert_int_equal(a.status, 14);
        grpc_client_answer_clear(&a);
        grpc_client_wait(mutation, &a);
        assert_int_equal(a.status, 0);  /* what was under way was finished */
        grpc_client_answer_clear(&a);
        (void)grpc_client_free(c);
        served_stop();
        served_start(&(struct transport_options){ 0 });
}

static void test_stop_cancels_what_does_not_end(void **state) {
        struct grpc_client *c = grpc_client_connect(served.client);
        struct grpc_client_call *mutation;
        struct grpc_client_answer a;

        (void)state;
        fake_set(FAKE_HELD, 0);
        mutation = grpc_client_start(c, CLIENT_PATH "UnmapAll", token, "", 0, 10000, false);
        wait_pending(1);
        assert_int_equal(transport_stop(served.transport, 20), 1);
        grpc_client_wait(mutation, &a);
        assert_true(a.status == 1 || a.status == 14);   /* told, not left to its deadline */
        grpc_client_answer_clear(&a);
        (void)grpc_client_free(c);
        fake_release();                 /* the core stops, and answers */
        served_stop();
        served_start(&(struct transport_options){ 0 });
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup(test_session_methods, fresh),
                cmocka_unit_test_setup(test_domain_methods, fresh),
                cmocka_unit_test_setup(test_device_methods, fresh),
                cmocka_unit_test_setup(test_memory_methods, fresh),
                cmocka_unit_test_setup(test_map_methods, fresh),
                cmocka_unit_test_setup(test_query_methods, fresh),
                cmocka_unit_test_setup(test_operator_methods, fresh),
                cmocka_unit_test_setup(test_tenant_methods, fresh),
                cmocka_unit_test_setup(test_unknown_method, fresh),
                cmocka_unit_test_setup(test_services_keep_to_their_sockets, fresh),
                cmocka_unit_test_setup(test_client_methods_need_the_session, fresh),
                cmocka_unit_test_setup(test_peer_that_is_nobody, fresh),
                cmocka_unit_test_setup(test_refusal_of_the_core, fresh),
                cmocka_unit_test_setup(test_message_over_the_limit, fresh),
                cmocka_unit_test_setup(test_large_message_arrives_whole, fresh),
                cmocka_unit_test_setup(test_answer_from_another_thread, fresh),
                cmocka_unit_test_setup(test_client_cancels_before_the_answer, fresh),
                cmocka_unit_test_setup(test_client_leaves_before_the_answer, fresh),
                cmocka_unit_test_setup(test_health_check, fresh),
                cmocka_unit_test_setup(test_health_watch, fresh),
                cmocka_unit_test_setup(test_watcher_that_leaves, fresh),
                cmocka_unit_test_setup(test_watcher_that_does_not_read, fresh),
                cmocka_unit_test_setup(test_stop_ends_streams_and_waits_for_calls, fresh),
                cmocka_unit_test_setup(test_stop_cancels_what_does_not_end, fresh),
        };
        return cmocka_run_group_tests(tests, start, stop);
}
