// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What was there before us. Run once at start, in this order: owners (every socket that a
 * process holds open), listeners (which tells servers from clients), then established
 * connections. A socket that has its state already, because an earlier daemon left the
 * programs attached, is left alone: nothing is counted twice. An iterator sees the sockets
 * of the network namespace it is opened in.
 */
#include "vmlinux.h"

#include <bpf/bpf_tracing.h>

#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define S_IFMT	 00170000
#define S_IFSOCK 0140000

#define AF_INET6     10
#define SOCK_STREAM  1
#define PROTO_TCP    6
#define CGROUP_DEPTH 32

/* The id of --cgroup: sockets of other subtrees are not ours. */
const volatile __u64 observed_id = 0;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KILTER_LISTENERS_MAX);
	__type(key, __u32); /* local port, host order */
	__type(value, __u32);
} listen_ports SEC(".maps");

static __always_inline __u64 cgroup_id_of(struct cgroup *cg)
{
	return BPF_CORE_READ(cg, kn, id);
}

/* The socket's cgroup decides, as it does for the programs attached to one. */
static __always_inline bool sock_observed(struct sock *sk)
{
	struct cgroup *cg = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);

	for (int i = 0; i < CGROUP_DEPTH && cg; i++) {
		struct cgroup_subsys_state *parent = BPF_CORE_READ(cg, self.parent);

		if (cgroup_id_of(cg) == observed_id)
			return true;
		cg = parent ? BPF_CORE_READ(parent, cgroup) : NULL;
	}
	return false;
}

SEC("iter/task_file")
int adopt_owner(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct kilter_sock *s;
	struct socket *sock;
	struct sock *sk;

	if (!task || !file)
		return 0;
	sock = bpf_sock_from_file(file);
	if (!sock)
		return 0;
	sk = sock->sk;
	if (!sk || sk->sk_protocol != PROTO_TCP || sk->sk_type != SOCK_STREAM || !sock_observed(sk))
		return 0;
	s = bpf_sk_storage_get(&socks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!s) {
		count_drop(KILTER_DROP_SOCK_STORAGE);
		return 0;
	}
	if (s->workload)
		return 0;
	s->cgroup_id = cgroup_id_of(BPF_CORE_READ(sk, sk_cgrp_data.cgroup));
	s->pid = task->tgid;
	s->uid = BPF_CORE_READ(task, cred, uid.val);
	s->workload = intern_workload_task(task, s->cgroup_id, s->uid);
	bpf_probe_read_kernel_str(s->comm, sizeof(s->comm),
				  BPF_CORE_READ(task, group_leader, comm));
	return 0;
}

static __always_inline void listener_refresh(const struct kilter_sock *s, struct sock *sk,
					     bool adopted)
{
	struct kilter_listener_key key = {.workload = s->workload, .peer = s->peer};
	struct kilter_listener fresh = {.sockets = 1}, *l;

	l = bpf_map_lookup_elem(&listeners, &key);
	if (l && adopted)
		add_to(l->sockets, 1);
	if (!l) {
		if (bpf_map_update_elem(&listeners, &key, &fresh, BPF_NOEXIST) == -7 /* E2BIG */)
			count_drop(KILTER_DROP_LISTENERS_FULL);
		l = bpf_map_lookup_elem(&listeners, &key);
		if (!l)
			return;
	}
	l->queue_length = BPF_CORE_READ(sk, sk_ack_backlog);
	l->queue_limit = BPF_CORE_READ(sk, sk_max_ack_backlog);
	l->updated_ns = bpf_ktime_get_boot_ns();
	if (l->queue_length > l->queue_peak)
		l->queue_peak = l->queue_length;
}

SEC("iter/tcp")
int adopt_listeners(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct kilter_peer at;
	struct kilter_sock *s;
	struct tcp_sock *tp;
	__u32 port, one = 1;

	if (!skc || skc->skc_state != BPF_TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	port = skc->skc_num;
	bpf_map_update_elem(&listen_ports, &port, &one, BPF_ANY);
	s = bpf_sk_storage_get(&socks, tp, NULL, 0);
	if (!s || s->flags & SOCK_LISTENER)
		return 0;
	peer_local(&at, bpf_htons(port));
	s->peer = intern_peer(&at);
	s->role = KILTER_ROLE_SERVER;
	s->flags = SOCK_LISTENER;
	listener_refresh(s, (struct sock *)tp, true);
	return 0;
}

SEC("iter/tcp")
int adopt_tcp(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct kilter_peer peer;
	struct kilter_sock *s;
	struct tcp_sock *tp;
	__u32 port;

	if (!skc || skc->skc_state != BPF_TCP_ESTABLISHED)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	s = bpf_sk_storage_get(&socks, tp, NULL, 0);
	if (!s || s->flags & (SOCK_OPEN | SOCK_LISTENER) || s->role)
		return 0;
	port = skc->skc_num;
	if (bpf_map_lookup_elem(&listen_ports, &port)) {
		peer_local(&peer, bpf_htons(port));
		sock_adopt(s, KILTER_ROLE_SERVER, intern_peer(&peer));
		return 0;
	}
	if (skc->skc_family == AF_INET6) {
		__u32 addr[4];

		bpf_probe_read_kernel(addr, sizeof(addr), &skc->skc_v6_daddr);
		peer_v6(&peer, addr, skc->skc_dport);
	} else {
		peer_v4(&peer, skc->skc_daddr, skc->skc_dport);
	}
	s->dest = peer;
	sock_adopt(s, KILTER_ROLE_CLIENT, intern_peer(&peer));
	return 0;
}

/* How full are the accept queues now? The request probe only hears of it with each SYN. */
SEC("iter/tcp")
int poll_listeners(struct bpf_iter__tcp *ctx)
{
	struct sock_common *skc = ctx->sk_common;
	struct kilter_sock *s;
	struct tcp_sock *tp;

	if (!skc || skc->skc_state != BPF_TCP_LISTEN)
		return 0;
	tp = bpf_skc_to_tcp_sock(skc);
	if (!tp)
		return 0;
	s = bpf_sk_storage_get(&socks, tp, NULL, 0);
	if (s && s->flags & SOCK_LISTENER)
		listener_refresh(s, (struct sock *)tp, false);
	return 0;
}
