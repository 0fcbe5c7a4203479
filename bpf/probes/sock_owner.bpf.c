// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Who: in task context, at bind(), the current task becomes the owner of the socket; at connect()
 * guard_connect does the same. Everything later (softirq, io_uring workers, busy polling) reads the
 * owner from the socket instead of asking who happens to be running.
 */
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define SOCK_STREAM 1

/* A listener binds first; a client that binds is set right by its connect(). */
static __always_inline int own_bound(struct bpf_sock_addr *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct kilter_sock *s;

	if (ctx->type != SOCK_STREAM || !sk)
		return 1;
	s = sock_get_or_create(sk);
	if (s && !(s->flags & SOCK_OPEN))
		sock_own(s, intern_workload_current());
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
