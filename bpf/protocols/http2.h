/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * HTTP/2 (RFC 9113) over the segments of a TCP connection, in the kernel; and gRPC on it
 * (github.com/grpc/grpc, doc/PROTOCOL-HTTP2.md).
 *
 * Frames may be cut by segments, header blocks by frames, fields by both, at any byte: what is
 * under way is in struct http2_direction. Nothing waits for bytes to come together, but nine of a
 * frame's header and the strings that are looked at.
 *
 * The clock of a request starts at the segment with its HEADERS and stops at the segment with the
 * last byte of the frame that ends its response. A stream that is reset ends there: without a
 * response as `reset`, else with the status it had (gRPC: the code that its libraries make of it).
 *
 * Segments out of turn: inside a payload that nobody reads the gap does not matter. Elsewhere the
 * missing segment is awaited, and what has overtaken it kept meanwhile (struct http2_ahead); else
 * track is lost. It is found again at a segment that begins with a head.
 * The HPACK table is then not known, but for what comes in after.
 */
#ifndef KILTER_BPF_HTTP2_H
#define KILTER_BPF_HTTP2_H

#include "lib/payload.h"
#include "protocols/hpack.h"
#include "protocols/http2_frame.h"

/* Frames, fields or strings in a segment; beyond: track is lost. The verifier walks through every
 * turn of a loop: two short ones are less than a long one. The product: loopback's segments are of
 * 131 kB, and messages of gRPC without content are DATA of 14 bytes, a turn each. */
#define HTTP2_TURNS	  8 /* in a function that has looked everything up */
#define HTTP2_TURNS_TIMES 2048
#define HTTP2_AT_HAND                                                           \
	192 /* bytes that are in the buffer when there are as many: more than a \
	     * string that is looked at, with what is before it */
_Static_assert(HTTP2_AT_HAND > HPACK_TEXT_MAX + 32 && HTTP2_AT_HAND < PAYLOAD_WINDOW, "a window");

struct http2_run {
	struct kilter_sock *s;
	struct http2 *h;
	struct http2_direction *d;
	struct scratch *sc;
};

/* noinline, as others below: there is little stack. */
static __noinline int http2_lose(struct http2_direction *d)
{
	d->ahead = 0; /* what it held is another's when it is old enough */
	count_drop(KILTER_DROP_HTTP2_FRAMING);
	d->phase = HTTP2_RESYNC;
	d->block_phase = 0;
	d->head_kept = 0;
	d->text_kept = 0;
	d->shift = 0;
	d->known = 0;
	return 0;
}

/* A window of what is kept. A global function: its loop is verified once. */
__noinline int http2_ahead_read(__u32 slot)
{
	struct scratch *sc = scratch_at(slot);
	const struct http2_ahead *a;
	__u32 i;

	if (!sc)
		return -1;
	i = sc->ahead - 1;
	a = bpf_map_lookup_elem(&http2_aheads, &i);
	if (!a)
		return -1;
	for (i = 0; i < PAYLOAD_WINDOW; i++)
		sc->buf[i] = a->data[(sc->off + i) & (HTTP2_AHEAD_BYTES - 1)];
	return 0;
}

/* More of the payload, with what is left in the buffer at its front. */
static __noinline int http2_load(PAYLOAD_CTX *ctx, struct scratch *sc)
{
	__u64 n;

	sc->off -= sc->len - sc->pos;
	n = sc->end - sc->off;
	sc->pos = 0;
	sc->len = 0;
	if (n > PAYLOAD_WINDOW)
		n = PAYLOAD_WINDOW;
	if (!n)
		return 0;
	bound_length(n, PAYLOAD_WINDOW);
	if (sc->ahead ? http2_ahead_read(sc->slot) : payload_read(ctx, sc->off, sc, 0, n)) {
		count_drop(KILTER_DROP_HTTP2_LOAD);
		return 0;
	}
	sc->off += n;
	sc->len = n;
	return 1;
}

static __always_inline void http2_take(const struct http2_run *r, __u32 n)
{
	r->sc->pos += n;
	r->d->frame_left -= n;
}

/* n bytes that may not all be in the buffer. */
static __always_inline void http2_skip(const struct http2_run *r, __u32 n)
{
	struct scratch *sc = r->sc;
	__u32 buffered = sc->len - sc->pos;

	r->d->frame_left -= n;
	if (n <= buffered) {
		sc->pos += n;
	} else {
		sc->off += n - buffered;
		sc->pos = sc->len;
	}
}

/* RST_STREAM. Of gRPC a call that was answered in part has a code; else the answer is missing. */
static __always_inline void http2_reset(const struct http2_run *r)
{
	struct http2_direction *d = r->d;
	struct http2_stream *at;

	if (d->place == HTTP2_NOWHERE)
		return;
	at = http2_at(r->h, d->place);
	if (!at->status) {
		http2_stream_end(r->s, r->h, r->sc, d->place, d->stream, KILTER_REQ_RESET);
		return;
	}
	/* The response is whole and the server wants no more of the request (section 8.1). */
	if (at->flags & HTTP2_STREAM_GRPC && !(at->flags & HTTP2_STREAM_CODE)) {
		at->code = http2_grpc_of_reset(d->number);
		at->flags |= HTTP2_STREAM_CODE;
	}
	http2_stream_end(r->s, r->h, r->sc, d->place, d->stream, KILTER_REQ_OK);
}

/* The frame under way has been read. */
static __always_inline void http2_frame_end(const struct http2_run *r)
{
	struct http2_direction *d = r->d;
	bool ends = false;

	d->phase = HTTP2_HEAD;
	switch (d->type) {
	case HTTP2_HEADERS:
	case HTTP2_PUSH_PROMISE:
	case HTTP2_CONTINUATION:
		if (!(d->flags & HTTP2_END_HEADERS))
			return;
		if (d->block_phase != HPACK_FIELD || d->shift) {
			http2_lose(d); /* the block ends inside a field */
			return;
		}
		d->block_phase = 0;
		d->opens = 0;
		ends = d->end_stream;
		break;
	case HTTP2_DATA:
		ends = d->flags & HTTP2_END_STREAM;
		break;
	case HTTP2_RST_STREAM:
		http2_reset(r);
		return;
	}
	if (ends && !r->sc->request && d->place != HTTP2_NOWHERE)
		http2_stream_end(r->s, r->h, r->sc, d->place, d->stream, KILTER_REQ_OK);
}

/* The fragment of the block that this frame bears has been read: what is left is padding. */
static __always_inline void http2_fragment_end(const struct http2_run *r)
{
	struct http2_direction *d = r->d;

	d->block_phase = d->phase;
	d->phase = HTTP2_PAYLOAD;
	if (!d->frame_left)
		http2_frame_end(r);
}

static __always_inline bool http2_head_is_sane(const struct http2_direction *d)
{
	switch (d->type) {
	case HTTP2_DATA:
	case HTTP2_HEADERS:
	case HTTP2_PUSH_PROMISE:
	case HTTP2_CONTINUATION:
		return d->stream;
	case HTTP2_PRIORITY:
		return d->stream && d->frame_left == 5;
	case HTTP2_RST_STREAM:
		return d->stream && d->frame_left == 4;
	case HTTP2_SETTINGS:
		return !d->stream && d->frame_left % 6 == 0;
	case HTTP2_PING:
		return !d->stream && d->frame_left == 8;
	case HTTP2_GOAWAY:
		return !d->stream && d->frame_left >= 8;
	case HTTP2_WINDOW_UPDATE:
		return d->frame_left == 4;
	}
	return true; /* of an extension */
}

/* A frame begins: its header from the first eight bytes, big-endian, and the ninth. */
static __always_inline void http2_frame_begin(PAYLOAD_CTX *ctx, const struct http2_run *r, __u64 w,
					      __u8 last)
{
	struct http2_direction *d = r->d;
	struct http2 *h = r->h;
	bool request = r->sc->request;
	struct http2_stream *at;

	d->frame_left = HTTP2_LENGTH(w);
	d->type = HTTP2_TYPE(w);
	d->flags = HTTP2_FLAGS(w);
	d->stream = HTTP2_STREAM(w, last);
	d->pad_length = 0;
	d->phase = HTTP2_PAYLOAD;
	if (!http2_head_is_sane(d) || (d->block_phase && d->type != HTTP2_CONTINUATION) ||
	    (!d->block_phase && d->type == HTTP2_CONTINUATION)) {
		http2_lose(d);
		return;
	}
	switch (d->type) {
	case HTTP2_HEADERS:
		d->end_stream = d->flags & HTTP2_END_STREAM;
		d->opens = request && d->stream & 1 && (__s32)(d->stream - h->last_stream) > 0;
		if (d->opens) {
			h->last_stream = d->stream;
			d->place = http2_open(ctx, r->s, h, r->sc, d->stream);
			break;
		}
		__attribute__((fallthrough));
	case HTTP2_DATA:
	case HTTP2_RST_STREAM:
		d->place = http2_find(ctx, h, d->stream);
		break;
	case HTTP2_CONTINUATION:
		break;
	default:
		d->place = HTTP2_NOWHERE;
	}
	if (d->place != HTTP2_NOWHERE) {
		__u32 n = d->frame_left + HTTP2_FRAME_HEAD;

		at = http2_at(h, d->place);
		if (at->id != d->stream)
			n = 0; /* a CONTINUATION, as in hpack_field() */
		if (request && at->bytes_request < 0xc0000000u)
			at->bytes_request += n;
		else if (!request && at->bytes_response < 0xc0000000u)
			at->bytes_response += n;
	}
	switch (d->type) {
	case HTTP2_HEADERS:
	case HTTP2_PUSH_PROMISE:
		d->block_phase = HPACK_FIELD;
		d->shift = 0;
		d->prefix_left = d->type == HTTP2_PUSH_PROMISE	  ? 4
				 : d->flags & HTTP2_PRIORITY_FLAG ? 5
								  : 0;
		d->phase = d->flags & HTTP2_PADDED ? HTTP2_PAD_LENGTH
			   : d->prefix_left	   ? HTTP2_PREFIX
						   : HPACK_FIELD;
		if (d->frame_left < d->prefix_left + !!(d->flags & HTTP2_PADDED)) {
			http2_lose(d);
			return;
		}
		break;
	case HTTP2_CONTINUATION:
		d->phase = d->block_phase;
		break;
	case HTTP2_RST_STREAM:
		d->number = 0;
		d->phase = HTTP2_CODE;
		break;
	}
	if (!d->frame_left)
		http2_frame_end(r);
}

/* A frame's header, nine bytes. */
static __noinline int http2_head(PAYLOAD_CTX *ctx, struct kilter_sock *s, struct http2 *h,
				 struct http2_direction *d, struct scratch *sc)
{
	struct http2_run run = {.s = s, .h = h, .d = d, .sc = sc}, *r = &run;
	__u32 kept;

	if (!d->head_kept && sc->len - sc->pos >= HTTP2_FRAME_HEAD) {
		__u64 w = http2_head_at(sc, sc->pos);
		__u8 last = byte_at(sc, sc->pos + 8);

		sc->pos += HTTP2_FRAME_HEAD;
		http2_frame_begin(ctx, r, w, last);
		return 0;
	}
	/* Cut by a segment: a byte a turn, they are few. */
	kept = d->head_kept & 15;
	barrier_var(kept);
	d->head[kept & 15] = byte_at(sc, sc->pos);
	sc->pos++;
	if (++d->head_kept < HTTP2_FRAME_HEAD)
		return 0;
	d->head_kept = 0;
	http2_frame_begin(ctx, r, __builtin_bswap64(*(__u64 *)d->head), d->head[8]);
	return 0;
}

/* One more byte of an integer with this prefix (RFC 7541 section 5.1). True: d->number is whole. */
static __always_inline bool hpack_integer(struct http2_direction *d, __u8 c, __u32 mask)
{
	if (!d->shift) {
		d->number = c & mask;
		d->shift = d->number == mask;
		return !d->shift;
	}
	if (d->shift > 22) {
		http2_lose(d); /* more than 2^28: nobody means that */
		return false;
	}
	d->number += (c & 0x7fu) << (d->shift - 1);
	d->shift += 7;
	if (c & 0x80)
		return false;
	d->shift = 0;
	return true;
}

/* The field under way is whole. */
static __always_inline void hpack_field(const struct http2_run *r, __u64 entry)
{
	struct http2_direction *d = r->d;
	struct http2_stream *at;
	__u32 value = entry;

	if (d->place == HTTP2_NOWHERE)
		return;
	at = http2_at(r->h, d->place);
	if (at->id != d->stream)
		return; /* it was reset, and another has its place */
	if (r->sc->request && !d->opens)
		return;
	switch (entry >> 32) {
	case HPACK_METHOD:
		if (r->sc->request)
			at->method = value;
		break;
	case HPACK_PATH:
		if (r->sc->request)
			at->route = value;
		break;
	case HPACK_CONTENT_TYPE:
		if (value)
			at->flags |= HTTP2_STREAM_GRPC;
		break;
	case HPACK_STATUS:
		if (!r->sc->request && value >= 200) /* 1xx is no answer yet */
			at->status = value;
		break;
	case HPACK_GRPC_STATUS:
		if (!r->sc->request) {
			at->code = value;
			at->flags |= HTTP2_STREAM_GRPC | HTTP2_STREAM_CODE;
		}
		break;
	case HPACK_UNKNOWN:
		if (!r->sc->request)
			at->flags |= HTTP2_STREAM_UNSURE;
		break;
	}
}

/* A field's first byte, and those of its number. */
static __always_inline void hpack_begin(const struct http2_run *r)
{
	struct http2_direction *d = r->d;
	__u8 byte = byte_at(r->sc, r->sc->pos), c;
	__u64 entry;

	http2_take(r, 1);
	if (!d->shift) {
		d->kind = byte; /* which of the four it is, until we know the name */
		d->inserts = (byte & 0xc0) == 0x40;
	}
	c = d->kind;
	if (!hpack_integer(d, byte, c & 0x80 ? 0x7f : c & 0x40 ? 0x3f : c & 0x20 ? 0x1f : 0x0f))
		return;
	if ((c & 0xe0) == 0x20)
		return; /* the table's size: see above */
	if (!d->number && !(c & 0x80)) {
		d->phase = HPACK_NAME_LENGTH;
		return;
	}
	entry = hpack_lookup(d, d->number);
	if (c & 0x80) {
		if (d->number == 4 || d->number == 5)
			entry = hpack_entry(
			    HPACK_PATH, hpack_static_path(r->sc->slot, r->s->workload, d->number));
		hpack_field(r, entry);
		return;
	}
	d->kind = entry >> 32;
	d->phase = HPACK_VALUE_LENGTH;
}

static __always_inline void hpack_length(const struct http2_run *r)
{
	struct http2_direction *d = r->d;
	__u8 c = byte_at(r->sc, r->sc->pos);

	http2_take(r, 1);
	if (!d->shift)
		d->huffman = c >> 7;
	if (!hpack_integer(d, c, 0x7f))
		return;
	d->string_left = d->number;
	d->value = 0;
	d->phase++; /* HPACK_NAME or HPACK_VALUE */
}

/* What was kept, in the work space. noinline: unrolled, it wants a register a word. */
static __noinline int hpack_kept(const struct http2_direction *d, struct scratch *sc)
{
	for (__u32 i = 0; i < HPACK_TEXT_MAX; i += 8)
		*(volatile __u64 *)&sc->buf[HPACK_KEPT_AT + i] = *(const __u64 *)(d->text + i);
	return 0;
}

/*
 * Is the string under way, or as much of it as is looked at, in the buffer? If so where, and its
 * length. One that a segment or a frame has cut is kept, a byte a turn, until it is.
 */
static __always_inline bool hpack_string(const struct http2_run *r, __u32 have, __u32 *at,
					 __u32 *length)
{
	struct http2_direction *d = r->d;
	__u32 kept = d->text_kept;

	if (!kept && (have >= d->string_left || have >= HPACK_TEXT_MAX)) {
		*at = r->sc->pos;
		*length = d->string_left;
		return true;
	}
	if (d->string_left && kept < HPACK_TEXT_MAX) {
		if (!have)
			return false;
		barrier_var(kept);
		if (kept < HPACK_TEXT_MAX) /* once more, for the verifier */
			d->text[kept] = byte_at(r->sc, r->sc->pos);
		http2_take(r, 1);
		d->string_left--;
		d->text_kept++;
	}
	kept = d->text_kept;
	if (d->string_left && kept < HPACK_TEXT_MAX)
		return false;
	d->text_kept = 0;
	hpack_kept(d, r->sc);
	*at = HPACK_KEPT_AT;
	*length = kept;
	return true;
}

/*
 * A field in three parts, each of which does nothing where the phase is not its own. `have` bytes
 * of the block are in the buffer. Three functions: what is on the stack of one is not on another's.
 */
static __noinline int hpack_numbers(struct kilter_sock *s, struct http2 *h,
				    struct http2_direction *d, struct scratch *sc, __u32 have)
{
	struct http2_run run = {.s = s, .h = h, .d = d, .sc = sc}, *r = &run;

	if (d->phase == HPACK_FIELD) {
		if (!have)
			return 0;
		have--;
		hpack_begin(r);
	}
	if (have && (d->phase == HPACK_NAME_LENGTH || d->phase == HPACK_VALUE_LENGTH))
		hpack_length(r);
	return 0;
}

static __noinline int hpack_strings(struct http2_direction *d, struct scratch *sc, __u32 workload,
				    __u32 have)
{
	struct http2_run run = {.d = d, .sc = sc};
	__u32 at, length;

	if (d->phase != HPACK_NAME && d->phase != HPACK_VALUE)
		return 0;
	if (d->phase == HPACK_VALUE && (d->kind == HPACK_OTHER || d->kind == HPACK_UNKNOWN)) {
		d->phase = HPACK_VALUE_REST;
		return 0;
	}
	if (!hpack_string(&run, have, &at, &length))
		return 0;
	length |= d->huffman ? HPACK_HUFFMAN : 0;
	if (d->phase == HPACK_NAME)
		d->kind = hpack_name(sc->slot, at, length);
	else
		d->value = hpack_value(sc->slot, d->kind, workload, at, length);
	d->phase++; /* its rest */
	return 0;
}

static __noinline int hpack_rests(struct http2 *h, struct http2_direction *d, struct scratch *sc)
{
	struct http2_run run = {.h = h, .d = d, .sc = sc}, *r = &run;
	__u32 n, most;
	__u64 entry;

	if (d->phase != HPACK_NAME_REST && d->phase != HPACK_VALUE_REST)
		return 0;
	n = d->string_left;
	most = sc->len - sc->pos + (sc->end - sc->off);
	if (n > most)
		n = most;
	most = d->frame_left - d->pad_length;
	if (n > most)
		n = most;
	http2_skip(r, n);
	d->string_left -= n;
	if (d->string_left)
		return 0;
	if (d->phase == HPACK_NAME_REST) {
		d->phase = HPACK_VALUE_LENGTH;
		return 0;
	}
	d->phase = HPACK_FIELD;
	entry = hpack_entry(d->kind, d->value);
	if (d->inserts)
		hpack_insert(d, entry);
	hpack_field(r, entry);
	return 0;
}

/* Bytes of the header block that are in the buffer. */
static __always_inline __u32 hpack_have(const struct http2_direction *d, const struct scratch *sc)
{
	__u32 have = sc->len - sc->pos, block = d->frame_left - d->pad_length;

	return have < block ? have : block;
}

/* Payload that nobody reads. */
static __noinline int http2_payload(struct kilter_sock *s, struct http2 *h,
				    struct http2_direction *d, struct scratch *sc)
{
	struct http2_run run = {.s = s, .h = h, .d = d, .sc = sc}, *r = &run;
	__u32 left = sc->len - sc->pos + (sc->end - sc->off);

	http2_skip(r, left < d->frame_left ? left : d->frame_left);
	if (!d->frame_left)
		http2_frame_end(r);
	return 0;
}

/* Inside a frame that is read. */
static __noinline int http2_inside(struct kilter_sock *s, struct http2 *h,
				   struct http2_direction *d, struct scratch *sc)
{
	struct http2_run run = {.s = s, .h = h, .d = d, .sc = sc}, *r = &run;
	__u32 have = sc->len - sc->pos, n;

	switch (d->phase) {
	case HTTP2_CODE:
		d->number = d->number << 8 | byte_at(sc, sc->pos);
		http2_take(r, 1);
		if (!d->frame_left)
			http2_frame_end(r);
		return 0;
	case HTTP2_PAD_LENGTH:
		d->pad_length = byte_at(sc, sc->pos);
		http2_take(r, 1);
		d->phase = d->prefix_left ? HTTP2_PREFIX : HPACK_FIELD;
		break;
	case HTTP2_PREFIX:
		n = have < d->prefix_left ? have : d->prefix_left;
		http2_take(r, n);
		d->prefix_left -= n;
		if (!d->prefix_left)
			d->phase = HPACK_FIELD;
		break;
	default:
		hpack_numbers(s, h, d, sc, hpack_have(d, sc));
		hpack_strings(d, sc, s->workload, hpack_have(d, sc));
		hpack_rests(h, d, sc);
	}
	if (d->phase == HTTP2_RESYNC)
		return 0;
	if (d->frame_left < d->pad_length + d->prefix_left)
		http2_lose(d);
	else if (d->phase >= HPACK_FIELD && d->frame_left == d->pad_length)
		http2_fragment_end(r);
	return 0;
}

/*
 * HTTP2_TURNS times one frame's header, one field, or one skip. Returns 1 when there is nothing
 * left to do. A global function: the verifier takes it once. See http1_step().
 */
__noinline int http2_turns(PAYLOAD_CTX *ctx, __u32 slot)
{
	struct bpf_sock *sk = ctx->sk;
	struct scratch *sc = scratch_at(slot);
	struct http2_direction *d;
	struct kilter_sock *s;
	struct http2 *h;
	__u32 i;

	if (!sk || !sc)
		return 1;
	s = sock_get(sk);
	h = http2_get(sk);
	if (!s || !h)
		return 1;
	i = sc->request & 1;
	barrier_var(i);
	d = &h->directions[i & 1];
	/* Unrolled: to count them would take stack. */
#pragma unroll
	for (int turn = 0; turn < HTTP2_TURNS; turn++) {
		__u8 phase = d->phase;

		if ((sc->pos >= sc->len && sc->off >= sc->end) || phase == HTTP2_RESYNC)
			return 1;
		if (phase == HTTP2_PAYLOAD) {
			http2_payload(s, h, d, sc);
			phase = d->phase; /* the next head in the same turn: DATA is one each */
			if (phase != HTTP2_HEAD || sc->pos >= sc->len)
				continue;
		}
		if (sc->len - sc->pos < HTTP2_AT_HAND && sc->off < sc->end &&
		    !http2_load(ctx, sc)) {
			http2_lose(d);
			return 1;
		}
		if (phase == HTTP2_HEAD)
			http2_head(ctx, s, h, d, sc);
		else
			http2_inside(s, h, d, sc);
	}
	return 0;
}

#ifndef PAYLOAD_FROM_MEMORY
/* The owner of what is kept for this direction. */
static __always_inline __u64 http2_owner(struct __sk_buff *skb, __u32 request)
{
	return bpf_get_socket_cookie(skb) << 1 | request;
}

/* What is kept for it, or NULL: nothing is, or not any more. */
static __always_inline struct http2_ahead *http2_ahead_of(const struct http2_direction *d,
							  __u64 owner)
{
	__u32 i = d->ahead - 1;
	struct http2_ahead *a = d->ahead ? bpf_map_lookup_elem(&http2_aheads, &i) : NULL;

	return a && a->owner == owner ? a : NULL;
}

/* A place for what begins at seq; 0: there is none. */
static __noinline int http2_ahead_take(struct http2_direction *d, __u64 owner, __u32 seq)
{
	__u64 now = bpf_ktime_get_boot_ns();

	for (__u32 i = 0; i < HTTP2_AHEADS; i++) {
		__u32 key = i;
		struct http2_ahead *a = bpf_map_lookup_elem(&http2_aheads, &key);
		bool mine = false;

		if (!a)
			return 0;
		bpf_spin_lock(&a->lock);
		if (!a->owner || a->owner == owner || now - a->since_ns > HTTP2_AHEAD_NS) {
			a->owner = owner;
			a->since_ns = now;
			a->seq = seq;
			a->len = 0;
			mine = true;
		}
		bpf_spin_unlock(&a->lock);
		if (mine) {
			d->ahead = i + 1;
			return 1;
		}
	}
	return 0;
}

static __noinline int http2_ahead_done(struct http2_direction *d, __u64 owner)
{
	struct http2_ahead *a = http2_ahead_of(d, owner);

	d->ahead = 0;
	if (!a)
		return 0;
	bpf_spin_lock(&a->lock);
	if (a->owner == owner)
		a->owner = 0;
	bpf_spin_unlock(&a->lock);
	return 0;
}

/*
 * A segment beyond a gap is kept, behind what is kept already, until the gap is closed. 0: there is
 * no room, or it is not the next: one gap at a time.
 */
static __noinline int http2_keep(struct __sk_buff *skb, struct http2_direction *d, __u32 off,
				 __u32 len, __u32 seq)
{
	__u64 n = len, owner = http2_owner(skb, d->request);
	struct http2_ahead *a = http2_ahead_of(d, owner);
	__u32 at;

	if (!n || n > HTTP2_AHEAD_ROOM)
		return 0;
	if (!a && http2_ahead_take(d, owner, seq))
		a = http2_ahead_of(d, owner);
	if (!a)
		return 0;
	at = seq - a->seq;
	if (at < a->len && at + len <= a->len)
		return 1; /* once more */
	if (at != a->len)
		return 0;
	bound_length(n, HTTP2_AHEAD_ROOM);
	barrier_var(at);
	if (at > HTTP2_AHEAD_BYTES - HTTP2_AHEAD_ROOM ||
	    bpf_skb_load_bytes(skb, off, &a->data[at], n))
		return 0;
	a->len = at + n;
	return 1;
}
#endif

/* [sc->off, sc->end) of the packet, or of what was kept. */
static __always_inline void http2_read(PAYLOAD_CTX *ctx, struct http2_direction *d,
				       struct scratch *sc)
{
	int done = 0;

	sc->pos = 0;
	sc->len = 0;
	sc->zero = 0;
	sc->now_ns = 0;
	if (d->phase == HTTP2_RESYNC) {
		if (!http2_load(ctx, sc) || sc->len < HTTP2_FRAME_HEAD ||
		    !http2_joins(http2_head_at(sc, 0), byte_at(sc, 8)))
			return;
		d->phase = HTTP2_HEAD;
	}
	for (int i = 0; i < HTTP2_TURNS_TIMES && !done; i++)
		done = http2_turns(ctx, sc->slot);
	if (!done) {
		count_drop(KILTER_DROP_HTTP2_STEPS);
		http2_lose(d);
	}
}

#ifndef PAYLOAD_FROM_MEMORY
/* Is the gap closed? Then what was kept beyond it is to be read next, and true. */
static __noinline int http2_ahead_begin(struct __sk_buff *skb, struct stream *st,
					struct http2_direction *d, struct scratch *sc)
{
	__u64 owner = http2_owner(skb, d->request);
	struct http2_ahead *a = http2_ahead_of(d, owner);
	__u32 skip;

	if (!a) {
		http2_lose(d); /* it came so late that another has its place */
		return 0;
	}
	skip = st->next_seq - a->seq;
	if ((__s32)skip < 0)
		return 0; /* not yet */
	if (skip >= a->len) {
		http2_ahead_done(d, owner);
		return 0;
	}
	sc->off = skip;
	sc->end = a->len;
	sc->ahead = d->ahead;
	st->next_seq = a->seq + a->len;
	return 1;
}
#endif

/* While track of the answers is lost, those of all requests until now may go by. */
static __always_inline void http2_doubt(struct http2 *h, const struct http2_direction *d,
					bool request)
{
	if (!request && d->phase == HTTP2_RESYNC)
		h->doubtful = h->last_stream;
}

/*
 * A segment of payload [off, end) of the packet, with TCP sequence number seq. As http1_segment().
 */
static __always_inline void http2_segment(PAYLOAD_CTX *ctx, struct http2 *h, struct kilter_sock *s,
					  bool request, bool softirq, __u32 off, __u32 end,
					  __u32 seq)
{
	struct stream *st = request ? &s->request : &s->response;
	struct http2_direction *d = &h->directions[request];
	struct scratch *sc;
	__u32 seq_end = seq + (end - off);
	__s32 ahead;

	ahead = seq - st->next_seq;
	if (ahead < 0) { /* a retransmission, wholly or in part */
		if ((__s32)(seq_end - st->next_seq) <= 0)
			return;
		off += -ahead;
	}
	if (ahead > 0 && d->phase != HTTP2_RESYNC) {
		if (d->phase == HTTP2_PAYLOAD && (__u32)ahead < d->frame_left) {
			d->frame_left -= ahead;
		} else {
#ifndef PAYLOAD_FROM_MEMORY
			if (http2_keep(ctx, d, off, end - off, seq))
				return;
#endif
			http2_lose(d);
			http2_doubt(h, d, request);
		}
	}
	st->next_seq = seq_end;
	/* In the middle of a payload there is nothing to read: the commonest case for large ones.
	 */
	if (d->phase == HTTP2_PAYLOAD && end - off < d->frame_left && !d->ahead) {
		d->frame_left -= end - off;
		return;
	}
	sc = scratch_take(softirq);
	if (!sc) {
		count_drop(KILTER_DROP_HTTP2_LOAD);
		http2_lose(d);
		http2_doubt(h, d, request);
		return;
	}
	sc->off = off;
	sc->end = end;
	sc->request = request;
	sc->ahead = 0;
	http2_read(ctx, d, sc);
#ifndef PAYLOAD_FROM_MEMORY
	if (d->ahead && http2_ahead_begin(ctx, st, d, sc)) {
		http2_read(ctx, d, sc);
		if (d->ahead)
			http2_ahead_done(d, http2_owner(ctx, request));
	}
#endif
	http2_doubt(h, d, request);
	scratch_release(sc);
}

/*
 * What is known of this connection's frames: made when the first of its directions is seen to speak
 * HTTP/2, and both may be at once, on two CPUs. NULL: no memory, which is counted.
 */
static __always_inline struct http2 *http2_made(void *sk, struct kilter_sock *s)
{
	struct http2 *h = http2_get(sk);

	if (h)
		return h;
	h = bpf_sk_storage_get(&http2s, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!h)
		h = http2_get(sk); /* the other direction was a moment earlier */
	if (!h) {
		count_drop(KILTER_DROP_SOCK_STORAGE);
		s->protocol = KILTER_PROTO_NONE;
	}
	return h;
}

/*
 * A direction's first segment as HTTP/2, `before` bytes after its beginning. Each says where it
 * stands by itself: the other may be at work. The preface is passed over as the payload of a frame
 * of no known type; a part of it may have gone by before the server's settings told what it is.
 */
static __always_inline void http2_begin(const struct kilter_sock *s, const struct stream *st,
					struct http2_direction *d, bool request, __u32 before)
{
	d->begun = 1;
	d->request = request;
	d->phase = HTTP2_HEAD;
	if (s->flags & SOCK_ADOPTED || st->flags & HTTP1_UNCERTAIN ||
	    before >= (request ? HTTP2_PREFACE : 1)) {
		d->phase = HTTP2_RESYNC;
	} else if (request) {
		d->type = 0xff;
		d->phase = HTTP2_PAYLOAD;
		d->frame_left = HTTP2_PREFACE - before;
	}
}

/* As http2_segment(). `new`: http1_segment() was given it, and found that it is HTTP/2. */
static __always_inline void http2_seen(PAYLOAD_CTX *ctx, void *sk, struct kilter_sock *s,
				       bool request, bool softirq, __u32 off, __u32 end, __u32 seq,
				       bool new)
{
	struct stream *st = request ? &s->request : &s->response;
	struct http2 *h = http2_made(sk, s);
	struct http2_direction *d;

	if (!h)
		return;
	d = &h->directions[request];
	if (!d->begun) {
		http2_begin(s, st, d, request, st->bytes - (new ? end - off : 0));
		if (new || !st->has_seq) {
			st->has_seq = 1;
			st->next_seq = seq;
			st->has_gap = 0;
			st->hole_len = 0;
		}
	}
	http2_segment(ctx, h, s, request, softirq, off, end, seq);
}

#endif
