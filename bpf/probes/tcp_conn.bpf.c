// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Connections: opened, accepted, closed, failed and why, connect latency, RTT, retransmits,
 * resets, bytes, accept queues. sockops calls us at each step of a socket's life in the
 * observed cgroup; what sockops cannot tell (sockets older than the agent) comes from the
 * state tracepoint.
 */
#include "vmlinux.h"

#include <bpf/bpf_tracing.h>

#include "lib/connect.h"

/* Here the parser reads from memory: there is no packet at hand. */
#define PAYLOAD_FROM_MEMORY
#define TURN_CTX struct bpf_sock_ops
#include "lib/turn.h"
#include "lib/udp.h"
#include "protocols/http1.h"
#include "protocols/http2.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

const volatile bool audit_listen = true;

/* tcp_adopted_end runs beside us. Where it cannot (sk_storage in tracing programs is Linux 5.11),
 * sockops and the release of the socket have to do. */
const volatile bool node_trace = true;

#define emit_net_if(on, ...)                   \
	do {                                   \
		if (on)                        \
			emit_net(__VA_ARGS__); \
	} while (0)

#define AF_INET6    10
#define SOCK_STREAM 1

static __always_inline void sample(struct kilter_sock *s, struct kilter_conn *c,
				   struct bpf_sock_ops *ctx)
{
	sock_sample(s, c, bpf_ktime_get_boot_ns(), ctx->srtt_us, ctx->bytes_received,
		    ctx->bytes_acked);
}

enum {
	EARLY_NONE,
	EARLY_TAKEN, /* and the turn with it */
	EARLY_HTTP2,
};

/* Did the packet that completed this handshake carry payload? See struct sock_early. noinline:
 * the parser is large, and few connections start like this. */
static __noinline int take_early(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	__u32 zero = 0, len;
	struct sock_early *e = bpf_map_lookup_elem(&early_segment, &zero);
	struct kilter_sock *s;

	if (!e || !e->len || e->remote_port != bpf_ntohl(ctx->remote_port) ||
	    e->local_port != ctx->local_port || e->seq != ctx->rcv_nxt)
		return 0;
	s = sock_get(sk);
	if (!s)
		return 0;
	len = e->len;
	s->flags |= SOCK_HAD_DATA;
	s->request.packets++;
	if (turn_take(ctx, sk, s)) {
		http1_segment(ctx, sk, s, true, false, 0, len, e->seq);
		return s->protocol == KILTER_PROTO_HTTP2 ? EARLY_HTTP2 : EARLY_TAKEN;
	}
	return EARLY_NONE;
}

/* It was HTTP/2. By itself: both parsers' stacks are too much for one. */
static __noinline int take_early_http2(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	__u32 zero = 0;
	const struct sock_early *e = bpf_map_lookup_elem(&early_segment, &zero);
	struct kilter_sock *s = sock_get(sk);

	if (e && s)
		http2_seen(ctx, sk, s, true, false, 0, e->len, e->seq, true);
	return 0;
}

static __always_inline void early(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	int what = take_early(ctx, sk);
	__u32 zero = 0;
	struct sock_early *e;
	struct kilter_sock *s;

	if (what == EARLY_NONE)
		return;
	if (what == EARLY_HTTP2)
		take_early_http2(ctx, sk);
	s = sock_get(sk);
	if (s)
		turn_end(s);
	e = bpf_map_lookup_elem(&early_segment, &zero);
	if (e)
		e->len = 0;
}

static __noinline int on_established(struct bpf_sock_ops *ctx, struct bpf_sock *sk, __u32 role)
{
	struct kilter_sock *s = sock_get_or_create(sk);
	__u32 snd_nxt = ctx->snd_nxt, rcv_nxt = ctx->rcv_nxt;
	struct kilter_conn *c;
	bool turned;

	/* Read here, or clang selects the address by role: no arithmetic on ctx is allowed. */
	barrier_var(snd_nxt);
	barrier_var(rcv_nxt);
	if (!s)
		return 0;
	if (role == KILTER_ROLE_CLIENT)
		bpf_sk_storage_delete(&http2s, sk); /* of an earlier connection of this socket */
	turned = turn_try(s); /* nobody has it: who found a listener's child first waits */
	s->role = role;
	if (role == KILTER_ROLE_SERVER) {
		/* A child of the listener's storage, or a fresh one if the listener was unknown. */
		s->flags = 0;
		s->protocol = KILTER_PROTO_UNKNOWN;
		if (!s->peer) {
			struct kilter_peer local;

			peer_local(&local, bpf_htons(ctx->local_port));
			s->peer = intern_peer(&local);
		}
	}
	__builtin_memset(&s->request, 0, sizeof(s->request));
	__builtin_memset(&s->response, 0, sizeof(s->response));
	s->head = 0;
	s->tail = 0;
	s->bytes_received = 0;
	s->bytes_acked = 0;
	/* The parsers start at the first byte of each direction, so that a reordered first
	 * segment is told from a stream joined in its middle. */
	if (role == KILTER_ROLE_CLIENT) {
		s->request.next_seq = snd_nxt;
		s->response.next_seq = rcv_nxt;
	} else {
		s->request.next_seq = rcv_nxt;
		s->response.next_seq = snd_nxt;
	}
	s->request.has_seq = 1;
	s->response.has_seq = 1;
	sock_opened(s, false);
	if (turned)
		turn_end(s);
	bpf_sock_ops_cb_flags_set(ctx, ctx->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG |
					   BPF_SOCK_OPS_RETRANS_CB_FLAG);
	if (role == KILTER_ROLE_CLIENT) {
		__u64 now = bpf_ktime_get_boot_ns(), ns = now - s->connect_ns;
		__u64 i = fine_index(ns);

		c = sock_conn(s);
		if (c) {
			bound_index(i, KILTER_FINE_BUCKETS);
			add_to(c->connect_sum_ns, ns);
			add_to(c->connect_hist[i], 1);
		}
		emit_net_if(audit_connect, KILTER_EVENT_CONNECT, s, &s->dest, 0, ns, 0);
	}
	return 0;
}

static __noinline int on_listen(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct kilter_sock *s = sock_get_or_create(sk);
	struct kilter_listener_key key = {};
	struct kilter_listener fresh = {.sockets = 1}, *l;
	struct kilter_peer at;
	struct tcp_sock *tp;
	bool made;

	if (!s)
		return 0;
	peer_local(&at, bpf_htons(ctx->local_port));
	s->peer = intern_peer(&at);
	s->role = KILTER_ROLE_SERVER;
	s->flags = SOCK_LISTENER;
	bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG);
	key.workload = s->workload;
	key.peer = s->peer;
	fresh.updated_ns = bpf_ktime_get_boot_ns();
	tp = bpf_skc_to_tcp_sock(sk);
	if (tp)
		fresh.queue_limit = tp->inet_conn.icsk_inet.sk.sk_max_ack_backlog;
	l = listener_get_or_create(&key, &fresh, &made);
	if (l && !made)
		add_to(l->sockets, 1);
	if (ctx->family == AF_INET6) {
		__u32 addr[4] = {ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2],
				 ctx->local_ip6[3]};

		peer_v6(&at, addr, bpf_htons(ctx->local_port));
	} else {
		peer_v4(&at, ctx->local_ip4, bpf_htons(ctx->local_port));
	}
	emit_net_if(audit_listen, KILTER_EVENT_LISTEN, s, &at, 0, 0, fresh.queue_limit);
	return 0;
}

static __always_inline void listener_closed(struct kilter_sock *s)
{
	struct kilter_listener_key key = {.workload = s->workload, .peer = s->peer};
	struct kilter_listener *l = bpf_map_lookup_elem(&listeners, &key);

	s->flags = 0;
	if (!l)
		return;
	add_to(l->sockets, -1);
	/* One that begins to listen between these two is put back by poll_listeners. */
	if ((__s32)forgotten(l->sockets) <= 0)
		bpf_map_delete_elem(&listeners, &key);
}

static __always_inline void connection_closed(struct kilter_sock *s, void *sk,
					      struct kilter_conn *c, __u32 sk_err)
{
	s->flags &= ~SOCK_OPEN;
	if (c) {
		add_to(c->closed, 1);
		if (s->protocol == KILTER_PROTO_NONE || s->protocol == KILTER_PROTO_UNKNOWN)
			add_to(c->undecoded, 1);
	}
	if (s->protocol == KILTER_PROTO_HTTP2)
		http2_connection_ended(s, sk, sk_err == E_CONNRESET);
	else
		http1_connection_ended(s, sk, sk_err == E_CONNRESET);
	sock_guard_closed(s, bpf_ktime_get_boot_ns());
	sock_guard_uncount(s);
}

SEC("sockops")
int tcp_life(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk = ctx->sk; /* a copy: the verifier tracks the NULL test of a register */
	struct kilter_sock *s;
	struct kilter_conn *c;
	struct tcp_sock *tp;
	__u32 err = 0;

	if (!sk)
		return 1;
	switch (ctx->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		s = sock_get_or_create(sk);
		if (!s)
			return 1;
		if (!(s->flags & SOCK_CONNECTING)) { /* MPTCP subflows: no connect() of their own */
			s->role = KILTER_ROLE_CLIENT;
			s->connect_ns = bpf_ktime_get_boot_ns();
		}
		s->flags &= ~SOCK_CONNECTING;
		bpf_sock_ops_cb_flags_set(ctx, BPF_SOCK_OPS_STATE_CB_FLAG |
						   BPF_SOCK_OPS_RETRANS_CB_FLAG);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		on_established(ctx, sk, KILTER_ROLE_CLIENT);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		on_established(ctx, sk, KILTER_ROLE_SERVER);
		early(ctx, sk);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		on_listen(ctx, sk);
		break;
	case BPF_SOCK_OPS_RETRANS_CB:
		s = sock_get(sk);
		c = s ? sock_conn(s) : NULL;
		if (c)
			add_to(c->retransmits, ctx->args[1] ? ctx->args[1] : 1);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ctx->args[1] != BPF_TCP_CLOSE)
			return 1;
		s = sock_get(sk);
		if (!s)
			return 1;
		tp = bpf_skc_to_tcp_sock(sk);
		if (tp)
			err = tp->inet_conn.icsk_inet.sk.sk_err;
		if (s->flags & SOCK_LISTENER) {
			if (!node_trace)
				listener_closed(s);
			return 1;
		}
		if (ctx->args[0] == BPF_TCP_SYN_SENT) {
			connect_failed(s, err);
			return 1;
		}
		if (!(s->flags & SOCK_OPEN))
			return 1;
		c = sock_conn(s);
		if (c)
			sample(s, c, ctx);
		connection_closed(s, sk, c, err);
		break;
	}
	return 1;
}

static __noinline int udp_closed(struct bpf_sock *sk)
{
	struct udp_talk *u = udp_get(sk);

	if (u)
		udp_unanswered(u, udp_is_connected(sk), bpf_ktime_get_boot_ns());
	return 0;
}

/* The program closes its socket: did its last connect() fail without a trace? */
SEC("cgroup/sock_release")
int tcp_release(struct bpf_sock *sk)
{
	struct kilter_sock *s;

	if (sk->type != SOCK_STREAM) {
		if (guard_switched(KILTER_SWITCH_UDP))
			udp_closed(sk);
		return 1;
	}
	s = sock_get(sk);
	if (!s)
		return 1;
	/* To its program it is gone, whatever the two ends still have to say to each other. Of
	 * Multipath TCP nothing else tells. */
	s->guard_flags |= SOCK_GUARD_RELEASED;
	sock_guard_uncount(s);
	if (sk->protocol != IPPROTO_TCP)
		return 1;
	if (!node_trace && s->flags & SOCK_ADOPTED) {
		if (s->flags & SOCK_LISTENER)
			listener_closed(s);
		else if (s->flags & SOCK_OPEN)
			connection_closed(s, sk, sock_conn(s), 0);
		return 1;
	}
	if (!(s->flags & SOCK_CONNECTING))
		return 1;
	if (sk->state == BPF_TCP_CLOSE)
		connect_failed_at_once(s);
	s->flags &= ~SOCK_CONNECTING; /* TCP_FASTOPEN_CONNECT, and nothing was ever sent */
	return 1;
}

/*
 * Sockets older than the agent have no sockops flags, and an iterator may not set them: their
 * end comes from the tracepoint, which sees every socket of the node and so must leave
 * early. sk_storage in tracing programs is 5.11 (kernel commit 8e4597c627fb).
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(tcp_adopted_end, struct sock *sk, int oldstate, int newstate)
{
	struct kilter_sock *s;
	struct kilter_conn *c;

	if (newstate != BPF_TCP_CLOSE)
		return 0;
	s = bpf_sk_storage_get(&socks, sk, NULL, 0);
	if (!s)
		return 0;
	if (oldstate == BPF_TCP_LISTEN && s->flags & SOCK_LISTENER)
		listener_closed(s);
	if (oldstate == BPF_TCP_SYN_SENT && s->flags & SOCK_CONNECTING)
		connect_failed(s, E_ADDRNOTAVAIL);
	if ((s->flags & (SOCK_OPEN | SOCK_ADOPTED)) != (SOCK_OPEN | SOCK_ADOPTED))
		return 0;
	c = sock_conn(s);
	connection_closed(s, sk, c, sk->sk_err);
	return 0;
}
