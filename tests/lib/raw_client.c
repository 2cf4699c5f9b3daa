/* SPDX-License-Identifier: Apache-2.0 */
#include "raw_client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "grpc_client.h"
#include "harness.h"
#include "util/cleanup.h"

#define CALL_MS 30000U

/* ---- connections ---- */

int raw_connect(const char *directory, bool session) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, (session ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        (void)snprintf(a.sun_path, sizeof a.sun_path, "%s/%s.sock", directory, session ? "session" : "grpc");
        if (connect(fd, (const struct sockaddr *)&a, sizeof a) < 0)
                fail_msg("connect to %s: %s", a.sun_path, strerror(errno));
        return fd;
}

bool raw_receive(int session, struct session_msg *m, int *ret_fd) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control;
        struct iovec iov = { m, sizeof *m };
        struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
                            .msg_controllen = sizeof control };
        struct pollfd p = { .fd = session, .events = POLLIN };
        struct cmsghdr *c;
        ssize_t n;

        *ret_fd = -1;
        if (poll(&p, 1, (int)HARNESS_PATIENCE_MS) != 1)
                fail_msg("nothing came on the session connection");
        n = recvmsg(session, &h, MSG_CMSG_CLOEXEC);
        if (n <= 0)
                return false;
        assert_int_equal(n, sizeof *m);
        c = CMSG_FIRSTHDR(&h);
        if (c && c->cmsg_type == SCM_RIGHTS)
                memcpy(ret_fd, CMSG_DATA(c), sizeof *ret_fd);
        return true;
}

void raw_send(int session, const void *data, size_t size, int fd) {
        union {
                char bytes[CMSG_SPACE(sizeof(int))];
                struct cmsghdr align;
        } control = { { 0 } };
        struct iovec iov = { (void *)data, size };
        struct msghdr h = { .msg_iov = &iov, .msg_iovlen = 1 };
        struct cmsghdr *c;

        if (fd >= 0) {
                h.msg_control = &control;
                h.msg_controllen = sizeof control;
                c = CMSG_FIRSTHDR(&h);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof fd);
                memcpy(CMSG_DATA(c), &fd, sizeof fd);
        }
        (void)sendmsg(session, &h, MSG_NOSIGNAL);
}

void raw_open_session(struct raw_client *c, const char *directory) {
        struct session_msg m;
        int fd;

        *c = (struct raw_client){ .next_cookie = 1 };
        (void)snprintf(c->directory, sizeof c->directory, "%s", directory);
        c->session = raw_connect(directory, true);
        if (!raw_receive(c->session, &m, &fd))
                fail_msg("the session connection was closed at once");
        if (m.type != SESSION_TOKEN)
                fail_msg("no token: %s", m.text);
        (void)snprintf(c->token, sizeof c->token, "%.32s", m.text);
}

void raw_reconnect(struct raw_client *c) {
        char path[144];

        (void)snprintf(path, sizeof path, "%s/grpc.sock", c->directory);
        c->grpc = grpc_client_free(c->grpc);
        c->grpc = grpc_client_connect(path);
        assert_non_null(c->grpc);
}

void raw_open(struct raw_client *c, const char *directory) {
        Iommud__V1__OpenSessionRequest request = IOMMUD__V1__OPEN_SESSION_REQUEST__INIT;
        struct raw_refusal r;

        raw_open_session(c, directory);
        raw_reconnect(c);
        request.client_name = (char *)"raw";
        if (raw_call(c, "OpenSession", &request.base, NULL, NULL, &r) != 0)
                fail_msg("OpenSession: %s", r.text);
}

void raw_close(struct raw_client *c) {
        c->grpc = grpc_client_free(c->grpc);
        c->session = fd_close(c->session);
}

/* ---- calls ---- */

static void read_details(const struct grpc_client_answer *a, struct raw_refusal *ret) {
        Iommud__V1__StatusDetails *d = iommud__v1__status_details__unpack(NULL, a->details_size, a->details);
        Iommud__V1__Refusal *r;

        if (!d)
                return;
        if (d->n_details == 1 && (r = iommud__v1__refusal__unpack(NULL, d->details[0]->value.len,
                                                                  d->details[0]->value.data))) {
                ret->reason = (unsigned)r->reason;
                (void)snprintf(ret->text, sizeof ret->text, "%s", r->text);
                iommud__v1__refusal__free_unpacked(r, NULL);
        }
        iommud__v1__status_details__free_unpacked(d, NULL);
}

int raw_call(struct raw_client *c, const char *method, const ProtobufCMessage *request,
             const ProtobufCMessageDescriptor *answer, ProtobufCMessage **ret_answer, struct raw_refusal *ret) {
        size_t n = protobuf_c_message_get_packed_size(request);
        _cleanup_free_ uint8_t *packed = malloc(n + 1);
        struct grpc_client_answer a = { .status = -1 };
        char path[96];

        assert_non_null(packed);
        (void)protobuf_c_message_pack(request, packed);
        (void)snprintf(path, sizeof path, "/iommud.v1.Client/%s", method);
        grpc_client_unary(c->grpc, path, c->token[0] ? c->token : NULL, packed, n, CALL_MS, &a);
        *ret = (struct raw_refusal){ .status = a.status };
        (void)snprintf(ret->text, sizeof ret->text, "%s", a.message);
        if (a.status != 0)
                read_details(&a, ret);
        if (ret_answer)
                *ret_answer = a.status == 0 ? protobuf_c_message_unpack(answer, NULL, a.body_size, a.body) : NULL;
        grpc_client_answer_clear(&a);
        return ret->status;
}

static ProtobufCBinaryData key_data(const uint8_t *key) {
        return (ProtobufCBinaryData){ .len = key ? 16 : 0, .data = (uint8_t *)key };
}

static char last_text[512];

const char *raw_text(void) {
        return last_text;
}

/* 0, or the reason; a failure without one is the test's. */
static unsigned outcome(const char *method, const struct raw_refusal *r) {
        (void)snprintf(last_text, sizeof last_text, "%s", r->text);
        if (r->status != 0 && r->reason == 0)
                fail_msg("%s: status %d without a reason: %s", method, r->status, r->text);
        return r->reason;
}

static unsigned simple(struct raw_client *c, const char *method, const ProtobufCMessage *request) {
        struct raw_refusal r;

        (void)raw_call(c, method, request, NULL, NULL, &r);
        return outcome(method, &r);
}

unsigned raw_create_domain(struct raw_client *c, const uint8_t *key, uint64_t *ret) {
        Iommud__V1__CreateDomainRequest q = IOMMUD__V1__CREATE_DOMAIN_REQUEST__INIT;
        ProtobufCMessage *answer;
        struct raw_refusal r;

        q.request_key = key_data(key);
        if (raw_call(c, "CreateDomain", &q.base, &iommud__v1__create_domain_response__descriptor, &answer, &r) == 0) {
                *ret = ((Iommud__V1__CreateDomainResponse *)answer)->domain;
                protobuf_c_message_free_unpacked(answer, NULL);
        }
        return outcome("CreateDomain", &r);
}

uint64_t raw_send_memory(struct raw_client *c, int fd) {
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_MEMORY,
                                 .cookie = c->next_cookie++ };
        int none;

        raw_send(c->session, &m, sizeof m, fd);
        if (!raw_receive(c->session, &m, &none))
                fail_msg("the session connection was closed");
        if (m.type != SESSION_TICKET || m.reason != 0)
                fail_msg("no ticket: %s", m.text);
        return m.id;
}

unsigned raw_register_ticket(struct raw_client *c, const uint8_t *key, uint64_t ticket, uint64_t size, uint64_t *ret) {
        Iommud__V1__RegisterMemoryRequest q = IOMMUD__V1__REGISTER_MEMORY_REQUEST__INIT;
        ProtobufCMessage *answer;
        struct raw_refusal r;

        q.request_key = key_data(key);
        q.ticket = ticket;
        q.size = size;
        if (raw_call(c, "RegisterMemory", &q.base, &iommud__v1__register_memory_response__descriptor, &answer,
                     &r) == 0) {
                *ret = ((Iommud__V1__RegisterMemoryResponse *)answer)->memory;
                protobuf_c_message_free_unpacked(answer, NULL);
        }
        return outcome("RegisterMemory", &r);
}

unsigned raw_register(struct raw_client *c, const uint8_t *key, int fd, uint64_t size, uint64_t *ret) {
        return raw_register_ticket(c, key, raw_send_memory(c, fd), size, ret);
}

unsigned raw_unregister(struct raw_client *c, const uint8_t *key, uint64_t memory) {
        Iommud__V1__UnregisterMemoryRequest q = IOMMUD__V1__UNREGISTER_MEMORY_REQUEST__INIT;

        q.request_key = key_data(key);
        q.memory = memory;
        return simple(c, "UnregisterMemory", &q.base);
}

unsigned raw_map(struct raw_client *c, const uint8_t *key, uint64_t domain, uint64_t iova, uint64_t memory,
                 uint64_t length) {
        Iommud__V1__MapRequest q = IOMMUD__V1__MAP_REQUEST__INIT;
        uint64_t offset = 0;
        uint32_t access = 3;

        q.request_key = key_data(key);
        q.domain = domain;
        q.n_iova = q.n_length = q.n_memory = q.n_offset = q.n_access = 1;
        q.iova = &iova;
        q.length = &length;
        q.memory = &memory;
        q.offset = &offset;
        q.access = &access;
        return simple(c, "Map", &q.base);
}

unsigned raw_unmap(struct raw_client *c, const uint8_t *key, uint64_t domain, uint64_t iova, uint64_t length) {
        Iommud__V1__UnmapRequest q = IOMMUD__V1__UNMAP_REQUEST__INIT;

        q.request_key = key_data(key);
        q.domain = domain;
        q.n_iova = q.n_length = 1;
        q.iova = &iova;
        q.length = &length;
        return simple(c, "Unmap", &q.base);
}

unsigned raw_unmap_all(struct raw_client *c, const uint8_t *key, uint64_t domain) {
        Iommud__V1__UnmapAllRequest q = IOMMUD__V1__UNMAP_ALL_REQUEST__INIT;

        q.request_key = key_data(key);
        q.domain = domain;
        return simple(c, "UnmapAll", &q.base);
}

unsigned raw_attach(struct raw_client *c, const uint8_t *key, uint64_t domain, const char *device, uint64_t *ret) {
        Iommud__V1__AttachDeviceRequest q = IOMMUD__V1__ATTACH_DEVICE_REQUEST__INIT;
        ProtobufCMessage *answer;
        struct raw_refusal r;

        q.request_key = key_data(key);
        q.domain = domain;
        q.device = (char *)device;
        if (raw_call(c, "AttachDevice", &q.base, &iommud__v1__attach_device_response__descriptor, &answer, &r) == 0) {
                *ret = ((Iommud__V1__AttachDeviceResponse *)answer)->attachment;
                protobuf_c_message_free_unpacked(answer, NULL);
        }
        return outcome("AttachDevice", &r);
}

unsigned raw_detach(struct raw_client *c, const uint8_t *key, uint64_t attachment) {
        Iommud__V1__DetachDeviceRequest q = IOMMUD__V1__DETACH_DEVICE_REQUEST__INIT;

        q.request_key = key_data(key);
        q.attachment = attachment;
        return simple(c, "DetachDevice", &q.base);
}

unsigned raw_destroy_domain(struct raw_client *c, const uint8_t *key, uint64_t domain) {
        Iommud__V1__DestroyDomainRequest q = IOMMUD__V1__DESTROY_DOMAIN_REQUEST__INIT;

        q.request_key = key_data(key);
        q.domain = domain;
        q.force = true;
        return simple(c, "DestroyDomain", &q.base);
}

unsigned raw_list_mappings(struct raw_client *c, uint64_t domain, size_t *ret_n) {
        Iommud__V1__ListMappingsRequest q = IOMMUD__V1__LIST_MAPPINGS_REQUEST__INIT;
        ProtobufCMessage *answer;
        struct raw_refusal r;

        q.domain = domain;
        if (raw_call(c, "ListMappings", &q.base, &iommud__v1__list_mappings_response__descriptor, &answer, &r) == 0) {
                *ret_n = ((Iommud__V1__ListMappingsResponse *)answer)->n_mappings;
                protobuf_c_message_free_unpacked(answer, NULL);
        }
        return outcome("ListMappings", &r);
}

unsigned raw_describe_domain(struct raw_client *c, uint64_t domain) {
        Iommud__V1__DescribeDomainRequest q = IOMMUD__V1__DESCRIBE_DOMAIN_REQUEST__INIT;

        q.domain = domain;
        return simple(c, "DescribeDomain", &q.base);
}

unsigned raw_device_fd(struct raw_client *c, uint64_t attachment, int *ret_fd) {
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = SESSION_DEVICE_FD,
                                 .cookie = c->next_cookie++,
                                 .id = attachment };

        raw_send(c->session, &m, sizeof m, -1);
        if (!raw_receive(c->session, &m, ret_fd))
                fail_msg("the session connection was closed");
        assert_int_equal(m.type, SESSION_DEVICE);
        return m.reason;
}

int raw_memfd(size_t size) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        void *p;

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t)size), 0);
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_true(p != MAP_FAILED);
        memset(p, 0x5a, size);
        munmap(p, size);
        return fd;
}
