/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <iommud/iommud.h>

#include "model.h"

/*
 * What the driver says to a client process, and hears of it: one message each way, over the SOCK_SEQPACKET socket that is the
 * client's standard input. Both are of the same build.
 */
enum order_kind {
        ORDER_CONNECT,          /* text: the folder of the sockets */
        ORDER_CLOSE,
        ORDER_DOMAIN,           /* flags: 1 lazy */
        ORDER_DESTROY,
        ORDER_REGISTER,         /* with a descriptor */
        ORDER_UNREGISTER,
        ORDER_ATTACH,           /* text: the device */
        ORDER_DETACH,
        ORDER_MAP,
        ORDER_UNMAP,
        ORDER_UNMAP_ALL,
        ORDER_SYNC,
        ORDER_WINDOW,           /* flags: page shift; length; limit: quota */
        ORDER_UNWINDOW,         /* the window that was made so; flags: 1 by force */
        ORDER_QUOTAS,
        ORDER_DESCRIBE,         /* a domain: info, mappings and windows */
        ORDER_TRANSFER,         /* device: all of the transfers, in order */
        ORDER_CAPABILITIES      /* text: a device, or "" */
};

#define TRANSFERS 160
#define REPORT_WINDOWS 2

struct transfer {
        uint64_t iova;
        uint32_t length, buffer;        /* offset in the device's buffer */
        uint32_t to_memory, unused;
};

struct order {
        uint32_t kind;
        uint32_t domain, memory, device, flags, n;
        uint64_t chunk, length, limit, window;
        char text[128];
        union {
                struct op_element e[OP_ELEMENTS];
                struct transfer transfers[TRANSFERS];
        };
};

struct report {
        int32_t result;
        uint32_t n;
        struct iommud_error error;      /* when result < 0 */
        uint64_t id;                    /* of what was made */
        uint64_t iova, mappings, locked_bytes, table_bytes, bytes;
        uint32_t n_windows;
        struct iommud_window windows[REPORT_WINDOWS];
        union {
                struct iommud_quota quotas[16];
                struct iommud_constraints constraints;
                struct {
                        struct iommud_domain_info info;
                        struct iommud_mapping list[MAPPINGS];
                };
        };
};
