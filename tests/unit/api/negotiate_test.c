// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/negotiate.h"

#include <cmocka.h>

#define OPENMETRICS "application/openmetrics-text"

static void weights_are_read_as_rfc_9110_writes_them(void **state)
{
	static const struct {
		const char *list, *name;
		int weight;
	} rows[] = {
	    {"gzip", "gzip", 1000},
	    {"GZIP", "gzip", 1000},
	    {"deflate, gzip;q=0.5", "gzip", 500},
	    {"gzip;q=0.125", "gzip", 125},
	    {"gzip ; q=1.0", "gzip", 1000},
	    {"gzip;Q=0.3", "gzip", 300},
	    {"gzip;q=0", "gzip", 0},
	    {"gzip;q=0.000", "gzip", 0},
	    {"br", "gzip", -1},
	    {"", "gzip", -1},
	    {",,,", "gzip", -1},
	    {"xgzip, gzipx", "gzip", -1},
	    {"*;q=0.1", "gzip", 100},
	    {"*;q=0, gzip;q=0.2", "gzip", 200},
	    {"gzip;q=0.2, *;q=1", "gzip", 200},
	    {"gzip;q=2", "gzip", 0},
	    {"gzip;q=-1", "gzip", 0},
	    {"gzip;q=", "gzip", 0},
	    {"gzip;q=0.5x", "gzip", 0},
	    {"gzip;q=1.001", "gzip", 0},
	    {"*/*", OPENMETRICS, 1000},
	    {"application/*;q=0.4", OPENMETRICS, 400},
	    {"text/*;q=0.4", OPENMETRICS, -1},
	    {"*/*;q=0.9, application/*;q=0.4, " OPENMETRICS ";q=0.1", OPENMETRICS, 100},
	    {OPENMETRICS ";version=1.0.0;q=0.5", OPENMETRICS, 500},
	    {OPENMETRICS "; version=\"1.0.0\" ; q=0.75 , text/plain", OPENMETRICS, 750},
	};

	(void)state;
	assert_int_equal(negotiate_weight(NULL, "gzip"), -1);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		int got = negotiate_weight(rows[i].list, rows[i].name);

		if (got != rows[i].weight)
			fail_msg("'%s' gives %s %d, expected %d", rows[i].list, rows[i].name, got,
				 rows[i].weight);
	}
}

/* As Prometheus 2.42, 2.53 and 3.5 send them. */
static void real_scrapers_prefer_openmetrics_over_text(void **state)
{
	static const char *const accepts[] = {
	    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
	    "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
	    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
	    "encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,"
	    "application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5",
	    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
	    "encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;"
	    "escaping=allow-utf-8;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(accepts) / sizeof(accepts[0]); i++)
		assert_true(negotiate_weight(accepts[i], OPENMETRICS) >
			    negotiate_weight(accepts[i], "text/plain"));
	assert_true(negotiate_weight("text/plain;version=0.0.4", "text/plain") >
		    negotiate_weight("text/plain;version=0.0.4", OPENMETRICS));
}

static void answers_are_compressed_for_those_who_take_it(void **state)
{
	(void)state;
	assert_true(negotiate_gzip("gzip"));
	assert_true(negotiate_gzip("deflate, gzip;q=0.8"));
	assert_true(negotiate_gzip("*"));
	assert_false(negotiate_gzip(NULL));
	assert_false(negotiate_gzip(""));
	assert_false(negotiate_gzip("identity"));
	assert_false(negotiate_gzip("gzip;q=0"));
	assert_false(negotiate_gzip("*;q=0"));
	assert_false(negotiate_gzip("gzip;q=0.2, identity;q=0.8"));
}

static void names_are_decoded_once_and_within_their_room(void **state)
{
	static const struct {
		const char *in, *out;
		size_t size;
		int err;
	} rows[] = {
	    {"nginx", "nginx", 16, 0},
	    {"curl-%3E127.0.0.1%3a80", "curl->127.0.0.1:80", 32, 0},
	    {"a%2Fb", "a/b", 16, 0},
	    {"%25%33%45", "%3E", 16, 0}, /* once: what comes out is not looked at again */
	    {"%c3%a4", "\xc3\xa4", 16, 0},
	    {"", "", 1, 0},
	    {"abc", "abc", 4, 0},
	    {"abc", NULL, 3, -ENAMETOOLONG},
	    {"%61%62%63", NULL, 3, -ENAMETOOLONG},
	    {"", NULL, 0, -ENAMETOOLONG},
	    {"%", NULL, 16, -EBADMSG},
	    {"%4", NULL, 16, -EBADMSG},
	    {"a%", NULL, 16, -EBADMSG},
	    {"%zz", NULL, 16, -EBADMSG},
	    {"%4g", NULL, 16, -EBADMSG},
	    {"% 41", NULL, 16, -EBADMSG},
	    {"%00", NULL, 16, -EBADMSG},
	    {"a%0ab", NULL, 16, -EBADMSG},
	    {"a%0D%0Ab", NULL, 16, -EBADMSG},
	    {"%7f", NULL, 16, -EBADMSG},
	    {"%1b[2J", NULL, 16, -EBADMSG},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		size_t n = strlen(rows[i].in);
		char *in = malloc(n ? n : 1), *out = malloc(rows[i].size ? rows[i].size : 1);
		int err;

		assert_non_null(in);
		assert_non_null(out);
		memcpy(in, rows[i].in, n); /* no NUL: ASan sees a read beyond */
		err = negotiate_decode(in, n, out, rows[i].size);
		if (err != rows[i].err)
			fail_msg("'%s' into %zu: %d, expected %d", rows[i].in, rows[i].size, err,
				 rows[i].err);
		if (!err)
			assert_string_equal(out, rows[i].out);
		free(in);
		free(out);
	}
}

static void numbers_are_decimal_and_within_their_range(void **state)
{
	static const char *const bad[] = {"",	"0",  "1001", "-1",	    "+1",	   " 1",
					  "1 ", "1x", "0x1",  "4294967297", "99999999999", "1.0"};
	uint32_t v = 7;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(negotiate_u32(bad[i], 1, 1000, &v), -EINVAL);
	assert_int_equal(v, 7);
	assert_int_equal(negotiate_u32("1000", 1, 1000, &v), 0);
	assert_int_equal(v, 1000);
	assert_int_equal(negotiate_u32("4294967295", 0, UINT32_MAX, &v), 0);
	assert_int_equal(v, UINT32_MAX);
}

static void ids_are_safe_in_a_header_a_log_and_a_file(void **state)
{
	char id[80];

	(void)state;
	assert_true(negotiate_id_valid("a"));
	assert_true(negotiate_id_valid("0123-abc_DEF.9"));
	assert_false(negotiate_id_valid(NULL));
	assert_false(negotiate_id_valid(""));
	assert_false(negotiate_id_valid("a b"));
	assert_false(negotiate_id_valid("a\r\nX-Evil: 1"));
	assert_false(negotiate_id_valid("a\"b"));
	assert_false(negotiate_id_valid("\xc3\xa4"));
	memset(id, 'a', sizeof(id));
	id[63] = '\0';
	assert_true(negotiate_id_valid(id));
	id[63] = 'a';
	id[65] = '\0';
	assert_false(negotiate_id_valid(id));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(weights_are_read_as_rfc_9110_writes_them),
	    cmocka_unit_test(real_scrapers_prefer_openmetrics_over_text),
	    cmocka_unit_test(answers_are_compressed_for_those_who_take_it),
	    cmocka_unit_test(names_are_decoded_once_and_within_their_room),
	    cmocka_unit_test(numbers_are_decimal_and_within_their_range),
	    cmocka_unit_test(ids_are_safe_in_a_header_a_log_and_a_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
