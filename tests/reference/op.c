/* SPDX-License-Identifier: Apache-2.0 */
#include "op.h"

#include <inttypes.h>
#include <string.h>

static const char *const names[_OP_N] = {
        [OP_CONNECT] = "connect",         [OP_CLOSE] = "close",           [OP_DOMAIN] = "domain",
        [OP_DESTROY] = "destroy",         [OP_REGISTER] = "register",     [OP_UNREGISTER] = "unregister",   [OP_RENEW] = "renew",
        [OP_ATTACH] = "attach",           [OP_DETACH] = "detach",         [OP_MAP] = "map",
        [OP_UNMAP] = "unmap",             [OP_UNMAP_ALL] = "unmap-all",   [OP_SYNC] = "sync",
        [OP_WINDOW] = "window",           [OP_UNWINDOW] = "unwindow",
        [OP_QUOTA] = "quota",             [OP_KILL_CLIENT] = "kill-client", [OP_KILL_HOLDER] = "kill-holder",
        [OP_KILL_BROKER] = "kill-broker", [OP_KILL_BOTH] = "kill-both",
};

const char *op_name(enum op_kind kind) {
        return names[kind];
}

/* Fields by name; those that are 0 are left out. */
static const struct {
        const char *name;
        size_t offset;
        bool wide;
} fields[] = {
        { "client", offsetof(struct op, client), false },     { "domain", offsetof(struct op, domain), false },
        { "memory", offsetof(struct op, memory), false },     { "file", offsetof(struct op, file), false },
        { "device", offsetof(struct op, device), false },     { "tenant", offsetof(struct op, tenant), false },
        { "resource", offsetof(struct op, resource), false }, { "flags", offsetof(struct op, flags), false },
        { "chunk", offsetof(struct op, chunk), true },        { "length", offsetof(struct op, length), true },
        { "limit", offsetof(struct op, limit), true },
};

#define N_FIELDS (sizeof fields / sizeof fields[0])

static uint64_t get(const struct op *op, size_t i) {
        const char *at = (const char *)op + fields[i].offset;

        return fields[i].wide ? *(const uint64_t *)(const void *)at : *(const uint32_t *)(const void *)at;
}

static void set(struct op *op, size_t i, uint64_t value) {
        char *at = (char *)op + fields[i].offset;

        if (fields[i].wide)
                *(uint64_t *)(void *)at = value;
        else
                *(uint32_t *)(void *)at = (uint32_t)value;
}

void op_print(const struct op *op, FILE *to) {
        fputs(names[op->kind], to);
        for (size_t i = 0; i < N_FIELDS; i++)
                if (get(op, i) != 0)
                        fprintf(to, " %s=0x%" PRIx64, fields[i].name, get(op, i));
        for (uint32_t i = 0; i < op->n; i++)
                fprintf(to, " [0x%" PRIx64 ",%" PRIu32 ",0x%" PRIx64 ",0x%" PRIx64 ",%" PRIu32 "]", op->e[i].iova, op->e[i].memory,
                        op->e[i].offset, op->e[i].length, op->e[i].access);
}

static bool parse_word(const char *word, struct op *op) {
        const char *equals = strchr(word, '=');
        struct op_element *e = &op->e[op->n];
        uint64_t value;

        if (word[0] == '[') {
                if (op->n == OP_ELEMENTS || sscanf(word, "[%" SCNx64 ",%" SCNu32 ",%" SCNx64 ",%" SCNx64 ",%" SCNu32 "]", &e->iova,
                                                   &e->memory, &e->offset, &e->length, &e->access) != 5)
                        return false;
                op->n++;
                return true;
        }
        if (!equals || sscanf(equals + 1, "%" SCNx64, &value) != 1)
                return false;
        for (size_t i = 0; i < N_FIELDS; i++)
                if (strlen(fields[i].name) == (size_t)(equals - word) &&
                    strncmp(word, fields[i].name, strlen(fields[i].name)) == 0) {
                        set(op, i, value);
                        return true;
                }
        return false;
}

bool op_parse(const char *line, struct op *ret) {
        char copy[1024], *rest = copy, *word;
        size_t kind = 0;

        if (strlen(line) >= sizeof copy)
                return false;
        memcpy(copy, line, strlen(line) + 1);
        copy[strcspn(copy, "\n")] = '\0';
        *ret = (struct op){ 0 };
        word = strtok_r(rest, " ", &rest);
        while (word && kind < _OP_N && strcmp(names[kind], word) != 0)
                kind++;
        if (!word || kind == _OP_N)
                return false;
        ret->kind = (enum op_kind)kind;
        while ((word = strtok_r(rest, " ", &rest)))
                if (!parse_word(word, ret))
                        return false;
        return true;
}
