/* SPDX-License-Identifier: Apache-2.0 */
#include "bind/allow.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/pci.h"

static void cleanup_fclose_p(FILE **f) {
        if (*f)
                (void)fclose(*f);
}

/* "1234:11e8", lower-case hex. */
static bool is_vendor_device(const char *text) {
        for (size_t i = 0; i < 9; i++)
                if (i == 4 ? text[i] != ':' : !isxdigit((unsigned char)text[i]) || isupper((unsigned char)text[i]))
                        return false;
        return text[9] == '\0';
}

/* Cuts blanks at both ends, and the comment of a whole line. */
static char *strip(char *line) {
        char *end;

        line += strspn(line, " \t");
        if (*line == '#')
                *line = '\0';
        end = line + strlen(line);
        while (end > line && isspace((unsigned char)end[-1]))
                *--end = '\0';
        return line;
}

/* The value of "allow = VALUE", NULL if the line is something else. */
static const char *allow_value(const char *line) {
        if (strncmp(line, "allow", 5) != 0)
                return NULL;
        line += 5 + strspn(line + 5, " \t");
        if (*line != '=')
                return NULL;
        line += 1 + strspn(line + 1, " \t");
        return strcmp(line, "*") == 0 || pci_address_is_valid(line) || is_vendor_device(line) ? line : NULL;
}

static int check_owner(const char *file, FILE *f, struct refusal *r) {
        struct stat st;

        if (fstat(fileno(f), &st) < 0 || !S_ISREG(st.st_mode))
                return refuse(r, REFUSAL_NOT_PERMITTED, "%s is not a regular file", file);
        if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & (S_IWGRP | S_IWOTH)) != 0)
                return refuse(r, REFUSAL_NOT_PERMITTED,
                              "%s could be written by somebody other than root: chown root, chmod go-w", file);
        return 0;
}

int allow_check(const char *file, const char *address, const char *vendor_device, struct refusal *r) {
        _cleanup_(cleanup_fclose_p) FILE *f = fopen(file, "re");
        _cleanup_free_ char *line = NULL;
        size_t capacity = 0;
        unsigned number = 0;
        bool allowed = false;

        if (!f)
                return refuse(r, REFUSAL_NOT_PERMITTED, "no device may change its driver: %s: %s", file,
                              strerror(errno));
        if (check_owner(file, f, r) < 0)
                return -1;
        /* to the end: a line that is not understood may have been meant to narrow things */
        while (getline(&line, &capacity, f) >= 0) {
                char *text = strip(line);
                const char *value;

                number++;
                if (*text == '\0')
                        continue;
                value = allow_value(text);
                if (!value)
                        return refuse(r, REFUSAL_NOT_PERMITTED,
                                      "%s:%u: '%.60s' is not allow = ADDRESS, allow = VENDOR:DEVICE (lower case) or "
                                      "allow = *",
                                      file, number, text);
                if (strcmp(value, "*") == 0 || strcmp(value, address) == 0 || strcmp(value, vendor_device) == 0)
                        allowed = true;
        }
        if (!allowed)
                return refuse(r, REFUSAL_NOT_PERMITTED,
                              "%s does not allow %s (%s) to change its driver; an administrator can add: allow = %s",
                              file, address, vendor_device, address);
        return 0;
}
