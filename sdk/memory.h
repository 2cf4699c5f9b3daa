/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "client.h"

struct iommud_memory {
        struct sdk_object object;
        uint64_t size;
        void *address;          /* NULL: imported */
        int fd;                 /* -1: imported */
};
