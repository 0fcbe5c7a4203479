/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What happened on a socket, told to the circuit it belongs to, if any. */
#ifndef KILTER_BPF_GUARD_SOCK_H
#define KILTER_BPF_GUARD_SOCK_H

#include "lib/guard.h"
#include "lib/sock.h"

static __always_inline bool sock_has_circuit(const struct kilter_sock *s)
{
	return s->circuit.peer;
}

static __always_inline void sock_guard_request(struct kilter_sock *s, __u16 status, __u8 error,
					       __u64 now_ns)
{
}
#endif
#define GUARD_OUTCOME_CONNECT 0
#define GUARD_OUTCOME_CLOSED  1
static __always_inline void sock_guard_outcome(struct kilter_sock *s, int k, bool failed,
					       __u64 now_ns)
{
}
