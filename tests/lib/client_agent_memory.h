/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "client_agent_with.h"

/* The commands of client_agent for memory that it did not touch itself, and for parts of what it has. */
struct agent_memories {
        struct iommud_client *client;
        struct iommud_memory **all;
        size_t n, room;
};

/* As agent_with(); a command may add one to *m. */
bool agent_memory(const char *name, const char *args, struct agent_memories *m, char answer[AGENT_ANSWER_MAX]);
