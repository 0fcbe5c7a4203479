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
 * missing segment is awaited, and what has overtaken it kept meanwhile (lib/http2_ahead.h); else
 * track is lost. It is found again at a segment that begins with a head.
 * The HPACK table is then not known, but for what comes in after.
 */
#ifndef KILTER_BPF_HTTP2_H
#define KILTER_BPF_HTTP2_H

#include "protocols/hpack_block.h"
#include "protocols/http2_frame.h"
#include "protocols/http2_run.h"

/* Frames, fields or strings in a segment; beyond: track is lost. The verifier walks through every
 * turn of a loop: two short ones are less than a long one. The product: loopback's segments are of
 * 131 kB, and messages of gRPC without content are DATA of 14 bytes, a turn each. */
#define HTTP2_TURNS	  8 /* in a function that has looked everything up */
#define HTTP2_TURNS_TIMES 2048
#define HTTP2_AT_HAND                                                           \
	192 /* bytes that are in the buffer when there are as many: more than a \
	     * string that is looked at, with what is before it */
_Static_assert(HTTP2_AT_HAND > HPACK_TEXT_MAX + 32 && HTTP2_AT_HAND < PAYLOAD_WINDOW, "a window");

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
