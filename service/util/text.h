/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stddef.h>

/* Copies a string into a fixed field, cut to fit, always NUL-terminated. */
static inline void text_copy(char *destination, size_t size, const char *source) {
        size_t i = 0;

        for (; i + 1 < size && source[i] != '\0'; i++)
                destination[i] = source[i];
        destination[i] = '\0';
}
