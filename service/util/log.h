/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/*
 * Logging: to the journal with structured fields when stderr is the journal ($JOURNAL_STREAM matches), to stderr
 * otherwise. Thread-safe; never fails, never blocks on anything but the log sink.
 * level is a syslog priority (LOG_ERR, LOG_WARNING, LOG_NOTICE, LOG_INFO, LOG_DEBUG). log_set_max_level() sets the
 * least important level that is still written (default LOG_INFO).
 */
#include <syslog.h>

void log_open(const char *identifier);
void log_set_max_level(int level);
void log_write(int level, const char *file, int line, const char *func, const char *format, ...)
        __attribute__((format(printf, 5, 6)));

#define log_error(...) log_write(LOG_ERR, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define log_notice(...) log_write(LOG_NOTICE, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __FILE__, __LINE__, __func__, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __FILE__, __LINE__, __func__, __VA_ARGS__)
