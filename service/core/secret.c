/* SPDX-License-Identifier: Apache-2.0 */
#include "core/secret.h"

#include <errno.h>
#include <sha2.h>
#include <sys/random.h>

int secret_random(void *buffer, size_t size) {
        /* up to 256 bytes are never cut short once the pool is ready (getrandom(2)) */
        return getrandom(buffer, size, 0) == (ssize_t)size ? 0 : -EIO;
}

void secret_hash(const void *data, size_t size, struct secret_hash *ret) {
        SHA2_CTX context;

        SHA256Init(&context);
        SHA256Update(&context, data, size);
        SHA256Final(ret->bytes, &context);
}

bool secret_hash_equal(const struct secret_hash *a, const struct secret_hash *b) {
        unsigned difference = 0;

        for (size_t i = 0; i < sizeof a->bytes; i++)
                difference |= (unsigned)(a->bytes[i] ^ b->bytes[i]);
        return difference == 0;
}

void secret_to_hex(const uint8_t *bytes, size_t size, char *ret) {
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < size; i++) {
                ret[2 * i] = digits[bytes[i] >> 4];
                ret[2 * i + 1] = digits[bytes[i] & 15];
        }
        ret[2 * size] = '\0';
}
