/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/mapping.h"
#include "core/shared_page.h"
#include "holder/protocol.h"

/* What the holder has for a mapping (false: nothing but shared pages) and for a shared page. */
bool mapping_body_entry(const struct mapping *m, struct link_map_entry *ret);
struct link_map_entry shared_page_entry(const struct shared_page *p, uint32_t access);
