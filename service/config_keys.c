/* SPDX-License-Identifier: Apache-2.0 */
#include "config_keys.h"

#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "util/cleanup.h"
#include "util/pci.h"
#include "util/size.h"

/* Quotas are kept as sqlite's signed 64-bit numbers. */
#define QUOTA_MAX ((uint64_t)INT64_MAX)
#define ID_MAX (UINT32_MAX - 1)         /* (uid_t)-1 is no uid */
#define WORDS " \t"

static void *field(struct config_reader *c, const struct config_key *k) {
        return (char *)(c->section->named ? (void *)c->tenant : (void *)&c->config) + k->offset;
}

/* ---- kinds of values ---- */

static int set_path(struct config_reader *c, const struct config_key *k, const char *value) {
        if (value[0] != '/')
                return config_fail(c, c->line, "%s must be an absolute path, not '%s'", k->name, value);
        if (strpbrk(value, WORDS))
                return config_fail(c, c->line, "%s: '%s' has a blank in it; a comment needs a line of its own", k->name,
                                   value);
        if (strlen(value) >= CONFIG_PATH_MAX)
                return config_fail(c, c->line, "%s is longer than %u bytes", k->name, CONFIG_PATH_MAX - 1);
        strcpy(field(c, k), value);
        return 0;
}

/* Sockets live below it, and a socket's path is short by nature. */
static int set_runtime_directory(struct config_reader *c, const struct config_key *k, const char *value) {
        if (strlen(value) >= CONFIG_RUNTIME_MAX)
                return config_fail(c, c->line,
                                   "%s is longer than %zu bytes: the paths of sockets below it would not fit", k->name,
                                   CONFIG_RUNTIME_MAX - 1);
        return set_path(c, k, value);
}

static int set_number(struct config_reader *c, const struct config_key *k, const char *value) {
        uint64_t number;

        if (!size_parse(value, &number))
                return config_fail(c, c->line, "%s: '%s' is not a number", k->name, value);
        if (number < k->min || number > k->max)
                return config_fail(c, c->line, "%s is %s; it must be %" PRIu64 " to %" PRIu64, k->name, value, k->min,
                                   k->max);
        *(uint32_t *)field(c, k) = (uint32_t)number;
        return 0;
}

static int set_quota(struct config_reader *c, const struct config_key *k, const char *value) {
        uint64_t number;

        if (!size_parse_limit(value, &number))
                return config_fail(c, c->line, "%s: '%s' is not a number like 4096, 64K, 1G, or unlimited", k->name,
                                   value);
        if (number > QUOTA_MAX && number != SIZE_UNLIMITED)
                return config_fail(c, c->line, "%s is %s; the largest is %" PRIu64 ", or unlimited", k->name, value,
                                   QUOTA_MAX);
        *(uint64_t *)field(c, k) = number;
        return 0;
}

static int set_boolean(struct config_reader *c, const struct config_key *k, const char *value) {
        static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };

        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                if (strcmp(value, words[i]) == 0) {
                        *(bool *)field(c, k) = i % 2 == 1;
                        return 0;
                }
        return config_fail(c, c->line, "%s: '%s' is neither yes nor no", k->name, value);
}

static int set_backend(struct config_reader *c, const struct config_key *k, const char *value) {
        static const char *const names[] = {
                [CONFIG_BACKEND_AUTO] = "auto",
                [CONFIG_BACKEND_SOFT] = "soft",
                [CONFIG_BACKEND_VFIO_TYPE1] = "vfio-type1",
                [CONFIG_BACKEND_VFIO_SPAPR] = "vfio-spapr",
        };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (strcmp(value, names[i]) == 0) {
                        c->config.backend = (enum config_backend)i;
                        return 0;
                }
        return config_fail(c, c->line, "%s: '%s' is none of auto, soft, vfio-type1, vfio-spapr", k->name, value);
}

static int set_log_level(struct config_reader *c, const struct config_key *k, const char *value) {
        static const struct {
                const char *name;
                uint32_t level;
        } levels[] = { { "error", LOG_ERR }, { "warning", LOG_WARNING }, { "notice", LOG_NOTICE }, { "info", LOG_INFO },
                       { "debug", LOG_DEBUG } };

        for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
                if (strcmp(value, levels[i].name) == 0) {
                        *(uint32_t *)field(c, k) = levels[i].level;
                        return 0;
                }
        return config_fail(c, c->line, "%s: '%s' is none of error, warning, notice, info, debug", k->name, value);
}

/* A group by name or number; empty: none. */
static int set_group(struct config_reader *c, const struct config_key *k, const char *value) {
        gid_t *gid = field(c, k);
        const struct group *g;
        uint64_t number;

        *gid = CONFIG_GID_NONE;
        if (value[0] == '\0')
                return 0;
        if (size_parse(value, &number) && number <= ID_MAX) {
                *gid = (gid_t)number;
                return 0;
        }
        g = getgrnam(value);
        if (!g)
                return config_fail(c, c->line, "%s: there is no group '%s' on this machine", k->name, value);
        *gid = g->gr_gid;
        return 0;
}

/* "FIRST-LAST", inclusive, each at most max. False if it is not that. */
static bool parse_span(const char *value, uint64_t max, uint64_t *ret_first, uint64_t *ret_last) {
        _cleanup_free_ char *copy = strdup(value);
        char *dash = copy ? strchr(copy, '-') : NULL;
        uint64_t first, last;

        if (!dash)
                return false;
        *dash = '\0';
        if (!size_parse(copy, &first) || !size_parse(dash + 1, &last) || first > last || last > max)
                return false;
        *ret_first = first;
        *ret_last = last;
        return true;
}

static int set_holder_uids(struct config_reader *c, const struct config_key *k, const char *value) {
        uint64_t first = 1, last = 0;

        if (value[0] != '\0' && (!parse_span(value, ID_MAX, &first, &last) || first == 0))
                return config_fail(c, c->line,
                                   "%s: '%s' is not a range of uids like 2000000000-2000004095 (uid 0 is not "
                                   "for holders)",
                                   k->name, value);
        c->config.holder_uid_first = (uint32_t)first;
        c->config.holder_uid_last = (uint32_t)last;
        return 0;
}

/* ---- lists: calls each() per word, which has the same contract as a key's set() ---- */

static int each_word(struct config_reader *c, const struct config_key *k, const char *value,
                     int (*each)(struct config_reader *c, const struct config_key *k, const char *word)) {
        _cleanup_free_ char *copy = strdup(value);
        char *rest = copy, *word;

        if (!copy)
                return config_fail(c, c->line, "out of memory");
        while ((word = strtok_r(rest, WORDS, &rest)))
                if (each(c, k, word) < 0)
                        return -1;
        return 0;
}

static int add_soft_device(struct config_reader *c, const struct config_key *k, const char *word) {
        struct config *config = &c->config;

        if (strlen(word) >= sizeof config->soft_devices[0] ||
            strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_.-") != strlen(word))
                return config_fail(c, c->line, "%s: '%s' is no name for a device: up to %zu of a-z 0-9 _ . -", k->name,
                                   word, sizeof config->soft_devices[0] - 1);
        if (pci_address_is_valid(word))
                return config_fail(c, c->line, "%s: '%s' would look like a PCI device", k->name, word);
        for (size_t i = 0; i < config->n_soft_devices; i++)
                if (strcmp(config->soft_devices[i], word) == 0)
                        return config_fail(c, c->line, "%s: '%s' is there twice", k->name, word);
        if (config->n_soft_devices == BROKER_SOFT_DEVICES_MAX)
                return config_fail(c, c->line, "%s: there can be %u", k->name, BROKER_SOFT_DEVICES_MAX);
        strcpy(config->soft_devices[config->n_soft_devices++], word);
        return 0;
}

static int set_soft_devices(struct config_reader *c, const struct config_key *k, const char *value) {
        c->config.n_soft_devices = 0;
        return each_word(c, k, value, add_soft_device);
}

static int add_page_size(struct config_reader *c, const struct config_key *k, const char *word) {
        uint64_t size;

        if (!size_parse(word, &size) || size == 0 || (size & (size - 1)) != 0)
                return config_fail(c, c->line, "%s: '%s' is not a power of two like 4K, 2M, 1G", k->name, word);
        c->config.soft.page_sizes |= size;
        return 0;
}

static int set_page_sizes(struct config_reader *c, const struct config_key *k, const char *value) {
        uint64_t smallest;

        c->config.soft.page_sizes = 0;
        if (each_word(c, k, value, add_page_size) < 0)
                return -1;
        smallest = page_mask_smallest(c->config.soft.page_sizes);
        if (smallest < 4096 || smallest > 65536)
                return config_fail(c, c->line, "%s: the smallest must be 4K to 64K", k->name);
        return 0;
}

static int set_aperture(struct config_reader *c, const struct config_key *k, const char *value) {
        if (!parse_span(value, UINT64_MAX, &c->config.soft.aperture_first, &c->config.soft.aperture_last))
                return config_fail(c, c->line, "%s: '%s' is not a range like 0x0-0xffffffffffff", k->name, value);
        return 0;
}

static int set_reserved(struct config_reader *c, const struct config_key *k, const char *value) {
        struct soft_personality *s = &c->config.soft;

        if (value[0] == '\0') {
                s->reserved_first = 1;          /* first > last: none */
                s->reserved_last = 0;
                return 0;
        }
        if (!parse_span(value, UINT64_MAX, &s->reserved_first, &s->reserved_last) || s->reserved_last == 0)
                return config_fail(c, c->line, "%s: '%s' is not a range like 0xfee00000-0xfeefffff", k->name, value);
        return 0;
}

static int set_soft_windows(struct config_reader *c, const struct config_key *k, const char *value) {
        static const char *const names[] = {
                [SOFT_WINDOWS_NONE] = "none",
                [SOFT_WINDOWS_SPAPR] = "spapr",
        };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (strcmp(value, names[i]) == 0) {
                        c->config.soft.windows = (uint32_t)i;
                        return 0;
                }
        return config_fail(c, c->line, "%s: '%s' is neither none nor spapr", k->name, value);
}

/* ---- tenants ---- */

/* A uid or gid by number or name. */
static bool parse_id(const char *text, bool group, uint32_t *ret) {
        uint64_t number;

        if (size_parse(text, &number)) {
                if (number > ID_MAX)
                        return false;
                *ret = (uint32_t)number;
                return true;
        }
        if (group) {
                const struct group *g = getgrnam(text);
                *ret = g ? g->gr_gid : *ret;
                return g != NULL;
        }
        const struct passwd *p = getpwnam(text);
        *ret = p ? p->pw_uid : *ret;
        return p != NULL;
}

/* A prefix that is compared with whole path components: no "/" alone (that is everybody), no trailing one, no "..". */
static bool cgroup_is_valid(const char *path) {
        size_t length = strlen(path);

        return path[0] == '/' && length > 1 && length < sizeof(((struct ledger_rule *)NULL)->cgroup_prefix) &&
               path[length - 1] != '/' && !strstr(path, "//") && !strstr(path, "/../") &&
               (length < 3 || strcmp(path + length - 3, "/..") != 0);
}

static int add_condition(struct config_reader *c, const struct config_key *k, const char *word) {
        struct ledger_rule *rule = &c->tenant->rules[c->tenant->n_rules];

        if (strncmp(word, "uid:", 4) == 0 && !rule->has_uid) {
                if (!parse_id(word + 4, false, &rule->uid))
                        return config_fail(c, c->line, "%s: there is no user '%s' on this machine", k->name, word + 4);
                rule->has_uid = true;
        } else if (strncmp(word, "gid:", 4) == 0 && !rule->has_gid) {
                if (!parse_id(word + 4, true, &rule->gid))
                        return config_fail(c, c->line, "%s: there is no group '%s' on this machine", k->name, word + 4);
                rule->has_gid = true;
        } else if (strncmp(word, "cgroup:", 7) == 0 && rule->cgroup_prefix[0] == '\0') {
                if (!cgroup_is_valid(word + 7))
                        return config_fail(c, c->line,
                                           "%s: '%s' is no cgroup path like /kubepods.slice/podX (below the "
                                           "cgroup root, no '/' at the end)",
                                           k->name, word + 7);
                strcpy(rule->cgroup_prefix, word + 7);
        } else
                return config_fail(c, c->line, "%s: '%s' is none of uid:ID, gid:ID, cgroup:/PATH, each at most once "
                                   "(all of a rule must fit; several rules are several lines)", k->name, word);
        return 0;
}

static int add_rule(struct config_reader *c, const struct config_key *k, const char *value) {
        struct ledger_rule *rule;

        if (c->tenant->n_rules == LEDGER_RULES_MAX)
                return config_fail(c, c->line, "%s: a tenant can have %u", k->name, LEDGER_RULES_MAX);
        rule = &c->tenant->rules[c->tenant->n_rules];
        memset(rule, 0, sizeof *rule);
        if (each_word(c, k, value, add_condition) < 0)
                return -1;
        if (!rule->has_uid && !rule->has_gid && rule->cgroup_prefix[0] == '\0')
                return config_fail(c, c->line, "%s is empty; it needs uid:ID, gid:ID or cgroup:/PATH", k->name);
        c->tenant->n_rules++;
        return 0;
}

static int add_tenant_device(struct config_reader *c, const struct config_key *k, const char *word) {
        struct ledger_tenant *t = c->tenant;

        if (strlen(word) >= LEDGER_NAME_MAX ||
            strspn(word, "abcdefghijklmnopqrstuvwxyz0123456789_.:-") != strlen(word))
                return config_fail(c, c->line, "%s: '%s' is none of a device's name (lower case), vendor:device, none",
                                   k->name, word);
        if (t->n_devices == LEDGER_DEVICES_MAX)
                return config_fail(c, c->line, "%s: a tenant can have %u", k->name, LEDGER_DEVICES_MAX);
        strcpy(t->devices[t->n_devices++], word);
        return 0;
}

static int set_tenant_devices(struct config_reader *c, const struct config_key *k, const char *value) {
        return each_word(c, k, value, add_tenant_device);
}

/* ---- the tables ---- */

#define C(member) offsetof(struct config, member)
#define T(member) offsetof(struct ledger_tenant, member)
#define QUOTAS(base)                                                                                                   \
        { .name = "locked_bytes", .set = set_quota, .offset = base + 8 * RESOURCE_LOCKED_BYTES },                      \
        { .name = "mappings", .set = set_quota, .offset = base + 8 * RESOURCE_MAPPINGS },                              \
        { .name = "domains", .set = set_quota, .offset = base + 8 * RESOURCE_DOMAINS },                                \
        { .name = "memory_objects", .set = set_quota, .offset = base + 8 * RESOURCE_MEMORY_OBJECTS },                  \
        { .name = "registered_bytes", .set = set_quota, .offset = base + 8 * RESOURCE_REGISTERED_BYTES },              \
        { .name = "sessions", .set = set_quota, .offset = base + 8 * RESOURCE_SESSIONS },                              \
        { .name = "devices", .set = set_quota, .offset = base + 8 * RESOURCE_DEVICES },                                \
        { .name = "table_bytes", .set = set_quota, .offset = base + 8 * RESOURCE_TABLE_BYTES },                        \
        { .name = "windows", .set = set_quota, .offset = base + 8 * RESOURCE_WINDOWS }
#define NUMBER(key, member, least, most)                                                                               \
        { .name = key, .set = set_number, .offset = C(member), .min = least, .max = most }

static const struct config_key service_keys[] = {
        { .name = "state_directory", .set = set_path, .offset = C(state_directory) },
        { .name = "runtime_directory", .set = set_runtime_directory, .offset = C(runtime_directory) },
        { .name = "backend", .set = set_backend },
        { .name = "vfio_directory", .set = set_path, .offset = C(vfio_directory) },
        { .name = "sysfs", .set = set_path, .offset = C(sysfs) },
        NUMBER("threads", threads, 1, 64),
        { .name = "holder", .set = set_path, .offset = C(holder) },
        { .name = "holder_uids", .set = set_holder_uids },
        { .name = "holder_group", .set = set_group, .offset = C(holder_gid) },
        { .name = "client_group", .set = set_group, .offset = C(client_gid) },
        { .name = "operator_group", .set = set_group, .offset = C(operator_gid) },
        { .name = "log_level", .set = set_log_level, .offset = C(log_level) },
};

static const struct config_key limits_keys[] = {
        NUMBER("sessions", sessions, 1, 65536),
        NUMBER("session_starts_per_second", starts_per_second, 1, 10000),
        NUMBER("connections_per_uid", connections_per_uid, 1, 65536),
        NUMBER("message_bytes", message_bytes, 65536, 64U << 20),
        NUMBER("register_deadline_ms", register_deadline_ms, 100, 3600000),
        NUMBER("operation_deadline_ms", operation_deadline_ms, 1000, 24 * 3600000),
        NUMBER("unclaimed_token_seconds", unclaimed_token_seconds, 1, 3600),
        NUMBER("recover_seconds", recover_seconds, 1, 3600),
        NUMBER("orphan_seconds", orphan_seconds, 0, 31U * 24 * 3600),
        NUMBER("lazy_flush_mappings", lazy_mappings, 1, 1U << 20),
        NUMBER("lazy_flush_bytes", lazy_bytes, 4096, UINT32_MAX),
        NUMBER("lazy_flush_ms", lazy_ms, 1, 60000),
};

static const struct config_key soft_keys[] = {
        { .name = "devices", .set = set_soft_devices },
        { .name = "page_sizes", .set = set_page_sizes },
        { .name = "aperture", .set = set_aperture },
        { .name = "reserved", .set = set_reserved },
        NUMBER("max_mappings", soft.max_mappings, 0, UINT32_MAX),
        NUMBER("dma_delay_us", soft.dma_delay_us, 1, 10000000),
        { .name = "windows", .set = set_soft_windows },
};

static const struct config_key defaults_keys[] = { QUOTAS(C(default_quota)) };

static const struct config_key host_keys[] = {
        { .name = "locked_bytes", .set = set_quota, .offset = C(host_limit) + 8 * RESOURCE_LOCKED_BYTES },
        { .name = "table_bytes", .set = set_quota, .offset = C(host_limit) + 8 * RESOURCE_TABLE_BYTES },
};

static const struct config_key tenant_keys[] = {
        QUOTAS(T(quota)),
        { .name = "rule", .set = add_rule, .repeatable = true },
        { .name = "own_socket", .set = set_boolean, .offset = T(own_socket) },
        { .name = "allow_unsealed", .set = set_boolean, .offset = T(allow_unsealed) },
        { .name = "allowed_devices", .set = set_tenant_devices },
};

#define SECTION(title, table, ...) { .name = title, .n_keys = ARRAY_SIZE(table), .keys = table, __VA_ARGS__ }
const struct config_section config_sections[CONFIG_SECTIONS] = {
        SECTION("service", service_keys, ),
        SECTION("limits", limits_keys, ),
        SECTION("soft", soft_keys, ),
        SECTION("host", host_keys, ),
        SECTION("defaults", defaults_keys, ),
        SECTION("tenant", tenant_keys, .named = true),
};

_Static_assert(ARRAY_SIZE(service_keys) <= CONFIG_KEYS_MAX && ARRAY_SIZE(tenant_keys) <= CONFIG_KEYS_MAX, "seen[]");
