/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * A broker and a client for one real holder, which is started as the broker would: fork, exec, link on fd 3. Everything
 * fails the test on its own; nothing waits longer than PATIENCE_MS.
 */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "holder/protocol.h"
#include "soft_device.h"
#include "util/cleanup.h"
#include "util/fdmsg.h"

#define PATIENCE_MS 20000
#define HELPER __attribute__((unused)) static
#define PAGE 4096ULL

struct holder {
        pid_t pid;
        int link;               /* the broker's end */
        int client;             /* the client's end of the session connection; -1: none yet */
        int listener;           /* where the holder reconnects */
        uint64_t seq;
        struct link_setup setup;
        struct link_hello hello;
        char dir[64];
};

struct message {
        struct link_header header;
        union {
                uint8_t bytes[LINK_MESSAGE_MAX];
                struct link_hello hello;
                struct link_result result;
                struct link_dump_memory dump_memory;
                struct link_dump_domain dump_domain;
                struct link_dump_attachment dump_attachment;
                struct link_map_entry mappings[LINK_BATCH_MAX];
        };
        size_t size;            /* of the payload */
        int fds[FDMSG_MAX_FDS];
};

/* --- the process --------------------------------------------------------------------------------------------------*/

HELPER const char *holder_path(void) {
        static char path[PATH_MAX];
        char self[PATH_MAX];
        ssize_t n;

        if (getenv("IOMMUD_HOLDER"))
                return getenv("IOMMUD_HOLDER");
        n = readlink("/proc/self/exe", self, sizeof self - 1);
        assert_true(n > 0);
        self[n] = '\0';
        (void)snprintf(path, sizeof path, "%s/../../iommud-holder", dirname(self));
        return path;
}

/* What a service manager would say in $LISTEN_FDS; NULL: nothing, as a broker that forks. */
__attribute__((unused)) static const char *holder_listen_fds;

static void set_listen_environment(void) {
        char pid[32];

        if (!holder_listen_fds)
                return;
        (void)snprintf(pid, sizeof pid, "%d", getpid());
        (void)setenv("LISTEN_PID", pid, 1);
        (void)setenv("LISTEN_FDS", holder_listen_fds, 1);
}

/* args: after the program's name, NULL-terminated. Returns the other end of the link. */
HELPER int holder_spawn(pid_t *ret_pid, const char *const args[]) {
        char *argv[16] = { (char *)"iommud-holder" };
        int pair[2];

        for (size_t i = 0; args && args[i]; i++)
                argv[i + 1] = (char *)args[i];
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        *ret_pid = fork();
        assert_true(*ret_pid >= 0);
        if (*ret_pid == 0) {
                if (pair[1] == 3 ? fcntl(3, F_SETFD, 0) < 0 : dup2(pair[1], 3) < 0)
                        _exit(126);
                set_listen_environment();
                execv(holder_path(), argv);
                fprintf(stderr, "%s: %s\n", holder_path(), strerror(errno));
                _exit(127);
        }
        close(pair[1]);
        return pair[0];
}

/* Waits for the end of the process; its exit code, or 1000 + signal. */
HELPER int wait_exit(pid_t pid) {
        int status;

        for (int i = 0; i < PATIENCE_MS / 10; i++) {
                pid_t k = waitpid(pid, &status, WNOHANG);

                if (k == pid)
                        return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
                usleep(10000);
        }
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        fail_msg("the process did not end");
        return -1;
}

/* --- the link -----------------------------------------------------------------------------------------------------*/

HELPER bool readable(int fd, int timeout_ms) {
        struct pollfd p = { .fd = fd, .events = POLLIN };

        return poll(&p, 1, timeout_ms) == 1;
}

HELPER int link_write(struct holder *h, const struct link_header *header, const void *payload, size_t size,
                      const int *fds, size_t n_fds) {
        static uint8_t m[2 * LINK_MESSAGE_MAX];

        memcpy(m, header, sizeof *header);
        if (size)
                memcpy(m + sizeof *header, payload, size);
        return fdmsg_send(h->link, m, sizeof *header + size, fds, n_fds, 0);
}

HELPER void link_post(struct holder *h, enum link_type type, uint64_t seq, uint64_t domain, uint32_t count,
                      const void *payload, size_t size, const int *fds, size_t n_fds) {
        struct link_header header = { .version = LINK_VERSION, .type = (uint16_t)type, .seq = seq, .domain = domain,
                                      .count = count };

        assert_int_equal(link_write(h, &header, payload, size, fds, n_fds), 0);
}

/* False: the holder closed the link. fds of the message are the caller's. */
HELPER bool link_read(struct holder *h, struct message *m) {
        uint8_t buffer[LINK_MESSAGE_MAX];
        ssize_t n;

        if (!readable(h->link, PATIENCE_MS))
                fail_msg("nothing came on the link");
        n = fdmsg_receive(h->link, buffer, sizeof buffer, m->fds, 0);
        if (n == 0 || n == -ECONNRESET)
                return false;
        assert_true(n >= (ssize_t)sizeof m->header);
        memcpy(&m->header, buffer, sizeof m->header);
        m->size = (size_t)n - sizeof m->header;
        memset(m->bytes, 0, sizeof(struct link_result));
        memcpy(m->bytes, buffer + sizeof m->header, m->size);
        assert_int_equal(m->header.version, LINK_VERSION);
        return true;
}

HELPER void link_expect(struct holder *h, enum link_type type, struct message *m) {
        assert_true(link_read(h, m));
        assert_int_equal(m->header.type, type);
}

HELPER void result_of(struct holder *h, uint64_t seq, struct link_result *ret) {
        struct message m;

        link_expect(h, LINK_RESULT, &m);
        assert_int_equal(m.header.seq, seq);
        assert_int_equal(m.size, sizeof *ret);
        for (size_t i = 0; i < FDMSG_MAX_FDS; i++)
                fd_close(m.fds[i]);
        *ret = m.result;
}

/* Sends an operation under a new seq and waits for its result. */
HELPER enum refusal_reason link_op(struct holder *h, enum link_type type, uint64_t domain, uint32_t count,
                                   const void *payload, size_t size, struct link_result *ret) {
        struct link_result r;

        link_post(h, type, ++h->seq, domain, count, payload, size, NULL, 0);
        result_of(h, h->seq, &r);
        if (r.refusal.reason == REFUSAL_NONE)
                assert_string_equal(r.refusal.text, "");
        else
                assert_string_not_equal(r.refusal.text, "");
        if (ret)
                *ret = r;
        return r.refusal.reason;
}

#define assert_done(reason) assert_string_equal(refusal_reason_name(reason), "UNSPECIFIED")
#define assert_refused(reason, name) assert_string_equal(refusal_reason_name(reason), #name)

/* --- life ---------------------------------------------------------------------------------------------------------*/

HELPER void listener_open(struct holder *h) {
        struct sockaddr_un a = { .sun_family = AF_UNIX };

        h->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        memcpy(a.sun_path, h->setup.reconnect, sizeof a.sun_path);
        assert_int_equal(bind(h->listener, (struct sockaddr *)&a, sizeof a), 0);
        assert_int_equal(listen(h->listener, 5), 0);
}

HELPER void listener_close(struct holder *h) {
        h->listener = fd_close(h->listener);
        (void)unlink(h->setup.reconnect);
}

HELPER void holder_default_setup(struct holder *h) {
        *h = (struct holder){ .pid = -1, .link = -1, .client = -1, .listener = -1, .seq = 100 };
        h->setup = (struct link_setup){ .session = 77, .uid = UINT32_MAX, .gid = UINT32_MAX, .memlock = UINT64_MAX,
                                        .max_objects = 16, .orphan_seconds = 60 };
        memset(h->setup.secret, 0xa5, sizeof h->setup.secret);
        h->setup.soft.dma_delay_us = 50;
        strcpy(h->dir, "/tmp/test-holder-XXXXXX");
        assert_non_null(mkdtemp(h->dir));
        (void)snprintf(h->setup.reconnect, sizeof h->setup.reconnect, "%s/link", h->dir);
}

HELPER void holder_setup(struct holder *h, const char *const args[]) {
        struct message m;

        h->link = holder_spawn(&h->pid, args);
        link_post(h, LINK_SETUP, 0, 0, 0, &h->setup, sizeof h->setup, NULL, 0);
        link_expect(h, LINK_HELLO, &m);
        assert_int_equal(m.size, sizeof m.hello);
        h->hello = m.hello;
}

/* Hands over a connection, by itself or with the pidfd of `client`. */
HELPER void holder_give_client(struct holder *h, pid_t client) {
        struct link_token token = { "00112233445566778899aabbccddeeff" };
        int pair[2], fds[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        h->client = pair[0];
        fds[0] = pair[1];
        fds[1] = client > 0 ? (int)syscall(SYS_pidfd_open, client, 0) : -1;
        link_post(h, LINK_CLIENT, 0, 0, 0, NULL, 0, fds, fds[1] >= 0 ? 2 : 1);
        close(fds[0]);
        fd_close(fds[1]);
        link_post(h, LINK_GO, 0, 0, 0, NULL, 0, NULL, 0);
        link_post(h, LINK_TOKEN, 0, 0, 0, &token, sizeof token, NULL, 0);
}

HELPER bool client_read(struct holder *h, struct session_msg *m, int *ret_fd) {
        int fds[FDMSG_MAX_FDS];
        ssize_t n;

        if (!readable(h->client, PATIENCE_MS))
                fail_msg("nothing came on the session connection");
        n = fdmsg_receive(h->client, m, sizeof *m, fds, 0);
        if (n == 0 || n == -ECONNRESET)
                return false;
        assert_int_equal(n, sizeof *m);
        assert_int_equal(m->version, SESSION_CHANNEL_VERSION);
        if (ret_fd)
                *ret_fd = fds[0];
        else
                assert_int_equal(fds[0], -1);
        return true;
}

HELPER void client_expect(struct holder *h, enum session_msg_type type, struct session_msg *m, int *ret_fd) {
        assert_true(client_read(h, m, ret_fd));
        assert_int_equal(m->type, type);
}

/* Setup, client, token: a session as it is after OpenSession. */
HELPER void holder_start(struct holder *h) {
        struct session_msg m;

        holder_default_setup(h);
        holder_setup(h, NULL);
        holder_give_client(h, 0);
        client_expect(h, SESSION_TOKEN, &m, NULL);
}

HELPER void holder_cleanup(struct holder *h) {
        h->link = fd_close(h->link);
        h->client = fd_close(h->client);
        listener_close(h);
        (void)rmdir(h->dir);
}

/* The orderly end. */
HELPER void holder_end(struct holder *h) {
        struct link_end e = { .reason = REFUSAL_NONE, .text = "the test is over" };

        link_post(h, LINK_END, 0, 0, 0, &e, sizeof e, NULL, 0);
        assert_int_equal(wait_exit(h->pid), 0);
        holder_cleanup(h);
}

/* --- memory -------------------------------------------------------------------------------------------------------*/

/* A memfd whose every page was touched, filled with a byte. ret_map: where it is mapped for writing, since once it is
 * sealed no new mapping can be had; NULL: nowhere. */
HELPER int memory_new(uint64_t size, int fill, uint8_t **ret_map) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        void *p;

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t)size), 0);
        p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(p, MAP_FAILED);
        memset(p, fill, size);
        if (ret_map)
                *ret_map = p;
        else
                munmap(p, size);
        return fd;
}

HELPER void client_write(struct holder *h, enum session_msg_type type, uint64_t id, uint64_t cookie, int fd) {
        struct session_msg m = { .version = SESSION_CHANNEL_VERSION, .type = type, .id = id, .cookie = cookie };

        assert_int_equal(fdmsg_send(h->client, &m, sizeof m, &fd, fd >= 0, 0), 0);
}

HELPER uint64_t client_ticket(struct holder *h, int fd) {
        struct session_msg m;

        client_write(h, SESSION_MEMORY, 0, 0x1234, fd);
        client_expect(h, SESSION_TICKET, &m, NULL);
        assert_int_equal(m.cookie, 0x1234);
        assert_int_equal(m.reason, 0);
        assert_true(m.id > 0);
        return m.id;
}

HELPER enum refusal_reason register_fd(struct holder *h, uint64_t memory, int fd, uint64_t size, uint32_t flags,
                                       struct link_result *ret) {
        struct link_register q = { .memory = memory, .ticket = client_ticket(h, fd), .size = size, .flags = flags };

        return link_op(h, LINK_REGISTER, 0, 0, &q, sizeof q, ret);
}

HELPER enum refusal_reason map_one(struct holder *h, uint64_t domain, uint64_t iova, uint64_t length, uint64_t memory,
                                   uint64_t offset, uint32_t access) {
        struct link_map_entry e = { .iova = iova, .length = length, .memory = memory, .offset = offset,
                                    .access = access };

        return link_op(h, LINK_MAP, domain, 1, &e, sizeof e, NULL);
}

HELPER enum refusal_reason unmap_one(struct holder *h, uint64_t domain, uint64_t iova, uint64_t length) {
        struct link_unmap_entry e = { iova, length };

        return link_op(h, LINK_UNMAP, domain, 1, &e, sizeof e, NULL);
}

#define READ_WRITE (BACKEND_ACCESS_READ | BACKEND_ACCESS_WRITE)

/* --- dump ---------------------------------------------------------------------------------------------------------*/

struct seen {
        size_t n_memories, n_domains, n_attachments, n_mappings;
        uint64_t announced;             /* mappings that the domains' messages speak of */
        struct link_dump_memory memories[16];
        struct link_dump_attachment attachments[16];
        struct link_dump_domain domains[16];
        uint64_t domain_ids[16];
        struct link_map_entry mappings[8192];
};

HELPER void dump(struct holder *h, struct seen *ret) {
        struct message m;
        uint64_t seq = ++h->seq;

        memset(ret, 0, sizeof *ret);
        link_post(h, LINK_DUMP, seq, 0, 0, NULL, 0, NULL, 0);
        for (;;) {
                assert_true(link_read(h, &m));
                assert_int_equal(m.header.seq, seq);
                switch (m.header.type) {
                case LINK_RESULT:
                        assert_done(m.result.refusal.reason);
                        assert_int_equal(ret->announced, ret->n_mappings);
                        return;
                case LINK_DUMP_MEMORY:
                        ret->memories[ret->n_memories++] = m.dump_memory;
                        break;
                case LINK_DUMP_DOMAIN:
                        ret->announced += m.dump_domain.mappings;
                        ret->domain_ids[ret->n_domains] = m.header.domain;
                        ret->domains[ret->n_domains++] = m.dump_domain;
                        break;
                case LINK_DUMP_ATTACHMENT:
                        ret->attachments[ret->n_attachments++] = m.dump_attachment;
                        break;
                case LINK_DUMP_MAPPINGS:
                        assert_int_equal(m.size, m.header.count * sizeof m.mappings[0]);
                        memcpy(&ret->mappings[ret->n_mappings], m.mappings, m.size);
                        ret->n_mappings += m.header.count;
                        break;
                default:
                        fail_msg("message type %u in a dump", m.header.type);
                }
        }
}

/* --- the device ---------------------------------------------------------------------------------------------------*/

HELPER enum refusal_reason attach(struct holder *h, uint64_t domain, uint64_t attachment, uint32_t group,
                                  const char *device, struct link_result *ret) {
        struct link_attach a = { .attachment = attachment, .backend = BACKEND_SOFT, .group = group };

        (void)snprintf(a.device, sizeof a.device, "%s", device);
        return link_op(h, LINK_ATTACH, domain, 0, &a, sizeof a, ret);
}

HELPER void ack(struct holder *h, uint64_t domain, uint64_t attachment) {
        struct link_attachment a = { attachment };

        link_post(h, LINK_ATTACH_ACK, 0, domain, 0, &a, sizeof a, NULL, 0);
}

HELPER int client_device(struct holder *h, uint64_t attachment) {
        struct session_msg m;
        int fd = -1;

        client_write(h, SESSION_DEVICE_FD, attachment, 9, -1);
        client_expect(h, SESSION_DEVICE, &m, &fd);
        assert_int_equal(m.cookie, 9);
        assert_int_equal(m.id, attachment);
        assert_int_equal(m.reason, 0);
        assert_int_equal(m.kind, DEVICE_FD_SOFT);
        assert_true(fd >= 0);
        return fd;
}

HELPER uint64_t device_access(int fd, enum soft_access_op op, uint32_t region, uint64_t offset, uint32_t size,
                              uint64_t value) {
        struct soft_access a = { .op = op, .cookie = offset, .region = region, .size = size, .offset = offset,
                                 .value = value };

        assert_int_equal(send(fd, &a, sizeof a, MSG_NOSIGNAL), sizeof a);
        assert_true(readable(fd, PATIENCE_MS));
        assert_int_equal(recv(fd, &a, sizeof a, 0), sizeof a);
        assert_int_equal(a.error, 0);
        assert_int_equal(a.cookie, offset);
        return a.value;
}

#define EDU_BUFFER 0x40000ULL

/* A transfer between the device's buffer and memory, waited for. */
HELPER void device_dma(int fd, uint64_t iova, uint64_t count, bool to_memory) {
        device_access(fd, SOFT_WRITE, 7, 4, 2, 0x4);    /* bus master */
        device_access(fd, SOFT_WRITE, 0, 0x80, 8, to_memory ? EDU_BUFFER : iova);
        device_access(fd, SOFT_WRITE, 0, 0x88, 8, to_memory ? iova : EDU_BUFFER);
        device_access(fd, SOFT_WRITE, 0, 0x90, 8, count);
        device_access(fd, SOFT_WRITE, 0, 0x98, 8, to_memory ? 3 : 1);
        while (device_access(fd, SOFT_READ, 0, 0x98, 8, 0) & 1)
                usleep(100);
}

/* Does a byte get from one address to the other, by way of the device? `from` and `to`: where the test sees them. */
HELPER bool device_copies(int device, uint64_t from_iova, uint64_t to_iova, uint8_t *from, volatile uint8_t *to,
                          uint8_t byte) {
        *to = (uint8_t)~byte;
        *from = byte;
        device_dma(device, from_iova, 64, false);
        device_dma(device, to_iova, 64, true);
        return *to == byte;
}
