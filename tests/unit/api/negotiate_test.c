// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "api/http.h"
#include "api/negotiate.h"

#include <cmocka.h>

static void weights_follow_the_most_specific_range(void **state)
{
	(void)state;
	assert_int_equal(negotiate_weight("gzip", "gzip"), 1000);
	assert_int_equal(negotiate_weight("gzip;q=0.5", "gzip"), 500);
	assert_int_equal(negotiate_weight(" br , gzip ; q=0.123 ,*", "gzip"), 123);
	assert_int_equal(negotiate_weight("*;q=0.1, GZIP;Q=0", "gzip"), 0);
	assert_int_equal(negotiate_weight("*;q=0.1", "gzip"), 100);
	assert_int_equal(negotiate_weight("br", "gzip"), -1);
	assert_int_equal(negotiate_weight("", "gzip"), -1);
	assert_int_equal(negotiate_weight(NULL, "gzip"), -1);
	assert_int_equal(negotiate_weight("gzipx", "gzip"), -1);
	assert_int_equal(negotiate_weight(",,;q=1,,", "gzip"), -1);
	assert_int_equal(negotiate_weight("text/plain;version=0.0.4;q=0.3,*/*;q=0.1", "text/plain"),
			 300);
	assert_int_equal(negotiate_weight("text/*;q=0.2,*/*;q=0.9", "text/plain"), 200);
	assert_int_equal(negotiate_weight("*/*;q=0.9", "text/plain"), 900);
	assert_int_equal(negotiate_weight("*", "text/plain"), -1);
}

static void a_malformed_weight_is_none(void **state)
{
	static const char *const bad[] = {"gzip;q=",	"gzip;q=2",   "gzip;q=1.5",
					  "gzip;q=-1",	"gzip;q=.5",  "gzip;q=0.1234",
					  "gzip;q=0,5", "gzip;q=1e0", "gzip;q=x"};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		if (negotiate_weight(bad[i], "gzip"))
			fail_msg("%s", bad[i]);
}

static void gzip_is_used_only_when_it_is_wanted(void **state)
{
	(void)state;
	assert_true(negotiate_gzip("gzip"));
	assert_true(negotiate_gzip("gzip, deflate, br"));
	assert_true(negotiate_gzip("*"));
	assert_false(negotiate_gzip(NULL));
	assert_false(negotiate_gzip("identity"));
	assert_false(negotiate_gzip("gzip;q=0"));
	assert_false(negotiate_gzip("*;q=0"));
	assert_false(negotiate_gzip("gzip;q=0.5, identity"));
}

static void paths_are_decoded_once(void **state)
{
	char out[8];

	(void)state;
	assert_int_equal(negotiate_decode("a%20b", 5, out, sizeof(out)), 0);
	assert_string_equal(out, "a b");
	assert_int_equal(negotiate_decode("%2525", 5, out, sizeof(out)), 0);
	assert_string_equal(out, "%25");
	assert_int_equal(negotiate_decode("%2F", 3, out, sizeof(out)), 0);
	assert_string_equal(out, "/");
	assert_int_equal(negotiate_decode("a+b", 3, out, sizeof(out)), 0);
	assert_string_equal(out, "a+b");
	assert_int_equal(negotiate_decode("%c3%A9", 6, out, sizeof(out)), 0);
	assert_string_equal(out, "\xc3\xa9");
	assert_int_equal(negotiate_decode("%00", 3, out, sizeof(out)), -EBADMSG);
	assert_int_equal(negotiate_decode("%0a", 3, out, sizeof(out)), -EBADMSG);
	assert_int_equal(negotiate_decode("%zz", 3, out, sizeof(out)), -EBADMSG);
	assert_int_equal(negotiate_decode("%2", 2, out, sizeof(out)), -EBADMSG);
	assert_int_equal(negotiate_decode("%", 1, out, sizeof(out)), -EBADMSG);
	assert_int_equal(negotiate_decode("1234567", 7, out, sizeof(out)), 0);
	assert_int_equal(negotiate_decode("12345678", 8, out, sizeof(out)), -ENAMETOOLONG);
	assert_int_equal(negotiate_decode("", 0, out, 0), -ENAMETOOLONG);
}

static void numbers_have_bounds(void **state)
{
	uint32_t v = 0;

	(void)state;
	assert_int_equal(negotiate_u32("1000", 1, 1000, &v), 0);
	assert_int_equal(v, 1000);
	assert_int_equal(negotiate_u32("4294967295", 0, UINT32_MAX, &v), 0);
	assert_int_equal(negotiate_u32("4294967296", 0, UINT32_MAX, &v), -EINVAL);
	assert_int_equal(negotiate_u32("99999999999", 0, UINT32_MAX, &v), -EINVAL);
	assert_int_equal(negotiate_u32("0", 1, 1000, &v), -EINVAL);
	assert_int_equal(negotiate_u32("1001", 1, 1000, &v), -EINVAL);
	assert_int_equal(negotiate_u32("", 0, 9, &v), -EINVAL);
	assert_int_equal(negotiate_u32("-1", 0, 9, &v), -EINVAL);
	assert_int_equal(negotiate_u32(" 1", 0, 9, &v), -EINVAL);
	assert_int_equal(negotiate_u32("1x", 0, 9, &v), -EINVAL);
}

static void request_ids_are_safe_in_headers_and_logs(void **state)
{
	char id[65];

	(void)state;
	assert_true(negotiate_id_valid("a.B-9_"));
	assert_false(negotiate_id_valid(NULL));
	assert_false(negotiate_id_valid(""));
	assert_false(negotiate_id_valid("a b"));
	assert_false(negotiate_id_valid("a\r\nb"));
	assert_false(negotiate_id_valid("a\"b"));
	assert_false(negotiate_id_valid("caf\xc3\xa9"));
	memset(id, 'a', 64);
	id[64] = '\0';
	assert_false(negotiate_id_valid(id));
	assert_true(negotiate_id_valid(id + 1));
}

static void listen_addresses_are_split(void **state)
{
	char host[64];
	uint16_t port;
	bool wildcard;

	(void)state;
	assert_int_equal(http_split_listen("127.0.0.1:9470", host, &port, &wildcard), 0);
	assert_string_equal(host, "127.0.0.1");
	assert_int_equal(port, 9470);
	assert_false(wildcard);
	assert_int_equal(http_split_listen("[::1]:1", host, &port, &wildcard), 0);
	assert_string_equal(host, "::1");
	assert_int_equal(http_split_listen(":80", host, &port, &wildcard), 0);
	assert_true(wildcard);
	assert_int_equal(http_split_listen("[::]:80", host, &port, &wildcard), 0);
	assert_true(wildcard);
	assert_int_equal(http_split_listen("127.0.0.1", host, &port, &wildcard), -EINVAL);
	assert_int_equal(http_split_listen("127.0.0.1:65536", host, &port, &wildcard), -EINVAL);
	assert_int_equal(http_split_listen("127.0.0.1:", host, &port, &wildcard), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(weights_follow_the_most_specific_range),
	    cmocka_unit_test(a_malformed_weight_is_none),
	    cmocka_unit_test(gzip_is_used_only_when_it_is_wanted),
	    cmocka_unit_test(paths_are_decoded_once),
	    cmocka_unit_test(numbers_have_bounds),
	    cmocka_unit_test(request_ids_are_safe_in_headers_and_logs),
	    cmocka_unit_test(listen_addresses_are_split),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
