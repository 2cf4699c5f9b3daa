/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Numbers as people write them, in the configuration and on the command line. Pure, thread-safe.
 */
#define SIZE_UNLIMITED UINT64_MAX
#define SIZE_TEXT_MAX 24U

/* "0", "4096", "0x1000", "64K", "1G": digits with one optional binary suffix K, M, G, T (either case). Nothing else: no
 * sign, no blank, no rest. False on anything else or beyond 64 bits; *ret is untouched then. */
bool size_parse(const char *text, uint64_t *ret);

/* The same, or "unlimited", which is SIZE_UNLIMITED; a number that would be taken for it is refused. */
bool size_parse_limit(const char *text, uint64_t *ret);

/* "64M", "1536K", "4097", "unlimited": the largest suffix that loses nothing. Returns text. */
const char *size_format(uint64_t size, char text[SIZE_TEXT_MAX]);
