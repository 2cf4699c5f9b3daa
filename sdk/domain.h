/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "client.h"

struct iommud_domain {
        struct sdk_object object;
};
