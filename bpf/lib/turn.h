/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One packet of a socket's ingress at a time.
 *
 * Egress runs under the socket's lock, ingress before it is taken (tcp_filter() in tcp_v4_rcv). A
 * sender that moves to another CPU while its last segment waits in the first one's backlog (a busy
 * machine's loopback, veth) has two CPUs in one socket's ingress at once. Both are in softirqs,
 * where nothing but an interrupt or a hypervisor holds the other up: to wait is short.
 *
 * The first of them may still be making the socket: the child of a listener can be found before
 * sockops hears of it. Whoever brings its data meanwhile waits as well.
 */
#ifndef KILTER_BPF_TURN_H
#define KILTER_BPF_TURN_H

#include "lib/sock.h"

#ifndef TURN_CTX
#define TURN_CTX struct __sk_buff
#endif

/* How often we look, some 30 ns each: longer than the largest segment takes, which is full of
 * HTTP/2's shortest frames. */
#define TURN_LOOKS	 131072
#define TURN_LOOKS_BATCH 256

/*
 * An atomic that returns something is Linux 5.12. Who reads 1 after adding his own is alone; two
 * that meet may both step back and look again. On x86 a locked addition is a full barrier. On
 * others it is none (arm64: STADD): there a spin lock, under which no helper may be called, orders
 * what is read and written between turns. It costs some 140 ns a segment, measured on x86, where
 * the additions are lost in the noise.
 */
#ifdef __TARGET_ARCH_x86
static __always_inline bool turn_try(struct kilter_sock *s)
{
	add_to(s->busy, 1);
	if (forgotten(s->busy) == 1)
		return true;
	add_to(s->busy, -1);
	return false;
}

static __always_inline void turn_end(struct kilter_sock *s)
{
	add_to(s->busy, -1);
}
#else
static __always_inline bool turn_try(struct kilter_sock *s)
{
	__u32 busy;

	bpf_spin_lock(&s->turn);
	busy = s->busy;
	s->busy = 1;
	bpf_spin_unlock(&s->turn);
	return !busy;
}

static __always_inline void turn_end(struct kilter_sock *s)
{
	bpf_spin_lock(&s->turn);
	s->busy = 0;
	bpf_spin_unlock(&s->turn);
}
#endif

/* Not the copy of a listener any more? Without sockops it stays one, but not in this state. */
static __always_inline bool turn_born(const struct bpf_sock *sk, const struct kilter_sock *s)
{
	return sk->state != BPF_TCP_SYN_RECV || !(forgotten(s->flags) & SOCK_LISTENER);
}

/* Global functions, and two of them, for the verifier: it takes each once. */
__noinline int turn_look(TURN_CTX *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct kilter_sock *s = sk ? sock_get(sk) : NULL;

	if (!s)
		return 0;
	for (int i = 0; i < TURN_LOOKS_BATCH; i++) {
		if (turn_born(sk, s) && !forgotten(s->busy) && turn_try(s))
			return 1;
		bpf_ktime_get_boot_ns(); /* a pause, or we would keep his cache line from him */
	}
	return 0;
}

__noinline int turn_wait(TURN_CTX *ctx)
{
	for (int i = 0; i < TURN_LOOKS / TURN_LOOKS_BATCH; i++)
		if (turn_look(ctx))
			return 1;
	count_drop(KILTER_DROP_HTTP1_BUSY);
	return 0;
}

/* False: it did not come, which is counted. Else turn_end() has to follow. */
static __always_inline bool turn_take(TURN_CTX *ctx, const struct bpf_sock *sk,
				      struct kilter_sock *s)
{
	return (turn_born(sk, s) && turn_try(s)) || turn_wait(ctx);
}

#endif
