// SPDX-License-Identifier: Apache-2.0
#include "core/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/json.h"

#define LOG_LINE_MAX 4096 /* one write(2): lines of two processes do not mix */

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static enum log_level min_level = LOG_INFO;
static enum log_format line_format = LOG_CONSOLE;
static unsigned long long errors;

void log_setup(enum log_level level, enum log_format format)
{
	min_level = level;
	line_format = format;
}

int log_level_parse(const char *s, enum log_level *ret)
{
	for (unsigned int i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
		if (!strcmp(s, level_names[i])) {
			*ret = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

unsigned long long log_errors_total(void)
{
	return errors;
}

static size_t put_code(char *out, size_t at, unsigned int code)
{
	static const char hex[] = "0123456789abcdef";

	memcpy(out + at, "\\u00", 4);
	out[at + 4] = hex[code >> 4];
	out[at + 5] = hex[code & 15];
	return at + 6;
}

/* Appends s to out, escaping what would end a line or a JSON string, or speak to a terminal:
 * control characters, those of U+0080 to U+009F as well. Bytes that are not UTF-8 become U+FFFD. */
static size_t escape(char *out, size_t at, size_t size, const char *s)
{
	size_t left = strlen(s), len;

	for (; left && at + 7 < size; s += len, left -= len) {
		unsigned char c = (unsigned char)*s;

		len = json_utf8_length(s, left);
		if (!len) {
			len = 1;
			memcpy(out + at, "\xef\xbf\xbd", 3);
			at += 3;
		} else if (c == '"' || c == '\\') {
			if (line_format == LOG_JSON)
				out[at++] = '\\';
			out[at++] = (char)c;
		} else if (c < 0x20 || c == 0x7f) {
			at = put_code(out, at, c);
		} else if (c == 0xc2 && (unsigned char)s[1] < 0xa0) {
			at = put_code(out, at, (unsigned char)s[1]);
		} else {
			memcpy(out + at, s, len);
			at += len;
		}
	}
	return at;
}

static void emit(enum log_level level, const char *msg)
{
	char line[LOG_LINE_MAX], time[31];
	size_t at;
	ssize_t n;

	clock_format_rfc3339(clock_real_ns(), time);
	if (line_format == LOG_JSON) {
		at = (size_t)snprintf(line, sizeof(line),
				      "{\"time\":\"%s\",\"level\":\"%s\",\"msg\":\"", time,
				      level_names[level]);
		at = escape(line, at, sizeof(line) - 4, msg);
		memcpy(line + at, "\"}\n", 3);
		at += 3;
	} else {
		at = (size_t)snprintf(line, sizeof(line), "%.23sZ %-5s ", time, level_names[level]);
		at = escape(line, at, sizeof(line) - 2, msg);
		line[at++] = '\n';
	}
	n = write(STDERR_FILENO, line, at);
	(void)n; /* there is nowhere left to report it */
}

void log_write(enum log_level level, const char *fmt, ...)
{
	char msg[LOG_LINE_MAX];
	va_list ap;

	if (level == LOG_ERROR)
		errors++;
	if (level < min_level)
		return;
	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	emit(level, msg);
}

int log_err(int err, const char *fmt, ...)
{
	char msg[LOG_LINE_MAX];
	va_list ap;
	int n;

	errors++;
	va_start(ap, fmt);
	n = vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(msg))
		snprintf(msg + n, sizeof(msg) - (size_t)n, ": %s", strerror(-err));
	emit(LOG_ERROR, msg);
	return err;
}
