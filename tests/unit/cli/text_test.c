// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/views.h"

#include <cmocka.h>

static void durations_read_as_a_person_writes_them(void **state)
{
	static const struct {
		double s;
		const char *text;
	} rows[] = {{15e-6, "15us"},	  {999e-6, "999us"}, {1.234e-3, "1.23ms"},
		    {12.34e-3, "12.3ms"}, {0.25, "250ms"},   {2.3, "2.30s"},
		    {120, "120s"},	  {NAN, "-"},	     {INFINITY, "-"}};
	char buf[16];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_string_equal(cli_seconds(rows[i].s, buf), rows[i].text);
}

static void numbers_keep_three_digits(void **state)
{
	char buf[16];

	(void)state;
	assert_string_equal(cli_number(0, buf), "0");
	assert_string_equal(cli_number(0.25, buf), "0.2");
	assert_string_equal(cli_number(9999, buf), "9999");
	assert_string_equal(cli_number(12345, buf), "12.3k");
	assert_string_equal(cli_number(5e6, buf), "5000.0k");
	assert_string_equal(cli_number(NAN, buf), "-");
	assert_string_equal(cli_percent(0.00001, buf), "<0.01");
	assert_string_equal(cli_percent(0.5, buf), "50.0");
	assert_string_equal(cli_percent(0, buf), "0.00");
}

static void outside_bytes_cannot_drive_the_terminal(void **state)
{
	char buf[32];

	(void)state;
	cli_safe("a\x1b[2Jb\r\n\x7f\x9b", buf, sizeof(buf));
	assert_string_equal(buf, "a?[2Jb????");
	cli_safe("123456789", buf, 5);
	assert_string_equal(buf, "1234");
}

static void a_near_word_is_suggested_and_a_far_one_is_not(void **state)
{
	static const char *const words[] = {"services", "service", "status"};

	(void)state;
	assert_string_equal(cli_suggest("servces", words, 3), "services");
	assert_string_equal(cli_suggest("stats", words, 3), "status");
	assert_null(cli_suggest("frobnicate", words, 3));
	assert_null(cli_suggest("a-word-that-is-longer-than-any-command-name", words, 3));
}

static struct cli_response parse(const char *raw, int want)
{
	struct cli_response r = {0};

	assert_int_equal(cli_http_parse(raw, strlen(raw), &r), want);
	return r;
}

static void answers_are_taken_whole_or_not_at_all(void **state)
{
	struct cli_response r;

	(void)state;
	r = parse("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}extra", 0);
	assert_int_equal(r.status, 200);
	assert_string_equal(r.body, "{}");
	free(r.body);
	r = parse(
	    "HTTP/1.1 404 x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
	    0);
	assert_int_equal(r.status, 404);
	assert_string_equal(r.body, "abcde");
	free(r.body);
	parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", -EBADMSG);
	parse("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabc", -EBADMSG);
	parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\nabc", -EBADMSG);
	parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab", -EBADMSG);
	parse("HTTP/1.1 2x0 OK\r\n\r\n", -EBADMSG);
	parse("HTTP/1.1 200 OK\r\nno end", -EBADMSG);
	parse("", -EBADMSG);
}

static void a_name_becomes_one_path_segment(void **state)
{
	char buf[64] = "/c/", small[8] = "";

	(void)state;
	assert_int_equal(cli_encode("a->[::1]:80/x", buf, sizeof(buf)), 0);
	assert_string_equal(buf, "/c/a-%3E%5B%3A%3A1%5D%3A80%2Fx");
	assert_int_equal(cli_encode("longer than that", small, sizeof(small)), -ENAMETOOLONG);
}

static void a_narrow_terminal_cuts_the_last_column(void **state)
{
	static const char *const headers[] = {"NAME", "N", "TEXT"};
	struct cli c = {.headers = true};
	struct cli_table *t;
	char buf[512];

	(void)state;
	assert_int_equal(cli_table_new(&t, &c, headers, 3), 0);
	cli_table_layout(t, 1u << 1, 0);
	cli_table_cell(t, "nginx");
	cli_table_cell(t, "7");
	cli_table_cell(t, "a long reason that does not fit");
	cli_table_render(&t, 22, 0, 10, false, buf, sizeof(buf));
	assert_string_equal(buf, "NAME   N  TEXT\nnginx  7  a long reaso\n");
}

static void a_narrow_terminal_keeps_the_name_and_its_health(void **state)
{
	static const char *const headers[] = {"NAME", "RATE", "P99", "HEALTH", "REASON"};
	static const char *const cells[] = {"nginx", "100.0", "19.4ms", "degraded", "error ratio"};
	static const struct {
		unsigned int width;
		const char *line;
	} want[] = {
	    {80, "nginx  100.0  19.4ms  degraded  error ratio\n"},
	    {40, "nginx  100.0  19.4ms  degraded  error ra\n"},
	    {30, "nginx  100.0  19.4ms  degraded\n"},
	    {25, "nginx  100.0  degraded\n"},
	    {16, "nginx  degraded\n"},
	    {13, "ngi  degraded\n"},
	    {3, "n  degraded\n"},
	};
	struct cli c = {0};
	char buf[512];

	(void)state;
	for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
		struct cli_table *t;

		assert_int_equal(cli_table_new(&t, &c, headers, 5), 0);
		cli_table_layout(t, 6, 0);
		for (int k = 0; k < 5; k++)
			cli_table_cell(t, cells[k]);
		cli_table_render(&t, want[i].width, 0, 10, false, buf, sizeof(buf));
		assert_string_equal(buf, want[i].line);
	}
}

static void rows_are_skipped_and_bounded(void **state)
{
	static const char *const headers[] = {"A"};
	struct cli c = {.headers = false};
	struct cli_table *t;
	char buf[64];

	(void)state;
	assert_int_equal(cli_table_new(&t, &c, headers, 1), 0);
	for (const char *s = "abcde"; *s; s++)
		cli_table_cell(t, (char[]){*s, 0});
	cli_table_render(&t, 0, 1, 2, false, buf, sizeof(buf));
	assert_string_equal(buf, "b\nc\n");
}

static void services_sort_by_what_is_asked(void **state)
{
	json_t *items = json_loads(
	    "[{\"name\":\"b\",\"server\":{\"1m\":{\"requests\":1,\"rate\":5}},\"health\":{\"state\":\"healthy\"}},"
	    "{\"name\":\"a\",\"server\":{\"1m\":{\"requests\":1,\"rate\":9}},\"health\":{\"state\":\"unknown\"}},"
	    "{\"name\":\"c\",\"server\":{\"1m\":{\"requests\":0,\"rate\":null}},\"health\":{\"state\":\"unhealthy\"}}]",
	    0, NULL);

	(void)state;
	assert_non_null(items);
	view_sort(items, SORT_RATE, false, "1m", false);
	assert_string_equal(cli_text(json_array_get(items, 0), "name"), "a");
	assert_string_equal(cli_text(json_array_get(items, 2), "name"), "c");
	view_sort(items, SORT_HEALTH, false, "1m", false);
	assert_string_equal(cli_text(json_array_get(items, 0), "name"), "c");
	view_sort(items, SORT_NAME, true, "1m", false);
	assert_string_equal(cli_text(json_array_get(items, 0), "name"), "c");
	json_decref(items);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(durations_read_as_a_person_writes_them),
	    cmocka_unit_test(numbers_keep_three_digits),
	    cmocka_unit_test(outside_bytes_cannot_drive_the_terminal),
	    cmocka_unit_test(a_near_word_is_suggested_and_a_far_one_is_not),
	    cmocka_unit_test(answers_are_taken_whole_or_not_at_all),
	    cmocka_unit_test(a_name_becomes_one_path_segment),
	    cmocka_unit_test(a_narrow_terminal_cuts_the_last_column),
	    cmocka_unit_test(a_narrow_terminal_keeps_the_name_and_its_health),
	    cmocka_unit_test(rows_are_skipped_and_bounded),
	    cmocka_unit_test(services_sort_by_what_is_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
