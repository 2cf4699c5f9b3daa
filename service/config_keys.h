/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>

#include "config.h"

/*
 * The sections and keys of iommud.conf, private to config.c: what there is, of which kind, within which bounds.
 */
#define CONFIG_KEYS_MAX 24U             /* of one section */
#define CONFIG_SECTIONS 6U

struct config_reader {
        struct config config;           /* being filled */
        struct refusal *refusal;
        FILE *file;
        const char *path;
        unsigned line;                  /* of the line handed out last, from 1 */
        unsigned failed_line;           /* 0: nothing is wrong so far */
        const struct config_section *section;   /* NULL before the first one */
        char title[96];                 /* "service", "tenant alice" */
        unsigned section_seen[CONFIG_SECTIONS];         /* line of each unnamed section, 0: not yet */
        struct ledger_tenant *tenant;   /* of a tenant's section: the last of config.tenants */
        unsigned tenant_line;
        unsigned seen[CONFIG_KEYS_MAX]; /* line of each key in this section, 0: not yet */
};

struct config_key {
        const char *name;
        int (*set)(struct config_reader *c, const struct config_key *k, const char *value);
        size_t offset;                  /* in struct config, or struct ledger_tenant in a tenant's section */
        uint64_t min, max;              /* of numbers */
        bool repeatable;
};

struct config_section {
        const char *name;
        bool named;                     /* "[tenant NAME]" */
        size_t n_keys;
        const struct config_key *keys;
};

extern const struct config_section config_sections[CONFIG_SECTIONS];

/* Notes the first error, as "FILE:LINE: ...", and returns -1. */
int config_fail(struct config_reader *c, unsigned line, const char *format, ...) __attribute__((format(printf, 3, 4)));
