// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Who: in task context, at connect() and bind(), the current task becomes the owner of the
 * socket. Everything later (softirq, io_uring workers, busy polling) reads the owner from
 * the socket instead of asking who happens to be running.
 */
#include "lib/connect.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define SOCK_STREAM 1

static __always_inline int own_client(struct bpf_sock_addr *ctx, const struct kilter_peer *peer)
{
	struct bpf_sock *sk = ctx->sk;
	struct kilter_sock *s;

	if (ctx->type != SOCK_STREAM || !sk)
		return 1;
	s = sock_get_or_create(sk);
	if (!s)
		return 1;
	if (s->flags & SOCK_OPEN)
		return 1; /* connect() on a connected socket fails; its state must not suffer */
	/* The one before came to nothing. Of MPTCP the subflows tell, which are other sockets. */
	if (s->flags & SOCK_CONNECTING && ctx->protocol == IPPROTO_TCP)
		connect_failed_at_once(s);
	sock_own_current(s);
	s->peer = intern_peer(peer);
	s->dest = *peer;
	s->role = KILTER_ROLE_CLIENT;
	s->flags = SOCK_CONNECTING;
	s->protocol = KILTER_PROTO_UNKNOWN;
	s->connect_ns = bpf_ktime_get_boot_ns();
	return 1;
}

SEC("cgroup/connect4")
int own_connect4(struct bpf_sock_addr *ctx)
{
	struct kilter_peer peer;

	peer_v4(&peer, ctx->user_ip4, ctx->user_port);
	return own_client(ctx, &peer);
}

SEC("cgroup/connect6")
int own_connect6(struct bpf_sock_addr *ctx)
{
	__u32 addr[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	struct kilter_peer peer;

	peer_v6(&peer, addr, ctx->user_port);
	return own_client(ctx, &peer);
}

/* A listener binds first; a client that binds is set right by its connect(). */
static __always_inline int own_bound(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct kilter_sock *s;

	if (ctx->type != SOCK_STREAM || !sk)
		return 1;
	s = sock_get_or_create(sk);
	if (s && !(s->flags & SOCK_OPEN))
		sock_own_current(s);
	return 1;
}

SEC("cgroup/bind4")
int own_bind4(struct bpf_sock_addr *ctx)
{
	return own_bound(ctx);
}

SEC("cgroup/bind6")
int own_bind6(struct bpf_sock_addr *ctx)
{
	return own_bound(ctx);
}
