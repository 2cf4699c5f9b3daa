/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

/*
 * What the broker asks of iommud-bind, the small root program that changes drivers: one request and one answer per
 * connection, SOCK_SEQPACKET, host byte order. iommud-bind may do exactly this and decides by its own allow list
 * (/etc/iommud/bind.conf), not by what the broker says.
 */
enum bind_action {
        BIND_TO_VFIO = 1,       /* whole group member by name: unbind from its driver, driver_override = vfio-pci, probe */
        BIND_RESTORE = 2,       /* driver: what to go back to; "" = let the kernel choose */
};

struct bind_request {
        uint32_t version;       /* 1 */
        uint32_t action;        /* enum bind_action */
        char device[64];        /* PCI address */
        char driver[64];
};

struct bind_answer {
        uint32_t version;       /* 1 */
        uint32_t reason;        /* enum refusal_reason, 0 = done */
        int32_t errnum;
        char original_driver[64];       /* BIND_TO_VFIO: what it was bound to before */
        char text[384];
};
