/* SPDX-License-Identifier: Apache-2.0 */
#include "memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/memfd.h>

#include "call.h"
#include "error.h"
#include "fd_channel.h"
#include "sized.h"
#include "util/cleanup.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

static void memory_free(struct sdk_object *o) {
        struct iommud_memory *m = (struct iommud_memory *)o;

        if (m->address)
                munmap(m->address, m->size);
        fd_close(m->fd);
        free(m);
}

static void memory_free_p(struct iommud_memory **m) {
        if (*m)
                memory_free(&(*m)->object);
}

static struct iommud_memory *memory_new(uint64_t size) {
        struct iommud_memory *m = calloc(1, sizeof *m);

        if (!m)
                return NULL;
        m->object.free = memory_free;
        m->size = size;
        m->fd = -1;
        return m;
}

/* Gives the fd to the holder, which keeps it, and has the service register it. The holder seals. */
static int register_memory(struct iommud_client *client, int fd, const struct iommud_memory_options *options,
                           struct iommud_memory *m) {
        Iommud__V1__RegisterMemoryRequest request = IOMMUD__V1__REGISTER_MEMORY_REQUEST__INIT;
        _cleanup_(call_answer_free) ProtobufCMessage *answer = NULL;
        struct session_msg offer = { .type = SESSION_MEMORY }, ticket;
        _cleanup_close_ int none = -1;
        struct request_key key;
        int r;

        r = request_key_make(&key);
        if (r < 0)
                return r;
        r = sdk_session_ask(client->session, &offer, fd, client_deadline(client), &ticket, &none);
        if (r < 0)
                return r;
        request.request_key = request_key_data(&key);
        request.ticket = ticket.id;
        request.size = m->size;
        request.seal_policy = options->no_seal ? IOMMUD__V1__SEAL_POLICY__SEAL_NONE
                                               : IOMMUD__V1__SEAL_POLICY__SEAL_REQUIRED;
        request.read_only = options->read_only != 0;
        request.populate = options->populate != 0;
        r = sdk_call(client, METHOD_RegisterMemory, &request.base, &answer);
        if (r < 0) {
                sdk_session_drop_ticket(client->session, ticket.id);
                return r;
        }
        m->object.id = ((Iommud__V1__RegisterMemoryResponse *)answer)->memory;
        client_add(client, &m->object);
        return 0;
}

static int read_options(struct iommud_memory_options *ret, const struct iommud_memory_options *given) {
        if (sdk_options_in(ret, sizeof *ret, given) < 0)
                return sdk_fail(-EINVAL, 0, "the options' size is wrong, or they hold what this library does not know");
        return 0;
}

static int round_up(uint64_t size, uint64_t page, uint64_t *ret) {
        if (size == 0)
                return sdk_fail(-EINVAL, IOMMUD_REASON_ZERO_LENGTH, "no memory was asked for");
        if (page < (uint64_t)sysconf(_SC_PAGESIZE) || __builtin_popcountll(page) != 1)
                return sdk_fail(-EINVAL, 0, "%llu bytes is not the size of a page", (unsigned long long)page);
        if (size > (uint64_t)INT64_MAX - page)
                return sdk_fail(-EINVAL, 0, "%llu bytes are more than a file can have", (unsigned long long)size);
        *ret = (size + page - 1) & ~(page - 1);
        return 0;
}

/* Touches every page, so that a later pin finds them all: memory that nobody touched is refused by the service. */
static int populate(struct iommud_memory *m, uint64_t page) {
        if (madvise(m->address, m->size, MADV_POPULATE_WRITE) == 0)
                return 0;
        if (errno != EINVAL)
                return sdk_fail(-ENOMEM, 0, "there are not enough pages for %llu bytes: %s",
                                (unsigned long long)m->size, strerror(errno));
        for (uint64_t at = 0; at < m->size; at += page)         /* before Linux 5.14 */
                ((volatile uint8_t *)m->address)[at] = 0;
        return 0;
}

static int allocate(struct iommud_memory *m, const struct iommud_memory_options *options, uint64_t page) {
        unsigned flags = MFD_CLOEXEC | (options->no_seal ? 0 : MFD_ALLOW_SEALING);
        void *address;

        if (options->huge_page_size)
                flags |= MFD_HUGETLB | (unsigned)__builtin_ctzll(page) << MFD_HUGE_SHIFT;
        m->fd = memfd_create(options->name ? options->name : "iommud", flags);
        if (m->fd < 0)
                return sdk_fail(-errno, 0, "no memfd with pages of %llu bytes: %s", (unsigned long long)page,
                                strerror(errno));
        if (ftruncate(m->fd, (off_t)m->size) < 0)
                return sdk_fail(-errno, 0, "a memfd cannot have %llu bytes: %s", (unsigned long long)m->size,
                                strerror(errno));
        address = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd, 0);
        if (address == MAP_FAILED)
                return sdk_fail(-errno, 0, "%llu bytes could not be mapped: %s", (unsigned long long)m->size,
                                strerror(errno));
        m->address = address;
        return populate(m, page);
}

int iommud_memory_alloc(struct iommud_client *client, uint64_t size, const struct iommud_memory_options *given,
                        struct iommud_memory **ret) {
        _cleanup_(memory_free_p) struct iommud_memory *m = NULL;
        struct iommud_memory_options options;
        uint64_t page;
        int r;

        sdk_enter(__func__);
        if (!client || !ret)
                return sdk_fail(-EINVAL, 0, "client and the place for the memory must not be NULL");
        r = read_options(&options, given);
        if (r < 0)
                return r;
        page = options.huge_page_size ? options.huge_page_size : (uint64_t)sysconf(_SC_PAGESIZE);
        r = round_up(size, page, &size);
        if (r < 0)
                return r;
        m = memory_new(size);
        if (!m)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        r = allocate(m, &options, page);
        if (r == 0)
                r = register_memory(client, m->fd, &options, m);
        if (r < 0)
                return r;
        *ret = m;
        m = NULL;
        return 0;
}

int iommud_memory_import(struct iommud_client *client, int fd, uint64_t size, const struct iommud_memory_options *given,
                         struct iommud_memory **ret) {
        _cleanup_(memory_free_p) struct iommud_memory *m = NULL;
        struct iommud_memory_options options;
        int r;

        sdk_enter(__func__);
        if (!client || !ret)
                return sdk_fail(-EINVAL, 0, "client and the place for the memory must not be NULL");
        if (fd < 0)
                return sdk_fail(-EBADF, 0, "%d is not a file descriptor", fd);
        if (size == 0)
                return sdk_fail(-EINVAL, IOMMUD_REASON_ZERO_LENGTH, "no memory was offered");
        r = read_options(&options, given);
        if (r < 0)
                return r;
        m = memory_new(size);
        if (!m)
                return sdk_fail(-ENOMEM, 0, "out of memory");
        r = register_memory(client, fd, &options, m);
        if (r < 0)
                return r;
        *ret = m;
        m = NULL;
        return 0;
}

int iommud_memory_close(struct iommud_memory *m) {
        Iommud__V1__UnregisterMemoryRequest request = IOMMUD__V1__UNREGISTER_MEMORY_REQUEST__INIT;
        struct request_key key;
        int r;

        if (!m)
                return 0;
        sdk_enter(__func__);
        r = request_key_make(&key);
        if (r < 0)
                return r;
        request.request_key = request_key_data(&key);
        request.memory = m->object.id;
        r = sdk_call_release(m->object.client, METHOD_UnregisterMemory, &request.base, IOMMUD_REASON_UNKNOWN_MEMORY);
        if (r < 0)
                return r;
        client_remove(&m->object);
        return 0;
}

void *iommud_memory_addr(const struct iommud_memory *m) {
        return m ? m->address : NULL;
}

uint64_t iommud_memory_size(const struct iommud_memory *m) {
        return m ? m->size : 0;
}

uint64_t iommud_memory_id(const struct iommud_memory *m) {
        return m ? m->object.id : 0;
}

int iommud_memory_fd(const struct iommud_memory *m) {
        return m ? m->fd : -1;
}
