/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * UDP and circuits. A call begins with the first datagram that a socket sends to a destination that
 * has a circuit, and ends with the first of
 *
 *   a datagram from there	 a success, which took as long (cgroup_skb)
 *   an ICMP error		 a failure (guard_udp, where the kernel has its tracepoint)
 *   another datagram a second	 unanswered: a failure, if that destination has ever answered; else,
 * on a later, or the socket's end	 socket that would have been told of an error, a success
 *
 * What is sent before it ends belongs to it. Sockets that send to no such destination have no
 * storage here, and while there is no circuit of UDP at all, KILTER_SWITCH_UDP spares them the
 * look.
 */
#ifndef KILTER_BPF_UDP_H
#define KILTER_BPF_UDP_H

#include "lib/guard.h"

/* Who waited less has given up for reasons of its own: the slower of two servers asked at once, as
 * the loser of a race of connects (GIVE_UP_NS). */
#define UDP_SILENCE_NS 1000000000ull

struct udp_talk {
	struct bpf_spin_lock lock; /* of the circuit, the generations and asked_ns */
	__u32 workload;
	struct kilter_circuit_key circuit; /* {0,0}: none where it sends now */
	__u64 generation;
	__u64 trial_generation; /* 0: not a half-open trial */
	__u64 asked_ns;		/* when the call under way began; 0: none is */
	__u64 cgroup_id;	/* of who connected, or sent last to an address */
	__u32 pid, uid;
	__u32 pad;
	struct kilter_peer dest;
	char comm[KILTER_COMM_LEN];
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct udp_talk);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} udp_talks SEC(".maps");

/* Macros, because the type that sk may have differs by program type. */
#define udp_get(sk) bpf_sk_storage_get(&udp_talks, sk, NULL, 0)
#define udp_get_or_create(sk)                                                              \
	({                                                                                 \
		struct udp_talk *u_ =                                                      \
		    bpf_sk_storage_get(&udp_talks, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE); \
		if (!u_)                                                                   \
			count_drop(KILTER_DROP_SOCK_STORAGE);                              \
		u_;                                                                        \
	})

struct udp_call {
	struct kilter_circuit_key circuit;
	__u64 generation, trial_generation, asked_ns;
};

/* What is under way ends: with whoever takes it, whichever CPU it is. False: nothing is. */
static __always_inline bool udp_take(struct udp_talk *u, struct udp_call *ret)
{
	bpf_spin_lock(&u->lock);
	ret->circuit = u->circuit;
	ret->generation = u->generation;
	ret->trial_generation = u->trial_generation;
	ret->asked_ns = u->asked_ns;
	u->trial_generation = 0;
	u->asked_ns = 0;
	bpf_spin_unlock(&u->lock);
	return ret->circuit.peer && (ret->asked_ns || ret->trial_generation);
}

/* what: as guard_outcome() takes it. The next call belongs to the present, as on a connection. */
static __noinline void udp_tell(struct udp_talk *u, const struct udp_call *call, __u64 what,
				__u64 now_ns)
{
	__u64 generation = call->generation;

	if (call->trial_generation) {
		what |= GUARD_TRIAL;
		generation = call->trial_generation;
	}
	generation =
	    guard_outcome(call->circuit.workload, call->circuit.peer, generation, what, now_ns);
	if (generation != GUARD_GENERATION(generation)) {
		guard_tell_daemon(call->circuit.workload, call->circuit.peer, generation);
		generation = GUARD_GENERATION(generation);
	}
	u->generation = generation;
}

static __always_inline bool udp_waited(__u64 asked_ns, __u64 now_ns)
{
	return asked_ns && now_ns - asked_ns >= UDP_SILENCE_NS;
}

/* The call under way ends without an answer. told: an ICMP error would have ended it. */
static __noinline __attribute__((unused)) void udp_unanswered(struct udp_talk *u, bool told,
							      __u64 now_ns)
{
	struct udp_call call;
	__u64 what = 0;

	if (!udp_take(u, &call))
		return;
	if (call.asked_ns) {
		if (udp_waited(call.asked_ns, now_ns))
			what |= told ? GUARD_SILENT | GUARD_QUIET : GUARD_SILENT;
		if (call.trial_generation)
			what |= GUARD_QUIET;
	}
	if (what || call.trial_generation)
		udp_tell(u, &call, what, now_ns);
}

static __always_inline bool udp_is_connected(const struct bpf_sock *sk)
{
	return sk->state == BPF_TCP_ESTABLISHED;
}

/* Task context: from now on the current task sends to `dest`, which has the circuit of *t. */
static __always_inline void udp_begin(struct udp_talk *u, const struct guard_ticket *t,
				      __u32 workload, const struct kilter_peer *dest)
{
	__u64 id = bpf_get_current_pid_tgid();

	u->cgroup_id = bpf_get_current_cgroup_id();
	u->pid = id >> 32;
	u->uid = (__u32)bpf_get_current_uid_gid();
	u->workload = workload;
	u->dest = *dest;
	bpf_get_current_comm(u->comm, sizeof(u->comm));
	bpf_spin_lock(&u->lock);
	u->circuit = t->key;
	u->generation = t->generation;
	u->trial_generation = t->trial ? t->generation : 0;
	u->asked_ns = 0;
	bpf_spin_unlock(&u->lock);
}

#endif
