/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Circuits, limits and bulkheads, as kernel and daemon share them. Two maps, never one:
 *
 * "guard_policy"  {workload, peer} -> policy. Only the daemon writes it (whole values).
 * "guard_runtime" {workload, peer} -> what happened. The daemon makes it, all zero, before the
 *                 policy, and removes it; what is in it only the kernel writes (under its spin
 *                 lock), which makes it anew where it is missing. A circuit whose caller has
 * several kernel ids has a policy for each and one runtime for all: policy.counters is its key
 * there.
 *
 * A lookup tries {workload, peer} and then {0, peer}. A value of `generation` is one stay
 * in one state: the kernel zeroes the runtime's per-generation part when it meets a newer
 * generation, and a late result of an older generation does not count.
 *
 * Effective state, evaluated at each connect():
 *   policy.state == OPEN      refuse while now < policy.lease_until_ns, else let through and
 *                             count lease_expired
 *   policy.state == CLOSED    the kernel trips by itself: when failures in a row, or the share of
 *                             the last window_calls calls that failed or were slow, reach
 *                             the policy's thresholds, tripped_ns is set and connects are
 *                             refused until tripped_ns + policy.base_open_ns; the daemon
 *                             confirms by publishing the next generation as OPEN.
 *                             From ramp_from_ns on, for ramp_ns and while now < lease_until_ns,
 *                             a rising share is let through
 *   policy.state == HALF_OPEN let through while fewer than policy.permits were given in this
 *                             generation (a permit older than permit_timeout_ns is free
 *                             again), else refuse; valid while now < lease_until_ns
 * and, in each of them while now < lease_until_ns:
 *   max_connections           refuse while that many connections are open
 *   rate_interval_ns          refuse what does not conform to the GCRA (ITU-T I.371): the
 *                             theoretical arrival time is over rate_tolerance_ns ahead
 * With mode OBSERVE nothing is refused and would_refuse counts what would have been.
 * All times are CLOCK_BOOTTIME: a suspended machine does not stretch a lease.
 */
#ifndef KILTER_GUARD_H
#define KILTER_GUARD_H

#include <kilter/identity.h>
#include <kilter/series.h>
#include <kilter/types.h>

struct kilter_circuit_key {
	__u32 workload; /* 0: any */
	__u32 peer;
};

enum kilter_circuit_state {
	KILTER_CIRCUIT_CLOSED = 0,
	KILTER_CIRCUIT_OPEN = 1,
	KILTER_CIRCUIT_HALF_OPEN = 2,
};

enum kilter_guard_mode {
	KILTER_GUARD_OFF = 0,
	KILTER_GUARD_OBSERVE = 1,
	KILTER_GUARD_ENFORCE = 2,
};

/* Which outcomes count as failures, a mask in kilter_guard_policy.failures; statuses of HTTP and
 * gRPC have a mask of their own. */
#define KILTER_FAIL_ON_CONNECT	 (1u << 0) /* connect refused, reset, timed out, unreachable */
#define KILTER_FAIL_ON_NO_ANSWER (1u << 1) /* connection ended with a request unanswered */

/* kilter_guard_policy.statuses: a bit for each status of HTTP from 400 to 599, then for each code
 * of gRPC. */
#define KILTER_STATUS_FIRST  400
#define KILTER_STATUSES_HTTP 200
#define KILTER_STATUS_WORDS  4
#define KILTER_STATUS_BITS   (64 * KILTER_STATUS_WORDS)

/* The bit of kilter_series_key.status; KILTER_STATUS_BITS: it has none. */
static inline __attribute__((always_inline)) __u32 kilter_status_bit(__u32 status)
{
	if (status >= KILTER_STATUS_GRPC && status < KILTER_STATUS_GRPC + KILTER_GRPC_CODES)
		return status - KILTER_STATUS_GRPC + KILTER_STATUSES_HTTP;
	if (status >= KILTER_STATUS_FIRST && status < KILTER_STATUS_FIRST + KILTER_STATUSES_HTTP)
		return status - KILTER_STATUS_FIRST;
	return KILTER_STATUS_BITS;
}

#define KILTER_RATIO_ONE	10000 /* ratios in the kernel are in 1/10000 */
#define KILTER_WINDOW_CALLS_MAX 1024
#define KILTER_SLOW_SHIFT	10 /* about a microsecond, without a division a request */

/* What a failure was, by the names that `failures` has for it. */
enum kilter_failure {
	KILTER_FAILED_CONNECT = 0, /* of UDP: an ICMP error */
	KILTER_FAILED_NO_ANSWER,
	KILTER_FAILED_HTTP, /* a status */
	KILTER_FAILED_SLOW, /* a trial that was slow, and no failure otherwise */
	KILTER_FAILURES
};

/* Why a connect() was refused, or would have been. */
enum kilter_refusal {
	KILTER_REFUSED_OPEN = 0,    /* the circuit is open */
	KILTER_REFUSED_HALF_OPEN,   /* half-open, and no permit is free */
	KILTER_REFUSED_RAMP_UP,	    /* closed a moment ago */
	KILTER_REFUSED_RATE,	    /* over the rate limit */
	KILTER_REFUSED_CONNECTIONS, /* max_connections are open */
	KILTER_REFUSALS,
	KILTER_REDIRECTED = KILTER_REFUSALS, /* in a record: the stand-by was given instead */
};

/* What the kernel tripped for: kilter_guard_runtime.tripped_by, kilter_event_trip.by. */
enum kilter_trip {
	KILTER_TRIP_CONSECUTIVE = 0,
	KILTER_TRIP_FAILURE_RATIO, /* of the last window_calls calls */
	KILTER_TRIP_SLOW_RATIO,
};

/* What every outcome needs, kept small: it is copied to a stack that has little room. */
struct kilter_guard_rules {
	__u64 generation;
	__u64 base_open_ns;		    /* how long a trip by the kernel alone holds */
	struct kilter_circuit_key counters; /* {0, 0}: the key of the policy itself */
	__u32 slow; /* ns >> KILTER_SLOW_SHIFT: a request that took longer is slow; 0: none is */
	__u32 consecutive_failures; /* 0: the kernel never trips for failures in a row */
	__u16 window_calls;	    /* 0: the kernel trips for no ratio */
	__u16 minimum_calls;	    /* of them, before a ratio counts */
	__u16 failure_ratio;	    /* in 1/KILTER_RATIO_ONE; 0: off */
	__u16 slow_ratio;
	__u16 successes; /* half-open: of trials, then the daemon hears of it at once */
	__u8 failures;	 /* KILTER_FAIL_ON_* */
	__u8 state;	 /* enum kilter_circuit_state */
	__u8 mode;	 /* enum kilter_guard_mode */
	__u8 pad[3];
};

struct kilter_guard_policy {
	struct kilter_guard_rules rules;
	__u64 lease_until_ns;
	__u64 permit_timeout_ns; /* half-open */
	__u32 permits;		 /* half-open: trial connections at a time */
	__u32 close_connections; /* open: established connections are ended */
	__u64 statuses[KILTER_STATUS_WORDS];
	__u64 ramp_from_ns, ramp_ns; /* closed; 0: all at once */
	__u64 rate_interval_ns;	     /* 0: no limit */
	__u64 rate_tolerance_ns;     /* (burst - 1) * interval */
	__u32 max_connections;	     /* 0: no limit */
	__u32 limits_epoch;	     /* another than the runtime's: the rate begins anew */
	struct kilter_peer standby;  /* family 0: none */
	__u32 pad;
};

/*
 * The first word is a struct bpf_spin_lock on the kernel's side. User space reads without
 * BPF_F_LOCK a value that may be torn between fields, never within one.
 */
struct kilter_guard_runtime {
#ifdef __bpf__
	struct bpf_spin_lock lock;
#else
	__u32 lock;
#endif
	__u32 consecutive; /* failures in a row, this generation */
	__u64 generation;
	__u64 tripped_ns; /* 0, or when the kernel tripped in this generation */
	__u32 tripped_by; /* enum kilter_trip */
	__u32 permits;	  /* trials under way */
	__u32 trials;	  /* trial connections let through, this generation */
	__u32 successes;  /* outcomes of this generation (half-open: of trials only) */
	__u32 failures;
	/* The last ring_size calls of this generation, a bit each. */
	__u32 ring_size, ring_next, ring_fill, ring_failures, ring_slow;
	__u64 ring_failed[KILTER_WINDOW_CALLS_MAX / 64];
	__u64 ring_was_slow[KILTER_WINDOW_CALLS_MAX / 64];
	__u64 permit_ns;  /* when the last permit was given */
	__u64 arrival_ns; /* GCRA: theoretical arrival time of the next connect */
	__u64 made_ns;	  /* of this entry: a connection counted in another one is not ours */
	__u32 open;	  /* connections, from connect() until closed or ended */
	__u32 open_peak;
	__u32 limits_epoch;
	__u32 answered; /* of UDP: a datagram has ever come back */
	/* Totals, never zeroed. */
	__u64 total_successes;
	__u64 total_failures;
	__u64 failed[KILTER_FAILURES];	     /* total_failures, by what they were */
	__u64 total_slow;		     /* of both */
	__u64 refused[KILTER_REFUSALS];	     /* connects, by reason */
	__u64 would_refuse[KILTER_REFUSALS]; /* connects that enforce would have refused */
	__u64 redirected;		     /* to the stand-by, instead of refused */
	__u64 closed;			     /* connections ended because the circuit opened */
	__u64 lease_expired; /* connects let through because the lease had run out */
	__u64 trips;	     /* by the kernel alone */
};

/*
 * Array map "guard_switch": element 0 is the switch, 0 = guard as told, 1 = let everything
 * through. It works with the daemon dead (`bpftool map update pinned .../guard_switch ...`).
 * Element 1: how many circuits concern UDP; 0 spares UDP sockets every lookup.
 */
enum kilter_guard_switch {
	KILTER_SWITCH_OFF = 0,
	KILTER_SWITCH_UDP = 1,
	KILTER_SWITCHES
};

_Static_assert(sizeof(struct kilter_guard_rules) == 48, "no holes");
_Static_assert(sizeof(struct kilter_guard_policy) == 48 + 24 + 64 + 32, "no holes");
_Static_assert(sizeof(struct kilter_guard_runtime) == 64 + 256 + 40 + 24 + 32 + 80 + 32,
	       "no holes");

_Static_assert(KILTER_STATUSES_HTTP + KILTER_GRPC_CODES <= KILTER_STATUS_BITS, "a bit for each");

#endif
