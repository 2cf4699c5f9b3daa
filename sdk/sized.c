/* SPDX-License-Identifier: Apache-2.0 */
#include "sized.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

/* No public struct is or will be as large; a size beyond is memory that was never set. */
#define SIZE_MAX_PLAUSIBLE 65536U

static size_t size_of(const void *given) {
        size_t size;

        memcpy(&size, given, sizeof size);
        return size > sizeof size && size <= SIZE_MAX_PLAUSIBLE ? size : 0;
}

int sdk_options_in(void *ret, size_t known, const void *given) {
        size_t size;

        memset(ret, 0, known);
        if (!given)
                return 0;
        size = size_of(given);
        if (size == 0)
                return -EINVAL;
        for (size_t i = known; i < size; i++)
                if (((const uint8_t *)given)[i] != 0)
                        return -E2BIG;
        memcpy(ret, given, size < known ? size : known);
        return 0;
}

int sdk_struct_check(const void *given) {
        return size_of(given) == 0 ? -EINVAL : 0;
}

int sdk_struct_out(void *given, const void *ours, size_t known) {
        size_t size, head = sizeof(size_t);

        size = size_of(given);
        if (size == 0)
                return -EINVAL;
        memcpy((uint8_t *)given + head, (const uint8_t *)ours + head, (size < known ? size : known) - head);
        if (size > known)
                memset((uint8_t *)given + known, 0, size - known);
        return 0;
}
