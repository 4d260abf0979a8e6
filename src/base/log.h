/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log.  Lines go to stderr (foreground; with "<N>" priority prefixes when
 * stderr is the journal, i.e. JOURNAL_STREAM is set) or to syslog (background).
 * A line that its reader does not take at once is dropped and counted: the log
 * never blocks its caller.
 * May be called from any thread.  The level is the only global of the program.
 */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_LVL_ERROR, LOG_LVL_WARN, LOG_LVL_INFO, LOG_LVL_DEBUG };
enum log_target { LOG_TO_STDERR, LOG_TO_SYSLOG };

/* ident must outlive the process's use of the log (a string constant). */
void log_open(const char *ident, enum log_target target);
void log_set_level(enum log_level level);
bool log_wants(enum log_level level);

void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LVL_ERROR, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LVL_WARN, __VA_ARGS__)
#define log_info(...) log_line(LOG_LVL_INFO, __VA_ARGS__)
#define log_debug(...)                                                                             \
	do {                                                                                       \
		if (log_wants(LOG_LVL_DEBUG))                                                      \
			log_line(LOG_LVL_DEBUG, __VA_ARGS__);                                      \
	} while (0)

#endif
