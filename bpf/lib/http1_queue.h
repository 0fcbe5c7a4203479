/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The queue of outstanding requests of a connection, and what happens when one ends.
 * One producer (the request direction), one consumer (the response direction or the end of
 * the connection). The producer starts again at slot 0 whenever the queue is empty, so that
 * a connection without pipelining never needs more than the slot in struct kilter_sock.
 */
#ifndef KILTER_BPF_HTTP1_QUEUE_H
#define KILTER_BPF_HTTP1_QUEUE_H

#include "lib/guard_sock.h"
#include "lib/series.h"
#include "lib/sock.h"

#define HTTP1_CONTENT_LENGTH (1u << 0)
#define HTTP1_CHUNKED	     (1u << 1)
#define HTTP1_SKIP_LINE	     (1u << 2) /* the line under way is longer than SOCK_CARRY_LEN */
#define HTTP1_UNCERTAIN	     (1u << 3) /* resynchronising: a bad start line is no news */
#define HTTP1_IN_MESSAGE     (1u << 4) /* a start line was seen, the message has not ended */

static __always_inline __u32 queue_length(const struct kilter_sock *s)
{
	return (__u16)(s->head - s->tail);
}

static __always_inline struct sock_request *queue_slot(struct kilter_sock *s, void *sk, __u32 index,
						       bool create)
{
	struct sock_pipeline *p;

	index &= KILTER_PIPELINE_MAX - 1;
	if (!index)
		return &s->first;
	p = bpf_sk_storage_get(&sock_pipelines, sk, NULL, create ? BPF_SK_STORAGE_GET_F_CREATE : 0);
	if (!p)
		return NULL;
	barrier_var(p); /* or clang adds the index before the NULL test */
	return &p->slots[index];
}

static __always_inline void queue_push(struct kilter_sock *s, void *sk, __u64 now_ns, __u8 method,
				       __u32 route)
{
	struct sock_request *r;

	if (s->head == s->tail) {
		s->tail = 0;
		s->head = 0;
	} else if (queue_length(s) >= KILTER_PIPELINE_MAX) {
		/* The newest takes the slot of the oldest: still counted, with a shorter time. */
		count_drop(KILTER_DROP_HTTP1_PIPELINE);
	}
	r = queue_slot(s, sk, s->head, true);
	if (r) {
		r->start_ns = now_ns;
		r->method = method;
		r->route = route;
	} else {
		count_drop(KILTER_DROP_SOCK_STORAGE);
	}
	s->head++;
}

static __always_inline __u8 queue_method(struct kilter_sock *s, void *sk)
{
	const struct sock_request *r = queue_slot(s, sk, s->tail, false);

	return r ? r->method : KILTER_METHOD_OTHER;
}

/* The oldest outstanding request ends now; r is its slot or NULL. */
static __noinline int queue_done(struct kilter_sock *s, const struct sock_request *r, __u32 status,
				 __u32 error, __u64 now_ns)
{
	struct kilter_series_key key = {};
	__u64 ns = 0, in, out;

	key.workload = s->workload;
	key.peer = s->peer;
	key.status = status;
	key.role = s->role;
	key.protocol = KILTER_PROTO_HTTP1;
	key.error = error;
	if (r) {
		key.method = r->method;
		key.route = r->route;
		if (now_ns > r->start_ns)
			ns = now_ns - r->start_ns;
	}
	s->tail++;
	in = s->role == KILTER_ROLE_CLIENT ? s->response.bytes : s->request.bytes;
	out = s->role == KILTER_ROLE_CLIENT ? s->request.bytes : s->response.bytes;
	s->request.bytes = 0;
	s->response.bytes = 0;
	series_bump(&key, ns, in, out, 1);
	if (sock_guard_wants(s, status, error))
		sock_guard_request(s, status, error, ns, now_ns);
	return 0;
}

static __always_inline void queue_finish(struct kilter_sock *s, void *sk, __u32 status, __u32 error,
					 __u64 now_ns)
{
	if (queue_length(s))
		queue_done(s, queue_slot(s, sk, s->tail, false), status, error, now_ns);
}

/* The connection is over: what is still outstanding has failed, unless its response was
 * delimited by the end of the connection. */
static __always_inline void http1_connection_ended(struct kilter_sock *s, void *sk, bool reset)
{
	__u64 now = bpf_ktime_get_boot_ns();
	__u16 status = 0;
	__u8 error = reset ? KILTER_REQ_RESET : KILTER_REQ_CLOSED;

	/* What was passed over and never came, or not as whole messages: nobody counted it. */
	if (s->request.hole_len || s->response.hole_len)
		count_drop(KILTER_DROP_HTTP1_FRAMING);
	/* An upgrade may have left requests behind that were sent before it was answered. */
	if (s->protocol != KILTER_PROTO_HTTP1 && s->protocol != KILTER_PROTO_UPGRADED)
		return;
	if (s->response.flags & HTTP1_IN_MESSAGE) {
		status = s->response.status;
		if (s->response.state == STREAM_BODY_EOF && !reset)
			queue_finish(s, sk, status, KILTER_REQ_OK, now);
		else
			queue_finish(s, sk, status, error, now);
	}
	for (int i = 0; i < KILTER_PIPELINE_MAX && queue_length(s); i++)
		queue_finish(s, sk, 0, error, now);
	if (queue_length(s))
		count_drop(KILTER_DROP_HTTP1_PIPELINE);
	s->head = s->tail;
}

#endif
