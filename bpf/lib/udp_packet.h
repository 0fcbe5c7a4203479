/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Datagrams of sockets that send to a destination with a circuit: see lib/udp.h. */
#ifndef KILTER_BPF_UDP_PACKET_H
#define KILTER_BPF_UDP_PACKET_H

#include "lib/packet.h"
#include "lib/udp.h"

/* A packet that is not TCP goes out. */
static __noinline int udp_sent(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk; /* a copy: the verifier tracks the NULL test of a register */
	struct udp_talk *u;
	__u64 now_ns, asked_ns;

	if (!sk)
		return 0;
	u = udp_get(sk);
	if (!u || !u->circuit.peer)
		return 0;
	now_ns = bpf_ktime_get_boot_ns();
	asked_ns = u->asked_ns;
	if (udp_waited(asked_ns, now_ns)) {
		udp_unanswered(u, udp_is_connected(sk), now_ns);
		asked_ns = 0;
	}
	if (!asked_ns)
		u->asked_ns = now_ns;
	return 0;
}

/* Is it from where the socket sends to? */
static __always_inline bool udp_is_from(struct __sk_buff *skb, const struct kilter_peer *dest)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	const __u32 *want = (const __u32 *)dest->addr;
	__u32 l3 = packet_transport(skb, data, end, PACKET_UDP);
	const struct udphdr *uh;
	const __u32 *from;

	if (!l3)
		return false;
	uh = data + l3;
	if ((void *)(uh + 1) > end || uh->source != dest->port_be)
		return false;
	if (dest->family == KILTER_FAMILY_V4) {
		from = data + __builtin_offsetof(struct iphdr, saddr);
		return skb->protocol == bpf_htons(0x0800 /* ETH_P_IP */) &&
		       (void *)(from + 1) <= end && *from == *want;
	}
	from = data + __builtin_offsetof(struct ipv6hdr, saddr);
	return skb->protocol == bpf_htons(0x86dd /* ETH_P_IPV6 */) && (void *)(from + 4) <= end &&
	       from[0] == want[0] && from[1] == want[1] && from[2] == want[2] && from[3] == want[3];
}

/* A packet that is not TCP has come in. Only the peer's reach a connected socket. */
static __noinline int udp_came(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct udp_call call;
	struct udp_talk *u;
	__u64 now_ns, took;

	if (!sk)
		return 0;
	u = udp_get(sk);
	if (!u || !u->asked_ns)
		return 0;
	if (!udp_is_connected(sk) && !udp_is_from(skb, &u->dest))
		return 0;
	if (!udp_take(u, &call))
		return 0;
	now_ns = bpf_ktime_get_boot_ns();
	took = (now_ns - call.asked_ns) >> KILTER_SLOW_SHIFT;
	if (took > (__u32)-1)
		took = (__u32)-1;
	if (call.asked_ns)
		udp_tell(u, &call, GUARD_SUCCESS | GUARD_ANSWERED | GUARD_TOOK(took), now_ns);
	return 0;
}

#endif
