/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The circuit breaker's half that lives in the kernel; <kilter/guard.h> says what each state
 * means. guard_check() is asked at connect(), guard_outcome() is told how things went. The
 * daemon may be late, hung or dead: everything here must end well without it.
 *
 * Whatever cannot be decided lets the connection through: no policy, no memory for counters,
 * a lease that ran out.
 */
#ifndef KILTER_BPF_GUARD_H
#define KILTER_BPF_GUARD_H

#include "lib/emit.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH); /* never LRU: a policy must not vanish (see BPF docs) */
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_CIRCUITS_MAX);
	__type(key, struct kilter_circuit_key);
	__type(value, struct kilter_guard_policy);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} guard_policy SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_CIRCUITS_MAX);
	__type(key, struct kilter_circuit_key);
	__type(value, struct kilter_guard_runtime);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} guard_runtime SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} guard_switch SEC(".maps");

/*
 * A freed element of a hash may be used again at once, for another key (kernel commit
 * fba1a1c6c912, Linux 6.1), and a connect() may be preempted in the middle of its copy: the
 * copy is good if the key still leads to the same element afterwards. The daemon writes
 * once a tick: to lose three times in a row takes more bad luck than there is.
 */
#define GUARD_READS 3

static __always_inline bool guard_policy_read(const struct kilter_circuit_key *key,
					      struct kilter_guard_policy *ret)
{
	const struct kilter_guard_policy *p = bpf_map_lookup_elem(&guard_policy, key), *again;

	for (int i = 0; i < GUARD_READS; i++) {
		if (!p)
			return false;
		__builtin_memcpy(ret, p, sizeof(*ret));
		again = bpf_map_lookup_elem(&guard_policy, key);
		if (again == p)
			return true;
		p = again;
	}
	return false;
}

/* The circuit of this pair: the caller's own before the one for any caller. */
static __always_inline bool guard_find(__u32 workload, __u32 peer, struct kilter_circuit_key *key,
				       struct kilter_guard_policy *ret)
{
	key->workload = workload;
	key->peer = peer;
	if (!peer)
		return false;
	if (workload && guard_policy_read(key, ret))
		return true;
	key->workload = 0;
	return guard_policy_read(key, ret);
}

static __always_inline struct kilter_guard_runtime *
guard_counters(const struct kilter_circuit_key *key)
{
	/* Words, not the struct: a lock may lie in no map that is read-only; and not on the
	 * stack, which a parser above us has nearly used up. */
	static const __u64 zero[sizeof(struct kilter_guard_runtime) / 8];
	struct kilter_guard_runtime *rt = bpf_map_lookup_elem(&guard_runtime, key);

	if (rt)
		return rt;
	bpf_map_update_elem(&guard_runtime, key, zero, BPF_NOEXIST);
	rt = bpf_map_lookup_elem(&guard_runtime, key);
	if (!rt)
		count_drop(KILTER_DROP_CIRCUITS_FULL);
	return rt;
}

/* Under the lock: begins a newer generation, ends a trip of our own that the daemon has not
 * confirmed in its time. False: p is older than the counters (another CPU saw the next). */
static __always_inline bool guard_settle(struct kilter_guard_runtime *rt,
					 const struct kilter_guard_policy *p, __u64 now_ns)
{
	if (p->generation < rt->generation)
		return false;
	if (p->generation > rt->generation) {
		rt->generation = p->generation;
		rt->consecutive = 0;
		rt->tripped_ns = 0;
		rt->permits = 0;
		rt->trials = 0;
		rt->successes = 0;
		rt->failures = 0;
		rt->permit_ns = 0;
	}
	if (rt->tripped_ns && now_ns >= rt->tripped_ns + p->base_open_ns) {
		rt->tripped_ns = 0;
		rt->consecutive = 0;
	}
	return true;
}

enum guard_verdict {
	GUARD_PASS,
	GUARD_REFUSE
};

struct guard_ticket {
	struct kilter_circuit_key key; /* {0, 0}: no circuit has an interest in it */
	__u64 generation;
	bool trial; /* of a half-open circuit: its first outcome gives the permit back */
};

/* May this connect() go ahead? Task context. After a refusal *ret is no circuit. */
static __always_inline enum guard_verdict guard_check(__u32 workload, __u32 peer, __u64 now_ns,
						      struct guard_ticket *ret)
{
	struct kilter_circuit_key key;
	struct kilter_guard_policy p;
	struct kilter_guard_runtime *rt;
	const __u32 *off;
	bool enforce, current, refuse = false;
	__u32 zero = 0;

	__builtin_memset(ret, 0, sizeof(*ret));
	if (!guard_find(workload, peer, &key, &p) || p.mode == KILTER_GUARD_OFF)
		return GUARD_PASS;
	rt = guard_counters(&key);
	if (!rt)
		return GUARD_PASS;
	off = bpf_map_lookup_elem(&guard_switch, &zero);
	enforce = p.mode == KILTER_GUARD_ENFORCE && !(off && *off);
	ret->key = key;
	ret->generation = p.generation;

	bpf_spin_lock(&rt->lock);
	current = guard_settle(rt, &p, now_ns);
	if (p.state == KILTER_CIRCUIT_CLOSED) {
		refuse = current && rt->tripped_ns;
	} else if (now_ns >= p.lease_until_ns) {
		rt->lease_expired++;
	} else if (p.state == KILTER_CIRCUIT_OPEN) {
		refuse = true;
	} else {
		/* One time for all permits: they are free again when the youngest is too old. */
		if (now_ns >= rt->permit_ns + p.permit_timeout_ns)
			rt->permits = 0;
		/* The first trial that fails has given the answer. */
		if (current && !rt->failures && rt->permits < p.permits) {
			rt->permits++;
			rt->trials++;
			rt->permit_ns = now_ns;
			ret->trial = true;
		} else {
			refuse = true;
		}
	}
	if (refuse && enforce)
		rt->refused++;
	else if (refuse)
		rt->would_refuse++;
	bpf_spin_unlock(&rt->lock);

	if (refuse && enforce) {
		__builtin_memset(ret, 0, sizeof(*ret));
		return GUARD_REFUSE;
	}
	return GUARD_PASS;
}

/* What is told to guard_outcome(): KILTER_FAIL_ON_* for what went wrong, and these. Neither a
 * failure nor a success (closed before anything was asked) still ends a trial. */
#define GUARD_SUCCESS (1u << 8)
#define GUARD_TRIAL   (1u << 9)

static __always_inline void guard_emit_trip(const struct kilter_circuit_key *key, __u64 generation,
					    __u32 consecutive)
{
	struct kilter_event_trip *e = event_reserve(KILTER_EVENT_TRIP, sizeof(*e));

	if (!e)
		return; /* counted; the daemon sees it at its next tick, in runtime.trips */
	e->h.workload = key->workload;
	e->key = *key;
	e->generation = generation;
	e->consecutive = consecutive;
	e->pad = 0;
	bpf_ringbuf_submit(e, 0);
}

/*
 * How a connection or a request of {workload, peer} ended; `generation` is the one it belongs
 * to, 0 for one that joins with this outcome. Returns the generation that what comes next on
 * this connection belongs to, or 0 when there is no such circuit any more.
 *
 * A global function: the verifier takes it on its own and once, not at the end of each path
 * through a parser. So its arguments are numbers.
 */
__noinline __u64 guard_outcome(__u32 workload, __u32 peer, __u64 generation, __u32 what,
			       __u64 now_ns)
{
	struct kilter_circuit_key key = {.workload = workload, .peer = peer};
	struct kilter_guard_policy p;
	struct kilter_guard_runtime *rt;
	bool failed, counts, tripped = false;
	__u32 consecutive = 0;

	if (!guard_policy_read(&key, &p) || p.mode == KILTER_GUARD_OFF)
		return 0;
	rt = guard_counters(&key);
	if (!rt)
		return p.generation;
	failed = what & p.failures;

	bpf_spin_lock(&rt->lock);
	counts = guard_settle(rt, &p, now_ns);
	if (generation && generation != p.generation)
		counts = false; /* of an earlier stay in some state: too late */
	if (p.state == KILTER_CIRCUIT_HALF_OPEN) {
		counts = counts && (what & GUARD_TRIAL);
		if (counts && rt->permits)
			rt->permits--;
	} else if (p.state != KILTER_CIRCUIT_CLOSED || rt->tripped_ns) {
		counts = false;
	}
	if (counts && failed) {
		rt->failures++;
		rt->total_failures++;
		rt->consecutive++;
		if (p.state == KILTER_CIRCUIT_CLOSED && p.consecutive_failures &&
		    rt->consecutive >= p.consecutive_failures) {
			rt->tripped_ns = now_ns;
			rt->trips++;
			tripped = true;
			consecutive = rt->consecutive;
		}
	} else if (counts && (what & GUARD_SUCCESS)) {
		rt->successes++;
		rt->total_successes++;
		rt->consecutive = 0;
	}
	bpf_spin_unlock(&rt->lock);

	if (tripped)
		guard_emit_trip(&key, p.generation, consecutive);
	return p.generation;
}

#endif
