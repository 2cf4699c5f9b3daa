/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Tokens and holders' secrets: random bytes from the kernel; only their SHA-256 is stored. */
struct secret_hash {
        uint8_t bytes[32];
};

int secret_random(void *buffer, size_t size);           /* 0 or -errno */
void secret_hash(const void *data, size_t size, struct secret_hash *ret);
bool secret_hash_equal(const struct secret_hash *a, const struct secret_hash *b);       /* in constant time */
void secret_to_hex(const uint8_t *bytes, size_t size, char *ret);       /* 2 * size + 1 bytes */
