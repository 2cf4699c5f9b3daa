/* SPDX-License-Identifier: Apache-2.0 */
#include "agent.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

void agent_start(struct agent *a) {
        char program[PATH_MAX];
        char *argv[] = { program, NULL };
        int in[2], out[2];

        harness_program("tests/client_agent", program, sizeof program);
        assert_int_equal(pipe2(in, O_CLOEXEC), 0);
        assert_int_equal(pipe2(out, O_CLOEXEC), 0);
        a->pid = harness_spawn(argv, in[0], out[1], NULL);
        close(in[0]);
        close(out[1]);
        a->to = fdopen(in[1], "w");
        a->from = fdopen(out[0], "r");
        assert_non_null(a->to);
        assert_non_null(a->from);
}

static const char *ask(struct agent *a, const char *format, va_list args) {
        (void)vfprintf(a->to, format, args);
        (void)fputc('\n', a->to);
        assert_int_equal(fflush(a->to), 0);
        if (!fgets(a->answer, sizeof a->answer, a->from))
                fail_msg("the agent ended at '%s'", format);
        a->answer[strcspn(a->answer, "\n")] = '\0';
        return a->answer;
}

const char *agent_ask(struct agent *a, const char *format, ...) {
        va_list args;
        const char *answer;

        va_start(args, format);
        answer = ask(a, format, args);
        va_end(args);
        return answer;
}

const char *agent_ok(struct agent *a, const char *format, ...) {
        va_list args;
        const char *answer;

        va_start(args, format);
        answer = ask(a, format, args);
        va_end(args);
        if (strncmp(answer, "ok", 2) != 0)
                fail_msg("'%s' was answered: %s", format, answer);
        return answer[2] ? answer + 3 : "";
}

const char *agent_refused(struct agent *a, int error, int reason, const char *format, ...) {
        int got_error = 0, got_reason = 0, text = 0;
        va_list args;
        const char *answer;

        va_start(args, format);
        answer = ask(a, format, args);
        va_end(args);
        if (sscanf(answer, "err %d %d %n", &got_error, &got_reason, &text) != 2 || got_error != error ||
            got_reason != reason)
                fail_msg("'%s' was answered: %s", format, answer);
        return answer + text;
}

static void clear(struct agent *a) {
        (void)fclose(a->to);
        (void)fclose(a->from);
        a->to = a->from = NULL;
}

void agent_kill(struct agent *a) {
        assert_int_equal(kill(a->pid, SIGKILL), 0);
        assert_int_equal(harness_wait(a->pid, HARNESS_PATIENCE_MS), 128 + SIGKILL);
        clear(a);
}

void agent_end(struct agent *a) {
        (void)fclose(a->to);
        a->to = NULL;
        assert_int_equal(harness_wait(a->pid, HARNESS_PATIENCE_MS), 0);
        (void)fclose(a->from);
        a->from = NULL;
}
