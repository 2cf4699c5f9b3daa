/* SPDX-License-Identifier: Apache-2.0 */
/* link: sdk proto broker */
/*
 * The library against a service that does what the test says: refusals, restarts, silence, a session that ends. The
 * service below is a gRPC server and a session socket of the test's own, so nothing of the broker is needed (its layer
 * is named above for -lgrpc alone).
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>
#include <grpc/byte_buffer.h>
#include <grpc/byte_buffer_reader.h>
#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/support/alloc.h>
#include <grpc/support/time.h>

#include "../../sdk/clock.h"
#include "../../sdk/tsan.h"
#include "backend/backend.h"
#include "iommud.pb-c.h"
#include "iommud/iommud.h"
#include "session_channel.h"
#include "soft_device.h"
#include "util/cleanup.h"

#define TOKEN "00112233445566778899aabbccddeeff"
#define TIMEOUT_MS 3000U
#define SESSIONS_MAX 16U

#ifdef SDK_TSAN
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) {
        return "ignore_noninstrumented_modules=1";      /* sdk/tsan.h */
}
#endif

/* ---- the service: state that the test sets and reads ---- */

static char directory[64];

static struct {
        pthread_mutex_t lock;                   /* what follows */
        int status;                             /* refuse the next calls with this status ... */
        unsigned reason;                        /* ... and this reason */
        int refusals;                           /* how many of them */
        const void *details;                    /* raw grpc-status-details-bin instead, if set */
        size_t n_details;
        uint8_t keys[8][16];                    /* request keys of the last Map calls, newest last */
        unsigned n_keys;
        int sessions[SESSIONS_MAX];             /* session connections, the holder's end */
        size_t n_sessions;
        unsigned refuse_session;                /* reason, 0: give a token */
} service = { .lock = PTHREAD_MUTEX_INITIALIZER };

static atomic_bool silent;                      /* do not answer calls */
static atomic_bool deaf;                        /* do not answer on the session channel */
static atomic_int n_calls, n_tickets_dropped, n_bad_tokens;

/* ---- the service: gRPC ---- */

struct server_call {
        grpc_call *call;
        grpc_call_details details;
        grpc_metadata_array metadata;
        grpc_byte_buffer *request, *answer;
        grpc_metadata trailing[1];
        grpc_slice text;
        int cancelled;
        enum { CALL_NEW, CALL_READ, CALL_DONE } state;
};

static struct server {
        grpc_server *grpc;
        grpc_completion_queue *queue;
        pthread_t thread;
} server;

static int shutdown_tag;

static void request_call(void) {
        struct server_call *c = calloc(1, sizeof *c);

        grpc_call_details_init(&c->details);
        grpc_metadata_array_init(&c->metadata);
        c->text = grpc_empty_slice();
        TSAN_HAND_OVER(c);
        if (grpc_server_request_call(server.grpc, &c->call, &c->details, &c->metadata, server.queue, server.queue, c) !=
            GRPC_CALL_OK)
                free(c);
}

static void free_call(struct server_call *c) {
        if (c->call)
                grpc_call_unref(c->call);
        grpc_call_details_destroy(&c->details);
        grpc_metadata_array_destroy(&c->metadata);
        grpc_byte_buffer_destroy(c->request);
        grpc_byte_buffer_destroy(c->answer);
        if (c->trailing[0].value.refcount)
                grpc_slice_unref(c->trailing[0].value);
        grpc_slice_unref(c->text);
        free(c);
}

static grpc_slice packed(const ProtobufCMessage *m) {
        size_t n = protobuf_c_message_get_packed_size(m);
        grpc_slice s = grpc_slice_malloc(n);

        protobuf_c_message_pack(m, GRPC_SLICE_START_PTR(s));
        return s;
}

/* The answer to a method, as far as the tests look at it. */
static grpc_slice answer_of(const char *method) {
        Iommud__V1__Range range = IOMMUD__V1__RANGE__INIT, *ranges[] = { &range };
        Iommud__V1__Constraints constraints = IOMMUD__V1__CONSTRAINTS__INIT;
        Iommud__V1__Domain domain = IOMMUD__V1__DOMAIN__INIT;
        Iommud__V1__Quota quota = IOMMUD__V1__QUOTA__INIT, *quotas[] = { &quota };
        Iommud__V1__Device device = IOMMUD__V1__DEVICE__INIT, *devices[] = { &device };
        Iommud__V1__Mapping mapping = IOMMUD__V1__MAPPING__INIT, *mappings[] = { &mapping };

        range.last = 0xfffff;
        constraints.page_sizes = 4096;
        constraints.n_ranges = 1;
        constraints.ranges = ranges;
        domain.id = 7;
        domain.label = (char *)"a label";
        domain.state = (char *)"live";
        domain.constraints = &constraints;
        quota.resource = IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES;
        quota.limit = 100;
        device.name = (char *)"edu0";
        device.usable = 1;
        mapping.iova = 0x1000;
        mapping.state = (char *)"live";
#define ANSWER(name, type, ...)                                                                                        \
        if (strcmp(method, "/iommud.v1.Client/" #name) == 0) {                                                         \
                Iommud__V1__##type m;                                                                                  \
                iommud__v1__##__VA_ARGS__;                                                                             \
                return packed(&m.base);                                                                                \
        }
        ANSWER(CreateDomain, CreateDomainResponse, create_domain_response__init(&m); m.domain = 7)
        ANSWER(DescribeDomain, DescribeDomainResponse, describe_domain_response__init(&m); m.domain = &domain)
        ANSWER(AttachDevice, AttachDeviceResponse, attach_device_response__init(&m); m.attachment = 9)
        ANSWER(RegisterMemory, RegisterMemoryResponse, register_memory_response__init(&m); m.memory = 11)
        ANSWER(GetQuota, GetQuotaResponse, get_quota_response__init(&m); m.n_quotas = 1; m.quotas = quotas)
        ANSWER(ListDevices, ListDevicesResponse, list_devices_response__init(&m); m.n_devices = 1; m.devices = devices)
        ANSWER(ListMappings, ListMappingsResponse, list_mappings_response__init(&m); m.n_mappings = 1;
               m.mappings = mappings)
        ANSWER(UnmapAll, UnmapResponse, unmap_response__init(&m); m.unmapped_bytes = 4096)
        ANSWER(GetCapabilities, GetCapabilitiesResponse, get_capabilities_response__init(&m);
               m.constraints = &constraints)
        return grpc_empty_slice();
#undef ANSWER
}

static void note_key(struct server_call *c) {
        grpc_byte_buffer_reader reader;
        Iommud__V1__MapRequest *m;
        grpc_slice all;

        if (!c->request || grpc_slice_str_cmp(c->details.method, "/iommud.v1.Client/Map") != 0)
                return;
        grpc_byte_buffer_reader_init(&reader, c->request);
        all = grpc_byte_buffer_reader_readall(&reader);
        m = iommud__v1__map_request__unpack(NULL, GRPC_SLICE_LENGTH(all), GRPC_SLICE_START_PTR(all));
        grpc_slice_unref(all);
        grpc_byte_buffer_reader_destroy(&reader);
        if (m && m->request_key.len == 16)
                memcpy(service.keys[service.n_keys++ % ARRAY_SIZE(service.keys)], m->request_key.data, 16);
        if (m)
                iommud__v1__map_request__free_unpacked(m, NULL);
}

static grpc_slice refusal_details(void) {
        Iommud__V1__Refusal refusal = IOMMUD__V1__REFUSAL__INIT;
        Iommud__V1__StatusDetail detail = IOMMUD__V1__STATUS_DETAIL__INIT, *details[] = { &detail };
        Iommud__V1__StatusDetails status = IOMMUD__V1__STATUS_DETAILS__INIT;
        uint8_t value[256];

        if (service.details)
                return grpc_slice_from_copied_buffer(service.details, service.n_details);
        refusal.reason = (Iommud__V1__Reason)service.reason;
        refusal.resource = IOMMUD__V1__RESOURCE__RESOURCE_LOCKED_BYTES;
        refusal.batch_case = IOMMUD__V1__REFUSAL__BATCH_ELEMENT;
        refusal.element = 3;
        refusal.limit = 100;
        refusal.text = (char *)"too much";
        detail.type_url = (char *)"type.googleapis.com/iommud.v1.Refusal";
        detail.value.data = value;
        detail.value.len = iommud__v1__refusal__pack(&refusal, value);
        status.n_details = 1;
        status.details = details;
        return packed(&status.base);
}

/* OK with the method's answer, or the refusal that the test asked for. */
static void finish_call(struct server_call *c) {
        grpc_op ops[4] = { { .op = GRPC_OP_SEND_INITIAL_METADATA }, { .op = GRPC_OP_SEND_STATUS_FROM_SERVER },
                           { .op = GRPC_OP_RECV_CLOSE_ON_SERVER, .data.recv_close_on_server.cancelled = &c->cancelled },
                           { .op = GRPC_OP_SEND_MESSAGE } };
        char *method = grpc_slice_to_c_string(c->details.method);
        size_t n = 3;

        LOCK_SCOPE(&service.lock);
        note_key(c);
        ops[1].data.send_status_from_server.status_details = &c->text;
        if (service.refusals > 0 && service.refusals--) {
                ops[1].data.send_status_from_server.status = (grpc_status_code)service.status;
                if (service.reason || service.details) {
                        c->trailing[0].key = grpc_slice_from_static_string("grpc-status-details-bin");
                        c->trailing[0].value = refusal_details();
                        ops[1].data.send_status_from_server.trailing_metadata = c->trailing;
                        ops[1].data.send_status_from_server.trailing_metadata_count = 1;
                }
        } else {
                grpc_slice s = answer_of(method);

                c->answer = grpc_raw_byte_buffer_create(&s, 1);
                grpc_slice_unref(s);
                ops[3].data.send_message.send_message = c->answer;
                n = 4;
        }
        gpr_free(method);
        c->state = CALL_DONE;
        TSAN_HAND_OVER(c);
        assert_int_equal(grpc_call_start_batch(c->call, ops, n, c, NULL), GRPC_CALL_OK);
}

static void check_token(const struct server_call *c) {
        for (size_t i = 0; i < c->metadata.count; i++)
                if (grpc_slice_str_cmp(c->metadata.metadata[i].key, IOMMUD_SESSION_METADATA) == 0 &&
                    grpc_slice_str_cmp(c->metadata.metadata[i].value, TOKEN) == 0)
                        return;
        n_bad_tokens++;
}

static void step_call(struct server_call *c, bool ok) {
        if (!ok || c->state == CALL_DONE) {
                free_call(c);
                return;
        }
        if (c->state == CALL_NEW) {
                grpc_op op = { .op = GRPC_OP_RECV_MESSAGE, .data.recv_message.recv_message = &c->request };

                request_call();
                check_token(c);
                c->state = CALL_READ;
                TSAN_HAND_OVER(c);
                assert_int_equal(grpc_call_start_batch(c->call, &op, 1, c, NULL), GRPC_CALL_OK);
                return;
        }
        n_calls++;
        if (silent) {           /* the client gives up, or we go away; a cancelled batch brings it back */
                grpc_op op = { .op = GRPC_OP_RECV_CLOSE_ON_SERVER,
                               .data.recv_close_on_server.cancelled = &c->cancelled };

                c->state = CALL_DONE;
                TSAN_HAND_OVER(c);
                assert_int_equal(grpc_call_start_batch(c->call, &op, 1, c, NULL), GRPC_CALL_OK);
                return;
        }
        finish_call(c);
}

static void *serve_grpc(void *arg) {
        (void)arg;
        for (;;) {
                grpc_event e = grpc_completion_queue_next(server.queue, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

                if (e.type == GRPC_QUEUE_SHUTDOWN)
                        break;
                TSAN_TAKE_BACK(e.tag);
                if (e.tag == &shutdown_tag)
                        grpc_completion_queue_shutdown(server.queue);
                else
                        step_call(e.tag, e.success);
        }
        return NULL;
}

static void start_server(void) {
        grpc_server_credentials *credentials = grpc_insecure_server_credentials_create();
        char address[128];

        snprintf(address, sizeof address, "unix:%s/grpc.sock", directory);
        server.queue = grpc_completion_queue_create_for_next(NULL);
        server.grpc = grpc_server_create(NULL, NULL);
        grpc_server_register_completion_queue(server.grpc, server.queue, NULL);
        assert_true(grpc_server_add_http2_port(server.grpc, address, credentials));
        grpc_server_credentials_release(credentials);
        grpc_server_start(server.grpc);
        request_call();
        assert_int_equal(pthread_create(&server.thread, NULL, serve_grpc, NULL), 0);
}

static void stop_server(void) {
        grpc_server_shutdown_and_notify(server.grpc, server.queue, &shutdown_tag);
        grpc_server_cancel_all_calls(server.grpc);
        pthread_join(server.thread, NULL);
        grpc_server_destroy(server.grpc);
        grpc_completion_queue_destroy(server.queue);
}

/* ---- the service: session socket and a device ---- */

static int session_listener;
static pthread_t session_thread;

/* A device of one region: 16 registers that keep what is written. Serves until the client hangs up. */
static void *serve_device(void *arg) {
        int fd = (int)(intptr_t)arg;
        uint64_t registers[16] = { 0x010000ed };
        struct soft_access m;

        while (recv(fd, &m, sizeof m, 0) == sizeof m) {
                m.error = 0;
                if (m.op == SOFT_INFO)
                        m.value = m.region == 0 ? sizeof registers : 0;
                else if (m.op == SOFT_WRITE)
                        registers[m.offset / 8] = m.value;
                else
                        m.value = registers[m.offset / 8];
                send(fd, &m, sizeof m, MSG_NOSIGNAL);
        }
        close(fd);
        return NULL;
}

static void send_with_fd(int socket, const struct session_msg *m, int fd) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { .align = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET,
                                 .cmsg_type = SCM_RIGHTS } };
        struct iovec iov = { .iov_base = (void *)m, .iov_len = sizeof *m };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

        if (fd >= 0) {
                memcpy(CMSG_DATA(&control.align), &fd, sizeof fd);
                msg.msg_control = control.bytes;
                msg.msg_controllen = sizeof control.bytes;
        }
        sendmsg(socket, &msg, MSG_NOSIGNAL);
}

static void give_device(int socket, struct session_msg *m) {
        int pair[2];
        pthread_t t;

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        pthread_create(&t, NULL, serve_device, (void *)(intptr_t)pair[0]);
        pthread_detach(t);
        m->type = SESSION_DEVICE;
        m->kind = DEVICE_FD_SOFT;
        send_with_fd(socket, m, pair[1]);
        close(pair[1]);
}

static void *serve_session(void *arg) {
        int socket = (int)(intptr_t)arg;
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_TOKEN, .text = TOKEN };

        {
                LOCK_SCOPE(&service.lock);
                if (service.refuse_session) {
                        m.type = SESSION_REFUSED;
                        m.reason = service.refuse_session;
                        strcpy(m.text, "no rule makes uid 1 a tenant");
                }
        }
        send_with_fd(socket, &m, -1);
        while (recv(socket, &m, sizeof m, 0) == sizeof m) {    /* an fd that came is dropped with the control data */
                if (deaf)
                        continue;
                if (m.type == SESSION_MEMORY) {
                        m.type = SESSION_TICKET;
                        m.id = 5;
                        send_with_fd(socket, &m, -1);
                } else if (m.type == SESSION_DEVICE_FD && m.id == 9)
                        give_device(socket, &m);
                else if (m.type == SESSION_DROP_TICKET)
                        n_tickets_dropped++;
                else {
                        m.type = SESSION_ERROR;
                        send_with_fd(socket, &m, -1);
                }
        }
        return NULL;
}

static void *accept_sessions(void *arg) {
        int fd;

        (void)arg;
        while ((fd = accept4(session_listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
                pthread_t t;

                {
                        LOCK_SCOPE(&service.lock);
                        assert_true(service.n_sessions < SESSIONS_MAX);
                        service.sessions[service.n_sessions++] = fd;
                }
                pthread_create(&t, NULL, serve_session, (void *)(intptr_t)fd);
                pthread_detach(t);
        }
        return NULL;
}

static void start_sessions(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        snprintf(address.sun_path, sizeof address.sun_path, "%s/session.sock", directory);
        session_listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(session_listener, (struct sockaddr *)&address, sizeof address), 0);
        assert_int_equal(listen(session_listener, 8), 0);
        assert_int_equal(pthread_create(&session_thread, NULL, accept_sessions, NULL), 0);
}

/* ---- fixtures ---- */

static void refuse_next(int n, int status, unsigned reason) {
        LOCK_SCOPE(&service.lock);

        service.refusals = n;
        service.status = status;
        service.reason = reason;
        service.details = NULL;
}

static int connect_to_it(struct iommud_client **ret) {
        struct iommud_connect_options options = { .size = sizeof options, .directory = directory,
                                                  .timeout_ms = TIMEOUT_MS };

        return iommud_connect(&options, ret);
}

struct fixture {
        struct iommud_client *client;
        struct iommud_domain *domain;
        struct iommud_memory *memory;
};

static int setup(void **state) {
        struct fixture *f = calloc(1, sizeof *f);

        silent = false;
        deaf = false;
        n_calls = 0;
        refuse_next(0, 0, 0);
        {
                LOCK_SCOPE(&service.lock);
                service.n_keys = 0;
                service.n_sessions = 0;
                service.refuse_session = 0;
        }
        assert_int_equal(connect_to_it(&f->client), 0);
        assert_int_equal(iommud_domain_create(f->client, "a label", &f->domain), 0);
        assert_int_equal(iommud_memory_alloc(f->client, 8192, NULL, &f->memory), 0);
        *state = f;
        return 0;
}

static int teardown(void **state) {
        struct fixture *f = *state;

        iommud_close(f->client);
        {
                LOCK_SCOPE(&service.lock);
                for (size_t i = 0; i < service.n_sessions; i++)
                        shutdown(service.sessions[i], SHUT_RDWR);
                for (size_t i = 0; i < service.n_sessions; i++)
                        fd_close(service.sessions[i]);
                service.n_sessions = 0;
        }
        free(f);
        return 0;
}

static int start_service(void **state) {
        (void)state;
        grpc_init();
        strcpy(directory, "/tmp/iommud-test-XXXXXX");
        assert_non_null(mkdtemp(directory));
        start_server();
        start_sessions();
        return 0;
}

static int stop_service(void **state) {
        char path[128];

        (void)state;
        shutdown(session_listener, SHUT_RDWR);
        pthread_join(session_thread, NULL);
        close(session_listener);
        stop_server();
        snprintf(path, sizeof path, "%s/session.sock", directory);
        unlink(path);
        snprintf(path, sizeof path, "%s/grpc.sock", directory);
        unlink(path);
        rmdir(directory);
        grpc_shutdown();
        return n_bad_tokens;
}

/* ---- tests ---- */

static struct iommud_error detail(void) {
        struct iommud_error e = { .size = sizeof e };

        assert_int_equal(iommud_error_detail(&e), 0);
        return e;
}

static void test_nobody_listens(void **state) {
        struct iommud_connect_options options = { .size = sizeof options, .directory = "/nowhere/at/all" };
        struct iommud_client *client = NULL;

        (void)state;
        assert_int_equal(iommud_connect(&options, &client), -ENOENT);
        assert_null(client);
        assert_non_null(strstr(iommud_last_error(), "/nowhere/at/all/session.sock"));
        assert_string_equal(detail().call, "iommud_connect");
}

static void test_session_refused(void **state) {
        struct iommud_client *client = NULL;

        (void)state;
        {
                LOCK_SCOPE(&service.lock);
                service.refuse_session = IOMMUD_REASON_UNKNOWN_PEER;
        }
        assert_int_equal(connect_to_it(&client), -EACCES);
        assert_int_equal(detail().reason, IOMMUD_REASON_UNKNOWN_PEER);
        assert_string_equal(iommud_last_error(), "no rule makes uid 1 a tenant");
}

/* gRPC takes its target for a URI. */
static void test_odd_directory(void **state) {
        struct iommud_connect_options options = { .size = sizeof options, .timeout_ms = TIMEOUT_MS };
        struct iommud_client *client;
        char odd[128];

        (void)state;
        snprintf(odd, sizeof odd, "%s/a %%41?b#c\xc3\xa4", directory);
        assert_int_equal(symlink(directory, odd), 0);
        options.directory = odd;
        assert_int_equal(iommud_connect(&options, &client), 0);
        iommud_close(client);
        assert_int_equal(unlink(odd), 0);
}

static void test_every_call(void **state) {
        struct fixture *f = *state;
        struct iommud_constraints constraints = { .size = sizeof constraints };
        struct iommud_domain_info info = { .size = sizeof info };
        struct iommud_attachment *attachment;
        struct iommud_mapping *mappings;
        struct iommud_device *devices;
        struct iommud_quota quotas[8];
        uint64_t value;
        size_t n;

        assert_int_equal(iommud_domain_id(f->domain), 7);
        assert_int_equal(iommud_capabilities(f->client, NULL, &constraints), 0);
        assert_int_equal(constraints.ranges[0].last, 0xfffff);
        assert_int_equal(iommud_domain_info(f->domain, &info), 0);
        assert_string_equal(info.label, "a label");
        n = ARRAY_SIZE(quotas);
        assert_int_equal(iommud_quota_get(f->client, quotas, &n), 0);
        assert_int_equal(n, 1);
        assert_int_equal(quotas[0].limit, 100);
        assert_int_equal(iommud_device_list(f->client, &devices, &n), 0);
        assert_string_equal(devices[0].name, "edu0");
        iommud_device_list_free(devices, n);
        assert_int_equal(iommud_device_attach(f->domain, "edu0", &attachment), 0);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ_WRITE), 0);
        assert_int_equal(iommud_mapping_list(f->domain, &mappings, &n), 0);
        assert_int_equal(mappings[0].iova, 0x1000);
        assert_int_equal(mappings[0].live, 1);
        iommud_mapping_list_free(mappings);
        assert_int_equal(iommud_unmap(f->domain, 0x1000, 4096), 0);
        assert_int_equal(iommud_unmap_all(f->domain, &value), 0);
        assert_int_equal(value, 4096);
        assert_int_equal(iommud_device_detach(attachment), 0);
        assert_int_equal(iommud_memory_close(f->memory), 0);
        assert_int_equal(iommud_domain_destroy(f->domain), 0);
}

static void test_device(void **state) {
        struct fixture *f = *state;
        struct iommud_attachment *a;
        uint64_t value = 0;
        int fd = -1;

        assert_int_equal(iommud_device_attach(f->domain, "edu0", &a), 0);
        assert_int_equal(iommud_device_region_size(a, 0, &value), 0);
        assert_int_equal(value, 128);
        assert_int_equal(iommud_device_region_read(a, 0, 0, 8, &value), 0);
        assert_int_equal(value, 0x010000ed);
        assert_int_equal(iommud_device_region_write(a, 0, 8, 8, 0x1122334455667788), 0);
        assert_int_equal(iommud_device_region_read(a, 0, 8, 8, &value), 0);
        assert_int_equal(value, 0x1122334455667788);
        assert_int_equal(iommud_device_region_read(a, 0, 2, 4, &value), -EINVAL);      /* not aligned */
        assert_int_equal(iommud_device_region_read(a, 0, 0, 3, &value), -EINVAL);
        assert_int_equal(iommud_device_region_read(a, 0, 0, 0, &value), -EINVAL);
        assert_int_equal(iommud_device_region_read(a, 0, 120, 8, &value), 0);          /* the last register ... */
        assert_int_equal(iommud_device_region_read(a, 0, 128, 8, &value), -EINVAL);    /* ... and beyond */
        assert_int_equal(iommud_device_region_read(a, 0, UINT64_MAX - 7, 8, &value), -EINVAL);
        assert_int_equal(iommud_device_region_read(a, 1, 0, 4, &value), -EINVAL);      /* no such region */
        assert_int_equal(iommud_device_region_read(a, 9, 0, 4, &value), -EINVAL);
        assert_int_equal(iommud_device_fd(a, &fd), -ENOTSUP);
        assert_int_equal(iommud_domain_destroy(f->domain), 0);
        /* the attachment went with its domain: the handle is still there, the device is not */
        assert_int_equal(iommud_device_region_read(a, 0, 0, 4, &value), -ENODEV);
        assert_int_equal(iommud_device_detach(a), 0);
}

static void test_refusal_tells_why(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entry = { .iova = 0x1000, .memory = f->memory, .length = 4096, .access = IOMMUD_READ };
        struct iommud_error e;

        refuse_next(2, GRPC_STATUS_RESOURCE_EXHAUSTED, IOMMUD_REASON_QUOTA_EXCEEDED);
        assert_int_equal(iommud_map_batch(f->domain, &entry, 1), -EDQUOT);
        e = detail();
        assert_int_equal(e.reason, IOMMUD_REASON_QUOTA_EXCEEDED);
        assert_int_equal(e.resource, IOMMUD_RESOURCE_LOCKED_BYTES);
        assert_int_equal(e.element, 3);
        assert_int_equal(e.limit, 100);
        assert_int_equal(e.error, -EDQUOT);
        assert_true(e.conflict_first > e.conflict_last);
        assert_string_equal(e.text, "too much");
        assert_string_equal(e.call, "iommud_map_batch");
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), -EDQUOT);
        assert_int_equal(detail().element, -1);
}

static void test_unreadable_refusal(void **state) {
        struct fixture *f = *state;

        refuse_next(1, GRPC_STATUS_INVALID_ARGUMENT, 0);
        {
                LOCK_SCOPE(&service.lock);
                service.details = "\xff\xff\xff\xff\xff";
                service.n_details = 5;
        }
        assert_int_equal(iommud_unmap(f->domain, 0, 4096), -EINVAL);
        assert_int_equal(detail().reason, 0);
}

static void test_mapped_memory_refuses_to_close(void **state) {
        struct fixture *f = *state;

        refuse_next(1, GRPC_STATUS_FAILED_PRECONDITION, IOMMUD_REASON_IN_USE);
        assert_int_equal(iommud_memory_close(f->memory), -EBUSY);
        memset(iommud_memory_addr(f->memory), 1, 8192);        /* still there */
        refuse_next(1, GRPC_STATUS_NOT_FOUND, IOMMUD_REASON_UNKNOWN_MEMORY);
        assert_int_equal(iommud_memory_close(f->memory), 0);   /* gone is gone */
}

static void test_failed_registration_drops_the_ticket(void **state) {
        struct fixture *f = *state;
        struct iommud_memory *m = NULL;
        int dropped = n_tickets_dropped;

        refuse_next(1, GRPC_STATUS_FAILED_PRECONDITION, IOMMUD_REASON_MEMORY_HOLES);
        assert_int_equal(iommud_memory_alloc(f->client, 4096, NULL, &m), -EFAULT);
        assert_null(m);
        for (int i = 0; i < 1000 && n_tickets_dropped == dropped; i++)
                clock_sleep(1);
        assert_int_equal(n_tickets_dropped, dropped + 1);
}

static void test_recovering_is_waited_for(void **state) {
        struct fixture *f = *state;

        refuse_next(3, GRPC_STATUS_UNAVAILABLE, IOMMUD_REASON_RECOVERING);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), 0);
        LOCK_SCOPE(&service.lock);
        assert_int_equal(service.n_keys, 4);
        for (size_t i = 1; i < 4; i++)
                assert_memory_equal(service.keys[i], service.keys[0], 16);
}

static void test_other_unavailability_is_told(void **state) {
        struct fixture *f = *state;

        refuse_next(1, GRPC_STATUS_UNAVAILABLE, IOMMUD_REASON_LEDGER_UNAVAILABLE);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), -EAGAIN);
        refuse_next(1, GRPC_STATUS_ABORTED, IOMMUD_REASON_IN_PROGRESS);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), -EAGAIN);
}

static void test_new_call_new_key(void **state) {
        struct fixture *f = *state;

        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), 0);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), 0);
        LOCK_SCOPE(&service.lock);
        assert_memory_not_equal(service.keys[0], service.keys[1], 16);
}

static void *restart_later(void *arg) {
        (void)arg;
        clock_sleep(100);
        stop_server();
        silent = false;
        clock_sleep(100);
        start_server();
        return NULL;
}

/* A call is under way, and unanswered, when the service goes; it is repeated with its key when the service is back. */
static void test_restart(void **state) {
        struct fixture *f = *state;
        int64_t begin = clock_now(), took;
        pthread_t t;

        silent = true;
        assert_int_equal(pthread_create(&t, NULL, restart_later, NULL), 0);
        assert_int_equal(iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ), 0);
        took = clock_now() - begin - 200;
        pthread_join(t, NULL);
        print_message("reconnected %lld ms after the service was back\n", (long long)took);
        assert_true(took < 1000);
        LOCK_SCOPE(&service.lock);
        assert_int_equal(service.n_keys, 1);    /* the silent service did not note its own */
}

static void test_restart_while_idle(void **state) {
        struct fixture *f = *state;
        struct iommud_quota quota;
        size_t n = 1;

        stop_server();
        start_server();
        assert_int_equal(iommud_quota_get(f->client, &quota, &n), 0);
}

static void test_deadline(void **state) {
        struct fixture *f = *state;
        int64_t begin = clock_now(), took;

        silent = true;
        assert_int_equal(iommud_unmap(f->domain, 0, 4096), -ETIMEDOUT);
        took = clock_now() - begin;
        assert_in_range(took, TIMEOUT_MS - 50, TIMEOUT_MS + 1000);
        assert_non_null(strstr(iommud_last_error(), "3000 ms"));
        silent = false;
        assert_int_equal(iommud_unmap(f->domain, 0, 4096), 0);
}

static void test_silent_holder(void **state) {
        struct fixture *f = *state;
        struct iommud_memory *m;

        deaf = true;
        assert_int_equal(iommud_memory_alloc(f->client, 4096, NULL, &m), -ETIMEDOUT);
}

static void *end_later(void *arg) {
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_ENDED,
                                 .reason = IOMMUD_REASON_NOT_PERMITTED, .text = "taken away by an operator" };
        int how = (int)(intptr_t)arg;

        clock_sleep(50);
        LOCK_SCOPE(&service.lock);
        if (how)
                send_with_fd(service.sessions[0], &m, -1);
        else
                shutdown(service.sessions[0], SHUT_RDWR);
        return NULL;
}

static void check_ended(struct fixture *f, int how, unsigned reason, const char *text) {
        int64_t begin = clock_now();
        struct iommud_memory *m;
        pthread_t t;

        silent = true;
        assert_int_equal(pthread_create(&t, NULL, end_later, (void *)(intptr_t)how), 0);
        assert_int_equal(iommud_unmap(f->domain, 0, 4096), -ECONNRESET);
        assert_int_equal(detail().reason, reason);
        assert_non_null(strstr(iommud_last_error(), text));
        assert_int_equal(iommud_memory_alloc(f->client, 4096, NULL, &m), -ECONNRESET);
        assert_int_equal(iommud_domain_destroy(f->domain), -ECONNRESET);
        assert_true(clock_now() - begin < TIMEOUT_MS / 2);
        pthread_join(t, NULL);
}

static void test_session_ended(void **state) {
        check_ended(*state, 1, IOMMUD_REASON_NOT_PERMITTED, "taken away");
}

static void test_session_hung_up(void **state) {
        check_ended(*state, 0, IOMMUD_REASON_HOLDER_LOST, "holder");
}

static void test_close_keeps_the_error(void **state) {
        struct fixture *f = *state;
        struct iommud_client *second;

        assert_int_equal(connect_to_it(&second), 0);
        refuse_next(2, GRPC_STATUS_INVALID_ARGUMENT, IOMMUD_REASON_UNALIGNED);
        assert_int_equal(iommud_unmap(f->domain, 1, 1), -EINVAL);
        iommud_close(second);   /* its farewell is refused */
        assert_string_equal(detail().call, "iommud_unmap");
        assert_int_equal(detail().reason, IOMMUD_REASON_UNALIGNED);
}

static void test_objects_of_two_clients(void **state) {
        struct fixture *f = *state;
        struct iommud_map_entry entries[2] = { { .memory = f->memory, .length = 4096, .access = IOMMUD_READ } };
        struct iommud_client *second;
        struct iommud_memory *foreign;

        assert_int_equal(connect_to_it(&second), 0);
        assert_int_equal(iommud_memory_alloc(second, 4096, NULL, &foreign), 0);
        n_calls = 0;
        assert_int_equal(iommud_map(f->domain, 0x1000, foreign, 0, 4096, IOMMUD_READ), -EINVAL);
        entries[1] = entries[0];
        entries[1].memory = foreign;
        assert_int_equal(iommud_map_batch(f->domain, entries, 2), -EINVAL);
        assert_int_equal(detail().element, 1);
        assert_int_equal(n_calls, 0);
        iommud_close(second);
}

static void test_batch_sizes(void **state) {
        struct fixture *f = *state;
        struct iommud_unmap_entry *entries = calloc(1025, sizeof *entries);

        assert_int_equal(iommud_unmap_batch(f->domain, entries, 1025), -EINVAL);
        assert_int_equal(detail().reason, IOMMUD_REASON_BATCH_TOO_LARGE);
        assert_int_equal(iommud_unmap_batch(f->domain, entries, 1024), 0);
        n_calls = 0;
        assert_int_equal(iommud_map_batch(f->domain, NULL, 0), 0);
        assert_int_equal(n_calls, 0);
        free(entries);
}

static void test_bad_arguments(void **state) {
        struct fixture *f = *state;
        struct iommud_memory_options odd = { .size = sizeof odd, .huge_page_size = 12345 }, unset = { .name = "x" };
        struct iommud_memory *m;

        assert_int_equal(iommud_memory_alloc(f->client, 0, NULL, &m), -EINVAL);
        assert_int_equal(iommud_memory_alloc(f->client, UINT64_MAX, NULL, &m), -EINVAL);
        assert_int_equal(iommud_memory_alloc(f->client, 4096, &odd, &m), -EINVAL);
        assert_int_equal(iommud_memory_alloc(f->client, 4096, &unset, &m), -EINVAL);
        assert_int_equal(iommud_memory_import(f->client, -1, 4096, NULL, &m), -EBADF);
        assert_int_equal(iommud_memory_import(f->client, 12345, 4096, NULL, &m), -EBADF);
        assert_int_equal(iommud_map(NULL, 0, f->memory, 0, 4096, IOMMUD_READ), -EINVAL);
        assert_int_equal(iommud_map(f->domain, 0, NULL, 0, 4096, IOMMUD_READ), -EINVAL);
        assert_int_equal(iommud_domain_destroy(NULL), 0);
        assert_int_equal(iommud_device_detach(NULL), 0);
        assert_int_equal(iommud_memory_close(NULL), 0);
        iommud_close(NULL);
}

static void *call_often(void *arg) {
        struct fixture *f = arg;
        intptr_t failed = 0;

        for (int i = 0; i < 200; i++) {
                failed += iommud_map(f->domain, 0x1000, f->memory, 0, 4096, IOMMUD_READ) != 0;
                if (i % 50 == 0) {
                        struct iommud_memory *m;

                        failed += iommud_memory_alloc(f->client, 4096, NULL, &m) != 0 || iommud_memory_close(m) != 0;
                }
        }
        return (void *)failed;
}

static void test_many_threads(void **state) {
        int64_t begin = clock_now();
        pthread_t threads[24];
        void *failed;

        for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
                assert_int_equal(pthread_create(&threads[i], NULL, call_often, *state), 0);
        for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
                pthread_join(threads[i], &failed);
                assert_null(failed);
        }
        print_message("%zu calls of 24 threads: %.1f us each\n", ARRAY_SIZE(threads) * 200,
                      (double)(clock_now() - begin) * 1000 / (double)(ARRAY_SIZE(threads) * 200));
        begin = clock_now();
        assert_null(call_often(*state));
        print_message("200 calls of one thread: %.1f us each\n", (double)(clock_now() - begin) * 1000 / 200);
}

int main(void) {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_nobody_listens),
                cmocka_unit_test(test_session_refused),
                T(test_odd_directory),
                T(test_every_call),
                T(test_device),
                T(test_refusal_tells_why),
                T(test_unreadable_refusal),
                T(test_mapped_memory_refuses_to_close),
                T(test_failed_registration_drops_the_ticket),
                T(test_recovering_is_waited_for),
                T(test_other_unavailability_is_told),
                T(test_new_call_new_key),
                T(test_restart),
                T(test_restart_while_idle),
                T(test_deadline),
                T(test_silent_holder),
                T(test_session_ended),
                T(test_session_hung_up),
                T(test_close_keeps_the_error),
                T(test_objects_of_two_clients),
                T(test_batch_sizes),
                T(test_bad_arguments),
                T(test_many_threads),
        };
#undef T
        return cmocka_run_group_tests(tests, start_service, stop_service);
}
