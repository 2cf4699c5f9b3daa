/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/*
 * One thing that a client, an operator or fate does. Everything in it is a number that means the same in any state, so that a list
 * with some of them left out can still be played: what then makes no sense (a domain that is not there) is passed over.
 */
enum op_kind {
        OP_CONNECT,
        OP_CLOSE,
        OP_DOMAIN,              /* flags: 1 lazy */
        OP_DESTROY,
        OP_REGISTER,            /* file, length; flags: enum op_register_flag */
        OP_UNREGISTER,
        OP_RENEW,               /* the file is another one from now on */
        OP_ATTACH,
        OP_DETACH,
        OP_MAP,                 /* flags: of enum iommud_map_flag */
        OP_UNMAP,               /* flags: enum iommud_split_policy */
        OP_UNMAP_ALL,
        OP_SYNC,
        OP_WINDOW,              /* a second one: flags: the page shift; length; limit: its quota */
        OP_UNWINDOW,            /* removes it; flags: 1 with what is mapped there */
        OP_QUOTA,               /* of a tenant: resource, limit */
        OP_KILL_CLIENT,
        OP_KILL_HOLDER,
        OP_KILL_BROKER,         /* and start it again */
        OP_KILL_BOTH,           /* broker and the holder of a client */
        _OP_N
};

enum op_register_flag {
        OP_REGISTER_UNSEALED = 1,
        OP_REGISTER_READ_ONLY = 2
};

#define OP_ELEMENTS 8

struct op_element {
        uint64_t iova, offset, length;
        uint32_t memory, access;
};

struct op {
        enum op_kind kind;
        uint32_t client, domain, memory, file, device;
        uint32_t tenant, resource;
        uint32_t flags;
        uint64_t chunk, length, limit;
        uint32_t n;
        struct op_element e[OP_ELEMENTS];
};

const char *op_name(enum op_kind kind);
/* One line without its end; what op_parse() reads. */
void op_print(const struct op *op, FILE *to);
bool op_parse(const char *line, struct op *ret);
