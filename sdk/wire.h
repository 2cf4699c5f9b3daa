/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "iommud.pb-c.h"
#include "iommud/iommud.h"

/*
 * Between the messages of proto/iommud.proto and the structs of iommud.h. Pure; nothing here trusts what it reads:
 * bytes from the service are cut, not believed.
 */

/* The value of grpc-status-details-bin -> reason, limits and text of *ret (error, call and size stay 0). False,
 * and *ret untouched, if the bytes are not a StatusDetails with a Refusal in it. */
bool wire_refusal(const void *bytes, size_t n, struct iommud_error *ret);

/* c may be NULL: nothing is known then, no range is usable. More ranges than fit are left out: fewer are usable. */
void wire_constraints(const Iommud__V1__Constraints *c, struct iommud_constraints *ret);

/* Copies text of the service: cut at a character, control characters replaced. text may be NULL. */
void wire_text(char *ret, size_t size, const char *text);
