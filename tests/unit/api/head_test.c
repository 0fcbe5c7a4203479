// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/head.h"

#include <cmocka.h>

#define HOST "Host: localhost\r\n"
#define GET  "GET / HTTP/1.1\r\n" HOST

/* What the server does: scan, then parse. */
static int judge(const char *text, size_t len, struct head *h)
{
	char *copy = malloc(len ? len : 1); /* exactly so long: ASan watches its end */
	const char *why;
	size_t n;
	int err;

	assert_non_null(copy);
	memcpy(copy, text, len);
	err = head_scan(copy, len, 0, &n);
	if (err == HEAD_MORE)
		err = -EAGAIN;
	if (err > 0) {
		why = NULL;
		err = head_parse(copy, n, h, &why);
		assert_true(err ? why && *why : !why);
	}
	free(copy);
	return err;
}

#define CASE(text, err)                     \
	{                                   \
		text, sizeof(text) - 1, err \
	}

static void what_two_parsers_could_read_differently_is_refused(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		int err;
	} cases[] = {
	    CASE(GET "\r\n", 0),
	    CASE(GET "Content-Length: 12\r\n\r\n", 0),
	    CASE(GET "Transfer-Encoding: chunked\r\n\r\n", 0),
	    CASE(GET "Transfer-Encoding: CHUNKED \t\r\n\r\n", 0),
	    CASE("GET / HTTP/1.0\r\n\r\n", 0),
	    CASE("OPTIONS * HTTP/1.1\r\n" HOST "\r\n", 0),
	    CASE("GET /caf\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n", -EBADMSG),
	    CASE(GET "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length: 1\r\ncontent-length: 2\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length: 1, 1\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length: +1\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length: -1\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length: 0x1\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length: 1 1\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length:\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length: 18446744073709551616\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length: 4097\r\n\r\n", -EFBIG),
	    CASE(GET "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n", -EBADMSG),
	    CASE(GET "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", -EBADMSG),
	    CASE(GET "Transfer-Encoding: identity\r\n\r\n", -EBADMSG),
	    CASE(GET "Transfer-Encoding: gzip, chunked\r\n\r\n", -EBADMSG),
	    CASE(GET "Transfer-Encoding: chunked, chunked\r\n\r\n", -EBADMSG),
	    CASE(GET "Transfer-Encoding: xchunked\r\n\r\n", -EBADMSG),
	    CASE(GET "Transfer-Encoding: chunked;a=b\r\n\r\n", -EBADMSG),
	    CASE(GET "Transfer-Encoding:\r\n\r\n", -EBADMSG),
	    CASE(GET "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", -EBADMSG),
	    CASE("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", -EBADMSG),
	    CASE(GET "Transfer-Encoding : chunked\r\n\r\n", -EBADMSG),
	    CASE(GET "Content-Length : 1\r\n\r\n", -EBADMSG),
	    CASE(GET " Content-Length: 1\r\n\r\n", -EBADMSG),
	    CASE(GET "X: a\r\n b\r\n\r\n", -EBADMSG),
	    CASE(GET "X: a\r\n\tb\r\n\r\n", -EBADMSG),
	    CASE(GET "X: a\nY: b\r\n\r\n", -EBADMSG),
	    CASE(GET "X: a\rY: b\r\n\r\n", -EBADMSG),
	    CASE(GET "X: a\0b\r\n\r\n", -EBADMSG),
	    CASE(GET "X: a\x7f\r\n\r\n", -EBADMSG),
	    CASE(GET "X: a\x1b[0m\r\n\r\n", -EBADMSG),
	    CASE(GET "X\r\n\r\n", -EBADMSG),
	    CASE(GET ": a\r\n\r\n", -EBADMSG),
	    CASE(GET "X(Y): a\r\n\r\n", -EBADMSG),
	    CASE(GET HOST "\r\n", -EBADMSG),
	    CASE(GET "hOST: other\r\n\r\n", -EBADMSG),
	    CASE("GET / HTTP/1.1\r\n\r\n", -EBADMSG),
	    CASE(GET "Authorization: Bearer x\r\n\r\n", 0),
	    CASE(GET "Authorization: Bearer x\r\nauthorization: Bearer x\r\n\r\n", -EBADMSG),
	    CASE(GET "Authorization:\r\nAUTHORIZATION:\r\n\r\n", -EBADMSG),
	    CASE("GET / HTTP/1.1\r\nHost:\r\n\r\n", -EBADMSG),
	    CASE("GET / HTTP/1.1\n" HOST "\n", -EBADMSG),
	    CASE("GET /\r\n" HOST "\r\n", -EBADMSG),
	    CASE("GET  / HTTP/1.1\r\n" HOST "\r\n", -EBADMSG),
	    CASE("GET /  HTTP/1.1\r\n" HOST "\r\n", -EBADMSG),
	    CASE("GET\t/ HTTP/1.1\r\n" HOST "\r\n", -EBADMSG),
	    CASE("GET / HTTP/1.1 \r\n" HOST "\r\n", -EBADMSG),
	    CASE("GET / http/1.1\r\n" HOST "\r\n", -EBADMSG),
	    CASE("GET / HTTP/1.10\r\n" HOST "\r\n", -EBADMSG),
	    CASE("GET / HTTP/1.2\r\n" HOST "\r\n", -EPROTO),
	    CASE("GET / HTTP/2.0\r\n" HOST "\r\n", -EPROTO),
	    CASE("GET http://a/ HTTP/1.1\r\n" HOST "\r\n", -EBADMSG),
	    CASE("G@T / HTTP/1.1\r\n" HOST "\r\n", -EBADMSG),
	    CASE("AAAAAAAAAAAAAAAAA / HTTP/1.1\r\n" HOST "\r\n", -EBADMSG),
	    CASE("\r\n\r\n" GET "\r\n", -EBADMSG),
	    CASE("\r\n" GET "\r\n", -EBADMSG),
	    CASE(" / HTTP/1.1\r\n" HOST "\r\n", -EBADMSG),
	    CASE(GET, -EAGAIN),
	    CASE("", -EAGAIN),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct head h = {0};
		int err = judge(cases[i].text, cases[i].len, &h);

		if (err != cases[i].err)
			fail_msg("case %zu \"%s\": %d, wanted %d", i, cases[i].text, err,
				 cases[i].err);
	}
}

static void what_was_asked_is_found(void **state)
{
	static const char text[] =
	    "POST /a?b=c HTTP/1.1\r\nHOST:  x.example:80 \r\nContent-Length: 17\r\n\r\n";
	const char *why;
	struct head h;

	(void)state;
	assert_int_equal(head_parse(text, sizeof(text) - 1, &h, &why), 0);
	assert_int_equal(h.method_len, 4);
	assert_memory_equal(h.method, "POST", 4);
	assert_int_equal(h.target_len, 6);
	assert_memory_equal(h.target, "/a?b=c", 6);
	assert_int_equal(h.host_len, 12);
	assert_memory_equal(h.host, "x.example:80", 12);
	assert_true(h.has_length && !h.chunked);
	assert_int_equal(h.length, 17);
	assert_int_equal(h.minor, 1);
}

static void a_bearer_token_is_found_or_refused(void **state)
{
	static const struct {
		const char *value, *token; /* NULL: refused */
	} cases[] = {
	    {"Bearer abc", "abc"},
	    {"bearer abc", "abc"},
	    {"BEARER   a-._~+/Z09==", "a-._~+/Z09=="},
	    {"Bearer", NULL},
	    {"Bearer ", NULL},
	    {"Bearer  ", NULL},
	    {"Bearer\tabc", NULL},
	    {"Bearer \tabc", NULL},
	    {"Bearerabc", NULL},
	    {"Bearers abc", NULL},
	    {"Basic abc", NULL},
	    {"", NULL},
	    {" Bearer abc", NULL},
	    {"Bearer abc ", NULL},
	    {"Bearer abc def", NULL},
	    {"Bearer abc, Bearer def", NULL},
	    {"Bearer abc,", NULL},
	    {"Bearer =", NULL},
	    {"Bearer a=b", NULL},
	    {"Bearer \"abc\"", NULL},
	    {"Bearer a%41", NULL},
	    {"Bearer a\xc3\xa9", NULL},
	    {"Bearer token=abc", NULL},
	};
	const char *token;
	size_t n;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t len = strlen(cases[i].value);
		char *copy = malloc(len ? len : 1); /* ASan watches its end */
		int err;

		assert_non_null(copy);
		memcpy(copy, cases[i].value, len);
		err = head_bearer(copy, len, &token, &n);
		if (err != (cases[i].token ? 0 : -EINVAL))
			fail_msg("\"%s\": %d", cases[i].value, err);
		if (cases[i].token) {
			assert_int_equal(n, strlen(cases[i].token));
			assert_memory_equal(token, cases[i].token, n);
		}
		free(copy);
	}
	assert_false(head_is_b64token("a\0b", 3));
	assert_int_equal(head_bearer("Bearer a\0b", 10, &token, &n), -EINVAL);
}

static void a_head_in_any_two_pieces_ends_at_the_same_byte(void **state)
{
	static const char text[] = GET "X: y\r\n\r\nGET /second";
	size_t whole = sizeof(GET "X: y\r\n\r\n") - 1, n;

	(void)state;
	for (size_t cut = 0; cut < sizeof(text); cut++) {
		size_t len = 0;
		int err = head_scan(text, cut, 0, &len);

		assert_int_equal(err, cut >= whole ? HEAD_WHOLE : HEAD_MORE);
		if (err == HEAD_WHOLE) {
			assert_int_equal(len, whole);
			continue;
		}
		assert_int_equal(head_scan(text, sizeof(text) - 1, cut, &n), HEAD_WHOLE);
		assert_int_equal(n, whole);
	}
}

static void a_head_has_limits(void **state)
{
	static char text[HEAD_BYTES_MAX + 1];
	struct head h;
	size_t n = 0, len;

	(void)state;
	memset(text, 'a', sizeof(text));
	assert_int_equal(head_scan(text, HEAD_BYTES_MAX - 1, 0, &len), HEAD_MORE);
	assert_int_equal(head_scan(text, HEAD_BYTES_MAX, 0, &len), -EMSGSIZE);

	n = (size_t)snprintf(text, sizeof(text), GET);
	for (unsigned int i = 0; i < HEAD_FIELDS_MAX - 1; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "X: y\r\n");
	memcpy(text + n, "\r\n", 2);
	assert_int_equal(judge(text, n + 2, &h), 0);
	memcpy(text + n, "X: y\r\n\r\n", 8);
	assert_int_equal(judge(text, n + 8, &h), -EMSGSIZE);

	n = (size_t)snprintf(text, sizeof(text), "GET /");
	memset(text + n, 'a', HEAD_TARGET_MAX);
	n += HEAD_TARGET_MAX;
	memcpy(text + n, " HTTP/1.1\r\n" HOST "\r\n", 11 + 17 + 2);
	assert_int_equal(judge(text, n + 30, &h), -ENAMETOOLONG);
}

static void only_our_own_names_are_hosts(void **state)
{
	static const struct {
		const char *host;
		bool allowed;
	} cases[] = {
	    {"localhost", true},       {"LOCALHOST:9470", true},
	    {"127.0.0.1", true},       {"127.9.9.9:1", true},
	    {"[::1]", true},	       {"[::1]:9470", true},
	    {"192.0.2.7:80", true},    {"192.0.2.8", false},
	    {"evil.example", false},   {"localhost.evil", false},
	    {"127.0.0.1.evil", false}, {"localhost:", true},
	    {"localhost:x", false},    {"localhost:123456", false},
	    {"[::1", false},	       {"[::2]", false},
	    {"[::1]x", false},	       {"", false},
	    {"127.1", false},	       {":80", false},
	    {"user@localhost", false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		if (head_host_allowed(cases[i].host, strlen(cases[i].host), "192.0.2.7", false) !=
		    cases[i].allowed)
			fail_msg("%s", cases[i].host);
	assert_true(head_host_allowed("192.0.2.8", 9, "0.0.0.0", true));
	assert_false(head_host_allowed("evil.example", 12, "0.0.0.0", true));
	assert_false(head_host_allowed("localhost\0x", 11, "", false));
	assert_false(head_host_allowed(":80", 3, "", false));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_two_parsers_could_read_differently_is_refused),
	    cmocka_unit_test(what_was_asked_is_found),
	    cmocka_unit_test(a_bearer_token_is_found_or_refused),
	    cmocka_unit_test(a_head_in_any_two_pieces_ends_at_the_same_byte),
	    cmocka_unit_test(a_head_has_limits),
	    cmocka_unit_test(only_our_own_names_are_hosts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
