/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Is s valid UTF-8 (no overlong forms, no surrogates) without control characters (C0, DEL, C1, line and paragraph
 * separators, direction overrides): safe in a log, a terminal and an answer. */
bool text_is_printable(const char *s);

/* Copies s, cut at size - 1 bytes, with '?' in the place of every byte that would make it unprintable. */
void text_make_printable(const char *s, char *to, size_t size);
