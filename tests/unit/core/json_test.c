// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"

#include <cmocka.h>

static int setup(void **state)
{
	struct json *j = malloc(sizeof(*j));

	if (!j)
		return -1;
	json_init(j, 1 << 20);
	*state = j;
	return 0;
}

static int teardown(void **state)
{
	json_done(*state);
	free(*state);
	return 0;
}

static void expect(const struct json *j, const char *want)
{
	assert_int_equal(json_error(j), 0);
	assert_int_equal(j->len, strlen(want));
	assert_string_equal(j->buf, want);
}

static void commas_and_nesting_are_placed_by_the_writer(void **state)
{
	struct json *j = *state;

	json_object_begin(j);
	json_key(j, "a");
	json_array_begin(j);
	json_u64(j, UINT64_MAX);
	json_i64(j, INT64_MIN);
	json_array_begin(j);
	json_array_end(j);
	json_object_begin(j);
	json_object_end(j);
	json_null(j);
	json_array_end(j);
	json_kv_bool(j, "b", true);
	json_kv_bool(j, "c", false);
	json_kv_string(j, "d", NULL);
	json_key(j, "e");
	json_raw(j, "[1,2]", 5);
	json_kv_u64(j, "f", 0);
	json_kv_i64(j, "g", -1);
	json_kv_string(j, "", "");
	json_object_end(j);
	expect(j, "{\"a\":[18446744073709551615,-9223372036854775808,[],{},null],\"b\":true,"
		  "\"c\":false,\"d\":null,\"e\":[1,2],\"f\":0,\"g\":-1,\"\":\"\"}");
}

static void what_would_break_a_string_is_escaped(void **state)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
	    {"plain /", "\"plain /\""},
	    {"\"quoted\"", "\"\\\"quoted\\\"\""},
	    {"back\\slash", "\"back\\\\slash\""},
	    {"\n\t", "\"\\n\\t\""},
	    {"\r\b\f\x01\x1f", "\"\\u000d\\u0008\\u000c\\u0001\\u001f\""},
	    {"\x7f", "\"\\u007f\""},
	    {"\x1b[31m", "\"\\u001b[31m\""},
	    {"", "\"\""},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_reset(*state);
		json_string(*state, rows[i].in);
		expect(*state, rows[i].out);
	}
	json_reset(*state);
	json_string_n(*state, "a\0b", 3);
	expect(*state, "\"a\\u0000b\"");
}

#define FFFD "\xef\xbf\xbd"

/* RFC 3629: overlong forms, surrogates, beyond U+10FFFF and cut sequences are not UTF-8. */
static void bytes_that_are_not_utf8_become_the_replacement_character(void **state)
{
	static const struct {
		const char *in, *out;
	} rows[] = {
	    {"\xc3\xa9", "\"\xc3\xa9\""},
	    {"\xe2\x82\xac", "\"\xe2\x82\xac\""},
	    {"\xf0\x9f\x98\x80", "\"\xf0\x9f\x98\x80\""},
	    {"\xf4\x8f\xbf\xbf", "\"\xf4\x8f\xbf\xbf\""},
	    {"\x80", "\"" FFFD "\""},
	    {"\xff\xfe", "\"" FFFD FFFD "\""},
	    {"\xc0\xaf", "\"" FFFD FFFD "\""},
	    {"\xe0\x80\xaf", "\"" FFFD FFFD FFFD "\""},
	    {"\xed\xa0\x80", "\"" FFFD FFFD FFFD "\""},
	    {"\xf4\x90\x80\x80", "\"" FFFD FFFD FFFD FFFD "\""},
	    {"\xf8\x88\x80\x80\x80", "\"" FFFD FFFD FFFD FFFD FFFD "\""},
	    {"a\xc3", "\"a" FFFD "\""},
	    {"\xe2\x82", "\"" FFFD FFFD "\""},
	    {"\xf0\x9f\x98", "\"" FFFD FFFD FFFD "\""},
	    {"\xc3(", "\"" FFFD "(\""},
	    {"\xe2\x82\"", "\"" FFFD FFFD "\\\"\""},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		json_reset(*state);
		json_string(*state, rows[i].in);
		expect(*state, rows[i].out);
	}
}

/* A sequence cut by the length that was given is not completed from beyond it. */
static void a_string_ends_where_its_length_says(void **state)
{
	json_string_n(*state, "\xe2\x82\xac", 2);
	expect(*state, "\"" FFFD FFFD "\"");
}

static void keys_are_escaped_like_values(void **state)
{
	struct json *j = *state;

	json_object_begin(j);
	json_kv_u64(j, "a\"b\n\xff", 1);
	json_object_end(j);
	expect(j, "{\"a\\\"b\\n" FFFD "\":1}");
}

static void a_double_reads_back_as_itself(void **state)
{
	static const double rows[] = {
	    0,	     1,	      -1,    0.1,    1.0 / 3, 1e-9,    123456789.125,
	    DBL_MAX, DBL_MIN, 1e300, 0.0443, 5e-324,  -2.5e-7, 1e15};
	static const struct {
		double in;
		const char *out;
	} exact[] = {
	    {0.25, "0.25"}, {100, "100"}, {NAN, "null"}, {INFINITY, "null"}, {-INFINITY, "null"}};

	srand(4);
	for (size_t i = 0; i < 10000 + sizeof(rows) / sizeof(rows[0]); i++) {
		double v = i < 10000 ? ldexp((double)rand(), rand() % 200 - 100) : rows[i - 10000];
		struct json *j = *state;

		json_reset(j);
		json_double(j, v);
		assert_int_equal(json_error(j), 0);
		assert_true(strtod(j->buf, NULL) == v);
	}
	for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++) {
		json_reset(*state);
		json_double(*state, exact[i].in);
		expect(*state, exact[i].out);
	}
}

static void nesting_is_checked(void **state)
{
	struct json *j = *state;

	json_object_begin(j);
	assert_int_equal(json_error(j), -EINVAL); /* still open */
	json_object_end(j);
	assert_int_equal(json_error(j), 0);
	json_object_end(j);
	assert_int_equal(json_error(j), -EINVAL);
	json_reset(j);
	json_object_begin(j);
	json_key(j, "a");
	json_object_end(j); /* a key without its value */
	assert_int_equal(json_error(j), -EINVAL);
	json_reset(j);
	json_array_begin(j);
	json_newline(j); /* a line ends within a value */
	json_array_end(j);
	assert_int_equal(json_error(j), -EINVAL);
}

static void the_deepest_nesting_is_named_and_deeper_is_an_error(void **state)
{
	struct json *j = *state;

	for (int i = 0; i < JSON_DEPTH_MAX - 1; i++)
		json_array_begin(j);
	for (int i = 0; i < JSON_DEPTH_MAX - 1; i++)
		json_array_end(j);
	assert_int_equal(json_error(j), 0);
	json_reset(j);
	for (int i = 0; i < 1000; i++)
		json_array_begin(j);
	for (int i = 0; i < 1000; i++)
		json_array_end(j);
	assert_int_equal(json_error(j), -EINVAL);
}

static void a_buffer_never_grows_beyond_its_maximum(void **state)
{
	struct json j;

	(void)state;
	for (size_t max = 2; max < 40; max++) {
		json_init(&j, max);
		for (int i = 0; i < 30; i++)
			json_string(&j, "x");
		assert_int_equal(json_error(&j), -E2BIG);
		assert_true(j.cap <= max && j.len < max);
		json_reset(&j); /* the error goes with what caused it */
		json_u64(&j, 7);
		assert_int_equal(json_error(&j), 0);
		assert_string_equal(j.buf, "7");
		json_done(&j);
	}
}

static void lines_follow_each_other(void **state)
{
	struct json *j = *state;

	for (int i = 0; i < 2; i++) {
		json_object_begin(j);
		json_kv_u64(j, "n", (uint64_t)i);
		json_object_end(j);
		json_newline(j);
	}
	expect(j, "{\"n\":0}\n{\"n\":1}\n");
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    T(commas_and_nesting_are_placed_by_the_writer),
	    T(what_would_break_a_string_is_escaped),
	    T(bytes_that_are_not_utf8_become_the_replacement_character),
	    T(a_string_ends_where_its_length_says),
	    T(keys_are_escaped_like_values),
	    T(a_double_reads_back_as_itself),
	    T(nesting_is_checked),
	    T(the_deepest_nesting_is_named_and_deeper_is_an_error),
	    T(a_buffer_never_grows_beyond_its_maximum),
	    T(lines_follow_each_other),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
