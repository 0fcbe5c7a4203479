/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * From a path to a route id. The id is a hash, so two routes of one node may share one with
 * the odds of n^2/2^33: the counts stay right, one template's text stands for both.
 */
#ifndef KILTER_BPF_ROUTE_H
#define KILTER_BPF_ROUTE_H

#include <kilter/route.h>

#include "lib/scratch.h"

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_ROUTES_MAX);
	__type(key, __u32);
	__type(value, struct kilter_route);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} routes SEC(".maps");

/* Workload -> how many routes it has made. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, KILTER_WORKLOADS_MAX);
	__type(key, __u32);
	__type(value, __u32);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} route_counts SEC(".maps");

/* A route value is too large for the stack beside everything else. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct kilter_route);
} route_scratch SEC(".maps");

const volatile __u32 routes_per_workload = KILTER_ROUTES_PER_WORKLOAD;

/* Called once per new route: the slow path. noinline keeps it off the caller's stack. */
static __noinline __u32 route_learn(__u32 id, __u32 workload, struct scratch *sc, __u32 at,
				    __u32 len)
{
	__u32 zero = 0, one = 1, *count;
	struct kilter_route *r;
	int err;

	if (!sc)
		return 0;
	count = bpf_map_lookup_elem(&route_counts, &workload);
	if (!count) {
		map_insert(&route_counts, &workload, &zero);
		count = bpf_map_lookup_elem(&route_counts, &workload);
		if (!count) {
			count_drop(KILTER_DROP_ROUTES_FULL);
			return 0;
		}
	}
	if (*count >= routes_per_workload) {
		count_drop(KILTER_DROP_ROUTES_LIMIT);
		return 0;
	}
	r = bpf_map_lookup_elem(&route_scratch, &zero);
	if (!r)
		return 0;
	/* Shared by nested runs on this CPU: worst case one template's text is another's, for
	 * a path that was first seen in the very same microsecond. */
	r->workload = workload;
	r->path_len = len < KILTER_ROUTE_PATH_LEN ? len : KILTER_ROUTE_PATH_LEN;
	for (__u32 i = 0; i < KILTER_ROUTE_PATH_LEN; i += 8) {
		__u64 w = word_at(sc, at + i);

		if (i >= len)
			w = 0; /* a query may hold secrets */
		else if (len - i < 8)
			w &= (1ull << 8 * (len - i)) - 1;
		__builtin_memcpy(r->path + i, &w, sizeof(w));
	}
	err = map_insert(&routes, &id, r);
	if (err == MAP_TAKEN)
		return id;
	if (err) {
		count_drop(KILTER_DROP_ROUTES_FULL);
		return 0;
	}
	__sync_fetch_and_add(count, one);
	return id;
}

/* One byte of the path; 1: it ends here. Global, so that the verifier takes it once. */
__noinline int route_step(__u32 slot, __u32 at)
{
	struct scratch *sc = scratch_at(slot);
	__u8 c;

	if (!sc)
		return 1;
	c = sc->buf[at & (SCRATCH_BYTES - 1)];
	if (c == ' ' || c == '?' || c == '#')
		return 1;
	kilter_route_byte(&sc->route, c);
	return 0;
}

/*
 * Raw path -> route id of the paths seen lately on this CPU: most requests ask for few paths,
 * and eight bytes a turn is cheaper than one. Direct-mapped; the 64-bit tag is trusted.
 */
#define ROUTE_CACHE 512

struct route_cached {
	__u64 tag;
	__u32 workload, id;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, ROUTE_CACHE);
	__type(key, __u32);
	__type(value, struct route_cached);
} route_cache SEC(".maps");

/* Zero bytes of w as 0x80 bits (exact only up to the lowest, which is all that is used). */
#define ZERO_BYTES(w) (((w)-0x0101010101010101ull) & ~(w)&0x8080808080808080ull)

/* Hash of the bytes of the path that starts at sc->buf[at]. */
static __always_inline __u64 path_hash(const struct scratch *sc, __u32 at)
{
	__u64 tag = 0x9e3779b97f4a7c15ull;

	for (int i = 0; i < KILTER_ROUTE_PATH_LEN; i += 8) {
		__u64 w = word_at(sc, at + i), hit;

		hit = ZERO_BYTES(w ^ 0x2020202020202020ull) |
		      ZERO_BYTES(w ^ 0x3f3f3f3f3f3f3f3full) | ZERO_BYTES(w ^ 0x2323232323232323ull);
		if (hit) {
			hit = (hit & -hit) >> 7; /* the terminator's byte */
			tag = (tag ^ (w & (hit - 1))) * 0xff51afd7ed558ccdull;
			break;
		}
		tag = (tag ^ w) * 0xff51afd7ed558ccdull;
		tag ^= tag >> 32;
	}
	return tag ^ tag >> 29;
}

/* A path that was not seen lately, byte by byte. A global function: verified once. */
__noinline __u32 route_find(__u32 slot, __u32 workload, __u32 at, __u32 end)
{
	struct scratch *sc = scratch_at(slot);
	__u32 id, len;

	if (!sc)
		return 0;
	kilter_route_begin(&sc->route, workload);
	for (len = 0; len < KILTER_ROUTE_PATH_LEN; len++)
		if (at + len >= end || route_step(slot, at + len))
			break;
	id = kilter_route_end(&sc->route);
	len += forgotten(sc->zero);
	if (!bpf_map_lookup_elem(&routes, &id))
		id = route_learn(id, workload, sc, at, len);
	return id;
}

/* Route of the path that starts at sc->buf[at] and ends at a space, '?', '#' or `end`. */
static __always_inline __u32 route_by_tag(struct scratch *sc, __u32 workload, __u32 at, __u32 end,
					  __u64 tag)
{
	/* Caller and callee on one node ask for the same path in turns: a slot each. */
	__u32 slot = (tag >> 40 ^ workload) & (ROUTE_CACHE - 1), id;
	struct route_cached *cached = bpf_map_lookup_elem(&route_cache, &slot);

	if (!cached)
		return 0;
	if (cached->tag == tag && cached->workload == workload)
		return cached->id;
	id = route_find(sc->slot, workload, at, end);
	/* A nested run may write between these: tag last, and a torn entry has the wrong one. */
	cached->tag = 0;
	cached->workload = workload;
	cached->id = id;
	cached->tag = tag;
	return id;
}

__noinline __u32 route_of(__u32 slot, __u32 workload, __u32 at, __u32 end)
{
	struct scratch *sc = scratch_at(slot);

	return sc ? route_by_tag(sc, workload, at, end, path_hash(sc, at)) : 0;
}

#endif
