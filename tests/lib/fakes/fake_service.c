/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service for tests of the SDK, included by them: a gRPC server and a session socket that do what the test says
 * (refusals, restarts, silence, a session that ends) and remember what they were asked. Nothing of the broker is in it.
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

#include "../../../sdk/clock.h"
#include "../../../sdk/tsan.h"
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
        char method[64];                        /* the last call, and what it asked */
        uint8_t request[65536];
        size_t n_request;
        uint64_t capabilities;                  /* what OpenSession answers */
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
        Iommud__V1__Mapping mapping = IOMMUD__V1__MAPPING__INIT, part = IOMMUD__V1__MAPPING__INIT;
        Iommud__V1__Mapping *mappings[] = { &mapping, &part };
        Iommud__V1__Window window = IOMMUD__V1__WINDOW__INIT, *windows[] = { &window };

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
        part.iova = 0x2200;
        part.state = (char *)"deferred";
        part.chunk = 0x100;
        part.exposed = &range;
        part.exposed_access = 3;
        window.id = 21;
        window.start = 1ULL << 59;
        window.size = 1ULL << 36;
        window.page_shift = 16;
        window.levels = 2;
        window.mappings = 3;
        window.mapped_bytes = 0x30000;
        window.quota = 0x100000;
        window.table_bytes = 0x8000;
        domain.flush_mode = IOMMUD__V1__FLUSH_MODE__FLUSH_LAZY;
        domain.deferred_mappings = 31;
        domain.deferred_bytes = 32;
        domain.kernel_mappings = 33;
        domain.table_bytes = 34;
        domain.shared_pages = 35;
#define ANSWER(name, type, ...)                                                                                        \
        if (strcmp(method, "/iommud.v1.Client/" #name) == 0) {                                                         \
                Iommud__V1__##type m;                                                                                  \
                iommud__v1__##__VA_ARGS__;                                                                             \
                return packed(&m.base);                                                                                \
        }
        ANSWER(OpenSession, OpenSessionResponse, open_session_response__init(&m); m.capabilities = service.capabilities)
        ANSWER(CreateDomain, CreateDomainResponse, create_domain_response__init(&m); m.domain = 7)
        ANSWER(DescribeDomain, DescribeDomainResponse, describe_domain_response__init(&m); m.domain = &domain)
        ANSWER(AttachDevice, AttachDeviceResponse, attach_device_response__init(&m); m.attachment = 9)
        ANSWER(RegisterMemory, RegisterMemoryResponse, register_memory_response__init(&m); m.memory = 11)
        ANSWER(GetQuota, GetQuotaResponse, get_quota_response__init(&m); m.n_quotas = 1; m.quotas = quotas)
        ANSWER(ListDevices, ListDevicesResponse, list_devices_response__init(&m); m.n_devices = 1; m.devices = devices)
        ANSWER(ListMappings, ListMappingsResponse, list_mappings_response__init(&m); m.n_mappings = 2;
               m.mappings = mappings)
        ANSWER(Map, MapResponse, map_response__init(&m); m.iova = 0x7700000; m.mappings = 2; m.locked_bytes = 8192;
               m.table_bytes = 4224)
        ANSWER(Unmap, UnmapResponse, unmap_response__init(&m); m.unmapped_bytes = 12288)
        ANSWER(UnmapAll, UnmapResponse, unmap_response__init(&m); m.unmapped_bytes = 4096)
        ANSWER(Sync, SyncResponse, sync_response__init(&m); m.flushed_bytes = 16384)
        ANSWER(QueryWindows, QueryWindowsResponse, query_windows_response__init(&m); m.n_windows = 1;
               m.windows = windows; m.can_create = 4; m.page_sizes = 0x11000; m.largest = 1ULL << 43; m.levels_max = 5)
        ANSWER(CreateWindow, CreateWindowResponse, create_window_response__init(&m); m.window = &window)
        ANSWER(GetCapabilities, GetCapabilitiesResponse, get_capabilities_response__init(&m);
               m.constraints = &constraints)
        return grpc_empty_slice();
#undef ANSWER
}

static void note_key(void) {
        Iommud__V1__MapRequest *m;

        if (strcmp(service.method, "Map") != 0)
                return;
        m = iommud__v1__map_request__unpack(NULL, service.n_request, service.request);
        if (m && m->request_key.len == 16)
                memcpy(service.keys[service.n_keys++ % ARRAY_SIZE(service.keys)], m->request_key.data, 16);
        if (m)
                iommud__v1__map_request__free_unpacked(m, NULL);
}

static void note_request(struct server_call *c, const char *path) {
        grpc_byte_buffer_reader reader;
        grpc_slice all;

        if (!c->request)
                return;
        grpc_byte_buffer_reader_init(&reader, c->request);
        all = grpc_byte_buffer_reader_readall(&reader);
        snprintf(service.method, sizeof service.method, "%s", strrchr(path, '/') + 1);
        service.n_request = GRPC_SLICE_LENGTH(all);
        assert_true(service.n_request <= sizeof service.request);
        memcpy(service.request, GRPC_SLICE_START_PTR(all), service.n_request);
        grpc_slice_unref(all);
        grpc_byte_buffer_reader_destroy(&reader);
        note_key();
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
        note_request(c, method);
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

/* Clients that connect from now on meet a service with these capabilities. */
__attribute__((unused)) static void have_capabilities(uint64_t bits) {
        LOCK_SCOPE(&service.lock);

        service.capabilities = bits;
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
                service.capabilities = UINT64_MAX;
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

/* ---- what tests say ---- */

/* What the last call asked, as the message of its type; the caller frees it. */
#define ASKED(type, name)                                                                                              \
        __extension__({                                                                                                \
                LOCK_SCOPE(&service.lock);                                                                             \
                assert_string_equal(service.method, #type);                                                            \
                iommud__v1__##name##_request__unpack(NULL, service.n_request, service.request);                        \
        })

static struct iommud_error detail(void) {
        struct iommud_error e = { .size = sizeof e };

        assert_int_equal(iommud_error_detail(&e), 0);
        return e;
}
