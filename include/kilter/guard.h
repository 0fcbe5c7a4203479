/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Circuits, as kernel and daemon share them. Two maps with the same key, never one:
 *
 * "guard_policy"  only the daemon writes it (whole values): what the state is.
 * "guard_runtime" only the kernel writes it (under its spin lock): what happened in it.
 *
 * A lookup tries {workload, peer} and then {0, peer}. A value of `generation` is one stay
 * in one state: the kernel zeroes the runtime's per-generation part when it meets a newer
 * generation, and a late result of an older generation does not count.
 *
 * Effective state, evaluated at each connect():
 *   policy.state == OPEN      refuse while now < policy.lease_until_ns, else let through and
 *                             count lease_expired
 *   policy.state == CLOSED    the kernel trips by itself: when runtime.consecutive reaches
 *                             policy.consecutive_failures, tripped_ns is set and connects are
 *                             refused until tripped_ns + policy.base_open_ns; the daemon
 *                             confirms by publishing the next generation as OPEN
 *   policy.state == HALF_OPEN let through while fewer than policy.permits were given in this
 *                             generation (a permit older than permit_timeout_ns is free
 *                             again), else refuse; valid while now < lease_until_ns
 * With mode OBSERVE nothing is refused and would_refuse counts what would have been.
 * All times are CLOCK_BOOTTIME: a suspended machine does not stretch a lease.
 */
#ifndef KILTER_GUARD_H
#define KILTER_GUARD_H

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

/* Which outcomes count as failures, a mask in kilter_guard_policy.failures. */
#define KILTER_FAIL_ON_CONNECT	 (1u << 0) /* connect refused, reset, timed out, unreachable */
#define KILTER_FAIL_ON_HTTP_5XX	 (1u << 1)
#define KILTER_FAIL_ON_NO_ANSWER (1u << 2) /* connection ended with a request unanswered */

struct kilter_guard_policy {
	__u64 generation;
	__u64 lease_until_ns;
	__u64 base_open_ns;	    /* how long a trip by the kernel alone holds */
	__u64 permit_timeout_ns;    /* half-open */
	__u32 consecutive_failures; /* 0: the kernel never trips by itself */
	__u32 permits;		    /* half-open: trial connections at a time */
	__u32 failures;		    /* KILTER_FAIL_ON_* */
	__u8 state;		    /* enum kilter_circuit_state */
	__u8 mode;		    /* enum kilter_guard_mode */
	__u8 pad[2];
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
	__u32 permits;	  /* trials under way */
	__u32 trials;	  /* trial connections let through, this generation */
	__u32 successes;  /* outcomes of this generation (half-open: of trials only) */
	__u32 failures;
	__u64 permit_ns; /* when the last permit was given */
	/* Totals, never zeroed. */
	__u64 total_successes;
	__u64 total_failures;
	__u64 refused;	     /* connects refused */
	__u64 would_refuse;  /* connects that enforce would have refused */
	__u64 lease_expired; /* connects let through because the lease had run out */
	__u64 trips;	     /* by the kernel alone */
};

/*
 * Array map "guard_switch", one element: 0 = guard as told, 1 = let everything through.
 * It works with the daemon dead (`bpftool map update pinned .../guard_switch ...`).
 */

_Static_assert(sizeof(struct kilter_guard_policy) == 48, "no holes");
_Static_assert(sizeof(struct kilter_guard_runtime) == 96, "no holes");

#endif
