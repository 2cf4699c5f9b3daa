/* SPDX-License-Identifier: Apache-2.0 */
/* link: broker proto util */
/* iommuctl as a program: what it says to wrong usage, to a service that is not there, and to one that answers with
 * canned messages (this program plays the service; what the real one answers is tested end to end). */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>

#include "iommud.pb-c.h"
#include "transport/tsan.h"
#include "util/cleanup.h"

extern char **environ;

static char program[PATH_MAX], directory[64], socket_path[96];
static char out[65536], err[65536];

/* ---- running it ---- */

/* ThreadSanitizer's word for whose turn it is: this thread's, or the service's (gRPC is not instrumented). */
static char turn;

static void read_file(const char *path, char *ret, size_t size) {
        FILE *f = fopen(path, "r");
        size_t n;

        assert_non_null(f);
        n = fread(ret, 1, size - 1, f);
        ret[n] = '\0';
        (void)fclose(f);
        (void)unlink(path);
}

/* Arguments are separated by one blank; "~" inside one stands for a blank. Returns the exit code; out and err. */
static int ctl(const char *arguments) {
        char line[512], out_path[96], err_path[96], *words[32], *rest = line;
        posix_spawn_file_actions_t actions;
        int n = 0, status;
        pid_t pid;

        (void)snprintf(line, sizeof line, "%s", arguments);
        (void)snprintf(out_path, sizeof out_path, "%s/out", directory);
        (void)snprintf(err_path, sizeof err_path, "%s/err", directory);
        words[n++] = program;
        while ((words[n] = strtok_r(rest, " ", &rest))) {
                for (char *c = words[n]; *c; c++)
                        *c = *c == '~' ? ' ' : *c;
                n++;
        }
        assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
        posix_spawn_file_actions_addopen(&actions, 1, out_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        posix_spawn_file_actions_addopen(&actions, 2, err_path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        tsan_give(&turn);       /* the service's thread reads what was prepared; the program's call is between them */
        assert_int_equal(posix_spawn(&pid, program, &actions, NULL, words, environ), 0);
        posix_spawn_file_actions_destroy(&actions);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        tsan_take(&turn);
        read_file(out_path, out, sizeof out);
        read_file(err_path, err, sizeof err);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void contains(const char *text, const char *part) {
        if (!strstr(text, part))
                fail_msg("not there: %s\nin:\n%s", part, text);
}

/* ---- a service ---- */

struct canned {
        const char *method;
        const ProtobufCMessage *answer; /* NULL: the refusal */
        const char *page;               /* answer this one only to that page_token of a listing; NULL: always */
};

static const struct canned *canned;     /* ends with a NULL method */
static const Iommud__V1__Refusal *refusal;
static char asked[128];
static uint8_t request[8192];
static size_t n_request;

static grpc_server *server;
static grpc_completion_queue *queue;
static pthread_t thread;

static grpc_slice slice_of(const ProtobufCMessage *m) {
        grpc_slice s = grpc_slice_malloc(protobuf_c_message_get_packed_size(m));

        protobuf_c_message_pack(m, GRPC_SLICE_START_PTR(s));
        return s;
}

static grpc_slice slice_of_refusal(void) {
        Iommud__V1__StatusDetail detail = IOMMUD__V1__STATUS_DETAIL__INIT, *details[] = { &detail };
        Iommud__V1__StatusDetails status = IOMMUD__V1__STATUS_DETAILS__INIT;
        uint8_t bytes[1024];

        detail.type_url = (char *)"type.googleapis.com/iommud.v1.Refusal";
        detail.value.len = protobuf_c_message_pack(&refusal->base, bytes);
        detail.value.data = bytes;
        status.n_details = 1;
        status.details = details;
        return slice_of(&status.base);
}

static void keep_request(grpc_byte_buffer *message) {
        grpc_byte_buffer_reader reader;
        grpc_slice all;

        n_request = 0;
        if (!message || !grpc_byte_buffer_reader_init(&reader, message))
                return;
        all = grpc_byte_buffer_reader_readall(&reader);
        n_request = GRPC_SLICE_LENGTH(all);
        assert_true(n_request <= sizeof request);
        memcpy(request, GRPC_SLICE_START_PTR(all), n_request);
        grpc_slice_unref(all);
        grpc_byte_buffer_reader_destroy(&reader);
}

static const struct canned *find_canned(void) {
        for (const struct canned *c = canned; c && c->method; c++) {
                Iommud__V1__ListTenantsRequest *list;
                bool fits = true;

                if (strcmp(asked, c->method) != 0)
                        continue;
                if (c->page) {
                        list = iommud__v1__list_tenants_request__unpack(NULL, n_request, request);
                        fits = list && strcmp(list->page_token, c->page) == 0;
                        iommud__v1__list_tenants_request__free_unpacked(list, NULL);
                }
                if (fits)
                        return c;
        }
        return NULL;
}

static void run_batch(grpc_call *call, grpc_op *ops, size_t n) {
        assert_int_equal(grpc_call_start_batch(call, ops, n, call, NULL), GRPC_CALL_OK);
        (void)grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
}

static void answer(grpc_call *call) {
        grpc_byte_buffer *message = NULL, *reply = NULL;
        grpc_slice bytes = grpc_empty_slice(), text = grpc_slice_from_static_string("plain message");
        grpc_metadata details = { .key = grpc_slice_from_static_string("grpc-status-details-bin") };
        int cancelled = 0;
        grpc_op receive[] = { { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &message } };
        grpc_op send[4] = { { .op = GRPC_OP_SEND_INITIAL_METADATA },
                            { .op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &cancelled },
                            { .op = GRPC_OP_SEND_STATUS_FROM_SERVER } };
        const struct canned *c;
        size_t n = 3;

        run_batch(call, receive, 1);
        keep_request(message);
        grpc_byte_buffer_destroy(message);
        c = find_canned();
        if (c && c->answer) {
                bytes = slice_of(c->answer);
                reply = grpc_raw_byte_buffer_create(&bytes, 1);
                send[n++] = (grpc_op){ .op = GRPC_OP_SEND_MESSAGE, .data.send_message.send_message = reply };
        } else {
                send[2].data.send_status_from_server.status = c ? GRPC_STATUS_FAILED_PRECONDITION
                                                                : GRPC_STATUS_UNIMPLEMENTED;
                send[2].data.send_status_from_server.status_details = &text;
                if (c && refusal) {
                        bytes = slice_of_refusal();
                        details.value = bytes;
                        send[2].data.send_status_from_server.trailing_metadata_count = 1;
                        send[2].data.send_status_from_server.trailing_metadata = &details;
                }
        }
        run_batch(call, send, n);
        grpc_slice_unref(bytes);
        grpc_byte_buffer_destroy(reply);
}

static void *serve(void *arg) {
        (void)arg;
        for (;;) {
                grpc_call_details call_details;
                grpc_metadata_array metadata;
                grpc_call *call = NULL;
                grpc_event e;

                grpc_call_details_init(&call_details);
                grpc_metadata_array_init(&metadata);
                (void)grpc_server_request_call(server, &call, &call_details, &metadata, queue, queue, &call);
                e = grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL);
                if (e.success && call) {
                        tsan_take(&turn);
                        (void)snprintf(asked, sizeof asked, "%.*s", (int)GRPC_SLICE_LENGTH(call_details.method),
                                       (const char *)GRPC_SLICE_START_PTR(call_details.method));
                        memmove(asked, strrchr(asked, '/') + 1, strlen(strrchr(asked, '/')));
                        answer(call);
                        tsan_give(&turn);
                        grpc_call_unref(call);
                }
                grpc_call_details_destroy(&call_details);
                grpc_metadata_array_destroy(&metadata);
                if (!e.success)
                        return NULL;
        }
}

static int begin(void **state) {
        char self[PATH_MAX - 64], address[128];
        ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
        grpc_server_credentials *credentials;

        (void)state;
        if (n < 0)
                return -1;
        self[n] = '\0';
        (void)snprintf(program, sizeof program, "%s/../../iommuctl", dirname(self));
        if (access(program, X_OK) < 0) {
                fprintf(stderr, "%s: %s (make builds it)\n", program, strerror(errno));
                return -1;
        }
        strcpy(directory, "/tmp/iommud-ctl-XXXXXX");
        if (!mkdtemp(directory))
                return -1;
        (void)snprintf(socket_path, sizeof socket_path, "%s/op.sock", directory);
        (void)snprintf(address, sizeof address, "unix:%s", socket_path);
        setenv("IOMMUD_OPERATOR_SOCKET", socket_path, 1);
        grpc_init();
        server = grpc_server_create(NULL, NULL);
        queue = grpc_completion_queue_create_for_next(NULL);
        grpc_server_register_completion_queue(server, queue, NULL);
        credentials = grpc_insecure_server_credentials_create();
        if (grpc_server_add_http2_port(server, address, credentials) == 0)
                return -1;
        grpc_server_credentials_release(credentials);
        grpc_server_start(server);
        return pthread_create(&thread, NULL, serve, NULL);
}

static int end(void **state) {
        (void)state;
        grpc_server_cancel_all_calls(server);
        grpc_server_shutdown_and_notify(server, queue, &server);
        pthread_join(thread, NULL);
        /* the shutdown's own event may still come */
        (void)grpc_completion_queue_next(queue, gpr_time_add(gpr_now(GPR_CLOCK_REALTIME),
                                                             gpr_time_from_millis(200, GPR_TIMESPAN)), NULL);
        grpc_server_destroy(server);
        grpc_completion_queue_shutdown(queue);
        while (grpc_completion_queue_next(queue, gpr_inf_future(GPR_CLOCK_REALTIME), NULL).type != GRPC_QUEUE_SHUTDOWN)
                ;
        grpc_completion_queue_destroy(queue);
        grpc_shutdown_blocking();
        (void)unlink(socket_path);
        return rmdir(directory);
}

/* ---- usage ---- */

static void test_wrong_usage(void **state) {
        static const struct {
                const char *arguments, *text;
        } cases[] = {
                { "", "no verb given\nTry 'iommuctl help'." },
                { "tenat list", "there is no verb 'tenat'; did you mean 'tenant'?" },
                { "tenant lst", "there is no verb 'tenant lst'; did you mean 'tenant list'?" },
                { "zzzzzz", "there is no verb 'zzzzzz'\n" },
                { "a-word-that-is-longer-than-every-verb-there-is", "there is no verb 'a-word" },
                { "tenant", "tenant what? One of: list, add, set, remove" },
                { "mapping", "mapping what? One of: list" },
                { "--nonsense", "wrong option" },
                { "status --nonsense", "Try 'iommuctl status --help'." },
                { "status more", "'more' is too much" },
                { "--timeout=0 status", "--timeout: '0' is not a number of seconds" },
                { "device bind", "device bind needs DEVICE" },
                { "device bind a b", "'b' is too much" },
                { "domain show", "domain show needs DOMAIN" },
                { "domain show x", "'x' is not the id of a domain" },
                { "domain show 0", "'0' is not the id of a domain" },
                { "mapping list --domain=-1", "'-1' is not the id of a domain" },
                { "mapping list 3", "'3' is too much" },
                { "window list", "window list needs DOMAIN" },
                { "window list x", "'x' is not the id of a domain" },
                { "window list 1 2", "'2' is too much" },
                { "window create 1", "there is no verb 'window create'" },
                { "ledger check --offline", "requires an argument" },
                { "tenant add", "which tenant?" },
                { "tenant add a b --uid=1", "'b' is too much" },
                { "tenant add a", "nobody could be the tenant 'a'" },
                { "tenant add a --own-socket=no", "nobody could be the tenant 'a'" },
                { "tenant add a --uid=no-such-user", "'no-such-user' is not a user of this machine" },
                { "tenant add a --gid=no-such-group", "'no-such-group' is not a group of this machine" },
                { "tenant add a --uid=4294967295", "'4294967295' is not a uid" },
                { "tenant add a --uid=1 --uid=2", "one rule has one uid; more rules with --rule" },
                { "tenant add a --cgroup=x", "'x' is not a cgroup path" },
                { "tenant add a --rule=x:1", "'x:1' is not one of uid:ID, gid:ID, cgroup:/PATH" },
                { "tenant add a --rule=", "'' is not a rule like" },
                { "tenant add a --uid=1 --locked-bytes=1GB", "'1GB' is not a quota like 4096, 64K, 1G or unlimited" },
                { "tenant add a --uid=1 --sessions=-1", "'-1' is not a quota" },
                { "tenant add a --uid=1 --sessions=9223372036854775808", "is not a quota" },
                { "tenant add a --uid=1 --sessions=1 --sessions=2", "that quota is given already" },
                { "tenant add a --own-socket=maybe", "'maybe' is not yes or no" },
                { "tenant set a", "what of the tenant 'a' shall change?" },
                { "tenant set a --uid=1 --or-replace", "--or-replace belongs to tenant add" },
                { "help nonsense", "there is no verb 'nonsense'" },
        };

        (void)state;
        canned = NULL;
        asked[0] = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                int code = ctl(cases[i].arguments);

                if (code != 2)
                        fail_msg("iommuctl %s: exit %d, %s", cases[i].arguments, code, err);
                contains(err, cases[i].text);
                assert_string_equal(out, "");
                assert_string_equal(asked, "");         /* nothing was sent */
        }
}

static void test_help(void **state) {
        static const char *const verbs[] = { "status", "tenant list", "tenant add", "tenant set", "tenant remove",
                                             "device list", "device bind", "device unbind", "device release",
                                             "domain list", "domain show", "mapping list", "window list",
                                             "ledger check" };
        char arguments[64], usage[64];

        (void)state;
        assert_int_equal(ctl("help"), 0);
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
                contains(out, verbs[i]);
        assert_int_equal(ctl("--help"), 0);
        contains(out, "Usage: iommuctl");
        assert_int_equal(ctl("--version"), 0);
        assert_string_equal(out, "iommuctl " IOMMUD_VERSION "\n");
        for (size_t i = 0; i < ARRAY_SIZE(verbs); i++) {
                (void)snprintf(usage, sizeof usage, "Usage: iommuctl %s", verbs[i]);
                (void)snprintf(arguments, sizeof arguments, "%s --help", verbs[i]);
                assert_int_equal(ctl(arguments), 0);
                contains(out, usage);
                contains(out, "--json");
                (void)snprintf(arguments, sizeof arguments, "help %s", verbs[i]);
                assert_int_equal(ctl(arguments), 0);
                contains(out, usage);
        }
}

static void test_no_service(void **state) {
        char arguments[128];

        (void)state;
        assert_int_equal(ctl("--socket=/no/such/op.sock status"), 3);
        contains(err, "cannot reach the service at /no/such/op.sock: No such file or directory");
        contains(err, "is it running?");
        assert_int_equal(ctl("status --socket=/etc/passwd"), 3);
        contains(err, "Connection refused");
        (void)snprintf(arguments, sizeof arguments, "status --socket=/%0110d", 0);
        assert_int_equal(ctl(arguments), 3);
        assert_int_equal(ctl("ledger check --offline=/no/such/directory"), 1);
        contains(err, "/no/such/directory");
        if (getuid() != 0) {            /* root may everywhere */
                (void)chmod(socket_path, 0);
                assert_int_equal(ctl("status"), 3);
                contains(err, "Permission denied\n  operators are in the group");
                (void)chmod(socket_path, 0600);
        }
}

/* ---- answers ---- */

static void test_refusals(void **state) {
        static const struct canned answers[] = { { .method = "DeleteTenant" }, { 0 } };
        Iommud__V1__Refusal r = IOMMUD__V1__REFUSAL__INIT;

        (void)state;
        canned = answers;
        r.reason = IOMMUD__V1__REASON__REASON_IN_USE;
        r.text = (char *)"tenant 'a' has 2 sessions\x1b[2J";
        refusal = &r;
        assert_int_equal(ctl("tenant remove a"), 1);
        assert_string_equal(err, "iommuctl: tenant 'a' has 2 sessions?[2J (IN_USE)\n");
        assert_string_equal(out, "");
        r.reason = (Iommud__V1__Reason)999;     /* of a newer service */
        r.text = (char *)"new";
        assert_int_equal(ctl("tenant remove a"), 1);
        assert_string_equal(err, "iommuctl: new (reason 999)\n");
        refusal = NULL;
        assert_int_equal(ctl("tenant remove a"), 1);
        assert_string_equal(err, "iommuctl: plain message (gRPC status 9)\n");
        assert_int_equal(ctl("status"), 1);
        contains(err, "does not know this request");
}

static void test_status(void **state) {
        Iommud__V1__Session session = IOMMUD__V1__SESSION__INIT, *sessions[] = { &session };
        Iommud__V1__HostUse host = IOMMUD__V1__HOST_USE__INIT, *hosts[] = { &host };
        Iommud__V1__GetStatusResponse s = IOMMUD__V1__GET_STATUS_RESPONSE__INIT;
        const struct canned answers[] = { { .method = "GetStatus", .answer = &s.base }, { 0 } };

        (void)state;
        canned = answers;
        s.version = (char *)"0.1.0";
        s.backend = (char *)"soft";
        s.state = (char *)"serving";
        s.uptime_seconds = 86400 + 3661;
        s.mapped_bytes = 3ULL << 60;
        s.mappings = 7;
        session.id = 5;
        session.client_name = (char *)"evil\x1b[31m";
        session.tenant = (char *)"t";
        session.state = (char *)"live";
        s.n_session_list = 1;
        s.session_list = sessions;
        host.resource = IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES;
        host.limit = 28ULL << 30;
        host.used = 12 << 20;
        host.promised = UINT64_MAX;
        s.n_host = 1;
        s.host = hosts;
        assert_int_equal(ctl("status"), 0);
        contains(out, "12M of 28G for all tenants; their quotas promise unlimited, which is more");
        contains(out, "1d 01:01:01");
        contains(out, "7 (3145728T)");
        contains(out, "evil\\x1b[31m");
        assert_null(strchr(out, 0x1b));
        assert_int_equal(ctl("--json status"), 0);
        contains(out, "\"mapped_bytes\":3458764513820540928");
        contains(out, "\"session_list\":[{\"id\":5,\"tenant\":\"t\",\"client_name\":\"evil\\u001b[31m\"");
        contains(out, "\"degraded\":[]");
        contains(out, "\"host\":[{\"resource\":\"locked_bytes\",\"limit\":30064771072,\"used\":12582912,\"promised\":null}]");
        host.promised = 28ULL << 30;
        assert_int_equal(ctl("status"), 0);
        contains(out, "their quotas promise 28G\n");
}

static void test_tenant_pages(void **state) {
        Iommud__V1__Quota limited = IOMMUD__V1__QUOTA__INIT, unlimited = IOMMUD__V1__QUOTA__INIT,
                          lowered = IOMMUD__V1__QUOTA__INIT, *quotas[] = { &limited, &unlimited, &lowered };
        Iommud__V1__Rule rule = IOMMUD__V1__RULE__INIT, *rules[] = { &rule };
        Iommud__V1__Tenant a = IOMMUD__V1__TENANT__INIT, b = IOMMUD__V1__TENANT__INIT, *pa[] = { &a }, *pb[] = { &b };
        Iommud__V1__ListTenantsResponse one = IOMMUD__V1__LIST_TENANTS_RESPONSE__INIT,
                                        two = IOMMUD__V1__LIST_TENANTS_RESPONSE__INIT;
        const struct canned answers[] = { { .method = "ListTenants", .answer = &one.base, .page = "" },
                                          { .method = "ListTenants", .answer = &two.base, .page = "second" }, { 0 } };

        (void)state;
        canned = answers;
        limited.resource = IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES;
        limited.limit = 64 << 20;
        limited.used = 4096;
        unlimited.resource = IOMMUD__V1__RESOURCE__RESOURCE_MAPPINGS;
        unlimited.limit = UINT64_MAX;
        unlimited.used = 2048;
        lowered.resource = IOMMUD__V1__RESOURCE__RESOURCE_TABLE_BYTES;
        lowered.limit = 8 << 20;
        lowered.used = 12 << 20;
        lowered.over = 4 << 20;
        rule.uid_set_case = IOMMUD__V1__RULE__UID_SET_UID;
        rule.uid = 0;                   /* present, though zero */
        rule.cgroup_prefix = (char *)"/k";
        a.name = (char *)"a";
        a.n_quotas = 3;
        a.quotas = quotas;
        a.n_rules = 1;
        a.rules = rules;
        b.name = (char *)"b";
        b.own_socket = true;
        b.socket_directory = (char *)"/run/iommud/tenants/b";
        one.n_tenants = two.n_tenants = 1;
        one.tenants = pa;
        two.tenants = pb;
        one.next_page_token = (char *)"second";
        assert_int_equal(ctl("tenant list"), 0);
        contains(out, "4K/64M");
        contains(out, " 2048/unlimited");
        contains(out, " 12M/8M");
        contains(out, " table-bytes by 4M ");
        contains(out, "uid:0 cgroup:/k");
        contains(out, "/run/iommud/tenants/b");
        assert_int_equal(ctl("tenant list --json"), 0);
        assert_string_equal(
                out, "{\"tenants\":[\n{\"name\":\"a\",\"quotas\":[{\"resource\":\"locked_bytes\",\"limit\":67108864,"
                     "\"used\":4096,\"over\":0},{\"resource\":\"mappings\",\"limit\":null,\"used\":2048,\"over\":0},{\"resource\":"
                     "\"table_bytes\",\"limit\":8388608,\"used\":12582912,\"over\":4194304}],\"rules\":[{\"uid\":0,"
                     "\"cgroup_prefix\":\"/k\"}],\"own_socket\":false,\"socket_directory\":\"\",\"allow_unsealed\":"
                     "false,\"devices\":[],\"origin\":\"\"},\n{\"name\":\"b\",\"quotas\":[],\"rules\":[],"
                     "\"own_socket\":true,\"socket_directory\":\"/run/iommud/tenants/b\",\"allow_unsealed\":false,"
                     "\"devices\":[],\"origin\":\"\"}\n]}\n");
        /* a service that gives the same page for ever */
        two.next_page_token = (char *)"second";
        assert_int_equal(ctl("tenant list"), 1);
        contains(err, "repeats a page of ListTenants");
}

static void test_tenant_requests(void **state) {
        Iommud__V1__UpsertTenantResponse done = IOMMUD__V1__UPSERT_TENANT_RESPONSE__INIT;
        const struct canned answers[] = { { .method = "UpsertTenant", .answer = &done.base }, { 0 } };
        Iommud__V1__UpsertTenantRequest *q;

        (void)state;
        canned = answers;
        assert_int_equal(ctl("tenant add t --uid=1000 --gid=0 --cgroup=/a --rule=uid:0~cgroup:/b --locked-bytes=1G "
                             "--mappings=unlimited --device=1234:11e8 --device=edu0 --own-socket --allow-unsealed=no"),
                         0);
        q = iommud__v1__upsert_tenant_request__unpack(NULL, n_request, request);
        assert_non_null(q);
        assert_string_equal(q->tenant->name, "t");
        assert_true(q->create_only && !q->must_exist && q->fields == 0);
        assert_int_equal(q->tenant->n_quotas, 2);
        assert_int_equal(q->tenant->quotas[0]->resource, IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES);
        assert_true(q->tenant->quotas[0]->limit == 1 << 30);
        assert_int_equal(q->tenant->quotas[1]->resource, IOMMUD__V1__RESOURCE__RESOURCE_MAPPINGS);
        assert_true(q->tenant->quotas[1]->limit == UINT64_MAX);
        assert_int_equal(q->tenant->n_rules, 2);
        assert_true(q->tenant->rules[0]->uid_set_case == IOMMUD__V1__RULE__UID_SET_UID &&
                    q->tenant->rules[0]->uid == 0);
        assert_int_equal(q->tenant->rules[0]->gid_set_case, IOMMUD__V1__RULE__GID_SET__NOT_SET);
        assert_string_equal(q->tenant->rules[0]->cgroup_prefix, "/b");
        assert_int_equal(q->tenant->rules[1]->uid, 1000);
        assert_int_equal(q->tenant->rules[1]->gid_set_case, IOMMUD__V1__RULE__GID_SET_GID);
        assert_string_equal(q->tenant->rules[1]->cgroup_prefix, "/a");
        assert_int_equal(q->tenant->n_devices, 2);
        assert_string_equal(q->tenant->devices[0], "1234:11e8");
        assert_true(q->tenant->own_socket && !q->tenant->allow_unsealed);
        iommud__v1__upsert_tenant_request__free_unpacked(q, NULL);

        assert_int_equal(ctl("tenant add t --uid=0 --or-replace"), 0);
        q = iommud__v1__upsert_tenant_request__unpack(NULL, n_request, request);
        assert_true(q && !q->create_only && !q->must_exist);
        iommud__v1__upsert_tenant_request__free_unpacked(q, NULL);

        assert_int_equal(ctl("tenant set t --sessions=3 --device=any --table-bytes=8M --windows=9"), 0);
        q = iommud__v1__upsert_tenant_request__unpack(NULL, n_request, request);
        assert_true(q && !q->create_only && q->must_exist);
        assert_int_equal(q->tenant->n_quotas, 3);
        assert_int_equal(q->tenant->quotas[1]->resource, IOMMUD__V1__RESOURCE__RESOURCE_TABLE_BYTES);
        assert_int_equal(q->tenant->quotas[1]->limit, 8 << 20);
        assert_int_equal(q->tenant->quotas[2]->resource, IOMMUD__V1__RESOURCE__RESOURCE_WINDOWS);
        assert_int_equal(q->fields, 1 | 16);
        assert_int_equal(q->tenant->n_devices, 0);
        iommud__v1__upsert_tenant_request__free_unpacked(q, NULL);
        assert_int_equal(ctl("tenant set t --uid=1 --own-socket=no --allow-unsealed"), 0);
        q = iommud__v1__upsert_tenant_request__unpack(NULL, n_request, request);
        assert_true(q && q->fields == (2 | 4 | 8) && !q->tenant->own_socket && q->tenant->allow_unsealed);
        iommud__v1__upsert_tenant_request__free_unpacked(q, NULL);
}

static void test_mappings_and_domains(void **state) {
        Iommud__V1__Range range = IOMMUD__V1__RANGE__INIT, *ranges[] = { &range }, exposed = IOMMUD__V1__RANGE__INIT;
        Iommud__V1__Constraints limits = IOMMUD__V1__CONSTRAINTS__INIT;
        Iommud__V1__Domain d = IOMMUD__V1__DOMAIN__INIT, *domains[] = { &d };
        Iommud__V1__ListDomainsResponse list = IOMMUD__V1__LIST_DOMAINS_RESPONSE__INIT;
        Iommud__V1__DescribeDomainResponse described = IOMMUD__V1__DESCRIBE_DOMAIN_RESPONSE__INIT;
        Iommud__V1__Mapping m = IOMMUD__V1__MAPPING__INIT, *maps[] = { &m };
        Iommud__V1__ListMappingsResponse mappings = IOMMUD__V1__LIST_MAPPINGS_RESPONSE__INIT;
        Iommud__V1__ListMappingsRequest *q;
        const struct canned answers[] = { { .method = "ListDomains", .answer = &list.base },
                                          { .method = "ShowDomain", .answer = &described.base },
                                          { .method = "ListAllMappings", .answer = &mappings.base }, { 0 } };

        (void)state;
        canned = answers;
        d.id = 12;
        d.state = (char *)"live";
        d.constraints = &limits;
        range.last = UINT64_MAX;
        limits.page_sizes = 1 << 12 | 1 << 21;
        limits.n_ranges = 1;
        limits.ranges = ranges;
        list.n_domains = 1;
        list.domains = domains;
        described.domain = &d;
        m.domain = 12;
        m.iova = 0xfffffffffffff000;
        m.length = 0x1000;
        m.access = 3;
        m.state = (char *)"live";
        mappings.n_mappings = 1;
        mappings.mappings = maps;
        assert_int_equal(ctl("mapping list"), 0);
        contains(out, "0xfffffffffffff000 0xffffffffffffffff");
        contains(out, "rw");
        q = iommud__v1__list_mappings_request__unpack(NULL, n_request, request);
        assert_true(q && q->domain == 12);
        iommud__v1__list_mappings_request__free_unpacked(q, NULL);
        assert_int_equal(ctl("mapping list --json --domain=12"), 0);
        assert_string_equal(
                out, "{\"mappings\":[\n{\"iova\":\"0xfffffffffffff000\",\"length\":4096,\"memory\":0,\"offset\":0,"
                     "\"access\":\"rw\",\"state\":\"live\",\"domain\":12,\"chunk\":0,"
                     "\"exposed\":null,\"exposed_access\":\"\"}\n]}\n");
        exposed.first = 0xffffffffffff0000;
        exposed.last = UINT64_MAX;
        m.exposed = &exposed;
        m.exposed_access = 1;
        m.chunk = 2U << 20;
        assert_int_equal(ctl("mapping list --domain=12"), 0);
        contains(out, " 2M 0xffffffffffff0000-0xffffffffffffffff r live");
        assert_int_equal(ctl("mapping list --json --domain=12"), 0);
        contains(out, "\"chunk\":2097152,\"exposed\":{\"first\":\"0xffffffffffff0000\",\"last\":\"0xffffffffffffffff\"},"
                      "\"exposed_access\":\"r\"}");
        assert_int_equal(ctl("domain show 12"), 0);
        contains(out, "4K 2M");
        contains(out, "0x0-0xffffffffffffffff");
        contains(out, "flush        strict\n");
        d.flush_mode = IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY;
        d.deferred_mappings = 3;
        d.deferred_bytes = 12288;
        d.kernel_mappings = 77;
        d.table_bytes = 5 << 20;
        d.shared_pages = 19;
        assert_int_equal(ctl("domain show 12"), 0);
        contains(out, "flush        lazy (3 mappings wait, 12K)");
        contains(out, "in the IOMMU 77\n");
        contains(out, "table memory 5M\n");
        contains(out, "shared pages 19\n");
        assert_int_equal(ctl("domain list"), 0);
        contains(out, " 5M lazy       12K");
        assert_int_equal(ctl("domain show 12 --json"), 0);
        contains(out, "\"flush_mode\":\"lazy\",\"deferred_mappings\":3,\"deferred_bytes\":12288,\"kernel_mappings\":77,"
                      "\"table_bytes\":5242880,\"shared_pages\":19}");
        contains(out, "\"page_sizes\":\"0x201000\",\"ranges\":[{\"first\":\"0x0\",\"last\":\"0xffffffffffffffff\"}]");
        list.n_domains = 0;
        assert_int_equal(ctl("mapping list"), 0);
        assert_string_equal(out, "");
        contains(err, "no mappings");
        assert_int_equal(ctl("mapping list --json"), 0);
        assert_string_equal(out, "{\"mappings\":[]}\n");
}

static void test_windows(void **state) {
        Iommud__V1__Window whole = IOMMUD__V1__WINDOW__INIT, made = IOMMUD__V1__WINDOW__INIT, *windows[] = { &whole, &made };
        Iommud__V1__Range range = IOMMUD__V1__RANGE__INIT, *ranges[] = { &range };
        Iommud__V1__QueryWindowsResponse q = IOMMUD__V1__QUERY_WINDOWS_RESPONSE__INIT;
        const struct canned answers[] = { { .method = "ListWindows", .answer = &q.base }, { 0 } };
        Iommud__V1__QueryWindowsRequest *sent;

        (void)state;
        canned = answers;
        whole.id = 1;                   /* all of 64 bits: size 0 */
        whole.page_shift = 12;
        whole.is_default = true;
        whole.state = (char *)"live";
        made.id = 9;
        made.start = 0x800000000000000;
        made.size = 64ULL << 30;
        made.page_shift = 24;
        made.levels = 2;
        made.mappings = 5;
        made.mapped_bytes = 3 << 20;
        made.quota = 8 << 20;
        made.table_bytes = 32 << 10;
        made.state = (char *)"closing";
        range.first = 0x100000000;
        range.last = UINT64_MAX;
        q.n_windows = 2;
        q.windows = windows;
        q.can_create = 3;
        q.page_sizes = 1 << 12 | 1 << 16 | 1 << 24;
        q.largest = 1ULL << 43;
        q.levels_max = 5;
        q.n_free = 1;
        q.free = ranges;
        assert_int_equal(ctl("window list 12"), 0);
        sent = iommud__v1__query_windows_request__unpack(NULL, n_request, request);
        assert_true(sent && sent->domain == 12);
        iommud__v1__query_windows_request__free_unpacked(sent, NULL);
        contains(out, "0x0 0xffffffffffffffff 2^64   4K ");
        contains(out, "0x800000000000000  0x800000fffffffff  64G  16M      2        5    3M    8M   32K no      closing");
        contains(out, "can be created 3\n");
        contains(out, "largest size   8T\n");
        contains(out, "page sizes     4K 64K 16M\n");
        contains(out, "levels at most 5\n");
        contains(out, "free           0x100000000-0xffffffffffffffff\n");
        assert_int_equal(ctl("window list 12 --json"), 0);
        contains(out, "{\"windows\":[{\"id\":1,\"start\":\"0x0\",\"size\":0,\"page_shift\":12,");
        contains(out, "{\"id\":9,\"start\":\"0x800000000000000\",\"size\":68719476736,\"page_shift\":24,\"levels\":2,"
                      "\"mappings\":5,\"mapped_bytes\":3145728,\"quota\":8388608,\"is_default\":false,"
                      "\"table_bytes\":32768,\"state\":\"closing\"}],\"can_create\":3,\"page_sizes\":\"0x1011000\","
                      "\"largest\":8796093022208,\"levels_max\":5,\"free\":[{\"first\":\"0x100000000\","
                      "\"last\":\"0xffffffffffffffff\"}]}\n");
        made.page_shift = 200;          /* nothing that comes is a reason to fall */
        q.n_windows = 0;
        assert_int_equal(ctl("window list 12"), 0);
        contains(err, "no windows");
        contains(out, "can be created 3\n");
}

static void test_ledger_check(void **state) {
        Iommud__V1__Violation v = IOMMUD__V1__VIOLATION__INIT, *violations[] = { &v };
        Iommud__V1__CheckLedgerResponse a = IOMMUD__V1__CHECK_LEDGER_RESPONSE__INIT;
        const struct canned answers[] = { { .method = "CheckLedger", .answer = &a.base }, { 0 } };

        (void)state;
        canned = answers;
        a.checked_rows = 10;
        a.checked_holders = 2;
        assert_int_equal(ctl("ledger check"), 0);
        assert_string_equal(out, "0 violations in 10 rows and 2 holders\n");
        v.invariant = (char *)"I2";
        v.text = (char *)"domain 3 has a mapping that nobody asked for";
        a.n_violations = 1;
        a.violations = violations;
        assert_int_equal(ctl("ledger check"), 4);
        contains(out, "I2");
        contains(out, "1 violation in 10 rows");
        assert_int_equal(ctl("ledger check --json"), 4);
        contains(out, "{\"violations\":[{\"invariant\":\"I2\",");
}

static void test_devices(void **state) {
        Iommud__V1__Device d = IOMMUD__V1__DEVICE__INIT, *devices[] = { &d };
        Iommud__V1__ListDevicesResponse list = IOMMUD__V1__LIST_DEVICES_RESPONSE__INIT;
        Iommud__V1__BindDeviceResponse bound = IOMMUD__V1__BIND_DEVICE_RESPONSE__INIT;
        Iommud__V1__UnbindDeviceResponse unbound = IOMMUD__V1__UNBIND_DEVICE_RESPONSE__INIT;
        Iommud__V1__ReleaseLeaseResponse released = IOMMUD__V1__RELEASE_LEASE_RESPONSE__INIT;
        const struct canned answers[] = { { .method = "ListAllDevices", .answer = &list.base },
                                          { .method = "BindDevice", .answer = &bound.base },
                                          { .method = "UnbindDevice", .answer = &unbound.base },
                                          { .method = "ReleaseLease", .answer = &released.base }, { 0 } };

        (void)state;
        canned = answers;
        d.name = (char *)"0000:00:05.0";
        d.state = (char *)"free";
        list.n_devices = 1;
        list.devices = devices;
        bound.device = unbound.device = &d;
        released.state = (char *)"orphaned";
        assert_int_equal(ctl("device list"), 0);
        contains(out, "0000:00:05.0");
        assert_int_equal(ctl("device bind 0000:00:05.0"), 0);
        assert_string_equal(asked, "BindDevice");
        contains(out, "free");
        assert_int_equal(ctl("device unbind 0000:00:05.0 --json"), 0);
        assert_string_equal(asked, "UnbindDevice");
        contains(out, "{\"name\":\"0000:00:05.0\",\"group\":0");
        assert_int_equal(ctl("device release 0000:00:05.0"), 0);
        assert_string_equal(out, "orphaned\n");
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_wrong_usage),
                cmocka_unit_test(test_help),
                cmocka_unit_test(test_no_service),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_status),
                cmocka_unit_test(test_tenant_pages),
                cmocka_unit_test(test_tenant_requests),
                cmocka_unit_test(test_mappings_and_domains),
                cmocka_unit_test(test_windows),
                cmocka_unit_test(test_ledger_check),
                cmocka_unit_test(test_devices),
        };
        return cmocka_run_group_tests(tests, begin, end);
}
