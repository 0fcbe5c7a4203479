// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * What was there before us. Run twice at start, over every socket that a process holds open, in
 * whatever network namespace: listeners first (which tells servers from clients), then
 * established connections. A socket that has its state already, because an earlier daemon left
 * the programs attached, is left alone: nothing is counted twice.
 *
 * Before Linux 5.11 an iterator sees no socket behind a file and has no socket storage. User space
 * then goes through /proc itself, borrows each socket (pidfd_getfd(2)) and calls setsockopt(2) on
 * it with an option that only adopt_by_hand knows: the hook sees the socket, the option's value
 * says what user space has found out about its owner.
 */
#include "vmlinux.h"

#include <bpf/bpf_tracing.h>

#include <kilter/adopt.h>

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
/* Of this start: what adopt_by_hand is told comes from the agent. 0: from nobody. */
const volatile __u64 adopt_secret = 0;

struct listen_port {
	__u32 netns; /* its inode number */
	__u32 port;  /* host order */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, KILTER_LISTENERS_MAX);
	__type(key, struct listen_port);
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

static __always_inline struct sock *tcp_socket_of(struct file *file)
{
	struct socket *sock = bpf_sock_from_file(file);
	struct sock *sk;

	if (!sock)
		return NULL;
	sk = sock->sk;
	if (!sk || sk->sk_protocol != PROTO_TCP || sk->sk_type != SOCK_STREAM)
		return NULL;
	return sk;
}

static __always_inline struct listen_port listen_port_of(struct sock *sk)
{
	struct listen_port at = {.netns = BPF_CORE_READ(sk, __sk_common.skc_net.net, ns.inum),
				 .port = sk->__sk_common.skc_num};

	return at;
}

/* The storage of sk, whose owner `task` is if it had none. */
static __always_inline struct kilter_sock *owned_by(struct task_struct *task, struct sock *sk)
{
	struct kilter_sock *s = bpf_sk_storage_get(&socks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!s) {
		count_drop(KILTER_DROP_SOCK_STORAGE);
		return NULL;
	}
	if (s->workload)
		return s;
	s->cgroup_id = cgroup_id_of(BPF_CORE_READ(sk, sk_cgrp_data.cgroup));
	s->pid = task->tgid;
	s->uid = BPF_CORE_READ(task, cred, uid.val);
	s->workload = intern_workload_task(task, s->cgroup_id, s->uid);
	bpf_probe_read_kernel_str(s->comm, sizeof(s->comm),
				  BPF_CORE_READ(task, group_leader, comm));
	return s;
}

static __always_inline void listener_refresh(const struct kilter_sock *s, __u32 queue_length,
					     __u32 queue_limit, bool adopted)
{
	struct kilter_listener_key key = {.workload = s->workload, .peer = s->peer};
	struct kilter_listener fresh = {.sockets = 1}, *l;
	bool made;

	l = listener_get_or_create(&key, &fresh, &made);
	if (!l)
		return;
	if (adopted && !made)
		add_to(l->sockets, 1);
	l->queue_length = queue_length;
	l->queue_limit = queue_limit;
	l->updated_ns = bpf_ktime_get_boot_ns();
	if (l->queue_length > l->queue_peak)
		l->queue_peak = l->queue_length;
}

static __always_inline void adopt_listener(struct kilter_sock *s, __be16 port_be,
					   __u32 queue_length, __u32 queue_limit)
{
	struct kilter_peer at;

	if (s->flags & SOCK_LISTENER)
		return;
	peer_local(&at, port_be);
	s->peer = intern_peer(&at);
	s->role = KILTER_ROLE_SERVER;
	s->flags = SOCK_LISTENER | SOCK_ADOPTED;
	listener_refresh(s, queue_length, queue_limit, true);
}

/* `remote` is the peer of a client; NULL for a server. */
static __always_inline void adopt_connection(struct kilter_sock *s,
					     const struct kilter_peer *remote, __be16 local_port_be)
{
	struct kilter_peer local;

	if (s->flags & (SOCK_OPEN | SOCK_LISTENER) || s->role)
		return;
	if (remote) {
		s->dest = *remote;
		sock_adopt(s, KILTER_ROLE_CLIENT, intern_peer(remote));
	} else {
		peer_local(&local, local_port_be);
		sock_adopt(s, KILTER_ROLE_SERVER, intern_peer(&local));
	}
}

SEC("iter/task_file")
int adopt_listeners(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct listen_port at;
	struct kilter_sock *s;
	struct sock *sk;
	__u32 one = 1;

	if (!task || !file)
		return 0;
	sk = tcp_socket_of(file);
	if (!sk || sk->__sk_common.skc_state != BPF_TCP_LISTEN)
		return 0;
	at = listen_port_of(sk);
	if (map_insert(&listen_ports, &at, &one) && !bpf_map_lookup_elem(&listen_ports, &at))
		count_drop(KILTER_DROP_LISTENERS_FULL);
	if (!sock_observed(sk))
		return 0;
	s = owned_by(task, sk);
	if (s)
		adopt_listener(s, bpf_htons(at.port), sk->sk_ack_backlog, sk->sk_max_ack_backlog);
	return 0;
}

SEC("iter/task_file")
int adopt_tcp(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct kilter_peer remote;
	struct listen_port at;
	struct kilter_sock *s;
	struct sock *sk;

	if (!task || !file)
		return 0;
	sk = tcp_socket_of(file);
	if (!sk || sk->__sk_common.skc_state == BPF_TCP_LISTEN || !sock_observed(sk))
		return 0;
	s = owned_by(task, sk); /* one that will connect, too: its owner may not be here then */
	if (!s || sk->__sk_common.skc_state != BPF_TCP_ESTABLISHED)
		return 0;
	at = listen_port_of(sk);
	if (bpf_map_lookup_elem(&listen_ports, &at)) {
		adopt_connection(s, NULL, bpf_htons(at.port));
		return 0;
	}
	if (sk->__sk_common.skc_family == AF_INET6) {
		__u32 addr[4];

		bpf_probe_read_kernel(addr, sizeof(addr), &sk->__sk_common.skc_v6_daddr);
		peer_v6(&remote, addr, sk->__sk_common.skc_dport);
	} else {
		peer_v4(&remote, sk->__sk_common.skc_daddr, sk->__sk_common.skc_dport);
	}
	adopt_connection(s, &remote, 0);
	return 0;
}

SEC("cgroup/setsockopt")
int adopt_by_hand(struct bpf_sockopt *ctx)
{
	struct kilter_adoptee *told = ctx->optval;
	struct bpf_sock *sk = ctx->sk;
	struct kilter_workload w;
	struct kilter_peer remote;
	struct kilter_sock *s;

	if (ctx->level != KILTER_ADOPT_LEVEL || ctx->optname != KILTER_ADOPT_NAME)
		return 1;
	if ((void *)(told + 1) > ctx->optval_end || !adopt_secret || told->secret != adopt_secret)
		return 1;
	if (!sk)
		return 1;
	s = sock_get_or_create(sk);
	ctx->optlen = -1; /* answered: the kernel's own handler is not asked */
	if (!s)
		return 1;
	if (!s->workload) {
		__builtin_memset(&w, 0, sizeof(w));
		w.key = told->key;
		w.pid = told->pid;
		w.uid = told->uid;
		__builtin_memcpy(w.comm, told->comm, sizeof(w.comm));
		s->cgroup_id = told->key.cgroup_id;
		s->pid = told->pid;
		s->uid = told->uid;
		__builtin_memcpy(s->comm, told->comm, sizeof(s->comm));
		s->workload = intern_workload(&w);
	}
	remote = told->remote;
	switch (told->as) {
	case KILTER_ADOPT_LISTENER:
		if (sk->state == BPF_TCP_LISTEN)
			adopt_listener(s, told->local_port_be, told->queue_length,
				       told->queue_limit);
		break;
	case KILTER_ADOPT_SERVER:
	case KILTER_ADOPT_CLIENT:
		if (sk->state == BPF_TCP_ESTABLISHED)
			adopt_connection(s, told->as == KILTER_ADOPT_CLIENT ? &remote : NULL,
					 told->local_port_be);
		break;
	}
	return 1;
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
		listener_refresh(s, tp->inet_conn.icsk_inet.sk.sk_ack_backlog,
				 tp->inet_conn.icsk_inet.sk.sk_max_ack_backlog, false);
	return 0;
}
