/* SPDX-License-Identifier: Apache-2.0 */
#include "client_agent_memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct command {
        const char *args;
        struct agent_memories *memories;
        char *answer;
};

static void bad(const struct command *c) {
        snprintf(c->answer, AGENT_ANSWER_MAX, "err %d 0", EINVAL);
}

/* Memory of which no page has been touched. The SDK does not map what is imported, and neither does anybody else here. */
static void do_import(const struct command *c) {
        struct iommud_memory_options options = { .size = sizeof options };
        struct agent_memories *m = c->memories;
        char how[16] = "";
        uint64_t size = 0;
        int fd;

        if (sscanf(c->args, "%" SCNi64 " %15s", &size, how) < 1 || m->n >= m->room) {
                bad(c);
                return;
        }
        options.populate = strcmp(how, "populate") == 0;
        fd = memfd_create("iommud-untouched", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
                snprintf(c->answer, AGENT_ANSWER_MAX, "err %d 0", errno);
        else if (!agent_failed(iommud_memory_import(m->client, fd, size, &options, &m->all[m->n]), c->answer)) {
                snprintf(c->answer, AGENT_ANSWER_MAX, "ok %zu %" PRIu64, m->n, iommud_memory_id(m->all[m->n]));
                m->n++;
        }
        if (fd >= 0)
                close(fd);      /* the service has it */
}

static void do_close(const struct command *c) {
        unsigned i = 0;

        if (sscanf(c->args, "%u", &i) != 1 || i >= c->memories->n)
                bad(c);
        else if (!agent_failed(iommud_memory_close(c->memories->all[i]), c->answer))
                strcpy(c->answer, "ok");
}

/* [offset, offset + length) of an object that this process has mapped; NULL, and answered: it has no such part. */
static uint8_t *part_of(const struct command *c, bool parsed, unsigned i, uint64_t offset, uint64_t length) {
        const struct iommud_memory *m = parsed && i < c->memories->n ? c->memories->all[i] : NULL;
        uint64_t size = iommud_memory_size(m);

        if (length > 0 && iommud_memory_addr(m) && length <= size && offset <= size - length)
                return (uint8_t *)iommud_memory_addr(m) + offset;
        bad(c);
        return NULL;
}

static void do_fill(const struct command *c) {
        uint64_t offset = 0, length = 0;
        unsigned i = 0, byte = 0;
        uint8_t *p;
        bool parsed;

        parsed = sscanf(c->args, "%u %" SCNi64 " %" SCNi64 " %u", &i, &offset, &length, &byte) == 4;
        p = part_of(c, parsed, i, offset, length);
        if (!p)
                return;
        memset(p, (int)byte, length);
        strcpy(c->answer, "ok");
}

static void do_peek(const struct command *c) {
        uint64_t offset = 0, length = 0;
        unsigned i = 0;
        const uint8_t *p;
        bool parsed;

        parsed = sscanf(c->args, "%u %" SCNi64 " %" SCNi64, &i, &offset, &length) == 3;
        p = part_of(c, parsed, i, offset, length);
        if (p && length > 1 && memcmp(p, p + 1, length - 1) != 0)
                strcpy(c->answer, "ok -1");
        else if (p)
                snprintf(c->answer, AGENT_ANSWER_MAX, "ok %u", p[0]);
}

bool agent_memory(const char *name, const char *args, struct agent_memories *m, char answer[AGENT_ANSWER_MAX]) {
        static const struct {
                const char *name;
                void (*run)(const struct command *c);
        } commands[] = {
                { "import", do_import },
                { "memory-close", do_close },
                { "fill-at", do_fill },
                { "peek-at", do_peek },
        };
        const struct command c = { .args = args, .memories = m, .answer = answer };

        for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
                if (strcmp(name, commands[i].name) == 0) {
                        commands[i].run(&c);
                        return true;
                }
        return false;
}
