// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What the guard does to connections that exist already; run by user space, over sockets.
 *
 * guard_join: a circuit is made when its first connections are there. Those become its own, and
 * count as open. Over every socket that has our storage, in whatever network namespace.
 * guard_close: ends the connections of open circuits that ask for it. Over the TCP sockets of one
 * network namespace, each locked meanwhile: bpf_sock_destroy() is for such iterators alone
 * (kernel commit 4ddbcb886268, Linux 6.5).
 */
#include "vmlinux.h"

#include <bpf/bpf_tracing.h>

#include "lib/guard_sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

extern int bpf_sock_destroy(struct sock_common *sk) __ksym __weak;

/* One byte for each socket that was touched: user space counts them. */
static __always_inline void tell(struct bpf_iter_meta *meta)
{
	static const char byte = 1;

	bpf_seq_write(meta->seq, &byte, sizeof(byte));
}

SEC("iter/bpf_sk_storage_map")
int guard_join(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct kilter_sock *s = ctx->value;
	struct kilter_circuit_key key, counters;
	struct kilter_guard_rules p;
	struct kilter_guard_runtime *rt;
	bool counted = false;
	__u64 now_ns;

	if (!s || !ctx->sk)
		return 0;
	if (s->role != KILTER_ROLE_CLIENT || !(s->flags & SOCK_OPEN) ||
	    s->guard_flags & SOCK_GUARD_RELEASED)
		return 0;
	if (!guard_find(s->workload, s->peer, &key, &p, sizeof(p)) || p.mode == KILTER_GUARD_OFF)
		return 0;
	counters = guard_counters_key(&key, &p);
	rt = guard_counters(&counters);
	if (!rt)
		return 0;
	if (s->circuit.workload != key.workload || s->circuit.peer != key.peer) {
		s->circuit = key;
		s->guard_generation = 0; /* it joins with its next outcome */
		s->trial_generation = 0;
	}
	if (s->counters.workload != counters.workload || s->counters.peer != counters.peer)
		sock_guard_uncount(s); /* it was another circuit's */
	now_ns = bpf_ktime_get_boot_ns();
	bpf_spin_lock(&rt->lock);
	if (!rt->made_ns)
		rt->made_ns = now_ns;
	if (s->counted_ns != rt->made_ns) {
		rt->open++;
		if (rt->open > rt->open_peak)
			rt->open_peak = rt->open;
		s->counters = counters;
		s->counted_ns = rt->made_ns;
		counted = true;
	}
	bpf_spin_unlock(&rt->lock);
	/* It may have ended meanwhile; whoever ended it clears these before it looks. */
	if (!(forgotten(s->flags) & SOCK_OPEN) || forgotten(s->guard_flags) & SOCK_GUARD_RELEASED)
		sock_guard_uncount(s);
	if (counted)
		tell(ctx->meta);
	return 0;
}

SEC("iter/tcp")
int guard_close(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct kilter_guard_policy p;
	struct kilter_guard_runtime *rt;
	struct kilter_circuit_key key;
	struct kilter_sock *s;
	struct tcp_sock *tp;

	if (!skc)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	s = bpf_sk_storage_get(&socks, tp, NULL, 0);
	if (!s || s->role != KILTER_ROLE_CLIENT || !sock_has_circuit(s))
		return 0;
	if (!(s->flags & SOCK_OPEN) && skc->skc_state != BPF_TCP_SYN_SENT)
		return 0;
	key = s->circuit;
	if (!guard_policy_read(&key, &p, sizeof(p)) || !p.close_connections ||
	    p.rules.state != KILTER_CIRCUIT_OPEN || p.rules.mode != KILTER_GUARD_ENFORCE ||
	    bpf_ktime_get_boot_ns() >= p.lease_until_ns || guard_switched(KILTER_SWITCH_OFF))
		return 0;
	key = guard_counters_key(&key, &p.rules);
	rt = bpf_map_lookup_elem(&guard_runtime, &key);
	if (!rt)
		return 0;
	bpf_spin_lock(&rt->lock);
	rt->closed++;
	bpf_spin_unlock(&rt->lock);
	tell(ctx->meta);
	bpf_sock_destroy(skc);
	return 0;
}
