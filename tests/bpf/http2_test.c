// SPDX-License-Identifier: Apache-2.0
/*
 * HTTP/2 in the kernel: the real programs, real sockets, frames written by hand, exact counts.
 * Both ends of each connection are in this process, so each finished request counts once as a
 * server's and once as a client's. Needs root.
 */
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include <kilter/drops.h>
#include <kilter/series.h>

#include "pair.h"
#include "programs.h"
#include "request.skel.h"
#include "tally.h"
#include "tcp_conn.skel.h"

#include <cmocka.h>

#define MIB	(1u << 20)
#define STREAMS 128 /* HTTP2_STREAMS of bpf/lib/http2_streams.h */
#define ENTRIES 128 /* HPACK_ENTRIES there */

#define END_STREAM    0x01
#define END_HEADERS   0x04
#define PADDED	      0x08
#define WITH_PRIORITY 0x20

enum {
	DATA,
	HEADERS,
	PRIORITY,
	RST_STREAM,
	SETTINGS,
	PUSH_PROMISE,
	PING,
	GOAWAY,
	WINDOW_UPDATE,
	CONTINUATION,
	OF_AN_EXTENSION = 0xee,
};

struct bytes {
	size_t len;
	char data[2 * MIB];
};

static struct {
	struct programs programs;
	struct kilter_conn conn[3]; /* by role */
	struct pair pair;
	struct bytes out;
	__u64 drops[KILTER_DROP_MAX]; /* at the test's begin */
} t;

static __u64 dropped_ever(__u32 reason)
{
	return drops_read(bpf_map__fd(t.programs.request->maps.drops), reason);
}

static __u64 dropped(enum kilter_drop reason)
{
	return dropped_ever(reason) - t.drops[reason];
}

static int group_setup(void **state)
{
	(void)state;
	programs_load(&t.programs);
	programs_attach(&t.programs);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	programs_done(&t.programs);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	programs_clear(&t.programs);
	pair_init(&t.pair);
	t.out.len = 0;
	for (__u32 i = 0; i < KILTER_DROP_MAX; i++)
		t.drops[i] = dropped_ever(i);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pair_close(&t.pair, false);
	return 0;
}

/* Waits until the kernel has told of the end of all sockets. */
static void settle(void)
{
	programs_settle(&t.programs, t.conn);
	tallies_read(bpf_map__fd(t.programs.request->maps.series));
}

static void finish(bool server_first)
{
	pair_close(&t.pair, server_first);
	settle();
}

#define ROW(method, status, error, count) \
	ROW_OF(KILTER_PROTO_HTTP2, KILTER_METHOD_##method, status, error, count)
/* A call of gRPC: its code, or -1 for none. */
#define CALL(code, error, count)                      \
	ROW_OF(KILTER_PROTO_GRPC, KILTER_METHOD_POST, \
	       (code) < 0 ? 0 : KILTER_STATUS_GRPC + (code), error, count)

static void expect_no_drops(void)
{
	static const enum kilter_drop of[] = {
	    KILTER_DROP_HTTP1_FRAMING, KILTER_DROP_HTTP1_STEPS,	  KILTER_DROP_HTTP1_LOAD,
	    KILTER_DROP_HTTP1_BUSY,    KILTER_DROP_HTTP2_FRAMING, KILTER_DROP_HTTP2_STREAMS,
	    KILTER_DROP_HTTP2_STEPS,   KILTER_DROP_HTTP2_LOAD,	  KILTER_DROP_SOCK_STORAGE,
	};

	for (size_t i = 0; i < sizeof(of) / sizeof(of[0]); i++)
		if (dropped(of[i]))
			fail_msg("drop %u: %llu", of[i], dropped(of[i]));
}

/* What is about to be sent. */
#define TEXT(s) (s), sizeof(s) - 1

static void raw(const char *data, size_t n)
{
	assert_true(t.out.len + n <= sizeof(t.out.data));
	memcpy(t.out.data + t.out.len, data, n);
	t.out.len += n;
}

static void frame(__u8 type, __u8 flags, __u32 stream, const char *payload, size_t n)
{
	const char head[] = {n >> 16,	   n >> 8,	 n,	      type,  flags,
			     stream >> 24, stream >> 16, stream >> 8, stream};

	raw(head, sizeof(head));
	if (n)
		raw(payload, n);
}

#define PREFACE	 "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define GET_ROOT "\x82\x84\x86" /* :method GET, :path /, :scheme http */
#define POST_TO	 "\x83\x84\x86"
/* content-type: application/grpc, a literal that is not kept. */
#define CONTENT_TYPE "\x0f\x10"
#define POST_GRPC                   \
	POST_TO CONTENT_TYPE "\x10" \
			     "application/grpc"
#define OK_GRPC                    \
	"\x88" CONTENT_TYPE "\x10" \
	"application/grpc"
/* grpc-status: a literal with a new name. */
#define CODE(digits, length) \
	"\x00\x0b"           \
	"grpc-status" length digits
#define OK "\x88"

static void begin_client(void)
{
	raw(TEXT(PREFACE));
	frame(SETTINGS, 0, 0, NULL, 0);
}
static void get(__u32 id)
{
	frame(HEADERS, END_HEADERS | END_STREAM, id, TEXT(GET_ROOT));
}
static void ok(__u32 id)
{
	frame(HEADERS, END_HEADERS | END_STREAM, id, TEXT(OK));
}
static void reset(__u8 type, __u32 id, __u8 code)
{
	const char payload[] = {0, 0, 0, code};

	frame(type, 0, id, payload, sizeof(payload));
}

static void open_pair(void)
{
	assert_int_equal(pair_open(&t.pair), 0);
}
static void ask_in(size_t piece)
{
	assert_int_equal(pair_to_server(&t.pair, t.out.data, t.out.len, piece), 0);
	t.out.len = 0;
}
static void answer_in(size_t piece)
{
	assert_int_equal(pair_to_client(&t.pair, t.out.data, t.out.len, piece), 0);
	t.out.len = 0;
}
static void ask(void)
{
	ask_in(0);
}
static void answer(void)
{
	answer_in(0);
}

/* The connection begins, and both ends have said so. */
static void open_begun(void)
{
	open_pair();
	begin_client();
	ask();
	frame(SETTINGS, 0, 0, TEXT("\0\3\0\0\0\x80"));
	frame(SETTINGS, 1, 0, NULL, 0);
	answer();
}

/* --- how a connection is known --- */

static void one_after_another(void **state)
{
	(void)state;
	open_begun();
	for (__u32 id = 1; id < 1000; id += 2) {
		get(id);
		ask();
		frame(HEADERS, END_HEADERS, id, TEXT(OK));
		frame(DATA, END_STREAM, id, TEXT("ok"));
		answer();
	}
	finish(false);
	EXPECT(ROW(GET, 200, 0, 500));
	expect_no_drops();
}

static void the_server_may_speak_first(void **state)
{
	(void)state;
	open_pair();
	frame(SETTINGS, 0, 0, TEXT("\0\3\0\0\0\x80"));
	answer();
	begin_client();
	get(1);
	ask();
	ok(1);
	answer();
	finish(true);
	EXPECT(ROW(GET, 200, 0, 1));
	expect_no_drops();
}

static void the_preface_may_be_cut_anywhere(void **state)
{
	char all[128];
	size_t n;

	(void)state;
	begin_client();
	get(1);
	n = t.out.len;
	memcpy(all, t.out.data, n);
	t.out.len = 0;
	for (int server_first = 0; server_first < 3; server_first++) {
		for (size_t cut = 1; cut < n; cut++) {
			setup(NULL);
			open_pair();
			if (server_first == 1) {
				frame(SETTINGS, 0, 0, NULL, 0);
				answer();
			}
			raw(all, cut);
			ask();
			if (server_first == 2) {
				frame(SETTINGS, 0, 0, NULL, 0);
				answer();
			}
			raw(all + cut, n - cut);
			ask();
			ok(1);
			answer();
			finish(false);
			if (tallies.count != 2)
				print_error("server first %d, cut at %zu\n", server_first, cut);
			EXPECT(ROW(GET, 200, 0, 1));
			expect_no_drops();
		}
	}
	setup(NULL);
	open_pair();
	raw(all, n);
	ask_in(1);
	ok(1);
	answer_in(1);
	finish(false);
	EXPECT(ROW(GET, 200, 0, 1));
	expect_no_drops();
}

static void both_versions_at_one_listener(void **state)
{
	(void)state;
	open_begun();
	get(1);
	ask();
	ok(1);
	answer();
	close(t.pair.client);
	close(t.pair.server);
	assert_int_equal(pair_connect(&t.pair), 0);
	raw(TEXT("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
	ask();
	raw(TEXT("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
	answer();
	finish(false);
	EXPECT(ROW(GET, 200, 0, 1), ROW_OF(KILTER_PROTO_HTTP1, KILTER_METHOD_GET, 200, 0, 1));
	expect_no_drops();
}

static void other_protocols_are_not_http2(void **state)
{
	static const struct {
		const char *client;
		size_t client_len;
		const char *server;
		size_t server_len;
	} rows[] = {
	    /* TLS; a length before each message; MySQL's greeting; PostgreSQL's start; settings
	       with a flag, of a stream, of no whole number. */
	    {TEXT("\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"), TEXT("\x16\x03\x03\0\x7a\x02\0\0v")},
	    {TEXT("\0\0\0\x0c\0\x03\0\0\0\0\0\1"), TEXT("\0\0\0\4\0\0\0\0\0\0\0\0")},
	    {NULL, 0,
	     TEXT("\x4a\0\0\0\x0a"
		  "8.0.36\0\0\0\0\0\0\0")},
	    {TEXT("\0\0\0\x08\x04\xd2\x16\x2f"), TEXT("N\0\0\0\0\0\0\0\0\0")},
	    {NULL, 0, TEXT("\0\0\6\4\1\0\0\0\0\0\3\0\0\0\x80")},
	    {NULL, 0, TEXT("\0\0\6\4\0\0\0\0\1\0\3\0\0\0\x80")},
	    {NULL, 0, TEXT("\0\0\5\4\0\0\0\0\0\0\3\0\0\0")},
	    {NULL, 0, TEXT("\0\0\4\1\4\0\0\0\1\0\0\0\0\0\0\0")},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		setup(NULL);
		open_pair();
		if (rows[i].client) {
			raw(rows[i].client, rows[i].client_len);
			ask();
		}
		raw(rows[i].server, rows[i].server_len);
		answer();
		get(1); /* looks like a request, and is none */
		ask();
		ok(1);
		answer();
		finish(false);
		if (tallies.count)
			print_error("row %zu\n", i);
		EXPECT_NOTHING();
	}
}

/* --- what a head may look like --- */

/* A request with everything that may stand before, in and behind its head: padded, with priority,
 * in four frames; POST as a literal with a name from the table, kept; a path in Huffman's code
 * (/one), kept; the first of them once more, by its number; a name spelt out. */
static void build_request(__u32 id)
{
	frame(HEADERS, PADDED | WITH_PRIORITY, id,
	      TEXT("\x03"
		   "\0\0\0\0\x10"
		   "\x42\x04POST"
		   "\0\0\0"));
	frame(CONTINUATION, 0, id, TEXT("\x44\x83\x60\xf5\x17"));
	frame(CONTINUATION, 0, id, NULL, 0);
	frame(CONTINUATION, END_HEADERS, id,
	      TEXT("\xbf"
		   "\x00\x03x-y\x02zz"
		   "\x86"));
	frame(WINDOW_UPDATE, 0, id, TEXT("\0\1\0\0"));
	frame(DATA, PADDED, id, TEXT("\x02GET \0\0"));
	frame(PRIORITY, 0, id, TEXT("\0\0\0\0\x20"));
	frame(OF_AN_EXTENSION, 0xff, id, TEXT("anything at all"));
	frame(HEADERS, END_HEADERS | END_STREAM, id, TEXT("\x00\x01z\x01y")); /* trailers */
}

/* 103 before it, a promise; then 409, in Huffman's code and kept. */
static void build_answer(__u32 id)
{
	frame(HEADERS, END_HEADERS, id,
	      TEXT("\x08\x03"
		   "103\x00\x04link\x01x"));
	frame(PUSH_PROMISE, END_HEADERS | PADDED, id, TEXT("\x01\0\0\0\2" GET_ROOT "\0"));
	frame(PING, 1, 0, TEXT("12345678"));
	frame(HEADERS, PADDED, id, TEXT("\x02\x48\x83\x68\0\0"));
	frame(CONTINUATION, END_HEADERS, id, TEXT("\x0f\xff\x5f\x0atext/plain"));
	frame(HEADERS, END_HEADERS | END_STREAM, 2, TEXT(OK)); /* what was promised */
	frame(DATA, 0, id, TEXT("body"));
	frame(HEADERS, END_HEADERS | END_STREAM, id, TEXT("\x00\x01z\x01y"));
}

static void segments_may_be_cut_anywhere(void **state)
{
	static char request[1024], response[1024];
	size_t n, m, cut;
	__u32 id = 1;

	(void)state;
	open_begun();
	build_request(id);
	n = t.out.len;
	t.out.len = 0;
	build_answer(id);
	m = t.out.len;
	t.out.len = 0;
	for (cut = 1; cut < n || cut < m; cut++, id += 2) {
		size_t a = cut < n ? cut : n, b = cut < m ? cut : m;

		build_request(id);
		memcpy(request, t.out.data, n);
		t.out.len = 0;
		build_answer(id);
		memcpy(response, t.out.data, m);
		t.out.len = 0;
		raw(request, a);
		ask();
		raw(request + a, n - a);
		ask();
		raw(response, b);
		answer();
		raw(response + b, m - b);
		answer();
	}
	for (size_t piece = 1; piece < 30; piece++, id += 2) {
		build_request(id);
		ask_in(piece);
		build_answer(id);
		answer_in(piece);
	}
	finish(false);
	EXPECT(ROW(POST, 409, 0, id / 2));
	expect_no_drops();
}

/* 9 bytes of a head, and any number of others before it in the segment: the window's end. */
static void a_head_may_stand_anywhere_in_a_segment(void **state)
{
	static const char filler[1200];
	__u32 id = 1;

	(void)state;
	open_begun();
	for (size_t n = 0; n < 1100; n += 1 + (n > 530 || n < 450) * 6, id += 2) {
		frame(OF_AN_EXTENSION, 0, 0, filler, n);
		build_request(id);
		ask();
		frame(HEADERS, 0, id,
		      TEXT("\x48\x03"
			   "201"));
		frame(CONTINUATION, END_HEADERS, id, filler, 0);
		frame(DATA, 0, id, filler, n);
		frame(HEADERS, END_HEADERS | END_STREAM, id, TEXT("\x00\x01z\x01y"));
		answer();
	}
	finish(false);
	EXPECT(ROW(POST, 201, 0, id / 2));
	expect_no_drops();
}

static void statuses_and_codes_however_they_are_written(void **state)
{
	static const struct {
		const char *block;
		size_t len;
	} rows[] = {
	    {TEXT("\x8d")}, /* 404, whole in the static table */
	    {TEXT("\x08\x03"
		  "404")}, /* not kept */
	    {TEXT("\x18\x03"
		  "404")}, /* never to be kept */
	    {TEXT("\x48\x03"
		  "404")},  /* kept */
	    {TEXT("\xbe")}, /* the one kept */
	    {TEXT("\x00\x07:status\x03"
		  "404")}, /* its name spelt out */
	    {TEXT("\x40\x07:status\x83\x68\x0d\x7f")},
	    {TEXT("\x7e\x03"
		  "404")},		    /* its name from the dynamic table */
	    {TEXT("\x20\x3f\xe1\x1f\x8d")}, /* after the table's size */
	    {TEXT("\x08\x83\x68\x0d\x7f")},
	};
	__u32 id = 1;

	(void)state;
	open_begun();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++, id += 2) {
		get(id);
		ask();
		frame(HEADERS, END_HEADERS | END_STREAM, id, rows[i].block, rows[i].len);
		answer();
	}
	finish(false);
	EXPECT(ROW(GET, 404, 0, id / 2));
	expect_no_drops();
}

/* Entries that are older than all that a table of 4096 bytes can hold; and each that it can. */
static void the_table_goes_round(void **state)
{
	char block[16];
	__u32 id = 1;

	(void)state;
	open_begun();
	for (int round = 0; round < 300; round++, id += 2) {
		get(id);
		ask();
		/* 200 + round, kept: a table of entries that are all different. */
		snprintf(block, sizeof(block), "\x48\x03%03d", 200 + round);
		frame(HEADERS, END_HEADERS | END_STREAM, id, block, 5);
		answer();
	}
	for (int back = 0; back < ENTRIES; back += 9, id += 2) {
		unsigned int index = 62 + back;

		get(id);
		ask();
		if (index < 127) {
			block[0] = 0x80 | index;
			frame(HEADERS, END_HEADERS | END_STREAM, id, block, 1);
		} else {
			block[0] = 0xff;
			block[1] = index - 127;
			frame(HEADERS, END_HEADERS | END_STREAM, id, block, 2);
		}
		answer();
	}
	pair_close(&t.pair, false);
	programs_settle(&t.programs, t.conn);
	/* 300 statuses are more than TALLIES_MAX: of the second round, by hand. */
	{
		int fd = bpf_map__fd(t.programs.request->maps.series);
		struct kilter_series_key key, *prev = NULL;
		unsigned int twice = 0, once = 0;

		while (!bpf_map_get_next_key(fd, prev, &key)) {
			struct kilter_series v;
			__u64 n = 0;

			prev = &key;
			assert_int_equal(bpf_map_lookup_elem(fd, &key, &v), 0);
			for (int i = 0; i < KILTER_CLASSIC_BUCKETS; i++)
				n += v.classic[i];
			assert_int_equal(key.error, 0);
			assert_in_range(key.status, 200, 499);
			if (n == 2) {
				assert_int_equal((499 - key.status) % 9, 0);
				twice++;
			} else {
				assert_int_equal(n, 1);
				once++;
			}
		}
		assert_int_equal(twice, 2 * 15);
		assert_int_equal(once, 2 * (300 - 15));
	}
	expect_no_drops();
}

/* --- gRPC --- */

static void codes_of_grpc(void **state)
{
	(void)state;
	open_begun();
	for (__u32 id = 1; id < 20; id += 2) {
		frame(HEADERS, END_HEADERS, id, TEXT(POST_GRPC));
		frame(DATA, END_STREAM, id, TEXT("\0\0\0\0\0"));
	}
	ask();
	frame(HEADERS, END_HEADERS, 1, TEXT(OK_GRPC)); /* the usual */
	frame(DATA, 0, 1, TEXT("\0\0\0\0\0"));
	frame(HEADERS, END_HEADERS | END_STREAM, 1, TEXT(CODE("0", "\x01")));
	frame(HEADERS, END_HEADERS | END_STREAM, 3, TEXT(OK_GRPC CODE("16", "\x02"))); /* no more */
	frame(HEADERS, END_HEADERS | END_STREAM, 5, TEXT(OK_GRPC CODE("17", "\x02"))); /* none */
	frame(HEADERS, END_HEADERS | END_STREAM, 7,
	      TEXT("\x08\x03"
		   "503"));
	frame(HEADERS, END_HEADERS, 9, TEXT(OK_GRPC));
	reset(RST_STREAM, 9, 8); /* CANCEL */
	reset(RST_STREAM, 11, 7);
	frame(HEADERS, END_HEADERS, 13, TEXT(OK_GRPC)); /* kept, by its name alone */
	frame(HEADERS, END_HEADERS | END_STREAM, 13,
	      TEXT("\x40\x0bgrpc-status\x01"
		   "5"));
	frame(HEADERS, END_HEADERS, 15, TEXT(OK_GRPC));
	frame(HEADERS, END_HEADERS | END_STREAM, 15,
	      TEXT("\x7e\x02"
		   "14"));
	frame(HEADERS, END_HEADERS, 17, TEXT(OK_GRPC));
	frame(HEADERS, END_HEADERS | END_STREAM, 17, TEXT("\xbf"));
	answer();
	finish(true);
	EXPECT(CALL(0, 0, 1), CALL(16, 0, 1), CALL(2, 0, 1), CALL(14, 0, 2), CALL(1, 0, 1),
	       CALL(5, 0, 2), CALL(-1, KILTER_REQ_RESET, 1), CALL(-1, KILTER_REQ_CLOSED, 1));
	expect_no_drops();
}

/* What begins like gRPC's content type is not all gRPC: grpc-web has its code in the body. */
static void grpc_is_told_by_its_whole_content_type(void **state)
{
	(void)state;
	open_begun();
	frame(HEADERS, END_HEADERS | END_STREAM, 1,
	      TEXT(POST_TO CONTENT_TYPE "\x1a"
					"application/grpc-web+proto"));
	frame(HEADERS, END_HEADERS | END_STREAM, 3,
	      TEXT(POST_TO CONTENT_TYPE "\x16"
					"application/grpc+proto"));
	frame(HEADERS, END_HEADERS | END_STREAM, 5,
	      TEXT(POST_TO CONTENT_TYPE "\x0f"
					"application/grp"));
	frame(HEADERS, END_HEADERS | END_STREAM, 7,
	      TEXT(POST_TO CONTENT_TYPE "\x19"
					"application/grpc; charset"));
	ask();
	for (__u32 id = 1; id < 9; id += 2) {
		frame(HEADERS, END_HEADERS, id, TEXT(OK));
		frame(DATA, END_STREAM, id, TEXT("body"));
	}
	answer();
	finish(false);
	EXPECT(ROW(POST, 200, 0, 2), CALL(2, 0, 2));
	expect_no_drops();
}

/* --- how a stream ends --- */

static void streams_that_are_reset(void **state)
{
	(void)state;
	open_begun();
	for (__u32 id = 1; id < 14; id += 2)
		get(id);
	ask();
	reset(RST_STREAM, 1, 8); /* by the client, before anything */
	ask();
	reset(RST_STREAM, 3, 7);		  /* by the server */
	frame(HEADERS, END_HEADERS, 5, TEXT(OK)); /* behind the head of the answer */
	reset(RST_STREAM, 5, 2);
	frame(HEADERS, END_HEADERS, 7, TEXT("\x8d"));
	ok(9);
	reset(RST_STREAM, 9, 0); /* behind its end */
	frame(HEADERS, END_HEADERS, 11,
	      TEXT("\x08\x03"
		   "103")); /* that is no answer */
	reset(RST_STREAM, 11, 7);
	ok(1); /* too late */
	reset(RST_STREAM, 13, 0);
	reset(RST_STREAM, 13, 0);
	answer();
	reset(RST_STREAM, 7, 8);
	reset(RST_STREAM, 9, 8);
	ask();
	finish(false);
	EXPECT(ROW(GET, 0, KILTER_REQ_RESET, 4), ROW(GET, 200, 0, 2), ROW(GET, 404, 0, 1));
	expect_no_drops();
}

/* The head of an answer is cut, its stream reset, and its place taken by another: what is left of
 * the head is not the other's. */
static void a_place_that_is_taken_again(void **state)
{
	(void)state;
	open_begun();
	frame(HEADERS, END_HEADERS | END_STREAM, 1, TEXT(POST_TO));
	ask();
	frame(HEADERS, 0, 1, TEXT(OK));
	answer();
	reset(RST_STREAM, 1, 8);
	get(1 + 2 * STREAMS);
	ask();
	frame(CONTINUATION, END_HEADERS | END_STREAM, 1, TEXT("\x8e" CODE("5", "\x01")));
	answer();
	ok(1 + 2 * STREAMS);
	answer();
	finish(false);
	EXPECT(ROW(POST, 200, 0, 1), ROW(GET, 200, 0, 1));
	expect_no_drops();
}

static void the_server_goes_away(void **state)
{
	(void)state;
	open_begun();
	get(1);
	get(3);
	get(5);
	ask();
	frame(GOAWAY, 0, 0, TEXT("\0\0\0\3\0\0\0\0why"));
	ok(1);
	ok(3);
	answer();
	finish(true);
	EXPECT(ROW(GET, 200, 0, 2), ROW(GET, 0, KILTER_REQ_CLOSED, 1));
	expect_no_drops();
}

static void requests_that_the_end_of_the_connection_cuts(void **state)
{
	(void)state;
	for (int by = 0; by < 4; by++) {
		struct linger now = {.l_onoff = 1, .l_linger = 0};
		bool server = by & 1, rst = by & 2;
		__u8 client_error = rst && server ? KILTER_REQ_RESET : KILTER_REQ_CLOSED;
		__u8 server_error = rst && !server ? KILTER_REQ_RESET : KILTER_REQ_CLOSED;

		setup(NULL);
		open_begun();
		get(1);
		get(3);
		get(5);
		ask();
		ok(3);
		frame(HEADERS, END_HEADERS, 5, TEXT(OK));
		answer();
		if (rst)
			setsockopt(server ? t.pair.server : t.pair.client, SOL_SOCKET, SO_LINGER,
				   &now, sizeof(now));
		finish(server);
		EXPECT_ROLE(KILTER_ROLE_CLIENT, ROW(GET, 200, 0, 1), ROW(GET, 0, client_error, 1),
			    ROW(GET, 200, client_error, 1));
		EXPECT_ROLE(KILTER_ROLE_SERVER, ROW(GET, 200, 0, 1), ROW(GET, 0, server_error, 1),
			    ROW(GET, 200, server_error, 1));
		expect_no_drops();
	}
}

/* --- many streams --- */

static void as_many_at_once_as_are_remembered(void **state)
{
	(void)state;
	open_begun();
	for (int round = 0; round < 5; round++) {
		for (__u32 i = 0; i < STREAMS; i++)
			get(1 + 2 * (round * STREAMS + i));
		ask();
		for (__u32 i = STREAMS; i-- > 0;)
			ok(1 + 2 * (round * STREAMS + i));
		answer();
	}
	finish(false);
	EXPECT(ROW(GET, 200, 0, 5 * STREAMS));
	expect_no_drops();
}

static void more_than_are_remembered_are_counted_and_told(void **state)
{
	(void)state;
	open_begun();
	for (__u32 i = 0; i < STREAMS + 50; i++)
		get(1 + 2 * i);
	ask();
	for (__u32 i = 0; i < STREAMS + 50; i++)
		ok(1 + 2 * i);
	answer();
	finish(false);
	EXPECT(ROW(GET, 200, 0, STREAMS), ROW(GET, 0, 0, 50));
	assert_int_equal(dropped(KILTER_DROP_HTTP2_STREAMS), 2 * 50);
}

/* Some that last, opened one after the other as a client does at its start, beside many short. */
static void some_that_last_beside_many_that_do_not(void **state)
{
	(void)state;
	open_begun();
	for (__u32 id = 1; id < 41; id += 2) {
		frame(HEADERS, END_HEADERS, id, TEXT(POST_GRPC));
		frame(DATA, END_STREAM, id, TEXT("\0\0\0\0\0"));
	}
	ask();
	for (__u32 id = 41; id < 2041; id += 2) {
		get(id);
		ask();
		ok(id);
		answer();
	}
	for (__u32 id = 1; id < 41; id += 2) {
		frame(HEADERS, END_HEADERS, id, TEXT(OK_GRPC));
		frame(HEADERS, END_HEADERS | END_STREAM, id, TEXT(CODE("0", "\x01")));
	}
	answer();
	finish(false);
	EXPECT(ROW(GET, 200, 0, 1000), CALL(0, 0, 20));
	expect_no_drops();
}

/* A hundred at once, which end in no order at all. */
static void streams_that_end_in_any_order(void **state)
{
	__u32 open[100], n = 0, next = 1, done = 0, random = 1;

	(void)state;
	open_begun();
	while (done < 3000) {
		while (n < 100) {
			get(next);
			open[n++] = next;
			next += 2;
		}
		ask();
		for (int i = 0; i < 10; i++, done++) {
			__u32 at;

			random = random * 1103515245 + 12345;
			at = (random >> 16) % n;
			ok(open[at]);
			open[at] = open[--n];
		}
		answer();
	}
	while (n)
		ok(open[--n]);
	answer();
	finish(false);
	EXPECT(ROW(GET, 200, 0, next / 2));
	expect_no_drops();
}

/* --- large and many --- */

static void bodies_of_a_mebibyte_both_ways(void **state)
{
	static char body[16384];
	__u32 id = 1;

	(void)state;
	/* Heads of frames, all over. */
	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = "\0\0\3\1\5\0\0\0\1\x82\x84\x86"[i % 12];
	open_begun();
	for (; id < 10; id += 2) {
		frame(HEADERS, END_HEADERS, id, TEXT(POST_TO));
		for (size_t i = 0; i < MIB / sizeof(body); i++)
			frame(DATA, 0, id, body, sizeof(body));
		frame(DATA, END_STREAM, id, NULL, 0);
		ask();
		frame(HEADERS, END_HEADERS, id, TEXT(OK));
		for (size_t i = 0; i < MIB / sizeof(body); i++)
			frame(DATA, 0, id, body, sizeof(body));
		frame(DATA, END_STREAM, id, NULL, 0);
		answer();
	}
	finish(false);
	EXPECT(ROW(POST, 200, 0, id / 2));
	expect_no_drops();
}

/* Calls of gRPC, each as small as can be, packed into the largest segments there are. */
static void segments_full_of_small_frames(void **state)
{
	__u32 id = 1;

	(void)state;
	open_begun();
	for (int round = 0; round < 40; round++) {
		__u32 from = id;

		for (int i = 0; i < 100; i++, id += 2) {
			frame(HEADERS, END_HEADERS, id,
			      TEXT("\x83\x84\x86\x0f\x10\x10"
				   "application/grpc\x86\x86\x86\x86"));
			frame(DATA, END_STREAM, id, TEXT("\0\0\0\0\0"));
		}
		ask();
		for (; from < id; from += 2) {
			frame(HEADERS, END_HEADERS, from, TEXT("\x88\x9f\x9f\x9f\x9f"));
			for (int i = 0; i < 20; i++)
				frame(DATA, 0, from, TEXT("\0\0\0\0\0"));
			frame(HEADERS, END_HEADERS | END_STREAM, from, TEXT(CODE("0", "\x01")));
		}
		answer();
	}
	finish(false);
	EXPECT(CALL(0, 0, 4000));
	expect_no_drops();
}

/* The shortest messages of gRPC, of none of whose streams there is an end for long. */
static void messages_without_content_fill_segments(void **state)
{
	(void)state;
	open_begun();
	frame(HEADERS, END_HEADERS | END_STREAM, 1, TEXT(POST_GRPC));
	ask();
	frame(HEADERS, END_HEADERS, 1, TEXT(OK_GRPC));
	/* One of loopback's largest segments. Of several a second CPU would wait for its turn,
	 * which is another matter: on an emulated machine longer than it may. */
	for (int i = 0; i < 9000; i++)
		frame(DATA, 0, 1, TEXT("\0\0\0\0\0"));
	frame(HEADERS, END_HEADERS | END_STREAM, 1, TEXT(CODE("0", "\x01")));
	answer();
	finish(false);
	EXPECT(CALL(0, 0, 1));
	expect_no_drops();
}

/* --- what is not as it should be --- */

static void malformed_frames_are_told(void **state)
{
	static const struct {
		__u8 type, flags;
		__u32 stream;
		const char *payload;
		size_t len;
	} rows[] = {
	    {HEADERS, END_HEADERS | WITH_PRIORITY, 3, TEXT("\0\0")}, /* no room for it */
	    {HEADERS, END_HEADERS | PADDED, 3, TEXT("\x09\x82")},    /* more than there is */
	    {HEADERS, END_HEADERS | PADDED, 3, NULL, 0},
	    {HEADERS, END_HEADERS, 3, TEXT("\x82\x44\x7f")},		 /* ends in a field */
	    {HEADERS, END_HEADERS, 3, TEXT("\xff\xff\xff\xff\xff\xff")}, /* no such number */
	    {CONTINUATION, END_HEADERS, 3, TEXT("\x82")},
	    {HEADERS, END_HEADERS, 0, TEXT("\x82")},
	    {SETTINGS, 0, 0, TEXT("\0\0")},
	    {RST_STREAM, 0, 1, TEXT("\0\0")},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		setup(NULL);
		open_begun();
		get(1);
		frame(rows[i].type, rows[i].flags, rows[i].stream, rows[i].payload, rows[i].len);
		frame(PING, 0, 0, TEXT("12345678")); /* not looked at any more */
		ask();
		if (dropped(KILTER_DROP_HTTP2_FRAMING) != 2)
			fail_msg("row %zu", i);
		get(5); /* where track is found again */
		ask();
		ok(5);
		ok(1);
		answer();
		pair_close(&t.pair, false);
		settle();
		for (unsigned int k = 0; k < tallies.count; k++)
			if (tallies.rows[k].status == 200 && tallies.rows[k].count != 2)
				fail_msg("row %zu: %llu", i, tallies.rows[k].count);
	}
}

/* Answers that went by while track was lost are missing, and nobody's fault. */
static void where_track_was_lost_no_answer_is_no_error(void **state)
{
	(void)state;
	open_begun();
	get(1);
	get(3);
	ask();
	frame(SETTINGS, 0, 0, TEXT("\0\0"));
	ok(1);
	answer();
	frame(PING, 0, 0, TEXT("12345678"));
	ok(3);
	answer();
	get(5);
	get(7);
	ask();
	ok(5);
	answer();
	finish(true);
	EXPECT(ROW(GET, 200, 0, 1), ROW(GET, 0, 0, 2), ROW(GET, 0, KILTER_REQ_CLOSED, 1));
	assert_int_equal(dropped(KILTER_DROP_HTTP2_FRAMING), 2);
}

/* --- connections that are older, used again, or hurried --- */

static void a_connection_adopted_in_its_middle(void **state)
{
	(void)state;
	/* Sequence numbers are any: each is a chance. */
	for (int i = 0; i < 24; i++) {
		setup(NULL);
		programs_detach(&t.programs);
		open_begun();
		get(1);
		get(3);
		ask();
		frame(HEADERS, END_HEADERS | END_STREAM, 1,
		      TEXT("\x48\x03"
			   "202"));
		answer();
		programs_attach(&t.programs);
		programs_adopt(&t.programs);
		frame(HEADERS, END_HEADERS | END_STREAM, 5, TEXT(POST_TO));
		ask();
		ok(5);
		ok(3);
		answer();
		frame(HEADERS, END_HEADERS | END_STREAM, 7, TEXT(POST_TO));
		ask();
		frame(HEADERS, END_HEADERS | END_STREAM, 7, TEXT("\xbe")); /* from before */
		answer();
		finish(false);
		EXPECT(ROW(POST, 200, 0, 1), ROW(POST, 0, 0, 1));
		expect_no_drops();
	}
}

static void a_socket_used_for_a_second_connection(void **state)
{
	const struct sockaddr none = {.sa_family = AF_UNSPEC};

	(void)state;
	open_begun();
	get(1);
	get(3);
	get(5);
	ask();
	frame(HEADERS, END_HEADERS | END_STREAM, 1,
	      TEXT("\x48\x03"
		   "202"));
	answer();
	assert_int_equal(connect(t.pair.client, &none, sizeof(none)), 0);
	close(t.pair.server);
	assert_int_equal(connect(t.pair.client, (struct sockaddr *)&t.pair.addr, t.pair.addr_len),
			 0);
	t.pair.server = accept(t.pair.listener, NULL, NULL);
	assert_true(t.pair.server >= 0);
	begin_client();
	get(1);
	ask();
	frame(SETTINGS, 0, 0, NULL, 0);
	frame(HEADERS, END_HEADERS | END_STREAM, 1,
	      TEXT("\x48\x03"
		   "203"));
	answer();
	get(3);
	ask();
	frame(HEADERS, END_HEADERS | END_STREAM, 3, TEXT("\xbe"));
	answer();
	finish(false);
	EXPECT_ROLE(KILTER_ROLE_CLIENT, ROW(GET, 202, 0, 1), ROW(GET, 203, 0, 2),
		    ROW(GET, 0, KILTER_REQ_CLOSED, 2));
	expect_no_drops();
}

/* The first segment meets the listener: the socket that will own it does not exist yet. */
static void deferred_accept_counts_the_first_request(void **state)
{
	int seconds = 5;

	(void)state;
	assert_int_equal(pair_listen(&t.pair, PAIR_V4, 16), 0);
	setsockopt(t.pair.listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, &seconds, sizeof(seconds));
	t.pair.client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(t.pair.client, (struct sockaddr *)&t.pair.addr, t.pair.addr_len),
			 0);
	begin_client();
	get(1);
	assert_int_equal(send(t.pair.client, t.out.data, t.out.len, 0), t.out.len);
	t.out.len = 0;
	t.pair.server = accept(t.pair.listener, NULL, NULL);
	assert_true(t.pair.server >= 0);
	frame(SETTINGS, 0, 0, NULL, 0);
	ok(1);
	answer();
	get(3);
	assert_int_equal(send(t.pair.client, t.out.data, t.out.len, 0), t.out.len);
	t.out.len = 0;
	ok(3);
	answer();
	finish(false);
	EXPECT(ROW(GET, 200, 0, 2));
	expect_no_drops();
}

#define HURRIED 3000

struct hurry {
	pthread_barrier_t barrier;
	const char *data;
	size_t len;
	int err;
};

static void *hurry_server(void *arg)
{
	struct hurry *h = arg;

	for (int i = 0; i < HURRIED; i++) {
		pthread_barrier_wait(&h->barrier);
		if (send(t.pair.server, h->data, h->len, MSG_NOSIGNAL) != (ssize_t)h->len)
			h->err = errno;
		pthread_barrier_wait(&h->barrier);
	}
	return NULL;
}

/* Both ends speak at the same moment: two CPUs find out about one connection. */
static void both_ends_may_speak_at_once(void **state)
{
	static const char settings[] = "\0\0\0\4\0\0\0\0\0";
	struct hurry h = {.data = settings, .len = sizeof(settings) - 1};
	static char got[256];
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_barrier_init(&h.barrier, NULL, 2), 0);
	assert_int_equal(pthread_create(&thread, NULL, hurry_server, &h), 0);
	for (int i = 0; i < HURRIED; i++) {
		size_t n;

		open_pair();
		begin_client();
		get(1);
		n = t.out.len;
		pthread_barrier_wait(&h.barrier);
		if (send(t.pair.client, t.out.data, n, MSG_NOSIGNAL) != (ssize_t)n)
			h.err = errno;
		t.out.len = 0;
		pthread_barrier_wait(&h.barrier);
		assert_int_equal(recv(t.pair.client, got, h.len, MSG_WAITALL), h.len);
		assert_int_equal(recv(t.pair.server, got, n, MSG_WAITALL), n);
		ok(1);
		answer();
		pair_close(&t.pair, true);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	pthread_barrier_destroy(&h.barrier);
	assert_int_equal(h.err, 0);
	settle();
	EXPECT(ROW(GET, 200, 0, HURRIED));
	expect_no_drops();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

static int run(const char *name)
{
	const struct CMUnitTest tests[] = {
	    TEST(one_after_another),
	    TEST(the_server_may_speak_first),
	    TEST(the_preface_may_be_cut_anywhere),
	    TEST(both_versions_at_one_listener),
	    TEST(other_protocols_are_not_http2),
	    TEST(segments_may_be_cut_anywhere),
	    TEST(a_head_may_stand_anywhere_in_a_segment),
	    TEST(statuses_and_codes_however_they_are_written),
	    TEST(the_table_goes_round),
	    TEST(codes_of_grpc),
	    TEST(grpc_is_told_by_its_whole_content_type),
	    TEST(streams_that_are_reset),
	    TEST(a_place_that_is_taken_again),
	    TEST(the_server_goes_away),
	    TEST(requests_that_the_end_of_the_connection_cuts),
	    TEST(as_many_at_once_as_are_remembered),
	    TEST(more_than_are_remembered_are_counted_and_told),
	    TEST(some_that_last_beside_many_that_do_not),
	    TEST(streams_that_end_in_any_order),
	    TEST(bodies_of_a_mebibyte_both_ways),
	    TEST(segments_full_of_small_frames),
	    TEST(messages_without_content_fill_segments),
	    TEST(malformed_frames_are_told),
	    TEST(where_track_was_lost_no_answer_is_no_error),
	    TEST(a_connection_adopted_in_its_middle),
	    TEST(a_socket_used_for_a_second_connection),
	    TEST(deferred_accept_counts_the_first_request),
	    TEST(both_ends_may_speak_at_once),
	};

	return cmocka_run_group_tests_name(name, tests, group_setup, group_teardown);
}

int main(void)
{
	return tier_runs(run);
}
