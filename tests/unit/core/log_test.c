// SPDX-License-Identifier: Apache-2.0
/* What log_write() puts on standard error, seen through a pipe. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/log.h"

#include <cmocka.h>

static int saved_stderr, pipe_fds[2];
static char out[65536];

static int setup(void **state)
{
	(void)state;
	saved_stderr = dup(STDERR_FILENO);
	if (saved_stderr < 0 || pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) ||
	    dup2(pipe_fds[1], STDERR_FILENO) < 0)
		return -1;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	log_setup(LOG_INFO, LOG_CONSOLE);
	return 0;
}

/* What was written since the last call. */
static const char *written(void)
{
	ssize_t n = read(pipe_fds[0], out, sizeof(out) - 1);

	out[n > 0 ? n : 0] = '\0';
	return out;
}

static void a_json_record_is_one_line_that_parses(void **state)
{
	json_error_t err;
	json_t *j;

	(void)state;
	log_setup(LOG_DEBUG, LOG_JSON);
	log_warn("said \"%s\" \\ and\n%s", "hello", "\x1b[31mred\x07\x7f");
	j = json_loads(written(), 0, &err);
	assert_non_null(j);
	assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
	assert_string_equal(json_string_value(json_object_get(j, "level")), "warn");
	assert_string_equal(json_string_value(json_object_get(j, "msg")),
			    "said \"hello\" \\ and\n\x1b[31mred\x07\x7f");
	/* RFC 3339 in UTC */
	assert_int_equal(strlen(json_string_value(json_object_get(j, "time"))), 30);
	assert_int_equal(json_string_value(json_object_get(j, "time"))[29], 'Z');
	json_decref(j);
}

static void bytes_that_are_not_utf8_still_make_valid_json(void **state)
{
	json_error_t err;
	json_t *j;

	(void)state;
	log_setup(LOG_DEBUG, LOG_JSON);
	log_info("caf\xc3\xa9 \xff\xc3");
	j = json_loads(written(), 0, &err);
	assert_non_null(j);
	assert_string_equal(json_string_value(json_object_get(j, "msg")),
			    "caf\xc3\xa9 \xef\xbf\xbd\xef\xbf\xbd");
	json_decref(j);
}

static void no_control_character_reaches_a_terminal(void **state)
{
	(void)state;
	log_setup(LOG_DEBUG, LOG_CONSOLE);
	log_info("a\nb\r\x1b[2J\x7f\tc \"quoted\" \xc2\x9b"
		 "31m");
	written();
	assert_non_null(strstr(out, "a\\u000ab\\u000d\\u001b[2J\\u007f\\u0009c \"quoted\""));
	assert_non_null(strstr(out, " info  "));
	for (const char *s = out; s[1]; s++) {
		assert_true((unsigned char)*s >= 0x20 && *s != 0x7f);
		/* U+0080 to U+009F are control characters as well: CSI is U+009B */
		assert_false((unsigned char)s[0] == 0xc2 && (unsigned char)s[1] < 0xa0);
	}
	assert_int_equal(out[strlen(out) - 1], '\n');
}

static void records_below_the_level_are_not_written(void **state)
{
	static const enum log_level levels[] = {LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR};

	(void)state;
	for (size_t min = 0; min < 4; min++) {
		for (size_t at = 0; at < 4; at++) {
			log_setup(levels[min], LOG_CONSOLE);
			log_write(levels[at], "here");
			if (at < min)
				assert_string_equal(written(), "");
			else
				assert_non_null(strstr(written(), "here"));
		}
	}
}

static void a_record_is_cut_to_one_write(void **state)
{
	static char message[20000];
	static const enum log_format formats[] = {LOG_CONSOLE, LOG_JSON};

	(void)state;
	memset(message, '\n', sizeof(message) - 1); /* six bytes each when escaped */
	for (size_t i = 0; i < 2; i++) {
		log_setup(LOG_INFO, formats[i]);
		log_info("%s", message);
		written();
		assert_in_range(strlen(out), 3000, 4096);
		assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);
	}
}

static void an_errno_is_put_into_words_and_counted(void **state)
{
	unsigned long long before = log_errors_total();

	(void)state;
	log_setup(LOG_ERROR, LOG_CONSOLE);
	assert_int_equal(log_err(-ENOENT, "cannot open %s", "x"), -ENOENT);
	assert_non_null(strstr(written(), "cannot open x: No such file or directory"));
	log_error("again");
	log_warn("no error");
	assert_int_equal(log_errors_total() - before, 2);
}

static void levels_have_names_and_others_are_refused(void **state)
{
	static const char *const names[] = {"debug", "info", "warn", "error"};
	enum log_level level;

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(log_level_parse(names[i], &level), 0);
		assert_int_equal(level, i);
	}
	assert_int_equal(log_level_parse("warning", &level), -EINVAL);
	assert_int_equal(log_level_parse("", &level), -EINVAL);
	assert_int_equal(log_level_parse("INFO", &level), -EINVAL);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(a_json_record_is_one_line_that_parses),
	    T(bytes_that_are_not_utf8_still_make_valid_json),
	    T(no_control_character_reaches_a_terminal),
	    T(records_below_the_level_are_not_written),
	    T(a_record_is_cut_to_one_write),
	    T(an_errno_is_put_into_words_and_counted),
	    T(levels_have_names_and_others_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
