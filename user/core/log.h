/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Structured log to stderr, one line a record: JSON ({"time","level","msg",...}) or console.
 * Leaf code does not log; the caller that knows the subject does, once.
 * `fields` are printf-free key/value pairs built with the LOG_* macros' format string.
 */
#ifndef KILTER_CORE_LOG_H
#define KILTER_CORE_LOG_H

enum log_level {
	LOG_DEBUG,
	LOG_INFO,
	LOG_WARN,
	LOG_ERROR
};
enum log_format {
	LOG_CONSOLE,
	LOG_JSON
};

void log_setup(enum log_level level, enum log_format format);
int log_level_parse(const char *s, enum log_level *ret); /* -EINVAL */
/* Escapes control characters; a record is one write(2) of at most 4 KiB. */
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Logs "<message>: <strerror(-err)>" at error level and returns err (negative errno). */
int log_err(int err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
unsigned long long log_errors_total(void); /* records at error level since start */

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#endif
