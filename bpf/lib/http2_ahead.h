/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What has overtaken a missing segment, until that has come. On a loopback device it is there
 * already, on another CPU; after a loss it takes a round trip. Few connections are in that state at
 * a time: a pool for all, and who finds none free loses track. Nothing has to be given back: whose
 * owner has not come for HTTP2_AHEAD_NS is free.
 */
#ifndef KILTER_BPF_HTTP2_AHEAD_H
#define KILTER_BPF_HTTP2_AHEAD_H

#include "lib/http2_streams.h"
#include "lib/payload.h"

#define HTTP2_AHEADS	  8
#define HTTP2_AHEAD_ROOM  131072 /* of one segment: the largest there are on loopback */
#define HTTP2_AHEAD_BYTES (2 * HTTP2_AHEAD_ROOM)
#define HTTP2_AHEAD_NS	  10000000000ull

struct http2_ahead {
	struct bpf_spin_lock lock; /* who owns it */
	__u32 seq, len;
	__u32 pad;
	__u64 owner; /* 0: nobody; else a socket's cookie << 1 | direction */
	__u64 since_ns;
	char data[HTTP2_AHEAD_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HTTP2_AHEADS);
	__type(key, __u32);
	__type(value, struct http2_ahead);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} http2_aheads SEC(".maps");

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

#endif
