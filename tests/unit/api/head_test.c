// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "api/head.h"

#include <cmocka.h>

#define GET	"GET /metrics HTTP/1.1\r\n"
#define POST	"POST /x HTTP/1.1\r\n"
#define HOST	"Host: localhost\r\n"
#define TEXT(s) (s), sizeof(s) - 1

struct row {
	const char *name, *text;
	size_t len;
	int err; /* of the scan, or of the judgement when the scan finds the end */
};

/* As the server does it: the end is looked for first, and only a whole head is judged. The
 * buffer is exactly as long as the text, so that ASan sees a read beyond it. */
static int judge(const char *text, size_t len, struct head *h, const char **why)
{
	char *buf = malloc(len ? len : 1);
	size_t end = 0;
	int err;

	assert_non_null(buf);
	memcpy(buf, text, len);
	err = head_scan(buf, len, 0, &end);
	if (err == HEAD_WHOLE) {
		assert_true(end <= len);
		err = head_parse(buf, end, h, why);
	} else if (err == HEAD_MORE) {
		err = -EAGAIN;
	}
	free(buf);
	return err;
}

static void check_rows(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		struct head h = {0};
		const char *why = NULL;
		int err = judge(rows[i].text, rows[i].len, &h, &why);

		if (err != rows[i].err)
			fail_msg("%s: %d, expected %d (%s)", rows[i].name, err, rows[i].err,
				 why ? why : "no reason");
	}
}

#define ROWS(rows) check_rows(rows, sizeof(rows) / sizeof((rows)[0]))

static void what_two_parsers_may_read_differently_is_refused(void **state)
{
	static const struct row rows[] = {
	    {"two equal lengths", TEXT(POST HOST "Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
	     -EBADMSG},
	    {"two different lengths",
	     TEXT(POST HOST "Content-Length: 0\r\nContent-Length: 5\r\n\r\n"), -EBADMSG},
	    {"two lengths, spelt differently",
	     TEXT(POST HOST "Content-Length: 0\r\ncONTENT-lENGTH: 5\r\n\r\n"), -EBADMSG},
	    {"a list of lengths", TEXT(POST HOST "Content-Length: 5, 5\r\n\r\n"), -EBADMSG},
	    {"a signed length", TEXT(POST HOST "Content-Length: +5\r\n\r\n"), -EBADMSG},
	    {"a negative length", TEXT(POST HOST "Content-Length: -1\r\n\r\n"), -EBADMSG},
	    {"a length in hex", TEXT(POST HOST "Content-Length: 0x5\r\n\r\n"), -EBADMSG},
	    {"an empty length", TEXT(POST HOST "Content-Length:\r\n\r\n"), -EBADMSG},
	    {"a length that wraps 64 bits",
	     TEXT(POST HOST "Content-Length: 18446744073709551617\r\n\r\n"), -EBADMSG},
	    {"length, then chunks",
	     TEXT(POST HOST "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"), -EBADMSG},
	    {"chunks, then length",
	     TEXT(POST HOST "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"), -EBADMSG},
	    {"chunked twice in a list",
	     TEXT(POST HOST "Transfer-Encoding: chunked, chunked\r\n\r\n"), -EBADMSG},
	    {"chunked in two fields",
	     TEXT(POST HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
	     -EBADMSG},
	    {"identity", TEXT(POST HOST "Transfer-Encoding: identity\r\n\r\n"), -EBADMSG},
	    {"a coding that is almost chunked",
	     TEXT(POST HOST "Transfer-Encoding: xchunked\r\n\r\n"), -EBADMSG},
	    {"chunks in HTTP/1.0",
	     TEXT("POST /x HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"), -EBADMSG},
	    {"a space before the colon", TEXT(POST HOST "Content-Length : 5\r\n\r\n"), -EBADMSG},
	    {"a folded header", TEXT(GET HOST "X-A: a\r\n b\r\n\r\n"), -EBADMSG},
	    {"a folded length", TEXT(GET HOST "Content-Length:\r\n 5\r\n\r\n"), -EBADMSG},
	    {"a fold with a tab", TEXT(GET HOST "X-A: a\r\n\tb\r\n\r\n"), -EBADMSG},
	    {"a fold before any header", TEXT(GET " " HOST "\r\n"), -EBADMSG},
	    {"two hosts", TEXT(GET HOST "Host: evil\r\n\r\n"), -EBADMSG},
	    {"no host in HTTP/1.1", TEXT(GET "\r\n"), -EBADMSG},
	    {"an empty host", TEXT(GET "Host:\r\n\r\n"), -EBADMSG},
	};

	(void)state;
	ROWS(rows);
}

static void bytes_that_never_belong_in_a_head_are_refused(void **state)
{
	static const struct row rows[] = {
	    {"bare LF", TEXT("GET / HTTP/1.1\nHost: localhost\n\n"), -EBADMSG},
	    {"bare LF at the end", TEXT(GET HOST "\n"), -EBADMSG},
	    {"bare LF in a value", TEXT(GET HOST "X-A: a\nX-B: b\r\n\r\n"), -EBADMSG},
	    {"bare CR in a value", TEXT(GET HOST "X-A: a\rb\r\n\r\n"), -EBADMSG},
	    {"CR CR LF", TEXT(GET "Host: localhost\r\r\n\r\n"), -EBADMSG},
	    {"NUL in a value", TEXT(GET HOST "X-A: a\0b\r\n\r\n"), -EBADMSG},
	    {"NUL in a name", TEXT(GET HOST "X-\0: a\r\n\r\n"), -EBADMSG},
	    {"NUL in the target", TEXT("GET /\0 HTTP/1.1\r\n" HOST "\r\n"), -EBADMSG},
	    {"an escape in a value", TEXT(GET HOST "X-A: \x1b[2J\r\n\r\n"), -EBADMSG},
	    {"DEL in a value", TEXT(GET HOST "X-A: \x7f\r\n\r\n"), -EBADMSG},
	    {"a form feed after the name", TEXT(GET HOST "X-A\f: a\r\n\r\n"), -EBADMSG},
	    {"bytes from 0x80 in the target", TEXT("GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n"),
	     -EBADMSG},
	    {"bytes from 0x80 in a name", TEXT(GET HOST "X-\xc3\xa4: a\r\n\r\n"), -EBADMSG},
	    {"a leading empty line", TEXT("\r\n" GET HOST "\r\n"), -EBADMSG},
	};

	(void)state;
	ROWS(rows);
}

static void request_lines_have_one_shape(void **state)
{
	static const struct row rows[] = {
	    {"no target", TEXT("GET HTTP/1.1\r\n" HOST "\r\n"), -EBADMSG},
	    {"no version", TEXT("GET /\r\n" HOST "\r\n"), -EBADMSG},
	    {"two spaces", TEXT("GET  / HTTP/1.1\r\n" HOST "\r\n"), -EBADMSG},
	    {"a tab for a space", TEXT("GET\t/ HTTP/1.1\r\n" HOST "\r\n"), -EBADMSG},
	    {"a space at the end", TEXT("GET / HTTP/1.1 \r\n" HOST "\r\n"), -EBADMSG},
	    {"a space in the target", TEXT("GET /a b HTTP/1.1\r\n" HOST "\r\n"), -EBADMSG},
	    {"a method that is no token", TEXT("G(T / HTTP/1.1\r\n" HOST "\r\n"), -EBADMSG},
	    {"a method of 17 bytes", TEXT("AAAAAAAAAAAAAAAAA / HTTP/1.1\r\n" HOST "\r\n"),
	     -EBADMSG},
	    {"a relative target", TEXT("GET metrics HTTP/1.1\r\n" HOST "\r\n"), -EBADMSG},
	    {"a proxy's target", TEXT("GET http://x/ HTTP/1.1\r\n" HOST "\r\n"), -EBADMSG},
	    {"a lower-case version", TEXT("GET / http/1.1\r\n" HOST "\r\n"), -EBADMSG},
	    {"no minor version", TEXT("GET / HTTP/1\r\n" HOST "\r\n"), -EBADMSG},
	    {"HTTP/1.2", TEXT("GET / HTTP/1.2\r\n" HOST "\r\n"), -EPROTO},
	    {"HTTP/2.0", TEXT("PRI * HTTP/2.0\r\n\r\n"), -EPROTO},
	    {"HTTP/0.9", TEXT("GET / HTTP/0.9\r\n\r\n"), -EPROTO},
	    {"a header without a colon", TEXT(GET HOST "X-A\r\n\r\n"), -EBADMSG},
	    {"a header without a name", TEXT(GET HOST ": a\r\n\r\n"), -EBADMSG},
	    {"HTTP/1.0 without a host", TEXT("GET / HTTP/1.0\r\n\r\n"), 0},
	    {"the server itself", TEXT("OPTIONS * HTTP/1.1\r\n" HOST "\r\n"), 0},
	    {"a tab before a value", TEXT(GET "Host:\tlocalhost \r\n\r\n"), 0},
	    {"an empty value", TEXT(GET HOST "X-A:\r\n\r\n"), 0},
	    {"obs-text in a value", TEXT(GET HOST "X-A: \xe4\r\n\r\n"), 0},
	    {"chunks alone", TEXT(POST HOST "Transfer-Encoding: Chunked\r\n\r\n"), 0},
	    {"a method nobody knows", TEXT("BREW / HTTP/1.1\r\n" HOST "\r\n"), 0},
	};

	(void)state;
	ROWS(rows);
}

static void what_was_judged_is_told(void **state)
{
	static const char text[] = "POST /api/v1/circuits/a-%3Eb/trip?x=1 HTTP/1.1\r\n"
				   "host:  127.0.0.1:9470 \r\nContent-Length: 4096\r\n\r\nbody";
	size_t end = 0;
	const char *why = "";
	struct head h;

	(void)state;
	assert_int_equal(head_scan(text, sizeof(text) - 1, 0, &end), HEAD_WHOLE);
	assert_int_equal(end, sizeof(text) - 1 - 4);
	assert_int_equal(head_parse(text, end, &h, &why), 0);
	assert_int_equal(h.method_len, 4);
	assert_memory_equal(h.method, "POST", 4);
	assert_int_equal(h.target_len, strlen("/api/v1/circuits/a-%3Eb/trip?x=1"));
	assert_memory_equal(h.target, "/api/v1/circuits/a-%3Eb/trip?x=1", h.target_len);
	assert_int_equal(h.host_len, 14);
	assert_memory_equal(h.host, "127.0.0.1:9470", 14);
	assert_int_equal(h.minor, 1);
	assert_true(h.has_length);
	assert_int_equal(h.length, 4096);
	assert_false(h.chunked);
}

/* However the bytes arrive, the verdict is the same as for all at once. */
static void any_split_of_a_head_gives_the_same_verdict(void **state)
{
	static const char *const texts[] = {
	    GET HOST "Accept: text/plain\r\n\r\n",
	    GET "Host: localhost\r\nX-A: a\rb\r\n\r\n",
	    "GET / HTTP/1.1\r\nHost: x\n\r\n\r\n",
	    GET HOST "X: \x01\r\n\r\n",
	};

	(void)state;
	for (size_t t = 0; t < sizeof(texts) / sizeof(texts[0]); t++) {
		size_t len = strlen(texts[t]), whole_end = 0;
		int whole = head_scan(texts[t], len, 0, &whole_end);

		assert_int_not_equal(whole, HEAD_MORE);
		for (size_t cut = 0; cut < len; cut++) {
			size_t end = 0;
			int err = head_scan(texts[t], cut, 0, &end);

			assert_int_not_equal(err, HEAD_WHOLE);
			if (err == HEAD_MORE)
				err = head_scan(texts[t], len, cut, &end);
			assert_int_equal(err, whole);
			if (err == HEAD_WHOLE)
				assert_int_equal(end, whole_end);
		}
	}
}

/* A head of `fields` headers "X: v...", each of `width` bytes, after a target of `target`. */
static char *built(size_t target, size_t fields, size_t width, const char *tail, size_t *ret_len)
{
	size_t cap = target + fields * (width + 8) + strlen(tail) + 128, n = 0;
	char *buf = malloc(cap);

	assert_non_null(buf);
	memcpy(buf, "GET /", 5);
	n = 5;
	memset(buf + n, 'a', target - 1);
	n += target - 1;
	memcpy(buf + n, " HTTP/1.1\r\nHost: localhost\r\n", 28);
	n += 28;
	for (size_t i = 0; i < fields; i++) {
		memcpy(buf + n, "X: ", 3);
		memset(buf + n + 3, 'v', width);
		memcpy(buf + n + 3 + width, "\r\n", 2);
		n += width + 5;
	}
	memcpy(buf + n, tail, strlen(tail));
	*ret_len = n + strlen(tail);
	return buf;
}

static void every_bound_holds_to_the_byte(void **state)
{
	static const struct {
		const char *name;
		size_t target, fields, width;
		const char *tail;
		int err;
	} rows[] = {
	    {"the longest target", HEAD_TARGET_MAX, 0, 0, "\r\n", 0},
	    {"a target too long", HEAD_TARGET_MAX + 1, 0, 0, "\r\n", -ENAMETOOLONG},
	    {"as many headers as may be", 1, HEAD_FIELDS_MAX - 1, 1, "\r\n", 0},
	    {"one header too many", 1, HEAD_FIELDS_MAX, 1, "\r\n", -EMSGSIZE},
	    {"a head too long", 1, 4, HEAD_BYTES_MAX / 4, "\r\n", -EMSGSIZE},
	    {"a head too long without an end", 1, 4, HEAD_BYTES_MAX / 4, "", -EMSGSIZE},
	    {"the longest body", 1, 0, 0, "Content-Length: 4096\r\n\r\n", 0},
	    {"a body too long", 1, 0, 0, "Content-Length: 4097\r\n\r\n", -EFBIG},
	    {"a body far too long", 1, 0, 0, "Content-Length: 999999999999999999\r\n\r\n", -EFBIG},
	};

	(void)state;
	assert_int_equal(HEAD_BODY_MAX, 4096);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const char *why = NULL;
		struct head h;
		size_t len;
		char *text =
		    built(rows[i].target, rows[i].fields, rows[i].width, rows[i].tail, &len);
		int err = judge(text, len, &h, &why);

		free(text);
		if (err != rows[i].err)
			fail_msg("%s: %d, expected %d (%s)", rows[i].name, err, rows[i].err,
				 why ? why : "no reason");
	}
}

static void every_refusal_says_why_in_one_sentence(void **state)
{
	static const char *const texts[] = {GET "\r\n", GET "Host: a\r\nHost: b\r\n\r\n",
					    "GET / HTTP/3.0\r\n\r\n", "G / H\r\n\r\n",
					    GET HOST "Content-Length: x\r\n\r\n"};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *why = NULL;
		struct head h;

		assert_true(head_parse(texts[i], strlen(texts[i]), &h, &why) < 0);
		assert_non_null(why);
		assert_true(strlen(why) > 8);
		assert_null(strchr(why, '\n'));
	}
}

static void a_judged_text_needs_its_end(void **state)
{
	static const char *const texts[] = {"",	      "\r\n",		GET,
					    GET HOST, "GET / HTTP/1.1", GET HOST "\r"};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		const char *why = NULL;
		struct head h;

		assert_int_equal(head_parse(texts[i], strlen(texts[i]), &h, &why), -EBADMSG);
	}
}

static bool host(const char *name, const char *listen, bool any)
{
	size_t n = strlen(name);
	char *copy = malloc(n ? n : 1);
	bool allowed;

	assert_non_null(copy);
	memcpy(copy, name, n); /* no NUL: ASan sees a read beyond */
	allowed = head_host_allowed(copy, n, listen, any);
	free(copy);
	return allowed;
}

static void only_our_own_names_are_answered_to(void **state)
{
	static const struct {
		const char *name, *listen;
		bool any, allowed;
	} rows[] = {
	    {"localhost", "127.0.0.1", false, true},
	    {"LOCALHOST:9470", "127.0.0.1", false, true},
	    {"127.0.0.1:9470", "127.0.0.1", false, true},
	    {"127.1.2.3", "127.0.0.1", false, true},
	    {"[::1]:9470", "127.0.0.1", false, true},
	    {"[::1]", "127.0.0.1", false, true},
	    {"[0:0:0:0:0:0:0:1]:1", "127.0.0.1", false, true},
	    {"10.0.0.7:9470", "10.0.0.7", false, true},
	    {"node.example:9470", "node.example", false, true},
	    {"[2001:db8::1]:9470", "2001:db8::1", false, true},
	    {"10.9.9.9", "0.0.0.0", true, true},
	    {"[2001:db8::2]", "::", true, true},
	    /* A page of attacker.example whose name was pointed at us: DNS rebinding. */
	    {"attacker.example", "127.0.0.1", false, false},
	    {"attacker.example:9470", "0.0.0.0", true, false},
	    {"localhost.attacker.example", "127.0.0.1", false, false},
	    {"127.0.0.1.attacker.example", "127.0.0.1", false, false},
	    {"10.0.0.8:9470", "10.0.0.7", false, false},
	    {"10.0.0.7", "127.0.0.1", false, false},
	    {"[2001:db8::2]:9470", "2001:db8::1", false, false},
	    {"", "", false, false},
	    {":9470", "", false, false},
	    {":9470", "", true, false},
	    {"[]", "", true, false},
	    {"[::1", "127.0.0.1", false, false},
	    {"[::1]x", "127.0.0.1", false, false},
	    {"localhost:94x", "127.0.0.1", false, false},
	    {"localhost:9470:1", "127.0.0.1", false, false},
	    {"localhost:999999", "127.0.0.1", false, false},
	    {"user@localhost", "127.0.0.1", false, false},
	    {"localhost/", "127.0.0.1", false, false},
	    {"0x7f.1", "127.0.0.1", false, false},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (host(rows[i].name, rows[i].listen, rows[i].any) != rows[i].allowed)
			fail_msg("'%s' where '%s' listens: %s", rows[i].name, rows[i].listen,
				 rows[i].allowed ? "refused" : "allowed");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(what_two_parsers_may_read_differently_is_refused),
	    cmocka_unit_test(bytes_that_never_belong_in_a_head_are_refused),
	    cmocka_unit_test(request_lines_have_one_shape),
	    cmocka_unit_test(what_was_judged_is_told),
	    cmocka_unit_test(any_split_of_a_head_gives_the_same_verdict),
	    cmocka_unit_test(every_bound_holds_to_the_byte),
	    cmocka_unit_test(every_refusal_says_why_in_one_sentence),
	    cmocka_unit_test(a_judged_text_needs_its_end),
	    cmocka_unit_test(only_our_own_names_are_answered_to),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
