/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "core/requests.h"

/* I2: what every holder says it has mapped is what the broker thinks. *ret_holders: how many answered. */
int holders_check(struct broker *b, void (*each)(const struct check_view *v, void *arg), void *arg, uint64_t *ret_holders,
                  struct refusal *r);

/* A message of a dump that a check asked for (session's lock held). True: it was one. */
struct link_header;
bool holders_check_message(struct session *s, const struct link_header *h, size_t size);
