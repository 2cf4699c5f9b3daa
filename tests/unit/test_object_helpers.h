/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Objects registered without a holder around them. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "holder/object.h"
#include "util/cleanup.h"

#define HELPER __attribute__((unused)) static
#define PAGE 4096ULL
#define READ_ONLY LINK_REGISTER_READ_ONLY
#define READ_WRITE (BACKEND_ACCESS_READ | BACKEND_ACCESS_WRITE)
#define STABLE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE)

#define assert_done(reason) assert_string_equal(refusal_reason_name(reason), "UNSPECIFIED")
#define assert_refused(reason, name) assert_string_equal(refusal_reason_name(reason), #name)

__attribute__((unused)) static struct refusal last_refusal;
__attribute__((unused)) static struct link_memory_info last_info;

/* Registers a copy of the fd. The reason, REFUSAL_NONE when it was done; details in last_refusal and last_info. */
HELPER enum refusal_reason try_register(struct objects *o, uint64_t memory, int fd, uint64_t size, uint32_t flags) {
        struct link_register q = { .memory = memory, .size = size, .flags = flags };
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

        assert_true(copy >= 0);
        last_refusal = (struct refusal){ .reason = REFUSAL_NONE };
        if (objects_register(o, &q, &copy, &last_info, &last_refusal) < 0)
                assert_string_not_equal(last_refusal.text, "");
        else
                assert_int_equal(last_refusal.reason = REFUSAL_NONE, 0);
        assert_int_equal(copy, -1);
        return last_refusal.reason;
}

HELPER enum refusal_reason try_unregister(struct objects *o, uint64_t memory) {
        last_refusal = (struct refusal){ .reason = REFUSAL_NONE };
        (void)objects_unregister(o, memory, &last_refusal);
        return last_refusal.reason;
}

/* What a map of the range would be told. */
HELPER enum refusal_reason try_use(struct objects *o, uint64_t memory, uint64_t offset, uint64_t length,
                                   uint32_t access) {
        struct object *object = object_get(o, memory);
        int k;

        assert_non_null(object);
        last_refusal = (struct refusal){ .reason = REFUSAL_NONE };
        k = object_check(object, offset, length, access, &last_refusal);
        object_put(o, object);
        if (k == 0)
                last_refusal.reason = REFUSAL_NONE;
        return last_refusal.reason;
}

HELPER void touch(int fd, uint64_t offset, uint64_t length) {
        uint8_t *p = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);

        assert_ptr_not_equal(p, MAP_FAILED);
        memset(p, 1, length);
        munmap(p, length);
}

HELPER int empty_memfd(uint64_t size) {
        int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_true(fd >= 0);
        assert_int_equal(ftruncate(fd, (off_t)size), 0);
        return fd;
}

HELPER int full_memfd(uint64_t size) {
        int fd = empty_memfd(size);

        touch(fd, 0, size);
        return fd;
}

HELPER int reopened(int fd, int flags) {
        char path[64];
        int k;

        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        k = open(path, flags | O_CLOEXEC);
        assert_true(k >= 0);
        return k;
}
