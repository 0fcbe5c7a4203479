/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What happened on a socket, told to the circuit it belongs to, if any. */
#ifndef KILTER_BPF_GUARD_SOCK_H
#define KILTER_BPF_GUARD_SOCK_H

#include "lib/guard.h"
#include "lib/sock.h"

/* kilter_sock.guard_flags */
#define SOCK_GUARD_RELEASED (1u << 0) /* its program has closed it: no open connection any more */

static __always_inline bool sock_has_circuit(const struct kilter_sock *s)
{
	return s->circuit.peer;
}

static __always_inline void sock_guard_tell(struct kilter_sock *s, __u64 what, __u64 now_ns)
{
	__u64 generation = s->guard_generation;

	if (s->trial_generation) {
		what |= GUARD_TRIAL;
		generation = s->trial_generation;
	}
	generation = guard_outcome(s->circuit.workload, s->circuit.peer, generation, what, now_ns);
	if (generation != GUARD_GENERATION(generation)) {
		guard_tell_daemon(s->circuit.workload, s->circuit.peer, generation);
		generation = GUARD_GENERATION(generation);
	}
	/* The first outcome ends a trial. An outcome that came too late to count has brought the
	 * connection into the present: its next request is a new one. */
	s->trial_generation = 0;
	s->guard_generation = generation;
	if (!generation) {
		s->circuit.workload = 0;
		s->circuit.peer = 0;
	}
}

/*
 * A request ended after ns. error: enum kilter_request_error. A connection that is older than its
 * circuit joins it when the guard has made the circuit (guard_join); what fails before that is
 * looked up here, for the guard learns of a destination from its first connections.
 */
static __always_inline bool sock_guard_wants(const struct kilter_sock *s, __u16 status, __u8 error)
{
	return sock_has_circuit(s) ||
	       (s->role == KILTER_ROLE_CLIENT && (error || kilter_status_is_error(status)));
}

static __noinline void sock_guard_join(struct kilter_sock *s)
{
	struct kilter_circuit_key key;
	struct kilter_guard_rules p;

	if (!guard_find(s->workload, s->peer, &key, &p, sizeof(p)) || p.mode == KILTER_GUARD_OFF)
		return;
	s->circuit = key;
	s->guard_generation = 0;
	s->trial_generation = 0;
}

static __always_inline void sock_guard_request(struct kilter_sock *s, __u16 status, __u8 error,
					       __u64 ns, __u64 now_ns)
{
	__u64 took = ns >> KILTER_SLOW_SHIFT;

	if (!sock_has_circuit(s))
		sock_guard_join(s);
	if (!sock_has_circuit(s))
		return;
	if (took > (__u32)-1)
		took = (__u32)-1;
	sock_guard_tell(s,
			(error ? KILTER_FAIL_ON_NO_ANSWER : GUARD_SUCCESS) | GUARD_STATUS(status) |
			    GUARD_TOOK(took),
			now_ns);
}

static __always_inline void sock_guard_connect_failed(struct kilter_sock *s, __u64 now_ns)
{
	if (sock_has_circuit(s))
		sock_guard_tell(s, KILTER_FAIL_ON_CONNECT, now_ns);
}

/* It came to nothing by its own wish: the permit is free, nothing is learnt. */
static __always_inline void sock_guard_release(struct kilter_sock *s)
{
	if (sock_has_circuit(s) && s->trial_generation)
		sock_guard_tell(s, 0, bpf_ktime_get_boot_ns());
}

/* The end of a connection. Its requests have spoken already where the protocol is known, those of
 * gRPC on a connection of HTTP/2; an end without data says nothing: a port check, or a peer that
 * only listens. */
static __always_inline void sock_guard_closed(struct kilter_sock *s, __u64 now_ns)
{
	if (!sock_has_circuit(s))
		return;
	/* One test, not two: the verifier follows each. */
	if (!((1u << KILTER_PROTO_HTTP1 | 1u << KILTER_PROTO_HTTP2) >> (s->protocol & 31) & 1) &&
	    (s->flags & SOCK_HAD_DATA))
		sock_guard_tell(s, GUARD_SUCCESS, now_ns);
	else
		sock_guard_release(s);
}

static __always_inline void sock_guard_uncount(struct kilter_sock *s)
{
	guard_uncount(&s->counters, &s->counted_ns);
}

#endif
