/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* DNS answers (RFC 1035) over UDP, to user space as they are: what addresses are called. */
#ifndef KILTER_BPF_DNS_H
#define KILTER_BPF_DNS_H

#include "lib/emit.h"
#include "lib/packet.h"

#define DNS_PORT   53
#define DNS_HEADER 12

#define DNS_RECORDS_PER_SECOND 200

static __u64 dns_rate;

/* Any packet that is not TCP and came in: most are no answers and leave here. */
static __noinline int dns_seen(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct bpf_sock *sk = skb->sk; /* a copy: the verifier tracks the NULL test of a register */
	struct kilter_event_dns *e;
	__u32 l3 = packet_transport(skb, data, end, PACKET_UDP);
	struct udphdr *uh;
	__u64 n;

	if (!l3)
		return 0;
	uh = data + l3;
	if ((void *)(uh + 1) > end || uh->source != bpf_htons(DNS_PORT))
		return 0;
	l3 += sizeof(*uh);
	/* Who asks connects to the server (RFC 5452, 9.2, advises it): anybody may send to a socket
	 * that did not, and would tell us what addresses are called. */
	if (!sk)
		return 0;
	sk = bpf_sk_fullsock(sk);
	if (!sk || sk->dst_port != bpf_htons(DNS_PORT))
		return 0;
	if (skb->len < l3 + DNS_HEADER ||
	    !record_allowed(&dns_rate, DNS_RECORDS_PER_SECOND, bpf_ktime_get_boot_ns(),
			    KILTER_DROP_EVENTS_DNS))
		return 0;
	n = skb->len - l3;
	if (n > KILTER_DNS_BYTES) {
		count_drop(KILTER_DROP_DNS_LOAD);
		return 0;
	}
	e = event_reserve(KILTER_EVENT_DNS, sizeof(*e));
	if (!e)
		return 0;
	e->len = n;
	e->pad = 0;
	bound_length(n, KILTER_DNS_BYTES);
	if (bpf_skb_load_bytes(skb, l3, e->msg, n)) {
		count_drop(KILTER_DROP_DNS_LOAD);
		bpf_ringbuf_discard(e, 0);
		return 0;
	}
	event_submit_now(e);
	return 0;
}

#endif
