// SPDX-License-Identifier: Apache-2.0
/*
 * The kernel's HTTP/1 parser, compiled natively over a packet in memory. The input decides
 * on an exchange of messages, on where its segments are cut and in which order they come; the
 * generator knows which requests there are, and the parser has to find these and no others:
 *  - in order, and with retransmissions that overlap: each request, exactly;
 *  - out of order or arbitrary bytes: nothing outside its memory, and no request that
 *    ends twice or never.
 */
#define KILTER_BPF_ROUTE_H

#include "kernel.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"

#include "lib/sock.h"

#define RESULTS_MAX 256

struct result {
	uint16_t status;
	uint8_t method, error;
};

static struct {
	struct result results[RESULTS_MAX];
	unsigned int results_count;
	struct kilter_sock sock;
	struct sock_pipeline pipeline;
	struct sock_carry carry;
} conn;

static void series_bump(const struct kilter_series_key *key, uint64_t ns, uint64_t in, uint64_t out,
			uint32_t times)
{
	(void)ns;
	(void)in;
	(void)out;
	if (times != 1)
		abort();
	if (conn.results_count < RESULTS_MAX)
		conn.results[conn.results_count] =
		    (struct result){key->status, key->method, key->error};
	conn.results_count++;
}

#include "lib/scratch.h"

static uint32_t route_of(uint32_t slot, uint32_t workload, uint32_t at, uint32_t end)
{
	(void)slot;
	(void)workload;
	(void)at;
	(void)end;
	return 1;
}

static uint64_t path_hash(const struct scratch *sc, uint32_t at)
{
	return word_at(sc, at);
}

static uint32_t route_by_tag(struct scratch *sc, uint32_t workload, uint32_t at, uint32_t end,
			     uint64_t tag)
{
	if (tag != word_at(sc, at))
		abort();
	return route_of(sc->slot, workload, at, end);
}

#include "protocols/http1.h"
#pragma GCC diagnostic pop

#include "segment.h"

static void *map_lookup(const void *map, const void *key)
{
	uint32_t slot;

	memcpy(&slot, key, sizeof(slot));
	return map == &scratches ? slot_at(slot) : NULL;
}

static int map_update(const void *map, const void *key, const void *value)
{
	(void)map;
	(void)key;
	(void)value;
	return 0;
}

static void *storage_get(const void *map, uint64_t flags)
{
	(void)flags;
	if (map == &socks)
		return &conn.sock;
	if (map == &sock_pipelines)
		return &conn.pipeline;
	if (map == &sock_carries)
		return &conn.carry;
	return NULL;
}

/* --- The messages. */

#define STREAM_BYTES (1u << 18)
#define EXCHANGES    8

struct text {
	size_t len;
	char bytes[STREAM_BYTES];
};

static struct text texts[2]; /* requests, responses */

static struct {
	struct result results[EXCHANGES];
	size_t head_end[EXCHANGES]; /* in the requests */
	size_t end[EXCHANGES];	    /* in the responses */
	unsigned int count;
	bool until_close;
} truth;

static void put_bytes(struct text *t, const char *s, size_t n)
{
	if (n > sizeof(t->bytes) - t->len)
		abort();
	memcpy(t->bytes + t->len, s, n);
	t->len += n;
}

static void put(struct text *t, const char *s)
{
	put_bytes(t, s, strlen(s));
}

/* Bytes that look like messages; without LF when they are to stay within a line. */
static void put_filler(struct input *in, struct text *t, size_t n, bool in_line)
{
	static const char traps[] =
	    "GET / HTTP/1.1\r\nHost: x\r\n\r\nHTTP/1.1 500 no\r\n"
	    "Content-Length: 77\r\n\r\n0\r\n\r\nTransfer-Encoding: chunked\r\n";
	size_t start = pick(in, sizeof(traps) - 1);

	for (size_t i = 0; i < n; i++) {
		char c = traps[(start + i) % (sizeof(traps) - 1)];

		if (in_line && (c == '\n' || c == '\r'))
			c = 'x';
		put_bytes(t, &c, 1);
	}
}

static size_t pick_length(struct input *in)
{
	static const uint32_t below[] = {4, 16, 64, 200, 600, 1100};

	return pick(in, below[pick(in, 6)]);
}

static void put_eol(struct input *in, struct text *t)
{
	put(t, chance(in, 8) ? "\n" : "\r\n"); /* RFC 9112 section 2.2: a bare LF may end a line */
}

static void put_headers(struct input *in, struct text *t)
{
	static const char *const names[] = {"Host",
					    "X",
					    "Content-Type",
					    "Content-Language",
					    "Transfer-Encode",
					    "Cookie",
					    "Content-Lengthy",
					    "Transfer",
					    "content-md5"};

	for (uint32_t n = pick(in, 6); n; n--) {
		put(t, names[pick(in, 9)]);
		put(t, chance(in, 4) ? ":" : ": ");
		put_filler(in, t, pick_length(in), true);
		put_eol(in, t);
	}
}

static void put_chunked(struct input *in, struct text *t)
{
	static const char *const sizes[] = {"%zx", "%zX", "0%zx", "%zx;name=\"v\"", "%zx "};
	char line[64];

	for (uint32_t n = pick(in, 12); n; n--) {
		size_t len = 1 + pick_length(in);

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(line, sizeof(line), sizes[pick(in, 5)], len);
#pragma GCC diagnostic pop
		put(t, line);
		put_eol(in, t);
		put_filler(in, t, len, false);
		put_eol(in, t);
	}
	put(t, chance(in, 4) ? "000" : "0");
	put_eol(in, t);
	if (chance(in, 3))
		put_headers(in, t);
	put_eol(in, t);
}

static void put_length(struct input *in, struct text *t, size_t n)
{
	static const char *const names[] = {"Content-Length", "content-length", "CONTENT-LENGTH"};
	static const char *const blanks[] = {"", " ", "\t ", "   "};
	char digits[24];

	snprintf(digits, sizeof(digits), chance(in, 6) ? "%05zu" : "%zu", n);
	put(t, names[pick(in, 3)]);
	put(t, ":");
	put(t, blanks[pick(in, 4)]);
	put(t, digits);
	put(t, blanks[pick(in, 3)]);
	put_eol(in, t);
}

static void put_coding(struct input *in, struct text *t)
{
	put(t, chance(in, 2) ? "Transfer-Encoding:" : "transfer-encoding: ");
	put(t, chance(in, 3) ? "gzip, Chunked" : "chunked");
	put_eol(in, t);
}

/* The headers and the body of a message that may have one. ret_head: where the head ends. */
static void put_rest(struct input *in, struct text *t, size_t *ret_head)
{
	uint32_t kind = pick(in, 3);
	size_t n = kind == 1 ? pick_length(in) * (chance(in, 8) ? 20 : 1) : 0;

	put_headers(in, t);
	if (kind == 2) {
		if (chance(in, 4)) /* RFC 9112 section 6.3, rule 3: chunked overrides it */
			put_length(in, t, 5);
		put_coding(in, t);
	} else {
		put_length(in, t, n);
	}
	put_headers(in, t);
	put_eol(in, t);
	*ret_head = t->len;
	if (kind == 2)
		put_chunked(in, t);
	else
		put_filler(in, t, n, false);
}

static void put_request(struct input *in, struct text *t, unsigned int i)
{
	static const struct {
		const char *name;
		uint8_t method;
	} methods[] = {
	    {"GET", KILTER_METHOD_GET},		{"HEAD", KILTER_METHOD_HEAD},
	    {"POST", KILTER_METHOD_POST},	{"PUT", KILTER_METHOD_PUT},
	    {"DELETE", KILTER_METHOD_DELETE},	{"OPTIONS", KILTER_METHOD_OPTIONS},
	    {"PATCH", KILTER_METHOD_PATCH},	{"TRACE", KILTER_METHOD_TRACE},
	    {"PROPFIND", KILTER_METHOD_OTHER},	{"M-SEARCH", KILTER_METHOD_OTHER},
	    {"CONNECT", KILTER_METHOD_CONNECT},
	};
	uint32_t m = pick(in, 11);

	truth.results[i].method = methods[m].method;
	if (chance(in, 6))
		put(t, "\r\n");
	put(t, methods[m].name);
	put(t, " /");
	for (size_t n = pick_length(in); n; n--)
		put(t, n % 7 ? "p" : "/");
	put(t, chance(in, 8) ? " HTTP/1.0" : " HTTP/1.1");
	put_eol(in, t);
	if (chance(in, 2)) {
		put_headers(in, t);
		put_eol(in, t);
		truth.head_end[i] = t->len;
	} else {
		put_rest(in, t, &truth.head_end[i]);
	}
}

static void put_response(struct input *in, struct text *t, unsigned int i, bool last)
{
	static const uint16_t statuses[] = {200, 201, 204, 304, 404, 500, 503, 418, 999};
	uint16_t status = statuses[pick(in, 9)];
	uint8_t method = truth.results[i].method;
	char line[32];
	size_t head;

	if (method == KILTER_METHOD_CONNECT && status < 300)
		status = 403; /* no tunnel: its end would be the end of HTTP */
	for (uint32_t n = pick(in, 3); n; n--) {
		put(t, chance(in, 2) ? "HTTP/1.1 103 Early Hints" : "HTTP/1.1 100 Continue");
		put_eol(in, t);
		put_headers(in, t);
		put_eol(in, t);
	}
	truth.results[i].status = status;
	snprintf(line, sizeof(line), "HTTP/1.%u %u", !chance(in, 5), status);
	put(t, line);
	if (chance(in, 4) || !chance(in, 4)) {
		put(t, " ");
		put_filler(in, t, pick(in, 30), true);
	}
	put_eol(in, t);
	if (method == KILTER_METHOD_HEAD || status == 204 || status == 304) {
		put_headers(in, t);
		if (chance(in, 2))
			put_length(in, t, 1000);
		put_eol(in, t);
	} else if (last && chance(in, 3)) {
		put_headers(in, t);
		put_eol(in, t);
		put_filler(in, t, pick_length(in), false);
		truth.until_close = true;
	} else {
		put_rest(in, t, &head);
	}
	truth.end[i] = t->len;
}

/* --- Delivery. */

static void deliver(int direction, const char *bytes, size_t from, size_t to)
{
	struct __sk_buff skb = segment_begin(bytes + from, to - from);
	uint8_t protocol = conn.sock.protocol;

	if (protocol == KILTER_PROTO_UNKNOWN || protocol == KILTER_PROTO_HTTP1)
		http1_segment(&skb, &conn, &conn.sock, !direction, !direction, SEGMENT_HEADERS,
			      skb.len, first_seq[direction] + (uint32_t)from);
	segment_end();
}

static void connection_begin(struct input *in)
{
	memset(&conn, 0, sizeof(conn));
	memset(&kernel, 0, sizeof(kernel));
	slots_begin(0x0a);
	sock_begin(&conn.sock, in);
}

static void connection_end(void)
{
	http1_fin(&conn, &conn.sock, false);
	http1_connection_ended(&conn.sock, &conn, false);
	if (queue_length(&conn.sock))
		abort();
}

static void complain(const char *what)
{
	fprintf(stderr, "%s: %u results, %u expected\n", what, conn.results_count, truth.count);
	for (unsigned int i = 0; i < truth.count; i++)
		fprintf(stderr, "  want %u %u\n", truth.results[i].method, truth.results[i].status);
	for (unsigned int i = 0; i < conn.results_count && i < RESULTS_MAX; i++)
		fprintf(stderr, "  got %u %u error %u\n", conn.results[i].method,
			conn.results[i].status, conn.results[i].error);
	for (int i = 0; i < KILTER_DROP_MAX; i++)
		if (kernel.drops[i])
			fprintf(stderr, "  drop %d: %lu\n", i, (unsigned long)kernel.drops[i]);
	abort();
}

/* Generated messages. With shuffle neighbouring segments change places: then only the balance of
 * the queue is checked, for track may rightly be lost. */
static void run_messages(struct input *in, bool shuffle)
{
	size_t at[2] = {0, 0};
	static const uint32_t cuts[] = {1, 2, 9, 160, 700, 1448, 20000};
	uint32_t cut = cuts[pick(in, 7)];

	truth.count = 1 + pick(in, EXCHANGES);
	truth.until_close = false;
	texts[0].len = 0;
	texts[1].len = 0;
	memset(truth.results, 0, sizeof(truth.results));
	for (unsigned int i = 0; i < truth.count; i++) {
		put_request(in, &texts[0], i);
		put_response(in, &texts[1], i, i + 1 == truth.count);
	}
	while (at[0] < texts[0].len || at[1] < texts[1].len) {
		size_t limit[2] = {texts[0].len, 0}, n;
		int d;

		/* A response may begin when the head of its request has come. */
		for (unsigned int i = 0; i < truth.count && at[0] >= truth.head_end[i]; i++)
			limit[1] = truth.end[i];
		d = at[0] < limit[0] && (at[1] >= limit[1] || chance(in, 2)) ? 0 : 1;
		n = 1 + (cut > 2 ? pick(in, cut) : cut - 1);
		if (n > limit[d] - at[d])
			n = limit[d] - at[d];
		if (shuffle && n > 1 && chance(in, 3)) {
			size_t half = n / 2;

			deliver(d, texts[d].bytes, at[d] + half, at[d] + n);
			deliver(d, texts[d].bytes, at[d], at[d] + half);
		} else {
			size_t back = chance(in, 6) ? pick(in, 300) : 0;

			if (back > at[d])
				back = at[d];
			if (back && chance(in, 2)) { /* once more, and nothing new */
				deliver(d, texts[d].bytes, at[d] - back, at[d]);
				continue;
			}
			deliver(d, texts[d].bytes, at[d] - back, at[d] + n);
		}
		at[d] += n;
	}
	connection_end();
	if (shuffle)
		return;
	if (conn.results_count != truth.count)
		complain("number of requests");
	for (unsigned int i = 0; i < truth.count; i++)
		if (memcmp(&conn.results[i], &truth.results[i], sizeof(struct result)))
			complain("a request differs");
	if (kernel.drops[KILTER_DROP_HTTP1_FRAMING] || kernel.drops[KILTER_DROP_HTTP1_LOAD])
		complain("something was dropped");
}

/*
 * Segments that change places between messages: each holds whole messages, so every request is
 * found, with its status. Which request a status belongs to is not known then.
 */
static void run_swapped(struct input *in)
{
	static const uint16_t statuses[] = {200, 201, 404, 500};
	unsigned int want[4] = {0}, got[4] = {0};
	size_t ends[2][EXCHANGES + 1] = {{0}};

	truth.count = 2 + pick(in, EXCHANGES - 1);
	texts[0].len = 0;
	texts[1].len = 0;
	for (unsigned int i = 0; i < truth.count; i++) {
		unsigned int s = pick(in, 4);
		char line[32];
		size_t head;

		put(&texts[0], chance(in, 2) ? "POST / HTTP/1.1\r\n" : "PUT / HTTP/1.1\r\n");
		put_rest(in, &texts[0], &head);
		snprintf(line, sizeof(line), "HTTP/1.1 %u OK\r\n", statuses[s]);
		put(&texts[1], line);
		put_rest(in, &texts[1], &head);
		truth.results[i] = (struct result){.status = statuses[s]};
		want[s]++;
		ends[0][i + 1] = texts[0].len;
		ends[1][i + 1] = texts[1].len;
	}
	for (int d = 0; d < 2; d++) {
		/* Messages [from, mid) and [mid, to) are a segment each. */
		for (unsigned int from = 0; from < truth.count;) {
			unsigned int mid = from + 1 + pick(in, truth.count - from),
				     to = mid < truth.count ? mid + 1 + pick(in, truth.count - mid)
							    : mid;
			const size_t *e = ends[d];
			bool swap = mid < to && chance(in, 2);
			/* What comes late may bring some of what came before. */
			bool more = swap && chance(in, 4);

			if (swap)
				deliver(d, texts[d].bytes, e[mid], e[to]);
			deliver(d, texts[d].bytes, e[from], more ? e[to] : e[mid]);
			if (!swap && mid < to)
				deliver(d, texts[d].bytes, e[mid], e[to]);
			if (chance(in, 4))
				deliver(d, texts[d].bytes, e[from], e[mid]);
			from = to;
		}
	}
	connection_end();
	for (unsigned int i = 0; i < conn.results_count && i < RESULTS_MAX; i++)
		for (unsigned int s = 0; s < 4; s++)
			got[s] += conn.results[i].status == statuses[s] && !conn.results[i].error;
	if (memcmp(want, got, sizeof(want)) || conn.results_count != truth.count)
		complain("swapped");
	if (kernel.drops[KILTER_DROP_HTTP1_FRAMING] || kernel.drops[KILTER_DROP_HTTP1_LOAD])
		complain("something was dropped");
}

/* Arbitrary bytes, in segments whose place in the stream is arbitrary too. */
static void run_bytes(struct input *in)
{
	unsigned int segments = 0;

	if (chance(in, 2)) { /* a connection that was adopted */
		conn.sock.request.state = STREAM_RESYNC;
		conn.sock.response.state = STREAM_RESYNC;
		conn.sock.request.has_seq = 0;
		conn.sock.response.has_seq = 0;
	}
	while (in->at < in->end && segments++ < 1000) {
		int d = chance(in, 2);
		size_t n = 1 + pick(in, 600), left;
		uint32_t jump = chance(in, 4) ? pick(in, 2000) - 1000u : 0;
		struct stream *st = d ? &conn.sock.response : &conn.sock.request;

		left = (size_t)(in->end - in->at);
		if (n > left)
			n = left;
		if (!n)
			break;
		first_seq[d] = st->next_seq + jump;
		deliver(d, (const char *)in->at, 0, n);
		in->at += n;
	}
	connection_end();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	uint32_t mode = pick(&in, 5);

	connection_begin(&in);
	if (mode == 3)
		run_bytes(&in);
	else if (mode == 4)
		run_swapped(&in);
	else
		run_messages(&in, mode == 2);
	return 0;
}
