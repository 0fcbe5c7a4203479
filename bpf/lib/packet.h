/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The headers of a packet, which lie in the linear area: the stack has pulled them in, or has just
 * written them. */
#ifndef KILTER_BPF_PACKET_H
#define KILTER_BPF_PACKET_H

#include "vmlinux.h"

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define PACKET_TCP 6
#define PACKET_UDP 17

/* Where the header of this protocol begins, after the start of the network header; 0: the packet is
 * of another, or has extension headers before it, which are rare enough to be left unseen. */
static __always_inline __u32 packet_transport(const struct __sk_buff *skb, void *data, void *end,
					      __u8 protocol)
{
	__u32 l3;

	if (skb->protocol == bpf_htons(0x0800 /* ETH_P_IP */)) {
		struct iphdr *ip = data;

		if ((void *)(ip + 1) > end || ip->protocol != protocol)
			return 0;
		l3 = (*(__u8 *)data & 0x0f) * 4;
	} else if (skb->protocol == bpf_htons(0x86dd /* ETH_P_IPV6 */)) {
		struct ipv6hdr *ip6 = data;

		if ((void *)(ip6 + 1) > end || ip6->nexthdr != protocol)
			return 0;
		l3 = sizeof(*ip6);
	} else {
		return 0;
	}
	return l3 < 20 || l3 > 60 ? 0 : l3;
}

#endif
