/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "client.h"

struct iommud_domain {
        struct sdk_object object;
        bool lazy;                      /* unmapped ranges are flushed later */
        atomic_bool shares_pages;       /* mappings that share IOMMU pages were asked for: calls may meet in one (map.c) */
};
