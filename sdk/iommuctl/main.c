/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc.h"
#include "util/cleanup.h"
#include "util/size.h"

#define OWN_OPTIONS_MAX 32U
#define TIMEOUT_SECONDS 30U             /* longer than the service waits for a driver to change */

static const struct verb *const families[] = { status_verbs, tenant_verbs, device_verbs, domain_verbs, window_verbs,
                                              ledger_verbs };

/* ---- words ---- */

void ctl_error(const char *format, ...) {
        char text[1024];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        for (char *c = text; *c; c++)
                if (iscntrl((unsigned char)*c) && *c != '\n')
                        *c = '?';
        fprintf(stderr, "iommuctl: %s\n", text);
}

int ctl_usage(const struct ctl *c, const char *format, ...) {
        char text[512];
        va_list args;

        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        ctl_error("%s", text);
        if (c && c->verb)
                fprintf(stderr, "Try 'iommuctl %s%s%s --help'.\n", c->verb->family, c->verb->name[0] ? " " : "",
                        c->verb->name);
        else
                fputs("Try 'iommuctl help'.\n", stderr);
        return CTL_USAGE;
}

static const char common_help[] =
        "  --socket=PATH          the operator socket (default: $IOMMUD_OPERATOR_SOCKET, else\n"
        "                         " CTL_DEFAULT_SOCKET ")\n"
        "  --timeout=SECONDS      for each request (default: 30)\n"
        "  --json                 machine-readable output\n"
        "  --help\n";

static void print_help(void) {
        puts("Usage: iommuctl [OPTION...] VERB [ARGUMENT...]\n\n"
             "Operates iommud, the service that gives programs DMA.\n");
        for (size_t f = 0; f < ARRAY_SIZE(families); f++)
                for (const struct verb *v = families[f]; v->family; v++)
                        printf("  %s%s%-*s %s\n", v->family, v->name[0] ? " " : "",
                               (int)(20 - strlen(v->family) - (v->name[0] ? 1 : 0)), v->name, v->summary);
        printf("\nOptions of every verb (iommuctl VERB --help has the rest):\n%s  --version\n"
               "\nExit status: 0 done, 1 refused or failed, 2 wrong usage, 3 service not reachable, 4 the check found\n"
               "violations. See iommuctl(1).\n", common_help);
}

static void print_verb_help(const struct verb *v) {
        printf("Usage: iommuctl %s%s%s%s%s\n\n%s.\n\n%s%s", v->family, v->name[0] ? " " : "", v->name,
               v->arguments[0] ? " " : "", v->arguments, v->summary, v->help, common_help);
}

/* ---- options ---- */

static const struct option common_options[] = {
        { "socket", required_argument, NULL, 's' }, { "timeout", required_argument, NULL, 't' },
        { "json", no_argument, NULL, 'j' },         { "help", no_argument, NULL, 'h' },
        { "version", no_argument, NULL, 'V' },
};

/* -1 to go on, or the exit code. */
static int common_option(struct ctl *c, int option) {
        uint64_t seconds;

        switch (option) {
        case 's':
                c->socket = optarg;
                return -1;
        case 't':
                if (!size_parse(optarg, &seconds) || seconds == 0 || seconds > 86400)
                        return ctl_usage(c, "--timeout: '%s' is not a number of seconds", optarg);
                c->timeout_seconds = (unsigned)seconds;
                return -1;
        case 'j':
                c->json = true;
                return -1;
        case 'h':
                if (c->verb)
                        print_verb_help(c->verb);
                else
                        print_help();
                return CTL_OK;
        case 'V':
                puts("iommuctl " IOMMUD_VERSION);
                return CTL_OK;
        default:                        /* getopt has said what is wrong */
                return c->verb ? ctl_usage(c, "wrong option for %s%s%s", c->verb->family, c->verb->name[0] ? " " : "",
                                           c->verb->name) : ctl_usage(c, "wrong option");
        }
}

/* mode: "+" stops at the first argument that is no option. -1 to go on behind optind, or the exit code. */
static int parse(struct ctl *c, int argc, char **argv, const char *mode, const struct option *own,
                 bool (*set)(void *userdata, int option, const char *value), void *userdata) {
        struct option all[ARRAY_SIZE(common_options) + OWN_OPTIONS_MAX + 1] = { 0 };
        int option, code;

        memcpy(all, common_options, sizeof common_options);
        for (size_t i = 0; own && own[i].name && i < OWN_OPTIONS_MAX; i++)
                all[ARRAY_SIZE(common_options) + i] = own[i];
        optind = 0;                     /* glibc: start anew */
        while ((option = getopt_long(argc, argv, mode, all, NULL)) >= 0) {
                if (option > 255) {
                        if (!set(userdata, option, optarg))
                                return CTL_USAGE;
                        continue;
                }
                code = common_option(c, option);
                if (code >= 0)
                        return code;
        }
        return -1;
}

int ctl_arguments(struct ctl *c, int argc, char **argv, const struct option *own,
                  bool (*set)(void *userdata, int option, const char *value), void *userdata, int *ret_n,
                  char ***ret_arguments) {
        int code = parse(c, argc, argv, "", own, set, userdata);

        *ret_n = argc - optind;
        *ret_arguments = argv + optind;
        return code;
}

int ctl_plain_arguments(struct ctl *c, int argc, char **argv, int n, char ***ret_arguments) {
        int given, code = ctl_arguments(c, argc, argv, NULL, NULL, NULL, &given, ret_arguments);

        if (code < 0 && given < n)
                return ctl_usage(c, "%s %s needs %s", c->verb->family, c->verb->name, c->verb->arguments);
        if (code < 0 && given > n)
                return ctl_usage(c, "'%s' is too much", (*ret_arguments)[n]);
        return code;
}

/* ---- verbs ---- */

/* How many letters must change, go or come (Levenshtein); words longer than the row are far from everything. */
static size_t distance(const char *a, const char *b) {
        size_t row[32], n = strlen(b);

        if (n >= ARRAY_SIZE(row))
                return n;
        for (size_t j = 0; j <= n; j++)
                row[j] = j;
        for (size_t i = 1; a[i - 1] != '\0'; i++) {
                size_t corner = row[0];

                row[0] = i;
                for (size_t j = 1; j <= n; j++) {
                        size_t change = corner + (a[i - 1] != b[j - 1]),
                               shift = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);

                        corner = row[j];
                        row[j] = change < shift ? change : shift;
                }
        }
        return row[n];
}

/* Of all first words (family NULL), or of a family's second ones. NULL when nothing is near. */
static const char *nearest(const struct verb *family, const char *word) {
        const char *best = NULL;
        size_t least = 3;

        for (size_t f = 0; f < ARRAY_SIZE(families); f++)
                for (const struct verb *v = families[f]; v->family; v++) {
                        const char *candidate = family ? v->name : v->family;
                        size_t d = distance(word, candidate);

                        if ((!family || strcmp(v->family, family->family) == 0) && d < least && d < strlen(word)) {
                                least = d;
                                best = candidate;
                        }
                }
        return best;
}

static int unknown_verb(const struct verb *family, const char *word) {
        const char *near = nearest(family, word);
        const char *before = family ? family->family : "", *blank = family ? " " : "";

        if (near)
                return ctl_usage(NULL, "there is no verb '%s%s%s'; did you mean '%s%s%s'?", before, blank, word, before,
                                 blank, near);
        return ctl_usage(NULL, "there is no verb '%s%s%s'", before, blank, word);
}

static int needs_name(const struct verb *family) {
        char names[128] = "";

        for (const struct verb *v = family; v->family; v++)
                if (strcmp(v->family, family->family) == 0) {
                        size_t used = strlen(names);
                        (void)snprintf(names + used, sizeof names - used, "%s%s", used > 0 ? ", " : "", v->name);
                }
        return ctl_usage(NULL, "%s what? One of: %s", family->family, names);
}

/* The verb of argv[0] and perhaps argv[1]; *ret_words: how many it took. NULL: told why, *ret_code is set. */
static const struct verb *find_verb(int argc, char **argv, int *ret_words, int *ret_code) {
        const struct verb *family = NULL;

        for (size_t f = 0; f < ARRAY_SIZE(families); f++)
                for (const struct verb *v = families[f]; v->family; v++) {
                        if (strcmp(v->family, argv[0]) != 0)
                                continue;
                        if (!family)
                                family = v;
                        *ret_words = v->name[0] != '\0' ? 2 : 1;
                        if (v->name[0] == '\0' || (argc > 1 && strcmp(v->name, argv[1]) == 0))
                                return v;
                }
        if (!family)
                *ret_code = unknown_verb(NULL, argv[0]);
        else
                *ret_code = argc > 1 && argv[1][0] != '-' ? unknown_verb(family, argv[1]) : needs_name(family);
        return NULL;
}

static int run(struct ctl *c, int argc, char **argv) {
        int words = 0, code = parse(c, argc, argv, "+", NULL, NULL, NULL);

        if (code >= 0)
                return code;
        argc -= optind;
        argv += optind;
        if (argc == 0)
                return ctl_usage(NULL, "no verb given");
        if (strcmp(argv[0], "help") == 0) {
                if (argc == 1) {
                        print_help();
                        return CTL_OK;
                }
                c->verb = find_verb(argc - 1, argv + 1, &words, &code);
                if (c->verb)
                        print_verb_help(c->verb);
                return c->verb ? CTL_OK : code;
        }
        c->verb = find_verb(argc, argv, &words, &code);
        if (!c->verb)
                return code;
        argv += words - 1;
        argv[0] = (char *)"iommuctl";   /* getopt names it when an option is wrong */
        return c->verb->run(c, argc - words + 1, argv);
}

int main(int argc, char **argv) {
        const char *socket = getenv("IOMMUD_OPERATOR_SOCKET");
        struct ctl c = { .socket = socket && socket[0] != '\0' ? socket : CTL_DEFAULT_SOCKET,
                         .timeout_seconds = TIMEOUT_SECONDS };
        int code = run(&c, argc, argv);

        rpc_close(c.rpc);
        if (fflush(stdout) != 0 || ferror(stdout)) {
                ctl_error("cannot write to standard output");
                return CTL_FAILED;
        }
        return code;
}
