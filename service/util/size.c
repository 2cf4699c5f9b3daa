/* SPDX-License-Identifier: Apache-2.0 */
#include "util/size.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/iova.h"

static const char suffixes[] = "KMGT";

bool size_parse(const char *text, uint64_t *ret) {
        bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
        const char *digits = hex ? text + 2 : text;
        uint64_t value, scaled;
        char *end;

        /* strtoull() would take blanks, a sign and a second "0x" */
        if (hex ? !isxdigit((unsigned char)*digits) : !isdigit((unsigned char)*digits))
                return false;
        if (hex && digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X'))
                return false;
        errno = 0;
        value = strtoull(digits, &end, hex ? 16 : 10);
        if (errno != 0)
                return false;
        if (*end != '\0') {
                const char *suffix = strchr(suffixes, toupper((unsigned char)*end));

                if (!suffix || end[1] != '\0' ||
                    MUL_OVERFLOW(value, UINT64_C(1) << (10 * (suffix - suffixes + 1)), &scaled))
                        return false;
                value = scaled;
        }
        *ret = value;
        return true;
}

bool size_parse_limit(const char *text, uint64_t *ret) {
        uint64_t value;

        if (strcmp(text, "unlimited") == 0) {
                *ret = SIZE_UNLIMITED;
                return true;
        }
        if (!size_parse(text, &value) || value == SIZE_UNLIMITED)
                return false;
        *ret = value;
        return true;
}

const char *size_format(uint64_t size, char text[SIZE_TEXT_MAX]) {
        unsigned step = 0;

        if (size == SIZE_UNLIMITED) {
                (void)snprintf(text, SIZE_TEXT_MAX, "unlimited");
                return text;
        }
        while (size != 0 && step < strlen(suffixes) && size % 1024 == 0) {
                size /= 1024;
                step++;
        }
        (void)snprintf(text, SIZE_TEXT_MAX, "%" PRIu64 "%.*s", size, step > 0, step > 0 ? &suffixes[step - 1] : "");
        return text;
}
