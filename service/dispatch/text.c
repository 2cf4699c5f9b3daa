/* SPDX-License-Identifier: Apache-2.0 */
#include "dispatch/text.h"

#include <stdint.h>

/* One well-formed UTF-8 sequence (RFC 3629): its length and code point, 0 if there is none at s. */
static size_t utf8_one(const unsigned char *s, uint32_t *ret) {
        static const struct {
                unsigned char mask, lead;
                uint32_t min;
        } forms[] = { { 0x80, 0x00, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 } };

        for (size_t n = 0; n < 4; n++) {
                uint32_t c;

                if ((s[0] & forms[n].mask) != forms[n].lead)
                        continue;
                c = s[0] & (unsigned char)~forms[n].mask;
                for (size_t i = 1; i <= n; i++) {
                        if ((s[i] & 0xc0) != 0x80)      /* stops at the terminating NUL as well */
                                return 0;
                        c = c << 6 | (s[i] & 0x3fU);
                }
                if (c < forms[n].min || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
                        return 0;
                *ret = c;
                return n + 1;
        }
        return 0;
}

static bool is_control(uint32_t c) {
        return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

bool text_is_printable(const char *s) {
        const unsigned char *p = (const unsigned char *)s;
        uint32_t c;

        while (*p) {
                size_t n = utf8_one(p, &c);

                if (n == 0 || is_control(c))
                        return false;
                p += n;
        }
        return true;
}

void text_make_printable(const char *s, char *to, size_t size) {
        const unsigned char *p = (const unsigned char *)s;
        size_t used = 0;
        uint32_t c;

        while (*p) {
                size_t n = utf8_one(p, &c);
                bool bad = n == 0 || is_control(c);

                if (n == 0)
                        n = 1;
                if (used + (bad ? 1 : n) >= size)
                        break;
                if (bad)
                        to[used++] = '?';
                else
                        for (size_t i = 0; i < n; i++)
                                to[used++] = (char)p[i];
                p += n;
        }
        to[used] = '\0';
}
