/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdio.h>
#include <sys/types.h>

/*
 * The test's end of a client_agent: a client process that can be killed. client_agent.c has its commands.
 */
struct agent {
        pid_t pid;
        FILE *to, *from;
        char answer[1024];
};

void agent_start(struct agent *a);
/* One command; the whole answer. */
const char *agent_ask(struct agent *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, "ok" is demanded; what follows it. */
const char *agent_ok(struct agent *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same, a refusal with this errno and reason is demanded; its text. */
const char *agent_refused(struct agent *a, int error, int reason, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
/* SIGKILL, and gone. */
void agent_kill(struct agent *a);
/* Its input ends and so does it, without a word to the service. */
void agent_end(struct agent *a);
