/* SPDX-License-Identifier: Apache-2.0 */
#include "util/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <systemd/sd-journal.h>

static const char *identifier = "iommud";
static bool to_journal;
static atomic_int max_level = LOG_INFO;

/* systemd.exec(5): $JOURNAL_STREAM holds device:inode of the stream that stdout or stderr was connected to. */
static bool stderr_is_journal(void) {
        const char *stream = getenv("JOURNAL_STREAM");
        unsigned long long dev, ino;
        struct stat st;

        return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
               st.st_dev == (dev_t)dev && st.st_ino == (ino_t)ino;
}

void log_open(const char *name) {
        identifier = name;
        to_journal = stderr_is_journal();
}

void log_set_max_level(int level) {
        atomic_store(&max_level, level);
}

void log_write(int level, const char *file, int line, const char *func, const char *format, ...) {
        char text[2048], code_file[256], code_line[32];
        va_list args;

        if (level > atomic_load(&max_level))
                return;
        va_start(args, format);
        (void)vsnprintf(text, sizeof text, format, args);
        va_end(args);
        if (!to_journal) {
                static const char *const names[] = { "emerg", "alert", "crit", "error", "warning", "notice", "info", "debug" };
                fprintf(stderr, "%s[%d]: %s: %s\n", identifier, (int)getpid(), names[level & 7], text);
                return;
        }
        (void)snprintf(code_file, sizeof code_file, "CODE_FILE=%s", file);
        (void)snprintf(code_line, sizeof code_line, "CODE_LINE=%d", line);
        (void)sd_journal_send_with_location(code_file, code_line, func, "MESSAGE=%s", text, "PRIORITY=%d", level,
                                            "SYSLOG_IDENTIFIER=%s", identifier, NULL);
}
