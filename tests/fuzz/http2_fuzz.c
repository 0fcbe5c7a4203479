// SPDX-License-Identifier: Apache-2.0
/*
 * The kernel's HTTP/2 parser, compiled natively over a packet in memory. The input decides on an
 * exchange of frames on many streams, and on where its segments are cut; a model of what the
 * frames mean knows which requests there are, and the parser has to find these and no others:
 *  - in order, with retransmissions that overlap, or with one segment at a time that is overtaken:
 *    each request, exactly, with its bytes;
 *  - shuffled, with gaps, or arbitrary bytes: nothing outside its memory, and no request that
 *    ends twice or never.
 */
#include "http2_encode.h"
#include "kernel.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunknown-pragmas"
#pragma GCC diagnostic ignored "-Wsign-compare"

#include "lib/sock.h"

#define RESULTS_MAX	     256
#define STREAMS_MAX	     48
#define GUARD_STATUS(status) 0

struct result {
	uint32_t route, bytes_request, bytes_response;
	uint16_t status;
	uint8_t protocol, method, error, pad[3];
};

static struct {
	struct result results[RESULTS_MAX];
	unsigned int results_count, opened;
	bool locked;
	struct kilter_sock sock;
	struct sock_pipeline pipeline;
	struct sock_carry carry;
	struct http2 *http2; /* by itself: what is beside it is not its */
} conn;

static void series_bump(const struct kilter_series_key *key, uint64_t ns, uint64_t in, uint64_t out,
			uint32_t times)
{
	bool client = key->role == KILTER_ROLE_CLIENT;

	(void)ns;
	if (times != 1 || conn.locked)
		abort();
	if (conn.results_count < RESULTS_MAX)
		conn.results[conn.results_count] =
		    (struct result){.route = key->route,
				    .bytes_request = (uint32_t)(client ? out : in),
				    .bytes_response = (uint32_t)(client ? in : out),
				    .status = key->status,
				    .protocol = key->protocol,
				    .method = key->method,
				    .error = key->error};
	conn.results_count++;
}

static void lock(bool take)
{
	if (conn.locked == take)
		abort();
	conn.locked = take;
}

static void http2_delete(void)
{
	free(conn.http2);
	conn.http2 = NULL;
}

#define bpf_spin_lock(l)   ((void)(l), lock(true))
#define bpf_spin_unlock(l) ((void)(l), lock(false))

/* What is opened is counted: as much has to end. */
#define http2_open http2_open_uncounted
#include "lib/http2_streams.h"
#undef http2_open

static inline uint32_t http2_open(struct __sk_buff *ctx, struct kilter_sock *s, struct http2 *h,
				  struct scratch *sc, uint32_t id)
{
	conn.opened++;
	return http2_open_uncounted(ctx, s, h, sc, id);
}

#include "protocols/http1.h"
#include "protocols/http2.h"
#pragma GCC diagnostic pop

#include "segment.h"

#define ROUTES_MOST (2 * STREAMS_MAX)

static struct {
	struct route_cached cache[ROUTE_CACHE];
	uint32_t count; /* of the one workload there is */
	bool counted;
	struct kilter_route scratch;
	uint32_t known;
	uint32_t ids[ROUTES_MOST];
	struct kilter_route at[ROUTES_MOST];
} paths;

static struct http2_ahead *aheads[HTTP2_AHEADS]; /* each by itself, as conn.http2 is */

static struct kilter_route *path_of(uint32_t id)
{
	for (uint32_t i = 0; i < paths.known; i++)
		if (paths.ids[i] == id)
			return &paths.at[i];
	return NULL;
}

static void *map_lookup(const void *map, const void *key)
{
	uint32_t n;

	memcpy(&n, key, sizeof(n));
	if (map == &scratches)
		return slot_at(n);
	if (map == &route_cache)
		return n < ROUTE_CACHE ? &paths.cache[n] : NULL;
	if (map == &route_scratch)
		return n ? NULL : &paths.scratch;
	if (map == &route_counts)
		return paths.counted ? &paths.count : NULL;
	if (map == &routes)
		return path_of(n);
	if (map == &http2_aheads && n < HTTP2_AHEADS) {
		if (!aheads[n])
			aheads[n] = calloc(1, sizeof(*aheads[n]));
		if (!aheads[n])
			abort();
		return aheads[n];
	}
	return NULL;
}

static int map_update(const void *map, const void *key, const void *value)
{
	if (map == &route_counts)
		paths.counted = true;
	if (map != &routes)
		return 0;
	if (paths.known == ROUTES_MOST)
		return -7; /* E2BIG */
	memcpy(&paths.ids[paths.known], key, sizeof(paths.ids[0]));
	memcpy(&paths.at[paths.known++], value, sizeof(paths.at[0]));
	return 0;
}

static void *storage_get(const void *map, uint64_t flags)
{
	if (map == &socks)
		return &conn.sock;
	if (map == &sock_pipelines)
		return &conn.pipeline;
	if (map == &sock_carries)
		return &conn.carry;
	if (map != &http2s)
		return NULL;
	if (!conn.http2 && (flags & BPF_SK_STORAGE_GET_F_CREATE)) {
		conn.http2 = calloc(1, sizeof(*conn.http2));
		if (!conn.http2)
			abort();
	}
	return conn.http2;
}

/* --- The frames. */

#define FRAMES_MAX 2048
#define PATH_MOST  200
#define LONG_MOST  7000
#define LARGE	   50000 /* bytes of an exchange, beyond which it is not cut into the smallest */

struct head { /* what a block says */
	uint32_t route;
	uint16_t status;
	uint8_t method, code;
	bool grpc, has_code;
	char path[PATH_MOST + 1];
};

struct frame {
	size_t start, end;
	size_t needs; /* bytes of the other direction that come before it */
	uint32_t stream;
	uint8_t type, code; /* of RST_STREAM */
	bool opens;	    /* a request */
	bool ends;	    /* its stream's direction */
	bool cut;	    /* its header block goes on */
	int head;	    /* in heads; -1: it is not the end of a block that matters */
};

/* One direction: 0 requests, 1 responses. */
struct way {
	struct text text;
	struct encoder encoder;
	struct frame frames[FRAMES_MAX];
	unsigned int count;
};

static struct way ways[2];
static struct text block;
static struct head heads[2 * FRAMES_MAX];
static int heads_count;

static void frame_head(struct text *t, size_t len, uint8_t type, uint8_t flags, uint32_t stream)
{
	const uint8_t head[] = {(uint8_t)(len >> 16),
				(uint8_t)(len >> 8),
				(uint8_t)len,
				type,
				flags,
				(uint8_t)(stream >> 24),
				(uint8_t)(stream >> 16),
				(uint8_t)(stream >> 8),
				(uint8_t)stream};

	put_bytes(t, head, sizeof(head));
}

/* Bytes that look like frames. */
static void put_filler(struct input *in, struct text *t, size_t n)
{
	static const char traps[] =
	    "\0\0\4\10\0\0\0\0\0\0\0\1\0\0\1\1\5\0\0\0\1\202\0\0\0\0\1\0\0\0\1"
	    "\0\0\0\4\1\0\0\0\0\0\0\4\3\0\0\0\0\1\0\0\0\10";
	size_t start = pick(in, sizeof(traps) - 1);

	for (size_t i = 0; i < n; i++)
		put_byte(t, (uint8_t)traps[(start + i) % (sizeof(traps) - 1)]);
}

static size_t pick_length(struct input *in)
{
	static const uint32_t below[] = {1, 4, 16, 200, 1100, 16000};

	return pick(in, below[pick(in, 6)]);
}

/* A frame: padded if `padding` is not negative, `prefix` bytes before its n bytes of payload. */
static struct frame *put_frame(struct way *w, size_t needs, uint8_t type, uint8_t flags,
			       uint32_t stream, int padding, size_t prefix, const char *payload,
			       size_t n)
{
	static const char zero[256];
	struct frame *f = &w->frames[w->count++];

	if (w->count > FRAMES_MAX)
		abort();
	*f = (struct frame){
	    .start = w->text.len, .needs = needs, .stream = stream, .type = type, .head = -1};
	frame_head(&w->text, (padding >= 0 ? 1u + (size_t)padding : 0) + prefix + n, type,
		   flags | (padding >= 0 ? HTTP2_PADDED : 0), stream);
	if (padding >= 0)
		put_byte(&w->text, (unsigned int)padding);
	put_bytes(&w->text, zero + 1, prefix);
	put_bytes(&w->text, payload, n);
	if (padding > 0)
		put_bytes(&w->text, zero, (size_t)padding);
	f->end = w->text.len;
	return f;
}

static int pick_padding(struct input *in)
{
	return chance(in, 4) ? (int)pick(in, 256) : -1;
}

/* `block` as HEADERS or PUSH_PROMISE, and CONTINUATIONs. Returns the last frame. */
static struct frame *put_head(struct input *in, struct way *w, size_t needs, uint8_t type,
			      uint32_t stream, bool ends)
{
	size_t at = 0, n;
	struct frame *f;
	int cuts = chance(in, 3) ? (int)pick(in, 5) : 0;
	bool priority = type == HTTP2_HEADERS && chance(in, 4);
	size_t prefix = type == HTTP2_PUSH_PROMISE ? 4 : priority ? 5 : 0;
	uint8_t flags = (ends ? HTTP2_END_STREAM : 0) | (priority ? HTTP2_PRIORITY_FLAG : 0);

	for (int i = 0; i <= cuts; i++) {
		n = i == cuts ? block.len - at : pick(in, (uint32_t)(block.len - at) + 1);
		if (n > 16000 && i < cuts)
			n = 16000;
		f = put_frame(w, needs, i ? HTTP2_CONTINUATION : type,
			      (i ? 0 : flags) | (i == cuts ? HTTP2_END_HEADERS : 0), stream,
			      i ? -1 : pick_padding(in), i ? 0 : prefix, block.bytes + at, n);
		f->cut = i < cuts;
		at += n;
	}
	f->ends = ends;
	return f;
}

/* --- What is said. */

static char longs[4][LONG_MOST + 1]; /* long values: a block has four at most */

static const char *pick_long(struct input *in, unsigned int i)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz=; 0123456789/{}<>\\^ABC\"%";
	size_t n = pick_length(in) % LONG_MOST, start = pick(in, sizeof(letters) - 1);

	for (size_t k = 0; k < n; k++)
		longs[i][k] = letters[(start + k * k) % (sizeof(letters) - 1)];
	longs[i][n] = 0;
	return longs[i];
}

/* Fields that nobody asks for, with names that begin like those that are. */
static void add_others(struct input *in, struct fields *f)
{
	static const char *const names[] = {"cookie",
					    "content-length",
					    "content-typf",
					    "content-types",
					    "user-agent",
					    "grpc-message",
					    "grpc-status-details-bin",
					    "grpc-statut",
					    "grpc-encoding",
					    "accept-encoding",
					    "x",
					    "te",
					    "cache-control",
					    "content-language",
					    "co",
					    "traceparent",
					    "x-request-id-0",
					    "x-request-id-1",
					    "grpc-timeout"};
	static const char *const values[] = {"",
					     "0",
					     "trailers",
					     "200",
					     "application/grpc",
					     "gzip, deflate",
					     "GET",
					     "/users/17?x=1",
					     "12"};
	unsigned int n = pick(in, 5), longest = pick(in, 4);

	for (unsigned int i = 0; i < n; i++)
		add_field(f, names[pick(in, 19)],
			  i < longest ? pick_long(in, i) : values[pick(in, 9)]);
}

static void add_type(struct input *in, struct fields *f, struct head *h)
{
	static const struct {
		const char *value;
		bool grpc;
	} types[] = {
	    {"text/html", false},
	    {"application/json", false},
	    {"application/grpc", true},
	    {"application/grpc+proto", true},
	    {"application/grpc;charset=utf-8", true},
	    {"application/grpc-web+proto", false},
	    {"application/grp", false},
	    {"a", false},
	    {"", false},
	};
	uint32_t i = pick(in, 9);

	if (chance(in, 3))
		return;
	add_field(f, "content-type", types[i].value);
	h->grpc = types[i].grpc;
}

/* A path, and the part of it that its route is made of. */
static void pick_path(struct input *in, struct head *h)
{
	static const char *const known[] = {
	    "/", "/index.html", "/users/12/orders?secret=1", "/grpc.health.v1.Health/Check", "/a#b",
	    "*"};
	static const char letters[] =
	    "/abcdefghijklmnopqrstuvwxyz/ABCXYZ-._~!$&'()*+,;=:@%[]/0123456789?#|>\"";
	struct kilter_route_hash r;
	uint32_t which = pick(in, 8);
	size_t n;

	if (which < 6) {
		snprintf(h->path, sizeof(h->path), "%s", known[which]);
	} else {
		n = 1 + pick(in, which == 6 ? 20 : PATH_MOST);
		for (size_t i = 0; i < n; i++)
			h->path[i] = i ? letters[pick(in, sizeof(letters) - 1)] : '/';
		h->path[n] = 0;
	}
	kilter_route_begin(&r, 1);
	for (n = 0; n < KILTER_ROUTE_PATH_LEN && h->path[n] && !strchr("?# ", h->path[n]); n++)
		kilter_route_byte(&r, (uint8_t)h->path[n]);
	h->route = kilter_route_end(&r);
}

static struct head *new_head(void)
{
	struct head *h = &heads[heads_count++];

	if (heads_count > 2 * FRAMES_MAX)
		abort();
	memset(h, 0, sizeof(*h));
	return h;
}

/* A request's head into `block`. */
static int make_request(struct input *in, struct way *w)
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
	    {"CONNECT", KILTER_METHOD_CONNECT}, {"GETS", KILTER_METHOD_OTHER},
	};
	struct head *h = new_head();
	struct fields f = {0};
	uint32_t m = pick(in, 12), order = pick(in, 3);

	h->method = methods[m].method;
	pick_path(in, h);
	for (uint32_t i = 0; i < 3; i++) {
		if ((i + order) % 3 == 0)
			add_field(&f, ":method", methods[m].name);
		else if ((i + order) % 3 == 1)
			add_field(&f, ":path", h->path);
		else
			add_field(&f, ":scheme", "http");
	}
	add_field(&f, ":authority", "node.example:8080");
	add_type(in, &f, h);
	add_others(in, &f);
	block.len = 0;
	put_block(in, &w->encoder, &block, &f);
	return heads_count - 1;
}

static void add_code(struct input *in, struct fields *f, struct head *h)
{
	static const char *const codes[] = {"0",  "1",	"2",  "3",  "4",  "5",	"6",
					    "7",  "8",	"9",  "10", "11", "12", "13",
					    "14", "15", "16", "17", "99", "x"};
	uint32_t i = pick(in, 20);

	add_field(f, "grpc-status", codes[i]);
	h->has_code = true;
	h->grpc = true;
	h->code = i < KILTER_GRPC_CODES ? (uint8_t)i : 2; /* UNKNOWN */
}

static int make_response(struct input *in, struct way *w, bool informational)
{
	static const char *const statuses[] = {"200", "201", "204", "206", "304", "400",
					       "401", "403", "404", "429", "500", "502",
					       "503", "504", "418", "999"};
	struct head *h = new_head();
	struct fields f = {0};
	const char *status =
	    informational ? (chance(in, 2) ? "103" : "100") : statuses[pick(in, 16)];

	h->status = informational ? 0 : (uint16_t)strtoul(status, NULL, 10);
	add_field(&f, ":status", status);
	if (!informational) {
		add_type(in, &f, h);
		if (chance(in, 8))
			add_code(in, &f, h);
	}
	add_others(in, &f);
	block.len = 0;
	put_block(in, &w->encoder, &block, &f);
	return heads_count - 1;
}

static int make_trailers(struct input *in, struct way *w, bool request)
{
	struct head *h = new_head();
	struct fields f = {0};

	add_others(in, &f);
	if (!request && !chance(in, 3))
		add_code(in, &f, h);
	block.len = 0;
	put_block(in, &w->encoder, &block, &f);
	return heads_count - 1;
}

/* --- The exchange. */

static struct {
	struct {
		uint32_t id;
		size_t needs; /* where its request's head ends */
		bool asked, answering, over;
	} streams[STREAMS_MAX];
	unsigned int count;
	uint32_t last_id;
	bool jumps; /* in the numbers of streams, so that some want the place of another */
} plan;

static void plan_open(struct input *in)
{
	unsigned int i = plan.count;
	struct frame *f;
	int head;

	if (i == STREAMS_MAX)
		return;
	plan.count++;
	plan.last_id += 2 + (plan.jumps ? 2 * pick(in, chance(in, 2) ? 3 : 60000) : 0);
	plan.streams[i].id = plan.last_id;
	plan.streams[i].over = false;
	plan.streams[i].answering = false;
	head = make_request(in, &ways[0]);
	plan.streams[i].asked = chance(in, 2);
	f = put_head(in, &ways[0], 0, HTTP2_HEADERS, plan.last_id, plan.streams[i].asked);
	f->head = head;
	plan.streams[i].needs = f->end;
	while (f->type == HTTP2_CONTINUATION)
		f--;
	f->opens = true;
}

/* DATA, or trailers, in this direction. */
static void plan_body(struct input *in, int way, unsigned int i, bool ends, bool trailers)
{
	struct way *w = &ways[way];
	size_t needs = way ? plan.streams[i].needs : 0;
	uint32_t id = plan.streams[i].id;
	struct frame *f;

	if (trailers) {
		int head = make_trailers(in, w, !way);

		f = put_head(in, w, needs, HTTP2_HEADERS, id, ends);
		f->head = head;
		return;
	}
	block.len = 0;
	put_filler(in, &block, pick_length(in));
	f = put_frame(w, needs, HTTP2_DATA, ends ? HTTP2_END_STREAM : 0, id, pick_padding(in), 0,
		      block.bytes, block.len);
	f->ends = ends;
}

static void plan_request_body(struct input *in, unsigned int i)
{
	bool ends = chance(in, 3);

	if (plan.streams[i].asked)
		return;
	plan_body(in, 0, i, ends, ends && chance(in, 3));
	plan.streams[i].asked = ends;
}

static void plan_response(struct input *in, unsigned int i, bool ends)
{
	bool informational = !plan.streams[i].answering && !ends && chance(in, 4);
	struct frame *f;
	int head;

	if (plan.streams[i].over)
		return;
	if (plan.streams[i].answering) {
		plan_body(in, 1, i, ends, ends && chance(in, 2));
	} else {
		head = make_response(in, &ways[1], informational);
		f = put_head(in, &ways[1], plan.streams[i].needs, HTTP2_HEADERS, plan.streams[i].id,
			     ends);
		f->head = head;
		plan.streams[i].answering = !informational;
	}
	plan.streams[i].over = ends;
}

static void plan_reset(struct input *in, unsigned int i)
{
	int way = (int)pick(in, 2);
	const char code[4] = {0, 0, 0, (char)pick(in, 14)};

	if (plan.streams[i].over && !chance(in, 3))
		return;
	put_frame(&ways[way], way ? plan.streams[i].needs : 0, HTTP2_RST_STREAM, 0,
		  plan.streams[i].id, -1, 0, code, sizeof(code))
	    ->code = (uint8_t)code[3];
	plan.streams[i].over = true;
}

/* Frames that are of no request. */
static void plan_other(struct input *in)
{
	static const struct {
		uint8_t type;
		uint8_t length; /* 0: any */
		bool of_stream;
	} kinds[] = {
	    {HTTP2_SETTINGS, 0, false},
	    {HTTP2_SETTINGS, 6, false},
	    {HTTP2_SETTINGS, 36, false},
	    {HTTP2_PING, 8, false},
	    {HTTP2_GOAWAY, 8, false},
	    {HTTP2_GOAWAY, 200, false},
	    {HTTP2_WINDOW_UPDATE, 4, false},
	    {HTTP2_WINDOW_UPDATE, 4, true},
	    {HTTP2_PRIORITY, 5, true},
	    {0xbe, 0, false},
	    {0xa, 0, true},
	};
	int way = (int)pick(in, 2);
	uint32_t i = pick(in, 11);
	uint32_t id = kinds[i].of_stream ? 1 + 2 * pick(in, STREAMS_MAX) : 0;
	uint8_t flags = kinds[i].type == HTTP2_PING || kinds[i].type > 9 ? (uint8_t)pick(in, 2) : 0;

	block.len = 0;
	put_filler(in, &block,
		   kinds[i].length     ? kinds[i].length
		   : kinds[i].type > 9 ? pick_length(in)
				       : 0);
	put_frame(&ways[way], 0, kinds[i].type, flags, id, -1, 0, block.bytes, block.len);
}

static void plan_push(struct input *in, unsigned int i)
{
	if (plan.streams[i].over)
		return;
	make_request(in, &ways[1]);
	put_head(in, &ways[1], plan.streams[i].needs, HTTP2_PUSH_PROMISE, plan.streams[i].id,
		 false);
}

static void plan_exchange(struct input *in)
{
	unsigned int actions = 1 + pick(in, 96);

	memset(&plan, 0, sizeof(plan));
	plan.jumps = chance(in, 2);
	plan.last_id = 0u - 1;
	heads_count = 0;
	for (int d = 0; d < 2; d++) {
		ways[d].text.len = 0;
		ways[d].count = 0;
		encoder_begin(in, &ways[d].encoder);
	}
	put_bytes(&ways[0].text, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP2_PREFACE);
	block.len = 0;
	put_filler(in, &block, 6 * pick(in, 4));
	for (int d = 0; d < 2; d++)
		put_frame(&ways[d], 0, HTTP2_SETTINGS, 0, 0, -1, 0, block.bytes, block.len);
	for (unsigned int n = 0; n < actions; n++) {
		unsigned int i = pick(in, plan.count), what = pick(in, 16);

		if (what < 5 || !plan.count)
			plan_open(in);
		else if (what < 8)
			plan_request_body(in, i);
		else if (what < 12)
			plan_response(in, i, chance(in, 3));
		else if (what == 12)
			plan_other(in);
		else if (what == 13)
			plan_push(in, i);
		else if (what == 14)
			encoder_resize(in, &ways[pick(in, 2)].encoder);
		else if (chance(in, 2))
			plan_reset(in, i);
	}
	if (!chance(in, 3)) /* else some are under way when the connection ends */
		for (unsigned int i = 0; i < plan.count; i++)
			plan_response(in, i, true);
	for (int d = 0; d < 2; d++)
		encoder_end(&ways[d].encoder);
}

/* --- The model: what the frames mean that have been delivered. */

static struct {
	struct {
		uint32_t id; /* 0: over */
		struct result so_far;
		bool grpc, has_code;
		uint8_t code;
	} streams[STREAMS_MAX];
	unsigned int count;
	unsigned int begun[2], ended[2]; /* frames */
	struct result results[RESULTS_MAX];
	unsigned int results_count;
} truth;

static const uint8_t grpc_of_reset[] = {13, 13, 13, 13, 13, 13, 13, 14, 1, 13, 13, 8, 7, 13};

static uint8_t grpc_of_http(uint16_t status)
{
	return status == 400					   ? 13
	       : status == 401					   ? 16
	       : status == 403					   ? 7
	       : status == 404					   ? 12
	       : status == 429 || (status >= 502 && status <= 504) ? 14
								   : 2;
}

static int truth_find(uint32_t id)
{
	for (unsigned int i = 0; i < truth.count; i++)
		if (truth.streams[i].id == id)
			return (int)i;
	return -1;
}

static void truth_finish(int i, uint8_t error)
{
	struct result r = truth.streams[i].so_far;

	r.protocol = truth.streams[i].grpc ? KILTER_PROTO_GRPC : KILTER_PROTO_HTTP2;
	r.error = error;
	if (truth.streams[i].has_code)
		r.status = KILTER_STATUS_GRPC + truth.streams[i].code;
	else if (truth.streams[i].grpc)
		r.status = error ? 0 : KILTER_STATUS_GRPC + grpc_of_http(r.status);
	truth.streams[i].id = 0;
	truth.results[truth.results_count++] = r;
}

static void truth_begin(int way, const struct frame *f)
{
	uint32_t n = (uint32_t)(f->end - f->start);
	int i;

	if (f->opens)
		truth.streams[truth.count++].id = f->stream;
	i = f->stream ? truth_find(f->stream) : -1;
	if (i < 0 || (f->type != HTTP2_DATA && f->type != HTTP2_HEADERS &&
		      f->type != HTTP2_CONTINUATION && f->type != HTTP2_RST_STREAM))
		return;
	if (f->type == HTTP2_CONTINUATION) { /* of a promise? */
		const struct frame *first = f;

		while (first->type == HTTP2_CONTINUATION)
			first--;
		if (first->type == HTTP2_PUSH_PROMISE)
			return;
	}
	if (way)
		truth.streams[i].so_far.bytes_response += n;
	else
		truth.streams[i].so_far.bytes_request += n;
}

static void truth_end(int way, const struct frame *f)
{
	int i = f->stream ? truth_find(f->stream) : -1;
	const struct head *h = f->head < 0 ? NULL : &heads[f->head];

	if (i < 0)
		return;
	if (f->type == HTTP2_RST_STREAM) {
		if (!truth.streams[i].so_far.status) {
			truth_finish(i, KILTER_REQ_RESET);
			return;
		}
		if (truth.streams[i].grpc && !truth.streams[i].has_code) {
			truth.streams[i].has_code = true;
			truth.streams[i].code = grpc_of_reset[f->code];
		}
		truth_finish(i, KILTER_REQ_OK);
		return;
	}
	if (h && way) {
		if (h->status)
			truth.streams[i].so_far.status = h->status;
		truth.streams[i].grpc |= h->grpc;
		if (h->has_code) {
			truth.streams[i].has_code = true;
			truth.streams[i].code = h->code;
		}
	} else if (h && h->path[0]) {
		truth.streams[i].so_far.method = h->method;
		truth.streams[i].so_far.route = h->route;
		truth.streams[i].grpc |= h->grpc;
	}
	if (way && f->ends)
		truth_finish(i, KILTER_REQ_OK);
}

/* Of this direction as many bytes have been delivered. */
static void truth_advance(int way, size_t at)
{
	const struct way *w = &ways[way];

	for (;;) {
		if (truth.ended[way] < truth.begun[way] && w->frames[truth.ended[way]].end <= at)
			truth_end(way, &w->frames[truth.ended[way]++]);
		else if (truth.begun[way] == truth.ended[way] && truth.begun[way] < w->count &&
			 w->frames[truth.begun[way]].start + HTTP2_FRAME_HEAD <= at)
			truth_begin(way, &w->frames[truth.begun[way]++]);
		else
			return;
	}
}

/* --- Delivery. */

static void deliver(int way, const char *bytes, size_t from, size_t to)
{
	struct __sk_buff skb = segment_begin(bytes + from, to - from);
	uint32_t seq = first_seq[way] + (uint32_t)from;
	bool known = conn.sock.protocol == KILTER_PROTO_HTTP2;
	bool softirq = !way == (conn.sock.role == KILTER_ROLE_SERVER);

	if (conn.sock.protocol == KILTER_PROTO_UNKNOWN || conn.sock.protocol == KILTER_PROTO_HTTP1)
		http1_segment(&skb, &conn, &conn.sock, !way, softirq, SEGMENT_HEADERS, skb.len,
			      seq);
	if (conn.sock.protocol == KILTER_PROTO_HTTP2)
		http2_seen(&skb, &conn, &conn.sock, !way, softirq, SEGMENT_HEADERS, skb.len, seq,
			   !known);
	segment_end();
	if (conn.locked)
		abort();
}

static void connection_begin(struct input *in)
{
	http2_delete();
	memset(&conn, 0, sizeof(conn));
	memset(&kernel, 0, sizeof(kernel));
	memset(&paths, 0, sizeof(paths));
	memset(&truth, 0, sizeof(truth));
	slots_begin(chance(in, 2) ? 0x1f : 0xff);
	conn.sock.workload = 1;
	sock_begin(&conn.sock, in);
}

static void print_result(const char *what, unsigned int i, const struct result *r)
{
	fprintf(stderr,
		"  %s %u: protocol %u method %u route %08x status %u error %u bytes %u %u\n", what,
		i, r->protocol, r->method, r->route, r->status, r->error, r->bytes_request,
		r->bytes_response);
}

static void complain(const char *what)
{
	fprintf(stderr, "%s: %u results, %u expected\n", what, conn.results_count,
		truth.results_count);
	for (unsigned int i = 0; i < RESULTS_MAX; i++) {
		if (!memcmp(&truth.results[i], &conn.results[i], sizeof(struct result)))
			continue;
		if (i < truth.results_count)
			print_result("want", i, &truth.results[i]);
		if (i < conn.results_count)
			print_result("got ", i, &conn.results[i]);
	}
	for (int i = 0; i < KILTER_DROP_MAX; i++)
		if (kernel.drops[i])
			fprintf(stderr, "  drop %d: %lu\n", i, (unsigned long)kernel.drops[i]);
	abort();
}

/* Every request that was opened has ended, once. */
static void connection_end(bool reset)
{
	if (conn.sock.protocol == KILTER_PROTO_HTTP2)
		http2_connection_ended(&conn.sock, &conn, reset);
	else
		http1_connection_ended(&conn.sock, &conn, reset);
	if (conn.http2)
		for (unsigned int i = 0; i < HTTP2_STREAMS; i++)
			if (conn.http2->streams[i].id)
				complain("a request never ends");
	for (unsigned int i = 0; i < HTTP2_AHEADS; i++)
		if (aheads[i])
			aheads[i]->owner = 0; /* as in HTTP2_AHEAD_NS */
	if (conn.sock.protocol == KILTER_PROTO_HTTP2 && conn.opened != conn.results_count)
		complain("as many requests as were opened");
}

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct result));
}

/* The path that stands for a route is one of those that were sent, as far as it says something. */
static void check_paths(void)
{
	for (uint32_t i = 0; i < paths.known; i++) {
		const struct kilter_route *r = &paths.at[i];
		bool sent = false;

		for (int k = 0; k < heads_count && !sent; k++) {
			const char *path = heads[k].path;

			sent = heads[k].route == paths.ids[i] && path[0] &&
			       strcspn(path, "?# ") >= r->path_len &&
			       (r->path_len == KILTER_ROUTE_PATH_LEN ||
				strcspn(path, "?# ") == r->path_len) &&
			       !memcmp(path, r->path, r->path_len);
		}
		if (!sent)
			complain("a path that nobody sent");
	}
}

static void check_results(bool reset)
{
	unsigned int before = truth.results_count;
	uint8_t error = reset ? KILTER_REQ_RESET : KILTER_REQ_CLOSED;

	if (conn.results_count != before ||
	    memcmp(conn.results, truth.results, before * sizeof(struct result)))
		complain("before the connection ends");
	for (unsigned int i = 0; i < truth.count; i++)
		if (truth.streams[i].id)
			truth_finish((int)i, error);
	connection_end(reset);
	if (conn.results_count != truth.results_count)
		complain("number of requests");
	/* Those that the connection takes with it are in no order. */
	qsort(conn.results + before, conn.results_count - before, sizeof(struct result), by_bytes);
	qsort(truth.results + before, conn.results_count - before, sizeof(struct result), by_bytes);
	if (memcmp(conn.results, truth.results, conn.results_count * sizeof(struct result)))
		complain("when the connection ends");
	for (int i = 0; i < KILTER_DROP_MAX; i++)
		if (kernel.drops[i])
			complain("something was dropped");
	check_paths();
}

/* How much of a direction may come, where the other is at `other`. */
static size_t limit_of(int way, size_t other)
{
	const struct way *w = &ways[way];

	for (unsigned int i = truth.begun[way]; i < w->count; i++)
		if (w->frames[i].needs > other)
			return w->frames[i].start;
	return w->text.len;
}

/* Is there an RST_STREAM in the requests that would end here, while a response's head is half
 * there? The parser knows a status before the head is whole. */
static bool reset_is_early(size_t to, size_t response)
{
	unsigned int at = truth.begun[1];
	const struct frame *f = at ? &ways[1].frames[at - 1] : NULL;

	if (!f || !(f->cut || (f->type != HTTP2_DATA && f->end > response)))
		return false;
	for (unsigned int i = truth.ended[0]; i < ways[0].count; i++)
		if (ways[0].frames[i].type == HTTP2_RST_STREAM && ways[0].frames[i].end <= to)
			return true;
	return false;
}

enum order {
	IN_ORDER,
	SWAPPED,  /* what overtakes a segment is kept until that comes */
	SHUFFLED, /* neighbouring segments change places, or one is lost */
};

/* [at, at + n) in up to three segments, of which the first comes last. */
static void deliver_swapped(struct input *in, int d, size_t at, size_t n)
{
	const char *bytes = ways[d].text.bytes;
	size_t first = 1 + pick(in, (uint32_t)n - 1), second = pick(in, (uint32_t)(n - first));

	if (second)
		deliver(d, bytes, at + first, at + first + second);
	deliver(d, bytes, at + first + second, at + n);
	if (chance(in, 3)) /* once more */
		deliver(d, bytes, at + first, at + n);
	if (chance(in, 3)) /* what was missing brings some of what came before it */
		first += pick(in, (uint32_t)(n - first) + 1);
	deliver(d, bytes, at, at + first);
}

static void exchange(struct input *in, enum order order)
{
	static const uint32_t cuts[] = {1, 2, 9, 160, 700, 1448, 20000};
	uint32_t cut = cuts[pick(in, 7)];
	bool server_first = chance(in, 4);
	size_t at[2] = {0, 0};

	if (ways[0].text.len + ways[1].text.len > LARGE && cut < 160)
		cut = 160; /* for the sake of time */
	while (at[0] < ways[0].text.len || at[1] < ways[1].text.len) {
		size_t limit[2] = {limit_of(0, at[1]), limit_of(1, at[0])};
		size_t n = 1 + (cut > 2 ? pick(in, cut) : cut - 1), back;
		int d = at[0] < limit[0] && (at[1] >= limit[1] || chance(in, 2)) ? 0 : 1;

		if (conn.sock.protocol == KILTER_PROTO_UNKNOWN &&
		    at[server_first] < limit[server_first]) { /* one has to show it first */
			d = server_first;
			n = d && n < HTTP2_FRAME_HEAD ? HTTP2_FRAME_HEAD : n;
		}
		if (n > limit[d] - at[d])
			n = limit[d] - at[d];
		if (!d && reset_is_early(at[0] + n, at[1])) {
			d = 1;
			n = n < limit[1] - at[1] ? n : limit[1] - at[1];
		}
		if (!n)
			abort();
		if (order == SWAPPED && n > 1 && conn.sock.protocol == KILTER_PROTO_HTTP2 &&
		    chance(in, 3)) {
			deliver_swapped(in, d, at[d], n);
		} else if (order == SHUFFLED && n > 1 && chance(in, 3)) {
			size_t half = n / 2;

			deliver(d, ways[d].text.bytes, at[d] + half, at[d] + n);
			if (chance(in, 2))
				deliver(d, ways[d].text.bytes, at[d], at[d] + half);
		} else {
			back = chance(in, 6) ? pick(in, 300) : 0;
			if (back > at[d])
				back = at[d];
			if (back && chance(in, 2)) { /* once more, and nothing new */
				deliver(d, ways[d].text.bytes, at[d] - back, at[d]);
				continue;
			}
			deliver(d, ways[d].text.bytes, at[d] - back, at[d] + n);
		}
		at[d] += n;
		truth_advance(d, at[d]);
	}
}

/* Generated frames. Of those that are shuffled only the balance is checked, for track may rightly
 * be lost. */
static void run_exchange(struct input *in, enum order order)
{
	bool reset;

	plan_exchange(in);
	exchange(in, order);
	reset = chance(in, 2);
	if (order == SHUFFLED)
		connection_end(reset);
	else
		check_results(reset);
}

/* Arbitrary bytes, in segments whose place in the stream is arbitrary too. */
static void run_bytes(struct input *in, bool preface)
{
	unsigned int segments = 0;

	if (preface) {
		deliver(0, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, HTTP2_PREFACE);
	} else if (chance(in, 2)) { /* a connection that was adopted */
		conn.sock.flags |= SOCK_ADOPTED;
		conn.sock.request.state = STREAM_RESYNC;
		conn.sock.response.state = STREAM_RESYNC;
		conn.sock.request.has_seq = 0;
		conn.sock.response.has_seq = 0;
	}
	while (in->at < in->end && segments++ < 1000) {
		int d = chance(in, 2);
		size_t n = 1 + pick(in, 600), left;
		uint32_t jump = chance(in, 4) ? pick(in, 2000) - 1000u : 0;
		const struct stream *st = d ? &conn.sock.response : &conn.sock.request;

		left = (size_t)(in->end - in->at);
		if (n > left)
			n = left;
		if (!n)
			break;
		first_seq[d] = st->next_seq + jump;
		deliver(d, (const char *)in->at, 0, n);
		in->at += n;
	}
	connection_end(chance(in, 2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, data + size};
	uint32_t mode = pick(&in, 8);

	connection_begin(&in);
	if (mode >= 6)
		run_bytes(&in, mode == 7);
	else
		run_exchange(&in, mode == 5 ? SHUFFLED : mode == 4 ? SWAPPED : IN_ORDER);
	return 0;
}
