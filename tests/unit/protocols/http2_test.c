// SPDX-License-Identifier: Apache-2.0
/* The kernel's HTTP/2 parser, natively: the RFCs' own examples, the edges of frames, and the
 * fuzzer's checks on inputs from a fixed generator. */
#include <setjmp.h>
#include <stdarg.h>

#include "../../fuzz/http2_fuzz.c"
#include "inputs.h"

#include <cmocka.h>

#define INPUTS 1000
#define NO_CUT SIZE_MAX

static const uint8_t none[] = {0};

/* A connection whose both prefaces have been seen; its frames begin at number 0 in each way. */
static void begin(void)
{
	struct input in = {none, none};

	connection_begin(&in);
	deliver(0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, HTTP2_PREFACE);
	deliver(1, "\0\0\0\4\0\0\0\0\0", 0, HTTP2_FRAME_HEAD);
	first_seq[0] += HTTP2_PREFACE;
	first_seq[1] += HTTP2_FRAME_HEAD;
	for (int d = 0; d < 2; d++) {
		ways[d].text.len = 0;
		ways[d].count = 0;
	}
}

static void put_hex(struct text *t, const char *hex)
{
	unsigned int byte;

	for (; sscanf(hex, "%2x", &byte) == 1; hex += 2 + (hex[2] == ' '))
		put_byte(t, byte);
}

/* A frame whose payload is these bytes. */
static void frame(int way, uint8_t type, uint8_t flags, uint32_t stream, const char *hex)
{
	block.len = 0;
	put_hex(&block, hex);
	put_frame(&ways[way], 0, type, flags, stream, -1, 0, block.bytes, block.len);
}

/* What has not been delivered yet, in a segment, or in two. */
static void send_cut(int way, size_t from, size_t cut)
{
	const struct text *t = &ways[way].text;

	if (from < cut && cut < t->len) {
		deliver(way, t->bytes, from, cut);
		from = cut;
	}
	deliver(way, t->bytes, from, t->len);
}

static void send_all(int way)
{
	send_cut(way, 0, NO_CUT);
	first_seq[way] += (uint32_t)ways[way].text.len;
	ways[way].text.len = 0;
}

static uint32_t route(const char *path)
{
	struct kilter_route_hash r;

	kilter_route_begin(&r, 1);
	for (; *path; path++)
		kilter_route_byte(&r, (uint8_t)*path);
	return kilter_route_end(&r);
}

static void check(unsigned int i, uint8_t protocol, uint8_t method, const char *path,
		  uint16_t status, uint8_t error)
{
	assert_true(i < conn.results_count);
	assert_int_equal(conn.results[i].protocol, protocol);
	assert_int_equal(conn.results[i].method, method);
	assert_int_equal(conn.results[i].route, path ? route(path) : 0);
	assert_int_equal(conn.results[i].status, status);
	assert_int_equal(conn.results[i].error, error);
}

static void check_route_text(const char *path)
{
	const struct kilter_route *r = path_of(route(path));

	assert_non_null(r);
	assert_int_equal(r->path_len, strlen(path));
	assert_memory_equal(r->path, path, strlen(path));
}

#define GET	    KILTER_METHOD_GET
#define HTTP2	    KILTER_PROTO_HTTP2
#define GRPC	    KILTER_PROTO_GRPC
#define HEAD_FLAGS  HTTP2_END_HEADERS
#define WHOLE_FLAGS (HTTP2_END_HEADERS | HTTP2_END_STREAM)

/* --- RFC 7541 appendix C. */

struct example { /* three requests, or three responses, on one connection */
	const char *blocks[3];
	const char *paths[3];
	uint16_t statuses[3];
	unsigned int known[3]; /* entries inserted so far */
};

static const struct example requests[] = {
    {/* C.3, without Huffman */
     {"8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d", "8286 84be 5808 6e6f 2d63 6163 6865",
      "8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65"},
     {"/", "/", "/index.html"},
     {0},
     {1, 2, 3}},
    {/* C.4, with Huffman */
     {"8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff", "8286 84be 5886 a8eb 1064 9cbf",
      "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf"},
     {"/", "/", "/index.html"},
     {0},
     {1, 2, 3}},
};

static const struct example responses[] = {
    {/* C.5, without Huffman, in a table of 256 bytes */
     {"4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a "
      "3133 3a32 3120 474d 546e 1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
      "4803 3330 37c1 c0bf",
      "88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 "
      "677a 6970 7738 666f 6f3d 4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 "
      "553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31"},
     {0},
     {302, 307, 200},
     {4, 5, 8}},
    {/* C.6, with Huffman */
     {"4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e "
      "919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
      "4883 640e ffc1 c0bf",
      "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 "
      "821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed "
      "4ee5 b106 3d50 07"},
     {0},
     {302, 307, 200},
     {4, 5, 8}},
};

/* Each example, with every byte of both directions once the last of a segment. */
static void the_examples_of_rfc_7541(const struct example *asked, const struct example *answered,
				     size_t cut)
{
	size_t from[2] = {0, 0};

	begin();
	for (unsigned int i = 0; i < 3; i++) {
		frame(0, HTTP2_HEADERS, WHOLE_FLAGS, 2 * i + 1,
		      asked ? asked->blocks[i] : "82 86 84");
		frame(1, HTTP2_HEADERS, WHOLE_FLAGS, 2 * i + 1,
		      answered ? answered->blocks[i] : "89");
		for (int d = 0; d < 2; d++) {
			send_cut(d, from[d], cut);
			from[d] = ways[d].text.len;
		}
		assert_int_equal(conn.results_count, i + 1);
		check(i, HTTP2, GET, asked ? asked->paths[i] : "/",
		      answered ? answered->statuses[i] : 204, KILTER_REQ_OK);
		assert_int_equal(conn.http2->directions[1].inserted, asked ? asked->known[i] : 0);
		assert_int_equal(conn.http2->directions[0].inserted,
				 answered ? answered->known[i] : 0);
	}
	connection_end(false);
	assert_int_equal(conn.results_count, 3);
	assert_int_equal(kernel.drops[KILTER_DROP_HTTP2_FRAMING], 0);
}

static void rfc_7541_requests_cut_at_every_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++)
		for (size_t cut = 0; cut < 150; cut++)
			the_examples_of_rfc_7541(&requests[i], NULL, cut);
}

static void rfc_7541_responses_cut_at_every_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2; i++)
		for (size_t cut = 0; cut < 260; cut++)
			the_examples_of_rfc_7541(NULL, &responses[i], cut);
}

/* --- A call with everything that may be cut. */

#define GRPC_PATH "/helloworld.Greeter/SayHello"

/* :method POST, :path literal, content-type and grpc-status by name, all into the table. */
static void put_call(void)
{
	static const char asked[] = "\x83\x86\x44\x1c" GRPC_PATH "\x5f\x16"
				    "application/grpc+proto",
			  trailers[] = "\x40\x0bgrpc-status\x02"
				       "14";

	block.len = 0;
	put_bytes(&block, asked, sizeof(asked) - 1);
	put_frame(&ways[0], 0, HTTP2_HEADERS, HTTP2_PRIORITY_FLAG, 1, 3, 5, block.bytes, 9);
	put_frame(&ways[0], 0, HTTP2_CONTINUATION, 0, 1, -1, 0, block.bytes + 9, 0);
	put_frame(&ways[0], 0, HTTP2_CONTINUATION, HTTP2_END_HEADERS, 1, -1, 0, block.bytes + 9,
		  block.len - 9);
	frame(0, HTTP2_DATA, 0, 1, "00 00 00 00 00");
	frame(0, HTTP2_PING, 0, 0, "0102030405060708");
	frame(0, HTTP2_DATA, HTTP2_END_STREAM, 1, "");
	frame(1, HTTP2_SETTINGS, 1, 0, "");
	frame(1, HTTP2_HEADERS, HEAD_FLAGS, 1, "88");
	frame(1, HTTP2_WINDOW_UPDATE, 0, 1, "00000001");
	frame(1, HTTP2_DATA, HTTP2_PADDED, 1, "02 88 00 00");
	block.len = 0;
	put_bytes(&block, trailers, sizeof(trailers) - 1);
	put_frame(&ways[1], 0, HTTP2_HEADERS, WHOLE_FLAGS, 1, 0, 0, block.bytes, block.len);
}

static void a_call_of_grpc_cut_at_every_byte(void **state)
{
	size_t len[2];

	(void)state;
	begin();
	put_call();
	len[0] = ways[0].text.len;
	len[1] = ways[1].text.len;
	for (int d = 0; d < 2; d++)
		for (size_t cut = 1; cut < len[d]; cut++) {
			begin();
			put_call();
			send_cut(0, 0, d ? NO_CUT : cut);
			assert_int_equal(conn.results_count, 0);
			send_cut(1, 0, d ? cut : NO_CUT);
			assert_int_equal(conn.results_count, 1);
			check(0, GRPC, KILTER_METHOD_POST, GRPC_PATH, KILTER_STATUS_GRPC + 14,
			      KILTER_REQ_OK);
			assert_int_equal(conn.results[0].bytes_request,
					 len[0] - (HTTP2_FRAME_HEAD + 8));
			/* Not those of SETTINGS and of WINDOW_UPDATE. */
			assert_int_equal(conn.results[0].bytes_response,
					 len[1] - 2 * HTTP2_FRAME_HEAD - 4);
			check_route_text(GRPC_PATH);
		}
}

/* A byte a segment: whatever can be kept is. */
static void a_call_of_grpc_byte_by_byte(void **state)
{
	(void)state;
	begin();
	put_call();
	for (int d = 0; d < 2; d++)
		for (size_t i = 0; i < ways[d].text.len; i++)
			deliver(d, ways[d].text.bytes, i, i + 1);
	assert_int_equal(conn.results_count, 1);
	check(0, GRPC, KILTER_METHOD_POST, GRPC_PATH, KILTER_STATUS_GRPC + 14, KILTER_REQ_OK);
}

static void the_preface_cut_at_every_byte(void **state)
{
	static const char preface[] =
	    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\3\1\5\0\0\0\1\x82\x86\x84";
	struct input in = {none, none};

	(void)state;
	for (size_t cut = 1; cut < sizeof(preface) - 1; cut++) {
		connection_begin(&in);
		deliver(0, preface, 0, cut);
		deliver(0, preface, cut, sizeof(preface) - 1);
		connection_end(false);
		assert_int_equal(conn.results_count, 1);
		check(0, HTTP2, GET, "/", 0, KILTER_REQ_CLOSED);
	}
}

/* --- Frames. */

/* Track is lost at a frame that cannot be, and what comes after it in its segment is not read. */
static void frames_that_cannot_be_lose_track(void **state)
{
	static const struct {
		uint8_t type, flags;
		uint32_t stream;
		const char *hex;
	} bad[] = {
	    {HTTP2_CONTINUATION, HTTP2_END_HEADERS, 1, "82"}, /* of nothing */
	    {HTTP2_DATA, 0, 0, "00"},
	    {HTTP2_HEADERS, HEAD_FLAGS, 0, "82"},
	    {HTTP2_HEADERS, HEAD_FLAGS | HTTP2_PADDED, 1, "04 82 86 84"}, /* more than there is */
	    {HTTP2_HEADERS, HEAD_FLAGS | HTTP2_PRIORITY_FLAG, 1, "00 00 00"},
	    {HTTP2_HEADERS, HEAD_FLAGS | HTTP2_PRIORITY_FLAG | HTTP2_PADDED, 1,
	     "01 00 00 00 00 00"},
	    {HTTP2_PUSH_PROMISE, HEAD_FLAGS, 1, "00 00"},
	    {HTTP2_HEADERS, HEAD_FLAGS, 1, "82 86 41 05 77"},	    /* ends in a string */
	    {HTTP2_HEADERS, HEAD_FLAGS, 1, "82 86 ff"},		    /* ends in an integer */
	    {HTTP2_HEADERS, HEAD_FLAGS, 1, "ff ff ff ff ff ff 00"}, /* no such number */
	    {HTTP2_PRIORITY, 0, 0, "00 00 00 00 00"},
	    {HTTP2_RST_STREAM, 0, 1, "00 00 00"},
	    {HTTP2_SETTINGS, 0, 0, "00 00 00 00 00"},
	    {HTTP2_SETTINGS, 0, 1, ""},
	    {HTTP2_PING, 0, 0, "00"},
	    {HTTP2_GOAWAY, 0, 0, "00 00 00 00"},
	    {HTTP2_WINDOW_UPDATE, 0, 0, "00 00 00 00 00"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		begin();
		frame(0, HTTP2_HEADERS, WHOLE_FLAGS, 1, "82 86 84");
		frame(1, bad[i].type, bad[i].flags, bad[i].stream, bad[i].hex);
		frame(1, HTTP2_HEADERS, WHOLE_FLAGS, 1, "8d");
		send_all(0);
		send_all(1);
		if (kernel.drops[KILTER_DROP_HTTP2_FRAMING] != 1)
			print_message("bad frame %zu\n", i);
		assert_int_equal(kernel.drops[KILTER_DROP_HTTP2_FRAMING], 1);
		assert_int_equal(conn.results_count, 0);
		/* A segment that begins with a head finds it again. */
		frame(1, HTTP2_HEADERS, WHOLE_FLAGS, 1, "8d");
		send_all(1);
		assert_int_equal(conn.results_count, 1);
		check(0, HTTP2, GET, "/", 404, KILTER_REQ_OK);
	}
}

static void a_block_is_not_interrupted(void **state)
{
	(void)state;
	begin();
	frame(0, HTTP2_HEADERS, 0, 1, "82 86");
	frame(0, HTTP2_PING, 0, 0, "0000000000000000");
	frame(0, HTTP2_CONTINUATION, HTTP2_END_HEADERS, 1, "84");
	send_all(0);
	assert_int_equal(kernel.drops[KILTER_DROP_HTTP2_FRAMING], 1);
}

static void frames_that_may_be_empty(void **state)
{
	(void)state;
	begin();
	frame(0, HTTP2_HEADERS, HTTP2_END_STREAM, 1, "");
	frame(0, HTTP2_CONTINUATION, 0, 1, "");
	frame(0, HTTP2_CONTINUATION, 0, 1, "82 86 84");
	frame(0, HTTP2_CONTINUATION, HTTP2_END_HEADERS, 1, "");
	frame(1, 0x2a, 0xff, 0, "");
	frame(1, HTTP2_DATA, 0, 3, ""); /* of no stream we know */
	frame(1, HTTP2_HEADERS, HEAD_FLAGS, 1, "88");
	frame(1, HTTP2_DATA, HTTP2_PADDED, 1, "00");
	frame(1, HTTP2_DATA, HTTP2_END_STREAM, 1, "");
	frame(1, HTTP2_DATA, HTTP2_END_STREAM, 1, "");
	send_all(0);
	send_all(1);
	assert_int_equal(conn.results_count, 1);
	check(0, HTTP2, GET, "/", 200, KILTER_REQ_OK);
	assert_int_equal(kernel.drops[KILTER_DROP_HTTP2_FRAMING], 0);
}

/* --- Requests. */

static void early_hints_are_no_response(void **state)
{
	(void)state;
	for (int how = 0; how < 2; how++) {
		begin();
		frame(0, HTTP2_HEADERS, WHOLE_FLAGS, 1, "82 86 84");
		frame(1, HTTP2_HEADERS, HEAD_FLAGS, 1, "08 03 31 30 33"); /* :status 103 */
		if (how)
			frame(1, HTTP2_RST_STREAM, 0, 1, "00 00 00 02");
		send_all(0);
		send_all(1);
		connection_end(false);
		assert_int_equal(conn.results_count, 1);
		check(0, HTTP2, GET, "/", 0, how ? KILTER_REQ_RESET : KILTER_REQ_CLOSED);
	}
}

static void a_response_that_comes_before_its_request_is_whole(void **state)
{
	(void)state;
	begin();
	frame(0, HTTP2_HEADERS, HEAD_FLAGS, 1, "83 86 84");
	send_all(0);
	frame(1, HTTP2_HEADERS, WHOLE_FLAGS, 1, "8c");
	frame(1, HTTP2_RST_STREAM, 0, 1, "00 00 00 00"); /* RFC 9113 section 8.1 */
	send_all(1);
	frame(0, HTTP2_DATA, HTTP2_END_STREAM, 1, "00 00");
	send_all(0);
	connection_end(false);
	assert_int_equal(conn.results_count, 1);
	check(0, HTTP2, KILTER_METHOD_POST, "/", 400, KILTER_REQ_OK);
}

static void a_head_that_the_other_side_reset_is_not_another_streams(void **state)
{
	const uint32_t next = 1 + 2 * HTTP2_STREAMS; /* where stream 1 was */

	(void)state;
	begin();
	frame(0, HTTP2_HEADERS, WHOLE_FLAGS, 1, "82 86 84");
	send_all(0);
	frame(1, HTTP2_HEADERS, 0, 1, "");
	send_all(1);
	frame(0, HTTP2_RST_STREAM, 0, 1, "00 00 00 08");
	frame(0, HTTP2_HEADERS, WHOLE_FLAGS, next, "82 86 84");
	send_all(0);
	frame(1, HTTP2_CONTINUATION, HTTP2_END_HEADERS, 1, "8e"); /* :status 500 */
	send_all(1);
	connection_end(false);
	assert_int_equal(conn.results_count, 2);
	check(0, HTTP2, GET, "/", 0, KILTER_REQ_RESET);
	check(1, HTTP2, GET, "/", 0, KILTER_REQ_CLOSED);
	assert_int_equal(conn.results[1].bytes_response, 0);
}

static void a_promise_is_no_request(void **state)
{
	(void)state;
	begin();
	frame(0, HTTP2_HEADERS, WHOLE_FLAGS, 1, "82 86 84");
	frame(1, HTTP2_PUSH_PROMISE, HEAD_FLAGS, 1, "00 00 00 02 82 86 85");
	frame(1, HTTP2_HEADERS, WHOLE_FLAGS, 2, "8e");
	frame(1, HTTP2_HEADERS, WHOLE_FLAGS, 1, "88");
	send_all(0);
	send_all(1);
	connection_end(false);
	assert_int_equal(conn.results_count, 1);
	check(0, HTTP2, GET, "/", 200, KILTER_REQ_OK);
}

static void streams_beyond_what_is_remembered_are_counted_and_told(void **state)
{
	(void)state;
	begin();
	for (uint32_t i = 0; i < HTTP2_STREAMS + 1; i++)
		frame(0, HTTP2_HEADERS, WHOLE_FLAGS, 2 * i + 1, "82 86 84");
	send_all(0);
	assert_int_equal(conn.results_count, 1);
	assert_int_equal(kernel.drops[KILTER_DROP_HTTP2_STREAMS], 1);
	connection_end(false);
	assert_int_equal(conn.results_count, HTTP2_STREAMS + 1);
}

/* --- The fuzzer's checks. */

static void generated_frames_count_exactly_however_they_are_cut(void **state)
{
	(void)state;
	run_generated(INPUTS);
}

static void found_inputs_stay_right(void **state)
{
	(void)state;
	run_found("tests/fuzz/corpus/http2/*");
}

static int free_last(void **state)
{
	(void)state;
	http2_delete();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(rfc_7541_requests_cut_at_every_byte),
	    cmocka_unit_test(rfc_7541_responses_cut_at_every_byte),
	    cmocka_unit_test(a_call_of_grpc_cut_at_every_byte),
	    cmocka_unit_test(a_call_of_grpc_byte_by_byte),
	    cmocka_unit_test(the_preface_cut_at_every_byte),
	    cmocka_unit_test(frames_that_cannot_be_lose_track),
	    cmocka_unit_test(a_block_is_not_interrupted),
	    cmocka_unit_test(frames_that_may_be_empty),
	    cmocka_unit_test(early_hints_are_no_response),
	    cmocka_unit_test(a_response_that_comes_before_its_request_is_whole),
	    cmocka_unit_test(a_head_that_the_other_side_reset_is_not_another_streams),
	    cmocka_unit_test(a_promise_is_no_request),
	    cmocka_unit_test(streams_beyond_what_is_remembered_are_counted_and_told),
	    cmocka_unit_test(generated_frames_count_exactly_however_they_are_cut),
	    cmocka_unit_test(found_inputs_stay_right),
	};

	return cmocka_run_group_tests(tests, NULL, free_last);
}
