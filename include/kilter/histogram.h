/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Bucket indexes as pure functions, used by the kernel to count and by user space to test.
 *
 * classic: the 15 bounds that serve every OpenTelemetry duration metric (INTERFACE: the
 *   semantic conventions' bounds and 0.001), upper bound inclusive as in Prometheus `le`.
 * fine: 15 bounds for what is faster than a request: connect, RTT, system calls.
 * exp: base-2 exponential of schema 3, that is 8 buckets an octave: the boundaries are
 *   2^(k/8) seconds, so that it is a Prometheus native histogram and an OTLP exponential
 *   histogram as it stands. Half a bucket is a relative error of 2^(1/16)-1 = 4.43 %.
 */
#ifndef KILTER_HISTOGRAM_H
#define KILTER_HISTOGRAM_H

#include <kilter/types.h>

#define KILTER_CLASSIC_BOUNDS  15
#define KILTER_CLASSIC_BUCKETS (KILTER_CLASSIC_BOUNDS + 1) /* the last is +Inf */
#define KILTER_FINE_BOUNDS     15
#define KILTER_FINE_BUCKETS    (KILTER_FINE_BOUNDS + 1)

#define KILTER_EXP_SCHEMA  3
#define KILTER_EXP_SUB	   (1 << KILTER_EXP_SCHEMA)
#define KILTER_EXP_MIN_LOG (-20) /* 2^-20 s = 0.95 us: bucket 0 holds all that is not above */
#define KILTER_EXP_MAX_LOG 7	 /* 2^7 s = 128 s: the last bucket holds all that is above */
/* Bucket i in [1, 216] is (2^((i-1)/8-20), 2^(i/8-20)] seconds. */
#define KILTER_EXP_BUCKETS ((KILTER_EXP_MAX_LOG - KILTER_EXP_MIN_LOG) * KILTER_EXP_SUB + 2)

#define KILTER_CLASSIC_NS(X) \
	X(0, 1000000ull)     \
	X(1, 5000000ull)     \
	X(2, 10000000ull)    \
	X(3, 25000000ull)    \
	X(4, 50000000ull)    \
	X(5, 75000000ull)    \
	X(6, 100000000ull)   \
	X(7, 250000000ull)   \
	X(8, 500000000ull)   \
	X(9, 750000000ull)   \
	X(10, 1000000000ull) \
	X(11, 2500000000ull) \
	X(12, 5000000000ull) \
	X(13, 7500000000ull) \
	X(14, 10000000000ull)

/* 1us 2.5us 5us 10us 25us 50us 100us 250us 500us 1ms 5ms 25ms 100ms 500ms 2.5s */
#define KILTER_FINE_NS(X)   \
	X(0, 1000ull)       \
	X(1, 2500ull)       \
	X(2, 5000ull)       \
	X(3, 10000ull)      \
	X(4, 25000ull)      \
	X(5, 50000ull)      \
	X(6, 100000ull)     \
	X(7, 250000ull)     \
	X(8, 500000ull)     \
	X(9, 1000000ull)    \
	X(10, 5000000ull)   \
	X(11, 25000000ull)  \
	X(12, 100000000ull) \
	X(13, 500000000ull) \
	X(14, 2500000000ull)

#define KILTER_BOUND_TEST(i, bound) idx += ns > bound;

/* In [0, KILTER_CLASSIC_BOUNDS]: branch-free, a compare and an add per bound. */
static inline __attribute__((always_inline)) __u32 kilter_classic_index(__u64 ns)
{
	__u32 idx = 0;

	KILTER_CLASSIC_NS(KILTER_BOUND_TEST)
	return idx;
}

static inline __attribute__((always_inline)) __u32 kilter_fine_index(__u64 ns)
{
	__u32 idx = 0;

	KILTER_FINE_NS(KILTER_BOUND_TEST)
	return idx;
}

/* Position of the highest set bit; v must not be 0. No clz in BPF: five halvings. */
static inline __attribute__((always_inline)) __u32 kilter_log2(__u64 v)
{
	__u32 r = 0;

	if (v >= 1ull << 32) {
		v >>= 32;
		r += 32;
	}
	if (v >= 1u << 16) {
		v >>= 16;
		r += 16;
	}
	if (v >= 1u << 8) {
		v >>= 8;
		r += 8;
	}
	if (v >= 1u << 4) {
		v >>= 4;
		r += 4;
	}
	if (v >= 1u << 2) {
		v >>= 2;
		r += 2;
	}
	return r + (v >= 2);
}

/*
 * Index into exp[]. Nanoseconds are scaled by 2^30/10^9 first, so that 2^30 units are one
 * second and the boundaries are powers of two of seconds. The scale factor in 0.32 fixed
 * point is 2^30/10^9 = 1 + 0.073741824, and 0.073741824 * 2^32 = 316718722.3.
 * The sub-bucket is the number of constants 2^(k/8)*2^31, k = 0..7, that the normalised
 * 32-bit mantissa exceeds: boundaries are upper-inclusive, as both formats demand.
 */
static inline __attribute__((always_inline)) __u32 kilter_exp_index(__u64 ns)
{
	__u64 units;
	__u32 log, m;
	int idx;

	if (ns > 0xffffffffffull) /* 18 minutes: above every bucket, and the product fits */
		return KILTER_EXP_BUCKETS - 1;
	if (ns < 1ull << 35) /* the product stays below 2^64 */
		units = ns + (ns * 316718722ull >> 32);
	else
		units = ns + ((ns >> 8) * 316718722ull >> 24);
	if (units <= 1u << (30 + KILTER_EXP_MIN_LOG))
		return 0;
	log = kilter_log2(units);
	if (log >= 30 + KILTER_EXP_MAX_LOG)
		return KILTER_EXP_BUCKETS - 1;
	m = log > 31 ? (__u32)(units >> (log - 31)) : (__u32)(units << (31 - log));
	idx = ((int)log - 30 - KILTER_EXP_MIN_LOG) * KILTER_EXP_SUB;
	idx += (m > 0x80000000u) + (m > 0x8b95c1e3u) + (m > 0x9837f051u) + (m > 0xa5fed6a9u) +
	       (m > 0xb504f333u) + (m > 0xc5672a11u) + (m > 0xd744fccau) + (m > 0xeac0c6e7u);
	return (__u32)idx;
}

#endif
