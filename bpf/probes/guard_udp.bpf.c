// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * ICMP errors that the kernel reports to a UDP socket: port, host or network unreachable. It tells
 * sockets that are connected, or have IP_RECVERR; of the others nobody hears. The tracepoint is
 * Linux 5.14, sees every socket of the node, and so must leave early.
 */
#include "vmlinux.h"

#include <bpf/bpf_tracing.h>

#include "lib/connect.h"
#include "lib/udp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* A client that does not wait between attempts; as of refused connects. */
#define UDP_RECORDS_PER_SECOND 256

static __u64 udp_rate;

/* From the ICMP messages that say unreachable (icmp_err_convert and icmpv6_err_convert in the
 * kernel); not of those that say too big, or ill-formed. */
static __always_inline bool is_unreachable(__u32 err)
{
	switch (err) {
	case E_CONNREFUSED:
	case E_HOSTUNREACH:
	case E_NETUNREACH:
	case E_HOSTDOWN:
	case E_NONET:
	case E_NOPROTOOPT:
	case E_ACCES:
		return true;
	}
	return false;
}

static __always_inline void record(const struct udp_talk *u, __u32 err, __u64 took_ns, __u64 now_ns)
{
	struct kilter_event_net *e;

	if (!audit_connect ||
	    !record_allowed(&udp_rate, UDP_RECORDS_PER_SECOND, now_ns, KILTER_DROP_EVENTS_UDP))
		return;
	e = event_reserve(KILTER_EVENT_CONNECT, sizeof(*e));
	if (!e)
		return;
	e->h.cgroup_id = u->cgroup_id;
	e->h.pid = u->pid;
	e->h.uid = u->uid;
	e->h.workload = u->workload;
	__builtin_memcpy(e->h.comm, u->comm, sizeof(e->h.comm));
	e->latency_ns = took_ns;
	e->peer = u->dest;
	e->err = err;
	e->backlog = 0;
	e->reason = 0;
	bpf_ringbuf_submit(e, 0);
}

SEC("tp_btf/inet_sk_error_report")
int BPF_PROG(guard_udp_error, struct sock *sk)
{
	__u32 err = sk->sk_err;
	struct udp_call call;
	struct udp_talk *u;
	__u64 now_ns;

	if (!is_unreachable(err) || sk->sk_protocol != IPPROTO_UDP ||
	    !guard_switched(KILTER_SWITCH_UDP))
		return 0;
	u = udp_get(sk);
	/* Of one ICMP message it may be called twice (IP_RECVERR); the first has ended the call. */
	if (!u || !u->asked_ns || !udp_take(u, &call) || !call.asked_ns)
		return 0;
	now_ns = bpf_ktime_get_boot_ns();
	record(u, err, now_ns - call.asked_ns, now_ns);
	udp_tell(u, &call, KILTER_FAIL_ON_CONNECT, now_ns);
	return 0;
}
