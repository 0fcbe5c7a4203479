// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Requests: every TCP segment of the observed cgroup passes here once on its way in and
 * once on its way out. Segments without payload leave after the header; sockets of unknown
 * protocols cost one branch more; the others go to their protocol's parser.
 */
#include "lib/dns.h"
#include "lib/packet.h"
#include "lib/sock.h"
#include "lib/turn.h"
#include "lib/udp_packet.h"
#include "protocols/http1.h"
#include "protocols/http2.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define TH_FIN 0x01
#define TH_SYN 0x02
#define TH_RST 0x04

#define SAMPLE_EVERY  32 /* data packets of a direction between looks at the TCP counters */
#define GUESS_PACKETS 64 /* the same, after which an adopted socket's protocol is given up */

struct segment {
	__u32 seq;
	__u32 off, end; /* payload, from the start of the network header */
	__u16 sport, dport;
	__u8 flags;
};

static __always_inline bool segment_parse(struct __sk_buff *skb, struct segment *ret)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 l3 = packet_transport(skb, data, end, PACKET_TCP);
	struct tcphdr *th;

	if (!l3)
		return false;
	th = data + l3;
	if ((void *)(th + 1) > end)
		return false;
	ret->seq = bpf_ntohl(th->seq);
	ret->sport = bpf_ntohs(th->source);
	ret->dport = bpf_ntohs(th->dest);
	ret->flags = ((__u8 *)th)[13];
	ret->off = l3 + (((__u8 *)th)[12] >> 4) * 4;
	ret->end = skb->len;
	return ret->off <= ret->end;
}

/* Payload that meets the listener: its child is made in a moment, see struct sock_early. */
static __always_inline void listener_early(struct __sk_buff *skb, const struct segment *seg)
{
	__u32 zero = 0;
	__u64 n = seg->end - seg->off;
	struct sock_early *e = bpf_map_lookup_elem(&early_segment, &zero);

	if (!e)
		return;
	e->len = 0;
	if (n > SOCK_EARLY_BYTES)
		n = SOCK_EARLY_BYTES;
	bound_length(n, SOCK_EARLY_BYTES);
	if (bpf_skb_load_bytes(skb, seg->off, e->data, n)) {
		count_drop(KILTER_DROP_HTTP1_LOAD);
		return;
	}
	e->time_ns = bpf_ktime_get_boot_ns();
	e->seq = seg->seq;
	e->remote_port = seg->sport; /* the listener's own socket has no peer to ask */
	e->local_port = seg->dport;
	e->len = n;
}

/* A SYN or the last ACK of a handshake meets the listener: how full is its accept queue? */
static __always_inline void listener_poll(struct bpf_sock *sk, const struct segment *seg)
{
	struct kilter_sock *s = sock_get(sk);
	struct kilter_listener_key key = {};
	struct kilter_listener *l;
	struct tcp_sock *tp;

	if (!s || !(s->flags & SOCK_LISTENER))
		return;
	key.workload = s->workload;
	key.peer = s->peer;
	l = bpf_map_lookup_elem(&listeners, &key);
	tp = bpf_skc_to_tcp_sock(sk);
	if (!l || !tp)
		return;
	l->queue_length = tp->inet_conn.icsk_inet.sk.sk_ack_backlog;
	l->queue_limit = tp->inet_conn.icsk_inet.sk.sk_max_ack_backlog;
	l->updated_ns = bpf_ktime_get_boot_ns();
	if (l->queue_length > l->queue_peak)
		l->queue_peak = l->queue_length;
	/* The kernel drops a SYN when the queue is longer than the limit (sk_acceptq_is_full). */
	if ((seg->flags & TH_SYN) && l->queue_length > l->queue_limit)
		add_to(l->overflows, 1);
}

static __always_inline bool is_parsed(__u8 protocol)
{
	return protocol == KILTER_PROTO_HTTP2 || protocol == KILTER_PROTO_UNKNOWN ||
	       protocol == KILTER_PROTO_HTTP1;
}

static __always_inline void segment_seen(struct __sk_buff *skb, bool ingress)
{
	struct bpf_sock *sk = skb->sk;
	struct bpf_sock *full;
	struct segment seg;
	struct kilter_sock *s;
	struct kilter_conn *c;
	struct bpf_tcp_sock *tp;
	bool request, turned = false;

	if (!sk)
		return;
	if (!segment_parse(skb, &seg)) {
		if (ingress)
			dns_seen(skb);
		if (!guard_switched(KILTER_SWITCH_UDP))
			return;
		if (ingress)
			udp_came(skb);
		else
			udp_sent(skb);
		return;
	}
	if (sk->state == BPF_TCP_LISTEN) {
		full = ingress ? bpf_sk_fullsock(sk) : NULL;
		if (full) {
			listener_poll(full, &seg);
			if (seg.off < seg.end)
				listener_early(skb, &seg);
		}
		return;
	}
	if (seg.off == seg.end && !(seg.flags & (TH_FIN | TH_RST)))
		return;
	s = sock_get(sk);
	if (!s || !s->role)
		return;
	request = (s->role == KILTER_ROLE_SERVER) == ingress;
	if (seg.flags & TH_RST) {
		/* A refused connect is no reset: tcp_conn counts it as a failure. */
		c = s->flags & SOCK_OPEN ? sock_conn(s) : NULL;
		if (c && ingress)
			add_to(c->resets_in, 1);
		else if (c)
			add_to(c->resets_out, 1);
		return;
	}
	if (ingress && is_parsed(s->protocol))
		turned = turn_take(skb, sk, s);
	if (seg.off < seg.end) {
		struct stream *st = request ? &s->request : &s->response;
		/* Whoever had the turn before us may have found out what it is. */
		bool http2 = s->protocol == KILTER_PROTO_HTTP2;
		bool parse = (!ingress || turned) && is_parsed(s->protocol);

		if (ingress && !(s->flags & SOCK_HAD_DATA))
			s->flags |= SOCK_HAD_DATA;
		st->packets++;
		if (parse && !http2)
			http1_segment(skb, sk, s, request, ingress, seg.off, seg.end, seg.seq);
		if (parse && s->protocol == KILTER_PROTO_HTTP2)
			http2_seen(skb, sk, s, request, ingress, seg.off, seg.end, seg.seq, !http2);
		if (s->protocol == KILTER_PROTO_UNKNOWN && st->packets > GUESS_PACKETS)
			s->protocol = KILTER_PROTO_NONE;
		if (!(st->packets & (SAMPLE_EVERY - 1))) {
			full = bpf_sk_fullsock(sk);
			tp = full ? bpf_tcp_sock(full) : NULL;
			c = tp ? sock_conn(s) : NULL;
			if (c)
				sock_sample(s, c, bpf_ktime_get_boot_ns(), tp->srtt_us,
					    tp->bytes_received, tp->bytes_acked);
		}
	}
	if ((seg.flags & TH_FIN) && (!ingress || turned) && s->protocol == KILTER_PROTO_HTTP1)
		http1_fin(sk, s, request);
	if (turned)
		turn_end(s);
}

SEC("cgroup_skb/ingress")
int request_ingress(struct __sk_buff *skb)
{
	segment_seen(skb, true);
	return 1;
}

SEC("cgroup_skb/egress")
int request_egress(struct __sk_buff *skb)
{
	segment_seen(skb, false);
	return 1;
}

/* Marks one series as retiring, in place: user space cannot, without losing what is counted
 * meanwhile. Run by bpf_prog_test_run; see <kilter/series.h>. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kilter_retire_request);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} retire_request SEC(".maps");

SEC("socket")
int retire_series(struct __sk_buff *skb)
{
	__u32 zero = 0;
	struct kilter_retire_request *req = bpf_map_lookup_elem(&retire_request, &zero);

	if (!req)
		return 0;
	if (req->map == KILTER_RETIRE_SERIES) {
		struct kilter_series *v = bpf_map_lookup_elem(&series, &req->series);

		if (v) {
			v->retiring = 1;
			req->done = 1;
		}
	} else if (req->map == KILTER_RETIRE_CONN) {
		struct kilter_conn *v = bpf_map_lookup_elem(&conns, &req->conn);

		if (v) {
			v->retiring = 1;
			req->done = 1;
		}
	}
	return 0;
}
