/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A connect() that came to nothing, whoever finds out: counted by reason, told to the guard
 * and the audit trail. */
#ifndef KILTER_BPF_CONNECT_H
#define KILTER_BPF_CONNECT_H

#include "lib/emit.h"
#include "lib/guard_sock.h"

const volatile bool audit_connect = true;

/* A connect() that its own program gives up is a failure when it waited this long; before
 * that it is taken for the loser of a race between address families (RFC 8305). */
#define GIVE_UP_NS 1000000000ull

enum {
	E_ACCES = 13,
	E_NONET = 64,
	E_NOPROTOOPT = 92,
	E_ADDRNOTAVAIL = 99,
	E_NETUNREACH = 101,
	E_CONNRESET = 104,
	E_TIMEDOUT = 110,
	E_CONNREFUSED = 111,
	E_HOSTDOWN = 112,
	E_HOSTUNREACH = 113,
	E_CANCELED = 125
};

static __always_inline __u32 failure_reason(__u32 err, __u64 waited_ns, __u32 *ret_err)
{
	*ret_err = err;
	switch (err) {
	case E_CONNREFUSED:
		return KILTER_CONNECT_REFUSED;
	case E_CONNRESET:
		return KILTER_CONNECT_RESET;
	case E_TIMEDOUT:
		return KILTER_CONNECT_TIMED_OUT;
	case E_HOSTUNREACH:
	case E_NETUNREACH:
		return KILTER_CONNECT_UNREACHABLE;
	case 0: /* closed by its own program while the SYN was under way */
		*ret_err = waited_ns >= GIVE_UP_NS ? E_TIMEDOUT : E_CANCELED;
		return waited_ns >= GIVE_UP_NS ? KILTER_CONNECT_TIMED_OUT : KILTER_CONNECT_OTHER;
	}
	return KILTER_CONNECT_OTHER;
}

static __always_inline void connect_failed_as(struct kilter_sock *s, __u32 reason, __u32 err,
					      __u64 ns)
{
	struct kilter_conn *c = sock_conn(s);

	s->flags = 0;
	sock_guard_uncount(s);
	if (c && reason < KILTER_CONNECT_FAILURES)
		add_to(c->failed[reason], 1);
	if (audit_connect)
		emit_net(KILTER_EVENT_CONNECT, s, &s->dest, err, ns, 0);
	if (reason != KILTER_CONNECT_OTHER)
		sock_guard_connect_failed(s, bpf_ktime_get_boot_ns());
	else
		sock_guard_release(s);
}

/* sk_err: the positive errno, or 0 when the socket was closed before there was an outcome. */
static __always_inline void connect_failed(struct kilter_sock *s, __u32 sk_err)
{
	__u64 ns = bpf_ktime_get_boot_ns() - s->connect_ns;
	__u32 err, reason = failure_reason(sk_err, ns, &err);

	connect_failed_as(s, reason, err, ns);
}

/*
 * connect() fails in three places, and no hook sees its return value:
 *  - after the SYN was sent: sockops tells (CONNECT_CB came before, and cleared SOCK_CONNECTING);
 *  - for want of a local port: the state went to SYN_SENT and back, without CONNECT_CB;
 *  - before that, for want of a route: nothing happens at all, but at the next connect() or at
 *    the release of the socket it is still closed and still SOCK_CONNECTING. Another program's
 *    refusal after ours looks the same.
 */
static __always_inline void connect_failed_at_once(struct kilter_sock *s)
{
	/* A node without IPv6 meets this at each name that has an IPv6 address, and its programs
	 * go on to the IPv4 one (RFC 8305): recorded, and held against nobody. */
	__u32 reason =
	    s->dest.family == KILTER_FAMILY_V6 ? KILTER_CONNECT_OTHER : KILTER_CONNECT_UNREACHABLE;

	connect_failed_as(s, reason, E_NETUNREACH, 0);
}

#endif
