/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * HTTP/1.0 and 1.1 (RFC 9112) over the segments of a TCP connection, in the kernel.
 *
 * Message boundaries are followed exactly: Content-Length, chunked, no body (HEAD, 1xx, 204,
 * 304), until close, upgrade. A segment may hold many messages, a line may be spread over
 * many segments (its beginning is carried in sk_storage).
 *
 * Nearly every message begins with its segment, has its head in it and is not pipelined:
 * run_head() takes those in one go. Everything else goes through run_step().
 *
 * The clock of a request starts at the segment that holds the first byte of its request line
 * and stops at the segment that holds the last byte of its response, as this socket's side of
 * the packet path sees them (docs/metrics.md).
 *
 * Segments out of turn. Sequence numbers decide: what lies before next_seq is a
 * retransmission and is skipped. What lies beyond it left a gap:
 *  - inside a body of known end the gap does not matter: positions are absolute;
 *  - between two messages, a segment that begins with a start line is taken at once, and what was
 *    passed over, the hole, when it comes: it has to hold whole messages;
 *  - else the range is remembered (gap_end) and the missing segment awaited; when it has come,
 *    what follows up to gap_end can only be body, or track is lost;
 *  - when track is lost a response under way is counted there and then, and both ends wait for
 *    a segment that begins with a start line. Requests and responses still pair one to one.
 * A direction is read by one CPU at a time (lib/turn.h), so what overtakes looks like that too.
 */
#ifndef KILTER_BPF_HTTP1_H
#define KILTER_BPF_HTTP1_H

#include "lib/http1_queue.h"
#include "lib/payload.h"
#include "lib/route.h"
#include "protocols/http1_text.h"
#include "protocols/http2_frame.h"

#define HTTP1_STEPS	   2048 /* lines, chunks and windows per segment; beyond: resynchronise */
#define HTTP1_STEPS_BATCH  32	/* of them in one function */
#define HTTP1_MEMORY_STEPS 256	/* all of them for a segment of SOCK_EARLY_BYTES at most */
#define HTTP1_ARM	   (1u << 30) /* a longer body is followed in pieces of this many bytes */
#define HTTP1_GAPS	   8	      /* segments out of turn before the missing one is given up */

struct http1_run {
	PAYLOAD_CTX *ctx;
	void *sk;
	struct kilter_sock *s;
	struct stream *st;
	struct scratch *sc;
	__u64 now_ns; /* 0 until needed */
	__u32 seq_end;
	__u32 request; /* this is the request direction */
	__u32 lost;
};

static __always_inline __u64 run_now(struct http1_run *r)
{
	if (!r->now_ns)
		r->now_ns = bpf_ktime_get_boot_ns();
	return r->now_ns;
}

/* Bytes of the stream not yet looked at, in the buffer and in the packet. */
static __always_inline __u32 run_left(const struct http1_run *r)
{
	return (r->sc->len - r->sc->pos) + (r->sc->end - r->sc->off);
}

static __always_inline __u32 run_seq(const struct http1_run *r)
{
	return r->seq_end - run_left(r);
}

static __always_inline void run_skip(const struct http1_run *r, __u32 n)
{
	__u32 buffered = r->sc->len - r->sc->pos;

	if (n <= buffered) {
		r->sc->pos += n;
	} else {
		r->sc->off += n - buffered;
		r->sc->len = 0;
		r->sc->pos = 0;
	}
	r->sc->line = r->sc->pos;
}

/* Track of the message boundaries in this direction is lost. */
static __always_inline void run_lose(struct http1_run *r)
{
	struct stream *st = r->st;

	if (!(st->flags & HTTP1_UNCERTAIN))
		count_drop(KILTER_DROP_HTTP1_FRAMING);
	if (!r->request && (st->flags & HTTP1_IN_MESSAGE))
		queue_finish(r->s, r->sk, st->status, KILTER_REQ_OK, run_now(r));
	st->state = STREAM_RESYNC;
	st->flags = 0;
	st->carry_len = 0;
	st->has_gap = 0;
	r->lost = 1;
}

/* These bytes are not what the state calls for. */
static __always_inline void run_reject(struct http1_run *r)
{
	/* HTTP/2 already: the other direction, on another CPU, has just found that. */
	if (r->s->protocol == KILTER_PROTO_HTTP2 ||
	    (r->s->protocol == KILTER_PROTO_UNKNOWN &&
	     http2_speaks(r->sc, r->request, r->st->flags & HTTP1_UNCERTAIN))) {
		r->s->protocol = KILTER_PROTO_HTTP2; /* the caller goes on with that */
		r->lost = 1;
	} else if (r->s->protocol == KILTER_PROTO_UNKNOWN && !(r->st->flags & HTTP1_UNCERTAIN)) {
		r->s->protocol = KILTER_PROTO_NONE;
		r->lost = 1;
	} else {
		run_lose(r);
	}
}

static __always_inline void message_end(struct http1_run *r)
{
	struct stream *st = r->st;

	if (!r->request && (st->flags & HTTP1_IN_MESSAGE)) {
		if (st->status >= 200 || st->status == 101)
			queue_finish(r->s, r->sk, st->status, KILTER_REQ_OK, run_now(r));
	}
	st->state = STREAM_START;
	st->flags = 0;
}

/* A body, or a chunk, of n bytes starts here. */
static __always_inline void body_begin(const struct http1_run *r, __u64 n, __u8 state)
{
	struct stream *st = r->st;
	__u32 piece = n > HTTP1_ARM ? HTTP1_ARM : (__u32)n;

	st->state = state;
	st->end_seq = run_seq(r) + piece;
	st->body_left = n - piece;
}

static __always_inline void headers_end(struct http1_run *r)
{
	struct stream *st = r->st;
	struct kilter_sock *s = r->s;

	if (!r->request) {
		bool counted = st->flags & HTTP1_IN_MESSAGE;
		__u8 method = counted ? queue_method(s, r->sk) : KILTER_METHOD_OTHER;

		if (st->status == 101 ||
		    (method == KILTER_METHOD_CONNECT && st->status >= 200 && st->status < 300)) {
			message_end(r);
			s->protocol = KILTER_PROTO_UPGRADED;
			r->lost = 1;
			return;
		}
		/* RFC 9112 section 6.3, rules 1 to 8. */
		if (st->status < 200 || st->status == 204 || st->status == 304 ||
		    method == KILTER_METHOD_HEAD) {
			message_end(r);
			return;
		}
		if (!(st->flags & (HTTP1_CHUNKED | HTTP1_CONTENT_LENGTH))) {
			st->state = STREAM_BODY_EOF;
			return;
		}
	}
	if (st->flags & HTTP1_CHUNKED)
		st->state = STREAM_CHUNK_SIZE;
	else if ((st->flags & HTTP1_CONTENT_LENGTH) && st->content_length)
		body_begin(r, st->content_length, STREAM_BODY);
	else
		message_end(r);
}

/* Could this byte begin a start line? Tells binary protocols before a line ends. */
static __always_inline bool may_begin(const struct http1_run *r)
{
	__u8 c = byte_at(r->sc, r->sc->line);

	if (c == '\r' || c == '\n')
		return true;
	if (!r->request)
		return c == 'H';
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* A whole line [line, nl), its CR cut off. False: it is not what the state calls for. */
static __always_inline bool request_line(struct http1_run *r, __u32 nl)
{
	struct scratch *sc = r->sc;
	struct kilter_sock *s = r->s;
	__u32 method, at, route = 0;
	__u64 version;

	method = parse_method(sc->slot, sc->line);
	if (!method)
		return false;
	at = sc->line + (method & ((1u << METHOD_SHIFT) - 1));
	method >>= METHOD_SHIFT;
	/* A line that outgrew the buffer may have its version cut at the joint. */
	if (!(r->st->flags & HTTP1_SKIP_LINE) || nl >= SOCK_CARRY_LEN + 8) {
		version = word_at(sc, nl - 8);
		if ((version & LOW(7)) != W8('H', 'T', 'T', 'P', '/', '1', '.', 0) || nl < at + 9)
			return false;
	}
	if (method != KILTER_METHOD_CONNECT)
		route = route_of(sc->slot, s->workload, at, nl);
	s->protocol = KILTER_PROTO_HTTP1;
	queue_push(s, r->sk, run_now(r), method, route);
	return true;
}

static __always_inline bool status_line(struct http1_run *r, __u32 nl)
{
	const struct scratch *sc = r->sc;
	__u64 w = word_at(sc, r->sc->line);
	__u32 a = byte_at(sc, r->sc->line + 9) - '0', b = byte_at(sc, r->sc->line + 10) - '0',
	      c = byte_at(sc, r->sc->line + 11) - '0';

	if ((w & LOW(7)) != W8('H', 'T', 'T', 'P', '/', '1', '.', 0) || nl - r->sc->line < 12)
		return false;
	if (byte_at(sc, r->sc->line + 8) != ' ' || a > 9 || b > 9 || c > 9 || a < 1)
		return false;
	r->st->status = a * 100 + b * 10 + c;
	return true;
}

/* RFC 9112 section 7.1: hexadecimal digits, then perhaps extensions. */
static __always_inline bool chunk_line(struct http1_run *r, __u32 nl)
{
	__u64 n = parse_hex(r->sc->slot, r->sc->line, nl);

	if (n == NO_NUMBER)
		return false;
	if (n)
		body_begin(r, n, STREAM_CHUNK_DATA);
	else
		r->st->state = STREAM_TRAILERS;
	return true;
}

/* The line [r->sc->line, nl) is whole, r->sc->pos stands behind its LF. */
static __always_inline void on_line(struct http1_run *r, __u32 nl)
{
	struct stream *st = r->st;
	bool ok = true;

	if (nl > r->sc->line && byte_at(r->sc, nl - 1) == '\r')
		nl--;
	switch (st->state) {
	case STREAM_START:
		if (nl == r->sc->line)
			break; /* RFC 9112 section 2.2: empty lines before a request line */
		ok = r->request ? request_line(r, nl) : status_line(r, nl);
		if (!ok)
			break;
		/* A response nobody asked for (408 on an idle connection, or we joined after
		 * its request) is followed, not counted. */
		st->flags = r->request || queue_length(r->s) ? HTTP1_IN_MESSAGE : 0;
		st->content_length = 0;
		st->state = STREAM_HEADERS;
		break;
	case STREAM_CHUNK_SIZE:
		ok = chunk_line(r, nl);
		break;
	case STREAM_CHUNK_END:
		ok = nl == r->sc->line;
		st->state = STREAM_CHUNK_SIZE;
		break;
	case STREAM_TRAILERS:
		if (nl == r->sc->line)
			message_end(r);
		break;
	}
	st->flags &= ~HTTP1_SKIP_LINE;
	if (!ok)
		run_reject(r);
}

/* Brings more payload into the buffer, behind what is kept of the line under way. */
static __always_inline bool run_load(struct http1_run *r)
{
	__u64 n = r->sc->end - r->sc->off;
	__u32 at;

	if (r->sc->line && r->sc->len > r->sc->line) {
		/* Start the line under way anew at the front: read its bytes once more. */
		r->sc->off -= r->sc->len - r->sc->line;
		n = r->sc->end - r->sc->off;
		r->sc->len = 0;
	} else if (r->sc->line >= r->sc->len) {
		r->sc->len = 0; /* the last line ended where the buffer does */
	} else if (r->sc->len > SOCK_CARRY_LEN) {
		r->sc->len = SOCK_CARRY_LEN; /* a long line: its middle is not looked at */
		r->st->flags |= HTTP1_SKIP_LINE;
	}
	r->sc->line = 0;
	at = r->sc->len & 0xff;
	if (n > PAYLOAD_WINDOW)
		n = PAYLOAD_WINDOW;
	if (!n)
		return false;
	bound_length(n, PAYLOAD_WINDOW);
	if (payload_read(r->ctx, r->sc->off, r->sc, at, n)) {
		count_drop(KILTER_DROP_HTTP1_LOAD);
		return false;
	}
	r->sc->off += n;
	r->sc->pos = at;
	r->sc->len = at + n;
	return true;
}

static __always_inline void take_fields(struct http1_run *r)
{
	if (r->sc->fields & HTTP1_CONTENT_LENGTH)
		r->st->content_length = r->sc->content_length;
	r->st->flags |= r->sc->fields;
}

/*
 * The usual case, without the steps: this segment begins with a start line and holds all of the
 * head, nothing is pipelined. Returns whether it was that; if not, nothing has changed. What
 * follows the head is the caller's.
 */
static __always_inline bool run_head(const struct http1_run *r)
{
	struct scratch *sc = r->sc;
	struct kilter_sock *s = r->s;
	struct stream *st = r->st;
	__u64 n = sc->end - sc->off;
	__u32 left;
	bool bodyless = false;

	if (r->request ? s->head != s->tail
		       : s->head == s->tail || (s->tail & (KILTER_PIPELINE_MAX - 1)))
		return false;
	if (n > PAYLOAD_WINDOW)
		n = PAYLOAD_WINDOW;
	if (!n)
		return false;
	bound_length(n, PAYLOAD_WINDOW);
	if (payload_read(r->ctx, sc->off, sc, 0, n))
		return false;
	sc->len = n;
	if (!read_head(sc->slot, r->request))
		return false;
	if (r->request) {
		s->first.route =
		    route_by_tag(sc, s->workload, sc->start & ((1u << METHOD_SHIFT) - 1),
				 sc->path_end, sc->path_tag);
		s->first.method = sc->start >> METHOD_SHIFT;
		s->first.start_ns = bpf_ktime_get_boot_ns();
		s->tail = 0;
		s->head = 1;
		if (s->protocol != KILTER_PROTO_HTTP1)
			s->protocol = KILTER_PROTO_HTTP1;
	} else {
		if (s->first.method == KILTER_METHOD_CONNECT || sc->start == 101)
			return false;
		st->status = sc->start;
		bodyless = st->status < 200 || st->status == 204 || st->status == 304 ||
			   s->first.method == KILTER_METHOD_HEAD;
	}
	sc->off += n;
	left = run_left(r);
	st->flags = sc->fields | HTTP1_IN_MESSAGE;
	if (bodyless) {
		st->state = STREAM_START;
	} else if (sc->fields & HTTP1_CHUNKED) {
		st->state = STREAM_CHUNK_SIZE;
	} else if (sc->fields & HTTP1_CONTENT_LENGTH) {
		if (sc->content_length > left) {
			body_begin(r, sc->content_length, STREAM_BODY);
			run_skip(r, left);
		} else {
			run_skip(r, sc->content_length);
			st->state = STREAM_START;
		}
	} else {
		st->state = r->request ? STREAM_START : STREAM_BODY_EOF;
	}
	if (st->state == STREAM_START) {
		if (!r->request && st->status >= 200)
			queue_done(s, &s->first, st->status, KILTER_REQ_OK,
				   bpf_ktime_get_boot_ns());
		st->flags = 0;
	}
	return true;
}

/* One line, one skip or one window. Returns 1 when there is nothing left to do. */
static __always_inline long run_step(struct http1_run *r)
{
	struct stream *st = r->st;
	__u32 left = run_left(r), n;

	if (!left || r->lost)
		return 1;
	switch (st->state) {
	case STREAM_BODY:
	case STREAM_CHUNK_DATA:
		n = st->end_seq - run_seq(r);
		if ((__s32)n < 0)
			n = 0;
		if (n > left) {
			run_skip(r, left);
			return 1;
		}
		run_skip(r, n);
		if (st->body_left) {
			body_begin(r, st->body_left, st->state);
		} else if (st->state == STREAM_CHUNK_DATA) {
			st->state = STREAM_CHUNK_END;
		} else {
			message_end(r);
		}
		return 0;
	case STREAM_BODY_EOF:
		run_skip(r, left);
		return 1;
	}
	if (r->sc->pos >= r->sc->len) {
		if (!run_load(r)) {
			run_lose(r);
			return 1;
		}
		if (st->state == STREAM_START && !may_begin(r)) {
			run_reject(r);
			return 1;
		}
	}
	if (st->state == STREAM_HEADERS) {
		int ended;

		r->sc->fields = 0;
		ended = scan_headers(r->sc->slot);
		take_fields(r);
		if (ended)
			headers_end(r);
		return 0;
	}
	if (!find_lf(r->sc->slot))
		return 0;
	on_line(r, r->sc->pos - 1);
	r->sc->line = r->sc->pos;
	return 0;
}

/*
 * One step, as a global function: the verifier takes it once. It is told what it may be told,
 * a context and a number, and finds the rest again. (bpf_loop would be a call without that, but
 * is Linux 5.17.)
 */
__noinline int http1_step(PAYLOAD_CTX *ctx, __u32 slot)
{
	struct bpf_sock *sk = ctx->sk;
	struct scratch *sc = scratch_at(slot);
	struct http1_run r = {};
	int done;

	if (!sk || !sc)
		return 1;
	r.s = sock_get(sk);
	if (!r.s)
		return 1;
	r.ctx = ctx;
	r.sk = sk;
	r.sc = sc;
	r.now_ns = sc->now_ns;
	r.seq_end = sc->seq_end;
	r.request = sc->request;
	r.lost = sc->lost;
	r.st = r.request ? &r.s->request : &r.s->response;
	done = run_step(&r);
	sc->now_ns = r.now_ns;
	sc->lost = r.lost;
	return done;
}

#ifdef PAYLOAD_FROM_MEMORY
/* Little payload, and below sockops little stack. */
#define HTTP1_BATCHES HTTP1_MEMORY_STEPS
#define http1_steps   http1_step
#else
/* The verifier walks through every turn of a loop: two short ones are less than a long one. */
#define HTTP1_BATCHES (HTTP1_STEPS / HTTP1_STEPS_BATCH)

__noinline int http1_steps(PAYLOAD_CTX *ctx, __u32 slot)
{
	for (int i = 0; i < HTTP1_STEPS_BATCH; i++)
		if (http1_step(ctx, slot))
			return 1;
	return 0;
}
#endif

static __always_inline void run_steps(struct http1_run *r)
{
	__u32 slot = r->sc->slot;

	r->sc->now_ns = r->now_ns;
	r->sc->seq_end = r->seq_end;
	r->sc->request = r->request;
	r->sc->lost = r->lost;
	for (int i = 0; i < HTTP1_BATCHES; i++)
		if (http1_steps(r->ctx, slot))
			break;
	r->now_ns = r->sc->now_ns;
	r->lost = r->sc->lost;
}

/* Keeps the beginning of a line that the segment cuts off. */
static __always_inline void carry_save(struct http1_run *r)
{
	struct sock_carry *c;
	char *to;
	__u32 n = r->sc->len - r->sc->line;

	if (r->st->state == STREAM_RESYNC || r->lost || !r->sc->len || r->sc->line >= r->sc->len) {
		r->st->carry_len = 0;
		return;
	}
	c = bpf_sk_storage_get(&sock_carries, r->sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!c) {
		count_drop(KILTER_DROP_SOCK_STORAGE);
		run_lose(r);
		return;
	}
	if (n > SOCK_CARRY_LEN) {
		n = SOCK_CARRY_LEN;
		r->st->flags |= HTTP1_SKIP_LINE;
	}
	to = r->request ? c->request : c->response;
	for (int i = 0; i < SOCK_CARRY_LEN; i += 8)
		*(__u64 *)(to + i) = word_at(r->sc, r->sc->line + i);
	r->st->carry_len = n;
}

static __always_inline void carry_load(struct http1_run *r)
{
	const struct sock_carry *c;
	const char *from;

	if (!r->st->carry_len)
		return;
	c = bpf_sk_storage_get(&sock_carries, r->sk, NULL, 0);
	if (!c)
		return;
	from = r->request ? c->request : c->response;
	for (int i = 0; i < SOCK_CARRY_LEN; i += 8)
		*(volatile __u64 *)&r->sc->buf[i] = *(const __u64 *)(from + i);
	r->sc->len = r->st->carry_len;
	r->sc->pos = r->sc->len;
	r->sc->line = 0;
	r->st->carry_len = 0;
}

/* What comes late is read as a stream of its own. */
static __always_inline void late_begin(const struct http1_run *r)
{
	struct stream *st = r->st;

	r->sc->kept = *st;
	st->state = STREAM_START;
	st->flags = 0;
	st->carry_len = 0;
	st->has_gap = 0;
}

static __always_inline void late_end(struct http1_run *r)
{
	struct stream *st = r->st;
	__u32 bytes, n = r->seq_end - st->hole_seq;

	if (!r->lost && (st->state != STREAM_START || run_left(r)))
		run_lose(r); /* its last message went on in what came before */
	bytes = st->bytes;
	*st = r->sc->kept;
	st->bytes = bytes;
	st->hole_seq += n;
	st->hole_len = r->lost ? 0 : st->hole_len - n;
}

/*
 * A segment of payload [off, end) of the packet, with TCP sequence number seq. Returns when
 * all of it has been looked at; the parser's state is in s. softirq: we run in one, surely.
 */
static __always_inline void http1_segment(PAYLOAD_CTX *ctx, void *sk, struct kilter_sock *s,
					  bool request, bool softirq, __u32 off, __u32 end,
					  __u32 seq)
{
	struct http1_run r = {
	    .ctx = ctx,
	    .sk = sk,
	    .s = s,
	    .st = request ? &s->request : &s->response,
	    .seq_end = seq + (end - off),
	    .request = request,
	};
	struct stream *st = r.st;
	bool resync = false, late = false, over_hole = false;
	__s32 ahead;

	if (!st->has_seq) {
		st->has_seq = 1;
		st->next_seq = seq;
	}
	ahead = seq - st->next_seq;
	if (ahead < 0 && st->hole_len && seq == st->hole_seq) {
		late = true;
		if (end - off > st->hole_len) {
			end = off + st->hole_len;
			r.seq_end = seq + st->hole_len;
		}
	} else if (ahead < 0) { /* a retransmission, wholly or in part */
		if ((__s32)(r.seq_end - st->next_seq) <= 0)
			return;
		off += -ahead;
	}
	if (st->bytes < 0xc0000000u)
		st->bytes += end - off;
	if (ahead > 0) {
		if ((st->state == STREAM_BODY || st->state == STREAM_CHUNK_DATA) &&
		    (__s32)(seq - st->end_seq) <= 0) {
			/* Positions are absolute: the gap does not hide the end. */
		} else if (st->state == STREAM_BODY && !st->body_left) {
			message_end(&r);
			st->state = STREAM_RESYNC;
		} else if (st->state == STREAM_START) {
			st->state = STREAM_RESYNC; /* does it begin with a start line? */
			over_hole = true;
		} else if (st->state != STREAM_RESYNC && st->state != STREAM_BODY_EOF) {
			if (!st->has_gap || (__s32)(r.seq_end - st->gap_end) > 0)
				st->gap_end = r.seq_end;
			if (++st->has_gap < HTTP1_GAPS)
				return;
			run_lose(&r);
		}
	}
	/* In the middle of a body there is nothing to read: the commonest case for large ones. */
	if (!late && (((st->state == STREAM_BODY || st->state == STREAM_CHUNK_DATA) &&
		       (__s32)(r.seq_end - st->end_seq) < 0) ||
		      st->state == STREAM_BODY_EOF)) {
		st->next_seq = r.seq_end;
		return;
	}
	r.sc = scratch_take(softirq);
	if (!r.sc) {
		count_drop(KILTER_DROP_HTTP1_LOAD);
		return; /* looks like a gap to the next segment */
	}
	r.sc->off = off;
	r.sc->end = end;
	r.sc->line = 0;
	r.sc->pos = 0;
	r.sc->len = 0;
	/* 0, and the verifier need not know: the ways that lead here meet. */
	r.sc->zero = 0;
	r.lost = forgotten(r.sc->zero);
	r.now_ns = forgotten(r.sc->zero);
	if (late)
		late_begin(&r);
	if (st->state == STREAM_START && !st->carry_len && !st->has_gap && run_head(&r)) {
		if (!run_left(&r)) {
			if (!late)
				st->next_seq = r.seq_end;
			goto out;
		}
	} else {
		r.sc->len = 0;
		r.sc->pos = 0;
		r.sc->line = 0;
		resync = st->state == STREAM_RESYNC;
		if (resync) {
			st->state = STREAM_START;
			st->flags = HTTP1_UNCERTAIN;
			st->carry_len = 0;
		}
		carry_load(&r);
	}
	run_steps(&r);
	if (late)
		goto out;
	if (resync && r.lost && st->state == STREAM_RESYNC && ahead > 0) {
		/* No start line: await what is missing. */
		st->state = STREAM_START;
		if (!st->has_gap || (__s32)(r.seq_end - st->gap_end) > 0)
			st->gap_end = r.seq_end;
		if (++st->has_gap < HTTP1_GAPS)
			goto out;
		st->state = STREAM_RESYNC;
	} else if (over_hole) {
		if (st->hole_len)
			count_drop(KILTER_DROP_HTTP1_FRAMING); /* one is remembered */
		st->hole_seq = seq - ahead;
		st->hole_len = ahead;
	}
	if (!r.lost && run_left(&r)) { /* out of steps, or a body that ends beyond this segment */
		if (st->state != STREAM_BODY && st->state != STREAM_CHUNK_DATA) {
			count_drop(KILTER_DROP_HTTP1_STEPS);
			run_lose(&r);
		}
	}
	carry_save(&r);
	st->next_seq = r.seq_end;
	if (st->has_gap && !r.lost && (__s32)(st->gap_end - r.seq_end) > 0) {
		/* The missing segment has come; what came before its turn was not parsed. */
		if (st->state == STREAM_BODY && (__s32)(st->gap_end - st->end_seq) < 0) {
			st->next_seq = st->gap_end;
		} else if (st->state == STREAM_BODY && st->gap_end == st->end_seq &&
			   !st->body_left) {
			st->next_seq = st->gap_end;
			message_end(&r);
		} else if (st->state == STREAM_BODY_EOF) {
			st->next_seq = st->gap_end;
		} else {
			st->next_seq = st->gap_end;
			run_lose(&r);
		}
	}
	st->has_gap = 0;
out:
	if (late)
		late_end(&r);
	scratch_release(r.sc);
}

/* The sender of this direction has finished: that ends a body without a length. */
static __always_inline void http1_fin(void *sk, struct kilter_sock *s, bool request)
{
	struct stream *st = &s->response;

	if (request || st->state != STREAM_BODY_EOF || !(st->flags & HTTP1_IN_MESSAGE))
		return;
	st->flags = 0;
	st->state = STREAM_RESYNC;
	queue_finish(s, sk, st->status, KILTER_REQ_OK, bpf_ktime_get_boot_ns());
}

#endif
