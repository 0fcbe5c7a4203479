/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What is known of a connection that speaks HTTP/2: where each direction stands, its HPACK table,
 * the requests under way, and what happens when one ends.
 */
#ifndef KILTER_BPF_HTTP2_STREAMS_H
#define KILTER_BPF_HTTP2_STREAMS_H

#include "lib/guard_sock.h"
#include "lib/payload.h"
#include "lib/series.h"

#define HTTP2_STREAMS 128 /* remembered of a connection; peers allow each other 100 to 128 */
#define HTTP2_NOWHERE 0xff

/* Entries remembered of an HPACK table: as many as one of 4096 bytes can have, the size that all
 * begin with (RFC 7541 section 4.1: at least 32 bytes each; RFC 9113 section 6.5.2). */
#define HPACK_ENTRIES 128

#define HPACK_TEXT_MAX \
	104 /* bytes of a value that are looked at; a path's first 96 are all we use */

enum http2_phase {
	HTTP2_HEAD = 0, /* a frame's header comes next */
	HTTP2_PAYLOAD,	/* frame_left bytes that nobody reads */
	HTTP2_CODE,	/* of RST_STREAM */
	HTTP2_PAD_LENGTH,
	HTTP2_PREFIX, /* prefix_left bytes before the block */
	/* In a header block (RFC 7541 section 6). */
	HPACK_FIELD,
	HPACK_NAME_LENGTH,
	HPACK_NAME,
	HPACK_NAME_REST, /* string_left bytes that nobody reads */
	HPACK_VALUE_LENGTH,
	HPACK_VALUE,
	HPACK_VALUE_REST,
	HTTP2_RESYNC, /* track is lost: wait for a segment that begins with a head */
};

enum hpack_kind { /* what a field is, as far as we care */
	HPACK_OTHER = 0,
	HPACK_METHOD,	    /* enum kilter_http_method */
	HPACK_PATH,	    /* route id */
	HPACK_STATUS,	    /* HTTP status */
	HPACK_GRPC_STATUS,  /* gRPC's code */
	HPACK_CONTENT_TYPE, /* 1: gRPC's */
	HPACK_UNKNOWN,	    /* inserted before we were there */
};

struct http2_direction {  /* written by that direction alone */
	__u32 frame_left; /* bytes of the frame under way not yet read */
	__u32 stream;	  /* of that frame */
	__u32 prefix_left;
	__u32 string_left;
	__u32 number;	/* the integer under way */
	__u32 value;	/* of the field under way */
	__u32 inserted; /* entries, ever */
	__u32 known;	/* of the newest entries, how many we have seen inserted */
	__u8 type, flags;
	__u8 phase;	  /* enum http2_phase */
	__u8 block_phase; /* of the header block that a frame has cut; 0: none is under way */
	__u8 pad_length;
	__u8 place;	 /* of the stream, or HTTP2_NOWHERE */
	__u8 opens;	 /* the block is a request's first */
	__u8 end_stream; /* the block ends it */
	__u8 shift;	 /* of the integer under way; 0: its first byte comes next */
	__u8 inserts;	 /* the field goes into the table */
	__u8 kind;	 /* of it, enum hpack_kind */
	__u8 huffman;
	__u8 head_kept, text_kept; /* bytes of a head, of a string, that a segment has cut */
	__u8 ahead;		   /* 1 + the index of what has overtaken a gap; 0: nothing has */
	__u8 begun;		   /* the fields above say where it stands */
	__u8 request;		   /* it is that of the requests */
	__u8 pad[7];
	char head[16];
	char text[HPACK_TEXT_MAX];
	__u64 table[HPACK_ENTRIES]; /* kind << 32 | value, at its number modulo the size */
};

struct http2 {
	struct bpf_spin_lock lock; /* who ends a stream: both directions may */
	__u32 last_stream;	   /* the newest request */
	__u32 reach;		   /* how far at most a stream was ever put behind its own place */
	__u32 doubtful;		   /* up to this one, streams may have ended while track was lost */
	struct http2_direction directions[2]; /* 1: of the requests */
	struct http2_stream streams[HTTP2_STREAMS];
};

/* 20 KiB is what all storages of a socket may take before Linux 6.7 (net.core.optmem_max). */
_Static_assert(sizeof(struct http2) < 8192, "beside the others'");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct http2);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} http2s SEC(".maps");

#define http2_get(sk) bpf_sk_storage_get(&http2s, sk, NULL, 0)

static __always_inline struct http2_stream *http2_at(struct http2 *h, __u32 place)
{
	place &= HTTP2_STREAMS - 1;
	barrier_var(place);
	return &h->streams[place & (HTTP2_STREAMS - 1)];
}

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

/* The code that gRPC's libraries make of an HTTP status without grpc-status
 * (github.com/grpc/grpc, doc/http-grpc-status-mapping.md). */
static __always_inline __u32 http2_grpc_of_http(__u32 status)
{
	switch (status) {
	case 400:
		return 13; /* INTERNAL */
	case 401:
		return 16; /* UNAUTHENTICATED */
	case 403:
		return 7; /* PERMISSION_DENIED */
	case 404:
		return 12; /* UNIMPLEMENTED */
	case 429:
	case 502:
	case 503:
	case 504:
		return 14; /* UNAVAILABLE */
	}
	return 2; /* UNKNOWN */
}

/* What of RST_STREAM (doc/PROTOCOL-HTTP2.md there, "HTTP2 Transport Mapping, Errors"). */
static __always_inline __u32 http2_grpc_of_reset(__u32 error)
{
	switch (error) {
	case 7:		   /* REFUSED_STREAM */
		return 14; /* UNAVAILABLE */
	case 8:		   /* CANCEL */
		return 1;  /* CANCELLED */
	case 11:	   /* ENHANCE_YOUR_CALM */
		return 8;  /* RESOURCE_EXHAUSTED */
	case 12:	   /* INADEQUATE_SECURITY */
		return 7;  /* PERMISSION_DENIED */
	}
	return 13; /* INTERNAL */
}

/*
 * sc->ended is counted under its series; sc->status and sc->took_ns become known. A global
 * function: the verifier takes it once, and not for each stream of a connection that ends. error:
 * enum kilter_request_error.
 */
__noinline int http2_count(__u32 slot, __u32 workload, __u32 peer, __u32 role, __u32 error)
{
	struct scratch *sc = scratch_at(slot);
	struct kilter_series_key key = {.workload = workload, .peer = peer};
	const struct http2_stream *at;
	bool client = role == KILTER_ROLE_CLIENT;
	__u32 status;

	if (!sc)
		return 0;
	at = &sc->ended;
	status = at->status;
	key.protocol = KILTER_PROTO_HTTP2;
	if (at->flags & HTTP2_STREAM_GRPC) {
		key.protocol = KILTER_PROTO_GRPC;
		if (at->flags & HTTP2_STREAM_CODE)
			status = KILTER_STATUS_GRPC + at->code;
		else if (error || at->flags & HTTP2_STREAM_UNSURE)
			status = 0;
		else
			status = KILTER_STATUS_GRPC + http2_grpc_of_http(status);
	}
	key.status = status;
	key.route = at->route;
	key.method = at->method;
	key.role = role;
	key.error = error;
	sc->status = status;
	sc->took_ns = sc->now_ns > at->start_ns ? sc->now_ns - at->start_ns : 0;
	series_bump(&key, sc->took_ns, client ? at->bytes_response : at->bytes_request,
		    client ? at->bytes_request : at->bytes_response, 1);
	return 0;
}

/*
 * Stream `id` ends now: counted once, by whoever comes first. at_with: its place | enum
 * kilter_request_error << 8. Returns whether it was us; sc->status and sc->took_ns are its.
 */
static __noinline int http2_stream_count(struct kilter_sock *s, struct http2 *h, struct scratch *sc,
					 __u32 at_with, __u32 id)
{
	struct http2_stream *at = http2_at(h, at_with & 0xff);

	bpf_spin_lock(&h->lock);
	if (at->id != id)
		id = 0;
	if (id) {
		sc->ended = *at;
		at->id = 0; /* free for another */
	}
	bpf_spin_unlock(&h->lock);
	if (!id)
		return 0;
	http2_count(sc->slot, s->workload, s->peer, s->role, at_with >> 8);
	return 1;
}

/* The circuit is to judge this outcome by when the stream began: others on its connection may have
 * met a newer generation since. */
static __always_inline void http2_guard_since(struct kilter_sock *s, const struct scratch *sc)
{
	if (sc->ended.generation)
		s->guard_generation = sc->ended.generation;
}

static __always_inline void http2_stream_end(struct kilter_sock *s, struct http2 *h,
					     struct scratch *sc, __u32 place, __u32 id, __u32 error)
{
	if (!sc->now_ns)
		sc->now_ns = bpf_ktime_get_boot_ns();
	if (!http2_stream_count(s, h, sc, place | error << 8, id) ||
	    !sock_guard_wants(s, sc->status, error))
		return;
	http2_guard_since(s, sc);
	sock_guard_request(s, sc->status, error, sc->took_ns, sc->now_ns);
}

/*
 * The first of `most` places from `from` on that stream `id` has; id 0: that nobody has. A global
 * function: the verifier takes its turns once.
 */
__noinline __u32 http2_seek(PAYLOAD_CTX *ctx, __u32 id, __u32 from, __u32 most)
{
	struct bpf_sock *sk = ctx->sk;
	struct http2 *h = sk ? http2_get(sk) : NULL;

	if (!h)
		return HTTP2_NOWHERE;
	for (__u32 i = 0; i < HTTP2_STREAMS && i < most; i++, from++)
		if (http2_at(h, from)->id == id)
			return from & (HTTP2_STREAMS - 1);
	return HTTP2_NOWHERE;
}

/* Where stream `id` is, or HTTP2_NOWHERE. */
static __always_inline __u32 http2_find(PAYLOAD_CTX *ctx, struct http2 *h, __u32 id)
{
	__u32 home = (id >> 1) & (HTTP2_STREAMS - 1);

	if (http2_at(h, home)->id == id)
		return home;
	return h->reach ? http2_seek(ctx, id, home + 1, h->reach) : HTTP2_NOWHERE;
}

/*
 * A new stream gets a place: its own by its number, else the next that is free. When none is, the
 * one that has its own is counted as it stands, and how it ends nobody knows.
 */
static __always_inline __u32 http2_open(PAYLOAD_CTX *ctx, struct kilter_sock *s, struct http2 *h,
					struct scratch *sc, __u32 id)
{
	__u32 home = (id >> 1) & (HTTP2_STREAMS - 1), place = home;
	struct http2_stream *at;

	if (http2_at(h, home)->id) {
		place = http2_seek(ctx, 0, home, HTTP2_STREAMS);
		if (place == HTTP2_NOWHERE)
			place = home;
		if (h->reach < ((place - home) & (HTTP2_STREAMS - 1)))
			h->reach = (place - home) & (HTTP2_STREAMS - 1);
	}
	at = http2_at(h, place);
	if (at->id) {
		count_drop(KILTER_DROP_HTTP2_STREAMS);
		at->flags |= HTTP2_STREAM_UNSURE;
		http2_stream_end(s, h, sc, place, at->id, KILTER_REQ_OK);
	}
	if (!sc->now_ns)
		sc->now_ns = bpf_ktime_get_boot_ns();
	at->start_ns = sc->now_ns;
	at->generation = s->guard_generation;
	at->route = 0;
	at->bytes_request = 0;
	at->bytes_response = 0;
	at->status = 0;
	at->method = KILTER_METHOD_OTHER;
	at->flags = 0;
	at->code = 0;
	at->id = id;
	return place;
}

/* The connection is over: what is still under way has failed. */
static __always_inline void http2_connection_ended(struct kilter_sock *s, void *sk, bool reset)
{
	struct http2 *h = http2_get(sk);
	struct scratch *sc = h ? scratch_take(false) : NULL;
	__u32 error = reset ? KILTER_REQ_RESET : KILTER_REQ_CLOSED;

	if (h && !sc)
		count_drop(KILTER_DROP_HTTP2_LOAD);
	if (!sc)
		return;
	sc->now_ns = bpf_ktime_get_boot_ns();
	/* What sock_guard_request() does, but the way to the circuit looked for once: the verifier
	 * walks through each turn. */
	if (s->role == KILTER_ROLE_CLIENT && !sock_has_circuit(s))
		sock_guard_join(s);
	for (__u32 i = 0; i < HTTP2_STREAMS; i++) {
		__u32 id = http2_at(h, i)->id, with = error;

		if (!id)
			continue;
		if ((__s32)(id - h->doubtful) <= 0) {
			/* Answered, for all we know: the drop that was counted then tells. */
			http2_at(h, i)->flags |= HTTP2_STREAM_UNSURE;
			with = KILTER_REQ_OK;
		}
		if (!http2_stream_count(s, h, sc, i | with << 8, id) || !with)
			continue;
		if (!sock_has_circuit(s))
			continue;
		http2_guard_since(s, sc);
		sock_guard_tell(s, KILTER_FAIL_ON_NO_ANSWER | GUARD_STATUS(sc->status), sc->now_ns);
	}
	scratch_release(sc);
}

#endif
