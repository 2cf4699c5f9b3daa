/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "iommud/iommud.h"

/* The commands of client_agent that take options of the SDK's calls, those for windows, and what a client can ask. */
#define AGENT_ANSWER_MAX 1000

struct agent_objects {
        struct iommud_client *client;
        struct iommud_domain *const *domains;
        size_t n_domains;
        struct iommud_memory *const *memories;
        size_t n_memories;
        struct iommud_attachment *const *attachments;
        size_t n_attachments;
};

/* Runs the command: its answer, "ok ..." or "err ...". False: there is no such command. */
bool agent_with(const char *name, const char *args, const struct agent_objects *objects, char answer[AGENT_ANSWER_MAX]);

/* In place of "ok", when a call of the library has just failed. True if it has. */
bool agent_failed(int r, char answer[AGENT_ANSWER_MAX]);
