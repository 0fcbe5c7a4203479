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
	__uint(max_entries, KILTER_SWITCHES);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} guard_switch SEC(".maps");

static __always_inline bool guard_switched(__u32 which)
{
	const __u32 *on = bpf_map_lookup_elem(&guard_switch, &which);

	return on && *on;
}

/*
 * A freed element of a hash may be used again at once, for another key (kernel commit
 * fba1a1c6c912, Linux 6.1), and a connect() may be preempted in the middle of its copy: the
 * copy is good if the key still leads to the same element afterwards. The daemon writes
 * once a tick: to lose three times in a row takes more bad luck than there is.
 *
 * Of the policy as a whole `ret` gets the first `size` bytes.
 */
#define GUARD_READS 3

static __always_inline bool guard_policy_read(const struct kilter_circuit_key *key, void *ret,
					      __u32 size)
{
	const struct kilter_guard_policy *p = bpf_map_lookup_elem(&guard_policy, key), *again;

	for (int i = 0; i < GUARD_READS; i++) {
		if (!p)
			return false;
		__builtin_memcpy(ret, p, size);
		again = bpf_map_lookup_elem(&guard_policy, key);
		if (again == p)
			return true;
		p = again;
	}
	return false;
}

/* The circuit of this pair: the caller's own before the one for any caller. */
static __always_inline bool guard_find(__u32 workload, __u32 peer, struct kilter_circuit_key *key,
				       void *ret, __u32 size)
{
	key->workload = workload;
	key->peer = peer;
	if (!peer)
		return false;
	if (workload && guard_policy_read(key, ret, size))
		return true;
	key->workload = 0;
	return guard_policy_read(key, ret, size);
}

/* Where the circuit of `key` is counted. */
static __always_inline struct kilter_circuit_key
guard_counters_key(const struct kilter_circuit_key *key, const struct kilter_guard_rules *p)
{
	return p->counters.peer ? p->counters : *key;
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
	map_insert(&guard_runtime, key, zero);
	rt = bpf_map_lookup_elem(&guard_runtime, key);
	if (!rt)
		count_drop(KILTER_DROP_CIRCUITS_FULL);
	return rt;
}

/* Under the lock: begins a newer generation, ends a trip of our own that the daemon has not
 * confirmed in its time. False: p is older than the counters (another CPU saw the next). */
static __always_inline bool guard_settle(struct kilter_guard_runtime *rt,
					 const struct kilter_guard_rules *p, __u64 now_ns)
{
	if (!rt->made_ns)
		rt->made_ns = now_ns;
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
		rt->ring_size = 0;
	}
	if (rt->tripped_ns && now_ns >= rt->tripped_ns + p->base_open_ns) {
		rt->tripped_ns = 0;
		rt->consecutive = 0;
		rt->ring_size = 0;
	}
	return true;
}

enum guard_verdict {
	GUARD_PASS,
	GUARD_REFUSE,
	GUARD_REDIRECT /* to the policy's stand-by, instead of refused */
};

struct guard_ticket {
	struct kilter_circuit_key key;	    /* {0, 0}: no circuit has an interest in it */
	struct kilter_circuit_key counters; /* of its runtime */
	__u64 generation;
	__u64 counted_ns; /* 0, or the made_ns of the runtime that counts it as open */
	__u32 reason;	  /* of a refusal, enum kilter_refusal */
	bool trial;	  /* of a half-open circuit: its first outcome gives the permit back */
	bool answered;	  /* of UDP: its destination has ever answered */
};

#define GUARD_DEBT_NS  1000000000ull   /* beyond a burst; no caller waits so long */
#define GUARD_ADMITTED KILTER_REFUSALS /* no reason to refuse */

/* The share of connects that a circuit lets through that was closed a moment ago: rises with time
 * from a tenth to all, as slow start does elsewhere (Envoy's slow_start_config). */
static __always_inline bool guard_ramp_admits(const struct kilter_guard_policy *p, __u64 now_ns)
{
	__u64 since = now_ns - p->ramp_from_ns;

	if (!p->ramp_ns || now_ns < p->ramp_from_ns || since >= p->ramp_ns)
		return true;
	if (since < p->ramp_ns / 10)
		since = p->ramp_ns / 10;
	/* since < ramp_ns <= an hour: the product fits, in milliseconds. */
	return (__u64)bpf_get_prandom_u32() * (p->ramp_ns / 1000000) < ((since / 1000000) << 32);
}

/*
 * Under the lock: why this connect should not be, or GUARD_ADMITTED. Takes a permit and its place
 * in the rate when it is admitted.
 */
static __always_inline __u32 guard_admit(struct kilter_guard_runtime *rt,
					 const struct kilter_guard_policy *p, bool enforce,
					 bool ramp, __u64 now_ns, bool *ret_trial)
{
	bool current = guard_settle(rt, &p->rules, now_ns);
	bool lease = now_ns < p->lease_until_ns;
	__u32 limit = GUARD_ADMITTED;
	__u64 arrival;

	if (rt->limits_epoch != p->limits_epoch) {
		rt->limits_epoch = p->limits_epoch;
		rt->arrival_ns = 0;
		rt->open_peak = rt->open;
	}
	/* What was let through at another rate is no debt for long. Not exactly a burst: now_ns is
	 * as old as this caller has waited, and what is taken off here another one is given. */
	arrival = now_ns + p->rate_tolerance_ns + p->rate_interval_ns + GUARD_DEBT_NS;
	if (rt->arrival_ns > arrival)
		rt->arrival_ns = arrival;
	arrival = rt->arrival_ns > now_ns ? rt->arrival_ns : now_ns;

	if (lease && p->max_connections && rt->open >= p->max_connections)
		limit = KILTER_REFUSED_CONNECTIONS;
	else if (lease && p->rate_interval_ns && arrival - now_ns > p->rate_tolerance_ns)
		limit = KILTER_REFUSED_RATE;
	if (p->rules.state == KILTER_CIRCUIT_CLOSED) {
		if (current && rt->tripped_ns)
			return KILTER_REFUSED_OPEN;
		if (!ramp && lease)
			return KILTER_REFUSED_RAMP_UP;
	} else if (!lease) {
		rt->lease_expired++;
	} else if (p->rules.state == KILTER_CIRCUIT_OPEN) {
		return KILTER_REFUSED_OPEN;
	} else {
		/* One time for all permits: they are free again when the youngest is too old. */
		if (now_ns >= rt->permit_ns + p->permit_timeout_ns)
			rt->permits = 0;
		/* The first trial that fails has given the answer. */
		if (!current || rt->failures || rt->permits >= p->permits)
			return KILTER_REFUSED_HALF_OPEN;
		if (limit == GUARD_ADMITTED || !enforce) {
			rt->permits++;
			rt->trials++;
			rt->permit_ns = now_ns;
			*ret_trial = true;
		}
	}
	/* What passes for want of a lease alone takes no place. */
	if (limit == GUARD_ADMITTED && p->rate_interval_ns &&
	    arrival - now_ns <= p->rate_tolerance_ns)
		rt->arrival_ns = arrival + p->rate_interval_ns;
	return limit;
}

/* Has the policy a stand-by for what a circuit that is not closed refuses? */
static __always_inline bool guard_redirects(const struct kilter_guard_policy *p, __u32 reason,
					    __u32 family)
{
	return p->standby.family && p->standby.family == family &&
	       (reason == KILTER_REFUSED_OPEN || reason == KILTER_REFUSED_HALF_OPEN);
}

/*
 * May this connect() to an address of `family` go ahead? Task context. *p is the policy at hand
 * when *ret names a circuit. `counts`: a connection comes of it. After anything but GUARD_PASS the
 * connection does not belong to the circuit.
 */
static __always_inline enum guard_verdict guard_check(__u32 workload, __u32 peer, __u32 family,
						      bool counts, __u64 now_ns,
						      struct kilter_guard_policy *p,
						      struct guard_ticket *ret)
{
	struct kilter_guard_runtime *rt = NULL;
	bool enforce, ramp, redirect = false, trial = false;
	__u32 reason, answered;

	__builtin_memset(ret, 0, sizeof(*ret));
	if (guard_find(workload, peer, &ret->key, p, sizeof(*p)) &&
	    p->rules.mode != KILTER_GUARD_OFF) {
		ret->counters = guard_counters_key(&ret->key, &p->rules);
		rt = guard_counters(&ret->counters);
	}
	if (!rt) {
		ret->key.workload = 0;
		ret->key.peer = 0;
		return GUARD_PASS;
	}
	enforce = p->rules.mode == KILTER_GUARD_ENFORCE && !guard_switched(KILTER_SWITCH_OFF);
	ramp = guard_ramp_admits(p, now_ns);
	ret->generation = p->rules.generation;

	bpf_spin_lock(&rt->lock);
	reason = guard_admit(rt, p, enforce, ramp, now_ns, &trial);
	answered = rt->answered;
	if (reason < KILTER_REFUSALS) { /* and never the index of another */
		redirect = enforce && guard_redirects(p, reason, family);
		if (redirect)
			rt->redirected++;
		else if (enforce)
			rt->refused[reason]++;
		else
			rt->would_refuse[reason]++;
	}
	if (counts && (reason >= KILTER_REFUSALS || !enforce)) {
		rt->open++;
		if (rt->open > rt->open_peak)
			rt->open_peak = rt->open;
		ret->counted_ns = rt->made_ns;
	}
	bpf_spin_unlock(&rt->lock);

	ret->trial = trial;
	ret->answered = answered;
	ret->reason = reason;
	if (reason >= KILTER_REFUSALS || !enforce)
		return GUARD_PASS;
	return redirect ? GUARD_REDIRECT : GUARD_REFUSE;
}

/*
 * A connection that was counted as open at *counted_ns is none any more: closed, ended, or never
 * came to be. Whoever says so first; a runtime that was made anew has not counted it.
 */
static __always_inline void guard_uncount(const struct kilter_circuit_key *counters,
					  __u64 *counted_ns)
{
	struct kilter_circuit_key key = *counters;
	struct kilter_guard_runtime *rt;

	if (!*counted_ns)
		return;
	rt = bpf_map_lookup_elem(&guard_runtime, &key);
	if (!rt) {
		*counted_ns = 0;
		return;
	}
	bpf_spin_lock(&rt->lock);
	if (*counted_ns == rt->made_ns && rt->open)
		rt->open--;
	*counted_ns = 0;
	bpf_spin_unlock(&rt->lock);
}

/* What is told to guard_outcome(): KILTER_FAIL_ON_* for what went wrong, and these. Neither a
 * failure nor a success (closed before anything was asked) still ends a trial. */
#define GUARD_SUCCESS (1u << 8)
#define GUARD_TRIAL   (1u << 9)
/* Of UDP (lib/udp.h): a datagram came back; none did, and that is a failure where one ever has; and
 * where none ever has, it is a success. */
#define GUARD_ANSWERED (1u << 13)
#define GUARD_SILENT   (1u << 14)
#define GUARD_QUIET    (1u << 15)
#define GUARD_OF_UDP   (GUARD_ANSWERED | GUARD_SILENT | GUARD_QUIET)
/* What becomes of it inside. */
#define GUARD_FAILED	    (1u << 10)
#define GUARD_SLOW	    (1u << 11)
#define GUARD_LATE	    (1u << 12)		   /* of an earlier stay in some state */
#define GUARD_STATUS_FAILED (1u << 7)		   /* above KILTER_FAIL_ON_* */
#define GUARD_STATUS(s)	    ((__u64)(s) << 16)	   /* HTTP status, 0: none */
#define GUARD_TOOK(units)   ((__u64)(units) << 32) /* of KILTER_SLOW_SHIFT */

/* Is it one of the statuses that the policy calls failures? Read without a copy: a policy that is
 * replaced meanwhile answers for itself or for its successor. */
static __always_inline bool guard_status_fails(const struct kilter_circuit_key *key, __u32 status)
{
	const struct kilter_guard_policy *p;
	__u32 bit = kilter_status_bit(status);

	if (bit >= KILTER_STATUS_BITS)
		return false;
	p = bpf_map_lookup_elem(&guard_policy, key);
	barrier_var(bit);
	return p && p->statuses[bit >> 6 & (KILTER_STATUS_WORDS - 1)] >> (bit & 63) & 1;
}

/* Under the lock: the window of the last calls takes one more. */
static __always_inline void guard_ring_add(struct kilter_guard_runtime *rt, __u32 size, __u64 is)
{
	__u32 at = rt->ring_next, word;
	__u64 bit;

	if (rt->ring_size != size) {
		rt->ring_size = size;
		rt->ring_fill = 0;
		rt->ring_failures = 0;
		rt->ring_slow = 0;
		at = 0;
	}
	if (at >= size)
		at = 0;
	rt->ring_next = at + 1;
	bit = 1ull << (at & 63);
	word = at >> 6;
	barrier_var(word);
	word &= KILTER_WINDOW_CALLS_MAX / 64 - 1;
	if (rt->ring_fill >= size) {
		rt->ring_failures -= !!(rt->ring_failed[word] & bit);
		rt->ring_slow -= !!(rt->ring_was_slow[word] & bit);
	} else {
		rt->ring_fill++;
	}
	rt->ring_failed[word] &= ~bit;
	rt->ring_was_slow[word] &= ~bit;
	if (is & GUARD_FAILED) {
		rt->ring_failures++;
		rt->ring_failed[word] |= bit;
	}
	if (is & GUARD_SLOW) {
		rt->ring_slow++;
		rt->ring_was_slow[word] |= bit;
	}
}

static __always_inline bool guard_share_reached(__u32 n, __u32 all, __u32 ratio)
{
	return ratio && (__u64)n * KILTER_RATIO_ONE >= (__u64)ratio * all;
}

#define GUARD_STAYS 3 /* no enum kilter_trip */

/* Under the lock, in a closed circuit: what it trips for, or GUARD_STAYS. */
static __always_inline __u32 guard_trips_for(const struct kilter_guard_runtime *rt,
					     const struct kilter_guard_rules *p, __u64 is)
{
	if (is & GUARD_FAILED && p->consecutive_failures &&
	    rt->consecutive >= p->consecutive_failures)
		return KILTER_TRIP_CONSECUTIVE;
	if (!p->window_calls || !rt->ring_fill || rt->ring_fill < p->minimum_calls)
		return GUARD_STAYS;
	if (guard_share_reached(rt->ring_failures, rt->ring_fill, p->failure_ratio))
		return KILTER_TRIP_FAILURE_RATIO;
	if (guard_share_reached(rt->ring_slow, rt->ring_fill, p->slow_ratio))
		return KILTER_TRIP_SLOW_RATIO;
	return GUARD_STAYS;
}

/* What guard_outcome() returns: a generation, and in the highest bits what the daemon should hear
 * of at once. */
#define GUARD_GENERATION(ret) ((ret) & ~(3ull << 62))
#define GUARD_TRIPPED	      (1ull << 62)
#define GUARD_VERDICT	      (2ull << 62)

/* Under the lock: what the silence of a destination means. */
static __always_inline __u64 guard_silence(struct kilter_guard_runtime *rt, __u64 is)
{
	if (is & GUARD_ANSWERED)
		rt->answered = 1;
	if (rt->answered)
		return is & GUARD_SILENT ? is | GUARD_FAILED : is;
	return is & GUARD_QUIET ? is | GUARD_SUCCESS : is;
}

/* Under the lock: what a failure was. */
static __always_inline void guard_count_failure(struct kilter_guard_runtime *rt, __u64 is)
{
	rt->failures++;
	rt->total_failures++;
	rt->consecutive++;
	if (is & KILTER_FAIL_ON_CONNECT)
		rt->failed[KILTER_FAILED_CONNECT]++;
	else if (is & (KILTER_FAIL_ON_NO_ANSWER | GUARD_SILENT))
		rt->failed[KILTER_FAILED_NO_ANSWER]++;
	else if (is & GUARD_STATUS_FAILED)
		rt->failed[KILTER_FAILED_HTTP]++;
	else
		rt->failed[KILTER_FAILED_SLOW]++;
}

/* Under the lock: does an outcome matter in this state? Gives the permit of a trial back. */
static __always_inline bool guard_counts(struct kilter_guard_runtime *rt,
					 const struct kilter_guard_rules *p, __u64 is)
{
	if (p->state == KILTER_CIRCUIT_HALF_OPEN) {
		if (!(is & GUARD_TRIAL) || is & GUARD_LATE)
			return false;
		if (rt->permits)
			rt->permits--;
		return true;
	}
	return p->state == KILTER_CIRCUIT_CLOSED && !rt->tripped_ns && !(is & GUARD_LATE);
}

/* Under the lock: one more outcome. Returns GUARD_TRIPPED, GUARD_VERDICT or 0. */
static __always_inline __u64 guard_count(struct kilter_guard_runtime *rt,
					 const struct kilter_guard_rules *p, __u64 is, __u64 now_ns)
{
	bool trial = p->state == KILTER_CIRCUIT_HALF_OPEN;
	__u32 trip;

	if (trial && is & GUARD_SLOW)
		is |= GUARD_FAILED; /* slowness has tripped it, or would */
	if (is & GUARD_SLOW)
		rt->total_slow++;
	if (is & GUARD_FAILED) {
		guard_count_failure(rt, is);
	} else {
		rt->successes++;
		rt->total_successes++;
		rt->consecutive = 0;
	}
	if (trial && is & GUARD_FAILED)
		return rt->failures == 1 ? GUARD_VERDICT : 0;
	if (trial)
		return rt->successes == p->successes ? GUARD_VERDICT : 0;
	if (p->window_calls && p->window_calls <= KILTER_WINDOW_CALLS_MAX)
		guard_ring_add(rt, p->window_calls, is);
	trip = guard_trips_for(rt, p, is);
	if (trip == GUARD_STAYS)
		return 0;
	rt->tripped_ns = now_ns;
	rt->tripped_by = trip;
	rt->trips++;
	return GUARD_TRIPPED;
}

/*
 * How a connection or a request of {workload, peer} ended; `generation` is the one it belongs
 * to, 0 for one that joins with this outcome. Returns the generation that what comes next on
 * this connection belongs to, or 0 when there is no such circuit any more; with GUARD_TRIPPED or
 * GUARD_VERDICT: guard_tell_daemon() is to be called.
 *
 * A global function: the verifier takes it on its own and once, not at the end of each path
 * through a parser. So its arguments are numbers. It has 128 bytes of stack below such a parser.
 */
__noinline __u64 guard_outcome(__u32 workload, __u32 peer, __u64 generation, __u64 what,
			       __u64 now_ns)
{
	struct kilter_circuit_key key = {.workload = workload, .peer = peer};
	struct kilter_guard_rules rules, *p = &rules;
	struct kilter_guard_runtime *rt;
	__u64 is = what & (GUARD_SUCCESS | GUARD_TRIAL | GUARD_OF_UDP),
	      tell = 0; /* one word to keep */

	barrier_var(p); /* one piece of memory: clang would keep each field in a place of its own */
	if (!guard_policy_read(&key, p, sizeof(*p)) || p->mode == KILTER_GUARD_OFF)
		return 0;
	is |= what & p->failures;
	if (guard_status_fails(&key, what >> 16 & 0xffff))
		is |= GUARD_STATUS_FAILED;
	if (is & (KILTER_FAIL_ON_CONNECT | KILTER_FAIL_ON_NO_ANSWER | GUARD_STATUS_FAILED))
		is |= GUARD_FAILED;
	if (!(p->failures & KILTER_FAIL_ON_NO_ANSWER))
		is &= ~(__u64)GUARD_SILENT;
	if (p->slow && what >> 32 > p->slow)
		is |= GUARD_SLOW;
	if (generation && generation != p->generation)
		is |= GUARD_LATE;
	barrier_var(is);
	if (p->counters.peer)
		key = p->counters;
	rt = guard_counters(&key);
	if (!rt)
		return p->generation;

	bpf_spin_lock(&rt->lock);
	is = guard_silence(rt, is);
	if (guard_settle(rt, p, now_ns) && guard_counts(rt, p, is) &&
	    is & (GUARD_FAILED | GUARD_SUCCESS))
		tell = guard_count(rt, p, is, now_ns);
	bpf_spin_unlock(&rt->lock);
	return p->generation | tell;
}

/* After guard_outcome(): a record that makes the daemon look now, and not at its next tick. */
__noinline int guard_tell_daemon(__u32 workload, __u32 peer, __u64 outcome)
{
	struct kilter_circuit_key key = {.workload = workload, .peer = peer};
	const struct kilter_guard_policy *p = bpf_map_lookup_elem(&guard_policy, &key);
	const struct kilter_guard_runtime *rt;
	struct kilter_event_trip *e;

	e = event_reserve(outcome & GUARD_TRIPPED ? KILTER_EVENT_TRIP : KILTER_EVENT_VERDICT,
			  sizeof(*e));
	if (!e)
		return 0; /* counted; the daemon sees it at its next tick, in the runtime */
	e->h.workload = workload;
	e->key = key;
	e->generation = GUARD_GENERATION(outcome);
	e->consecutive = 0;
	e->by = 0;
	if (p && p->rules.counters.peer)
		key = p->rules.counters;
	rt = bpf_map_lookup_elem(&guard_runtime, &key);
	if (rt) {
		e->consecutive = rt->consecutive;
		e->by = rt->tripped_by;
	}
	event_submit_now(e);
	return 0;
}

#endif
