// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * connect(), before any packet is sent: whose the socket is (see sock_owner), and whether the guard
 * lets it. What is learnt about a socket is left in its storage.
 *
 * Refusing is ECONNREFUSED through bpf_set_retval(), which connect hooks have since Linux 6.1
 * (kernel commit 69fd337a975c and its follow-ups). Before that, the destination is rewritten
 * to a multicast address, which TCP refuses at once with ENETUNREACH: sibling programs,
 * loaded when the first ones are refused by the verifier.
 */
#include "lib/connect.h"
#include "lib/udp.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define SOCK_STREAM  1
#define SOCK_DGRAM   2
#define EPERM	     1
#define ENETUNREACH  101
#define ECONNREFUSED 111

/* A client that does not wait between attempts is refused 400,000 times a second and core
 * (measured): all are counted, this many a second are records of their own. */
#define REFUSED_RECORDS_PER_SECOND 256

static __u64 refused_rate;

/* err: what a refusal is to the caller. reason: enum kilter_refusal, or KILTER_REDIRECTED. */
static __always_inline void record(__u32 workload, const struct kilter_peer *peer, __u32 err,
				   __u32 reason, __u64 now_ns)
{
	struct kilter_event_net *e;

	if (!record_allowed(&refused_rate, REFUSED_RECORDS_PER_SECOND, now_ns,
			    KILTER_DROP_EVENTS_REFUSED))
		return;
	e = event_reserve(KILTER_EVENT_REFUSED, sizeof(*e));
	if (!e)
		return;
	e->h.cgroup_id = bpf_get_current_cgroup_id();
	e->h.pid = bpf_get_current_pid_tgid() >> 32;
	e->h.uid = (__u32)bpf_get_current_uid_gid();
	e->h.workload = workload;
	bpf_get_current_comm(e->h.comm, sizeof(e->h.comm));
	e->latency_ns = 0;
	e->peer = *peer;
	e->err = err;
	e->backlog = 0;
	e->reason = reason;
	event_submit(e);
}

/*
 * What a socket has under way ends, when it turns to another destination; and when it has waited
 * long enough: then this is another call. True: it is a trial, and goes on: one, however often it
 * is sent (nor is it asked for where the kernel asks for each datagram, as of ::ffff:a.b.c.d). Not
 * called by decide_udp(), which leaves too little stack below it.
 */
static __noinline bool udp_goes_on(struct bpf_sock_addr *ctx, const struct kilter_peer *peer,
				   bool connects)
{
	__u64 now_ns = bpf_ktime_get_boot_ns(), trial;
	struct bpf_sock *sk = ctx->sk;
	struct kilter_circuit_key key;
	struct kilter_guard_rules p;
	struct udp_talk *u;
	bool moves, waited;

	u = sk ? udp_get(sk) : NULL;
	if (!u || !sk)
		return false;
	moves = connects || !words_equal(&u->dest, peer, sizeof(*peer) / 4);
	waited = udp_waited(u->asked_ns, now_ns);
	trial = u->trial_generation;
	key = u->circuit;
	if (trial && !moves && !waited && guard_policy_read(&key, &p, sizeof(p)) &&
	    p.generation == trial)
		return true;
	if (trial || moves || waited)
		udp_unanswered(u, udp_is_connected(sk), now_ns);
	if (moves)
		u->circuit.peer = 0; /* until it is known whether there is one */
	return false;
}

/* A trial of which nothing will be heard. */
static __noinline void udp_trial_over(const struct guard_ticket *t, __u64 now_ns)
{
	__u64 outcome = guard_outcome(t->key.workload, t->key.peer, t->generation,
				      GUARD_SUCCESS | GUARD_TRIAL, now_ns);

	if (outcome != GUARD_GENERATION(outcome))
		guard_tell_daemon(t->key.workload, t->key.peer, outcome);
}

/*
 * UDP: a connect(), or a datagram to an address; lib/udp.h says what comes of it. To a socket that
 * is not connected the kernel reports no error (but with IP_RECVERR): where the destination never
 * answers either, nothing is ever known, and that a trial was let through has to do for a success.
 * Caller and destination are asked for at each call; but only when some policy concerns UDP at all.
 */
static __noinline int decide_udp(struct bpf_sock_addr *ctx, struct kilter_peer *peer, __u32 err,
				 bool connects)
{
	__u64 now_ns = bpf_ktime_get_boot_ns();
	struct bpf_sock *sk = ctx->sk;
	struct kilter_guard_policy p;
	struct udp_talk *u = NULL;
	struct guard_ticket t;
	__u32 workload, to;

	workload = intern_workload_current();
	to = intern_peer(peer);
	if (sk)
		u = udp_get(sk);
	if (guard_check(workload, to, peer->family, false, now_ns, &p, &t) != GUARD_PASS) {
		record(workload, peer, err, t.reason, now_ns);
		return GUARD_REFUSE;
	}
	if (!t.key.peer)
		return GUARD_PASS;
	if (!u && sk)
		u = udp_get_or_create(sk);
	if (t.trial && (!u || !sk || (!connects && !udp_is_connected(sk) && !t.answered))) {
		udp_trial_over(&t, now_ns);
		t.trial = false;
	}
	if (!u)
		return GUARD_PASS;
	if (u->circuit.peer && u->asked_ns) { /* the call under way, once more */
		if (t.trial)
			u->trial_generation = t.generation;
		return GUARD_PASS;
	}
	udp_begin(u, &t, workload, peer);
	return GUARD_PASS;
}

static __always_inline int udp_asked_for(struct bpf_sock_addr *ctx, struct kilter_peer *peer,
					 __u32 err, bool connects)
{
	peer->transport = KILTER_TRANSPORT_UDP;
	if (!guard_switched(KILTER_SWITCH_UDP) || udp_goes_on(ctx, peer, connects))
		return GUARD_PASS;
	return decide_udp(ctx, peer, err, connects);
}

static __always_inline bool is_udp(const struct bpf_sock_addr *ctx)
{
	return ctx->type == SOCK_DGRAM && ctx->protocol == IPPROTO_UDP;
}

/* The attempt before this one came to nothing. Of MPTCP the subflows tell, which are other sockets.
 */
static __always_inline void give_up(struct kilter_sock *s, __u32 protocol)
{
	if (s->flags & SOCK_CONNECTING && protocol == IPPROTO_TCP)
		connect_failed_at_once(s);
	sock_guard_uncount(s);
}

/*
 * A stream socket connects: may it, and whose is it? What is refused gets no storage: it would cost
 * more than all else. *standby is where to go with GUARD_REDIRECT.
 */
static __noinline int decide(struct bpf_sock_addr *ctx, const struct kilter_peer *peer, __u32 err,
			     struct kilter_peer *standby)
{
	__u64 now_ns = bpf_ktime_get_boot_ns();
	enum guard_verdict verdict = GUARD_PASS;
	struct bpf_sock *sk = ctx->sk;
	struct kilter_guard_policy p;
	struct guard_ticket t;
	struct kilter_sock *s;
	__u32 workload, to;

	if (ctx->type != SOCK_STREAM || !sk)
		return GUARD_PASS;
	s = sock_get(sk);
	if (s && s->flags & SOCK_OPEN)
		return GUARD_PASS; /* connected: connect() fails, and its state must not suffer */
	workload = intern_workload_current();
	to = intern_peer(peer);
	if (s)
		give_up(s, ctx->protocol);
	__builtin_memset(&t, 0, sizeof(t)); /* read below, also where guard_check() was not asked */
	if (ctx->protocol == IPPROTO_TCP || ctx->protocol == IPPROTO_MPTCP)
		verdict = guard_check(workload, to, peer->family, true, now_ns, &p, &t);
	if (verdict == GUARD_REFUSE) {
		record(workload, peer, err, t.reason, now_ns);
		if (s) {
			s->flags = 0;
			s->circuit.peer = 0;
			s->trial_generation = 0;
		}
		return GUARD_REFUSE;
	}
	if (verdict == GUARD_REDIRECT) {
		/* What comes of it is told to the stand-by's circuit, which was not asked. */
		record(workload, peer, 0, KILTER_REDIRECTED, now_ns);
		__builtin_memset(&t, 0, sizeof(t));
		*standby = p.standby;
		to = intern_peer(standby);
		if (guard_find(workload, to, &t.key, &p, sizeof(p.rules)))
			t.generation = p.rules.generation;
		else
			t.key.peer = 0;
	}
	if (!s)
		s = sock_get_or_create(sk);
	if (!s) {
		guard_uncount(&t.counters, &t.counted_ns);
		return verdict;
	}
	sock_own(s, workload);
	s->peer = to;
	s->dest = verdict == GUARD_REDIRECT ? *standby : *peer;
	s->role = KILTER_ROLE_CLIENT;
	s->flags = SOCK_CONNECTING;
	s->protocol = KILTER_PROTO_UNKNOWN;
	s->connect_ns = now_ns;
	s->circuit = t.key;
	s->guard_generation = t.generation;
	s->trial_generation = t.trial ? t.generation : 0;
	s->guard_flags = 0;
	s->counters = t.counters;
	s->counted_ns = t.counted_ns;
	return verdict;
}

static __always_inline enum guard_verdict decide4(struct bpf_sock_addr *ctx, __u32 err,
						  __u32 udp_err, bool connects)
{
	struct kilter_peer peer, standby;
	enum guard_verdict verdict;

	peer_v4(&peer, ctx->user_ip4, ctx->user_port);
	if (is_udp(ctx))
		return udp_asked_for(ctx, &peer, udp_err, connects);
	verdict = decide(ctx, &peer, err, &standby);
	if (verdict == GUARD_REDIRECT) {
		ctx->user_ip4 = *(__u32 *)standby.addr;
		ctx->user_port = standby.port_be;
		return GUARD_PASS;
	}
	return verdict;
}

static __always_inline enum guard_verdict decide6(struct bpf_sock_addr *ctx, __u32 err,
						  __u32 udp_err, bool connects)
{
	__u32 addr[4] = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]};
	struct kilter_peer peer, standby;
	enum guard_verdict verdict;

	peer_v6(&peer, addr, ctx->user_port);
	if (is_udp(ctx))
		return udp_asked_for(ctx, &peer, udp_err, connects);
	verdict = decide(ctx, &peer, err, &standby);
	if (verdict != GUARD_REDIRECT)
		return verdict;
	if (standby.family == KILTER_FAMILY_V4) { /* ::ffff:a.b.c.d, as it was */
		ctx->user_ip6[3] = *(__u32 *)standby.addr;
	} else {
		ctx->user_ip6[0] = ((__u32 *)standby.addr)[0];
		ctx->user_ip6[1] = ((__u32 *)standby.addr)[1];
		ctx->user_ip6[2] = ((__u32 *)standby.addr)[2];
		ctx->user_ip6[3] = ((__u32 *)standby.addr)[3];
	}
	ctx->user_port = standby.port_be;
	return GUARD_PASS;
}

SEC("cgroup/connect4")
int guard_connect4(struct bpf_sock_addr *ctx)
{
	if (decide4(ctx, ECONNREFUSED, ECONNREFUSED, true) == GUARD_PASS)
		return 1;
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

SEC("cgroup/connect6")
int guard_connect6(struct bpf_sock_addr *ctx)
{
	if (decide6(ctx, ECONNREFUSED, ECONNREFUSED, true) == GUARD_PASS)
		return 1;
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

SEC("cgroup/sendmsg4")
int guard_sendmsg4(struct bpf_sock_addr *ctx)
{
	if (decide4(ctx, ECONNREFUSED, ECONNREFUSED, false) == GUARD_PASS)
		return 1;
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

SEC("cgroup/sendmsg6")
int guard_sendmsg6(struct bpf_sock_addr *ctx)
{
	if (decide6(ctx, ECONNREFUSED, ECONNREFUSED, false) == GUARD_PASS)
		return 1;
	bpf_set_retval(-ECONNREFUSED);
	return 0;
}

/* Of UDP a multicast address is as good as any: there the kernel's own EPERM has to do. */
SEC("cgroup/connect4")
int guard_connect4_rewrite(struct bpf_sock_addr *ctx)
{
	if (decide4(ctx, ENETUNREACH, EPERM, true) == GUARD_PASS)
		return 1;
	if (is_udp(ctx))
		return 0;
	ctx->user_ip4 = bpf_htonl(0xe0000001); /* 224.0.0.1 */
	return 1;
}

SEC("cgroup/connect6")
int guard_connect6_rewrite(struct bpf_sock_addr *ctx)
{
	if (decide6(ctx, ENETUNREACH, EPERM, true) == GUARD_PASS)
		return 1;
	if (is_udp(ctx))
		return 0;
	ctx->user_ip6[0] = bpf_htonl(0xff020000); /* ff02::1 */
	ctx->user_ip6[1] = 0;
	ctx->user_ip6[2] = 0;
	ctx->user_ip6[3] = bpf_htonl(1);
	return 1;
}

SEC("cgroup/sendmsg4")
int guard_sendmsg4_deny(struct bpf_sock_addr *ctx)
{
	return decide4(ctx, EPERM, EPERM, false) == GUARD_PASS;
}

SEC("cgroup/sendmsg6")
int guard_sendmsg6_deny(struct bpf_sock_addr *ctx)
{
	return decide6(ctx, EPERM, EPERM, false) == GUARD_PASS;
}
