/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/harness.h"
#include "run.h"

/*
 * The client processes, and the files: made here and mapped here before anybody can seal them.
 */

static void spawn(struct run *r, uint32_t client) {
        uint32_t tenant = model_tenant_of(client);
        char program[PATH_MAX];
        char *argv[] = { program, NULL };
        int pair[2];

        harness_program("tests/reference/client", program, sizeof program);
        assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
        r->clients[client].pid = harness_spawn_as(host_uid(r->host, tenant), argv, pair[1], -1, NULL);
        r->clients[client].socket = pair[0];
        close(pair[1]);
}

static void make_file(struct run *r, uint32_t i) {
        size_t size = r->world.file_pages * r->world.page;
        int fd = memfd_create("reference", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t)size), 0);
        r->files[i].fd = fd;
        r->files[i].bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_ptr_not_equal(r->files[i].bytes, MAP_FAILED);
        r->files[i].shadow = malloc(size);
        assert_non_null(r->files[i].shadow);
        for (size_t at = 0; at < size; at++)
                r->files[i].shadow[at] = (uint8_t)(i * 37 + at * 11 + at / 4096 * 7);
        memcpy(r->files[i].bytes, r->files[i].shadow, size);    /* touches every page, too */
}

static void drop_file(struct run *r, uint32_t i) {
        munmap(r->files[i].bytes, r->world.file_pages * r->world.page);
        free(r->files[i].shadow);
        close(r->files[i].fd);
}

void crew_renew(struct run *r, uint32_t file) {
        drop_file(r, file);
        make_file(r, file);
}

void crew_begin(struct run *r) {
        for (uint32_t i = 0; i < FILES; i++)
                make_file(r, i);
}

static void end(struct run *r, uint32_t client) {
        close(r->clients[client].socket);
        r->clients[client].pid = 0;
}

void crew_end(struct run *r) {
        for (uint32_t i = 0; i < CLIENTS; i++) {
                pid_t pid = r->clients[i].pid;

                if (pid == 0)
                        continue;
                end(r, i);
                if (harness_wait(pid, HARNESS_PATIENCE_MS) != 0)
                        fail_msg("client %u did not end well", i);
        }
        for (uint32_t i = 0; i < FILES; i++)
                drop_file(r, i);
}

const struct report *crew_order(struct run *r, uint32_t client, struct order *o, int fd) {
        static struct report report;
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int))];
        } control = { 0 };
        struct iovec data = { o, sizeof *o };
        struct msghdr m = { .msg_iov = &data, .msg_iovlen = 1 };

        if (r->clients[client].pid == 0)
                spawn(r, client);
        if (fd >= 0) {
                m.msg_control = &control;
                m.msg_controllen = sizeof control;
                CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
                CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
                CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(sizeof fd);
                memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof fd);
        }
        if (sendmsg(r->clients[client].socket, &m, MSG_NOSIGNAL) != sizeof *o ||
            recv(r->clients[client].socket, &report, sizeof report, 0) != sizeof report)
                return NULL;
        return &report;
}

void crew_kill(struct run *r, uint32_t client) {
        pid_t pid = r->clients[client].pid;

        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(harness_wait(pid, HARNESS_PATIENCE_MS), 128 + SIGKILL);
        end(r, client);
}
