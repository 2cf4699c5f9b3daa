/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include <errno.h>
#include <grp.h>
#include <ini.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "config_keys.h"
#include "core/tenant.h"
#include "util/cleanup.h"
#include "util/iova.h"
#include "util/log.h"
#include "util/size.h"

#ifndef LIBEXECDIR
#define LIBEXECDIR "/usr/libexec/iommud"
#endif
#define HOLDER_GROUP "iommud-holder"
#define LINE_MAX_BYTES 1024

int config_fail(struct config_reader *c, unsigned line, const char *format, ...) {
        char text[REFUSAL_TEXT_MAX];
        va_list args;

        if (c->failed_line != 0)
                return -1;
        c->failed_line = line;
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        return refuse(c->refusal, REFUSAL_BAD_MESSAGE, "%s:%u: %s", c->path, line, text);
}

/* ---- defaults ---- */

/* The holder's program is where ours is, or where packages put it. */
static void find_holder(char ret[CONFIG_PATH_MAX]) {
        static const char name[] = "/iommud-holder";
        ssize_t n = readlink("/proc/self/exe", ret, CONFIG_PATH_MAX - sizeof name);

        if (n > 0) {
                ret[n] = '\0';
                strcpy(strrchr(ret, '/'), name);
                if (access(ret, X_OK) == 0)
                        return;
        }
        strcpy(ret, LIBEXECDIR "/iommud-holder");
}

/* Pinned memory cannot be swapped or moved: a tenth of what there is stays the host's own. Tables are kernel memory; one page
 * of 4K in 512 is what dense mappings of all memory need, this is eight times that. */
static void set_host_limits(uint64_t limit[_RESOURCE_N]) {
        long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
        uint64_t memory;

        for (size_t i = 0; i < _RESOURCE_N; i++)
                limit[i] = UINT64_MAX;
        if (pages <= 0 || page <= 0 || MUL_OVERFLOW((uint64_t)pages, (uint64_t)page, &memory))
                return;
        limit[RESOURCE_LOCKED_BYTES] = memory / 10 * 9;
        limit[RESOURCE_TABLE_BYTES] = memory / 64;
}

static void set_defaults(struct config *c) {
        const struct group *holders = getgrnam(HOLDER_GROUP);

        *c = (struct config){
                .state_directory = "/var/lib/iommud",
                .runtime_directory = "/run/iommud",
                .vfio_directory = "/dev/vfio",
                .sysfs = "/sys",
                .threads = 0,           /* the transport's choice: one per CPU, 2 to 4 */
                .holder_uid_first = 2000000000,
                .holder_uid_last = 2000004095,
                .holder_gid = holders ? holders->gr_gid : CONFIG_GID_NONE,
                .client_gid = CONFIG_GID_NONE,
                .operator_gid = CONFIG_GID_NONE,
                .log_level = LOG_INFO,
                .sessions = 1024,
                .starts_per_second = 50,
                .connections_per_uid = 64,
                .message_bytes = 1U << 20,
                .register_deadline_ms = 10000,
                .operation_deadline_ms = 300000,
                .unclaimed_token_seconds = 10,
                .recover_seconds = 10,
                .lazy_mappings = 256,
                .lazy_bytes = 256U << 20,
                .lazy_ms = 100,
                .soft = { .page_sizes = 1ULL << 12 | 1ULL << 21 | 1ULL << 30, .aperture_last = (1ULL << 48) - 1,
                          .reserved_first = 0xfee00000, .reserved_last = 0xfeefffff, .dma_delay_us = 1000 },
                .n_soft_devices = 2,
                .soft_devices = { "edu0", "edu1" },
                .default_quota = {
                        [RESOURCE_LOCKED_BYTES] = 64U << 20,
                        [RESOURCE_MAPPINGS] = 4096,
                        [RESOURCE_DOMAINS] = 16,
                        [RESOURCE_MEMORY_OBJECTS] = 64,
                        [RESOURCE_REGISTERED_BYTES] = 1U << 30,
                        [RESOURCE_SESSIONS] = 16,
                        [RESOURCE_DEVICES] = 4,
                        [RESOURCE_TABLE_BYTES] = TENANT_QUOTA_KEEP,     /* tenant_fill_quotas() */
                        [RESOURCE_WINDOWS] = 64,
                },
        };
        set_host_limits(c->host_limit);
        find_holder(c->holder);
}

/* ---- lines ---- */

/* The title says which section it is: "service", or "tenant NAME". */
static const struct config_section *find_section(struct config_reader *c, const char **ret_name) {
        for (size_t i = 0; i < CONFIG_SECTIONS; i++) {
                const struct config_section *s = &config_sections[i];
                size_t length = strlen(s->name);

                if (!s->named && strcmp(c->title, s->name) == 0) {
                        if (c->section_seen[i] != 0) {
                                config_fail(c, c->line, "section [%s] is there twice; the first is in line %u",
                                            c->title, c->section_seen[i]);
                                return NULL;
                        }
                        c->section_seen[i] = c->line;
                        return s;
                }
                if (s->named && strncmp(c->title, s->name, length) == 0 &&
                    (c->title[length] == '\0' || c->title[length] == ' ')) {
                        *ret_name = c->title + length + strspn(c->title + length, " \t");
                        return s;
                }
        }
        config_fail(c, c->line, "unknown section [%s] (known: service, limits, soft, host, defaults, tenant NAME)", c->title);
        return NULL;
}

static int begin_tenant(struct config_reader *c, const char *name) {
        struct config *config = &c->config;
        struct ledger_tenant *more;

        if (!tenant_name_is_valid(name))
                return config_fail(c, c->line,
                                   "'%s' is no name for a tenant: a-z or 0-9, then up to 62 of a-z 0-9 _ . -", name);
        for (size_t i = 0; i < config->n_tenants; i++)
                if (strcmp(config->tenants[i].name, name) == 0)
                        return config_fail(c, c->line, "tenant '%s' is there twice", name);
        more = reallocarray(config->tenants, config->n_tenants + 1, sizeof *more);
        if (!more)
                return config_fail(c, c->line, "out of memory");
        config->tenants = more;
        c->tenant = &more[config->n_tenants++];
        c->tenant_line = c->line;
        memset(c->tenant, 0, sizeof *c->tenant);
        strcpy(c->tenant->name, name);
        for (size_t i = 0; i < _RESOURCE_N; i++)
                c->tenant->quota[i] = TENANT_QUOTA_KEEP;        /* [defaults] may come later in the file */
        return 0;
}

/* What can be said of a section only when it is complete. */
static int end_section(struct config_reader *c) {
        struct ledger_tenant *t = c->tenant;
        size_t socket;

        c->tenant = NULL;
        if (!t)
                return 0;
        if (t->n_rules == 0 && !t->own_socket)
                return config_fail(c, c->tenant_line,
                                   "[tenant %s] has neither a rule nor own_socket = yes: nobody could be it", t->name);
        socket = strlen(c->config.runtime_directory) + strlen("/tenants/") + strlen(t->name) + sizeof "/session.sock";
        if (t->own_socket && socket > CONFIG_SOCKET_MAX)
                return config_fail(c, c->tenant_line,
                                   "[tenant %s]: the path of its own socket would have %zu bytes, %zu are "
                                   "possible: shorten the name or runtime_directory",
                                   t->name, socket - 1, CONFIG_SOCKET_MAX - 1);
        return 0;
}

/* "[title]", perhaps with a comment behind. */
static int begin_section(struct config_reader *c, const char *line) {
        const char *close = strchr(line, ']'), *rest = close ? close + 1 + strspn(close + 1, " \t\r\n") : "";
        const char *name = NULL;
        size_t length = close ? (size_t)(close - line - 1) : 0;

        if (end_section(c) < 0)
                return -1;
        if (!close || (*rest != '\0' && *rest != ';' && *rest != '#'))
                return config_fail(c, c->line, "a section is written [NAME], alone on its line");
        if (length >= sizeof c->title)
                return config_fail(c, c->line, "the name of the section is too long");
        memcpy(c->title, line + 1, length);
        c->title[length] = '\0';
        memset(c->seen, 0, sizeof c->seen);
        c->section = find_section(c, &name);
        if (!c->section)
                return -1;
        return c->section->named ? begin_tenant(c, name) : 0;
}

/* Hands the library one line at a time (the contract of fgets). It does so for three reasons: to know the number of the
 * line that is handled; to take sections from it, whose names the library cuts at 50 bytes and which it does not report when
 * they are empty; and to refuse long lines, which it would read as two. */
static char *next_line(char *buffer, int size, void *userdata) {
        struct config_reader *c = userdata;
        size_t blanks;

        if (c->failed_line != 0 || !fgets(buffer, size, c->file))
                return NULL;
        c->line++;
        if (!strchr(buffer, '\n') && !feof(c->file)) {
                config_fail(c, c->line, "the line is longer than %d bytes", LINE_MAX_BYTES);
                return NULL;
        }
        /* an indented line would continue the value of the line before it */
        blanks = strspn(buffer, " \t");
        memmove(buffer, buffer + blanks, strlen(buffer + blanks) + 1);
        if (buffer[0] == '[') {
                if (begin_section(c, buffer) < 0)
                        return NULL;
                buffer[0] = '\0';
        }
        return buffer;
}

static int unknown_key(struct config_reader *c, const char *name) {
        char known[REFUSAL_TEXT_MAX] = "";

        for (size_t i = 0; i < c->section->n_keys; i++) {
                size_t used = strlen(known);
                (void)snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", c->section->keys[i].name);
        }
        return config_fail(c, c->line, "unknown key '%s' in [%s] (known: %s)", name, c->title, known);
}

/* 1: go on, 0: wrong (the library's convention). */
static int handle_key(void *userdata, const char *section, const char *name, const char *value) {
        struct config_reader *c = userdata;

        (void)section;
        if (!c->section) {
                config_fail(c, c->line, "'%s' stands before the first [section]", name);
                return 0;
        }
        for (size_t i = 0; i < c->section->n_keys; i++) {
                const struct config_key *k = &c->section->keys[i];

                if (strcmp(k->name, name) != 0)
                        continue;
                if (c->seen[i] != 0 && !k->repeatable) {
                        config_fail(c, c->line, "%s is there twice in [%s]; the first is in line %u", name, c->title,
                                    c->seen[i]);
                        return 0;
                }
                c->seen[i] = c->line;
                return k->set(c, k, value) == 0;
        }
        unknown_key(c, name);
        return 0;
}

static int read_lines(struct config_reader *c) {
        int syntax;

        ini_max_line = LINE_MAX_BYTES + 3;      /* "\r\n" and NUL */
        syntax = ini_parse_stream(next_line, c, handle_key, c);
        if (syntax < 0)
                return config_fail(c, c->line, "out of memory");
        /* the library counts the lines that we hand out; it goes on after one that it cannot read */
        if (syntax > 0 && (c->failed_line == 0 || (unsigned)syntax < c->failed_line)) {
                c->failed_line = 0;
                return config_fail(c, (unsigned)syntax, "neither 'key = value' nor [section] nor a comment");
        }
        if (c->failed_line != 0)
                return -1;
        if (ferror(c->file))
                return refuse(c->refusal, REFUSAL_BAD_MESSAGE, "%s: %s", c->path, strerror(errno));
        return end_section(c);
}

/* ---- the whole ---- */

static void fill_sockets(struct config *c) {
        const struct {
                char *path;
                const char *below;
        } sockets[] = {
                { c->client_grpc_socket, "client/grpc.sock" },  { c->client_session_socket, "client/session.sock" },
                { c->operator_socket, "operator/operator.sock" }, { c->holder_socket, "private/holder.sock" },
                { c->link_socket, "private/link.sock" },        { c->bind_socket, "private/bind.sock" },
                { c->tenant_directory, "tenants" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(sockets); i++)
                (void)snprintf(sockets[i].path, CONFIG_SOCKET_MAX, "%s/%s", c->runtime_directory, sockets[i].below);
}

static void fill_quotas(struct config *c) {
        for (size_t t = 0; t < c->n_tenants; t++)
                tenant_fill_quotas(c->tenants[t].quota, c->default_quota);
}

static int open_file(const char *path, FILE **ret, struct refusal *r) {
        FILE *file;

        if (strlen(path) >= CONFIG_PATH_MAX)
                return refuse(r, REFUSAL_BAD_MESSAGE, "%s: the path is longer than %u bytes", path,
                              CONFIG_PATH_MAX - 1);
        file = fopen(path, "re");
        if (!file) {
                int error = errno;
                refuse(r, REFUSAL_BAD_MESSAGE, "%s: %s", path, strerror(error));
                r->errnum = error;
                return -1;
        }
        *ret = file;
        return 0;
}

int config_load(const char *path, struct config *ret, struct refusal *r) {
        struct config_reader c = { .refusal = r, .path = path };
        int result;

        if (open_file(path, &c.file, r) < 0)
                return -1;
        set_defaults(&c.config);
        strcpy(c.config.path, path);
        result = read_lines(&c);
        (void)fclose(c.file);
        if (result < 0) {
                config_clear(&c.config);
                return -1;
        }
        fill_sockets(&c.config);
        fill_quotas(&c.config);
        *ret = c.config;
        return 0;
}

int config_embedded(const char *directory, struct config *ret, struct refusal *r) {
        struct config c;
        struct ledger_tenant *me;
        size_t max = CONFIG_RUNTIME_MAX - sizeof "/run";

        if (directory[0] != '/' || strlen(directory) > max)
                return refuse(r, REFUSAL_BAD_MESSAGE, "%s: not an absolute path of at most %zu bytes", directory, max);
        set_defaults(&c);
        me = calloc(1, sizeof *me);
        if (!me)
                return refuse(r, REFUSAL_INTERNAL, "out of memory");
        (void)snprintf(c.state_directory, sizeof c.state_directory, "%s/state", directory);
        (void)snprintf(c.runtime_directory, sizeof c.runtime_directory, "%s/run", directory);
        c.backend = CONFIG_BACKEND_SOFT;
        c.holder_uid_first = 1;
        c.holder_uid_last = 0;
        c.holder_gid = CONFIG_GID_NONE;
        strcpy(me->name, "me");
        me->n_rules = 1;
        me->rules[0] = (struct ledger_rule){ .has_uid = true, .uid = getuid() };
        for (size_t i = 0; i < _RESOURCE_N; i++)
                me->quota[i] = TENANT_QUOTA_KEEP;
        tenant_fill_quotas(me->quota, c.default_quota);
        c.tenants = me;
        c.n_tenants = 1;
        fill_sockets(&c);
        *ret = c;
        return 0;
}

void config_clear(struct config *c) {
        if (!c)
                return;
        free(c->tenants);
        *c = (struct config){ 0 };
}
